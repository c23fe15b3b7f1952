"""What the trainer reads: sources of examples, drawn by ratio into task-homogeneous batches.

A source is a JSONL file (or several) with one instruction; a batch comes from one source, so that its
in-batch negatives are of the same task and language and cannot be told apart by either. Within a batch
no text is positive twice, since a repeated positive would be its own negative. Everything that is not
used is counted by reason. Reading, drawing and batching depend on the seed alone.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ragkit.task import TASKS, Task


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A query, the passage it should find, and passages it should not. Texts are bare: the prompt is
    added from ``instruction`` when the batch is tokenised."""

    query: str
    positive: str
    instruction: str = ""  # "" where the source's applies
    negatives: tuple[str, ...] = ()
    positive_id: str = ""  # of the passage in its collection, where known: the same id is the same passage
    negative_ids: tuple[str, ...] = ()  # one a negative, or none at all
    known: tuple[str, ...] = ()  # texts or ids of the query's other positives, which must not be its negatives


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one kind and task. ``ratio`` is the share of its examples drawn for the run."""

    kind: str  # a key of READERS
    path: str | list[str]  # below the data folder; may hold wildcards
    instruction: str | list[str] = ""  # names of TASKS or sentences, one drawn per example; "" where examples carry it
    ratio: float = 1.0
    where: dict[str, str] = field(default_factory=dict)  # take only records with these values


Record = dict[str, Any]
Reader = Callable[[Iterable[Record], random.Random], Iterator[TrainingExample]]


def read_records(path: Path) -> Iterator[Record]:
    """Records of a JSONL file, gzipped or not. Raises ValueError naming file and line where one is broken."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error


def _examples(records: Iterable[Record], _: random.Random) -> Iterator[TrainingExample]:
    """The trainer's own form: query, positive, and optionally negatives and instruction."""
    for r in records:
        yield TrainingExample(r["query"], r["positive"], r.get("instruction", ""), tuple(r.get("negatives", ())))


def _qa(records: Iterable[Record], rng: random.Random) -> Iterator[TrainingExample]:
    """A question and the paragraph that answers it. The title leads half of the paragraphs: passages
    come with a title from BEIR collections and without one from a split document."""
    for r in records:
        title = r.get("title", "") if rng.random() < 0.5 else ""
        yield TrainingExample(r["query"], f"{title} {r['pos']}".strip())


def _bitext(records: Iterable[Record], rng: random.Random) -> Iterator[TrainingExample]:
    """A text and its translation, in either direction."""
    for r in records:
        query, positive = (r["src"], r["tgt"]) if rng.random() < 0.5 else (r["tgt"], r["src"])
        yield TrainingExample(query, positive)


def _pages(records: Iterable[Record], rng: random.Random) -> Iterator[TrainingExample]:
    """The title and summary of a page in one language, and its text in another: records with the same
    ``_id`` are the same page. Batches mix languages, so that language alone finds nothing."""
    pages: dict[str, list[Record]] = {}
    for r in records:
        pages.setdefault(r["_id"], []).append(r)
    for versions in pages.values():
        rng.shuffle(versions)
        for asked, found in zip(versions, versions[1:] + versions[:1], strict=True):
            if asked is not found:
                yield TrainingExample(
                    f"{asked['title']} {asked.get('desc') or ''}".strip(), f"{found['title']} {found['text']}"
                )


def _synthetic(records: Iterable[Record], _: random.Random) -> Iterator[TrainingExample]:
    """LLM-written examples in the paper's keys (v3 tables 8 to 13); each asymmetric one carries its task."""
    for r in records:
        if "user_query" in r:  # short-long
            yield TrainingExample(r["user_query"], r["positive_document"], r["task"], (r["hard_negative_document"],))
        elif "input_text" in r:  # long-short: the label is the document
            yield TrainingExample(r["input_text"], r["label"], r["task"], (r["misleading_label"],))
        elif "input" in r:  # short-short, long-long
            yield TrainingExample(r["input"], r["positive_document"], r["task"])
        else:  # the symmetric kinds have fixed instructions
            task = TASKS["bitext" if r["kind"] == "bitext" else "sts"]
            yield TrainingExample(r["S1"], r["S2"], task.instruction, (r["S3"],))


