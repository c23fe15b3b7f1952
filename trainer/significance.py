"""Is a difference between two models more than the luck of the questions? Paired tests on scores per query.

The randomisation test (Fisher; for retrieval Smucker, Allan and Carterette, CIKM 2007): were the two models equal,
each query's difference would have had either sign. All signs are tried where there are few, else drawn. The
interval is a paired bootstrap's. Both are SciPy's; what spans several sets is a mean of the sets' means, and
queries are resampled within their set. Holm's correction keeps the chance of one false claim in a whole table at 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.05
RESAMPLES = 9_999  # signs drawn: the smallest two-sided p is 2 / (RESAMPLES + 1)
BOOTSTRAPS = 2_000
BATCH = 200  # resamples in memory at once

Differences = Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True)
class Comparison:
    """Of one model with a baseline, in the unit of the scores."""

    difference: float
    low: float  # 95 % interval
    high: float
    p: float  # two-sided
    queries: int
    adjusted: float = 1.0  # p by Holm over its family: see :func:`adjust`

    @property
    def significant(self) -> bool:
        return self.adjusted < LEVEL


def compare(sets: Sequence[Differences], *, resamples: int = RESAMPLES, seed: int = 0) -> Comparison:
    """``sets``: for each set of queries, model minus baseline per query. Raises ValueError where one is empty."""
    rows = [np.asarray(one, dtype=float) for one in sets]
    if not rows or any(len(row) == 0 for row in rows):
        raise ValueError("a comparison needs at least one query in each set")
    observed = float(np.mean([row.mean() for row in rows]))
    # Weighted so that their sum is the mean of the sets' means: one sign a query serves any number of sets.
    weighted = np.concatenate([row / (len(row) * len(rows)) for row in rows])
    low, high = _interval(rows, seed)
    return Comparison(observed, low, high, _p(weighted, resamples, seed), len(weighted))


def _p(weighted: np.ndarray, resamples: int, seed: int) -> float:
    decided = weighted[weighted != 0]  # a tie has no sign to change
    if len(decided) < 2:
        return 1.0  # either sign of one difference is as extreme

    def total(sample: np.ndarray, axis: int = -1) -> Any:
        return sample.sum(axis=axis)

    if 2 ** len(decided) <= resamples:
        found: Any = stats.permutation_test(
            (decided,), total, permutation_type="samples", vectorized=True, n_resamples=resamples
        )
        return float(found.pvalue)
    random = np.random.default_rng(seed)

    def signs(size: tuple[int, ...]) -> np.ndarray:
        return (random.integers(0, 2, size, dtype=np.int8) * 2 - 1) * decided

    drawn: Any = stats.monte_carlo_test(decided, signs, total, vectorized=True, n_resamples=resamples, batch=BATCH)
    return float(drawn.pvalue)


def _interval(rows: Sequence[np.ndarray], seed: int) -> tuple[float, float]:
    def mean_of_means(*samples: np.ndarray, axis: int = -1) -> Any:
        return sum(sample.mean(axis=axis) for sample in samples) / len(samples)

    if all(len(row) == 1 for row in rows):
        return float("-inf"), float("inf")  # one query a set says nothing about others
    # SciPy refuses a sample of one; doubled, it is the constant that it is.
    samples = [row if len(row) > 1 else np.repeat(row, 2) for row in rows]
    found: Any = stats.bootstrap(
        samples, mean_of_means, vectorized=True, method="percentile", n_resamples=BOOTSTRAPS, batch=BATCH, rng=seed
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def adjust(family: Mapping[Any, Comparison]) -> dict[Any, Comparison]:
    """The same with :attr:`Comparison.adjusted` set: Holm's step-down p over all of ``family``."""
    adjusted = holm([one.p for one in family.values()])
    return {key: replace(one, adjusted=p) for (key, one), p in zip(family.items(), adjusted, strict=True)}


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p: the k-th smallest of m times (m - k + 1), at least the one before, at most 1."""
    result, largest = [1.0] * len(ps), 0.0
    for rank, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, ps[index] * (len(ps) - rank))
        result[index] = min(1.0, largest)
    return result
