"""The store as it is deployed, as mteb's SearchProtocol: indexed, quantised, filtered, BM25 or hybrid.

mteb hands over a corpus and then its queries; here they go into an embedded store and through the Retriever that
serves. Beside the scores a store notes what it cost: seconds in search, bytes of what is searched and of the folder,
and the ten best ids of every query. ``compare`` sets those of several stores against exact search: what each loses,
beside what it gains.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, get_args

from mteb._create_dataloaders import create_dataloader
from mteb.types import PromptType

from ragkit.language import detect_language
from ragkit.retrieve import Mode, Retriever
from ragkit.settings import QdrantSettings, Quantization, Settings
from ragkit.sparse import SCHEME
from ragkit.split import split_passages
from ragkit.store import Store, open_store
from ragkit.types import Passage
from trainer.instructions import instruction_of
from trainer.mteb_models import describe

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

DEPTH = 100  # hits a query: mteb asks for 1,000, which nobody reads, and hybrid fuses the first hundred
BATCH = 256  # passages or queries an encoder call
OF_ONE = 4  # where documents are split, hits a query for each document of the DEPTH: the best may be of one document


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to deploy a corpus."""

    mode: Mode = "dense"
    quantization: Quantization = "none"
    exact: bool = False  # every passage compared, by its original embedding: what the others are held against
    filtered: bool = False  # by the language of what answers a query, where the task tells it
    split: bool = (
        False  # documents as ``ragkit ingest`` splits them, each as good as its best passage; else cut, as mteb
    )

    def __post_init__(self) -> None:
        if self.exact and (self.mode != "dense" or self.quantization != "none"):
            raise ValueError(f"exact search is dense and unquantised, not {self.mode}, {self.quantization}")

    @property
    def name(self) -> str:
        """``exact``, ``dense``, ``dense-scalar``, ``hybrid-turbo-filtered``, ``hybrid-split``, ``sparse`` ..."""
        ways = ["exact" if self.exact else self.mode]
        ways += [self.quantization] if self.quantization != "none" else []
        ways += ["filtered"] if self.filtered else []
        return "-".join([*ways, *(["split"] if self.split else [])])

    @classmethod
    def parse(cls, name: str) -> Setup:
        """The reverse of ``name``. Raises ValueError."""
        first, *more = name.split("-")
        wrong = {first} - {"exact", *get_args(Mode)} | set(more) - {"filtered", "split", *get_args(Quantization)}
        if wrong:
            raise ValueError(
                f"store {name!r}: {', '.join(sorted(wrong))} is unknown; write exact, dense, sparse or hybrid, then "
                f"-{', -'.join(get_args(Quantization)[1:])}, -filtered, -split as you like, such as dense-turbo-split"
            )
        quantization: Any = next((word for word in more if word in get_args(Quantization)), "none")
        mode: Any = "dense" if first == "exact" else first
        return cls(mode, quantization, first == "exact", "filtered" in more, "split" in more)


