"""From answers to examples: a pure reading of the log, in the order of the requests.

The order in which answers came, and on how many machines, makes no difference, and neither does making
them again. ``examples.jsonl`` is what ``trainer train`` reads (source kind ``examples``); what was turned
down is in ``rejected.jsonl``, with one reason each and the raw text.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ragkit.task import TASKS as HOUSE_TASKS
from trainer.answers import ANSWERS, EXAMPLES, REJECTED, Index, Record, Whole, generator_of
from trainer.answers import TASKS as TASKS_FILE
from trainer.checks import COLUMNS, check_answer, check_tasks, field_languages
from trainer.contamination import Evaluation
from trainer.dedup import NearlySeen, Seen
from trainer.languages import language
from trainer.parse import Rejected
from trainer.slots import QUESTION


@dataclass
class Filters:
    """What is checked beyond a single answer. Both are off unless asked for."""

    evaluation: Evaluation | None = None  # nothing that stands in these sets
    near: float = 0.0  # similarity from which two examples (questions alone) are near duplicates; 0: off


@dataclass
class Derived:
    tasks: int = 0
    examples: int = 0
    rejected: Counter[str] = field(default_factory=Counter)  # by reason


def derive(folder: Path, filters: Filters | None = None, *, keep_tasks: bool = False) -> Derived:
    """Write tasks.jsonl, examples.jsonl and rejected.jsonl from the answers. ``keep_tasks`` leaves the first as
    it is: requests for examples have been drawn from it."""
    filters = filters or Filters()
    index = Index(folder / ANSWERS)
    result = Derived()
    with Whole(folder / REJECTED) as rejected:
        with Whole(folder / TASKS_FILE, keep=keep_tasks) as tasks:
            for record in tasks_from(index.records("tasks")):
                if "reason" in record:
                    rejected.write(record)
                    result.rejected[record["reason"]] += 1
                else:
                    tasks.write(record)
                    result.tasks += 1
        with Whole(folder / EXAMPLES) as examples:
            asked = itertools.chain(index.records("examples"), index.records("questions"))
            for record in examples_from(asked, filters):
                if "reason" in record:
                    rejected.write(record)
                    result.rejected[record["reason"]] += 1
                else:
                    examples.write(record)
                    result.examples += 1
    return result


def tasks_from(answers: Iterator[Record]) -> Iterator[Record]:
    """A record for each task, and one with a reason for each that is turned down."""
    seen = Seen()
    for answer in answers:
        try:
            checked = list(check_tasks(answer["kind"], answer["text"], refused=answer["refused"]))
        except Rejected as why:
            yield _rejection(answer, why)
            continue
        for task, why in checked:
            if why is None and seen.add(answer["kind"], task):
                why = Rejected("duplicate")
            if why is not None:
                yield {**_rejection(answer, why), "text": task}
            else:
                yield {
                    "kind": answer["kind"], "task": task, "request": answer["id"], "generator": generator_of(answer)
                }  # fmt: skip


def examples_from(answers: Iterator[Record], filters: Filters) -> Iterator[Record]:
    """A record for each example, or one with a reason."""
    seen = Seen()
    near: dict[str, NearlySeen] = {}
    for answer in answers:
        try:
            fields = check_answer(answer["kind"], answer["slots"], answer["text"], refused=answer["refused"])
            example = example_record(answer, fields)
            _require_new(example, seen, near, filters)
        except Rejected as why:
            yield _rejection(answer, why)
        else:
            yield example


def example_record(answer: Record, fields: dict[str, str]) -> Record:
    """The row that the trainer reads, traceable to its request."""
    kind, slots = answer["kind"], answer["slots"]
    columns = COLUMNS[kind]
    spoken = {**slots, **dict(field_languages(kind, slots))}
    found = spoken.get(columns.positive if columns.positive in fields else "document_language")  # None: not said
    return {
        "query": fields[columns.query],
        "positive": fields.get(columns.positive) or slots[columns.positive],
        "instruction": slots.get("task") or HOUSE_TASKS["question-answering" if kind == QUESTION else kind].instruction,
        "negatives": [fields[columns.negative]] if columns.negative else [],
        "kind": kind,
        "query_language": language(spoken[columns.query]).code,
        "document_language": language(found).code if found else "",
        "generator": generator_of(answer),
        "slots": {name: value for name, value in slots.items() if name not in ("task", "passage")},
        "request": answer["id"],
    }


def _require_new(example: Record, seen: Seen, near: dict[str, NearlySeen], filters: Filters) -> None:
    if seen.add(example["query"], example["positive"]):
        raise Rejected("duplicate")
    if filters.evaluation:
        texts = {
            "query": example["query"],
            "positive": example["positive"],
            "negative": "\n\n".join(example["negatives"]),
        }
        for name, text in texts.items():
            if filters.evaluation.shares(text):
                raise Rejected("in an evaluation set", name)
    if filters.near:
        index = near.setdefault(example["kind"], NearlySeen(filters.near))
        asked, found = example["query"], example["positive"]
        text = asked if example["kind"] == QUESTION else f"{asked}\n{found}"  # several are asked about one passage
        if other := index.add(example["request"], text):
            raise Rejected("near duplicate", f"of {other}")


def _rejection(answer: Record, why: Rejected) -> Record:
    cut = why.reason == "not JSON" and answer["finish"] == "length"
    return {
        "reason": "cut off" if cut else why.reason, "detail": why.detail, "stage": answer["stage"],
        "kind": answer["kind"], "slots": answer["slots"], "generator": generator_of(answer), "finish": answer["finish"],
        "request": answer["id"], "text": answer["text"],
    }  # fmt: skip
