"""A search with its reasons: where each half ranked a passage, what exactly the model read, and what it cost.

The reasons are the retriever's own answers, asked for again half by half; nothing is recomputed here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ragkit.answer import sentence_spans
from ragkit.language import detect_language
from ragkit.retrieve import Mode, Retriever
from ragkit.task import Task
from ragkit.types import Hit

DEPTH = 100  # of each half's ranking: who lies deeper has no rank there


@dataclass(frozen=True, slots=True)
class Token:
    id: int
    text: str
    special: bool  # BOS or EOS


@dataclass(frozen=True, slots=True)
class Reading:
    """What the model was given. ``tokens`` is empty where the model is a server that keeps its own."""

    prompt: str
    tokens: tuple[Token, ...] = ()
    cut: bool = False  # it was longer than the model reads


@dataclass(frozen=True, slots=True)
class Found:
    """``ranks``: passage id -> its rank in the dense and in the sparse ranking, None below the first 100."""

    question: str
    language: str  # detected; "und" where it is none
    hits: list[Hit]
    ranks: dict[str, tuple[int | None, int | None]]
    reading: Reading
    milliseconds: dict[str, float]  # by stage: encode, search, explain
    row: np.ndarray = field(repr=False)  # (D,) the question's embedding


class Clock:
    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1000 * (time.perf_counter() - start)


def search(
    retriever: Retriever,
    question: str,
    *,
    task: Task | None,
    mode: Mode = "hybrid",
    lang: str | None = None,
    k: int = 10,
) -> Found:
    """``task`` None: the question is embedded bare, as a passage is, to show what the instruction does."""
    clock = Clock()
    with clock.stage("encode"):
        if task is None:
            row = retriever.encoder.encode_passages([question])[0]
        else:
            row = retriever.encoder.encode_queries([question], task)[0]

    def ask(mode: Mode, k: int) -> list[Hit]:
        return retriever.search_batch([question], mode=mode, lang=lang, k=k, embeddings=row[None])[0]

    with clock.stage("search"):
        hits = ask(mode, k)
    with clock.stage("explain"):
        plain = Retriever(retriever.store, retriever.encoder, retriever.fusion) if retriever.reranker else retriever
        halves: list[dict[str, int]] = []
        for half in ("dense", "sparse"):
            best = plain.search_batch([question], mode=half, lang=lang, k=DEPTH, embeddings=row[None])[0]
            halves.append({hit.passage.id: hit.rank for hit in best})
        ranks = {h.passage.id: (halves[0].get(h.passage.id), halves[1].get(h.passage.id)) for h in hits}
        reading = read_by(retriever.encoder, question if task is None else task.prompt(question))
    return Found(question, detect_language(question), hits, ranks, reading, clock.milliseconds, row)


def read_by(encoder: Any, prompt: str) -> Reading:
    """The prompt with its tokens, BOS and EOS included, as the model was given them."""
    inner = getattr(encoder, "inner", encoder)
    tokenizer = getattr(inner, "tokenizer", None)
    if tokenizer is None or not hasattr(inner, "tokenize"):
        return Reading(prompt)
    read = inner.tokenize([prompt])
    special = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    [ids] = read.ids
    ends = {0, len(ids) - 1}
    tokens = [
        Token(
            i, tokenizer.convert_ids_to_tokens(i) if i in special else _text(tokenizer, i), n in ends and i in special
        )
        for n, i in enumerate(ids)
    ]
    return Reading(prompt, tuple(tokens), bool(read.truncated))


def _text(tokenizer: Any, token: int) -> str:
    """As it stands in the vocabulary where it is a piece of a character, else as text."""
    piece = str(tokenizer.convert_ids_to_tokens(token))
    text = tokenizer.decode([token])
    return piece if "\ufffd" in text or not text else piece.replace("▁", "␣") if "▁" in piece else text


def best_sentences(found: Found, encoder: Any, hits: Sequence[Hit]) -> dict[str, tuple[int, int]]:
    """Passage id -> (start, end) of the sentence that the embedder finds nearest to the question, of each hit that has
    more than one. Costs an encoding of all their sentences."""
    spans = {hit.passage.id: (hit.passage.text, sentence_spans(hit)) for hit in hits}
    several = {key: (text, of) for key, (text, of) in spans.items() if len(of) > 1}
    rows = encoder.encode_passages([text[a:b] for text, of in several.values() for a, b in of])
    best: dict[str, tuple[int, int]] = {}
    for key, (_, of) in several.items():
        own, rows = rows[: len(of)], rows[len(of) :]
        best[key] = of[int(np.argmax(own @ found.row))]
    return best


@dataclass(frozen=True, slots=True)
class Moved:
    """A hit of one side of a comparison, and how it stands on the other."""

    hit: Hit
    by: int | None  # ranks that it rose against the other side; None where it is not there


def compare(one: Sequence[Hit], other: Sequence[Hit]) -> list[Moved]:
    """The hits of ``other``, each with how far it rose since ``one``."""
    was = {hit.passage.id: hit.rank for hit in one}
    return [Moved(hit, was[hit.passage.id] - hit.rank if hit.passage.id in was else None) for hit in other]
