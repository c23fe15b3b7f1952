"""The numbers of the "Languages" page: does a question find its answer in another language, and what does it find
instead?

Judged questions (evaluate.read_questions) are embedded once and asked in every mode; from the passages found,
:func:`matrix` makes quality by language of question and of answer, and :func:`top_k_bias` which languages are found
more often than they would be by lot. :func:`neighbour_bias` says in one number what a map of the corpus (maps.py)
shows. Numbers in, numbers out: charts.py draws them, the page words them.

Where each language of a corpus has its own subject, as in the demo's, passages of one language lie together
whatever the embedder thinks of languages: there ``neighbour_bias`` of the passages cannot tell the two apart. That of
the questions can, if every subject is asked about in every language, and so can ``Bias.own``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ragkit import metrics
from ragkit.evaluate import Questions, read_questions
from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.retrieve import Mode, Retriever

__all__ = [
    "Bias", "Cell", "Found", "Matrix", "Share", "answer_languages", "ask_all",
    "embed_questions", "matrix", "neighbour_bias", "read_questions", "top_k_bias",
]  # fmt: skip

SCORES = ("recall@10", "ndcg@10")
EACH = 5  # passages asked for a document wanted, since a document may have several among the best

_Place = TypeVar("_Place", bound=Hashable)
Told = Callable[[int, int], None]  # questions done, questions in all


@dataclass(frozen=True, slots=True)
class Found:
    """A passage, as far as this page needs it."""

    document: str
    lang: str


Run = Mapping[str, Sequence[Found]]  # question -> passages, best first


@dataclass(frozen=True, slots=True)
class Cell:
    questions: int
    scores: Mapping[str, float]  # SCORES, means over the questions


@dataclass(frozen=True, slots=True)
class Matrix:
    """Quality by language. A question with answers in two languages counts in two cells; a cell that no question
    falls into is not there, rather than 0."""

    rows: Mapping[str, Cell]  # language of the questions -> over all answers
    columns: Mapping[str, Cell]  # language of the answers -> over all questions
    cells: Mapping[tuple[str, str], Cell]
    total: Cell
    missing: tuple[str, ...] = ()  # documents judged relevant that are not stored, and count nowhere here


@dataclass(frozen=True, slots=True)
class Share:
    """How much of what was found something makes up, beside what it would by lot."""

    name: str  # a language, or "" for "the same language", whichever that is
    found: float  # 0 to 1
    expected: float

    @property
    def ratio(self) -> float:
        """1.0 is no bias."""
        return self.found / self.expected if self.expected else float("nan")


@dataclass(frozen=True, slots=True)
class Bias:
    k: int
    questions: int
    languages: tuple[Share, ...]  # of the corpus, the most favoured first
    own: Share | None  # None where every question has an answer in its own language


# ---------------------------------------------------------------------- asking


def embed_questions(
    encoder: Encoder, questions: Questions, task: Task, told: Told | None = None, batch: int = 32
) -> np.ndarray:
    """Embeddings (N, D) of all questions in the order of ``questions.texts``: enough for every mode."""
    texts = list(questions.texts.values())
    rows = [np.empty((0, encoder.dimension), np.float32)]
    for start in range(0, len(texts), batch):
        rows.append(encoder.encode_queries(texts[start : start + batch], task))
        if told:
            told(min(start + batch, len(texts)), len(texts))
    return np.concatenate(rows)


def ask_all(
    retriever: Retriever, questions: Questions, embeddings: np.ndarray, *, mode: Mode = "hybrid", k: int = 10
) -> Run:
    """What every question finds, deep enough for ``k`` documents. ``embeddings`` are those of
    :func:`embed_questions`; sparse search makes no use of them."""
    hits = retriever.search_batch(list(questions.texts.values()), mode=mode, k=EACH * k, embeddings=embeddings)
    return {
        question: tuple(Found(hit.passage.document, hit.passage.lang) for hit in found)
        for question, found in zip(questions.texts, hits, strict=True)
    }


def answer_languages(questions: Questions, documents: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """Question -> languages in which it has an answer; ``documents`` are Store.document_languages of the judged."""
    return {
        question: frozenset(documents[d] for d in _relevant(questions, question) if d in documents)
        for question in questions.texts
    }


def _relevant(questions: Questions, question: str) -> dict[str, int]:
    return {d: relevance for d, relevance in questions.qrels.get(question, {}).items() if relevance > 0}


# ---------------------------------------------------------------------- quality


def matrix(questions: Questions, run: Run, documents: Mapping[str, str]) -> Matrix:
    """Recall and ndcg among the best ten documents, for each language of question and answer.

    ``documents`` gives the language of those that are judged. In a cell only the answers in its language are looked
    for; a question's answers in other languages are taken out of its ranking there, and neither help nor harm.
    Raises ValueError where no answer is stored.
    """
    qrels: dict[str, dict[str, int]] = {}
    rankings: dict[str, dict[str, float]] = {}
    recall: dict[str, float] = {}
    place: dict[str, tuple[str, str]] = {}
    missing: set[str] = set()
    for question in questions.texts:
        relevant = _relevant(questions, question)
        missing |= relevant.keys() - documents.keys()
        found = list(dict.fromkeys(passage.document for passage in run.get(question, ())))
        for lang in sorted({documents[d] for d in relevant if d in documents}):
            key = f"{question}\n{lang}"
            place[key] = (questions.languages[question], lang)
            wanted = {d: relevance for d, relevance in relevant.items() if documents.get(d) == lang}
            ranking = [d for d in found if d in wanted or d not in relevant][:10]
            qrels[key] = wanted
            rankings[key] = {document: 1 / rank for rank, document in enumerate(ranking, start=1)}
            recall[key] = len(wanted.keys() & set(ranking)) / len(wanted)
    if not place:
        raise ValueError(
            f"none of the {len(missing)} documents that answer these questions is stored: ingest the corpus that they "
            "were written for"
        )
    ndcg = metrics.per_query(qrels, rankings)
    scores = {key: {"recall@10": recall[key], "ndcg@10": ndcg[key]["ndcg@10"]} for key in place}

    return Matrix(
        rows=_cells({key: asked for key, (asked, _) in place.items()}, scores),
        columns=_cells({key: answered for key, (_, answered) in place.items()}, scores),
        cells=_cells(place, scores),
        total=_cells(dict.fromkeys(place, ""), scores)[""],
        missing=tuple(sorted(missing)),
    )


def _cells(place: Mapping[str, _Place], scores: Mapping[str, Mapping[str, float]]) -> dict[_Place, Cell]:
    groups: dict[_Place, list[Mapping[str, float]]] = defaultdict(list)
    for key, where in place.items():
        groups[where].append(scores[key])
    return {
        where: Cell(len(group), {name: fmean(one[name] for one in group) for name in SCORES})
        for where, group in groups.items()
    }


# ---------------------------------------------------------------------- bias


def top_k_bias(
    questions: Questions,
    run: Run,
    corpus: Mapping[str, int],
    answers: Mapping[str, AbstractSet[str]],
    *,
    k: int = 10,
    lang: str | None = None,
) -> Bias:
    """Which languages the ``k`` best passages are in, of all questions or those in ``lang``.

    For each language of the ``corpus`` (language -> passages, as Store.languages): its share of what was found,
    beside its share of the corpus. If answers are not spread as the corpus is, that alone moves the ratio from 1.

    ``own`` does without the answers. Of questions that have none in their own language, those passages are looked at
    that are in no language of an answer: the share of them that speaks the question's language, beside the share
    these passages have of the corpus without the answers' languages (mean over what was looked at). Above 1.0, the
    embedder, or BM25, prefers the language of the question to what it asks about.
    """
    asked = [q for q, own in questions.languages.items() if lang is None or own == lang]
    found: Counter[str] = Counter()
    looked, own, by_lot = 0, 0, 0.0
    for question in asked:
        top = [passage.lang for passage in run.get(question, ())[:k]]
        found.update(top)
        answered = {_base(one) for one in answers.get(question, ())}
        mine = _base(questions.languages[question])
        others = {one: n for one, n in corpus.items() if _base(one) not in answered}
        speaking = sum(n for one, n in others.items() if _base(one) == mine)
        if mine in answered or not speaking:
            continue
        rest = [one for one in map(_base, top) if one not in answered]
        looked += len(rest)
        own += rest.count(mine)
        by_lot += len(rest) * speaking / sum(others.values())
    total, passages = max(1, found.total()), sum(corpus.values())
    shares = [Share(one, found[one] / total, n / passages) for one, n in corpus.items()]
    return Bias(
        k=k,
        questions=len(asked),
        languages=tuple(sorted(shares, key=lambda share: (-share.ratio, share.name))),
        own=Share("", own / looked, by_lot / looked) if looked else None,
    )


def _base(lang: str) -> str:
    """The language of a BCP-47 code, without script and region."""
    return lang.partition("-")[0]


def neighbour_bias(embeddings: np.ndarray, labels: Sequence[str], k: int = 10) -> Share:
    """Do rows of ``embeddings`` (N, D) with the same label lie together?

        found    = mean over rows i of |{j among the k nearest of i: label j = label i}| / k
        expected = mean over rows i of (rows with i's label - 1) / (N - 1)
        ratio    = found / expected; 1.0 where the labels are strewn at random

    Nearest is by cosine of unit rows, exact, the row itself left out. Raises ValueError below two rows.
    """
    total = len(embeddings)
    if total < 2 or len(labels) != total:
        raise ValueError(f"{total} embeddings with {len(labels)} labels: give a label each, and two at least")
    k = min(k, total - 1)
    cosines = embeddings @ embeddings.T  # (N, N)
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]  # (N, k)
    _, codes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    found = float((codes[nearest] == codes[:, None]).mean())
    return Share("", found, float((counts[codes] - 1).mean() / (total - 1)))
