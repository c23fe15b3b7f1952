"""The report as one HTML page: tables and pictures, no script, nothing fetched.

Its parts are ragkit/page.py's; here are the report's tables: heads have scopes, and no meaning hangs on colour alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lxml.etree as etree

from ragkit.page import add, document, frame, linked, picture, written
from trainer.charts import Chart
from trainer.tables import MISSING, Comparison, Head, Table, show


def page(tables: Sequence[Table], charts: Sequence[Chart], title: str, summary: Sequence[str]) -> str:
    """``summary``: sentences above the tables."""
    root, main = document(title)
    for sentence in summary:
        linked(etree.SubElement(main, "p"), sentence)
    contents = etree.SubElement(etree.SubElement(main, "nav", {"aria-label": "Tables"}), "ul")
    for table in tables:
        add(etree.SubElement(contents, "li"), "a", table.title, href=f"#{table.name}")
        _section(main, table, [chart for chart in charts if chart.table == table.name])
    return written(root)


def _section(main: Any, table: Table, charts: Sequence[Chart]) -> None:
    section = etree.SubElement(main, "section", {"aria-labelledby": table.name})
    add(section, "h2", table.title, id=table.name)
    for chart in charts:
        picture(section, chart.light, chart.dark, chart.alt)
    if table.rows:
        _table(section, table)
    if table.remarks:
        remarks = etree.SubElement(section, "ul", {"class": "remarks"})
        for remark in table.remarks:
            linked(etree.SubElement(remarks, "li"), remark)


def _table(section: Any, table: Table) -> None:
    element = frame(section, f"{table.title}, table")
    add(element, "caption", table.metric)
    line = etree.SubElement(etree.SubElement(element, "thead"), "tr")
    add(line, "th", "model" if table.systems == "rows" else "", scope="col")
    for column in table.columns:
        _head(line, column, "col")
    body = etree.SubElement(element, "tbody")
    for r, row in enumerate(table.rows):
        line = etree.SubElement(body, "tr", {"class": "mean"} if row.label == "Mean" else {})
        _head(line, row, "row")
        for c, cell in enumerate(table.cells[r]):
            kind = table.kind(r, c)
            classes = [kind, *(["best"] if (r, c) in table.best else []), *(["missing"] if cell is None else [])]
            place = add(line, "td", show(cell, kind), **{"class": " ".join(classes)})
            if cell is None:
                place.text = ""
                add(place, "span", MISSING, **{"aria-hidden": "true"})
                add(place, "span", "missing", **{"class": "hidden"})
            elif isinstance(cell, Comparison) and cell.significant:
                better = "significantly better" if cell.difference > 0 else "significantly worse"
                add(place, "span", f" {better}", **{"class": "hidden"})
                place.set("title", f"p = {cell.adjusted:.4f} after Holm's correction, {cell.queries} queries")


def _head(line: Any, head: Head, scope: str) -> None:
    place = add(line, "th", head.label, scope=scope)
    if head.kind == "published":
        place.set("class", "published")
        add(place, "small", " (published)")
