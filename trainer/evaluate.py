"""What an embedder is worth: ndcg@10, recall@100 and mrr@10 over local retrieval sets in BEIR layout.

``DIR/SET/LANG/{corpus.jsonl, queries.jsonl, qrels.tsv}``; ``LANG`` is a language, or ``xx-yy`` where
questions in xx meet passages in yy. A passage is ``"{title} {text}"``, as BEIR and the paper have it.
Dense search is exact here; sparse and hybrid run through the store and Retriever that serve. Embeddings
are kept in a cache, so a run that was cut off goes on, and a mode or set that shares texts does not pay
twice. Means are taken over a set's languages first, then over the sets.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from tqdm import tqdm

from ragkit import metrics
from ragkit.around import Around
from ragkit.encoder import Encoder
from ragkit.evaluate import read_qrels
from ragkit.language import normalise_language
from ragkit.retrieve import Mode, Retriever
from ragkit.store import open_store
from ragkit.task import Task
from ragkit.types import UNDETERMINED, Passage
from trainer.data import Text, read_texts

log = logging.getLogger(__name__)

DEPTH = 100  # hits a query, for recall@100

Scores = dict[str, float]  # metric -> value


@dataclass(frozen=True, slots=True)
class RetrievalSet:
    """One SET/LANG: ids and texts, and which passage answers which query."""

    name: str
    lang: str
    passages: dict[str, str]  # id -> "{title} {text}"
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]

    @property
    def passage_lang(self) -> str:
        """BCP-47 language of the passages: ``yy`` of ``xx-yy`` or ``xx-yy-Hant``, but of ``zh-Hant`` it is ``zh``."""
        first, _, second = self.lang.partition("-")
        return normalise_language(second if second.partition("-")[0].islower() else first) or UNDETERMINED

    def sample(self, queries: int, passages: int) -> RetrievalSet:
        """A smaller set, the same at every run: the first ``queries`` by a hash of their ids, their relevant
        passages, and others up to ``passages``; 0 takes all. Fewer distractors make it easier: compare only like with
        like."""

        def chosen(ids: Sequence[str], count: int) -> list[str]:
            return sorted(ids, key=lambda i: hashlib.sha256(f"{self.name}/{self.lang}/{i}".encode()).digest())[:count]

        asked = chosen(list(self.qrels), queries or len(self.qrels))
        needed = {p for q in asked for p in self.qrels[q]}
        room = max(0, (passages or len(self.passages)) - len(needed))
        others = chosen([p for p in self.passages if p not in needed], room)
        keep = needed | set(others)
        return RetrievalSet(
            self.name,
            self.lang,
            {p: text for p, text in self.passages.items() if p in keep},
            {q: self.queries[q] for q in asked},
            {q: self.qrels[q] for q in asked},
        )


def read_sets(data: Path, only: Sequence[str] = ()) -> Iterator[RetrievalSet]:
    """Every SET/LANG below ``data``, in order, or ``only`` those of these names. Raises ValueError where there is none,
    or qrels name what is not there, or nothing relevant."""
    folders = sorted(file.parent for file in data.glob("*/*/corpus.jsonl"))
    if not folders:
        raise ValueError(f"no SET/LANG/corpus.jsonl below {data}: is it the folder that holds the sets?")
    for folder in folders:
        if only and folder.parent.name not in only:
            continue
        passages = {i: text.whole for i, text in _by_id(folder / "corpus.jsonl").items()}
        queries = {i: text.text for i, text in _by_id(folder / "queries.jsonl").items()}
        qrels = read_qrels(folder / "qrels.tsv", queries, passages)
        if not any(relevance > 0 for judged in qrels.values() for relevance in judged.values()):
            raise ValueError(f"{folder / 'qrels.tsv'} calls no passage relevant: there is nothing to measure")
        yield RetrievalSet(folder.parent.name, folder.name, passages, queries, qrels)


def _by_id(file: Path) -> dict[str, Text]:
    texts: dict[str, Text] = {}
    for text in read_texts(file):
        if not text.id:
            raise ValueError(f"{file} has a record without _id: {text.whole[:80]!r}")
        texts[text.id] = text
    return texts


def read_folders(folders: Iterable[Path], only: Sequence[str] = ()) -> list[RetrievalSet]:
    """The sets of several folders, ``only`` those of these names. Raises ValueError as :func:`read_sets` does, and
    where a SET/LANG is there twice."""
    found: dict[tuple[str, str], RetrievalSet] = {}
    for data in (s for folder in folders for s in read_sets(folder, only)):
        if found.setdefault((data.name, data.lang), data) is not data:
            raise ValueError(f"{data.name}/{data.lang} stands in two folders: rename one, or measure them one by one")
    return list(found.values())


def refuse_absent(only: Sequence[str], found: Iterable[str], what: str) -> None:
    """Raises ValueError where a set or task that was asked for by name is not there."""
    if absent := sorted(set(only) - set(found)):
        raise ValueError(f"no {what} is named {' or '.join(absent)}")


class CachedEncoder(Around):
    """An Encoder that remembers its embeddings in an SQLite file, keyed by model, role, prompt and text."""

    def __init__(self, encoder: Encoder, file: Path, *, chunk: int = 64, progress: bool = True) -> None:
        super().__init__(encoder)
        self.chunk, self.progress = chunk, progress
        file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file)
        self._db.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID")

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self._encode(queries, task)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self._encode(passages, None)

    def encode_states(self, queries: Sequence[str], task: Task) -> np.ndarray:
        """Where the encoder can: :meth:`LocalEncoder.encode_states`."""
        return self._encode(queries, task, unit=False)

    def _encode(self, texts: Sequence[str], task: Task | None, *, unit: bool = True) -> np.ndarray:
        inner: Any = self.inner
        role = f"{self.fingerprint}\0{task.prefix if task else ''}\0" + ("" if unit else "states\0")
        keys = [hashlib.sha256((role + text).encode("utf-8", "surrogatepass")).digest() for text in texts]
        rows = {key: row for key in set(keys) if (row := self._get(key)) is not None}
        missing = list({key: text for key, text in zip(keys, texts, strict=True) if key not in rows}.items())
        missing.sort(key=lambda item: len(item[1]))  # like lengths share a call: less padding
        quiet = not (missing and self.progress)
        for start in tqdm(range(0, len(missing), self.chunk), desc="embed", unit=" batches", disable=quiet):
            part = missing[start : start + self.chunk]
            chunk = [text for _, text in part]
            encode = inner.encode_queries if unit else inner.encode_states
            vectors = encode(chunk, task) if task else inner.encode_passages(chunk)
            with self._db:
                for (key, _), vector in zip(part, vectors, strict=True):
                    self._db.execute("INSERT OR REPLACE INTO embeddings VALUES (?, ?)", (key, vector.tobytes()))
                    rows[key] = vector
        return np.stack([rows[key] for key in keys]) if keys else np.empty((0, self.dimension), np.float32)

    def _get(self, key: bytes) -> np.ndarray | None:
        found = self._db.execute("SELECT row FROM embeddings WHERE key = ?", (key,)).fetchone()
        return np.frombuffer(found[0], dtype=np.float32) if found else None


class NoEncoder:
    """For ``--mode sparse``, which needs no embedder: every text is the same."""

    dimension, max_length, fingerprint, truncated = 1, 512, "0" * 16, 0

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return np.ones((len(queries), 1), np.float32)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return np.ones((len(passages), 1), np.float32)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


def dense_run(data: RetrievalSet, encoder: Encoder, task: Task) -> dict[str, dict[str, float]]:
    """Exact: every query against every passage."""
    ids = list(data.passages)
    scores = (
        encoder.encode_queries(list(data.queries.values()), task)
        @ encoder.encode_passages(list(data.passages.values())).T
    )
    top = np.argsort(-scores, axis=1, kind="stable")[:, :DEPTH]
    return {q: {ids[i]: float(row[i]) for i in best} for q, row, best in zip(data.queries, scores, top, strict=True)}


def store_run(data: RetrievalSet, encoder: Encoder, task: Task, mode: Mode) -> dict[str, dict[str, float]]:
    """Through the embedded store and the Retriever, as deployed."""
    passages = [
        Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, i)), text, data.passage_lang, i, i, 0, "", 1)
        for i, text in data.passages.items()
    ]
    with tempfile.TemporaryDirectory() as folder, open_store(folder, "evaluation", encoder) as store:
        store.upsert(passages, encoder.encode_passages([p.text for p in passages]))
        found = Retriever(store, encoder).search_batch(list(data.queries.values()), task=task, mode=mode, k=DEPTH)
    return {q: {hit.passage.document: hit.score for hit in hits} for q, hits in zip(data.queries, found, strict=True)}


def evaluate(
    sets: Sequence[RetrievalSet], encoder: Encoder, task: Task, mode: Mode = "dense"
) -> dict[str, dict[str, Scores]]:
    """``{SET: {LANG: {metric: value}}}``."""
    result: dict[str, dict[str, Scores]] = {}
    for data in sets:
        run = dense_run(data, encoder, task) if mode == "dense" else store_run(data, encoder, task, mode)
        scores = metrics.mean(data.qrels, run)
        log.info("%s/%s %s", data.name, data.lang, " ".join(f"{m} {v:.4f}" for m, v in scores.items()))
        result.setdefault(data.name, {})[data.lang] = scores
    return result


def mean_over_sets(result: dict[str, dict[str, Scores]]) -> Scores:
    """Over a set's languages first, then over the sets."""
    return {
        metric: fmean(fmean(scores[metric] for scores in langs.values()) for langs in result.values())
        for metric in metrics.METRICS
    }


def write(result: dict[str, dict[str, Scores]], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**result, "mean": mean_over_sets(result)}, indent=1, ensure_ascii=False)
    out.write_text(text + "\n", "utf-8")
