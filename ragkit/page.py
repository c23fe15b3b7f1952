"""The parts of a page that is one file: no script, nothing fetched, light and dark as the reader's settings are.

Built as a tree, so that whatever a thing is called is text and never markup. Pictures are drawn twice and say what they
show; wide tables scroll in a frame that the keyboard reaches.
"""

from __future__ import annotations

import base64
import re
from typing import Any

import lxml.etree as etree

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
URL = re.compile(r"(https?://[^\s,()]+[^\s,().])")
STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d5d9de; --band: #f3f5f7;
  --best: #0b5cad }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e6e9ee; --soft: #a3adb8; --line: #3a4048;
  --band: #1f242a; --best: #7cc0ff } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin-top: 2.5rem; overflow-wrap: anywhere }
a { color: var(--best) } nav ul { padding-left: 1.2rem; columns: 20rem } li, p { overflow-wrap: anywhere }
.metric, .remarks { color: var(--soft); font-size: .9rem } .remarks { padding-left: 1.2rem }
.frame { position: relative; overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; margin: .8rem 0 }
.frame:focus-visible { outline: 3px solid var(--best) }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums }
caption { text-align: left; padding: .5rem .7rem; color: var(--soft) }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; border-top: 1px solid var(--line) }
thead th { vertical-align: bottom; white-space: normal; min-width: 5.5rem; border-top: 0; overflow-wrap: break-word }
th[scope=row], thead th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper);
  white-space: normal; min-width: 7rem; max-width: 12rem; overflow-wrap: anywhere; font-weight: 500 }
.published { background: var(--band); font-style: italic } .distance { background: var(--band) }
th.kind { font-weight: 400; color: var(--soft); font-size: .8rem }
td.best { font-weight: 700; color: var(--best) } td.missing { color: var(--soft) } tr.mean > * { border-top-width: 3px }
td.comparison { white-space: nowrap } .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%) }
figure { margin: 1rem 0; overflow-x: auto }
figure img { display: block; max-width: 100%; height: auto; min-width: 30rem }
@media (min-width: 40rem) { figure img { min-width: 0 } }
"""


def document(title: str) -> tuple[Any, Any]:
    """A page's root and its main element, which begins with ``title``."""
    root = etree.Element("html", lang="en")
    head = etree.SubElement(root, "head")
    etree.SubElement(head, "meta", charset="utf-8")
    etree.SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    etree.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    add(head, "title", title)
    add(head, "style", STYLE)
    main = etree.SubElement(etree.SubElement(root, "body"), "main")
    add(main, "h1", title)
    return root, main


def written(root: Any) -> str:
    return "<!doctype html>\n" + etree.tostring(root, encoding="unicode", method="html") + "\n"


def add(parent: Any, tag: str, text: str, **attributes: str) -> Any:
    child = etree.SubElement(parent, tag, attributes)
    child.text = clean(text)
    return child


def clean(text: str) -> str:
    """Without what XML cannot hold (control characters, lone surrogates) and what turns the direction of a line."""
    return re.sub(
        r"[\u202a-\u202e\u2066-\u2069]|[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text
    )


def linked(parent: Any, text: str) -> None:
    """Text whose addresses are links."""
    last = None
    for n, part in enumerate(URL.split(clean(text))):
        if n % 2:
            last = add(parent, "a", part, href=part)
        elif last is None:
            parent.text = part
        else:
            last.tail = part


def picture(parent: Any, light: bytes, dark: bytes, alt: str) -> None:
    """PNG, of which the reader's settings choose one."""
    drawn = etree.SubElement(etree.SubElement(parent, "figure"), "picture")
    etree.SubElement(drawn, "source", srcset=_data(dark), media="(prefers-color-scheme: dark)")
    etree.SubElement(drawn, "img", src=_data(light), alt=clean(alt))


def _data(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def frame(parent: Any, label: str) -> Any:
    """A table in its frame."""
    named = {"class": "frame", "role": "region", "tabindex": "0", "aria-label": clean(label)}
    return etree.SubElement(etree.SubElement(parent, "div", named), "table")
