"""InfoNCE against the definition, and the mistakes that other implementations made."""

import math

import pytest
import torch

from trainer.loss import in_batch_accuracy, info_nce


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(
    q: torch.Tensor, p: torch.Tensor, temperature: float, excluded: set[tuple[int, int]] = frozenset()
) -> float:  # type: ignore[assignment]
    total = 0.0
    for i, query in enumerate(q):
        scores = [float(query @ passage) / temperature for passage in p]
        kept = [s for j, s in enumerate(scores) if (i, j) not in excluded]
        total += math.log(sum(math.exp(s) for s in kept)) - scores[i]
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
    assert float(info_nce(q, p, excluded=mask)) == pytest.approx(by_hand(q, p, 0.02, {(0, 4), (2, 1)}), rel=1e-5)


def test_every_passage_is_a_negative_of_every_other_query():
    """Not the two-way softmax of a micro-batch of one: another query's passages count."""
    q, p = unit(4, 8), unit(8, 8, seed=1)
    for j in range(8):
        moved = p.clone()
        moved[j] = -moved[j]
        assert float(info_nce(q, moved, temperature=1)) != pytest.approx(float(info_nce(q, p, temperature=1)))


def test_perfect_and_uniform():
    assert float(info_nce(torch.eye(4), torch.eye(4))) == pytest.approx(0, abs=1e-6)
    same = torch.ones(4, 1)
    assert float(info_nce(same, same)) == pytest.approx(math.log(4))


def test_accuracy():
    q = torch.eye(3)
    assert in_batch_accuracy(q, q) == 1
    assert in_batch_accuracy(q, q[[0, 2, 1]]) == pytest.approx(1 / 3)


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"queries \(4, 8\) and passages \(3, 8\)"):
        info_nce(unit(4, 8), unit(3, 8))
    with pytest.raises(ValueError, match="do not fit"):
        info_nce(unit(4, 8), unit(4, 7))
    with pytest.raises(ValueError, match="own positive"):
        info_nce(unit(2, 8), unit(2, 8), excluded=torch.eye(2, dtype=torch.bool))
