"""What the trainer reads: sources of examples, each with its instruction and the share that is drawn.

A source is a JSONL file (or several) of one kind. Texts are bare; the prompt is added when a batch is
tokenised. Every example that is not used is counted by reason; which records make none, the reader of
their kind says. What is drawn depends on the seed alone. ``plan.py`` makes batches of it.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ragkit.task import TASKS, Task

RECIPES = Path(__file__).with_name("recipes")  # that ship, with what people and models wrote for them


@dataclass(frozen=True, slots=True)
class TrainingExample:
    """A query, the passage it should find, and passages it should not. Texts are bare: the prompt is
    added from ``instruction`` when the batch is tokenised."""

    query: str
    positive: str
    instruction: str = ""  # "" where the source's applies
    negatives: tuple[str, ...] = ()
    positive_id: str = ""  # of the passage in its collection, where known: the same id is the same passage
    negative_ids: tuple[str, ...] = ()  # one a negative ("" where it is not known), or none at all
    known: tuple[str, ...] = ()  # texts or ids of the query's other positives, which must not be its negatives
    page: str = ""  # that the positive is a part of, where known

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> TrainingExample:
        """The example that a record of kind ``examples`` is; null is empty, what stands in it besides is let be. Raises
        KeyError without query or positive, ValueError for a text where a list belongs, or for ids of other negatives.
        """
        negatives, negative_ids, known = (_several(record, name) for name in ("negatives", "negative_ids", "known"))
        if negative_ids and len(negative_ids) != len(negatives):
            raise ValueError(f"negative_ids has {len(negative_ids)} for {len(negatives)} negatives: write one for each")
        return cls(
            record["query"] or "",
            record["positive"] or "",
            record.get("instruction") or "",
            negatives,
            _id(record.get("positive_id")),
            tuple(map(_id, negative_ids)),
            tuple(map(_id, known)),
            _id(record.get("page")),
        )

    def record(self) -> dict[str, Any]:
        """What :meth:`of` reads; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value}


def _id(value: Any) -> str:
    """An id as other records name it: 7 and "7" are one."""
    return "" if value is None else str(value)


