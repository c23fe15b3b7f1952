"""``trainer synthesise | train | evaluate``: a language model to examples, a recipe to a model, a model to scores."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainer.synthesise_cli import app as synthesise

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make the embedder: train a recipe, score a model.",
)

app.add_typer(synthesise, name="synthesise")

RECIPES = Path(__file__).with_name("recipes")


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or the name of a shipped recipe such as 'mini'")],
    data: Annotated[Path, typer.Option(help="the folder that the recipe's source paths start from")],
    out: Annotated[Path, typer.Option(help="the run folder; a run that was cut off goes on from it")],
) -> None:
    """Train a LoRA adapter; the model folder is OUT/model."""
    from trainer.train import TrainConfig
    from trainer.train import train as run

    path = Path(recipe) if Path(recipe).exists() else RECIPES / f"{recipe}.yaml"
    try:
        typer.echo(run(TrainConfig.read(path), data, out))
    except (ValueError, OSError) as error:
        typer.echo(f"trainer train: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def evaluate(
    data: Annotated[Path, typer.Option(help="a folder of SET/LANG/{corpus.jsonl, queries.jsonl, qrels.tsv}")],
    out: Annotated[Path, typer.Option(help="the JSON file to write: {SET: {LANG: {metric: value}}, mean: {...}}")],
    model: Annotated[str, typer.Option(help="'mini', 'mini-base', a model folder or a Hub id")] = "mini",
    mode: Annotated[str, typer.Option(help="dense, sparse (BM25, no model) or hybrid")] = "dense",
    task: Annotated[str, typer.Option(help="the queries' task: a name of TASKS")] = "question-answering",
    only: Annotated[list[str] | None, typer.Option(help="sets to evaluate, by name; all by default")] = None,
    queries: Annotated[int, typer.Option(help="at most so many queries a set, sampled; 0 for all")] = 0,
    passages: Annotated[
        int, typer.Option(help="with --queries: at most so many passages a set, the relevant kept")
    ] = 0,
    cache: Annotated[Path, typer.Option(help="keeps embeddings, so that a run cut off goes on")] = Path(
        "runs/embeddings.sqlite"
    ),
) -> None:
    """Score a model on local retrieval sets."""
    from ragkit.task import TASKS

    if mode not in ("dense", "sparse", "hybrid"):
        raise typer.BadParameter(f"{mode!r} is none of dense, sparse, hybrid", param_hint="--mode")
    if task not in TASKS:
        raise typer.BadParameter(f"{task!r} is none of {', '.join(TASKS)}", param_hint="--task")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)])

    from ragkit.encoder import LocalEncoder
    from trainer import evaluate as e

    try:
        sets = [s for s in e.read_sets(data) if not only or s.name in only]
        if not sets:
            raise ValueError(f"no set below {data} is named {' or '.join(only or [])}")
        if queries:
            sets = [s.sample(queries, passages or len(s.passages)) for s in sets]
        encoder = e.NoEncoder() if mode == "sparse" else e.CachedEncoder(LocalEncoder.load(model), cache)
        result = e.evaluate(sets, encoder, TASKS[task], mode)
        e.write(result, out)
    except (ValueError, OSError) as error:
        typer.echo(f"trainer evaluate: {error}", err=True)
        raise typer.Exit(1) from error
    typer.echo(" ".join(f"{metric} {value:.4f}" for metric, value in e.mean_over_sets(result).items()))


def main() -> None:
    app()
