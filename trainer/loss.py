"""InfoNCE, once: a pure function of two embedding matrices and a mask (arXiv 2401.00368, equation 2).

What successors added stands here too, each switched off by default: a mask for negatives that score above
the positive (Qwen3-Embedding, arXiv 2506.05176), weights for hard negatives (arXiv 2503.04812, taken up by
EmbeddingGemma), and the same loss on shortened embeddings (Matryoshka, arXiv 2205.13147).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(
    queries: Tensor,
    passages: Tensor,
    *,
    temperature: float = 0.02,
    excluded: Tensor | None = None,
    margin: float | None = None,
    hardness: float = 0.0,
) -> Tensor:
    """Mean cross-entropy of finding each query's positive among all passages.

    ``queries`` (Q, D) and ``passages`` (P, D) are unit rows; the first Q passages are the positives, in
    the order of the queries, and the rest are hard negatives that every query sees. ``excluded`` (Q, P)
    marks pairs to leave out because the passage is no negative of that query. ``margin``: a negative whose
    cosine lies more than this above the positive's is taken for an unlabelled positive and left out.
    ``hardness`` h: a negative of cosine s weighs exp(h·s) in the sum; no gradient flows through the weight.

    Computed in float32, under autocast too: divided by 0.02, a bfloat16 cosine is off by up to 0.2. Returns
    a scalar; raises ValueError on shapes that do not fit or where a query's own positive is excluded.
    """
    count = len(queries)
    if passages.ndim != 2 or queries.shape[1:] != passages.shape[1:] or len(passages) < count:
        raise ValueError(
            f"queries {tuple(queries.shape)} and passages {tuple(passages.shape)} do not fit: "
            "give (Q, D) and (P, D) with P >= Q, the positives first"
        )
    if excluded is not None and bool(excluded.diagonal().any()):
        raise ValueError("excluded marks a query's own positive: its diagonal must be False")
    with torch.autocast(queries.device.type, enabled=False):
        cosines = queries.float() @ passages.float().T  # (Q, P)
        scores = cosines / temperature
        fixed = cosines.detach()
        own = torch.eye(*fixed.shape, dtype=torch.bool, device=fixed.device)
        if hardness:
            scores = scores + hardness * fixed.masked_fill(own, 0)
        left_out = torch.zeros_like(own) if excluded is None else excluded
        if margin is not None:
            left_out = left_out | ((fixed > fixed.diagonal()[:, None] + margin) & ~own)
        return F.cross_entropy(scores.masked_fill(left_out, float("-inf")), torch.arange(count, device=scores.device))


def distil(
    queries: Tensor, passages: Tensor, taught: Tensor, *, temperature: float, teacher_temperature: float
) -> Tensor:
    """Mean cross-entropy between what a teacher finds near each query and what these embeddings do.

    ``taught`` (Q, P) are the teacher's cosines; layout else as in :func:`info_nce`. Nothing is left out: a passage
    that answers the query too is near it to the teacher as well. Cosines of two models need not spread alike: at equal
    temperatures these would be drawn together, or apart, until theirs do.
    """
    with torch.autocast(queries.device.type, enabled=False):
        wanted = (taught.float() / teacher_temperature).softmax(dim=1)
        return F.cross_entropy(queries.float() @ passages.float().T / temperature, wanted)


def matryoshka(queries: Tensor, passages: Tensor, dimensions: Sequence[int], **knobs: object) -> Tensor:
    """Mean of :func:`info_nce` over the whole embeddings and their first ``dimensions``, made unit again.
    Layout and knobs as there. Raises ValueError where a dimension is not below the embedding's."""
    whole = queries.shape[1]
    if not all(0 < d < whole for d in dimensions):
        raise ValueError(f"matryoshka dimensions {list(dimensions)} must lie below the embedding's {whole}")
    losses = [info_nce(queries, passages, **knobs)]  # type: ignore[arg-type]
    for d in dimensions:
        losses.append(info_nce(F.normalize(queries[:, :d], dim=-1), F.normalize(passages[:, :d], dim=-1), **knobs))  # type: ignore[arg-type]
    return torch.stack(losses).mean()


def in_batch_accuracy(queries: Tensor, passages: Tensor, excluded: Tensor) -> float:
    """Share of queries whose positive scores highest among the passages that are not excluded; layout as in
    :func:`info_nce`."""
    best = (queries @ passages.T).masked_fill(excluded, float("-inf")).argmax(dim=1)
    return float((best == torch.arange(len(queries), device=best.device)).float().mean())
