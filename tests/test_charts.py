"""The drawings as a browser and a screen reader would read them: parsed back, counted, and their colours measured."""

from __future__ import annotations

import math
import re
from itertools import pairwise

import pytest
from bs4 import BeautifulSoup, Tag
from conftest import SCRIPTS

from apps import charts
from apps.charts import BarWords, Dot, Group, HeatWords, MapWords
from apps.languages import Cell, Matrix, Share

HOSTILE = [
    '<script>alert("x")</script>',
    "\"' onmouseover='x",
    "</title></svg>&amp;",
    "\u202eمرحبا\u202d שלום",
    *SCRIPTS.values(),
]


def parsed(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "lxml")


def cell(value: float, questions: int = 1) -> Cell:
    return Cell(questions, {"recall@10": value, "ndcg@10": value / 2})


MATRIX = Matrix(
    rows={"am": cell(0.5, 2), "en": cell(1.0)},
    columns={"zh-Hant": cell(0.75, 3), "am": cell(0.0)},
    cells={("am", "zh-Hant"): cell(0.5, 2), ("en", "zh-Hant"): cell(1.0), ("en", "am"): cell(0.0)},
    total=cell(2 / 3, 3),
)
NAMES = {"en": "English", "zh-Hant": "繁體中文", "am": "አማርኛ"}


def heat(text: str = "t", score: str = "recall@10", names: dict[str, str] = NAMES) -> BeautifulSoup:
    words = HeatWords(text, text, text, text, text, count=lambda n: f"{n} × {text}")
    return parsed(charts.heatmap(MATRIX, score, names, words))


def bars(text: str = "t", names: dict[str, str] = NAMES, **options: str) -> BeautifulSoup:
    shares = [Share("en", 0.5, 0.25), Share("am", 0.125, 0.25), Share("zh-Hant", 0.0, 0.5)]
    words = BarWords(text, text, text, text, text, text, text, marked=text)
    return parsed(charts.bars(shares, Share("", 1.0, 0.25), names, words, **options))


def scatter(text: str = "t") -> BeautifulSoup:
    dots = [Dot(0, 0, "a", text), Dot(2, 1, "a", text), Dot(1, 0.5, "b", text)]
    return parsed(charts.scatter(dots, [Group("a", text, text, text), Group("b", "B", "b")], MapWords(text, text)))


# ---------------------------------------------------------------------- heat map


def test_the_heat_map_is_a_table_in_the_order_of_the_names() -> None:
    page = heat()
    heads = [th["abbr"] for th in page.select("thead tr:nth-of-type(2) th[scope=col]")]
    assert heads == ["繁體中文", "አማርኛ"]
    rows = {row.th.bdi.text: row("td") for row in page.select("tbody tr")[1:] if row.th and row.th.bdi}
    assert list(rows) == ["English", "አማርኛ"]
    assert [td.get_text(" ") for td in rows["English"]] == ["1.00 1", "1.00 1", "0.00 1"]
    assert [td.get_text(" ") for td in rows["አማርኛ"]] == ["0.50 2", "0.50 2", ""]  # no question is no 0
    assert [td.get_text(" ") for td in page.select("tbody tr")[0]("td")] == ["0.67 3", "0.75 3", "0.00 1"]
    assert rows["አማርኛ"][1]["title"] == "አማርኛ → 繁體中文: 0.50, 2 × t" and rows["አማርኛ"][1]["class"] == ["rk-heat-2"]
    assert all(th.get("scope") in ("row", "col", "colgroup") for th in page("th"))
    assert heat(score="ndcg@10").select("tbody tr")[1]("td")[1].get_text(" ") == "0.50 1"
    assert [th.text for th in heat(names={}).select("tbody th bdi")] == ["am", "en"]  # unnamed: codes, in their order


