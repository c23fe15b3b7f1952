"""``ragkit ingest | search | ask | reindex | evaluate | serve | doctor | plan``: documents in, cited answers out.

For people by default. With ``--json`` the last line of standard output is one JSON document, and
everything else goes to standard error. Exit code 0, 1 (the work failed), 2 (wrong usage) or 3 (evaluate:
worse than allowed). Defaults come from ``RAGKIT_*`` variables (settings.py). Heavy imports wait until a
command needs them, so that help and usage errors are instant.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.commands import (
    MODES,
    AsJson,
    AskTask,
    Corpus,
    Count,
    Diversity,
    Instruction,
    Lang,
    Location,
    Meta,
    Model,
    ModeName,
    Query,
    Since,
    Source,
    TaskName,
    Tenant,
    Until,
    app,
    emit,
    hit_fields,
    opened_retriever,
    opened_store,
    place,
    read_settings,
    request_of,
    show,
    visible,
    write,
)
from ragkit.extras import install
from ragkit.task import ANSWER_TASK
from ragkit.types import Answer, Hit

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.ingest import IngestReport


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
    """Bring a corpus up to date with files and folders: txt, md, html, pdf, docx, pptx, epub, csv, jsonl, parquet."""
    settings = read_settings()
    with opened_store(corpus, store, model, tenant, create=True) as (opened, encoder):
        from ragkit.layout import readers_of

        options: dict[str, Any] = {"passage_tokens": settings.passage_tokens, "limits": settings.limits,
                                   "readers": readers_of(settings.parser), "allow_empty": allow_empty}  # fmt: skip
        if follow:
            from ragkit.watch import watch

            with contextlib.suppress(KeyboardInterrupt):  # this is how it ends; a run cut short is finished by the next
                for report in watch(paths, opened, encoder, **options):
                    _report(report, as_json)
        else:
            from ragkit.ingest import ingest as run

            _report(run(paths, opened, encoder, progress=True, **options), as_json)


def _report(report: IngestReport, as_json: bool) -> None:
    for skipped in report.skipped:
        print(f"skipped {visible(skipped.path)}: {visible(skipped.reason)}", file=sys.stderr)
    counts = {
        "added": report.added,
        "changed": report.changed,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": len(report.skipped),
        "passages": report.passages,
        "truncated": report.truncated,
    }
    emit(as_json, counts, ", ".join(f"{count} {name}" for name, count in counts.items()))


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
    asked = request_of(task, instruction, mode, lang, source, since, until, where)
    with opened_retriever(corpus, store, model, tenant) as retriever:
        hits = retriever.search(query, k=k, diversity=diversity, **asked)
        emit(as_json, {"hits": [hit_fields(hit) for hit in hits]}, "\n".join(map(show, hits)) or "nothing found")


@app.command()
def ask(
    query: Query,
    corpus: Corpus,
    task: AskTask = "",
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
    task = task or ("" if instruction else ANSWER_TASK)
    asked = request_of(task, instruction, mode, lang, source, since, until, where)
    with opened_retriever(corpus, store, model, tenant) as retriever:
        encoder: Any = retriever.encoder
        question = None if mode == "sparse" else encoder.encode_queries([query], asked["task"])  # (1, D)
        [hits] = retriever.search_batch([query], k=k, diversity=diversity, embeddings=question, **asked)
        name = "" if extractive else llm or read_settings().llm.model
        if name:
            answer = _grounded(query, hits, name, encoder, quiet=as_json)
        else:
            from ragkit.answer import READ, extractive_answer

            answer = extractive_answer(
                query, hits, encoder, asked["task"], threshold=encoder.answer_threshold,
                question=None if question is None else question[0],
                stored=retriever.store.embeddings([hit.passage.id for hit in hits[:READ]]),
            )  # fmt: skip
        citations = [
            {"number": c.number, "id": c.hit.passage.id, "document": c.hit.passage.document, "quote": c.quote,
             "start": c.start, "end": c.end}
            for c in answer.citations
        ]  # fmt: skip
        found = {
            "answer": answer.text,
            "model": answer.model,
            "citations": citations,
            "hits": [hit_fields(h) for h in hits],
        }
        lines = [] if answer.text and name else [answer.text or "The corpus does not say."]  # a model's was streamed
        if answer.cut:
            lines.append("(cut off at the model's limit of tokens)")
        if answer.text and not answer.citations:
            lines.append("(no passage is cited: nothing backs this answer)")
        for c in answer.citations:
            quote = f"\n    {' '.join(c.quote.split())}" if name else ""
            lines.append(f"[{c.number}] {visible(place(c.hit.passage))} ({c.hit.passage.lang}){quote}")
        emit(as_json, found, "\n".join(lines))


def _grounded(query: str, hits: list[Hit], name: str, encoder: Encoder, *, quiet: bool) -> Answer:
    """A chat model's answer, shown as it comes unless ``quiet``."""
    import asyncio

    from ragkit.grounded import stream_answer

    try:
        from ragkit.llm import ChatError, answering
    except ImportError as error:
        raise RuntimeError(f"{error}: {install('llm')} to have a model word answers") from error
    settings = read_settings().llm

    async def run() -> Answer:
        answer = Answer(None)
        async with answering(settings, name) as chat:
            async for piece in stream_answer(query, hits, chat, encoder):
                if isinstance(piece, Answer):
                    answer = piece
                elif not quiet:
                    write(piece)
        if answer.text and not quiet:
            write("\n")
        return answer

    try:
        return asyncio.run(run())
    except ChatError as error:
        raise RuntimeError(f"{error} (--extractive answers without a model)") from error


from ragkit import cli_bulk, cli_keep, cli_operate, cli_plan  # noqa: E402, F401  (here, so that help lists their commands last)

for command in entry_points(group="ragkit.commands"):  # of other packages: `ragkit app` is one
    app.command(command.name)(command.load())


def main() -> None:
    gc.set_threshold(100_000, 20, 20)  # imports make a million objects that stay: looking for cycles took a tenth of it
    app()
