"""What a deployed corpus is worth on your own questions: as it is stored, indexed, quantised, fused, filtered
and reranked, not as a model would be on paper.

A folder in BEIR's layout holds ``queries.jsonl`` (``_id``, ``text``) and ``qrels.tsv`` or ``qrels/test.tsv``
(query, document, relevance); the corpus is the one in the store. A document is a ``Passage.document``: a
record's ``_id``, or a file's path below the ingested root. It ranks where its best passage does. What the
engine itself loses, by its index and quantisation, is told apart: dense search is compared with exact search.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ragkit import metrics
from ragkit.language import detect_language, normalise_language
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Hit, Where

if TYPE_CHECKING:
    from ragkit.retrieve import Mode, Retriever

DEPTH = 100  # documents a query, for recall@100
PASSAGES = 200  # asked for, to have that many documents of several passages each
ENGINE = "engine_recall@10"


@dataclass(frozen=True, slots=True)
class Questions:
    """Texts, the languages they are in, and which documents answer them."""

    texts: dict[str, str]
    languages: dict[str, str]  # BCP-47
    qrels: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Report:
    """Means over the questions. ``missing`` documents are judged relevant but not stored: every question keeps
    its judgements, so what was never ingested lowers the score as it should."""

    scores: dict[str, float]  # ndcg@10, recall@100, mrr@10; and engine_recall@10 where embeddings are searched
    languages: dict[str, dict[str, float]]  # of questions in one language
    questions: int
    documents: int  # judged relevant
    missing: tuple[str, ...] = field(default=(), repr=False)


def read_questions(folder: Path) -> Questions:
    """Raises OSError where a file is missing, ValueError where it is not in the layout."""
    texts, languages = read_queries(folder / "queries.jsonl")
    named = [folder / "qrels.tsv", folder / "qrels" / "test.tsv"]
    found = [file for file in named if file.exists()] or sorted((folder / "qrels").glob("*.tsv"))
    if len(found) != 1 and not any(file in found for file in named):
        raise FileNotFoundError(f"no qrels.tsv or qrels/test.tsv in {folder}: they say which document answers what")
    return Questions(texts, languages, read_qrels(found[0], texts))


def read_queries(file: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Texts, and languages (``lang`` of a record, else detected), by id."""
    texts: dict[str, str] = {}
    languages: dict[str, str] = {}
    for number, line in enumerate(file.read_text("utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            query, text = str(record["_id"]), record["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: no record with _id and text ({error!r})") from error
        texts[query] = text
        languages[query] = normalise_language(str(record.get("lang") or "")) or detect_language(text)
    return texts, languages


def read_qrels(
    file: Path, queries: Collection[str], documents: Collection[str] | None = None
) -> dict[str, dict[str, int]]:
    """Query -> document -> relevance. Raises ValueError for a line that is none, or that names a query (or, if
    these are given, a document) that is not there."""
    qrels: dict[str, dict[str, int]] = {}
    for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), start=1):
        if not line.strip() or (number == 1 and line.split("\t")[-1].strip() == "score"):
            continue
        try:
            query, document, relevance = line.split("\t")
            judged = int(relevance)
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {line!r} is not query, document and relevance by tabs") from error
        if query not in queries or (documents is not None and document not in documents):
            raise ValueError(f"{file} judges {query!r}, {document!r}, which are not both there")
        qrels.setdefault(query, {})[document] = judged
    return qrels


def evaluate(
    retriever: Retriever,
    questions: Questions,
    *,
    task: Task = TASKS[DEFAULT_TASK],
    mode: Mode = "hybrid",
    lang: str | None = None,
    where: Where | None = None,
    batch: int = 32,  # questions an encoder call
) -> Report:
    """Raises ValueError where nothing is judged, or nothing that is judged is stored."""
    asked = [q for q, judged in questions.qrels.items() if any(relevance > 0 for relevance in judged.values())]
    relevant = sorted({d for q in asked for d, relevance in questions.qrels[q].items() if relevance > 0})
    stored = retriever.store.documents(relevant)
    if not stored:
        raise ValueError(
            f"none of the {len(relevant)} relevant documents ({', '.join(relevant[:3])}, ...) is in corpus "
            f"{retriever.store.corpus!r}: qrels must name a record's _id, or a file's path below the ingested folder"
        )
    run: dict[str, dict[str, float]] = {}
    engine: list[float] = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        texts = [questions.texts[q] for q in part]
        rows = None if mode == "sparse" else retriever.encoder.encode_queries(texts, task)
        hits = retriever.search_batch(texts, task=task, mode=mode, lang=lang, where=where, k=PASSAGES, embeddings=rows)
        run |= {q: ranked_documents(found) for q, found in zip(part, hits, strict=True)}
        for row in [] if rows is None else rows:
            search: Any = {"dense": row, "lang": lang, "where": where, "k": 10}
            exact = {hit.passage.id for hit in retriever.store.search(**search, exact=True)}
            if exact:
                engine.append(len(exact & {hit.passage.id for hit in retriever.store.search(**search)}) / len(exact))
    qrels = {q: questions.qrels[q] for q in asked}
    scores = metrics.mean(qrels, run)
    if engine:
        scores[ENGINE] = fmean(engine)
    by_language: dict[str, list[str]] = defaultdict(list)
    for query in asked:
        by_language[questions.languages[query]].append(query)
    return Report(
        scores=scores,
        languages={
            language: metrics.mean({q: qrels[q] for q in queries}, run)
            for language, queries in sorted(by_language.items())
        },
        questions=len(asked),
        documents=len(relevant),
        missing=tuple(document for document in relevant if document not in stored),
    )


def ranked_documents(hits: Iterable[Hit]) -> dict[str, float]:
    """Document -> 1 / its rank, by its best passage: the order that was deployed, whatever the scores mean."""
    order = list(dict.fromkeys(hit.passage.document for hit in hits))[:DEPTH]
    return {document: 1 / rank for rank, document in enumerate(order, start=1)}


def regressions(
    scores: Mapping[str, float], least: Mapping[str, float], before: Mapping[str, float], tolerance: float
) -> list[str]:
    """What is below ``least``, or more than ``tolerance`` below what it was ``before``; a sentence each."""
    found = [
        f"{name} is {scores[name]:.4f}, below {limit:.4f}" if name in scores else f"{name} was not measured"
        for name, limit in least.items()
        if not scores.get(name, -1.0) >= limit
    ]
    return found + [
        f"{name} is {scores[name]:.4f}, {old - scores[name]:.4f} below the {old:.4f} it was"
        for name, old in before.items()
        if name in scores and scores[name] < old - tolerance
    ]


def scores_of(file: Path) -> dict[str, float]:
    """The scores of an earlier run. Raises ValueError for a file that is none."""
    try:
        return {str(name): float(value) for name, value in json.loads(file.read_text("utf-8"))["scores"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} holds no scores of an earlier run: give what --out wrote") from error


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """``["ndcg@10=0.5"]`` -> ``{"ndcg@10": 0.5}``. Raises ValueError."""
    limits: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            limits[name] = float(value)
        except ValueError as error:
            raise ValueError(f"{text!r}: write METRIC=NUMBER, as ndcg@10=0.5") from error
        if name not in (*metrics.METRICS, ENGINE):
            raise ValueError(f"{name!r} is none of {', '.join((*metrics.METRICS, ENGINE))}")
    return limits
