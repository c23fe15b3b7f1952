"""HTML out of values that are escaped by default: the one way in which text of documents reaches a page.

:class:`Html` is a string that is HTML already. :func:`tag` escapes every child and attribute that is not, so what
is forgotten is shown as text. ``{`` and ``$`` are escaped too: Gradio's HTML component reads templates.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_TEMPLATES = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
_VOID = frozenset({"br", "hr", "img", "input", "wbr"})


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def safe(child: Child) -> Html:
    """``child`` as HTML: escaped unless it is Html, None as nothing, several one after the other."""
    if isinstance(child, Html):
        return child
    if child is None:
        return Html("")
    if isinstance(child, str | int | float):
        return Html(escape(str(child)).translate(_TEMPLATES))
    return Html("".join(map(safe, child)))


def tag(name: str, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element. ``cls`` is class, ``for_`` is for, ``aria_label`` is aria-label; False and None leave an attribute
    out, True writes its name alone. Only names that appear in the code are tags and attributes, never data."""
    written: list[str] = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = {"cls": "class", "for_": "for"}.get(key, key).replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{safe(value)}"')
    opened = f"<{name}{''.join(written)}>"
    return Html(opened if name in _VOID else f"{opened}{safe(children)}</{name}>")


def said(text: str, lang: str = "", name: str = "bdi", **attributes: str | int | bool | None) -> Html:
    """Text of a document or a visitor, kept apart from the direction of what surrounds it."""
    return tag(name, text, lang=lang if lang != "und" else "", dir="auto", **attributes)