def _several(record: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    value = record.get(name) or ()
    if isinstance(value, str):
        raise ValueError(f"{name} is a text, {value[:40]!r}: write a list of texts")
    return tuple(value)


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one kind and task. ``ratio`` is the share of its examples drawn for the run. Raises ValueError for one
    below 0 or above 1, and for an instruction that reads like a name and is none of TASKS."""

    kind: str  # a key of READERS, or "public"
    path: str | list[str]  # below the data folder, beside the recipes, or of PUBLIC_SETS; may hold wildcards
    instruction: str | list[str] = ""  # names of TASKS or sentences, one drawn per example; "" where examples carry it
    ratio: float | None = None  # None: all, or what the paper drew of a public set
    where: dict[str, Any] = field(default_factory=dict)  # take only records with these values
    together: bool = False  # draw batches from all its files, or a public set's languages, at once, not one at a time
    in_batch: bool = True  # other queries' passages are negatives; False (labels, clusters): only the query's own
    by_page: bool = False  # parts of one page share a batch, and are harder negatives than other pages'

    def __post_init__(self) -> None:
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise ValueError(f"source {self.path!r} has the ratio {self.ratio}: a share is from 0 to 1")
        for sentence in self.instructions:
            if sentence not in TASKS and re.fullmatch(r"[A-Za-z0-9_-]+", sentence):
                raise ValueError(
                    f"source {self.path!r} has the instruction {sentence!r}, which is no task: use one of "
                    f"{', '.join(TASKS)}, or write a sentence"
                )

    @property
    def instructions(self) -> list[str]:
        return [self.instruction] if isinstance(self.instruction, str) else self.instruction

    @property
    def patterns(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path


Record = dict[str, Any]
Reader = Callable[[Iterable[Record], random.Random], Iterator[TrainingExample]]
Stream = Callable[[random.Random], Iterator[TrainingExample]]


def read_records(path: Path) -> Iterator[Record]:
    """Records of a JSONL file, gzipped or not. Raises ValueError naming file and line where one is broken."""
    return (record for _, record in numbered_records(path))


def numbered_records(path: Path) -> Iterator[tuple[int, Record]]:
    """The same, each with the number of its line; blank lines are passed over, as is a byte order mark."""
    number = 0
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _record(line.removeprefix(codecs.BOM_UTF8), f"{path}, line {number}")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}, after line {number}: cut off or damaged ({error}): get it anew") from error


def _record(line: bytes, where: str) -> Record:
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8 ({error})") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: {line.decode('utf-8').strip()[:40]} is no record: write {{...}}")
    return record


class Text(NamedTuple):
    """A record of BEIR's corpus.jsonl or queries.jsonl."""

    id: str  # "" where it has none
    title: str
    text: str

    @property
    def whole(self) -> str:
        """A passage as it is read: ``"{title} {text}"``, as BEIR and the paper have it."""
        return f"{self.title} {self.text}".strip()


def read_texts(path: Path) -> Iterator[Text]:
    """Raises ValueError naming file and line where a record has no text."""
    for number, record in numbered_records(path):
        title, text = record.get("title") or "", record.get("text")
        if not (isinstance(title, str) and isinstance(text, str)):
            raise ValueError(f"{path}, line {number}: {record!r:.200} has no text, or a title that is none")
        yield Text(_id(record.get("_id")), title, text)


def _examples(records: Iterable[Record], _: random.Random) -> Iterator[TrainingExample]:
    """The trainer's own form: query, positive, and optionally the other fields of TrainingExample."""
    for r in records:
        yield TrainingExample.of(r)


def _qa(records: Iterable[Record], rng: random.Random) -> Iterator[TrainingExample]:
    """A question and the paragraph that answers it. The title leads half of the paragraphs: passages
    come with a title from BEIR collections and without one from a split document; the id is the same."""
    for r in records:
        query, passage, title = r["query"], r["pos"], r.get("title") or ""
        positive = f"{title if rng.random() < 0.5 else ''} {passage}".strip()
        yield TrainingExample(query, positive, positive_id=digest(passage), page=title)


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
                query = f"{asked['title'] or ''} {asked.get('desc') or ''}".strip()
                positive = f"{found['title'] or ''} {found['text']}".strip()
                yield TrainingExample(query, positive, positive_id=str(found["_id"]))


def digest(text: str) -> str:
    """What names a passage, with its title or without, also in a file of questions that does not hold it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _asked(records: Iterable[Record], rng: random.Random) -> Iterator[TrainingExample]:
    """Questions in other languages about the paragraphs of ``qa`` files, and these files' own questions about them.
    A question that holds the ``digest`` of a paragraph asks about it; paragraphs nobody asks about are left out."""
    asked: dict[str, list[str]] = {}
    own: dict[str, list[Record]] = {}
    for r in records:
        if "digest" in r:
            asked.setdefault(r["digest"], []).append(r["query"])
        else:
            own.setdefault(digest(r["pos"]), []).append(r)
    for name, paragraphs in own.items():
        if name in asked:
            for query in [*asked[name], rng.choice(paragraphs)["query"]]:
                yield from _qa([{**paragraphs[0], "query": query}], rng)


def _similar(records: Iterable[Record], _: random.Random) -> Iterator[TrainingExample]:
    """Two sentences that people scored 4 or 5 of 5: the same meaning, but for details."""
    for r in records:
        if float(r["score"]) >= 4:
            yield TrainingExample(r["s1"], r["s2"])


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
    "asked": _asked,
    "similar": _similar,
    "synthetic": _synthetic,
}
TOGETHER = {"pages", "asked"}  # kinds that must read all their files as one; of the others each file is batched apart


@dataclass(frozen=True, slots=True)
class Drawn:
    """The examples of one group of files, shuffled, and what was left out, by reason."""

    name: str
    examples: list[TrainingExample]
    dropped: Counter[str]


def draw(source: Source, data: Path, *, hard_negatives: int, seed: int) -> Iterator[Drawn]:
    """Each group of the source's files, its share of examples with at most ``hard_negatives`` each.

    Raises ValueError for an unknown kind, a path or ``where`` that matches nothing, a record that lacks a field or
    holds what does not belong there, or an instruction that makes no prompt.
    """
    where = _Where(source.where)
    for name, ratio, read in _groups(source, data, where):
        rng = random.Random(f"{seed} {name}")
        dropped: Counter[str] = Counter()
        where.left_out = 0
        stream = _texts_alone(name, source, read(rng), where)
        examples = list(_usable(name, source, stream, hard_negatives, rng, dropped))
        rng.shuffle(examples)
        if source.by_page:
            examples = _by_page(examples, rng)
        share = round(len(examples) * (ratio if source.ratio is None else source.ratio))
        dropped["beyond the ratio"] += len(examples) - share
        dropped["not what where asks for"] += where.left_out
        yield Drawn(name, examples[:share], dropped)
    if source.where and not where.taken:
        have = "; ".join(f"{key} is {', '.join(values) or 'nowhere'}" for key, values in where.met.items())
        raise ValueError(f"source {source.path!r} has no record where {source.where}: in its records {have}")


class _Where:
    """Takes the records of a source that have the values asked for, and remembers those of the others."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        self.wanted = wanted
        self.taken = self.left_out = 0
        self.current: Record | None = None  # that the reader has before it; None while it asks for the next
        self.met: dict[str, dict[str, None]] = {key: {} for key in wanted}  # the first ten of each

    def __call__(self, records: Iterable[Record]) -> Iterator[Record]:
        for record in records:
            if all(record.get(key) == value for key, value in self.wanted.items()):
                self.taken += 1
                self.current = record
                yield record
                self.current = None
            else:
                self.left_out += 1
                for key, values in self.met.items():
                    if len(values) < 10:
                        values[repr(record.get(key))] = None


def _by_page(examples: Sequence[TrainingExample], rng: random.Random) -> list[TrainingExample]:
    """Those of a page together, pages in any order, whatever their size; what is of no page is one of its own."""
    pages: dict[str | int, list[TrainingExample]] = {}
    for place, example in enumerate(examples):
        pages.setdefault(example.page or place, []).append(example)
    order = list(pages.values())
    rng.shuffle(order)
    return [example for page in order for example in page]


def _groups(source: Source, data: Path, where: _Where) -> Iterator[tuple[str, float, Stream]]:
    """The parts of a source that are batched apart: a name, the ratio by default, and its examples."""
    patterns = source.patterns
    if source.kind == "public":
        from trainer.public import HUB, PUBLIC_SETS, groups  # with `datasets`, which only these need

        if told := [knob for knob in ("where", "instruction", "by_page") if getattr(source, knob)]:
            knobs = ", ".join(told)
            raise ValueError(f"source {source.path!r} is public, and has its own way with {knobs}: leave that out")
        mirror = data / "hub"  # OWNER/NAME/files, for machines that are offline
        for pattern in patterns:
            parts = groups(pattern, root=str(mirror) if mirror.is_dir() else HUB)
            if source.together:
                parts = [(pattern, partial(_chained, [stream for _, stream in parts]))]
            yield from ((name, PUBLIC_SETS[name.partition("/")[0]].ratio, stream) for name, stream in parts)
        return
    if source.kind not in READERS:
        raise ValueError(
            f"source {source.path!r} is of unknown kind {source.kind!r}: use one of {', '.join(READERS)}, public"
        )
    every = files_of(source, data)
    if source.together or source.kind in TOGETHER:
        name = patterns[0] if len(patterns) == 1 else f"{patterns[0]} and {len(patterns) - 1} more"
        yield name, 1.0, partial(_read, source.kind, where, every)
    else:
        yield from ((_name(file, data), 1.0, partial(_read, source.kind, where, [file])) for file in every)


def files_of(source: Source, data: Path) -> list[Path]:
    """What a source reads, each once; of public sets what ``data`` has a copy of. Raises ValueError for a path that
    matches nothing, and for an unknown public set."""
    every: list[Path] = []
    if source.kind == "public":
        from trainer.public import mirrored

        return [file for pattern in source.patterns for file in mirrored(pattern, data / "hub")]
    for pattern in source.patterns:
        if Path(pattern).is_absolute():
            raise ValueError(f"source {pattern!r} is an absolute path: write it from the data folder on, here {data}")
        if not (files := sorted(data.glob(pattern)) or sorted(RECIPES.glob(pattern))):
            raise ValueError(f"source {pattern!r} matches no file below {data}")
        every += [file for file in files if file not in every]
    return every


def _name(file: Path, data: Path) -> str:
    return (file.relative_to(data) if file.is_relative_to(data) else file.relative_to(RECIPES)).as_posix()


def _read(kind: str, where: _Where, files: list[Path], rng: random.Random) -> Iterator[TrainingExample]:
    return READERS[kind](where(r for file in files for r in read_records(file)), rng)


def _chained(streams: Sequence[Stream], rng: random.Random) -> Iterator[TrainingExample]:
    for stream in streams:
        yield from stream(rng)


def _texts_alone(
    name: str, source: Source, examples: Iterable[TrainingExample], where: _Where
) -> Iterator[TrainingExample]:
    """The examples as they are. Raises ValueError that names the source, and the record, where one cannot be made or
    holds another thing than a text; what a file or a public set says of itself is let through."""
    try:
        for example in examples:
            for text in (example.query, example.positive, example.instruction, *example.negatives):
                if not isinstance(text, str):
                    raise TypeError(f"{text!r:.80} stands where a text belongs")
            yield example
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, ValueError) and where.current is None:
            raise
        wrong = f"without the field {error}" if isinstance(error, KeyError) else f"that cannot be read ({error})"
        record = f": {where.current!r:.200}" if where.current else ""
        raise ValueError(f"source {name!r} of kind {source.kind!r} has a record {wrong}{record}") from error


