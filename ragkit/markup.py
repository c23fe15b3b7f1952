"""HTML and Markdown -> visible text, with the heading that each part stands under. Pure.

Parsing is Beautiful Soup's over lxml (MIT, BSD); Markdown goes by way of markdown-it-py (MIT).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ragkit.types import Document, Mark

# fmt: off
_BLOCKS = [
    "address", "article", "aside", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset", "figcaption",
    "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "main", "nav", "ol", "p", "pre",
    "section", "summary", "table", "ul",
]
# fmt: on
_LINES = ["br", "caption", "li", "tr"]
_PARTS = ["ol", "table", "tbody", "tfoot", "thead", "tr", "ul"]  # white space directly inside them is not shown
_UNSEEN = ["head", "noscript", "script", "style", "svg", "template"]

# Around a heading while the text takes shape: Unicode keeps these two for a program's own use.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
_HEADING = re.compile(rf"{_OPEN}([1-6])([^{_OPEN}{_CLOSE}]*){_CLOSE}|{_OPEN}[1-6]|{_CLOSE}")

# YAML between two rules. A text may begin with a rule too: only a key, or nothing, makes it front matter.
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(?:[^\s:]+[ \t]*:(?=\s).*?\n)??---[ \t]*(?:\n|\Z)", re.DOTALL)

HEADING_LENGTH = 200  # characters; what is longer is a paragraph dressed up


def html_document(markup: str) -> Document:
    """The page's visible text: a blank line around blocks, a line per item and table row."""
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString

    soup = BeautifulSoup(re.sub(f"[{_OPEN}{_CLOSE}]", "\ufffd", markup), "lxml")
    top = soup.title or soup.h1
    title = " ".join(top.get_text().split()) if top else ""
    for tag in soup.find_all(_UNSEEN):
        tag.decompose()
    for string in soup.find_all(string=True):
        if type(string) is NavigableString and string.find_parent("pre") is None:
            between = string.parent is not None and string.parent.name in _PARTS and not string.strip()
            string.replace_with("" if between else re.sub(r"[ \t\n\f\r]+", " ", string))
    for tag in soup.find_all(re.compile("^h[1-6]$")):
        tag.insert(0, _OPEN + tag.name[1])
        tag.append(_CLOSE)
    for tag in soup.find_all(_BLOCKS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
    for tag in soup.find_all(_LINES):
        tag.insert_after("\n")
    for cell in soup.select("td + td, td + th, th + th, th + td"):
        cell.insert_before(" | ")
    lines = (line.rstrip() if line.strip() else "" for line in soup.get_text().split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(rf"(?m)^({_OPEN}[1-6])? (?=\S)", r"\1", "\n".join(lines)))
    return _without_marks(text.strip(), title)


def _without_marks(text: str, title: str) -> Document:
    """Take the signs around headings out again, and note where they stood."""
    parts, found = list[str](), list[tuple[int, int, str]]()
    last = length = 0
    for match in _HEADING.finditer(text):
        before = text[last : match.start()]
        length += len(before)
        level, said = match.groups()
        if level:
            found.append((length, int(level), said))
        parts += [before, said or ""]
        length += len(said or "")
        last = match.end()
    whole = "".join([*parts, text[last:]]).rstrip()
    lead = len(whole) - len(whole.lstrip())
    marks = heading_marks((max(start - lead, 0), level, said) for start, level, said in found)
    return Document("", "", whole.lstrip(), "", title, marks)


def heading_marks(headings: Iterable[tuple[int, int, str]]) -> tuple[Mark, ...]:
    """(start, level, words) of each heading, by rising start -> marks with the path of headings."""
    above: list[tuple[int, str]] = []
    marks: list[Mark] = []
    for start, level, said in headings:
        words = " ".join(said.split())[:HEADING_LENGTH]
        if words:
            above = [*((depth, word) for depth, word in above if depth < level), (level, words)]
            marks.append(Mark(start, heading=" > ".join(word for _, word in above)))
    return tuple(marks)


def merge_marks(pages: Iterable[int], headings: Iterable[Mark]) -> tuple[Mark, ...]:
    """The starts of page 1, 2, ..., both rising, and the marks of headings -> marks that carry both."""
    starts, above = list(pages), {mark.start: mark.heading for mark in headings}
    marks, number, heading = list[Mark](), 0, ""
    for start in sorted({*starts, *above}):
        number += number < len(starts) and start == starts[number]
        heading = above.get(start, heading)
        marks.append(Mark(start, number, heading))
    return tuple(marks)


def markdown_document(source: str) -> Document:
    """Markdown by way of its HTML: markup goes, text, tables and code stay. Front matter is dropped."""
    from markdown_it import MarkdownIt

    source = _FRONT_MATTER.sub("", source, count=1)
    # Its own limit of 20 levels drops what is deeper without a word; recursion raises where it is too deep.
    parser = MarkdownIt("commonmark", {"maxNesting": 1_000_000}).enable("table")
    return html_document(parser.render(source))
