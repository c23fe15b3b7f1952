"""A table as a value: what the report prints as text, markdown, HTML and JSON.

Rows and columns have a kind (measured here, published elsewhere, a distance, a comparison), which decides how a cell
is set. Scores are points, 0 to 100; None is missing and shown as a dash. What a reader must know of a table (what
is missing, which tasks a mean is over, where numbers were published, notes on models) are its remarks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from trainer.scores import ModelScores
from trainer.significance import Comparison

Kind = Literal["measured", "published", "distance", "comparison"]
MISSING = "–"
UNSEEN = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"  # controls, of terminals and of direction


@dataclass(frozen=True, slots=True)
class Head:
    """Of a row or a column."""

    label: str
    kind: Kind = "measured"


Cell = float | Comparison | None


@dataclass(frozen=True, slots=True)
class Table:
    """``cells[row][column]``. ``systems`` says where the models are: one to a row, or one to a column."""

    name: str  # short and unique: an anchor, a file's name
    title: str
    metric: str
    systems: Literal["rows", "columns"]
    rows: tuple[Head, ...]
    columns: tuple[Head, ...]
    cells: tuple[tuple[Cell, ...], ...]
    remarks: tuple[str, ...] = ()

    @property
    def best(self) -> frozenset[tuple[int, int]]:
        """(row, column) of the best measured value for each task; none where only one model was measured."""
        heads = self.rows if self.systems == "rows" else self.columns
        measured = [n for n, head in enumerate(heads) if head.kind == "measured"]
        places: set[tuple[int, int]] = set()
        for line in range(len(self.columns if self.systems == "rows" else self.rows)):
            at = [(n, line) if self.systems == "rows" else (line, n) for n in measured]
            values = {place: v for place in at if isinstance(v := self.cells[place[0]][place[1]], float)}
            if len(values) > 1:
                top = max(round(v, 1) for v in values.values())
                places |= {place for place, v in values.items() if round(v, 1) == top}
        return frozenset(places)

    def kind(self, row: int, column: int) -> Kind:
        kind = self.rows[row].kind
        return self.columns[column].kind if kind == "measured" else kind


def show(cell: Cell, kind: Kind) -> str:
    """A cell as text."""
    if cell is None:
        return MISSING
    if isinstance(cell, Comparison):
        mark = (" ▲" if cell.difference > 0 else " ▼") if cell.significant else ""
        interval = f" [{cell.low:.1f}, {cell.high:.1f}]" if cell.high != float("inf") else ""  # of one query, none
        return _minus(f"{cell.difference:+.1f}{interval}") + mark
    return _minus(f"{cell:+.1f}") if kind == "distance" else f"{cell:.1f}"


def _minus(number: str) -> str:
    """As wide as a plus, and without a negative zero."""
    return re.sub(r"(?<!\d)[-+]?0\.0(?!\d)", "0.0", number).replace("-", "−")


def as_markdown(table: Table) -> str:
    """Title, table and remarks; readable as it is."""
    published = {head.label for head in (*table.rows, *table.columns) if head.kind == "published"}

    def named(head: Head) -> str:
        return plain(head.label) + (" (published)" if head.label in published and head.kind == "published" else "")

    head = ["", *(named(column) for column in table.columns)]
    body = [
        [named(row), *(show(cell, table.kind(r, c)) for c, cell in enumerate(table.cells[r]))]
        for r, row in enumerate(table.rows)
    ]
    widths = [max(width(line[n]) for line in [head, *body]) for n in range(len(head))]
    rule = "|" + "|".join("-" * (w + 2) if n == 0 else "-" * (w + 1) + ":" for n, w in enumerate(widths)) + "|"
    lines = [f"## {plain(table.title)}", "", plain(table.metric), "", _row(head, widths), rule]
    lines += [_row(line, widths) for line in body]
    if table.remarks:
        lines += ["", *(f"- {plain(remark)}" for remark in table.remarks)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = (
        cell + " " * (w - width(cell)) if n == 0 else " " * (w - width(cell)) + cell
        for n, (cell, w) in enumerate(zip(cells, widths, strict=True))
    )
    return "| " + " | ".join([first, *rest]) + " |"


def plain(text: str) -> str:
    """A name is whatever a folder is called: no line breaks, no commands to a terminal, no bars, no HTML, and no
    turning of what follows from right to left."""
    shown = re.sub(UNSEEN, lambda sign: repr(sign.group())[1:-1], text)
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", shown.replace("|", "\\|"))


def width(text: str) -> int:
    """Columns that a terminal gives it."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def as_json(table: Table) -> dict[str, Any]:
    return {
        "name": table.name,
        "title": table.title,
        "metric": table.metric,
        "rows": [{"label": row.label, "kind": row.kind} for row in table.rows],
        "columns": [{"label": column.label, "kind": column.kind} for column in table.columns],
        "cells": [[_json_cell(cell) for cell in row] for row in table.cells],
        "remarks": list(table.remarks),
    }


def _json_cell(cell: Cell) -> Any:
    if not isinstance(cell, Comparison):
        return cell
    finite = abs(cell.low) != float("inf")
    return {
        "difference": cell.difference,
        "low": cell.low if finite else None,
        "high": cell.high if finite else None,
        "p": cell.p,
        "p_holm": cell.adjusted,
        "significant": cell.significant,
        "queries": cell.queries,
    }


def differences(values: Sequence[Cell], others: Sequence[Cell]) -> list[Cell]:
    return [
        a - b if isinstance(a, float) and isinstance(b, float) else None for a, b in zip(values, others, strict=True)
    ]


def notes(models: Sequence[ModelScores]) -> list[str]:
    """Remarks: what must be said of these models."""
    return [f"{m.label}: {m.note}" for m in models if m.note]
