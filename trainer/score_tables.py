"""From scores to tables: MTEB by type and dataset, BEIR, MIRACL, MLDR, bitext, and whatever sets are one's own.

A line is a subset of a split of a task; a mean is over a task's lines first, then over tasks, as mteb has it, and
only over what all models of the table have, which a remark says. Published numbers stand beside, and the distance
of a model to the publication that it reproduces. One table of comparisons per baseline, from scores per query.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainer.published import MEAN, PublishedTable, Suite, published
from trainer.scores import ModelScores, Score
from trainer.significance import RESAMPLES, Comparison, adjust, compare
from trainer.tables import Cell, Head, Kind, Table

POINTS = 100  # a file's 0.5 is the paper's 50
AGREE = 5e-4  # of a score and the mean of its queries: mteb rounds, and another split would differ by more
NDCG = "ndcg_at_10"
MEAN_OF_TYPES = "Mean of types"

# Benchmarks of one task: mteb's task, its split, our published table, our title, metric.
BY_LANGUAGE = (
    ("MIRACLRetrieval", "dev", "miracl", "MIRACL, dev", NDCG),
    ("MIRACLRetrieval", "dev", "miracl-recall", "MIRACL, dev: recall", "recall_at_100"),
    ("MultiLongDocRetrieval", "test", "mldr", "MLDR, test: long documents", NDCG),
)
BITEXT = ("BUCC", "BUCC.v2", "Tatoeba", "Tatoeba.v2")


@dataclass(frozen=True, slots=True)
class Line:
    """What one number of a table is of."""

    task: str
    split: str
    subset: str
    label: str


@dataclass(frozen=True, slots=True)
class Grid:
    """Points of each model on each line; models that have none are left out and named in ``absent``."""

    name: str
    title: str
    metric: str
    models: tuple[ModelScores, ...]
    absent: tuple[ModelScores, ...]
    lines: tuple[Line, ...]
    points: Mapping[tuple[str, Line], float]  # (label of a model, line)
    beside: PublishedTable | None = None
    keys: Mapping[Line, str] | None = None  # a line's column in ``beside``

    def key(self, line: Line) -> str:
        return (self.keys or {}).get(line, line.subset)

    @property
    def common(self) -> tuple[Line, ...]:
        """Lines that a mean is over: all models have them, and the publication, where there is one."""
        return tuple(
            line
            for line in self.lines
            if all((m.label, line) in self.points for m in self.models)
            and (self.beside is None or self.key(line) in self.beside.scores)
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report is asked for beside the tables."""

    against: tuple[str, ...] = ()  # baselines of comparisons, by name
    reproduces: Mapping[str, str] | None = None  # a model's name -> a published system, beside the known ones

    def system(self, model: ModelScores) -> str | None:
        for name, system in (self.reproduces or {}).items():
            if model.named(name):
                return system
        return published().aliases.get(model.name.lower())


def score_tables(models: Sequence[ModelScores], wanted: Wanted = Wanted()) -> list[Table]:
    """Every table that the models' tasks allow. Raises ValueError where a baseline or a published system is unknown."""
    _check(models, wanted)
    models = sorted(models, key=lambda m: not any(m.named(name) for name in wanted.against))
    tables = [t for name, suite in published().suites.items() for t in _suite_tables(models, name, suite, wanted)]
    for grid in grids(models):
        tables.append(grid_table(grid, wanted))
        tables += comparison_tables(grid, wanted)
    return tables


def _check(models: Sequence[ModelScores], wanted: Wanted) -> None:
    labels = ", ".join(m.label for m in models)
    for name in (*wanted.against, *(wanted.reproduces or {})):
        if sum(m.named(name) for m in models) != 1:
            raise ValueError(f"{name!r} must name one model: there are {labels}")
    systems = {system for table in published().tables.values() for system in table.systems}
    for system in (wanted.reproduces or {}).values():
        if system not in systems:
            raise ValueError(f"{system!r} is no published system: there are {', '.join(sorted(systems))}")


# ---- means by type ----


