"""Tables as pictures: bars beside published marks, heat maps of lines and of language pairs. PNG by matplotlib.

A chart is drawn twice, for light and for dark pages. Colours are Okabe and Ito's, told apart without red and green;
a heat map says its numbers. Every number of a chart stands in a table too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ragkit.pictures import COLOURS, DARK, LIGHT, Look, png
from trainer.grids import ACROSS, WITHIN, Grid, grids, language_pair
from trainer.scores import ModelScores
from trainer.suite_means import MEAN_OF_TYPES
from trainer.tables import Table

MARKS = ("D", "^", "x", "v", "s", "P")
BESIDE = ("E5-mistral", "mE5-large", "BM25")  # published systems that are marked in bars
MOST_BARS = 150  # of one chart: above it, a heat map


@dataclass(frozen=True, slots=True)
class Chart:
    """``table`` is the name of the table that it belongs to."""

    name: str
    table: str
    alt: str
    light: bytes  # PNG
    dark: bytes


def charts(models: Sequence[ModelScores], tables: Sequence[Table]) -> Iterator[Chart]:
    """Of every table with measured scores; of language pairs, one more."""
    for table in tables:
        measured = [h for h in (*table.rows, *table.columns) if h.kind == "measured"]
        if "-against-" in table.name or table.name == "mteb-ablations" or not measured or table.name == "passkey":
            continue
        lines = table.columns if table.systems == "rows" else table.rows
        systems = [h for h in (table.rows if table.systems == "rows" else table.columns) if h.kind == "measured"]
        alt = f"{table.title}: {', '.join(h.label for h in systems)}. The numbers are in the table."
        if len(lines) * len(systems) <= MOST_BARS and table.name not in (WITHIN, ACROSS):
            yield chart(table.name, table.name, f"Bars. {alt}", lambda look, t=table: bars(t, look))
        else:
            yield chart(table.name, table.name, f"Heat map. {alt}", lambda look, t=table: heat_map(t, look))
    for grid in grids(models):
        if grid.name == ACROSS:
            pairs = language_pairs(list(grids(models)))
            alt = f"Heat maps of ndcg@10 by language of questions and passages: {', '.join(pairs)}."
            yield chart("language-pairs", grid.name, alt, lambda look, p=pairs: pair_maps(p, look))


def chart(name: str, table: str, alt: str, draw: Callable[[Look], Figure]) -> Chart:
    light, dark = (png(draw, look) for look in (LIGHT, DARK))
    return Chart(name, table, alt, light, dark)


def _series(table: Table) -> tuple[list[str], dict[str, list[Any]], dict[str, list[Any]]]:
    """Labels of lines; values of measured and of published systems that are marked."""
    by_row = table.systems == "rows"
    heads, lines = (table.rows, table.columns) if by_row else (table.columns, table.rows)
    keep = [n for n, line in enumerate(lines) if line.label != MEAN_OF_TYPES]
    values = {
        (head.kind, head.label): [table.cells[n][k] if by_row else table.cells[k][n] for k in keep]
        for n, head in enumerate(heads)
    }
    measured = {label: row for (kind, label), row in values.items() if kind == "measured"}
    beside = {label: row for (kind, label), row in values.items() if kind == "published" and label in BESIDE}
    return [lines[k].label for k in keep], measured, beside


def bars(table: Table, look: Look) -> Figure:
    """A group of horizontal bars for each line, a mark for what was published."""
    lines, measured, beside = _series(table)
    lanes = len(measured) + bool(beside)  # the marks have a lane of their own, below the bars
    thick = 0.8 / lanes
    figure = Figure(figsize=(7.2, 1.3 + len(lines) * max(0.3, 0.15 * lanes + 0.08)), layout="constrained")
    axes = figure.subplots()
    handles: list[Any] = []
    for n, (label, values) in enumerate(measured.items()):
        colour, hatch = COLOURS[n % len(COLOURS)], "//" if n >= len(COLOURS) else None
        at = [k + (n - (lanes - 1) / 2) * thick for k in range(len(lines))]
        drawn = axes.barh(at, [v or 0 for v in values], height=thick * 0.92, color=colour, hatch=hatch)
        texts = ["missing" if v is None else f"{v:.1f}" for v in values]
        axes.bar_label(drawn, texts, padding=2, fontsize=6.5, color=look.ink)
        handles.append(Patch(color=colour, hatch=hatch, label=_label(label)))
    for n, (label, values) in enumerate(beside.items()):
        at = [(v, k) for k, v in enumerate(values) if v is not None]
        style: dict[str, Any] = {"marker": MARKS[n], "linestyle": "", "color": look.ink, "markersize": 5}
        style |= {"markeredgecolor": look.ink, "markerfacecolor": look.paper}
        axes.plot([v for v, _ in at], [k + (lanes - 1) / 2 * thick for _, k in at], **style)
        handles.append(Line2D([], [], label=f"{label}, published", **style))
    axes.set_yticks(range(len(lines)), lines)
    axes.set_ylim(len(lines) - 0.4, -0.6)
    axes.set_xlim(0, 108)
    axes.set_xlabel("points")
    axes.grid(axis="x", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(handles=handles, loc="outside upper left", ncols=min(3, len(handles)), fontsize=8)
    return figure


def _label(text: str) -> str:
    """matplotlib drops labels that begin with an underscore."""
    short = text if len(text) <= 40 else text[:39] + "…"
    return f" {short}" if short.startswith("_") else short


def heat_map(table: Table, look: Look) -> Figure:
    """Lines down, measured systems across."""
    lines, measured, _ = _series(table)
    cells = [[values[k] for values in measured.values()] for k in range(len(lines))]
    figure = Figure(figsize=(2.6 + 0.75 * len(measured), 1.6 + 0.24 * len(lines)), layout="constrained")
    axes = figure.subplots()
    _cells(axes, cells, lines, [_label(label) for label in measured], look, _span(v for row in cells for v in row))
    return figure


def _cells(
    axes: Any,
    cells: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    look: Look,
    span: tuple[float, float],
) -> None:
    colours = matplotlib.colormaps["viridis"].with_extremes(bad=look.paper)
    values = [[float("nan") if v is None else v for v in row] for row in cells]
    scale = Normalize(*span)
    axes.imshow(values, cmap=colours, norm=scale, aspect="auto")
    turned: dict[str, Any] = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(columns)), columns, **(turned if max(map(len, columns)) > 4 else {}))
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for r, row in enumerate(cells):
        for c, v in enumerate(row):
            if v is None:
                axes.text(c, r, "–", ha="center", va="center", fontsize=7.5, color=look.ink)
                continue
            red, green, blue, _ = colours(scale(v))
            dark = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2 < 0.18  # where white reads better
            axes.text(c, r, f"{v:.0f}", ha="center", va="center", fontsize=7.5, color="white" if dark else "black")


def _span(values: Iterable[float | None]) -> tuple[float, float]:
    """Of the colours: whole tens around the values."""
    known = [v for v in values if v is not None] or [0.0, 100.0]
    low, high = 10 * (min(known) // 10), 10 * -(-max(known) // 10)
    return low, max(high, low + 10)


def language_pairs(all_grids: Sequence[Grid]) -> dict[str, dict[tuple[str, str], float]]:
    """Model -> (language of questions, of passages) -> points, means over the sets with that pair."""
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for grid in all_grids:
        if grid.name not in (WITHIN, ACROSS):
            continue
        for model in grid.models:
            for line in grid.lines:
                if (value := grid.points.get((model.label, line))) is not None:
                    score = next(s for s in model.tasks[line.task] if (s.split, s.subset) == (line.split, line.subset))
                    found.setdefault(model.label, {}).setdefault(language_pair(score), []).append(value)
    return {label: {pair: fmean(values) for pair, values in pairs.items()} for label, pairs in found.items()}


def pair_maps(pairs: Mapping[str, Mapping[tuple[str, str], float]], look: Look) -> Figure:
    """A heat map for each model, of the languages that meet another one: questions down, passages across."""
    mixed = {pair for one in pairs.values() for pair in one if pair[0] != pair[1]}
    asked, read = (sorted({pair[n] for pair in mixed}) for n in (0, 1))
    span = _span(v for one in pairs.values() for v in one.values())
    across = min(2, len(pairs))
    down = -(-len(pairs) // across)
    size = (across * (1.2 + 0.42 * len(read)), 0.5 + down * (1.2 + 0.3 * len(asked)))
    figure = Figure(figsize=size, layout="constrained")
    places = figure.subplots(down, across, squeeze=False).ravel()
    for axes, (label, one) in zip(places, pairs.items(), strict=False):
        _cells(axes, [[one.get((q, p)) for p in read] for q in asked], asked, read, look, span)
        axes.set_title(_label(label), fontsize=9)
        axes.set_ylabel("questions")
        axes.set_xlabel("passages")
    for axes in places[len(pairs) :]:
        axes.set_axis_off()
    return figure
