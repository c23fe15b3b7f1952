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
from functools import partial
from statistics import fmean

from trainer.published import PublishedTable, Suite, published
from trainer.scores import POOLED, ModelScores, Score

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
        in_suite = partial(counts, suite=english)
        yield from _grid(models, name, title, tasks, "main", in_suite, datasets, by_task=True)
    for task, split, name, title, metric in BY_LANGUAGE:
        in_split = partial(_in_split, split=split)
        yield from _grid(models, name, title, [task], metric, in_split, published().tables[name])
    yield from _grid(
        models, "bitext", "Bitext mining", BITEXT, "main", None, published().tables["bitext"], by_task=True
    )
    known = {t for suite in published().suites.values() for t in suite.tasks}
    known |= {task for task, *_ in BY_LANGUAGE} | set(BITEXT)
    own: dict[str, list[str]] = defaultdict(list)
    for task in sorted({task for model in models for task in model.tasks} - known):
        own[_sort([s for model in models for s in model.tasks.get(task, [])])].append(task)
    for name, title, kind, metric, counted in (
        (WITHIN, "Retrieval within a language", "retrieval", NDCG, lambda s, _: s.subset != POOLED and not _crosses(s)),
        (ACROSS, "Retrieval across languages", "retrieval", NDCG, lambda s, _: s.subset != POOLED and _crosses(s)),
        ("pooled", "Retrieval from one pool of languages", "retrieval", NDCG, lambda s, _: s.subset == POOLED),
        ("sts", "Semantic textual similarity", "sts", "cosine_spearman", None),
        ("pairs", "Parallel sentences", "pairs", "f1", None),
        ("others", "Other tasks", "others", "main", None),
    ):
        yield from _grid(models, name, title, own[kind], metric, counted, None)


def _in_split(score: Score, _: str, split: str) -> bool:
    return score.split == split


def _sort(scores: Sequence[Score]) -> str:
    """What kind of task this is, by what was measured of it."""
    metrics = scores[0].metrics if scores else {}
    if NDCG in metrics and metrics[NDCG] == scores[0].main:
        return "retrieval"
    return "sts" if "cosine_spearman" in metrics else "pairs" if {"f1", "precision"} <= metrics.keys() else "others"


def _crosses(score: Score) -> bool:
    asked, read = language_pair(score)
    return asked != read


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
    counted: Callable[[Score, str], bool] | None,  # which subsets and splits of a task: all, where None
    beside: PublishedTable | None,
    *,
    by_task: bool = False,  # a line, and a published column, is a task's mean
) -> Iterator[Grid]:
    """Nothing where no model has a score of these."""
    values: dict[tuple[str, str], dict[tuple[str, str], float]] = {}  # (model, task) -> (split, subset) -> points
    for model in models:
        for task in tasks:
            for s in model.tasks.get(task, []):
                value = s.main if metric == "main" else s.metrics.get(metric)
                if value is not None and (counted is None or counted(s, task)):
                    values.setdefault((model.label, task), {})[s.split, s.subset] = POINTS * value
    points: dict[tuple[str, Line], float] = {}
    lines: list[Line] = []
    for task in tasks:
        places = sorted({place for (_, t), own in values.items() if t == task for place in own}, key=lambda p: p[::-1])
        if by_task and places:
            split, subset = places[0] if len(places) == 1 else ("", "")
            lines.append(Line(task, split, subset, task))
            for model in models:
                own = values.get((model.label, task), {})
                if own.keys() == set(places):
                    points[model.label, lines[-1]] = fmean(own.values())
            continue
        several = len({split for split, _ in places}) > 1
        for split, subset in places:
            parts = [task] if len(tasks) > 1 or beside is None else []
            parts += [subset] if subset != "default" else []
            lines.append(Line(task, split, subset, " ".join([*parts, *([split] if several else [])]) or task))
            for model in models:
                if (value := values.get((model.label, task), {}).get((split, subset))) is not None:
                    points[model.label, lines[-1]] = value
    if points:
        here = tuple(m for m in models if any((m.label, line) in points for line in lines))
        keys = {line: line.task.removesuffix(".v2") for line in lines} if by_task else None
        absent = tuple(m for m in models if m not in here)
        metric = "main score" if metric == "main" else metric.replace("_at_", "@")
        yield Grid(name, title, metric, here, absent, tuple(lines), points, beside, keys)


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
