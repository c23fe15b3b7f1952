"""``ragkit backup | restore | generations | promote``: copies of a corpus, what earlier embedders left of it, and a
shard of its own for a tenant that has grown."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ragkit.commands import AsJson, Corpus, Location, app, emit, explained, read_settings, visible


@app.command()
def backup(
    corpus: Corpus,
    out: Annotated[str, typer.Option(help="file to write, or a folder, as in backups/, that gets a named one")],
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Copy a corpus, as its current embedder made it, into one file that has been read back."""
    settings = read_settings()
    with explained():
        from ragkit.backup import backup as run

        kept = run(store or settings.store, corpus, out, settings.qdrant)
        text = f"{kept.file}: {kept.points} passages of {kept.fingerprint}, {kept.bytes / 1e6:.1f} MB"
        if kept.node:
            text += (
                f"\nthis is {kept.node} alone: run it with the URL of each other node too and keep the files together"
            )
        emit(as_json, asdict(kept), text)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="what `ragkit backup` wrote")],
    corpus: Corpus,
    replace: Annotated[bool, typer.Option("--replace", help="in the place of the corpus that is there")] = False,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Put a backup back: checked whole before anything changes, and counted after."""
    settings = read_settings()
    with explained():
        from ragkit.backup import restore as run
        from ragkit.client import masked

        place = store or settings.store
        kept = run(file, place, corpus, replace_existing=replace, settings=settings.qdrant)
        text = f"{corpus} at {masked(place)}: {kept.points} passages of {kept.fingerprint}"
        if kept.node:
            text += f"\nthis was {kept.node} alone: restore each other node's file by that node's URL, with --replace"
        emit(as_json, asdict(kept), text)


@app.command()
def generations(
    corpus: Corpus,
    prune: Annotated[bool, typer.Option("--prune", help="remove all but the current one, for good")] = False,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """List what each embedder left of a corpus, with its size; `ragkit reindex --rollback` can go back to the last."""
    settings = read_settings()
    with explained():
        from ragkit import reindex as r

        place = store or settings.store
        found = (r.prune if prune else r.generations_of)(place, corpus, settings.qdrant)
        lines = []
        for one in found:
            size = f"{one.passages} passages" if one.bytes is None else f"{one.bytes / 1e6:.1f} MB"
            state = "current" if one.current else "" if one.whole else "cut off"
            lines.append(f"{'removed ' if prune else ''}{one.fingerprint}  {size}  {state}".rstrip())
        document = {"removed" if prune else "generations": [asdict(one) for one in found]}
        emit(as_json, document, "\n".join(lines) or f"nothing {'to remove' if prune else 'there'} of {corpus}")


@app.command()
def promote(
    tenant: Annotated[str, typer.Argument(help="whose part has grown: from about 20,000 passages")],
    corpus: Corpus,
    store: Location = "",
    as_json: AsJson = False,
) -> None:
    """Give a tenant of a tiered corpus a shard of their own, while they are served (RAGKIT_QDRANT_TIERS)."""
    settings = read_settings()
    with explained():
        from ragkit.cluster import promote as run
        from ragkit.reindex import open_current

        with open_current(store or settings.store, corpus, settings.qdrant) as opened:
            count = run(opened.client, opened.collection, tenant)
        emit(as_json, {"tenant": tenant, "passages": count}, f"{visible(tenant)}: {count} passages in their own shard")
