"""What the pages share: the open library, the visitor's words, and how a page's work is shown when it fails."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps import cards
from apps.library import Library, NotReady
from apps.markup import Html, tag
from apps.quiet import gr
from apps.words import Words
from ragkit.settings import Settings
from ragkit.task import TASKS, Task
from ragkit.wire import LONGEST_INSTRUCTION

RETRIEVAL = {name: task for name, task in TASKS.items() if not task.symmetric}
MODES = ("hybrid", "dense", "sparse")
LONGEST = 4000  # characters of a question: more than any model here reads

# A page's results hold buttons with data-rk-open; who clicks one opens that passage in its document.
OPENS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-rk-open]');
  if (button) trigger('open', {passage: button.dataset.rkOpen});
});
"""


@dataclass(slots=True)
class Desk:
    library: Library
    settings: Settings
    t: gr.I18n  # a label that the browser translates
    questions: Path | None  # a folder in BEIR's layout, with questions about the corpus
    examples: Sequence[str]
    rival: str = ""  # another embedder to compare with
    at_once: int = 24  # searches under way: those that wait for the model are encoded together
    language: Any = None  # the component that holds the visitor's language
    reader: Any = None  # the component that shows a passage in its document
    refreshed: list[tuple[Any, Any]] = field(default_factory=list)  # (function of the language, component) at loading

    def question(self, page: str, placeholder: str = "search.placeholder") -> tuple[gr.Textbox, gr.Button]:
        """Where a page's question is written, and the button that asks it; inside a Row of class rk-ask."""
        text = gr.Textbox(
            label=self.t("search.question"), placeholder=self.t(placeholder), lines=1, max_lines=4, scale=5,
            elem_id=f"rk-{page}-question", elem_classes="rk-auto",
        )  # fmt: skip
        label = self.t(f"{page}.go")
        return text, gr.Button(label, variant="primary", scale=0, min_width=120, elem_id=f"rk-{page}-go")

    def results(self, **options: Any) -> gr.HTML:
        """A place for cards, whose passages can be opened."""
        shown = gr.HTML(js_on_load=OPENS, apply_default_css=False, elem_classes="rk-page", **options)
        shown.open(self.show_passage, self.language, self.reader, api_visibility="private", queue=False)
        return shown

    def show_passage(self, language: str, event: gr.EventData) -> str:
        words = Words(language)
        try:
            passage, around = self.library.around(str(event.passage))
            # The browser redraws what has changed: the same passage opened again must differ.
            return tag("div", cards.opened(passage, around, words), data_rk_opening=secrets.token_hex(4))
        except NotReady as error:
            return cards.trouble(error, words)
        except (KeyError, ValueError):
            return cards.notice(words("hit.gone"), words("hit.gone.help"))


def task_of(name: str, instruction: str = "") -> Task:
    """A named task, or one of the visitor's own where its sentence was edited. Raises ValueError."""
    known = RETRIEVAL.get(name)
    wanted = " ".join(instruction.split())
    if known is not None and wanted in ("", known.instruction):
        return known
    if len(wanted) > LONGEST_INSTRUCTION:
        raise ValueError(f"the instruction has {len(wanted)} characters: say it in {LONGEST_INSTRUCTION} at most")
    if not wanted:
        raise ValueError(f"task {name!r} is none of {', '.join(RETRIEVAL)}: name one, or write an instruction")
    return Task("own", wanted)


def question_of(text: str) -> str:
    """What was asked, trimmed. Raises ValueError where that is nothing or far too much."""
    question = text.strip()
    if not question:
        raise ValueError("empty")
    if len(question) > LONGEST:
        raise ValueError("long")
    return question


def refused(error: ValueError, words: Words) -> Html:
    name = f"question.{error}" if str(error) in ("empty", "long") else ""
    return cards.notice(words(name), words(f"{name}.help")) if name else cards.notice(words("wrong"), str(error))


@contextmanager
def telling(words: Words, told: list[Html]):  # type: ignore[no-untyped-def]
    """What goes wrong in the block is put into ``told`` as something to show."""
    try:
        yield
    except NotReady as error:
        told.append(cards.trouble(error, words))
    except ValueError as error:
        told.append(refused(error, words))
