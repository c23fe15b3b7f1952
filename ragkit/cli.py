"""``ragkit ingest | search | ask | reindex | evaluate | serve | doctor``: documents in, cited answers out.

For people by default. With ``--json`` the last line of standard output is one JSON document, and
everything else goes to standard error. Exit code 0, 1 (the work failed), 2 (wrong usage) or 3 (evaluate:
worse than allowed). Defaults come from ``RAGKIT_*`` variables (settings.py). Heavy imports wait until a
command needs them, so that help and usage errors are instant.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.settings import Settings
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Answer, Hit, Passage, Value, Where, moment

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
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
Model = Annotated[str, typer.Option(help="'mini', a model folder, a Hub id or a server's URL [RAGKIT_MODEL]")]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON document on the last line of standard output")]
Query = Annotated[str, typer.Argument(help="the question, in any language")]
TaskName = Annotated[str, typer.Option("--task", help=f"one of {', '.join(TASKS)} [{DEFAULT_TASK}]")]
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


@app.command()
def ingest(
    paths: Annotated[list[str], typer.Argument(help="files and folders")],
    corpus: Corpus,
    follow: Annotated[bool, typer.Option("--watch", help="go on and follow the changes, until interrupted")] = False,
    allow_empty: Annotated[bool, typer.Option(help="remove what is stored of folders that are empty now")] = False,
    tenant: Tenant = "",
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Bring a corpus up to date with files and folders: txt, md, html, pdf, docx, pptx, epub, csv, jsonl."""
    settings = _settings()
    with _opened(corpus, store, model, tenant, create=True) as (opened, encoder):
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
    source: Source = "",
    since: Since = "",
    until: Until = "",
    where: Meta = None,
    diversity: Diversity = 0.0,
    k: Count = 10,
    tenant: Tenant = "",
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Find the passages that serve a query, in whatever language they are."""
    asked: dict[str, Any] = _request(task, instruction, mode, lang) | {"where": _where(source, since, until, where)}
    with _retriever(corpus, store, model, tenant) as retriever:
        hits = retriever.search(query, k=k, diversity=diversity, **asked)
        _print(as_json, {"hits": [_hit(hit) for hit in hits]}, "\n".join(map(show, hits)) or "nothing found")


@app.command()
def ask(
    query: Query,
    corpus: Corpus,
    task: TaskName = "",
    instruction: Instruction = "",
    mode: ModeName = MODES[0],
    lang: Lang = "",
    source: Source = "",
    since: Since = "",
    until: Until = "",
    where: Meta = None,
    diversity: Diversity = 0.0,
    k: Count = 10,
    llm: Annotated[
        str, typer.Option(help="a chat model that words the answer; see RAGKIT_LLM_URL [RAGKIT_LLM_MODEL]")
    ] = "",
    extractive: Annotated[bool, typer.Option(help="a sentence of the corpus, whatever RAGKIT_LLM_MODEL says")] = False,
    tenant: Tenant = "",
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Answer a question from the corpus, with citations, or say that the corpus doesn't."""
    asked: dict[str, Any] = _request(task, instruction, mode, lang) | {"where": _where(source, since, until, where)}
    with _retriever(corpus, store, model, tenant) as retriever:
        hits = retriever.search(query, k=k, diversity=diversity, **asked)
        name = "" if extractive else llm or Settings().llm.model
        if name:
            answer = _grounded(query, hits, name, retriever.encoder, quiet=as_json)
        else:
            from ragkit.answer import extractive_answer

            encoder: Any = retriever.encoder
            answer = extractive_answer(query, hits, encoder, asked["task"], threshold=encoder.answer_threshold)
        citations = [
            {"number": c.number, "id": c.hit.passage.id, "document": c.hit.passage.document, "quote": c.quote,
             "start": c.start, "end": c.end}
            for c in answer.citations
        ]  # fmt: skip
        found = {"answer": answer.text, "model": answer.model, "citations": citations, "hits": [_hit(h) for h in hits]}
        lines = [] if answer.text and name else [answer.text or "The corpus does not say."]  # a model's was streamed
        if answer.cut:
            lines.append("(cut off at the model's limit of tokens)")
        if answer.text and not answer.citations:
            lines.append("(no passage is cited: nothing backs this answer)")
        for c in answer.citations:
            quote = f"\n    {' '.join(c.quote.split())}" if name else ""
            lines.append(f"[{c.number}] {_visible(_place(c.hit.passage))} ({c.hit.passage.lang}){quote}")
        _print(as_json, found, "\n".join(lines))


def _grounded(query: str, hits: list[Hit], name: str, encoder: Encoder, *, quiet: bool) -> Answer:
    """A chat model's answer, shown as it comes unless ``quiet``."""
    import asyncio

    from ragkit.endpoint import Endpoint
    from ragkit.grounded import stream_answer

    try:
        from ragkit.llm import Chat, ChatError
    except ImportError as error:
        raise RuntimeError(f"{error}: pip install 'ragkit[llm]' to have a model word answers") from error
    settings = Settings().llm
    endpoint = Endpoint(name, base_url=settings.url, api_key_env="RAGKIT_LLM_API_KEY", temperature=0.0, max_tokens=1024)

    async def run() -> Answer:
        answer = Answer(None)
        async with Chat(endpoint, key=settings.api_key) as chat:
            async for piece in stream_answer(query, hits, chat, encoder):
                if isinstance(piece, Answer):
                    answer = piece
                elif not quiet:
                    _write(piece)
        if answer.text and not quiet:
            _write("\n")
        return answer

    try:
        return asyncio.run(run())
    except ChatError as error:
        raise RuntimeError(f"{error} (--extractive answers without a model)") from error


