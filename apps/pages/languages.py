"""Languages: which questions find which documents, which languages are favoured, and what lies near what.

All questions are embedded once and asked in each mode; the map is of a sample. Both are kept until the corpus or its
embedder changes, so the second visitor sees them at once. Numbers are languages.py's and maps.py's, drawings
charts.py's; here they get their words.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from apps import cards
from apps import languages as numbers
from apps.charts import BarWords, Dot, Group, HeatWords, MapWords, bars, heatmap, scatter
from apps.desk import MODES, Desk, telling
from apps.library import NotReady
from apps.maps import SAMPLE, Topic, project, topics
from apps.markup import Html, tag
from apps.quiet import gr
from apps.words import Words
from ragkit.evaluate import Questions, read_questions
from ragkit.retrieve import Retriever
from ragkit.task import TASKS
from ragkit.types import Passage

TASK = TASKS["question-answering"]
K = 10


@dataclass(frozen=True, slots=True)
class Survey:
    """Of one state of the corpus."""

    state: tuple[str, int]  # fingerprint, passages
    corpus: dict[str, int]  # passages by language
    questions: Questions
    answers: dict[str, frozenset[str]]  # question -> languages that have an answer
    documents: dict[str, str]  # judged document -> its language
    runs: dict[str, numbers.Run]  # by mode
    passages: Sequence[Passage]  # the sample
    places: Any  # (N, 2)
    topic_of: Any  # (N,)
    topics: Sequence[Topic]


def build(desk: Desk) -> None:
    t = desk.t
    surveys = Surveys(desk)
    with gr.Row():
        score = gr.Radio(
            [(t("languages.recall"), "recall@10"), (t("languages.ndcg"), "ndcg@10")], value="recall@10",
            label=t("languages.score"),
        )  # fmt: skip
        mode = gr.Radio([(t(f"mode.{m}"), m) for m in MODES], value="dense", label=t("search.mode"))
        by = gr.Radio(
            [(t("languages.by.language"), "language"), (t("languages.by.topic"), "topic")], value="language",
            label=t("languages.by"),
        )  # fmt: skip
    go = gr.Button(t("languages.measure"), variant="primary", elem_id="rk-languages-go")
    shown = gr.HTML(apply_default_css=False, elem_classes="rk-page", elem_id="rk-languages-shown")

    def run(score: str, mode: str, by: str, language: str) -> Iterator[Html]:
        words, told = Words(language), list[Html]()
        with telling(words, told):
            if desk.questions is None:
                yield cards.notice(words("languages.none"), words("languages.none.help"))
                return
            for survey in surveys.bring_up():
                if isinstance(survey, Survey):
                    yield drawn(survey, score, mode, by, words)
                else:
                    yield cards.progress(words("languages.working"), survey, words)
        if told:
            yield told[0]

    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    go.click(run, [score, mode, by, desk.language], shown, concurrency_limit=2, concurrency_id="survey", **private)

    def redraw(score: str, mode: str, by: str, language: str) -> Any:
        return drawn(surveys.now, score, mode, by, Words(language)) if surveys.now else gr.skip()

    for choice in (score, mode, by):
        choice.input(redraw, [score, mode, by, desk.language], shown, **private)


class Surveys:
    """The last survey, made anew when the corpus has changed; one at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self.now: Survey | None = None

    def bring_up(self) -> Iterator[int | Survey]:
        """How many questions are embedded, then the survey. Raises NotReady, ValueError."""
        assert self._desk.questions is not None
        if not self._lock.acquire(timeout=120):
            raise NotReady("busy", "another survey is under way")
        try:
            library = self._desk.library
            with library.lease() as retriever:
                known = self.now is not None and self.now.state == state_of(retriever)
            if not known:
                questions = read_questions(self._desk.questions)
                texts = list(questions.texts.values())
                for done in range(0, len(texts), 8):  # remembered by the encoder, so embed_questions finds them
                    yield done
                    with library.lease() as retriever:  # given back each time: a change may take over
                        retriever.encoder.encode_queries(texts[done : done + 8], TASK)
                with library.lease() as retriever:
                    self.now = survey(retriever, questions, state_of(retriever))
            assert self.now is not None
            yield self.now
        finally:
            self._lock.release()


def state_of(retriever: Retriever) -> tuple[str, int]:
    return retriever.store.fingerprint, retriever.store.count()


def survey(retriever: Retriever, questions: Questions, state: tuple[str, int]) -> Survey:
    store = retriever.store
    rows = numbers.embed_questions(retriever.encoder, questions, TASK)
    judged = sorted({document for answers in questions.qrels.values() for document in answers})
    documents = store.document_languages(judged)
    passages, embeddings = store.sample(SAMPLE)
    topic_of, named = topics(passages, embeddings)
    return Survey(
        state=state,
        corpus=store.languages(),
        questions=questions,
        answers=numbers.answer_languages(questions, documents),
        documents=documents,
        runs={mode: numbers.ask_all(retriever, questions, rows, mode=mode, k=K) for mode in MODES},
        passages=passages,
        places=project(embeddings),
        topic_of=topic_of,
        topics=named,
    )


def drawn(of: Survey, score: str, mode: str, by: str, words: Words) -> Html:
    """All three drawings, in the visitor's words."""
    spoken = {*of.corpus, *of.questions.languages.values()}
    names = dict(sorted(((code, words.name_of(code)) for code in spoken), key=lambda pair: pair[1]))
    run = of.runs[mode]
    heat = heatmap(
        numbers.matrix(of.questions, run, of.documents),
        score,
        names,
        HeatWords(
            words("languages.matrix"),
            words("languages.matrix.help"),
            words("languages.asked"),
            words("languages.answered"),
            words("languages.everything"),
            number=lambda value: words.number(value, 2),
            count=lambda count: words("languages.questions", value=count),
        ),
    )
    bias = numbers.top_k_bias(of.questions, run, of.corpus, of.answers, k=K)
    barred = bars(
        bias.languages,
        bias.own,
        names,
        BarWords(
            words("languages.bias"),
            words("languages.bias.help", k=K),
            words("documents.language"),
            words("languages.bias.ratio"),
            words("languages.bias.found"),
            words("languages.bias.expected"),
            words("languages.bias.own"),
            number=lambda value: words.number(value, 2),
            percent=words.share,
        ),
    )
    verdict = None
    if bias.own is not None:
        own = bias.own
        found, expected = words.share(own.found), words.share(own.expected)
        verdict = words("languages.own", found=found, expected=expected, ratio=words.number(own.ratio, 1))
    parts = [Html(heat), tag("p", verdict, cls="rk-verdict"), Html(barred), Html(_map(of, by, words))]
    return tag("div", parts, cls="rk-survey")


def _map(of: Survey, by: str, words: Words) -> str:
    if by == "topic":
        groups = [Group(str(n), words.number(n + 1), topic.title, topic.lang) for n, topic in enumerate(of.topics)]
        keys = [str(n) for n in of.topic_of]
    else:
        groups = [Group(code, code, words.name_of(code)) for code in of.corpus]
        keys = [p.lang for p in of.passages]
    dots = [
        Dot(float(x), float(y), key, f"{p.title or p.text[:60]} · {words.name_of(p.lang)}")
        for (x, y), key, p in zip(of.places, keys, of.passages, strict=True)
    ]
    told = MapWords(
        words("languages.map"), words("languages.map.description"), words("languages.map.rest"), count=words.number
    )
    return scatter(dots, groups, told)
