"""``ragkit ingest | search | ask``: documents in, passages and cited answers out.

For people by default. With ``--json`` the last line of standard output is one JSON document, and
everything else goes to standard error. Exit code 0, 1 (the work failed) or 2 (wrong usage). Defaults
come from ``RAGKIT_*`` variables (settings.py). Heavy imports wait until a command needs them, so that
help and usage errors are instant.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.settings import Settings
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Hit, Passage

if TYPE_CHECKING:
    from ragkit.encoder import LocalEncoder
    from ragkit.ingest import IngestReport
    from ragkit.retrieve import Retriever
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
Model = Annotated[str, typer.Option(help="'mini', a model folder or a Hub id [RAGKIT_MODEL]")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on the last line of standard output")]
Query = Annotated[str, typer.Argument(help="the question, in any language")]
TaskName = Annotated[str, typer.Option("--task", help=f"one of {', '.join(TASKS)} [{DEFAULT_TASK}]")]
Instruction = Annotated[str, typer.Option(help="a task of your own, in one sentence")]
ModeName = Annotated[str, typer.Option(help=f"one of {', '.join(MODES)}")]
Lang = Annotated[str, typer.Option(help="only passages in this language, for example 'zh'")]
Count = Annotated[int, typer.Option("-k", min=1, help="hits")]


@app.command()
def ingest(
    paths: Annotated[list[str], typer.Argument(help="files and folders")],
    corpus: Corpus,
    follow: Annotated[bool, typer.Option("--watch", help="go on and follow the changes, until interrupted")] = False,
    allow_empty: Annotated[bool, typer.Option(help="remove what is stored of folders that are empty now")] = False,
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Bring a corpus up to date with files and folders: txt, md, html, pdf, docx, pptx, epub, csv, jsonl."""
    settings = _settings()
    with _opened(corpus, store, model, create=True) as (opened, encoder):
        from ragkit.layout import readers_of

        options: dict[str, Any] = {"passage_tokens": settings.passage_tokens, "limits": settings.limits,
                                   "readers": readers_of(settings.parser), "allow_empty": allow_empty}  # fmt: skip
        if follow:
            from ragkit.watch import watch

            for report in watch(paths, opened, encoder, **options):
                _report(report, as_json)
        else:
            from ragkit.ingest import ingest as run

            _report(run(paths, opened, encoder, progress=True, **options), as_json)


def _report(report: IngestReport, as_json: bool) -> None:
    for skipped in report.skipped:
        print(f"skipped {_visible(skipped.path)}: {_visible(skipped.reason)}", file=sys.stderr)
    counts = {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": len(report.skipped),
        "passages": report.passages,
        "truncated": report.truncated,
    }
    _print(as_json, counts, ", ".join(f"{count} {name}" for name, count in counts.items()))


def _visible(text: str) -> str:
    """A file's name may hold line breaks and what commands a terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda sign: repr(sign.group())[1:-1], text)


def _settings() -> Settings:
    try:
        return Settings()
    except ValueError as error:
        print(f"ragkit: {error}", file=sys.stderr)
        raise typer.Exit(2) from error


@app.command()
def search(
    query: Query,
    corpus: Corpus,
    task: TaskName = "",
    instruction: Instruction = "",
    mode: ModeName = MODES[0],
    lang: Lang = "",
    k: Count = 10,
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Find the passages that serve a query, in whatever language they are."""
    asked = _request(task, instruction, mode, lang)
    with _retriever(corpus, store, model) as retriever:
        hits = retriever.search(query, k=k, **asked)
        _print(as_json, {"hits": [_hit(hit) for hit in hits]}, "\n".join(map(show, hits)) or "nothing found")


