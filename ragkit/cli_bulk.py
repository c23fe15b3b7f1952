"""``ragkit embed | load``: a corpus too large to be embedded where it is stored."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.commands import (
    AsJson,
    Corpus,
    Location,
    Model,
    Tenant,
    app,
    emit,
    encoder_of,
    explained,
    read_settings,
    visible,
)
from ragkit.extras import install

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

ENGINES = ("local", "ray")


def load_model(name: str) -> Encoder:
    """Also called by the workers of a cluster, each with the variables of its own machine: no key travels."""
    return encoder_of(name, read_settings())


@app.command()
def embed(
    sources: Annotated[list[str], typer.Argument(help="files and folders, as for ingest")],
    corpus: Corpus,
    out: Annotated[Path, typer.Option(help="folder for the shards and their manifest")],
    engine: Annotated[str, typer.Option(help="local: this process; ray: a worker a GPU, or every few cores")] = "local",
    address: Annotated[str, typer.Option(help="of a running Ray cluster, or 'auto' [one of this machine alone]")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="under ray [as many as fit]")] = None,
    worker_cores: Annotated[int, typer.Option(min=1, help="of each worker without a GPU")] = 4,
    shard_passages: Annotated[int, typer.Option(min=1, help="rows of a file; what a crash costs each worker")] = 4096,
    tenant: Tenant = "",
    model: Model = "",
    as_json: AsJson = False,
) -> None:
    """Embed files into a folder of parquet shards, here or on a Ray cluster; run again to go on. Then `ragkit load`."""
    if engine not in ENGINES:
        raise typer.BadParameter(f"{engine!r} is none of {', '.join(ENGINES)}", param_hint="--engine")
    if engine == "local" and (address or workers):
        raise typer.BadParameter("--address and --workers are for --engine ray")
    settings = read_settings()
    with explained():
        try:
            from ragkit.bulk import embed as run
        except ImportError as error:
            raise ImportError(f"parquet is written by pyarrow ({error}): {install('bulk')}") from error
        from ragkit.layout import readers_of

        chosen: Any = None
        if engine == "ray":
            from ragkit.bulk_ray import RayEngine

            chosen = RayEngine(address=address, workers=workers, worker_cores=worker_cores)
        name = model or settings.model
        if Path(name).is_dir():
            name = str(Path(name).resolve())  # a worker has another working folder
        report = run(
            sources, out, partial(load_model, name), corpus=corpus, tenant=tenant or settings.tenant, engine=chosen,
            model=name, passage_tokens=settings.passage_tokens, shard_passages=shard_passages, limits=settings.limits,
            readers=readers_of(settings.parser), progress=True,
        )  # fmt: skip
        for skipped in report.skipped:
            print(f"skipped {visible(skipped.path)}: {visible(skipped.reason)}", file=sys.stderr)
        document = asdict(report) | {"skipped": len(report.skipped)}
        text = f"{report.passages} passages of {report.documents} documents in {report.shards} shards"
        following = shlex.join(["ragkit", "load", str(out), "--corpus", corpus])
        emit(as_json, document, f"{text}, {report.embedded} embedded; next: {following}")


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """A plain `kill` unwinds as Ctrl-C does, so that a server's graph is switched on again."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@app.command()
def load(
    vectors: Annotated[Path, typer.Argument(help="folder that `ragkit embed` wrote")],
    corpus: Corpus,
    parallel: Annotated[int, typer.Option(min=1, help="requests at once, to a server")] = 4,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Load embedded passages into a corpus, and verify them; needs no model. Run again to go on."""
    settings = read_settings()
    with explained(), _ended_in_order():
        try:
            from ragkit.load import load as run
        except ImportError as error:
            raise ImportError(f"parquet is read by pyarrow ({error}): {install('bulk')}") from error

        report = run(
            vectors, store or settings.store, corpus, settings=settings.qdrant, parallel=parallel, progress=True
        )
        text = f"{report.passages} passages, {report.written} written, {report.removed} stale ones removed"
        emit(as_json, asdict(report), f"{text}; {report.stored} stored, {report.compared} read back and compared")
