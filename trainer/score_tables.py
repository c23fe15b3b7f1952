"""Every table of a report, from scores: means by type, then each grid with what was published and its comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from trainer.comparisons import comparison_tables
from trainer.grids import ACROSS, Grid, Line, grids, mean
from trainer.published import MEAN, published
from trainer.scores import ModelScores, other_data
from trainer.suite_means import suite_tables
from trainer.tables import Cell, Head, Kind, Table, differences, notes


def score_tables(
    models: Sequence[ModelScores], against: Sequence[str] = (), reproduces: Mapping[str, str] | None = None
) -> list[Table]:
    """``against``: baselines, by name. ``reproduces``: a model's name -> a published system, beside the known ones.

    Raises ValueError where such a name is no model's or no system's.
    """
    _check(models, [*against, *(reproduces or {})], (reproduces or {}).values())
    known = [*(reproduces or {}).items(), *published().aliases.items()]

    def system_of(model: ModelScores) -> str | None:
        return next((system for name, system in known if model.named(name)), None)

    models = sorted(models, key=lambda m: not any(m.named(name) for name in against))
    tables = [t for name, suite in published().suites.items() for t in suite_tables(models, name, suite, system_of)]
    for grid in grids(models):
        tables.append(grid_table(grid, system_of))
        tables += comparison_tables(grid, against)
    return tables


def _check(models: Sequence[ModelScores], names: Iterable[str], systems: Iterable[str]) -> None:
    for name in names:
        if sum(m.named(name) for m in models) != 1:
            raise ValueError(f"{name!r} must name one model: there are {', '.join(m.label for m in models)}")
    there = {system for table in published().tables.values() for system in table.systems}
    for system in systems:
        if system not in there:
            raise ValueError(f"{system!r} is no published system: there are {', '.join(sorted(there))}")


def grid_table(grid: Grid, system_of: Callable[[ModelScores], str | None]) -> Table:
    """A line a row, a system a column: measured, published, distances."""
    columns: list[Head] = []
    series: list[list[Cell]] = []

    def add(label: str, kind: Kind, value: Callable[[Line], float | None], average: float | None) -> None:
        columns.append(Head(label, kind))
        series.append([*map(value, grid.lines), average])

    for m in grid.models:
        own = _measured(grid, m)
        add(m.label, "measured", own, mean(grid, own))
    if grid.beside:
        for system in grid.beside.systems:
            value = _printed(grid, system)
            add(system, "published", value, _published_mean(grid, system, value))
        for m in grid.models:
            system = system_of(m)
            if system in grid.beside.systems:
                own = series[[c.label for c in columns].index(m.label)]
                printed = series[next(n for n, c in enumerate(columns) if c == Head(system, "published"))]
                columns.append(Head(f"{m.label} − {system}", "distance"))
                series.append(differences(own, printed))
    rows = (*(Head(line.label) for line in grid.lines), Head(MEAN))
    return Table(
        grid.name,
        grid.title,
        f"{grid.metric}, in points" + ("; xx-yy: questions in xx, passages in yy" if grid.name == ACROSS else ""),
        "columns",
        rows,
        tuple(columns),
        tuple(tuple(one[n] for one in series) for n in range(len(rows))),
        tuple(_remarks(grid)),
    )


def _measured(grid: Grid, model: ModelScores) -> Callable[[Line], float | None]:
    return lambda line: grid.points.get((model.label, line))


def _printed(grid: Grid, system: str) -> Callable[[Line], float | None]:
    return lambda line: grid.beside.score(system, grid.key(line)) if grid.beside else None


def _published_mean(grid: Grid, system: str, value: Callable[[Line], float | None]) -> float | None:
    """As printed where it is over the same columns, else computed over the common lines."""
    assert grid.beside
    whole = {grid.key(line) for line in grid.common} == grid.beside.scores.keys() - {MEAN}
    printed = grid.beside.score(system, MEAN)
    return printed if whole and printed is not None else mean(grid, value)


def _remarks(grid: Grid) -> Iterator[str]:
    several = len({line.task for line in grid.lines}) < len(grid.lines) and len({line.task for line in grid.lines}) > 1
    if len(grid.common) < len(grid.lines):
        left = [line.label for line in grid.lines if line not in grid.common]
        published_too = " and the publication" if grid.beside else ""
        yield (
            f"{MEAN}: over the {len(grid.common)} of {len(grid.lines)} lines that all models{published_too} have; "
            f"without {', '.join(left)}"
        )
    if several:
        yield f"{MEAN}: over the lines of a task first, then over tasks"
    for m in grid.models:
        lacking = [line.label for line in grid.lines if (m.label, line) not in grid.points]
        if lacking:
            yield f"Missing for {m.label}: {', '.join(lacking)}"
    yield from other_data(grid.models, (line.task for line in grid.lines))
    if grid.absent:
        yield f"Without any of these: {', '.join(m.label for m in grid.absent)}"
    if grid.beside:
        yield grid.beside.origin
    yield from notes(grid.models)