READERS: dict[str, Reader] = {
    "examples": _examples,
    "qa": _qa,
    "bitext": _bitext,
    "pages": _pages,
    "synthetic": _synthetic,
}
TOGETHER = {"pages"}  # kinds that read all their files as one; of the others each file is a source of its own


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of a run, in order, and what was not used, by reason."""

    batches: list[list[TrainingExample]]
    drawn: dict[str, int]  # examples per source
    dropped: Counter[str] = field(default_factory=Counter)


def make_plan(sources: Sequence[Source], data: Path, *, batch_size: int, seed: int) -> Plan:
    """Draw each source's share, batch it, and shuffle the batches of all sources.

    Raises ValueError for an unknown kind, a path that matches nothing, or a record that lacks a field.
    """
    batches: list[list[TrainingExample]] = []
    drawn: dict[str, int] = {}
    dropped: Counter[str] = Counter()
    for source in sources:
        if source.kind not in READERS:
            raise ValueError(
                f"source {source.path!r} is of unknown kind {source.kind!r}: use one of {', '.join(READERS)}"
            )
        for name, files in _groups(source, data):
            rng = random.Random(f"{seed} {name}")
            examples = _draw(source, name, files, rng, dropped)
            made, left = homogeneous_batches(examples, batch_size)
            drawn[name] = sum(map(len, made))
            dropped["would not fill a batch"] += left
            batches += made
    random.Random(seed).shuffle(batches)
    return Plan(batches, drawn, dropped)


def _groups(source: Source, data: Path) -> Iterator[tuple[str, list[Path]]]:
    """The source's files, in groups that are batched apart, each with a name."""
    globs = [source.path] if isinstance(source.path, str) else source.path
    for pattern in globs:
        files = sorted(data.glob(pattern))
        if not files:
            raise ValueError(f"source {pattern!r} matches no file below {data}")
        if source.kind in TOGETHER:
            yield pattern, files
        else:
            yield from ((file.relative_to(data).as_posix(), [file]) for file in files)


def _draw(
    source: Source, name: str, files: Sequence[Path], rng: random.Random, dropped: Counter[str]
) -> list[TrainingExample]:
    sentences = [source.instruction] if isinstance(source.instruction, str) else source.instruction
    choices = [TASKS[s].instruction if s in TASKS else s for s in sentences]
    records = (r for file in files for r in read_records(file) if all(r.get(k) == v for k, v in source.where.items()))
    examples: list[TrainingExample] = []
    try:
        for example in READERS[source.kind](records, rng):
            if not example.query.strip() or not example.positive.strip():
                dropped["blank query or positive"] += 1
            elif example.query.strip() == example.positive.strip():
                dropped["positive equals query"] += 1
            else:
                examples.append(replace(example, instruction=example.instruction or rng.choice(choices)))
    except KeyError as error:
        raise ValueError(f"source {name!r} of kind {source.kind!r} has a record without the field {error}") from error
    rng.shuffle(examples)
    share = round(len(examples) * source.ratio)
    dropped["beyond the ratio"] += len(examples) - share
    return examples[:share]


def homogeneous_batches(examples: Sequence[TrainingExample], size: int) -> tuple[list[list[TrainingExample]], int]:
    """Full batches in which no text is positive or query twice, and how many examples were left over.
    An example that does not fit one batch waits for the next."""
    batches: list[list[TrainingExample]] = []
    waiting = list(examples)
    while len(waiting) >= size:
        batch: list[TrainingExample] = []
        later: list[TrainingExample] = []
        seen: set[str] = set()
        for example in waiting:
            if len(batch) < size and not {example.query, example.positive} & seen:
                batch.append(example)
                seen |= {example.query, example.positive}
            else:
                later.append(example)
        if len(batch) < size:
            break
        batches.append(batch)
        waiting = later
    return batches, len(waiting)


@dataclass(frozen=True, slots=True)
class Texts:
    """The strings of a batch as the model reads them: queries prompted; positives first, then negatives.
    ``excluded`` lists (query, passage) positions where a passage is that query's positive too."""

    queries: list[str]
    passages: list[str]
    excluded: list[tuple[int, int]]


def batch_texts(batch: Sequence[TrainingExample]) -> Texts:
    positives = [e.positive for e in batch]
    passages = positives + [text for e in batch for text in e.negatives]
    excluded = [(i, j) for i, own in enumerate(positives) for j, text in enumerate(passages) if i != j and text == own]
    return Texts([Task("training", e.instruction).prompt(e.query) for e in batch], passages, excluded)
