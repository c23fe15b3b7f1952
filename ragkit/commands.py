"""What the commands share: options, the store and encoder of a command, hits as text and JSON, errors as one line."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.files import stored_path
from ragkit.task import ANSWER_TASK, DEFAULT_TASK, TASKS, Task
from ragkit.types import Hit, Passage, Value, Where, moment

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.retrieve import Retriever
    from ragkit.settings import Settings
    from ragkit.store import Store


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Documents in; passages and cited answers out, in any language.",
)

MODES = ("hybrid", "dense", "sparse")

Corpus = Annotated[str, typer.Option(help="name of the corpus")]
Location = Annotated[str, typer.Option("--store", help="folder, or URL of a Qdrant server [RAGKIT_STORE]")]
Model = Annotated[str, typer.Option(help="'mini', a model folder, a Hub id or a server's URL [RAGKIT_MODEL]")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on the last line of standard output")]
Query = Annotated[str, typer.Argument(help="the question, in any language")]
TaskName = Annotated[str, typer.Option("--task", help=f"one of {', '.join(TASKS)} [{DEFAULT_TASK}]")]
AskTask = Annotated[str, typer.Option("--task", help=f"one of {', '.join(TASKS)} [{ANSWER_TASK}]")]
Instruction = Annotated[str, typer.Option(help="a task of your own, in one sentence")]
ModeName = Annotated[str, typer.Option(help=f"one of {', '.join(MODES)}")]
Lang = Annotated[str, typer.Option(help="only passages in this language, for example 'zh'")]
Source = Annotated[str, typer.Option(help="only passages of this file, or of files below this folder")]
Since = Annotated[str, typer.Option(help="only passages dated this day or later, as 2026-01-31")]
Until = Annotated[str, typer.Option(help="only passages dated this day or earlier")]
Meta = Annotated[list[str] | None, typer.Option("--where", help="only passages with this metadata, as 'author=Ana'")]
Tenant = Annotated[str, typer.Option(help="whose part of a shared corpus [RAGKIT_TENANT]")]
Diversity = Annotated[float, typer.Option(min=0, max=1, help="prefer passages unlike those before them")]
Count = Annotated[int, typer.Option("-k", min=1, help="hits")]


def visible(text: str) -> str:
    """A file's name may hold line breaks and what commands a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", _spelled, text)


