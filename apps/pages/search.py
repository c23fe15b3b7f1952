"""Search: a question in any language, the passages that serve it, and why each stands where it does."""

from __future__ import annotations

from collections.abc import Iterator

from apps import cards, explain
from apps.desk import MODES, RETRIEVAL, Desk, question_of, task_of, telling
from apps.markup import Html
from apps.quiet import gr
from apps.words import Words
from ragkit.task import DEFAULT_TASK, TASKS

MARKED = 5  # hits whose nearest sentence is marked: each costs an encoding of its sentences


def build(desk: Desk) -> None:
    t = desk.t
    with gr.Row(elem_classes="rk-ask"):
        question, go = desk.question("search")
    examples = gr.Examples(
        [[text] for text in desk.examples], [question], label=t("search.examples"), elem_id="rk-search-examples"
    )
    with gr.Accordion(t("search.options"), open=False, elem_id="rk-search-options"):
        with gr.Row():
            lang = gr.Dropdown([(t("search.any"), "")], value="", label=t("search.documents"), elem_id="rk-search-lang")
            mode = gr.Radio([(t(f"mode.{m}"), m) for m in MODES], value=MODES[0], label=t("search.mode"))
            k = gr.Slider(1, 50, value=10, step=1, label=t("search.k"))
        task = gr.Dropdown(list(RETRIEVAL), value=DEFAULT_TASK, label=t("search.task"), elem_id="rk-search-task")
        instruction = gr.Textbox(
            TASKS[DEFAULT_TASK].instruction, label=t("search.instruction"), info=t("search.instruction.help"), lines=2,
            elem_classes="rk-auto",
        )  # fmt: skip
    shown = desk.results(elem_id="rk-search-results")
    with gr.Accordion(t("reading.title"), open=False, elem_id="rk-search-reading"):
        read = gr.HTML(apply_default_css=False, elem_classes="rk-page")

    task.input(lambda name: RETRIEVAL[name].instruction, task, instruction, api_visibility="private", queue=False)

    def run(
        asked: str, lang: str, task: str, instruction: str, mode: explain.Mode, k: int, language: str
    ) -> Iterator[tuple[Html, Html]]:
        words, told = Words(language), list[Html]()
        with telling(words, told), desk.library.lease() as retriever:
            own = task_of(task, instruction)
            found = explain.search(retriever, question_of(asked), task=own, mode=mode, lang=lang or None, k=int(k))
            prompt = cards.reading(found.reading, words)
            yield cards.results(found, words, {}), prompt
            marked: dict[str, list[tuple[int, int]]] = {}
            for hit in found.hits[:MARKED]:
                best = explain.best_sentences(found, retriever.encoder, [hit])
                marked |= {passage: [span] for passage, span in best.items()}
            yield cards.results(found, words, marked), prompt
        if told:
            yield told[0], Html("")

    inputs = [question, lang, task, instruction, mode, k, desk.language]
    for trigger in (go.click, question.submit, examples.load_input_event.then):
        trigger(
            run, inputs, [shown, read],
            api_visibility="private", concurrency_limit=desk.at_once, concurrency_id="search", show_progress="minimal",
            trigger_mode="always_last",
        )  # fmt: skip

    def languages(language: str) -> dict:
        words = Words(language)
        try:
            held = desk.library.status().languages
        except RuntimeError:
            held = {}
        choices = [
            (words("search.any"), ""),
            *((f"{words.name_of(code)} · {count}", code) for code, count in held.items()),
        ]
        return gr.update(choices=choices)

    desk.refreshed.append((languages, lang))