def _suite_tables(models: Sequence[ModelScores], name: str, suite: Suite, wanted: Wanted) -> Iterator[Table]:
    others = {t for other, s in published().suites.items() if other != name for t in s.tasks}
    scored = {task for model in models for task in model.tasks}
    if not (scored & set(suite.tasks)) - others or sum(bool(scored & set(t)) for t in suite.types.values()) < 2:
        return
    values = {m.label: dict(_task_points(models, m, suite)) for m in models}
    here = [m for m in models if values[m.label]]
    types = {kind: tasks for kind, tasks in suite.types.items() if scored & set(tasks)}
    # The tasks of a mean: those that all models have which have any of that type.
    having = {kind: [m for m in here if set(tasks) & values[m.label].keys()] for kind, tasks in types.items()}
    used = {
        kind: [t for t in tasks if having[kind] and all(t in values[m.label] for m in having[kind])]
        for kind, tasks in types.items()
    }
    overall = [t for t in suite.tasks if all(t in values[m.label] for m in here)]

    def row(of: Mapping[str, float]) -> list[Cell]:
        kinds: list[Cell] = [_mean_of(of, tasks) for tasks in used.values()]
        return [*kinds, _mean_of(of, overall), None if None in kinds else fmean(v for v in kinds if v is not None)]  # type: ignore[misc]

    rows = [(Head(m.label), row(values[m.label])) for m in here]
    remarks = [
        f"{kind}: mean over {len(used[kind])} of {len(suite.types[kind])} tasks, those that all models here have"
        for kind in types
        if len(used[kind]) < len(suite.types[kind])
    ]
    whole = len(overall) == len(suite.tasks)
    if not whole:
        remarks.append(f"{MEAN}: over {len(overall)} of {len(suite.tasks)} tasks, those that all models here have")
    for m in here:
        lacking = [t for t in suite.tasks if t in scored and t not in values[m.label]]
        if lacking:
            remarks.append(f"Missing for {m.label}: {', '.join(lacking)}")
    beside = published().tables.get("mteb-categories" if name == "mteb-eng-v1" else name)
    datasets = published().tables["mteb-datasets"]
    columns = [*types, MEAN, MEAN_OF_TYPES]
    if beside:
        same: dict[str, list[Cell]] = {s: [beside.score(s, c) for c in columns] for s in beside.systems}
        rows += [(Head(s, "published"), cells) for s, cells in same.items()]
        remarks.append(beside.origin)
        if name == "mteb-eng-v1" and not whole:
            reached = [wanted.system(m) or "" for m in here] + [datasets.systems[0]]
            for system in dict.fromkeys(s for s in reached if s in datasets.systems):
                same[system] = row({t: v for t in suite.tasks if (v := datasets.score(system, t)) is not None})
                rows.append((Head(f"{system}, the same tasks", "published"), same[system]))
            remarks.append(f"The same tasks: {datasets.origin}")
        for m in here:
            if (system := wanted.system(m)) in same:
                rows.append((Head(f"{m.label} − {system}", "distance"), _differences(row(values[m.label]), same[system])))
    yield Table(
        name,
        f"{suite.title}: means by type",
        "main score of each task, in points; mean over tasks, and over the means of types, as mteb has them",
        "rows",
        tuple(head for head, _ in rows),
        tuple(Head(c) for c in columns),
        tuple(tuple(cells) for _, cells in rows),
        tuple(remarks + _notes(here)),
    )
    if name == "mteb-eng-v1":
        ablations = published().tables["mteb-ablations"]
        yield Table(
            "mteb-ablations",
            ablations.title,
            f"{ablations.metric}, in points",
            "rows",
            tuple(Head(s, "published") for s in ablations.systems),
            tuple(Head(c) for c in ablations.scores),
            tuple(tuple(ablations.score(s, c) for c in ablations.scores) for s in ablations.systems),
            (ablations.origin,),
        )


def _mean_of(values: Mapping[str, float], tasks: Sequence[str]) -> float | None:
    return fmean(values[t] for t in tasks) if tasks and all(t in values for t in tasks) else None


def _differences(values: Sequence[Cell], others: Sequence[Cell]) -> list[Cell]:
    return [
        a - b if isinstance(a, float) and isinstance(b, float) else None for a, b in zip(values, others, strict=True)
    ]


def _task_points(models: Sequence[ModelScores], model: ModelScores, suite: Suite) -> Iterator[tuple[str, float]]:
    """Points of the tasks that a model has whole: every subset of every split that any of the models has."""
    for task in suite.tasks:
        own = {(s.split, s.subset): s.main for s in model.tasks.get(task, []) if _counts(s, task, suite)}
        whole = {(s.split, s.subset) for m in models for s in m.tasks.get(task, []) if _counts(s, task, suite)}
        if own and own.keys() == whole:
            yield task, POINTS * fmean(own.values())