def harmless(text: str) -> str:
    """What documents, models and servers say may command a terminal too; line breaks and tabs stay."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", _spelled, text)


def _spelled(sign: re.Match[str]) -> str:
    return repr(sign.group())[1:-1]


def read_settings() -> Settings:
    from ragkit.settings import Settings  # pydantic: a quarter of the time that help takes

    try:
        return Settings()
    except ValueError as error:
        print(f"ragkit: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


def show(hit: Hit) -> str:
    """A hit as two lines of text."""
    text = " ".join(hit.passage.text.split())
    short = text if len(text) <= 200 else text[:199] + "…"
    return f"{hit.rank:2}. {hit.score:.3f} {hit.passage.lang:3} {visible(place(hit.passage))}\n    {short}"


def place(passage: Passage) -> str:
    """Where it stands: the document, its page and the headings above."""
    page = f", page {passage.page}" if passage.page else ""
    return f"{passage.document}{page}{': ' + passage.heading if passage.heading else ''}"


def hit_fields(hit: Hit) -> dict[str, Any]:
    p = hit.passage
    return {"rank": hit.rank, "id": p.id, "score": hit.score, "lang": p.lang, "document": p.document, "path": p.path,
            "title": p.title, "page": p.page, "heading": p.heading, "date": p.date, "metadata": dict(p.metadata),
            "text": p.text}  # fmt: skip


def request_of(
    task: str,
    instruction: str,
    mode: str,
    lang: str,
    source: str,
    since: str,
    until: str,
    metadata: list[str] | None,
) -> dict[str, Any]:
    """What search, ask and evaluate ask a retriever for, checked before anything heavy is loaded."""
    from ragkit.language import asked_language

    if task and instruction:
        raise typer.BadParameter("give --task or --instruction, not both")
    if task and task not in TASKS:
        raise typer.BadParameter(f"{task!r} is none of {', '.join(TASKS)}", param_hint="--task")
    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(MODES)}", param_hint="--mode")
    try:
        wanted = asked_language(lang) if lang else None
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--lang") from error
    try:
        own = Task("own", instruction) if instruction else TASKS[task or DEFAULT_TASK]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--instruction") from error
    return {"task": own, "mode": mode, "lang": wanted, "where": _where(source, since, until, metadata)}


def _where(source: str, since: str, until: str, metadata: list[str] | None) -> Where | None:
    """A value of ``--where`` is JSON if it can be (2026, true, ["a", "b"]), else text."""
    wanted: dict[str, Any] = {}
    for text in metadata or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{text!r}: write NAME=VALUE", param_hint="--where")
        try:
            wanted[name] = json.loads(value)
        except ValueError:
            wanted[name] = value
        several = wanted[name] if isinstance(wanted[name], list) else [wanted[name]]
        if not several or not all(isinstance(one, Value) for one in several):
            raise typer.BadParameter(f"{text!r}: a text, a number, true, false, or a list", param_hint="--where")
    for option, day in (("--since", since), ("--until", until)):
        try:
            _ = day and moment(day)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint=option) from error
    path = stored_path(Path(os.path.abspath(source))) if source else ""  # noqa: PTH100  (as ingest: links not followed)
    return Where(path, since, until, wanted) if path or since or until or wanted else None


@contextmanager
def opened_store(corpus: str, store: str, model: str, tenant: str, *, create: bool) -> Iterator[tuple[Store, Encoder]]:
    """The store and encoder of a command."""
    settings = read_settings()
    with explained():
        from ragkit.language import identifier
        from ragkit.store import open_store

        # It unpacks 4 MB of LZMA, which leaves the interpreter to others: beside the encoder it costs no time.
        threading.Thread(target=identifier, daemon=True).start()
        encoder = encoder_of(model or settings.model, settings)
        place, own = store or settings.store, tenant or settings.tenant
        with open_store(place, corpus, encoder, tenant=own, qdrant_settings=settings.qdrant, create=create) as it:
            yield it, encoder


def encoder_of(model: str, settings: Settings) -> Encoder:
    """A model here, or one behind a URL."""
    from ragkit.remote import open_encoder

    return open_encoder(
        model,
        api_key=settings.embedder_api_key,
        model=settings.embedder_name,
        folder=settings.embedder_folder or None,
        int8=settings.int8,
        dimensions=settings.dimensions,
    )


@contextmanager
def explained() -> Iterator[None]:
    """What goes wrong inside becomes one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(harmless(f"ragkit: {error}"), file=sys.stderr)
        raise typer.Exit(1) from error


@contextmanager
def opened_retriever(corpus: str, store: str, model: str, tenant: str) -> Iterator[Retriever]:
    with opened_store(corpus, store, model, tenant, create=False) as (opened, encoder):
        from ragkit.rerank import load_reranker
        from ragkit.retrieve import Retriever

        wanted = read_settings().rerank
        yield Retriever(opened, encoder, reranker=load_reranker(wanted), rerank_depth=wanted.depth)


def emit(as_json: bool, document: dict[str, Any], text: str) -> None:
    if as_json:  # JSON itself escapes neither DEL to U+009F nor U+2028, at which some readers end a line
        whole = json.dumps(document, ensure_ascii=False)
        text = re.sub(r"[\x7f-\x9f\u2028\u2029]", lambda sign: f"\\u{ord(sign.group()):04x}", whole)
    write(text + "\n")


def write(text: str) -> None:
    """Output is UTF-8 whatever the terminal says: an answer in Amharic must not die of a C locale."""
    sys.stdout.buffer.write(harmless(text).encode("utf-8", "replace"))
    sys.stdout.flush()
