"""``ragkit plan``: what a corpus will take, before anything is bought; how far earlier plans were off."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragkit.commands import AsJson, app, emit, explained
from ragkit.extras import install

if TYPE_CHECKING:
    from ragkit.capacity import Plan
    from ragkit.search_load import Latency

UNITS = {"": 1.0, "B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2.0**10, "MIB": 2.0**20,
         "GIB": 2.0**30, "TIB": 2.0**40}  # fmt: skip


def size(text: str) -> float:
    """``64GB`` in bytes."""
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:e[0-9]{1,2})?)\s*([KMGT]?I?B?)\s*", text, re.IGNORECASE)
    unit = found.group(2).upper() if found else "?"
    if not found or unit not in UNITS:
        raise typer.BadParameter(f"{text!r}: write a size such as 64GB or 2TB")
    return float(found.group(1)) * UNITS[unit]


@app.command()
def plan(
    passages: Annotated[float, typer.Option(help="how many, such as 1e9")] = 0,
    dimension: Annotated[int, typer.Option(help="of an embedding [that of --model]")] = 0,
    tokens_per_passage: Annotated[float, typer.Option(help="of the embedder; ragkit cuts at 200")] = 200,
    model: Annotated[str, typer.Option(help="'mini', or a folder with config.json: its operations are counted")] = "",
    model_parameters: Annotated[float, typer.Option(help="of a model of which only the size is known, as 7e9")] = 0,
    quantization: Annotated[str, typer.Option(help="none, scalar, turbo or binary")] = "none",
    bits: Annotated[float, typer.Option(help="of a value under turbo")] = 4,
    originals_in_memory: Annotated[bool, typer.Option(help="beside quantised vectors; else read from disk")] = False,
    m: Annotated[int, typer.Option(help="edges a point of the HNSW graph")] = 16,
    replicas: Annotated[int, typer.Option(help="copies of each shard")] = 1,
    shards: Annotated[int, typer.Option(help="[one for each node]")] = 0,
    node_memory: Annotated[str, typer.Option(help="of one node")] = "64GB",
    node_disk: Annotated[str, typer.Option(help="of one node")] = "2TB",
    node_cores: Annotated[int, typer.Option(help="of one node")] = 8,
    queries_per_second: Annotated[float, typer.Option(help="simulate this load")] = 0,
    gpu: Annotated[str, typer.Option(help="to embed on: t4, v100, a10, a100, l4, l40s, h100, h200")] = "",
    gpus: Annotated[int, typer.Option(help="at once")] = 1,
    utilization: Annotated[float | None, typer.Option(help="of the GPU's peak that is reached [0.4, assumed]")] = None,
    price: Annotated[
        list[str] | None, typer.Option(help="gpu-hour=N, node-month=N, disk-gb-month=N; none assumed")
    ] = None,
    measured: Annotated[Path | None, typer.Option(help="rows of benchmarks/store.py --out, to count with")] = None,
    check: Annotated[Path | None, typer.Option(help="such rows: print prediction, measurement, error, no plan")] = None,
    html: Annotated[Path | None, typer.Option(help="write the plan as a page too")] = None,
    as_json: AsJson = False,
) -> None:
    """Memory, disk, nodes, GPU hours and latency of a corpus of any size, each number with its source."""
    sizes = {"memory": size(node_memory), "disk": size(node_disk)}
    with explained():
        from ragkit import capacity, forecast, operations, plan_report

        if check:
            _check(check, as_json)
            return
        shape = None
        if model and model_parameters:
            raise ValueError("--model and --model-parameters: give one of them")
        if model:
            shape = operations.shape_of_model(model)
        elif model_parameters:
            shape = operations.shape_of_size(model_parameters)
        if not dimension and not (shape and shape.dimension):
            raise ValueError("the dimension is not known: give --dimension, or --model with a configuration")
        work = capacity.Workload(
            passages, dimension or (shape.dimension if shape else 0), tokens_per_passage, quantization, bits, m,
            replicas, queries_per_second, originals_in_memory=originals_in_memory,
        )  # fmt: skip
        constants = None
        row: Any = None
        if measured:
            row = forecast.best_row(forecast.read_rows(measured), work)
            constants = forecast.from_row(row)
        made = capacity.plan(work, capacity.Cluster(**sizes, cores=node_cores, shards=shards or None), constants)
        if bool(gpu) != bool(shape):
            raise ValueError("embedding takes --gpu and one of --model and --model-parameters: give both or neither")
        if shape:
            capacity.embedding(made, shape, gpu, gpus=gpus, utilization=utilization)
        capacity.cost(made, capacity.prices(price or []))
        curve = _simulate(made) if queries_per_second else []
        if html:
            try:
                from ragkit.plan_page import page
            except ImportError as error:
                raise ImportError(f"{error}: {install('plan')} for the page") from error
            html.write_text(page(made, curve), "utf-8")
        emit(as_json, plan_report.as_json(made, curve), plan_report.as_text(made, curve))


def _simulate(made: Plan) -> list[Latency]:
    """Latency around the planned number of shards. Whole searches of the plan become figures."""
    from ragkit import search_load
    from ragkit.capacity import Figure, scale
    from ragkit.constants import constants

    work, used = made.workload, {one.name: one for figure in made.figures.values() for one in figure.used}
    p50, p95 = used["p50_ms"], used["p95_ms"]

    def service(shards: int) -> search_load.Service:
        longer = scale(work.passages / shards, work.dimension, used) / 1000
        return search_load.lognormal(p50.value * longer, max(p95.value, p50.value * 1.001) * longer)

    planned, hop = int(made["shards"]), constants()["hop_ms"]
    load = search_load.Load(work.queries_per_second, planned, int(made["nodes"]), made.cluster.cores, work.replicas)
    try:
        import simpy  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{error}: {install('plan')} to simulate searches") from error
    curve = search_load.curve(load, service, search_load.shard_counts(planned), hop=hop.value / 1000)
    here = next((point for point in curve if point.shards == planned), None)
    if here is None:
        made.remarks.append("At the planned number of shards the cores cannot keep up with the queries.")
        return curve
    how = f"{here.queries:,} simulated searches of {planned} shards, the slowest awaited, and the network"
    for name, value in (("search, p50", here.p50), ("search, p99", here.p99)):
        made.figures[name] = Figure(name, value * 1000, "ms", how, (p50, p95, used["scaling"], hop))
    return curve


def _check(file: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from ragkit import forecast

    rows = forecast.read_rows(file)
    found = list(forecast.compare(rows))
    document = {"comparisons": [asdict(one) | {"error": one.error} for one in found]}
    emit(as_json, document, "\n".join([forecast.table(found), "", *forecast.slopes(rows)]))
