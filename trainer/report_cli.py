"""``trainer report`` and ``trainer passkey``: result files to tables and a page; the paper's test of long contexts."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ragkit.extras import install


def report(
    results: Annotated[
        list[Path], typer.Argument(help="folders of mteb's results; files of trainer passkey", exists=True)
    ],
    out: Annotated[Path | None, typer.Option(help="the HTML page to write; pictures as PNG beside it")] = None,
    against: Annotated[list[str] | None, typer.Option(help="a model that all others are compared with")] = None,
    reproduces: Annotated[
        list[str] | None, typer.Option(help="MODEL=SYSTEM: the published system whose distance is shown, as E5-mistral")
    ] = None,
    note: Annotated[
        list[str] | None, typer.Option(help="MODEL=TEXT: printed wherever the model's numbers stand")
    ] = None,
    title: Annotated[str, typer.Option(help="of the page")] = "Evaluation of embedders",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document in place of the tables")] = False,
) -> None:
    """Tables of the paper's kind from mteb's result files, with published numbers and tests of significance."""
    try:
        from trainer.evaluation_report import build, write_page
        from trainer.tables import as_json as table_json
        from trainer.tables import as_markdown, plain

        made = build(results, against or [], _pairs(reproduces, "--reproduces"), _pairs(note, "--note"))
        if out:
            write_page(made, out, title)
    except ImportError as error:
        typer.echo(f"trainer report: {error}: {install('report')}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, OSError) as error:
        typer.echo(f"trainer report: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        text = json.dumps({"summary": made.summary, "tables": [table_json(t) for t in made.tables]}, ensure_ascii=False)
    else:
        text = "\n".join([*(f"{plain(s)}\n" for s in made.summary), *map(as_markdown, made.tables)])
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    if out:
        typer.echo(out, err=True)


def passkey(
    out: Annotated[Path, typer.Option(help="the JSON file; lengths that it has are not done again")],
    model: Annotated[str, typer.Option(help="'mini', 'mini-base', a model folder or a Hub id")] = "mini",
    lengths: Annotated[
        str, typer.Option(help="tokens, BOS and EOS included")
    ] = "256,512,1024,2048,4096,8192,16384,32768",
    plot: Annotated[Path | None, typer.Option(help="the PNG to draw after each length")] = None,
    candidates: Annotated[int, typer.Option(help="texts of each length")] = 100,
    queries: Annotated[int, typer.Option(help="questions at each length")] = 50,
    names: Annotated[str, typer.Option(help="latin, or world: people's names in ten scripts")] = "latin",
    rope_base: Annotated[float | None, typer.Option(help="RoPE base; of Gemma 3, of the layers that see all")] = None,
    rope_local_base: Annotated[float | None, typer.Option(help="of Gemma 3's layers with a window")] = None,
    window: Annotated[int | None, typer.Option(help="sliding window in tokens, of the layers that have one")] = None,
    seed: Annotated[int, typer.Option(help="of names, keys and places")] = 0,
    cache: Annotated[Path, typer.Option(help="keeps embeddings, so that a run cut off goes on")] = Path(
        "runs/embeddings.sqlite"
    ),
) -> None:
    """The paper's personalised passkey test: is a long text found by one sentence in it?"""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)])
    logging.getLogger("trainer").setLevel(logging.INFO)
    try:
        wanted = [int(length) for length in lengths.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{lengths!r}: numbers with commas, as 256,512", param_hint="--lengths") from error
    try:
        from ragkit.context import Context
        from ragkit.encoder import LocalEncoder
        from trainer import passkey as p
        from trainer.evaluate import CachedEncoder

        knobs = Context(rope_base, rope_local_base, window)
        config = p.PasskeyConfig(candidates, queries, names, seed)
        loaded = LocalEncoder.load(model, max_length=p.LONGEST, context=knobs if knobs != Context() else None)
        encoder = CachedEncoder(loaded, cache, chunk=4)  # what a kill may cost: four texts
        for run in p.passkey(encoder, model, wanted, out, config, asdict(knobs)):
            if plot:
                from ragkit.pictures import LIGHT, png
                from trainer.passkey_report import plot as draw

                plot.write_bytes(png(lambda look, run=run: draw([run], look), LIGHT))
    except ImportError as error:
        typer.echo(f"trainer passkey: {error}: {install('report')}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, OSError) as error:
        typer.echo(f"trainer passkey: {error}", err=True)
        raise typer.Exit(1) from error
    for length, done in p.read(out)["lengths"].items():
        typer.echo(f"{length} tokens\t{done['correct']} of {done['queries']}")


def _pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            raise typer.BadParameter(f"{text!r}: write MODEL=TEXT", param_hint=option)
        pairs[name] = value
    return pairs
