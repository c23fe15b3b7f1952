"""Compare: one question asked in two ways, side by side, with arrows where ranks changed."""

from __future__ import annotations

from collections.abc import Iterator

from apps import cards, explain
from apps.desk import MODES, RETRIEVAL, Desk, question_of, telling
from apps.markup import Html, tag
from apps.quiet import gr
from apps.words import Words
from ragkit.task import DEFAULT_TASK, Task

BARE = "bare"  # no instruction: the question is embedded as a passage is


def build(desk: Desk) -> None:
    t = desk.t
    with gr.Row(elem_classes="rk-ask"):
        question, go = desk.question("compare")
    examples = gr.Examples([[text] for text in desk.examples], [question], label=t("search.examples"))
    ways = [(t("compare.bare"), BARE), *((name, name) for name in RETRIEVAL)]
    models = [(t("compare.own"), ""), *([(desk.rival, desk.rival)] if desk.rival else [])]
    with gr.Row():
        with gr.Group():
            left = gr.Dropdown(ways, value=BARE, label=t("compare.left"), elem_id="rk-compare-left")
            left_model = gr.Radio(models, value="", label=t("compare.model"), visible=bool(desk.rival))
        with gr.Group():
            right = gr.Dropdown(ways, value=DEFAULT_TASK, label=t("compare.right"), elem_id="rk-compare-right")
            right_model = gr.Radio(models, value="", label=t("compare.model"), visible=bool(desk.rival))
    mode = gr.Radio([(t(f"mode.{m}"), m) for m in MODES], value="dense", label=t("search.mode"), info=t("compare.mode"))
    shown = desk.results(elem_id="rk-compare-results")

    def run(
        asked: str, left: str, left_model: str, right: str, right_model: str, mode: explain.Mode, language: str
    ) -> Iterator[Html]:
        words, told = Words(language), list[Html]()
        with telling(words, told):
            text = question_of(asked)
            if left_model or right_model:
                for step in desk.library.rival(desk.rival):
                    yield cards.progress(words("compare.preparing", value=desk.rival), step.done, words)
            one, other = (
                desk.library.search_by(model, text, _task(way), mode)
                for way, model in ((left, left_model), (right, right_model))
            )
            names = [_name(way, model, words) for way, model in ((left, left_model), (right, right_model))]
            columns = [
                cards.side(names[0], explain.compare(one.hits, one.hits), words, arrows=False),
                cards.side(names[1], explain.compare(one.hits, other.hits), words, arrows=True),
            ]
            yield tag("div", columns, cls="rk-sides")
        if told:
            yield told[0]

    inputs = [question, left, left_model, right, right_model, mode, desk.language]
    for trigger in (go.click, question.submit, examples.load_input_event.then):
        trigger(
            run, inputs, shown,
            api_visibility="private", concurrency_limit=desk.at_once, concurrency_id="search", show_progress="minimal",
        )  # fmt: skip


def _task(way: str) -> Task | None:
    return None if way == BARE else RETRIEVAL[way]


def _name(way: str, model: str, words: Words) -> str:
    told = words("compare.bare") if way == BARE else way
    return f"{told} · {model}" if model else told
