"""A plan as one HTML page: the summary, every number with its source, and latency against shards as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lxml.etree as etree
from matplotlib.figure import Figure as Picture
from matplotlib.ticker import ScalarFormatter

from ragkit.capacity import Figure, Plan
from ragkit.constants import Constant
from ragkit.page import add, document, frame, linked, picture, written
from ragkit.pictures import COLOURS, DARK, LIGHT, Look, png
from ragkit.plan_report import asked, mark_of, sections, show, sources, told
from ragkit.search_load import Latency

TITLE = "Capacity plan"


def page(made: Plan, curve: Sequence[Latency]) -> str:
    root, main = document(TITLE)
    add(main, "p", f"{asked(made)}.")
    numbered = {one: n for n, one in enumerate(sources(made), 1)}
    for remark in made.remarks:
        add(main, "p", remark, **{"class": "remark"})
    for title, figures in sections(made).items():
        add(main, "h2", title)
        _table(main, title, figures, numbered)
        if title == "Summary" and curve:
            _chart(main, made, curve)
    add(main, "h2", "Settings")
    add(main, "p", "The store as it was planned, for ragkit's environment:")
    add(main, "pre", "\n".join(f"{name}={value}" for name, value in made.settings.items()))
    add(main, "h2", "Sources")
    listed = etree.SubElement(main, "ol", {"class": "remarks"})
    for one, number in numbered.items():
        linked(etree.SubElement(listed, "li", id=f"source-{number}"), told(one))
    return written(root)


def _table(main: Any, title: str, figures: Sequence[Figure], numbered: dict[Constant, int]) -> None:
    table = frame(main, f"{title}, table")
    head = etree.SubElement(etree.SubElement(table, "thead"), "tr")
    for name, style in (("", "width: 24%"), ("amount", "width: 16%"), ("how, and from what", "text-align: left")):
        add(head, "th", name, scope="col", style=style)
    body = etree.SubElement(table, "tbody")
    for figure in figures:
        line = etree.SubElement(body, "tr")
        add(line, "th", figure.name.removeprefix(f"{title.lower()}: "), scope="row")
        add(line, "td", show(figure))
        how = add(line, "td", figure.how + " ", style="text-align: left; white-space: normal")
        for one in figure.used:
            mark = add(how, "a", mark_of(one, numbered), href=f"#source-{numbered[one]}", title=told(one))
            mark.tail = " "


def _chart(main: Any, made: Plan, curve: Sequence[Latency]) -> None:
    add(main, "h2", "Latency against shards")
    planned = int(made["shards"])
    work = made.workload
    told = [f"{p.shards} shards: p50 {p.p50 * 1000:.1f} ms, p99 {p.p99 * 1000:.1f} ms" for p in curve]
    light, dark = (png(lambda look: drawn(curve, planned, look), look) for look in (LIGHT, DARK))
    picture(main, light, dark, f"Simulated latency by number of shards. {'; '.join(told)}.")
    said = (
        f"Simulated: {work.queries_per_second:g} queries a second at random times, each waiting for its slowest shard, "
        f"on {made['nodes']:,.0f} nodes of {made.cluster.cores} cores; all passages in that many shards, whether they "
        "have room or not. The line marks the plan. Where the cores cannot keep up, nothing is drawn."
    )
    add(main, "p", said, **{"class": "metric"})
    table = frame(main, "Latency against shards, table")
    head = etree.SubElement(etree.SubElement(table, "thead"), "tr")
    for name in ("shards", "p50, ms", "p99, ms", "cores busy", "queries simulated"):
        add(head, "th", name, scope="col")
    body = etree.SubElement(table, "tbody")
    for point in curve:
        line = etree.SubElement(body, "tr")
        add(line, "th", f"{point.shards:,}", scope="row")
        for text in (f"{point.p50 * 1000:.2f}", f"{point.p99 * 1000:.2f}", f"{point.busy:.1%}", f"{point.queries:,}"):
            add(line, "td", text)


def drawn(curve: Sequence[Latency], planned: int, look: Look) -> Picture:
    figure = Picture(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    shards = [point.shards for point in curve]
    for label, marker, colour, of in (("p99", "o", COLOURS[5], "p99"), ("p50", "s", COLOURS[0], "p50")):
        values = [1000 * getattr(point, of) for point in curve]
        axes.plot(shards, values, marker=marker, color=colour, label=label, linewidth=1.6, markersize=5)
        axes.annotate(f"{values[-1]:.1f} ms", (shards[-1], values[-1]), xytext=(6, 0), textcoords="offset points",
                      va="center", fontsize=8, color=look.ink)  # fmt: skip
    axes.axvline(planned, color=look.ink, linewidth=0.8, linestyle="--", label=f"planned, {planned} shards")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks(shards, [f"{n:,}" for n in shards])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("shards")
    axes.set_ylabel("milliseconds")
    axes.grid(axis="y", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(x=0.08)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8)
    return figure
