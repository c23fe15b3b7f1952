"""InfoNCE against the definition, and the mistakes that other implementations made."""

import math

import pytest
import torch

from trainer.loss import distil, in_batch_accuracy, info_nce, matryoshka


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(
    q: torch.Tensor,
    p: torch.Tensor,
    temperature: float,
    excluded: frozenset[tuple[int, int]] = frozenset(),
    margin: float = math.inf,
    hardness: float = 0.0,
) -> float:
    """The definition, one pair at a time in plain Python numbers."""
    total = 0.0
    for i, query in enumerate(q.tolist()):
        cosines = [sum(a * b for a, b in zip(query, passage, strict=True)) for passage in p.tolist()]
        terms = [math.exp(cosines[i] / temperature)]
        for j, cosine in enumerate(cosines):
            if j != i and (i, j) not in excluded and cosine <= cosines[i] + margin:
                terms.append(math.exp(hardness * cosine) * math.exp(cosine / temperature))
        total += math.log(sum(terms)) - math.log(terms[0])
    return total / len(q)


@pytest.mark.parametrize("negatives", [0, 1, 5, 12])
@pytest.mark.parametrize("temperature", [0.02, 1.0])
def test_equals_the_definition(negatives: int, temperature: float):
    q, p = unit(4, 8), unit(4 + negatives, 8, seed=1)
    assert float(info_nce(q, p, temperature=temperature)) == pytest.approx(by_hand(q, p, temperature), rel=1e-5)


def test_excluded_pairs_are_no_negatives():
    q, p = unit(3, 8), unit(5, 8, seed=1)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 4] = mask[2, 1] = True
    assert float(info_nce(q, p, excluded=mask)) == pytest.approx(
        by_hand(q, p, 0.02, frozenset({(0, 4), (2, 1)})), rel=1e-5
    )


def test_every_passage_is_a_negative_of_every_other_query():
    """Not the two-way softmax of a micro-batch of one: another query's passages count."""
    q, p = unit(4, 8), unit(8, 8, seed=1)
    for j in range(8):
        moved = p.clone()
        moved[j] = -moved[j]
        assert float(info_nce(q, moved, temperature=1)) != pytest.approx(float(info_nce(q, p, temperature=1)))


def test_a_negative_above_the_positive_is_taken_for_a_positive():
    q, p = unit(6, 8), unit(14, 8, seed=1)
    whole = by_hand(q, p, 0.05)
    for margin in (0.0, 0.1, 0.5):
        expected = by_hand(q, p, 0.05, margin=margin)
        assert float(info_nce(q, p, temperature=0.05, margin=margin)) == pytest.approx(expected, rel=1e-5)
        assert expected < whole
    assert float(info_nce(q, p, temperature=0.05, margin=2.0)) == pytest.approx(whole, rel=1e-5)


def test_hard_negatives_weigh_more():
    q, p = unit(6, 8), unit(14, 8, seed=1)
    for hardness in (1.0, 5.0):
        assert float(info_nce(q, p, temperature=0.1, hardness=hardness)) == pytest.approx(
            by_hand(q, p, 0.1, hardness=hardness), rel=1e-5
        )
    q.requires_grad_()
    [gradient] = torch.autograd.grad(info_nce(q, p, temperature=0.1, hardness=5.0), q)
    scores = q.detach() @ p.T
    weights = torch.exp(scores / 0.1 + 5.0 * scores.masked_fill(torch.eye(6, 14, dtype=torch.bool), 0))
    shares = weights / weights.sum(dim=1, keepdim=True) - torch.eye(6, 14)
    torch.testing.assert_close(gradient, shares @ p / 0.1 / 6)  # as if the weights were constants


