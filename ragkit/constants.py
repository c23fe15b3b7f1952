"""The numbers that a plan is counted from, each with its unit, its kind and its source: ``constants.yaml``.

A number that nobody measured says ``assumed``. What is printed carries the constants it was made of, so that a reader
may doubt one and put a measurement in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

Kind = Literal["published", "datasheet", "measured", "counted", "assumed", "given"]
FILE = Path(__file__).with_name("constants.yaml")


@dataclass(frozen=True, slots=True)
class Constant:
    """``given`` is what whoever asked for the plan has said."""

    name: str
    value: float
    unit: str
    kind: Kind
    source: str

    def __str__(self) -> str:
        return f"{self.name} {self.value:,.6g} {self.unit} ({self.kind}: {self.source})"


@dataclass(frozen=True, slots=True)
class Device:
    name: str
    peak: Constant  # operations a second
    memory: float  # bytes


@cache
def constants() -> Mapping[str, Constant]:
    found = _file()
    made = {}
    for name, entry in found["constants"].items():
        if entry["kind"] not in get_args(Kind):
            raise ValueError(
                f"{FILE.name}: {name} is of kind {entry['kind']!r}, use one of {', '.join(get_args(Kind))}"
            )
        source = found["sources"].get(entry["source"], entry["source"])
        made[name] = Constant(name, float(entry["value"]), entry["unit"], entry["kind"], source)
    return made


@cache
def devices() -> Mapping[str, Device]:
    unit = "operations a second, 16-bit matrix products without sparsity"
    return {
        name: Device(
            name, Constant(f"peak of {name}", entry["peak"], unit, "datasheet", entry["source"]), entry["memory"]
        )
        for name, entry in _file()["devices"].items()
    }


@cache
def _file() -> dict[str, Any]:
    import yaml

    return yaml.safe_load(FILE.read_text("utf-8"))