def _counts(score: Score, task: str, suite: Suite) -> bool:
    split = suite.splits.get(task, suite.split)
    return (not split or score.split == split) and suite.subsets.get(task, score.subset) == score.subset


# ---- scores by line ----


def grids(models: Sequence[ModelScores]) -> Iterator[Grid]:
    """BEIR, the other datasets of MTEB English v1, MIRACL, MLDR, bitext; then the tasks that are in no benchmark."""
    english = published().suites["mteb-eng-v1"]
    datasets = published().tables["mteb-datasets"]
    for name, title, tasks in (
        ("beir", "BEIR by dataset", english.types["Retrieval"]),
        ("mteb-datasets", "MTEB English v1: the other datasets", [t for t in english.tasks if t not in english.types["Retrieval"]]),
    ):  # fmt: skip
        def counted(s: Score, task: str) -> bool:
            return _counts(s, task, english)

        yield from _grid(models, name, title, tasks, "main", counted, datasets, by_task=True)
    for task, split, name, title, metric in BY_LANGUAGE:
        of_split: Callable[[Score, str], bool] = lambda s, _, split=split: s.split == split  # noqa: E731
        yield from _grid(models, name, title, [task], metric, of_split, published().tables[name])
    yield from _grid(models, "bitext", "Bitext mining", BITEXT, "main", None, published().tables["bitext"], by_task=True)
    known = {t for suite in published().suites.values() for t in suite.tasks}
    known |= {task for task, *_ in BY_LANGUAGE} | set(BITEXT)
    own: dict[str, list[str]] = defaultdict(list)
    for task in sorted({task for model in models for task in model.tasks} - known):
        own[_sort(next(m.tasks[task] for m in models if task in m.tasks))].append(task)
    for name, title, metric in (
        ("one-language", "Retrieval within a language", NDCG),
        ("across-languages", "Retrieval across languages: of questions, of passages", NDCG),
        ("sts", "Semantic textual similarity", "cosine_spearman"),
        ("pairs", "Parallel sentences", "f1"),
        ("others", "Other tasks", "main"),
    ):
        yield from _grid(models, name, title, own[name], metric, None, None)


def _sort(scores: Sequence[Score]) -> str:
    """Which table a task of one's own belongs to, by what was measured of it."""
    metrics = scores[0].metrics
    if NDCG in metrics and metrics[NDCG] == scores[0].main:
        return "across-languages" if any(q != p for q, p in map(language_pair, scores)) else "one-language"
    return "sts" if "cosine_spearman" in metrics else "pairs" if "f1" in metrics and "precision" in metrics else "others"


def language_pair(score: Score) -> tuple[str, str]:
    """Of questions and of passages: the subset's name where it is one (``en``, ``zh-Hant``, ``ar-en``), else mteb's."""
    if pair := re.fullmatch(r"([a-z]{2,3})-([a-z]{2,3})", score.subset):
        return pair[1], pair[2]
    if re.fullmatch(r"[a-z]{2,3}(-[A-Z][a-z]{3})?", score.subset):
        return score.subset, score.subset
    codes = [language.partition("-")[0] for language in score.languages] or [score.subset]
    return codes[0], codes[-1] if len(codes) == 2 else codes[0]


def _grid(
    models: Sequence[ModelScores],
    name: str,
    title: str,
    tasks: Sequence[str],
    metric: str,
    counts: Callable[[Score, str], bool] | None,
    beside: PublishedTable | None,
    *,
    by_task: bool = False,  # a published column is a task's, not a subset's
) -> Iterator[Grid]:
    points: dict[tuple[str, Line], float] = {}
    splits = {t: {s.split for m in models for s in m.tasks.get(t, [])} for t in tasks}
    for model in models:
        for task in tasks:
            for s in model.tasks.get(task, []):
                value = s.main if metric == "main" else s.metrics.get(metric)
                if value is not None and (counts is None or counts(s, task)):
                    parts = [task] if len(tasks) > 1 or beside is None else []
                    parts += [s.subset] if s.subset != "default" and not (by_task and counts) else []
                    parts += [s.split] if counts is None and len(splits[task]) > 1 else []
                    points[model.label, Line(task, s.split, s.subset, " ".join(parts) or task)] = POINTS * value
    if points:
        lines = sorted({line for _, line in points}, key=lambda u: (tasks.index(u.task), u.subset, u.split))
        here = [m for m in models if any((m.label, line) in points for line in lines)]
        keys = {line: line.task.removesuffix(".v2") for line in lines} if by_task else None
        absent = tuple(m for m in models if m not in here)
        yield Grid(
            name, title, "main score" if metric == "main" else metric.replace("_at_", "@"),
            tuple(here), absent, tuple(lines), points, beside, keys,
        )  # fmt: skip