def test_all_the_knobs_at_once():
    q, p = unit(5, 8), unit(9, 8, seed=1)
    mask = torch.zeros(5, 9, dtype=torch.bool)
    mask[0, 3] = mask[4, 8] = True
    assert float(info_nce(q, p, temperature=0.02, excluded=mask, margin=0.1, hardness=2.0)) == pytest.approx(
        by_hand(q, p, 0.02, frozenset({(0, 3), (4, 8)}), margin=0.1, hardness=2.0), rel=1e-4
    )


def test_matryoshka_is_the_mean_over_dimensions():
    q, p = unit(4, 8), unit(8, 8, seed=1)
    shortened = [torch.nn.functional.normalize(m[:, :3], dim=-1) for m in (q, p)]
    expected = (by_hand(q, p, 0.02) + by_hand(*shortened, 0.02)) / 2
    assert float(matryoshka(q, p, [3], temperature=0.02)) == pytest.approx(expected, rel=1e-5)
    assert float(matryoshka(q, p, [])) == float(info_nce(q, p))
    with pytest.raises(ValueError, match=r"dimensions \[8\] must lie below the embedding's 8"):
        matryoshka(q, p, [8])


def test_autocast_does_not_reach_the_loss():
    """In bfloat16 a cosine of 0.8 is off by up to 0.004, and a logit at temperature 0.02 by 0.2."""
    q, p = unit(16, 64), unit(32, 64, seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (q @ p.T).dtype == torch.bfloat16  # autocast is on
        assert float(info_nce(q, p)) == pytest.approx(by_hand(q, p, 0.02), rel=1e-5)


def test_perfect_and_uniform():
    assert float(info_nce(torch.eye(4), torch.eye(4))) == pytest.approx(0, abs=1e-6)
    same = torch.ones(4, 1)
    assert float(info_nce(same, same)) == pytest.approx(math.log(4))


def test_accuracy():
    q, nothing = torch.eye(3), torch.zeros(3, 3, dtype=torch.bool)
    assert in_batch_accuracy(q, q, nothing) == 1
    assert in_batch_accuracy(q, q[[0, 2, 1]], nothing) == pytest.approx(1 / 3)
    labels = torch.eye(2)[[0, 0, 0, 1]]  # three queries share a label: a perfect model finds each one's own
    excluded = (labels @ labels.T).bool() & ~torch.eye(4, dtype=torch.bool)
    assert in_batch_accuracy(labels, labels, excluded) == 1


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"queries \(4, 8\) and passages \(3, 8\)"):
        info_nce(unit(4, 8), unit(3, 8))
    with pytest.raises(ValueError, match="do not fit"):
        info_nce(unit(4, 8), unit(4, 7))
    with pytest.raises(ValueError, match="own positive"):
        info_nce(unit(2, 8), unit(2, 8), excluded=torch.eye(2, dtype=torch.bool))


def test_a_teacher_moves_what_it_finds_near():
    """The teacher finds passage 1 as near to query 0 as its own: learning pulls the two cosines together."""
    torch.manual_seed(0)
    queries, passages = (torch.nn.functional.normalize(torch.randn(4, 16), dim=-1) for _ in range(2))
    taught = torch.eye(4)
    taught[0, 1] = 1.0
    learnt = passages.clone().requires_grad_()
    optimizer = torch.optim.Adam([learnt], lr=0.05)
    for _ in range(200):
        unit = torch.nn.functional.normalize(learnt, dim=-1)
        loss = distil(queries, unit, taught, temperature=0.05, teacher_temperature=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chances = (queries @ torch.nn.functional.normalize(learnt, dim=-1).T / 0.05).softmax(dim=1)
    torch.testing.assert_close(chances[0, :2], torch.tensor([0.5, 0.5]), atol=0.05, rtol=0)
    assert chances.diagonal()[1:].min() > 0.9
    exact = distil(queries, passages, queries @ passages.T, temperature=0.05, teacher_temperature=0.05)
    p = (queries @ passages.T / 0.05).softmax(dim=1)
    torch.testing.assert_close(exact, -(p * p.log()).sum(dim=1).mean())  # its own entropy, no less
