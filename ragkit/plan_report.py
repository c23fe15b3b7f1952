"""A plan as text and as JSON: every number beside its reckoning, with numbers that lead to its sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ragkit.capacity import Figure, Plan
from ragkit.constants import Constant
from ragkit.search_load import Latency

SUMMARY = ("nodes", "shards", "memory", "disk", "search, p50", "search, p99", "cores that search", "GPU hours",
           "embedding", "cost of embedding", "cost of nodes", "cost of disk")  # fmt: skip
KINDS = {"published": "published by Qdrant", "datasheet": "maker's datasheet", "measured": "measured", "given": "given",
         "counted": "counted", "assumed": "ASSUMED, not measured"}  # fmt: skip


def show(figure: Figure) -> str:
    """The value with its unit: bytes as MB, GB or TB, counts whole, the rest in three digits."""
    value, unit = figure.value, figure.unit
    if unit == "bytes":
        size, name = next(
            (s, n) for s, n in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1, "bytes")) if value >= s or s == 1
        )
        return f"{value / size:,.0f} {name}" if value >= 100 * size else f"{value / size:,.3g} {name}"
    if unit == "of all cores":
        return f"{value:.1%} {unit}"
    number = f"{value:,.0f}" if value == int(value) or value >= 1000 else f"{value:,.3g}"
    if value >= 1e12:
        number = f"{value:.3g}"
    return f"{number} {unit}".strip()


def sections(made: Plan) -> dict[str, list[Figure]]:
    """Title -> figures. What was summed up is not said again."""
    groups: dict[str, list[Figure]] = {"Summary": [made.figures[n] for n in SUMMARY if n in made.figures]}
    summed = {id(f) for f in groups["Summary"]}
    titles = {"memory": "Memory", "disk": "Disk", "passages a shard": "Nodes", "memory a node": "Nodes",
              "disk a node": "Nodes", "tokens": "Embedding", "operations to embed": "Embedding"}  # fmt: skip
    for name, figure in made.figures.items():
        if id(figure) not in summed:
            part = name.partition(":")[0].partition(",")[0]
            groups.setdefault(titles.get(part, "Search and indexing"), []).append(figure)
    return groups


def sources(made: Plan) -> list[Constant]:
    """Every constant that some figure was made of, in the order of the sections."""
    used = [one for figures in sections(made).values() for figure in figures for one in figure.used]
    return list(dict.fromkeys(used))


def as_text(made: Plan, curve: Sequence[Latency]) -> str:
    numbered = {one: n for n, one in enumerate(sources(made), 1)}
    lines = [asked(made), ""]
    width = max(len(name) for name in made.figures)
    for title, figures in sections(made).items():
        lines.append(title)
        for figure in figures:
            marks = "".join(mark_of(one, numbered) for one in figure.used)
            name = figure.name.removeprefix(f"{title.lower()}: ")
            lines.append(f"  {name:{width}}  {show(figure):>18}  {figure.how} {marks}".rstrip())
        lines.append("")
    if curve:
        lines += ["Simulated searches (milliseconds)", "  shards     p50     p99  cores busy  queries"]
        lines += [
            f"  {p.shards:6}  {p.p50 * 1000:6.2f}  {p.p99 * 1000:6.2f}  {p.busy:10.1%}  {p.queries:7,}" for p in curve
        ]
        lines.append("")
    lines += [f"Note: {remark}" for remark in made.remarks]
    lines += ["", "Settings", *(f"  {name}={value}" for name, value in made.settings.items()), "", "Sources"]
    lines += [f"  [{n}] {told(one)}" for one, n in numbered.items()]
    return "\n".join(lines)


def mark_of(one: Constant, numbered: Mapping[Constant, int]) -> str:
    """``[3]``; an assumption says so wherever it is used."""
    return f"[{numbered[one]}{', assumed' if one.kind == 'assumed' else ''}]"


def asked(made: Plan) -> str:
    """What the plan is for, in a sentence."""
    work, node = made.workload, made.cluster
    load = f", {work.queries_per_second:g} queries a second" if work.queries_per_second else ""
    return (
        f"{work.passages:,.0f} passages of {work.tokens_per_passage:g} tokens, {work.dimension} dimensions, "
        f"quantization {work.quantization}, {work.replicas} cop{'y' if work.replicas == 1 else 'ies'}{load}; nodes of "
        f"{node.memory / 1e9:,g} GB of memory, {node.disk / 1e9:,g} GB of disk, {node.cores} cores"
    )


def told(one: Constant) -> str:
    value = f"{one.value:,.6g}" if one.value < 1e12 else f"{one.value:.4g}"
    return f"{KINDS[one.kind]}: {one.name} = {value} {one.unit}. {one.source}"


def as_json(made: Plan, curve: Sequence[Latency]) -> dict[str, Any]:
    return {
        "workload": asdict(made.workload),
        "cluster": asdict(made.cluster),
        "figures": [asdict(figure) for figure in made.figures.values()],
        "simulation": [asdict(point) for point in curve],
        "remarks": made.remarks,
        "settings": made.settings,
    }
