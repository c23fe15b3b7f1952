"""``trainer synthesise | mine | train | average | axes | evaluate | contamination | passkey | report | export``:
examples, a model, its scores, its files."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from ragkit.extras import install
from trainer.evaluate_cli import contamination, evaluate
from trainer.report_cli import passkey, report
from trainer.synthesise_cli import app as synthesise

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Make the embedder: train a recipe, score a model, export it.",
)

app.add_typer(synthesise, name="synthesise")
app.command()(evaluate)
app.command()(contamination)
app.command()(report)
app.command()(passkey)


@app.command()
def mine(
    recipe: Annotated[str, typer.Argument(help="a YAML file, or a shipped recipe: its sources are mined")],
    data: Annotated[Path, typer.Option(help="the folder that the recipe's source paths start from")],
    out: Annotated[
        Path, typer.Option(help="the folder for one JSONL file a source; those there already are left alone")
    ],
    model: Annotated[str, typer.Option(help="'mini', a model folder or a Hub id, which ranks the passages")] = "mini",
    negatives: Annotated[int, typer.Option(help="for an example, at most")] = 4,
    skip: Annotated[int, typer.Option(help="so many first ranks are never taken")] = 0,
    depth: Annotated[int, typer.Option(help="negatives are drawn from the ranks up to this one")] = 100,
    share: Annotated[float, typer.Option(help="of the positive's cosine: above it, it may be an answer")] = 0.95,
    corpus: Annotated[Path | None, typer.Option(help="further passages: JSONL with text, title", exists=True)] = None,
    cache: Annotated[Path, typer.Option(help="keeps embeddings, so that a run cut off goes on")] = Path(
        "runs/embeddings.sqlite"
    ),
) -> None:
    """Find hard negatives for a recipe's examples, by the ranking of a model."""
    from ragkit.encoder import LocalEncoder
    from trainer.config import TrainConfig, recipe_path
    from trainer.evaluate import CachedEncoder
    from trainer.mine import MineConfig, mine_recipe

    try:
        knobs = MineConfig(negatives, skip, depth, share)
        encoder = CachedEncoder(LocalEncoder.load(model), cache)
        mine_recipe(TrainConfig.read(recipe_path(recipe)), data, out, encoder, knobs, corpus, typer.echo)
    except (ValueError, OSError) as error:
        typer.echo(f"trainer mine: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            help="a YAML file, or the name of one that ships: mini, mini-across, mini-further, mini-pages, "
            "mini-names, mini-alike, paper, msmarco, synthetic"
        ),
    ],
    data: Annotated[Path, typer.Option(help="the folder that the recipe's source paths start from")],
    out: Annotated[Path, typer.Option(help="the run folder; a run that was cut off goes on from it")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the recipe's; such as batch_size=128")
    ] = None,
    wandb: Annotated[bool, typer.Option(help="log to Weights & Biases too, not to TensorBoard alone")] = False,
    dry_run: Annotated[
        bool, typer.Option(help="draw the batches, say what the run will do and take, and stop; loads no weights")
    ] = False,
    devices: Annotated[int, typer.Option(help="with --dry-run: over how many devices")] = 1,
    flops: Annotated[float, typer.Option(help="with --dry-run: operations per second that a device achieves")] = 1e14,
) -> None:
    """Train a LoRA adapter; the model folder is OUT/model. Under torchrun or accelerate: on many devices."""
    from trainer.config import TrainConfig, recipe_path

    try:
        config = TrainConfig.read(recipe_path(recipe), set_ or [])
        if dry_run:
            from trainer.estimate import dry_run as describe

            typer.echo(describe(config, data, out, devices=devices, flops=flops))
            return
        from trainer.memory import hold_kernels, hold_memory
        from trainer.train import leave
        from trainer.train import train as run

        hold_kernels()  # of this process, which does nothing else
        hold_memory()
        typer.echo(run(config, data, out, report_to=["tensorboard", "wandb"] if wandb else ["tensorboard"]))
        leave()
    except (ValueError, OSError, MemoryError, FloatingPointError) as error:
        typer.echo(f"trainer train: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def average(
    checkpoints: Annotated[
        list[Path], typer.Argument(help="checkpoints of one run, or models that went on from one another")
    ],
    out: Annotated[Path, typer.Option(help="the model folder to write")],
) -> None:
    """Average adapters, tensor by tensor."""
    from trainer.checkpoints import average as mean

    try:
        typer.echo(mean(checkpoints, out))
    except (ValueError, OSError) as error:
        typer.echo(f"trainer average: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def axes(
    model: Annotated[Path, typer.Argument(help="a model folder", exists=True, file_okay=False)],
    recipe: Annotated[str, typer.Option(help="a YAML file, or a shipped recipe, whose passages show the axes")],
    data: Annotated[Path, typer.Option(help="the folder that the recipe's source paths start from")],
    texts: Annotated[int, typer.Option(min=1, help="so many passages, drawn as the recipe weighs them")] = 2000,
) -> None:
    """Find the axes along which a model's embeddings are shortened, and write them beside it."""
    from ragkit.around import write_axes
    from ragkit.encoder import LocalEncoder
    from trainer.axes import fit_axes
    from trainer.config import TrainConfig, recipe_path

    try:
        config = TrainConfig.read(recipe_path(recipe))
        typer.echo(write_axes(fit_axes(LocalEncoder.load(model), config, data, texts=texts), model))
    except (ValueError, OSError) as error:
        typer.echo(f"trainer axes: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="'mini', a model folder or a Hub id")],
    out: Annotated[Path, typer.Option(help="the folder to make; it appears when every format has been verified")],
    formats: Annotated[
        str, typer.Option(help="some of adapter,safetensors,sentence-transformers,onnx,gguf; all by default")
    ] = "",
    dtype: Annotated[str, typer.Option(help="of the safetensors: float32, bfloat16 or float16")] = "float32",
    gguf: Annotated[str, typer.Option(help="precision of model.gguf: f32, f16, bf16 or q8_0")] = "f16",
    scores: Annotated[
        list[Path] | None, typer.Option(help="JSON files of trainer evaluate, for the model card", exists=True)
    ] = None,
) -> None:
    """Write a model in other programs' formats; load each back there and compare the vectors."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)])
    logging.getLogger("trainer").setLevel(logging.INFO)
    try:
        from trainer.export import ExportConfig
        from trainer.export import export as run

        names = tuple(name.strip() for name in formats.split(",") if name.strip())
        for check in run(model, out, ExportConfig(names, dtype, gguf, tuple(scores or ()))):
            typer.echo(str(check))
        typer.echo(out)
    except ImportError as error:
        typer.echo(f"trainer export: {error}: {install('export')}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, OSError) as error:
        typer.echo(f"trainer export: {error}", err=True)
        raise typer.Exit(1) from error


def main() -> None:
    app()
