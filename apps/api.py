"""What programs can ask the app: named endpoints for ``gradio_client``, beside the pages and over the same library.

client = gradio_client.Client("http://127.0.0.1:7860")
client.predict("Wann fährt die Fähre?", api_name="/search")
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any, Literal, cast

from apps import explain
from apps.desk import Desk, question_of, task_of
from apps.library import NotReady
from apps.pages.ask import answered
from apps.quiet import api, gr
from ragkit.commands import hit_fields
from ragkit.retrieve import Mode
from ragkit.task import DEFAULT_TASK
from ragkit.types import Hit

Modes = Literal["hybrid", "dense", "sparse"]


def add(desk: Desk) -> None:
    """Register the endpoints on the Blocks that are being built."""

    def search(
        question: str,
        language: str = "",
        task: str = DEFAULT_TASK,
        instruction: str = "",
        mode: str = "hybrid",
        k: int = 10,
    ) -> dict[str, Any]:
        """Passages that serve a question, in whatever language they are. `language` narrows them to one (a BCP-47
        code), `task` names an instruction or `instruction` is one of your own, `mode` is hybrid, dense or sparse."""
        with _explained(), desk.library.lease() as retriever:
            found = explain.search(
                retriever,
                question_of(question),
                task=task_of(task, instruction),
                mode=_mode(mode),
                lang=language or None,
                k=_within(k),
            )
        ranks = {key: {"dense": dense, "sparse": sparse} for key, (dense, sparse) in found.ranks.items()}
        hits = [_told(hit) | {"ranks": ranks[hit.passage.id]} for hit in found.hits]
        return {"language": found.language, "milliseconds": found.milliseconds, "hits": hits}

    def read(question: str, task: str = DEFAULT_TASK, instruction: str = "") -> dict[str, Any]:
        """What the model reads of a question: the exact prompt and its tokens, BOS and EOS included."""
        with _explained(), desk.library.lease() as retriever:
            prompt = task_of(task, instruction).prompt(question_of(question))
            return asdict(explain.read_by(retriever.encoder, prompt))

    def compare(
        question: str, left: str = "bare", right: str = DEFAULT_TASK, mode: str = "dense", k: int = 10
    ) -> dict[str, Any]:
        """One question asked in two ways, each the name of a task or `bare` (no instruction). `rose` is how many ranks
        a passage rose from left to right, null where it was not among the first."""
        with _explained(), desk.library.lease() as retriever:
            text = question_of(question)
            one, other = (
                explain.search(
                    retriever, text, task=None if way == "bare" else task_of(way), mode=_mode(mode), k=_within(k)
                )
                for way in (left, right)
            )
        moved = [_told(m.hit) | {"rose": m.by} for m in explain.compare(one.hits, other.hits)]
        return {"left": [_told(hit) for hit in one.hits], "right": moved}

    async def ask(question: str) -> AsyncIterator[dict[str, Any]]:
        """An answer with citations, as it is written; the last piece is the whole one. `text` is null where the
        documents do not say."""
        with _explained():
            async for text, answer, hits in answered(desk, question_of(question)):
                if answer is None:
                    yield {"text": text, "done": False, "citations": [], "hits": [], "model": ""}
                    continue
                cited = [
                    {"number": c.number, "id": c.hit.passage.id, "document": c.hit.passage.document, "quote": c.quote}
                    for c in answer.citations
                ]
                told = {"text": answer.text, "done": True, "citations": cited, "model": answer.model}
                yield told | {"hits": [_told(hit) for hit in answer.hits or hits]}

    def documents(text: str = "", most: int = 50) -> list[dict[str, Any]]:
        """The first documents of the corpus in whose path, id or title `text` stands."""
        with _explained():
            return [_renamed(asdict(entry)) for entry in desk.library.documents(text, max(1, min(int(most), 1000)))]

    def status() -> dict[str, Any]:
        """What the corpus holds, by which model, and where."""
        with _explained():
            return asdict(desk.library.status())

    # "path" is "file" here: gradio_client takes a record with a path for a file to fetch.
    for function in (search, read, compare, ask, documents, status):
        api(function, api_name=function.__name__, concurrency_limit=desk.at_once, concurrency_id="api")


class _explained:
    """What went wrong as an error that the client is shown."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, NotReady | ValueError | KeyError):
            told = {"empty": "the question is empty", "long": "the question is too long"}.get(str(error), str(error))
            raise gr.Error(told, print_exception=False) from error


def _told(hit: Hit) -> dict[str, Any]:
    return _renamed(hit_fields(hit))


def _renamed(record: dict[str, Any]) -> dict[str, Any]:
    return {"file" if name == "path" else name: value for name, value in record.items()}


def _mode(name: str) -> Mode:
    if name not in ("hybrid", "dense", "sparse"):
        raise ValueError(f"mode {name!r}: use hybrid, dense or sparse")
    return cast(Mode, name)


def _within(k: int) -> int:
    if not 1 <= int(k) <= 100:
        raise ValueError(f"k={k}: ask for 1 to 100 passages")
    return int(k)
