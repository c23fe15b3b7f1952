"""Drawings as HTML and SVG texts: a heat map, a map of dots, bars around 1.0. No script, no library, no words.

Pure functions of numbers and of the words to show (the app speaks many languages), every one of which is escaped.
Two of the three are tables, which a screen reader reads, a clipboard takes, a narrow window scrolls and a
right-to-left page turns round by itself. Colours and sizes are in charts.css (:data:`STYLE`), which follows the page's
``color-scheme``; nothing is said by colour alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apps.languages import Cell, Matrix, Share

STYLE = (Path(__file__).parent / "charts.css").read_text("utf-8")
LEVELS = 5  # of the heat map: --rk-heat-0 to -4
HUES = 5  # --rk-hue-0 to -4
SHAPES = (  # of equal area about (0, 0)
    "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z",
    "M-4.4 -4.4H4.4V4.4H-4.4Z",
    "M0 -6.8L5.9 3.4H-5.9Z",
    "M-6.3 0L0 -6.3L6.3 0L0 6.3Z",
)
GROUPS = HUES * len(SHAPES)  # told apart by hue and shape: 5 and 4 share no factor, so no pair comes twice
WIDTH = 720  # of the map, in its own units
TALLEST = 0.75  # of the width: the whole map stays in sight
MARGIN = 26

Number = Callable[[float], str]
Count = Callable[[int], str]


@dataclass(frozen=True, slots=True)
class HeatWords:
    title: str
    help: str  # what the large and the small number of a cell are
    asked: str  # of the rows: "question in"
    answered: str  # of the columns: "answer in"
    everything: str  # the mean over a row or column
    number: Number = "{:.2f}".format
    count: Count = "{}".format  # "3 questions"


@dataclass(frozen=True, slots=True)
class MapWords:
    title: str
    description: str  # the same in words, for those who do not see it
    rest: str = ""  # the groups beyond GROUPS
    count: Count = "{}".format


@dataclass(frozen=True, slots=True)
class BarWords:
    title: str
    help: str
    language: str  # heads of the columns
    ratio: str
    found: str
    expected: str
    own: str  # the row of the questions' own language, whichever that is
    marked: str = ""  # beside the language that is marked
    number: Number = "{:.2f}".format
    percent: Number = "{:.1%}".format


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    group: str  # a Group's key
    tip: str


@dataclass(frozen=True, slots=True)
class Group:
    key: str
    short: str  # stands among the dots
    name: str
    lang: str = ""  # of the name, if not the page's


# ---------------------------------------------------------------------- heat map


def heatmap(matrix: Matrix, score: str, names: Mapping[str, str], words: HeatWords) -> str:
    """``score`` of each cell, how many questions it stands for, and the means of rows and columns, which come first
    since they stand for most. ``names`` of languages by code, in the order in which they shall stand."""
    order = [*names, *sorted((matrix.rows.keys() | matrix.columns.keys()) - names.keys())]
    rows = [code for code in order if code in matrix.rows]
    columns = [code for code in order if code in matrix.columns]

    def cell(found: Cell | None, place: str, mean: str = "") -> str:
        if found is None:
            return "<td></td>"
        value = found.scores[score]
        told = f"{place}: {words.number(value)}, {words.count(found.questions)}"
        level = min(LEVELS - 1, int(value * LEVELS))
        return (
            f'<td class="rk-heat-{level}{mean}" title="{escape(told)}">{escape(words.number(value))}'
            f"<small>{found.questions}</small></td>"
        )

    def head(code: str, scope: str) -> str:
        name = names.get(code, code)
        if scope == "col":
            return f'<th scope="col" abbr="{escape(name)}" title="{escape(name)}">{_bdi(code)}</th>'
        return f'<th scope="row">{_bdi(name)}{f" <code>{_bdi(code)}</code>" if name != code else ""}</th>'

    every = escape(words.everything)
    top = "".join(head(code, "col") for code in columns)
    lines = [
        f'<tr><th scope="row">{every}</th>{cell(matrix.total, words.everything, " rk-mean")}'
        + "".join(cell(matrix.columns[code], names.get(code, code), " rk-mean") for code in columns)
        + "</tr>"
    ]
    for asked in rows:
        own = names.get(asked, asked)
        line = "".join(cell(matrix.cells.get((asked, to)), f"{own} → {names.get(to, to)}") for to in columns)
        lines.append(f"<tr>{head(asked, 'row')}{cell(matrix.rows[asked], own, ' rk-mean')}{line}</tr>")
    scale = "".join(
        f'<span class="rk-heat-{n}">{escape(words.number(n / LEVELS))}–{escape(words.number((n + 1) / LEVELS))}</span>'
        for n in range(LEVELS)
    )
    return (
        f'<figure class="rk-chart rk-heatmap">{_scrolled(words.title)}<table><caption>{escape(words.title)}</caption>'
        f'<thead><tr><td rowspan="2"><span>{escape(words.asked)}</span></td><th scope="col" rowspan="2">{every}</th>'
        f'<th scope="colgroup" colspan="{len(columns)}">{escape(words.answered)}</th></tr><tr>{top}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<figcaption><p>{escape(words.help)}</p><p class="rk-scale">{scale}</p></figcaption></figure>'
    )


# ---------------------------------------------------------------------- map


def scatter(dots: Sequence[Dot], groups: Sequence[Group], words: MapWords) -> str:
    """Dots where they are given, up to a common scale; each group with hue, shape, a label in its middle and a line of
    the legend. Beyond :data:`GROUPS` the smallest share one grey look."""
    sizes = Counter(dot.group for dot in dots)
    known = {group.key: group for group in groups if sizes[group.key]}
    drawn = [key for key, _ in sizes.most_common() if key in known][:GROUPS]
    look = {group.key: n for n, group in enumerate(g for g in groups if g.key in drawn)}
    places, height = _fitted([(dot.x, dot.y) for dot in dots])
    marks = "".join(
        f'<g class="{_hue(look.get(dot.group))}" transform="translate({x:.1f} {y:.1f})">'
        f'<title>{escape(dot.tip)}</title><path d="{_shape(look.get(dot.group))}"/></g>'
        for dot, (x, y) in zip(dots, places, strict=True)
    )
    labels = ""
    for key in look:
        theirs = [place for dot, place in zip(dots, places, strict=True) if dot.group == key]
        middle = (median(x for x, _ in theirs), median(y for _, y in theirs))
        x, y = min(theirs, key=lambda place: math.dist(place, middle))  # on a dot, however the group is torn
        labels += f'<text x="{x:.1f}" y="{y - 9:.1f}">{escape(known[key].short)}</text>'
    legend = "".join(_line(look[key], known[key], words.count(sizes[key])) for key in look)
    rest = sum(n for key, n in sizes.items() if key not in look)
    if rest:
        legend += _line(None, Group("", words.rest, words.rest), words.count(rest))
    return (
        f'<figure class="rk-chart rk-map"><figcaption>{escape(words.title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img"><title>{escape(words.title)}</title>'
        f"<desc>{escape(words.description)}</desc>{marks}<g>{labels}</g></svg>"
        f'<ul class="rk-legend">{legend}</ul></figure>'
    )


def _fitted(points: Sequence[tuple[float, float]]) -> tuple[list[tuple[float, float]], float]:
    """Points moved into WIDTH and the height that this needs, both axes by one scale, y upwards."""
    if not points:
        return [], WIDTH / 2
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)
    width, tall = right - left, high - low
    room = WIDTH - 2 * MARGIN
    highest = TALLEST * WIDTH - 2 * MARGIN
    scale = min(room / width if width else math.inf, highest / tall if tall else math.inf)
    scale = scale if math.isfinite(scale) else 1.0
    height = max(WIDTH / 2, tall * scale + 2 * MARGIN)
    return [
        (WIDTH / 2 + (x - (left + right) / 2) * scale, height / 2 - (y - (low + high) / 2) * scale) for x, y in points
    ], height


def _hue(number: int | None) -> str:
    return "rk-rest" if number is None else f"rk-hue-{number % HUES}"


def _shape(number: int | None) -> str:
    return SHAPES[0 if number is None else number % len(SHAPES)]


def _line(number: int | None, group: Group, count: str) -> str:
    """Of the legend: the look, the label among the dots where it is another than the name, the name, how many."""
    label = f"<b>{_bdi(group.short)}</b> " if group.short != group.name else ""
    return (
        f'<li><svg viewBox="-8 -8 16 16" aria-hidden="true" class="{_hue(number)}"><path d="{_shape(number)}"/></svg>'
        f"<span>{label}{_bdi(group.name, group.lang)} <small>{escape(count)}</small></span></li>"
    )


# ---------------------------------------------------------------------- bars


def bars(
    shares: Sequence[Share], own: Share | None, names: Mapping[str, str], words: BarWords, marked: str | None = None
) -> str:
    """A bar for each share, from the line of 1.0 towards more or less; twice as much is as long as half as much.
    ``own`` stands first, and the language ``marked`` is named as such."""
    given = [*([own] if own else []), *shares]
    reach = max([1.0, *(abs(math.log2(one.ratio)) for one in given if one.ratio > 0)])  # to a half and the double
    rows = ""
    for share in given:
        mine = share is own
        name = escape(words.own) if mine else _bdi(names.get(share.name, share.name))
        if not mine and share.name == marked:
            name += f" <small>{escape(words.marked)}</small>"
        chosen = ' class="rk-marked"' if mine or share.name == marked else ""
        rows += (
            f'<tr{chosen}><th scope="row">{name}</th><td class="rk-bar">{_bar(share.ratio, reach)}</td>'
            f"<td>{escape(words.number(share.ratio))}</td><td>{escape(words.percent(share.found))}</td>"
            f"<td>{escape(words.percent(share.expected))}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in (words.found, words.expected))
    return (
        f'<figure class="rk-chart rk-bars">{_scrolled(words.title)}<table><caption>{escape(words.title)}</caption>'
        f'<thead><tr><th scope="col">{escape(words.language)}</th>'
        f'<th scope="col" colspan="2">{escape(words.ratio)}</th>'
        f"{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
        f"<figcaption><p>{escape(words.help)}</p></figcaption></figure>"
    )


def _bar(ratio: float, reach: float) -> str:
    """In per cent of the cell, which reaches from 2 ** -reach to 2 ** reach."""
    if math.isnan(ratio):
        return ""
    end = 50 + 50 * (math.log2(ratio) / reach if ratio > 0 else -1.0)
    side = "more" if end >= 50 else "less"
    return f'<i class="rk-{side}" style="inset-inline-start:{min(50, end):.1f}%;inline-size:{abs(end - 50):.1f}%"></i>'


# ---------------------------------------------------------------------- pieces


def _bdi(text: str, lang: str = "") -> str:
    """A text that does not turn its surroundings round, whichever way it runs itself."""
    return f'<bdi lang="{escape(lang)}">{escape(text)}</bdi>' if lang else f"<bdi>{escape(text)}</bdi>"


def _scrolled(title: str) -> str:
    """What scrolls must be reached by keyboard, and say what it is."""
    return f'<div class="rk-scroll" role="region" tabindex="0" aria-label="{escape(title)}">'
