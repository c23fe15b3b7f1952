"""Result files of mteb, read from disk: which model has which score on which task.

``ROOT/MODEL/REVISION/TASK.json`` as ``mteb.ResultCache`` writes it (``experiments/NAME/`` below a revision too), and
beside it ``TASK.perquery.json``, ``{subset: {query: {"ndcg@10": ...}}}`` (``"SUBSET SPLIT"`` where a task has several
splits), for tests of significance. mteb itself is not needed. Values are as in the files, 0 to 1; a score that is
NaN, as mteb marks what is missing, is missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

META, PER_QUERY = "model_meta.json", ".perquery.json"
POOLED = "all"  # the subset in which all languages of a set compete


@dataclass(frozen=True, slots=True)
class Score:
    """One subset of one split of a task."""

    split: str
    subset: str
    languages: tuple[str, ...]  # as mteb has them: "eng-Latn"; of queries and passages where there are two
    main: float
    metrics: Mapping[str, float]


@dataclass(slots=True)
class ModelScores:
    """What one model reached. ``label`` is unique among the models read together."""

    name: str
    revision: str
    label: str = ""  # the name without its owner, where that says enough
    note: str = ""
    tasks: dict[str, list[Score]] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)  # task -> revision of its data
    queries: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)  # (task, subset) -> query -> ndcg@10

    def per_query(self, task: str, split: str, subset: str) -> dict[str, float] | None:
        return self.queries.get((task, f"{subset} {split}"), self.queries.get((task, subset)))

    def named(self, name: str) -> bool:
        """Whether ``name`` means this model: its label, its name, or the name without its owner; case is ignored."""
        return name.lower() in {self.label.lower(), self.name.lower(), self.name.rpartition("/")[2].lower()}


def read_scores(roots: Iterable[Path]) -> list[ModelScores]:
    """Every model below ``roots``, in order of roots and names.

    Raises ValueError where there is none, a file is not in mteb's format, or two files disagree about one score.
    """
    roots = list(roots)
    models: dict[tuple[str, str], ModelScores] = {}
    for root in roots:
        for file in sorted(root.rglob("*.json")) if root.is_dir() else [root]:
            if file.name == META or file.name.endswith(PER_QUERY):
                continue
            data = _load(file)
            if not isinstance(data, dict) or not {"task_name", "scores"} <= data.keys():
                if root == file:
                    raise ValueError(f"{file} is no result of mteb: it has no task_name and scores")
                continue
            name, revision, note = _identity(file)
            model = models.setdefault((name, revision), ModelScores(name, revision))
            model.note = model.note or note
            _add(model, file, data)
    if not models:
        raise ValueError(f"no results of mteb (MODEL/REVISION/TASK.json) below {', '.join(map(str, roots))}")
    found = list(models.values())
    for model in found:
        namesakes = [other for other in found if other.named(model.name.rpartition("/")[2])]
        short = model.name.rpartition("/")[2] if len({other.name for other in namesakes}) == 1 else model.name
        alike = sum(other.name == model.name for other in found)
        model.label = short if alike == 1 else f"{short} ({model.revision})"
    return found


def _identity(file: Path) -> tuple[str, str, str]:
    """Name, revision and note of the model that a result file belongs to."""
    folder, experiment = file.parent, ""
    if folder.parent.name == "experiments":
        folder, experiment = folder.parent.parent, folder.name
    meta: Any = _load(folder / META) if (folder / META).exists() else {}
    name = str(meta.get("name") or folder.parent.name.replace("__", "/"))
    return name, f"{folder.name}, {experiment}" if experiment else folder.name, str(meta.get("note") or "")


def _add(model: ModelScores, file: Path, data: Mapping[str, Any]) -> None:
    task = str(data["task_name"])
    try:
        scores = [
            Score(
                split,
                str(entry.get("hf_subset", "default")),
                tuple(entry.get("languages", ())),
                float(entry["main_score"]),
                {k: float(v) for k, v in entry.items() if isinstance(v, int | float) and not isinstance(v, bool)},
            )
            for split, entries in data["scores"].items()
            for entry in entries
            if entry.get("main_score") is not None and not math.isnan(entry["main_score"])
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{file} is no result of mteb ({error!r})") from error
    known = {(s.split, s.subset): s for s in model.tasks.get(task, [])}
    for score in scores:
        before = known.setdefault((score.split, score.subset), score)
        if before.main != score.main:
            raise ValueError(
                f"{model.name}, {task}, {score.split}, {score.subset}: {before.main} in one file and {score.main} in "
                f"{file}: give one of the two folders"
            )
    model.tasks[task] = list(known.values())
    model.data[task] = str(data.get("dataset_revision"))
    beside = file.with_name(file.stem + PER_QUERY)
    if beside.exists():
        for subset, queries in _load(beside).items():
            try:
                values = {str(q): float(v["ndcg@10"]) for q, v in queries.items() if "ndcg@10" in v}
            except (AttributeError, TypeError, ValueError) as error:
                raise ValueError(f"{beside} is not {{subset: {{query: {{metric: value}}}}}} ({error!r})") from error
            if values:
                model.queries[task, subset] = values


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error


def annotate(models: Sequence[ModelScores], notes: Mapping[str, str], given: Mapping[str, str]) -> None:
    """Notes of models: ``given`` wins over the results' own, and these over ``notes``, what is known of a name.
    Raises ValueError where a given note belongs to no model."""
    for name, text in given.items():
        meant = [model for model in models if model.named(name)]
        if not meant:
            raise ValueError(f"no model is named {name!r}: there are {', '.join(m.label for m in models)}")
        for model in meant:
            model.note = text
    for model in models:
        model.note = model.note or next((text for name, text in notes.items() if model.named(name)), "")


def other_data(models: Sequence[ModelScores], tasks: Iterable[str]) -> list[str]:
    """A sentence for each task whose data were not the same for all of these models."""
    found: list[str] = []
    for task in dict.fromkeys(tasks):
        revisions: dict[str, list[str]] = {}
        for model in models:
            if model.tasks.get(task):
                revisions.setdefault(model.data[task], []).append(model.label)
        if len(revisions) > 1:
            parts = "; ".join(f"{', '.join(labels)}: {revision}" for revision, labels in revisions.items())
            found.append(f"Not the same data, so not to be compared: {task}, whose revision was {parts}")
    return found