@app.command()
def reindex(
    corpus: Corpus,
    model: Model = "",
    rollback: Annotated[bool, typer.Option(help="make the generation before the current one current again")] = False,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Embed a corpus anew by another model, without its documents: its passages are read out of the store."""
    settings = Settings()
    place = store or settings.store
    with _explained():
        from ragkit import reindex as r

        if rollback:
            fingerprint = r.roll_back(place, corpus, settings.qdrant)
            _print(as_json, {"current": fingerprint}, f"{corpus} is at {fingerprint} again: use the model of that name")
            return
        encoder = _encoder(model or settings.model, settings)
        report = r.reindex(place, corpus, encoder, settings=settings.qdrant, progress=True)
        now = encoder.fingerprint
        text = f"{report.passages} passages, {report.embedded} embedded; was {report.previous}, is {now}"
        _print(as_json, {**asdict(report), "current": now}, text)


@app.command()
def evaluate(
    data: Annotated[Path, typer.Argument(help="folder with queries.jsonl and qrels.tsv, in BEIR's layout")],
    corpus: Corpus,
    task: TaskName = "",
    instruction: Instruction = "",
    mode: ModeName = MODES[0],
    lang: Lang = "",
    source: Source = "",
    since: Since = "",
    until: Until = "",
    where: Meta = None,
    least: Annotated[list[str] | None, typer.Option("--min", help="lowest score allowed, as 'ndcg@10=0.5'")] = None,
    baseline: Annotated[Path | None, typer.Option(help="an earlier --out, to compare with")] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="how far below the baseline is allowed")] = 0.01,
    out: Annotated[Path | None, typer.Option(help="file to write the scores to")] = None,
    tenant: Tenant = "",
    store: Location = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Score the corpus as it is deployed on your own questions; exit code 3 where that is worse than allowed."""
    from ragkit import evaluate as ev

    asked: dict[str, Any] = _request(task, instruction, mode, lang) | {"where": _where(source, since, until, where)}
    try:
        limits = ev.parse_limits(least or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--min") from error
    with _retriever(corpus, store, model, tenant) as retriever:
        before = ev.scores_of(baseline) if baseline else {}
        report = ev.evaluate(retriever, ev.read_questions(data), **asked)
        worse = ev.regressions(report.scores, limits, before, tolerance)
        document = {**asdict(report), "mode": mode, "worse": worse}
        if out:
            out.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
        lines = [f"{name} {value:.4f}" for name, value in report.scores.items()]
        lines += [f"{report.questions} questions, {len(report.missing)} of {report.documents} documents not stored"]
        _print(as_json, document, "\n".join(lines + worse))
    if worse:
        raise typer.Exit(3)


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
            qdrant=settings.qdrant,
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
    return f"{hit.rank:2}. {hit.score:.3f} {hit.passage.lang:3} {_visible(_place(hit.passage))}\n    {short}"


def _place(passage: Passage) -> str:
    """Where it stands: the document, its page and the headings above."""
    page = f", page {passage.page}" if passage.page else ""
    return f"{passage.document}{page}{': ' + passage.heading if passage.heading else ''}"


def _hit(hit: Hit) -> dict[str, Any]:
    p = hit.passage
    return {"rank": hit.rank, "id": p.id, "score": hit.score, "lang": p.lang, "document": p.document, "path": p.path,
            "title": p.title, "page": p.page, "heading": p.heading, "date": p.date, "metadata": dict(p.metadata),
            "text": p.text}  # fmt: skip


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
    path = Path(os.path.abspath(source)).as_posix() if source else ""  # noqa: PTH100  (as ingest: links not followed)
    return Where(path, since, until, wanted) if path or since or until or wanted else None


@contextmanager
def _opened(corpus: str, store: str, model: str, tenant: str, *, create: bool) -> Iterator[tuple[Store, Encoder]]:
    """The store and encoder of a command."""
    with _explained():
        settings = Settings()
        from ragkit.store import open_store

        encoder = _encoder(model or settings.model, settings)
        place, own = store or settings.store, tenant or settings.tenant
        with open_store(place, corpus, encoder, tenant=own, qdrant_settings=settings.qdrant, create=create) as it:
            yield it, encoder


def _encoder(model: str, settings: Settings) -> Encoder:
    """A model here, or one behind a URL."""
    from ragkit.remote import open_encoder

    return open_encoder(
        model,
        api_key=settings.embedder_api_key,
        model=settings.embedder_name,
        folder=settings.embedder_folder or None,
    )


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
def _retriever(corpus: str, store: str, model: str, tenant: str) -> Iterator[Retriever]:
    with _opened(corpus, store, model, tenant, create=False) as (opened, encoder):
        from ragkit.rerank import load_reranker
        from ragkit.retrieve import Retriever

        wanted = Settings().rerank
        yield Retriever(opened, encoder, reranker=load_reranker(wanted), rerank_depth=wanted.depth)


def _print(as_json: bool, document: dict[str, Any], text: str) -> None:
    _write((json.dumps(document, ensure_ascii=False) if as_json else text) + "\n")


def _write(text: str) -> None:
    """Output is UTF-8 whatever the terminal says: an answer in Amharic must not die of a C locale."""
    sys.stdout.buffer.write(text.encode("utf-8", "replace"))
    sys.stdout.flush()


def main() -> None:
    app()
