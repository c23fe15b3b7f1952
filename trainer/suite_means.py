"""Means by type of task, as MTEB's leaderboard has them: over a task's subsets and splits, then over the tasks of a
type; the mean is over tasks, another over the means of types. All of it over the tasks that every model here has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean

from trainer.grids import POINTS, counts
from trainer.published import MEAN, Suite, published
from trainer.scores import ModelScores, other_data
from trainer.tables import Cell, Head, Table, differences, notes

MEAN_OF_TYPES = "Mean of types"


def suite_tables(
    models: Sequence[ModelScores], name: str, suite: Suite, system_of: Callable[[ModelScores], str | None]
) -> Iterator[Table]:
    """The table of a suite and what was published of it; none where no task is the suite's alone, or all are of one
    type. ``system_of`` tells the published system that a model reproduces."""
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
    remarks += other_data(here, suite.tasks)
    beside = published().tables.get("mteb-categories" if name == "mteb-eng-v1" else name)
    datasets = published().tables["mteb-datasets"]
    columns = [*types, MEAN, MEAN_OF_TYPES]
    if beside:
        same: dict[str, list[Cell]] = {s: [beside.score(s, c) for c in columns] for s in beside.systems}
        rows += [(Head(s, "published"), cells) for s, cells in same.items()]
        remarks.append(beside.origin)
        if name == "mteb-eng-v1" and not whole:
            reached = [system_of(m) or "" for m in here] + [datasets.systems[0]]
            for system in dict.fromkeys(s for s in reached if s in datasets.systems):
                same[system] = row({t: v for t in suite.tasks if (v := datasets.score(system, t)) is not None})
                rows.append((Head(f"{system}, the same tasks", "published"), same[system]))
            remarks.append(f"The same tasks, averaged from the datasets. {datasets.origin}")
        for m in here:
            if (system := system_of(m)) in same:
                rows.append(
                    (Head(f"{m.label} − {system}", "distance"), differences(row(values[m.label]), same[system]))
                )
    yield Table(
        name,
        f"{suite.title}: means by type",
        "main score of each task, in points; mean over tasks, and over the means of types, as mteb has them",
        "rows",
        tuple(head for head, _ in rows),
        tuple(Head(c) for c in columns),
        tuple(tuple(cells) for _, cells in rows),
        tuple(remarks + notes(here)),
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


def _task_points(models: Sequence[ModelScores], model: ModelScores, suite: Suite) -> Iterator[tuple[str, float]]:
    """Points of the tasks that a model has whole: every subset of every split that any of the models has."""
    for task in suite.tasks:
        own = {(s.split, s.subset): s.main for s in model.tasks.get(task, []) if counts(s, task, suite)}
        whole = {(s.split, s.subset) for m in models for s in m.tasks.get(task, []) if counts(s, task, suite)}
        if own and own.keys() == whole:
            yield task, POINTS * fmean(own.values())
