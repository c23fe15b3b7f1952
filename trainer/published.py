"""Published results, as data with their sources: what a run is laid beside.

``published.yaml`` holds the tables of arXiv 2401.00368 (MTEB by category and dataset, ablations, MIRACL, bitext,
passkey), MLDR's of arXiv 2402.03216, the task lists of the benchmarks, and what must be said of a model wherever
its numbers stand. Scores are points, 0 to 100. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("published.yaml")
MEAN = "Mean"


@dataclass(frozen=True, slots=True)
class Source:
    title: str
    url: str


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """``scores[column][n]`` is that of ``systems[n]``; None where none was given."""

    title: str
    metric: str
    source: Source
    place: str  # where in the source: "Table 6"
    note: str
    systems: tuple[str, ...]
    scores: Mapping[str, tuple[float | None, ...]]

    @property
    def origin(self) -> str:
        """A sentence for below a table."""
        return f"Published: {self.source.title}, {self.place}, {self.source.url}" + (
            f" ({self.note})." if self.note else "."
        )

    def score(self, system: str, column: str) -> float | None:
        """None where the table has no such system, column or score."""
        if system not in self.systems or column not in self.scores:
            return None
        return self.scores[column][self.systems.index(system)]


@dataclass(frozen=True, slots=True)
class Suite:
    """A benchmark: its tasks by type, and which split and subset of them count (all, where nothing is said)."""

    title: str
    types: Mapping[str, tuple[str, ...]]
    split: str
    splits: Mapping[str, str]
    subsets: Mapping[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for tasks in self.types.values() for task in tasks)


@dataclass(frozen=True, slots=True)
class Published:
    tables: Mapping[str, PublishedTable]
    suites: Mapping[str, Suite]
    aliases: Mapping[str, str]  # a model's name, lower case -> a published system
    notes: Mapping[str, str]  # a model's name, lower case -> what to say of it


@cache
def published() -> Published:
    """Raises ValueError where a table of the file is not whole."""
    data = yaml.safe_load(FILE.read_text("utf-8"))
    tables: dict[str, PublishedTable] = {}
    for name, table in data["tables"].items():
        systems = tuple(table["systems"])
        scores = {column: tuple(row) for column, row in table["scores"].items()}
        for column, row in scores.items():
            if len(row) != len(systems):
                raise ValueError(f"{FILE.name}, {name}, {column}: {len(row)} scores for {len(systems)} systems")
        source = Source(**data["sources"][table["source"]])
        tables[name] = PublishedTable(
            table["title"], table["metric"], source, table["place"], table.get("note", ""), systems, scores
        )
    suites = {
        name: Suite(
            suite["title"],
            {kind: tuple(tasks) for kind, tasks in suite["types"].items()},
            suite.get("split", ""),
            suite.get("splits", {}),
            suite.get("subsets", {}),
        )
        for name, suite in data["suites"].items()
    }
    return Published(tables, suites, _lower(data["aliases"]), _lower(data["notes"]))


def _lower(names: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): text for name, text in names.items()}