def mean(grid: Grid, value: Callable[[Line], float | None]) -> float | None:
    """Over a task's common lines first, then over the tasks; None where a value is missing."""
    by_task: dict[str, list[float | None]] = defaultdict(list)
    for line in grid.common:
        by_task[line.task].append(value(line))
    if not by_task or any(v is None for values in by_task.values() for v in values):
        return None
    return fmean(fmean(v for v in values if v is not None) for values in by_task.values())


def grid_table(grid: Grid, wanted: Wanted) -> Table:
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
            system = wanted.system(m)
            if system in grid.beside.systems:
                own = series[[c.label for c in columns].index(m.label)]
                printed = series[next(n for n, c in enumerate(columns) if c == Head(system, "published"))]
                columns.append(Head(f"{m.label} − {system}", "distance"))
                series.append(_differences(own, printed))
    rows = (*(Head(line.label) for line in grid.lines), Head(MEAN))
    return Table(
        grid.name,
        grid.title,
        f"{grid.metric}, in points",
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
    if grid.absent:
        yield f"Without any of these: {', '.join(m.label for m in grid.absent)}"
    if grid.beside:
        yield grid.beside.origin
    yield from _notes(grid.models)


def _notes(models: Sequence[ModelScores]) -> list[str]:
    return [f"{m.label}: {m.note}" for m in models if m.note]


# ---- comparisons ----


def comparison_tables(grid: Grid, wanted: Wanted) -> Iterator[Table]:
    """For each baseline, every other model on every line, and the mean of all that can be compared."""
    if grid.metric not in ("ndcg@10", "main score"):
        return
    for name in wanted.against:
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
            f"Difference to {base.label} in points, with its 95 % interval (paired bootstrap over queries). ▲ better, ▼ "
            f"worse: p < 0.05 by a two-sided randomisation test, corrected for all {len(family)} comparisons (Holm)",
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
            (*remarks, *_notes([base, *others])),
        )


def _paired(grid: Grid, base: ModelScores) -> tuple[dict[tuple[str, Line], list[float]], list[str]]:
    """Differences per query in points, where both models have the same queries; and why others are left out."""
    sets: dict[tuple[str, Line], list[float]] = {}
    refused: list[str] = []
    for line in grid.lines:
        theirs = base.queries.get((line.task, line.subset))
        for m in grid.models:
            own = m.queries.get((line.task, line.subset))
            if m is base or own is None or theirs is None:
                continue
            if own.keys() != theirs.keys():
                refused.append(f"Not compared: {m.label} on {line.label}, whose queries are not those of {base.label}")
            elif apart := [x.label for x in (m, base) if not _agrees(grid, x, line)]:
                refused.append(f"Not compared: {line.label}, where the queries of {apart[0]} do not average to its score")
            else:
                sets[m.label, line] = [POINTS * (own[q] - theirs[q]) for q in sorted(own)]
    return sets, list(dict.fromkeys(refused))


def _agrees(grid: Grid, model: ModelScores, line: Line) -> bool:
    told = next((s for s in model.tasks[line.task] if (s.split, s.subset) == (line.split, line.subset)), None)
    counted = fmean(model.queries[line.task, line.subset].values())
    return told is not None and abs(told.metrics.get(NDCG, -1.0) - counted) < AGREE


def _refusal(grid: Grid, base: ModelScores, refused: Sequence[str]) -> Table:
    name = f"{grid.name}-against-{_anchor(base.label)}"
    return Table(name, f"{grid.title}: against {base.label}", "ndcg@10", "columns", (), (), (), tuple(refused))


def _anchor(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "baseline"
