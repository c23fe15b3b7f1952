"""``ragkit reindex | evaluate | serve | doctor``: what is done to a corpus and an embedder in service."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ragkit.commands import (
    MODES,
    AsJson,
    Corpus,
    Instruction,
    Lang,
    Location,
    Meta,
    Model,
    ModeName,
    Since,
    Source,
    TaskName,
    Tenant,
    Until,
    app,
    emit,
    encoder_of,
    explained,
    harmless,
    opened_retriever,
    read_settings,
    request_of,
)
from ragkit.extras import install


@app.command()
def reindex(
    corpus: Corpus,
    model: Model = "",
    rollback: Annotated[bool, typer.Option(help="make the generation before the current one current again")] = False,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Embed a corpus anew by another model, without its documents: its passages are read out of the store."""
    settings = read_settings()
    place = store or settings.store
    with explained():
        from ragkit import reindex as r

        if rollback:
            fingerprint = r.roll_back(place, corpus, settings.qdrant)
            emit(as_json, {"current": fingerprint}, f"{corpus} is at {fingerprint} again: use the model of that name")
            return
        encoder = encoder_of(model or settings.model, settings)
        report = r.reindex(place, corpus, encoder, settings=settings.qdrant, progress=True)
        now = encoder.fingerprint
        text = f"{report.passages} passages, {report.embedded} embedded; was {report.previous}, is {now}"
        if now == report.previous:
            text = f"{report.passages} passages of {now}, as before: nothing to embed; their words are this version's"
        emit(as_json, {**asdict(report), "current": now}, text)


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

    asked = request_of(task, instruction, mode, lang, source, since, until, where)
    try:
        limits = ev.parse_limits(least or [])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--min") from error
    with opened_retriever(corpus, store, model, tenant) as retriever:
        before = ev.scores_of(baseline) if baseline else {}
        report = ev.evaluate(retriever, ev.read_questions(data), **asked)
        worse = ev.regressions(report.scores, limits, before, tolerance)
        document = {**asdict(report), "mode": mode, "worse": worse}
        if out:
            out.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", "utf-8")
        lines = [f"{name} {value:.4f}" for name, value in report.scores.items()]
        lines += [f"{report.questions} questions, {len(report.missing)} of {report.documents} documents not stored"]
        emit(as_json, document, "\n".join(lines + worse))
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
    settings = read_settings()
    what = model or settings.model
    if "://" in what:
        raise typer.BadParameter(f"{what} is a server already: name a model", param_hint="--model")
    with explained():
        try:
            from ragkit.server import ServeConfig, parse_keys, refuse_open
            from ragkit.server import serve as run
        except ImportError as error:
            raise ImportError(f"the server's packages are missing ({error}): {install('serve')}") from error

        keys = parse_keys(settings.serve_api_keys)
        refuse_open(host, keys)  # before the model is loaded
        if settings.dimensions:
            raise ValueError(
                f"RAGKIT_DIMENSIONS is {settings.dimensions} and a server has whole embeddings: unset it, and have "
                "clients ask for 'dimensions'"
            )
        config = ServeConfig(
            name=name or Path(what).name or "mini",
            batch_tokens=batch_tokens,
            queue_tokens=queue_tokens,
            require_input_type=require_input_type,
        )
        from ragkit.encoder import LocalEncoder

        encoder = LocalEncoder.load(what, int8=settings.int8)
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
    settings = read_settings()
    with explained():
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
            dimensions=settings.dimensions,
            corpus=corpus,
            store=where,
            qdrant=settings.qdrant,
            rooms=rooms,
        ):
            findings.append(found)
            told = harmless(f"{found.status:8} {found.check}: {found.text}")
            print(told, file=sys.stderr if as_json else sys.stdout)
        if as_json:
            emit(True, {"findings": [asdict(found) for found in findings]}, "")
    if any(found.status == "failed" for found in findings):
        raise typer.Exit(1)
