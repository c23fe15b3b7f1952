"""Scores as grids: a number for each model and line, where a line is a subset of a split of a task.

Which lines belong together is decided here: BEIR, the other datasets of MTEB English v1, MIRACL, MLDR, bitext, and
the tasks that are in no benchmark, sorted by what was measured of them. A mean is over a task's lines first, then
over tasks, as mteb has it, and only over the lines that all models of the grid have.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainer.published import PublishedTable, Suite, published
from trainer.scores import ModelScores, Score

POINTS = 100  # a file's 0.5 is the paper's 50
NDCG = "ndcg_at_10"
WITHIN, ACROSS = "one-language", "across-languages"  # retrieval sets of one's own

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


def grids(models: Sequence[ModelScores]) -> Iterator[Grid]:
    """BEIR, the other datasets of MTEB English v1, MIRACL, MLDR, bitext; then the tasks that are in no benchmark."""
    english = published().suites["mteb-eng-v1"]
    datasets = published().tables["mteb-datasets"]
    beir = english.types["Retrieval"]
    others = [t for t in english.tasks if t not in beir]
    for name, title, tasks in (
        ("beir", "BEIR by dataset", beir),
        ("mteb-datasets", "MTEB English v1: the other datasets", others),
    ):

        def counted(s: Score, task: str) -> bool:
            return counts(s, task, english)

        yield from _grid(models, name, title, tasks, "main", counted, datasets, by_task=True)
    for task, split, name, title, metric in BY_LANGUAGE:
        of_split: Callable[[Score, str], bool] = lambda s, _, split=split: s.split == split  # noqa: E731
        yield from _grid(models, name, title, [task], metric, of_split, published().tables[name])
    yield from _grid(
        models, "bitext", "Bitext mining", BITEXT, "main", None, published().tables["bitext"], by_task=True
    )
    known = {t for suite in published().suites.values() for t in suite.tasks}
    known |= {task for task, *_ in BY_LANGUAGE} | set(BITEXT)
    own: dict[str, list[str]] = defaultdict(list)
    for task in sorted({task for model in models for task in model.tasks} - known):
        own[_sort(next(m.tasks[task] for m in models if task in m.tasks))].append(task)
    for name, title, metric in (
        (WITHIN, "Retrieval within a language", NDCG),
        (ACROSS, "Retrieval across languages", NDCG),
        ("sts", "Semantic textual similarity", "cosine_spearman"),
        ("pairs", "Parallel sentences", "f1"),
        ("others", "Other tasks", "main"),
    ):
        yield from _grid(models, name, title, own[name], metric, None, None)


def _sort(scores: Sequence[Score]) -> str:
    """Which table a task of one's own belongs to, by what was measured of it."""
    metrics = scores[0].metrics
    if NDCG in metrics and metrics[NDCG] == scores[0].main:
        return ACROSS if any(q != p for q, p in map(language_pair, scores)) else WITHIN
    return (
        "sts" if "cosine_spearman" in metrics else "pairs" if "f1" in metrics and "precision" in metrics else "others"
    )


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


def counts(score: Score, task: str, suite: Suite) -> bool:
    split = suite.splits.get(task, suite.split)
    return (not split or score.split == split) and suite.subsets.get(task, score.subset) == score.subset
