"""``ragkit ingest | search | ask | serve | doctor``: documents in, passages and cited answers out.

For people by default. With ``--json`` the last line of standard output is one JSON document, and
everything else goes to standard error. Exit code 0, 1 (the work failed) or 2 (wrong usage). Defaults
come from ``RAGKIT_*`` variables (settings.py). Heavy imports wait until a command needs them, so that
help and usage errors are instant.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.settings import Settings
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Hit

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
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
Model = Annotated[str, typer.Option(help="'mini', a model folder, a Hub id or a server's URL [RAGKIT_MODEL]")]
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
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Bring a corpus up to date with files and folders: txt, md, html, pdf, docx, jsonl."""
    with _opened(corpus, store, model, create=True) as (opened, encoder):
        from ragkit.ingest import ingest as run

        report = run(paths, opened, encoder, passage_tokens=Settings().passage_tokens, progress=True)
        for skipped in report.skipped:
            print(f"skipped {skipped.path}: {skipped.reason}", file=sys.stderr)
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
        lines += [f"[{c.number}] {c.hit.passage.document} ({c.hit.passage.lang})" for c in answer.citations]
        found = {"answer": answer.text, "citations": citations, "hits": [_hit(hit) for hit in hits]}
        _print(as_json, found, "\n".join(lines))


@app.command()
def serve(
    model: Model = "",
    host: Annotated[str, typer.Option(help="address to listen on; others than loopback need keys")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8765,
    name: Annotated[str, typer.Option(help="what clients call the model [the model's own name]")] = "",
    batch_tokens: Annotated[int, typer.Option(min=1, help="computed at once")] = 2048,
    queue_tokens: Annotated[int, typer.Option(min=1, help="that may wait; beyond it 429")] = 131_072,
    require_input_type: Annotated[bool, typer.Option(help="refuse who does not say query or document")] = False,
) -> None:
    """Serve the embedder over OpenAI's /v1/embeddings, queries told from documents. Keys: RAGKIT_SERVE_API_KEYS."""
    settings = Settings()
    what = model or settings.model
    if "://" in what:
        raise typer.BadParameter(f"{what} is a server already: name a model", param_hint="--model")
    with _explained():
        try:
            from ragkit.server import ServeConfig, parse_keys, refuse_open
            from ragkit.server import serve as run
        except ImportError as error:
            raise ImportError(f"the server's packages are missing ({error}): pip install 'ragkit[serve]'") from error

        keys = parse_keys(settings.serve_api_keys)
        refuse_open(host, keys)  # before the model is loaded
        config = ServeConfig(
            name=name or Path(what).name or "mini",
            batch_tokens=batch_tokens,
            queue_tokens=queue_tokens,
            require_input_type=require_input_type,
        )
        from ragkit.encoder import LocalEncoder

        encoder = LocalEncoder.load(what)
        told = f"serving {config.name} ({encoder.fingerprint}) on http://{host}:{port}/v1"
        print(f"{told}, {f'{len(keys)} API keys' if keys else 'no API key wanted'}", file=sys.stderr)
        run(encoder, config, keys, host, port)


@app.command()
def doctor(
    target: Annotated[str, typer.Argument(help="a server's URL or an export's folder [the model itself]")] = "",
    model: Model = "",
    corpus: Annotated[str, typer.Option(help="check this corpus' fingerprint too")] = "",
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Compare a server's or an export's vectors with the model's own and name what is wrong; exit code 1 if it is."""
    settings = Settings()
    with _explained():
        from ragkit.doctor import examine

        where = store or settings.store
        rooms = {"cache": settings.cache} | ({} if "://" in where or where == ":memory:" else {"store": Path(where)})
        findings = []
        for found in examine(
            target,
            model=model or settings.model,
            folder=settings.embedder_folder,
            name=settings.embedder_name,
            api_key=settings.embedder_api_key,
            corpus=corpus,
            store=where,
            store_api_key=settings.qdrant_api_key,
            rooms=rooms,
        ):
            findings.append(found)
            print(f"{found.status:8} {found.check}: {found.text}", file=sys.stderr if as_json else sys.stdout)
        if as_json:
            _print(True, {"findings": [asdict(found) for found in findings]}, "")
    if any(found.status == "failed" for found in findings):
        raise typer.Exit(1)


def show(hit: Hit) -> str:
    """A hit as two lines of text."""
    text = " ".join(hit.passage.text.split())
    short = text if len(text) <= 200 else text[:199] + "…"
    return f"{hit.rank:2}. {hit.score:.3f} {hit.passage.lang:3} {hit.passage.document}\n    {short}"


def _hit(hit: Hit) -> dict[str, Any]:
    p = hit.passage
    return {"rank": hit.rank, "id": p.id, "score": hit.score, "lang": p.lang, "document": p.document, "path": p.path,
            "title": p.title, "text": p.text}  # fmt: skip


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
def _explained() -> Iterator[None]:
    """What goes wrong inside becomes one line and exit code 1."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        yield
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"ragkit: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@contextmanager
def _opened(corpus: str, store: str, model: str, *, create: bool) -> Iterator[tuple[Store, Encoder]]:
    """The store and encoder of a command."""
    settings = Settings()
    with _explained():
        from ragkit.remote import open_encoder
        from ragkit.store import open_store

        encoder = open_encoder(
            model or settings.model,
            api_key=settings.embedder_api_key,
            model=settings.embedder_name,
            folder=settings.embedder_folder or None,
        )
        with open_store(store or settings.store, corpus, encoder, api_key=settings.qdrant_api_key, create=create) as it:
            yield it, encoder


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
