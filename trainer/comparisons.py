"""Models against a baseline, line by line, from scores per query: what of a grid's differences is more than luck.

Only like is compared with like: the same queries on both sides, whose scores average to the score that is shown. What
is left out is said. All comparisons of a table are one family for Holm's correction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from statistics import fmean

from trainer.grids import NDCG, POINTS, Grid, Line
from trainer.published import MEAN
from trainer.scores import ModelScores
from trainer.significance import RESAMPLES, Comparison, adjust, compare
from trainer.tables import Head, Table, notes

AGREE = 5e-4  # of a score and the mean of its queries: mteb rounds, and another split would differ by more


def comparison_tables(grid: Grid, against: Sequence[str]) -> Iterator[Table]:
    """For each baseline, every other model on every line, and the mean of all that can be compared."""
    if grid.metric not in ("ndcg@10", "main score"):
        return
    for name in against:
        base = next((m for m in grid.models if m.named(name)), None)
        if base is None:
            continue
        sets, refused = _paired(grid, base)
        others = [m for m in grid.models if m is not base and any(key[0] == m.label for key in sets)]
        if not others:
            if refused:
                yield _refusal(grid, base, refused)
            continue
        # The more is claimed, the smaller a p must be able to get.
        resamples = max(RESAMPLES, 100 * (len(sets) + len(others)))
        family: dict[tuple[str, Line | None], Comparison] = {
            key: compare([differences], resamples=resamples) for key, differences in sets.items()
        }
        shared = [line for line in grid.lines if all((m.label, line) in sets for m in others)]
        if len(shared) > 1:
            for m in others:
                family[m.label, None] = compare([sets[m.label, line] for line in shared], resamples=resamples)
        family = adjust(family)
        lines: list[Line | None] = [line for line in grid.lines if any((m.label, line) in sets for m in others)]
        remarks = [
            f"Difference to {base.label} in points, with its 95 % interval (paired bootstrap over queries). ▲ better, "
            f"▼ worse: p < 0.05 by a two-sided randomisation test, corrected for all {len(family)} comparisons (Holm)",
            *refused,
        ]
        if len(shared) > 1:
            lines.append(None)
            remarks.append(f"{MEAN}: over {len(shared)} sets, each of the same weight")
        yield Table(
            f"{grid.name}-against-{_anchor(base.label)}",
            f"{grid.title}: against {base.label}",
            "ndcg@10, in points",
            "columns",
            tuple(Head(line.label if line else MEAN, "comparison") for line in lines),
            tuple(Head(m.label) for m in others),
            tuple(tuple(family.get((m.label, line)) for m in others) for line in lines),
            (*remarks, *notes([base, *others])),
        )


def _paired(grid: Grid, base: ModelScores) -> tuple[dict[tuple[str, Line], list[float]], list[str]]:
    """Differences per query in points, where both models have the same queries; and why others are left out."""
    sets: dict[tuple[str, Line], list[float]] = {}
    refused: list[str] = []
    for line in grid.lines:
        theirs = base.per_query(line.task, line.split, line.subset)
        for m in grid.models:
            own = m.per_query(line.task, line.split, line.subset)
            if m is base or own is None or theirs is None:
                continue
            if own.keys() != theirs.keys():
                refused.append(f"Not compared: {m.label} on {line.label}, whose queries are not those of {base.label}")
            elif m.data.get(line.task) != base.data.get(line.task):
                refused.append(
                    f"Not compared: {m.label} on {line.label}, whose data or task are not those of {base.label}"
                )
            elif apart := [x.label for x in (m, base) if not _agrees(grid, x, line)]:
                refused.append(
                    f"Not compared: {line.label}, where the queries of {apart[0]} do not average to its score"
                )
            else:
                sets[m.label, line] = [POINTS * (own[q] - theirs[q]) for q in sorted(own)]
    return sets, list(dict.fromkeys(refused))


def _agrees(grid: Grid, model: ModelScores, line: Line) -> bool:
    told = next((s for s in model.tasks[line.task] if (s.split, s.subset) == (line.split, line.subset)), None)
    queries = model.per_query(line.task, line.split, line.subset) or {}
    return told is not None and bool(queries) and abs(told.metrics.get(NDCG, -1.0) - fmean(queries.values())) < AGREE


def _refusal(grid: Grid, base: ModelScores, refused: Sequence[str]) -> Table:
    name = f"{grid.name}-against-{_anchor(base.label)}"
    return Table(name, f"{grid.title}: against {base.label}", "ndcg@10", "columns", (), (), (), tuple(refused))


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "baseline"