@pytest.mark.parametrize("value, level", [(0.0, 0), (0.199, 0), (0.2, 1), (0.8, 4), (1.0, 4)])
def test_the_scale_has_five_steps(value: float, level: int) -> None:
    one = Matrix({"a": cell(value)}, {"b": cell(value)}, {("a", "b"): cell(value)}, cell(value))
    page = parsed(charts.heatmap(one, "recall@10", {}, HeatWords("", "", "", "", "")))
    assert len(page.select(f"tbody td.rk-heat-{level}")) == 4


# ---------------------------------------------------------------------- map


def place(mark: Tag) -> tuple[float, float]:
    x, y = re.findall(r"[\d.]+", str(mark["transform"]))
    return float(x), float(y)


def test_dots_keep_their_proportions_inside_the_drawing() -> None:
    page = scatter()
    drawing = page.select_one("svg[role=img]")
    assert drawing
    width, height = (float(n) for n in str(drawing["viewbox"]).split()[2:])
    first, last, middle = (place(g) for g in drawing.select("g[transform]"))
    assert first[0] < middle[0] < last[0] and first[1] > middle[1] > last[1]  # y upwards
    assert (last[0] - first[0]) / (first[1] - last[1]) == pytest.approx(2, abs=0.01)
    assert all(0 < x < width and 0 < y < height for x, y in (first, last, middle))
    assert [text.text for text in drawing("text")] == ["t", "B"]
    assert [li.get_text(" ", strip=True) for li in page("li")] == ["t 2", "B b 1"]  # a label that is the name once only


@pytest.mark.parametrize("points", [[], [(1, 1)], [(1, 1), (1, 1)], [(0, 0), (0, 9)], [(0, 0), (9, 0)]])
def test_few_points_and_lines_are_drawn(points: list[tuple[float, float]]) -> None:
    drawn = charts.scatter([Dot(x, y, "a", "") for x, y in points], [Group("a", "a", "a")], MapWords("t", "d"))
    assert "nan" not in drawn and "inf" not in drawn and len(parsed(drawn).select("g[transform]")) == len(points)


def test_groups_differ_in_hue_or_shape_and_the_smallest_beyond_are_named_together() -> None:
    groups = [Group(str(n), str(n), f"name {n}") for n in range(charts.GROUPS + 3)]
    dots = [Dot(n, k, group.key, "") for n, group in enumerate(groups) for k in range(30 - n)]
    page = parsed(charts.scatter(dots, groups, MapWords("t", "d", rest="others")))
    looks = [(tuple(li.svg["class"]), li.path["d"]) for li in page("li") if li.svg and li.path]
    assert len(set(looks)) == len(looks) == charts.GROUPS + 1
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks[:-1]))
    assert page("li")[-1].get_text(" ", strip=True) == f"others {10 + 9 + 8}"
    assert len(page.select("text")) == charts.GROUPS


# ---------------------------------------------------------------------- bars


def test_twice_as_much_reaches_as_far_as_half_as_much() -> None:
    page = bars(marked="am")
    own, english, amharic, chinese = page.select("tbody tr")
    sizes = [row.select_one("i") for row in (own, english, amharic, chinese)]
    assert [str(i["style"]) for i in sizes if i] == [
        "inset-inline-start:50.0%;inline-size:50.0%",  # 4 times: the furthest
        "inset-inline-start:50.0%;inline-size:25.0%",
        "inset-inline-start:25.0%;inline-size:25.0%",
        "inset-inline-start:0.0%;inline-size:50.0%",  # nothing found: the whole way
    ]
    assert [td.text for td in english("td")] == ["", "2.00", "50.0%", "25.0%"]
    assert [bool(row.get("class")) for row in (own, english, amharic, chinese)] == [True, False, True, False]
    assert amharic.th and amharic.th.get_text(" ", strip=True) == "አማርኛ t"  # said in words too
    nothing = charts.bars([Share("en", 0.0, 0.0)], None, {}, BarWords("", "", "", "", "", "", ""))
    assert math.isnan(float(parsed(nothing).select("tbody td")[1].text)) and "<i" not in nothing


