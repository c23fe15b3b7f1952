"""InfoNCE, once: a pure function of two embedding matrices and a mask (arXiv 2401.00368, equation 2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def info_nce(queries: Tensor, passages: Tensor, *, temperature: float = 0.02, excluded: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding each query's positive among all passages.

    ``queries`` (Q, D) and ``passages`` (P, D) are unit rows; the first Q passages are the positives, in
    the order of the queries, and the rest are hard negatives that every query sees. ``excluded`` (Q, P)
    marks pairs to leave out because the passage is a known positive of that query. Returns a scalar;
    raises ValueError on shapes that do not fit or where a query's own positive is excluded.
    """
    count = len(queries)
    if passages.ndim != 2 or queries.shape[1:] != passages.shape[1:] or len(passages) < count:
        raise ValueError(
            f"queries {tuple(queries.shape)} and passages {tuple(passages.shape)} do not fit: "
            "give (Q, D) and (P, D) with P >= Q, the positives first"
        )
    scores = queries @ passages.T / temperature  # (Q, P)
    if excluded is not None:
        if bool(excluded.diagonal().any()):
            raise ValueError("excluded marks a query's own positive: its diagonal must be False")
        scores = scores.masked_fill(excluded, float("-inf"))
    return F.cross_entropy(scores, torch.arange(count, device=scores.device))


def in_batch_accuracy(queries: Tensor, passages: Tensor) -> float:
    """Share of queries whose positive scores highest among all passages; layout as in :func:`info_nce`."""
    best = (queries @ passages.T).argmax(dim=1)
    return float((best == torch.arange(len(queries), device=best.device)).float().mean())
