"""mteb as the harness: tasks and a model in, mteb's result files out, and every query's own scores beside them.

    OUT/results/<model>/<fingerprint>/<Task>.json            mteb's, by its ResultCache
    OUT/results/<model>/<fingerprint>/<Task>.perquery.json   {subset: {query: {"ndcg@10": ..., ...}}}
    OUT/results/<model>/<fingerprint>/<Task>.store.json      what a store's search cost, see mteb_store.py

A task that has its file is not run again, and of a task that was cut off only the missing subsets are: that is
mteb's cache. What it does not see is changed data: a file whose ``dataset_revision`` is another is set aside here.
The scores by query are what a significance test needs and mteb throws away; they are taken while mteb has them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
from mteb import ResultCache

from ragkit import metrics
from trainer.instructions import instruction_of

log = logging.getLogger(__name__)

PER_QUERY, STORE = ".perquery.json", ".store.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """mteb's TaskResult of each task that was done, and why others were not."""

    results: list[Any]
    failed: dict[str, str]  # task -> reason


def run(model: Any, tasks: Sequence[Any], out: Path, *, batch: int = 64) -> Outcome:
    """Evaluate ``model`` on what it can do of ``tasks``. A task that fails is told, and does not stop the others."""
    cache = ResultCache(out)
    results: list[Any] = []
    failed: dict[str, str] = {}
    for task in tasks:
        if not can_do(model, task):
            log.warning("%s left out: %s can only search", task.metadata.name, model.mteb_model_meta.name)
            continue
        log.info("%s: %s", model.mteb_model_meta.name, task.metadata.name)
        try:
            with recording(model, parts(task), out):
                answer = mteb.evaluate(
                    model,
                    task,
                    cache=cache,
                    co2_tracker=False,
                    show_progress_bar=False,
                    encode_kwargs={"batch_size": batch, "show_progress_bar": False},
                )
        except Exception as error:  # of 131 data sets one may be out of reach, and the rest is worth having
            log.error("%s failed: %s", task.metadata.name, error, exc_info=log.isEnabledFor(logging.DEBUG))
            failed[task.metadata.name] = f"{type(error).__name__}: {error}"
            continue
        results += answer.task_results
    return Outcome(results, failed)


def parts(task: Any) -> list[Any]:
    """Of an aggregate (CQADupstack) the tasks in it, else the task."""
    return list(getattr(task.metadata, "tasks", None) or [task])


def result_file(out: Path, task: str, meta: Any) -> Path:
    """Where mteb's cache keeps the results of ``task``."""
    return ResultCache(out).get_task_result_path(task, meta)


def files(model: Any, tasks: Iterable[Any], out: Path) -> list[Path]:
    """Those of ``tasks`` that ``model`` can do."""
    return [result_file(out, t.metadata.name, model.mteb_model_meta) for t in tasks if can_do(model, t)]


def plan(tasks: Iterable[Any]) -> str:
    """A line for each task: its category, its instruction, and where that comes from."""
    lines: list[str] = []
    for task in tasks:
        for part in parts(task):
            found = instruction_of(part.metadata)
            lines.append(f"{part.metadata.type:24} {part.metadata.name:44} {found.source:5}  {found.task.instruction}")
    return "\n".join(lines)


def can_do(model: Any, task: Any) -> bool:
    """Whether it encodes texts, or the task is nothing but search: a store ranks no given candidates."""
    return hasattr(model, "encode") or task.metadata.type == "Retrieval"


@contextmanager
def recording(model: Any, tasks: Sequence[Any], out: Path) -> Iterator[None]:
    """While it is open, ``tasks`` write the scores of each query of a subset, and a store's notes on it, beside their
    results: when mteb has the run and before it counts the subset as done, so that a killed run computes one subset
    twice at worst."""
    notes: Mapping[tuple[str, str], Any] = getattr(model, "notes", {})

    def recorder(task: Any, file: Path) -> Callable[..., dict[str, float]]:
        inner: Callable[..., dict[str, float]] = task.task_specific_scores
        several = len(task.eval_splits) > 1

        def record(scores: Any, qrels: Any, results: Any, hf_split: str, hf_subset: str) -> dict[str, float]:
            subset = f"{hf_subset} {hf_split}" if several else hf_subset
            add(file.with_suffix(PER_QUERY), subset, metrics.per_query(qrels, results))
            if note := notes.get((task.metadata.name, hf_subset)):
                add(file.with_suffix(STORE), subset, note)
            return inner(scores, qrels, results, hf_split=hf_split, hf_subset=hf_subset)

        return record

    searching = [task for task in tasks if hasattr(task, "task_specific_scores")]
    for task in tasks:
        set_aside(result_file(out, task.metadata.name, model.mteb_model_meta), task.metadata.revision)
    for task in searching:
        task.task_specific_scores = recorder(task, result_file(out, task.metadata.name, model.mteb_model_meta))
    try:
        yield
    finally:  # mteb may hand out the same task again, for the next model
        for task in searching:
            del task.task_specific_scores


def set_aside(file: Path, revision: str) -> None:
    """Rename results of other data under the same name, and what lies beside them: mteb would take them for these.
    The same for a file that a killed run left half written; mteb's are not written whole or not at all."""
    if not file.exists():
        return
    try:
        was = str(json.loads(file.read_text("utf-8"))["dataset_revision"])
    except (ValueError, KeyError, TypeError):
        was = "broken"
    if was == revision:
        return
    log.warning("%s is of revision %s, the data are of %s: measured again", file, was, revision)
    for old in (file, *(file.with_suffix(ending) for ending in (PER_QUERY, STORE))):
        if old.exists():
            old.replace(old.with_name(f"{old.name}.{was}"))


def add(file: Path, key: str, value: Any) -> None:
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    write_json(file, known | {key: value})


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    fresh.write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf-8")
    fresh.replace(file)


def table(results: Iterable[Any]) -> str:
    """A line for each task: its main score, the mean over its splits and subsets, as mteb counts it."""
    lines: list[str] = []
    for result in results:
        subsets = sum(len(entries) for entries in result.scores.values())
        lines.append(f"{result.task_name:44} {100 * float(result.get_score()):7.2f}  of {subsets} subset(s)")
    return "\n".join(lines)
