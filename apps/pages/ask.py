"""Ask: an answer as it is written, each statement leading to the passage that backs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from apps import cards, explain
from apps.desk import Desk, question_of, telling
from apps.library import NotReady
from apps.markup import Html
from apps.quiet import gr
from apps.words import Words
from ragkit.answer import extractive_answer
from ragkit.client import RemoteError
from ragkit.extras import install
from ragkit.settings import LlmSettings
from ragkit.task import ANSWER_TASK, TASKS
from ragkit.types import Answer, Hit

TASK = TASKS[ANSWER_TASK]
READ = 8  # passages


def build(desk: Desk) -> None:
    t = desk.t
    with gr.Row(elem_classes="rk-ask"):
        question, go = desk.question("ask", "ask.placeholder")
        stop = gr.Button(t("stop"), scale=0, min_width=90, elem_id="rk-ask-stop")
    examples = gr.Examples([[text] for text in desk.examples], [question], label=t("search.examples"))
    with gr.Row(elem_classes="rk-sides"):
        said = gr.HTML(apply_default_css=False, elem_classes="rk-page", elem_id="rk-ask-answer")
        sources = desk.results(elem_id="rk-ask-sources")

    async def run(asked: str, language: str) -> AsyncIterator[tuple[Html, Html]]:
        words, told = Words(language), list[Html]()
        with telling(words, told):
            async for text, answer, hits in answered(desk, question_of(asked)):
                citations = answer.citations if answer else ()
                body = cards.answer(text, words, whole=answer, busy=answer is None)
                yield body, cards.sources(answer.hits if answer else hits, citations, words)
        if told:
            yield told[0], Html("")

    events: list[Any] = [
        trigger(
            run, [question, desk.language], [said, sources],
            api_visibility="private", concurrency_limit=4, concurrency_id="ask", show_progress="minimal",
        )
        for trigger in (go.click, question.submit, examples.load_input_event.then)
    ]  # fmt: skip
    stop.click(None, cancels=events, api_visibility="private")


async def answered(desk: Desk, question: str) -> AsyncIterator[tuple[str, Answer | None, list[Hit]]]:
    """The text so far, the answer once it is whole, and the hits that it is made from. Raises NotReady, ValueError."""
    import asyncio

    llm = desk.settings.llm

    def look() -> tuple[explain.Found, dict[str, np.ndarray], Any]:
        """In a thread, since a lease may have to be waited for, and given back before anything is told: nobody who
        reads slowly holds up a change."""
        with desk.library.lease() as retriever:
            found = explain.search(retriever, question, task=TASK, k=READ)
            ids = [hit.passage.id for hit in found.hits]
            return found, {} if llm.model else retriever.store.embeddings(ids), retriever.encoder

    found, stored, encoder = await asyncio.to_thread(look)
    hits = found.hits
    yield "", None, hits
    try:
        if llm.model:
            async for told in _worded(llm, question, hits, encoder):
                yield told
            return
        threshold = float(getattr(encoder, "answer_threshold", 0.0))
        answer = await asyncio.to_thread(
            extractive_answer, question, hits, encoder, TASK, threshold=threshold, question=found.row, stored=stored
        )
    except RemoteError as error:
        raise NotReady("model", str(error)) from error
    yield answer.text or "", answer, hits


async def _worded(
    llm: LlmSettings, question: str, hits: list[Hit], encoder: Any
) -> AsyncIterator[tuple[str, Answer | None, list[Hit]]]:
    try:
        from ragkit.grounded import stream_answer
        from ragkit.llm import ChatError, answering
    except ImportError as error:
        raise ValueError(f"{error}: {install('llm')} to have a model word answers") from error
    text = ""
    try:
        async with answering(llm) as chat:
            async for piece in stream_answer(question, hits, chat, encoder):
                if isinstance(piece, Answer):
                    yield piece.text or "", piece, hits
                else:
                    text += piece
                    yield text, None, hits
    except ChatError as error:
        raise ValueError(str(error)) from error