class StoreModel:
    """``mteb.evaluate(StoreModel(encoder, "ragkit/mini+hybrid", Setup("hybrid")), tasks)``; retrieval tasks alone.
    ``name`` is that of its results, so no two setups may share one. ``notes`` holds what each (task, subset) cost."""

    def __init__(self, encoder: Encoder, name: str, setup: Setup, *, settings: QdrantSettings | None = None) -> None:
        self.encoder, self.setup = encoder, setup
        self.settings = settings or QdrantSettings(quantization=setup.quantization)
        self.notes: dict[tuple[str, str], dict[str, Any]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._store: Store | None = None
        known: dict[str, Any] = {}
        if setup.mode == "sparse":
            known = {"revision": SCHEME, "embed_dim": None, "max_tokens": None, "model_type": ["sparse"]}
        elif setup.mode == "hybrid":
            known = {"revision": f"{encoder.fingerprint}-{SCHEME}"}
        self.mteb_model_meta = describe(encoder, name, use_instructions=setup.mode != "sparse", **known)

    def index(self, corpus: Any, *, hf_subset: str, task_metadata: Any, **_: Any) -> None:
        self._close()
        self._folder = tempfile.TemporaryDirectory()
        self._store = open_store(self._folder.name, "evaluation", self.encoder, qdrant_settings=self.settings)
        for start in range(0, len(corpus), BATCH):
            rows = [corpus[i] for i in range(start, min(start + BATCH, len(corpus)))]
            passages = [part for row in rows for part in self._passages(row)]
            self._store.upsert(passages, self.encoder.encode_passages([p.text for p in passages]))
        self._store.optimize()
        self.notes[task_metadata.name, hf_subset] = weigh(Path(self._folder.name))

    def _passages(self, row: Mapping[str, Any]) -> list[Passage]:
        whole = passage(row)
        if not self.setup.split:
            return [whole]
        most = min(Settings.model_fields["passage_tokens"].default, self.encoder.max_length - 2)
        texts = split_passages(whole.text, whole.lang, self.encoder.count_tokens, most)
        return [
            replace(whole, id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{whole.document}\0{n}")), text=text, ordinal=n)
            for n, text in enumerate(texts)
        ] or [whole]

    def search(
        self, queries: Any, *, hf_subset: str, task_metadata: Any, top_k: int, top_ranked: Any = None, **_: Any
    ) -> dict[str, dict[str, float]]:
        """Query -> document -> score, for every query, also those that nothing was found for."""
        if self._store is None or top_ranked is not None:
            raise TypeError(f"{task_metadata.name}: a store searches what was indexed, it ranks no given candidates")
        loader = create_dataloader(queries, task_metadata=task_metadata, prompt_type=PromptType.query, batch_size=BATCH)
        texts = [text for batch in loader for text in batch["text"]]
        if self.setup.filtered and "lang" not in queries.column_names:
            raise ValueError(
                f"{task_metadata.name} does not say which language answers a query: filter local sets alone"
            )
        langs = list(queries["lang"]) if self.setup.filtered else [None] * len(texts)
        task = instruction_of(task_metadata).task
        retriever = Retriever(self._store, self.encoder)
        embeddings = self.encoder.encode_queries(texts, task)
        depth = min(top_k, DEPTH)
        k = depth * OF_ONE if self.setup.split else depth
        run: dict[str, dict[str, float]] = {}
        seconds = 0.0
        for query, text, row, lang in zip(queries["id"], texts, embeddings, langs, strict=True):
            began = time.perf_counter()
            if self.setup.exact:
                hits = self._store.search(dense=row, k=k, lang=lang, exact=True)
            else:
                [hits] = retriever.search_batch(
                    [text], task=task, mode=self.setup.mode, lang=lang, k=k, embeddings=row[None]
                )
            seconds += time.perf_counter() - began
            found: dict[str, float] = {}
            for hit in hits:  # best first: a document's first passage is its best
                found.setdefault(hit.passage.document, hit.score)
            run[query] = dict(list(found.items())[:depth])
        best = {query: list(found)[:10] for query, found in run.items()}
        self.notes[task_metadata.name, hf_subset] |= {"seconds": seconds, "best": best}
        self._close()
        return run

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._store, self._folder = None, None


def passage(row: Mapping[str, Any]) -> Passage:
    """Of a row of mteb's corpus; its title leads, as mteb has it for encoders."""
    text = f"{row.get('title') or ''} {row['text']}".strip()
    lang = row.get("lang") or detect_language(text)
    return Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, row["id"])), text, lang, row["id"], row["id"], 0, "", 1)


def weigh(folder: Path) -> dict[str, int]:
    """Bytes of a store's folder: what search reads of the embeddings, and all. The log of writes is left out."""
    sizes = {"vectors": 0, "quantized": 0, "disk": 0}
    for file in folder.rglob("*"):
        if file.is_file() and "wal" not in file.relative_to(folder).parts:
            stat = file.stat()
            size = min(stat.st_size, getattr(stat, "st_blocks", stat.st_size) * 512)  # files are made larger than full
            sizes["disk"] += size
            if "vector_storage-dense" in file.parts and "deleted" not in file.parts:
                sizes["quantized" if "quantized" in "/".join(file.parts[-2:]) else "vectors"] += size
    return {"searched": sizes["quantized"] or sizes["vectors"], "disk": sizes["disk"]}


def compare(files: Mapping[str, Sequence[Path]]) -> str:
    """A table of setups from their results (setup -> its tasks' files by mteb), each against exact search, those that
    filter against exact search that does. Seconds are of one machine at one time: only their ratio means something,
    and only beside nothing else that runs."""
    rows = {setup: _totals(paths) for setup, paths in files.items()}
    lines = ["| store | ndcg@10 | against exact | its 10 best found | search time | embeddings searched | on disk |"]
    lines.append("|---|---|---|---|---|---|---|")
    for setup, row in rows.items():
        base = rows["exact-filtered" if Setup.parse(setup).filtered else "exact"]
        shared = [len(set(base.best[q]) & set(row.best[q])) / len(base.best[q]) for q in base.best if base.best[q]]
        lines.append(
            f"| {setup} | {row.ndcg:.4f} | {row.ndcg - base.ndcg:+.4f} | {fmean(shared):.3f} "
            f"| {row.seconds / base.seconds:.2f} x | {row.searched / base.searched:.3f} x "
            f"| {row.disk / base.disk:.2f} x |"
        )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Totals:
    ndcg: float
    seconds: float
    searched: int
    disk: int
    best: dict[str, list[str]]


def _totals(files: Iterable[Path]) -> _Totals:
    ndcg: list[float] = []  # of a task: the mean over its subsets, as everywhere
    seconds, searched, disk = 0.0, 0, 0
    best: dict[str, list[str]] = {}
    for file in files:
        subsets = json.loads(file.with_suffix(".perquery.json").read_text("utf-8"))
        ndcg.append(fmean(fmean(q["ndcg@10"] for q in queries.values()) for queries in subsets.values()))
        notes = json.loads(file.with_suffix(".store.json").read_text("utf-8"))
        for subset in subsets:
            note = notes[subset]
            seconds, searched, disk = seconds + note["seconds"], searched + note["searched"], disk + note["disk"]
            best |= {f"{file.name} {subset} {query}": ids for query, ids in note["best"].items()}
    return _Totals(fmean(ndcg), seconds, searched, disk, best)