def _usable(
    name: str,
    source: Source,
    examples: Iterable[TrainingExample],
    hard_negatives: int,
    rng: random.Random,
    dropped: Counter[str],
) -> Iterator[TrainingExample]:
    choices = [TASKS[s].instruction if s in TASKS else s for s in source.instructions or [""]]
    for example in examples:
        if not example.query.strip() or not example.positive.strip():
            dropped["blank query or positive"] += 1
            continue
        if example.query.strip() == example.positive.strip():
            dropped["positive equals query"] += 1
            continue
        example = _with_negatives(example, hard_negatives, rng, dropped)
        if not source.in_batch and not example.negatives:
            dropped["no negative, and none in the batch"] += 1
            continue
        instruction = example.instruction or rng.choice(choices)
        try:
            Task("training", instruction).prompt(example.query)
        except ValueError as error:
            raise ValueError(
                f"source {name!r}, query {example.query[:40]!r}: {error}. Set the source's instruction in the recipe, "
                "a name of TASKS or a sentence, or mend the record"
            ) from error
        yield replace(example, instruction=instruction)


def _with_negatives(example: TrainingExample, count: int, rng: random.Random, dropped: Counter[str]) -> TrainingExample:
    """The example with ``count`` of its hard negatives at random, those left out that answer the query."""
    ids = example.negative_ids or ("",) * len(example.negatives)
    texts, known = {example.positive, *example.known}, {example.positive_id, *example.known} - {""}
    pairs = list(zip(example.negatives, ids, strict=True))
    kept = [(text, i) for text, i in pairs if text.strip() and text not in texts and i not in known]
    dropped["hard negative blank or a positive"] += len(pairs) - len(kept)
    if len(kept) > count:
        kept = rng.sample(kept, count)
    return replace(
        example,
        negatives=tuple(text for text, _ in kept),
        negative_ids=tuple(i for _, i in kept) if example.negative_ids else (),
    )
