"""Predictions against measurements, and measurements in place of packaged constants.

Rows are those that ``benchmarks/store.py --out`` writes: one JSON object a line, with what was stored (points,
dimension, quantization, payload_bytes, terms) and what it took. Only what a row has is compared.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ragkit.capacity import Workload, footprint, scale
from ragkit.constants import Constant, constants

Row = Mapping[str, Any]
NEEDED = ("points", "dimension", "quantization")


@dataclass(frozen=True, slots=True)
class Comparison:
    row: str  # which row this is
    quantity: str
    unit: str
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """0.1: the prediction is a tenth too high."""
        return self.predicted / self.measured - 1


def read_rows(file: Path) -> list[Row]:
    """Raises ValueError for what is no row."""
    rows = []
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            missing = [name for name in NEEDED if name not in row]
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}, line {number}: no JSON object ({error}); rows are of benchmarks/store.py --out"
                             ) from error  # fmt: skip
        if missing:
            raise ValueError(f"{file}, line {number}: no {', '.join(missing)}; rows are of benchmarks/store.py --out")
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} has no rows: write some with benchmarks/store.py --out {file}")
    return rows


def from_row(row: Row) -> dict[str, Constant]:
    """Constants of one measured row, each as if measured at ``points`` x ``dimension`` of it."""
    source = f"{row.get('store', 'a store')}, {row['points']:,} x {row['dimension']}, {row['quantization']}, " \
             f"{row.get('machine', 'machine not named')}, {row.get('date', 'no date')}"  # fmt: skip
    known = constants()

    def constant(name: str, value: float) -> tuple[str, Constant]:
        return name, replace(known[name], value=value, kind="measured", source=source, unit=_unit(name, row))

    made = dict([constant("reference_points", row["points"]), constant("reference_dimension", row["dimension"])])
    for name in ("p50_ms", "p95_ms"):
        if name in row:
            made |= dict([constant(name, row[name])])
    for name in ("upsert_s", "index_s"):
        if row.get(name):
            cores = row.get("cores", 2) / 2 if name == "index_s" else 1  # all cores build; the plan counts with two
            made |= dict([constant(name, row[name] / row["points"] * cores)])
    return made


def _unit(name: str, row: Row) -> str:
    of = f"of {row['points']:,} points of {row['dimension']} dimensions"
    return {"p50_ms": f"ms a search {of}, median", "p95_ms": f"ms a search {of}, 95 %", "upsert_s": f"s a point {of}",
            "index_s": f"s a point {of}, 2 cores"}.get(name, constants()[name].unit)  # fmt: skip


def best_row(rows: Sequence[Row], work: Workload) -> Row:
    """The largest of those with this quantisation, of the bare engine if it was measured."""
    same = [row for row in rows if row["quantization"] == work.quantization]
    if not same:
        there = sorted({str(row["quantization"]) for row in rows})
        raise ValueError(f"no measured row with quantization {work.quantization}, only {', '.join(there)}: measure it")
    return max(same, key=lambda row: (row.get("store") == "engine", row["points"]))


def compare(rows: Sequence[Row]) -> Iterator[Comparison]:
    """Memory and disk are predicted by the formulas, without headroom, originals in memory. Times of a row are carried
    over from the next smaller one of the same store and quantisation that has a graph, as a plan carries them over from
    the largest that was measured."""
    c = constants()
    for row in rows:
        name = f"{row.get('store', '')}:{row['quantization']} {row['points']:,} x {row['dimension']}"
        work = Workload(
            row["points"], row["dimension"], quantization=row["quantization"], m=int(row.get("m", 16)),
            originals_in_memory=True, payload_bytes=row.get("payload_bytes"), terms=row.get("terms"),
        )  # fmt: skip
        if row.get("store") != "local":
            disk, memory = (sum(one.value for one in parts) * row["points"] for parts in footprint(work))
            for quantity, predicted in (("memory_bytes", memory + c["process_bytes"].value), ("disk_bytes", disk)):
                if row.get(quantity):
                    yield Comparison(name, quantity.removesuffix("_bytes"), "MB", predicted / 1e6, row[quantity] / 1e6)
        smaller = [
            r for r in rows
            if (r.get("store"), r["quantization"]) == (row.get("store"), row["quantization"])
            and r["points"] < row["points"]
            and r["points"] * r["dimension"] * 4 >= c["indexed_from"].value
        ]  # fmt: skip
        if not smaller or row.get("store") == "local":
            continue
        start = max(smaller, key=lambda r: r["points"])
        longer = scale(row["points"], row["dimension"], from_row(start))
        more = row["points"] / start["points"]
        wider = row["dimension"] / start["dimension"]
        for quantity, factor in (("p50_ms", longer), ("p95_ms", longer), ("index_s", more * longer),
                                 ("upsert_s", more * wider)):  # fmt: skip
            if row.get(quantity) and start.get(quantity):
                unit = quantity.rpartition("_")[2]
                yield Comparison(name, quantity.rpartition("_")[0], unit, start[quantity] * factor, row[quantity])


def slopes(rows: Sequence[Row]) -> Iterator[str]:
    """Memory and disk of a point, and what every store takes: from the smallest and the largest row of a kind."""
    kinds = sorted({(str(r.get("store")), str(r["quantization"]), int(r["dimension"])) for r in rows})
    for kind in kinds:
        of_kind = [r for r in rows if (str(r.get("store")), r["quantization"], r["dimension"]) == kind]
        least, most = (pick(of_kind, key=lambda r: r["points"]) for pick in (min, max))
        if least["points"] == most["points"]:
            continue
        for name in ("memory_bytes", "disk_bytes"):
            if least.get(name) and most.get(name):
                each = (most[name] - least[name]) / (most["points"] - least["points"])
                fixed = least[name] - each * least["points"]
                yield f"{kind[0]}:{kind[1]} x {kind[2]}: {name.removesuffix('_bytes')} {fixed / 1e6:,.0f} MB + " \
                      f"{each:,.0f} bytes a point"  # fmt: skip


def table(found: Iterable[Comparison]) -> str:
    """Markdown; the mean size of the errors last."""
    lines = ["| row | quantity | predicted | measured | error |", "|---|---|---|---|---|"]
    errors: dict[str, list[float]] = {}
    for one in found:
        errors.setdefault(one.quantity, []).append(abs(math.log(one.predicted / one.measured)))
        lines.append(f"| {one.row} | {one.quantity} | {one.predicted:,.2f} {one.unit} | {one.measured:,.2f} {one.unit} "
                     f"| {one.error:+.0%} |")  # fmt: skip
    typical = [f"{name} x {math.exp(sum(parts) / len(parts)):.2f}" for name, parts in errors.items()]
    return "\n".join([*lines, "", f"typical factor between prediction and measurement: {', '.join(typical)}"])