# ---------------------------------------------------------------------- all


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_shown_as_it_is_and_becomes_no_markup(text: str) -> None:
    names = {"en": text, "zh-Hant": text, "am": text}
    for made, plain in (
        (lambda t, n: heat(t, names=n), {"th", "td", "small"}),
        (lambda t, n: bars(t, n, marked="en"), {"th", "td", "i"}),
        (lambda t, n: scatter(t), {"svg", "path", "text"}),
    ):
        page, tame = made(text, names), made("t", dict.fromkeys(names, "t"))
        assert [tag.name for tag in page.find_all(True)] == [tag.name for tag in tame.find_all(True)]
        assert plain <= {tag.name for tag in page.find_all(True)} and not page.find("script")
        assert not [a for tag in page.find_all(True) for a in tag.attrs if a.startswith("on")]
        said = [page.select_one("caption, figcaption"), *page.select("title"), *page.select("bdi[lang]")]
        assert {tag.text for tag in said if tag} == {text}
        assert {str(tag["aria-label"]) for tag in page.select("[role=region]")} <= {text}
        assert not re.search(r"\b(question|language|English|passage)", made("", dict.fromkeys(names, "")).text)


def test_each_drawing_says_what_it_is() -> None:
    for page in (heat("title"), bars("title"), scatter("title")):
        tables, drawings = page("table"), page.select("svg[role=img]")
        assert len(tables) + len(drawings) == 1
        assert all(table.caption and table.caption.text == "title" for table in tables)
        assert all(svg.title and svg.title.text == "title" and svg.desc for svg in drawings)
        assert all(svg.get("aria-hidden") for svg in page("svg") if svg not in drawings)
        assert all(region["tabindex"] == "0" and region["aria-label"] for region in page.select(".rk-scroll"))


# ---------------------------------------------------------------------- colours


def pair(name: str) -> tuple[str, str]:
    """In light and dark."""
    found = re.search(rf"--{name}: (?:var\(--rk-\w+, )?light-dark\((#\w{{6}}), (#\w{{6}})\)", charts.STYLE)
    assert found, name
    return found[1], found[2]


def linear(colour: str) -> list[float]:
    values = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    return [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""
    light, dark = sorted((0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b in map(linear, (one, other))), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_what_is_to_be_read_stands_out(scheme: int) -> None:
    surface = pair("_surface")[scheme]
    for level in range(charts.LEVELS):
        assert contrast(pair(f"rk-heat-{level}")[scheme], pair(f"rk-heat-ink-{level}")[scheme]) >= 4.5
    for ink in ("_ink", "_muted", "_accent"):
        assert contrast(pair(ink)[scheme], surface) >= 4.5
    for hue in range(charts.HUES):
        assert contrast(pair(f"rk-hue-{hue}")[scheme], surface) >= 3  # of graphics
    steps = [contrast(pair(f"rk-heat-{level}")[scheme], surface) for level in range(charts.LEVELS)]
    assert steps == sorted(steps)  # more is further from the surface


# What is left of linear RGB to those without one of the three cones (Machado, Oliveira & Fernandes, 2009).
VISION = {
    "all": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def oklab(colour: str, seen: list[list[float]]) -> list[float]:
    r, g, b = (min(1.0, max(0.0, sum(m * v for m, v in zip(row, linear(colour), strict=True)))) for row in seen)
    cones = (
        0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
        0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
        0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
    )
    long, middle, short = (cone ** (1 / 3) for cone in cones)
    return [
        0.2104542553 * long + 0.793617785 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.428592205 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.808675766 * short,
    ]


@pytest.mark.parametrize("seen", VISION.values(), ids=VISION)
@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_hues_differ_to_every_kind_of_colour_vision(scheme: int, seen: list[list[float]]) -> None:
    hues = [oklab(pair(f"rk-hue-{n}")[scheme], seen) for n in range(charts.HUES)]
    assert min(math.dist(a, b) for n, a in enumerate(hues) for b in hues[:n]) > 0.14
