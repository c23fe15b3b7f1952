"""The batches of a run, drawn once, kept in a file, and turned into the texts of a step.

A batch comes from one source, so that its in-batch negatives are of the same task and language and cannot
be told apart by either (task-homogeneous batches: SFR-Embedding-Mistral's report puts them at +0.8 on its
retrieval dev sets). Texts and passages repeat within a batch only where nothing else is left to fill it: a repeated
positive is no negative, so it is masked and lost. The plan depends on sources and seed alone and lies in
the run folder, so that every process of a run, and every resumption, reads the same batches without
holding the data in memory. It says what it was drawn from: where no run has begun, another is drawn for other knobs
or files.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ragkit.task import Task
from trainer.config import TrainConfig, same_run
from trainer.data import Source, TrainingExample, digest, draw, files_of
from trainer.public import PUBLIC_SETS

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one step. With ``in_batch`` every passage is a negative of every other query."""

    source: str
    examples: list[TrainingExample]
    in_batch: bool = True


class Plan(Sequence[Batch]):
    """A plan folder: ``batches.jsonl``, a line a batch, and ``index.json`` with their order and counts."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text("utf-8"))
        self.file = folder / "batches.jsonl"
        self.offsets: list[int] = index["offsets"]  # bytes, in the order of the run
        self.drawn: dict[str, int] = index["drawn"]  # examples in batches, per source
        self.dropped: dict[str, int] = index["dropped"]  # examples not used, by reason
        self.drawn_from: str = index.get("drawn_from", "")  # a digest of knobs and files

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, step: int) -> Batch:  # type: ignore[override]  # one batch a step; no slices
        with self.file.open("rb") as file:
            file.seek(self.offsets[step])
            line = json.loads(file.readline())
        return Batch(line["source"], [TrainingExample.of(r) for r in line["examples"]], line["in_batch"])

    def __iter__(self) -> Iterator[Batch]:
        return (self[step] for step in range(len(self)))


def make_plan(
    sources: Sequence[Source], data: Path, folder: Path, *, batch_size: int, hard_negatives: int = 1, seed: int
) -> Plan:
    """The plan in ``folder``, made if it is not there or of other knobs or files: each source's share in batches, all
    shuffled.

    One source is held in memory at a time. Several processes may make the same plan at once: it appears
    under its name when it is complete. Raises ValueError as :func:`trainer.data.draw` does, and where no
    source fills a batch.
    """
    drawn_from = _drawn_from(sources, data, batch_size, hard_negatives, seed)
    if _is_there(folder, drawn_from):
        return Plan(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    made = scratch / "made"
    made.mkdir()
    try:
        offsets: list[int] = []
        drawn: dict[str, int] = {}
        dropped: Counter[str] = Counter()
        with (made / "batches.jsonl").open("wb") as file:
            for source in sources:
                for group in draw(source, data, hard_negatives=hard_negatives, seed=seed):
                    if len(group.examples) < batch_size:
                        log.warning(
                            "source %s: %d examples, fewer than batch_size %d: none is used",
                            group.name,
                            len(group.examples),
                            batch_size,
                        )
                    batches, left = homogeneous_batches(group.examples, batch_size)
                    dropped.update(group.dropped)
                    dropped["would not fill a batch"] += left
                    drawn[group.name] = drawn.get(group.name, 0) + batch_size * len(batches)
                    for batch in batches:
                        offsets.append(file.tell())
                        line = {
                            "source": group.name,
                            "in_batch": source.in_batch,
                            "examples": [example.record() for example in batch],
                        }
                        file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")
        if not offsets:
            raise ValueError(f"no source fills a batch of {batch_size}: {drawn}; not used: {dict(dropped)}")
        random.Random(seed).shuffle(offsets)
        index = {"offsets": offsets, "drawn": drawn, "dropped": dict(dropped), "drawn_from": drawn_from}
        (made / "index.json").write_text(json.dumps(index, ensure_ascii=False), "utf-8")
        try:
            if folder.exists() and not _is_there(folder, drawn_from):
                folder.rename(scratch / "other")
            made.rename(folder)
        except OSError:  # another process was first, with the same plan
            if not _is_there(folder, drawn_from):
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Plan(folder)


def _drawn_from(sources: Sequence[Source], data: Path, *knobs: int) -> str:
    files = [file for source in sources for file in files_of(source, data)]
    stamps = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    sets = [pattern.partition("/")[0] for source in sources if source.kind == "public" for pattern in source.patterns]
    rows = [asdict(PUBLIC_SETS[name]) for name in sets]
    return digest(json.dumps([[asdict(s) for s in sources], str(data.resolve()), stamps + rows, knobs], default=str))


def _is_there(folder: Path, drawn_from: str) -> bool:
    return (folder / "index.json").exists() and Plan(folder).drawn_from == drawn_from


def plan_of(config: TrainConfig, data: Path, out: Path) -> Plan:
    """The plan of a run, in its folder ``out``. Raises ValueError where a run of another configuration has begun
    there; one of this configuration keeps its plan."""
    saved, folder = out / "config.yaml", out / "plan"
    if saved.exists():
        if other := same_run(saved.read_text("utf-8"), config.yaml()):
            raise ValueError(
                f"{out} holds a run of another configuration ({', '.join(other)} differ): give a new --out, or "
                "delete it"
            )
        if (folder / "index.json").exists():
            return Plan(folder)
    return make_plan(
        config.sources,
        data,
        folder,
        batch_size=config.batch_size,
        hard_negatives=config.hard_negatives,
        seed=config.seed,
    )


def homogeneous_batches(examples: Sequence[TrainingExample], size: int) -> tuple[list[list[TrainingExample]], int]:
    """Full batches of ``size``, and how many examples were left over. An example whose query or positive, by text
    or id, stands in a batch already waits for a later one; labels, which repeat, fill up the last ones."""
    batches: list[list[TrainingExample]] = []
    waiting = list(examples)
    while len(waiting) >= size:
        batch: list[TrainingExample] = []
        later: list[TrainingExample] = []
        seen: set[str] = set()
        for n, example in enumerate(waiting):
            if len(batch) == size:
                later += waiting[n:]
                break
            names = {example.query, example.positive, example.positive_id} - {""}
            if names & seen:
                later.append(example)
            else:
                batch.append(example)
                seen |= names
        room = size - len(batch)
        batches.append(batch + later[:room])
        waiting = later[room:]
    return batches, len(waiting)


@dataclass(frozen=True, slots=True)
class Texts:
    """The strings of a step as the model reads them: Q queries, prompted, and P passages, bare: the positives
    in the order of the queries, then the hard negatives. ``excluded`` (Q, P) marks pairs that are no negatives."""

    queries: list[str]
    passages: list[str]
    excluded: np.ndarray  # bool
    alike: list[list[int]]  # positions of queries with the same instruction


def batch_texts(batch: Batch) -> Texts:
    """A passage is no negative of a query where its text or id is that of a positive of this query, in this
    example, in another of the batch or among those known; or, without in-batch negatives, where it belongs to
    another query."""
    examples = batch.examples
    passages = [e.positive for e in examples] + [text for e in examples for text in e.negatives]
    ids = [e.positive_id for e in examples]
    owner = list(range(len(examples)))
    for row, e in enumerate(examples):
        ids += e.negative_ids or ("",) * len(e.negatives)
        owner += [row] * len(e.negatives)
    right: dict[str, set[str]] = {}  # query -> texts and ids of its positives
    for e in examples:
        right.setdefault(e.query, set()).update({_text(e.positive), _id(e.positive_id)})
        right[e.query].update(f(known) for known in e.known for f in (_text, _id))
    columns: dict[str, list[int]] = {}  # text or id -> where it stands
    for column, (text, i) in enumerate(zip(passages, ids, strict=True)):
        columns.setdefault(_text(text), []).append(column)
        if i:
            columns.setdefault(_id(i), []).append(column)
    excluded = np.zeros((len(examples), len(passages)), dtype=bool)
    for row, e in enumerate(examples):
        for name in right[e.query] & columns.keys():
            excluded[row, columns[name]] = True
    if not batch.in_batch:
        excluded |= np.array(owner)[None, :] != np.arange(len(examples))[:, None]
    np.fill_diagonal(excluded, False)
    alike: dict[str, list[int]] = {}
    for row, e in enumerate(examples):
        alike.setdefault(e.instruction, []).append(row)
    prompts = [Task("training", e.instruction).prompt(e.query) for e in examples]
    return Texts(prompts, passages, excluded, list(alike.values()))


def _text(text: str) -> str:
    return f"text {text}"


def _id(i: str) -> str:
    return f"id {i}"  # a label "7" is not the passage of id 7