@app.command()
def ask(
    query: Query,
    corpus: Corpus,
    task: TaskName = "",
    instruction: Instruction = "",
    mode: ModeName = MODES[0],
    lang: Lang = "",
    k: Count = 10,
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Answer a question with a sentence of the corpus and its citation, or say that the corpus doesn't."""
    asked = _request(task, instruction, mode, lang)
    with _retriever(corpus, store, model) as retriever:
        from ragkit.answer import extractive_answer

        hits = retriever.search(query, k=k, **asked)
        encoder: Any = retriever.encoder
        answer = extractive_answer(query, hits, encoder, asked["task"], threshold=encoder.answer_threshold)
        citations = [
            {"number": c.number, "id": c.hit.passage.id, "document": c.hit.passage.document, "quote": c.quote,
             "start": c.start, "end": c.end}
            for c in answer.citations
        ]  # fmt: skip
        lines = [answer.text or "The corpus does not say."]
        lines += [f"[{c.number}] {_visible(_place(c.hit.passage))} ({c.hit.passage.lang})" for c in answer.citations]
        found = {"answer": answer.text, "citations": citations, "hits": [_hit(hit) for hit in hits]}
        _print(as_json, found, "\n".join(lines))


def show(hit: Hit) -> str:
    """A hit as two lines of text."""
    text = " ".join(hit.passage.text.split())
    short = text if len(text) <= 200 else text[:199] + "…"
    return f"{hit.rank:2}. {hit.score:.3f} {hit.passage.lang:3} {_visible(_place(hit.passage))}\n    {short}"


def _place(passage: Passage) -> str:
    """Where it stands: the document, its page and the headings above."""
    page = f", page {passage.page}" if passage.page else ""
    return f"{passage.document}{page}{': ' + passage.heading if passage.heading else ''}"


def _hit(hit: Hit) -> dict[str, Any]:
    p = hit.passage
    return {"rank": hit.rank, "id": p.id, "score": hit.score, "lang": p.lang, "document": p.document, "path": p.path,
            "title": p.title, "page": p.page, "heading": p.heading, "text": p.text}  # fmt: skip


def _request(task: str, instruction: str, mode: str, lang: str) -> dict[str, Any]:
    """The options that search and ask share, checked before anything heavy is loaded."""
    from ragkit.language import normalise_language

    if task and instruction:
        raise typer.BadParameter("give --task or --instruction, not both")
    if task and task not in TASKS:
        raise typer.BadParameter(f"{task!r} is none of {', '.join(TASKS)}", param_hint="--task")
    if mode not in MODES:
        raise typer.BadParameter(f"{mode!r} is none of {', '.join(MODES)}", param_hint="--mode")
    wanted = normalise_language(lang) if lang else None
    if lang and not wanted:
        raise typer.BadParameter(f"{lang!r} is no language code: use one such as 'sw' or 'zh'", param_hint="--lang")
    try:
        own = Task("own", instruction) if instruction else TASKS[task or DEFAULT_TASK]
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--instruction") from error
    return {"task": own, "mode": mode, "lang": wanted}


@contextmanager
def _opened(corpus: str, store: str, model: str, *, create: bool) -> Iterator[tuple[Store, LocalEncoder]]:
    """The store and encoder of a command; what goes wrong inside becomes one line and exit code 1."""
    settings = Settings()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        from ragkit.encoder import LocalEncoder
        from ragkit.store import open_store

        encoder = LocalEncoder.load(model or settings.model)
        with open_store(store or settings.store, corpus, encoder, api_key=settings.qdrant_api_key, create=create) as it:
            yield it, encoder
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"ragkit: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@contextmanager
def _retriever(corpus: str, store: str, model: str) -> Iterator[Retriever]:
    with _opened(corpus, store, model, create=False) as (opened, encoder):
        from ragkit.retrieve import Retriever

        yield Retriever(opened, encoder)


def _print(as_json: bool, document: dict[str, Any], text: str) -> None:
    """Output is UTF-8 whatever the terminal says: an answer in Amharic must not die of a C locale."""
    line = json.dumps(document, ensure_ascii=False) if as_json else text
    sys.stdout.buffer.write((line + "\n").encode("utf-8", "replace"))
    sys.stdout.flush()


def main() -> None:
    app()
