"""What lies below a root, and what each file says: one function per suffix, listed in ``READERS``.

A new format is a new entry. A reader takes a path and yields Documents, lazily, so that a JSONL of any
size streams. It leaves ``id``, ``path`` and ``lang`` empty where the format does not say; ingestion
fills them in. A record it cannot read it yields as ``Skipped``; a file it cannot read at all it raises
for. Parsing is done by pypdf (BSD), python-docx (MIT), Beautiful Soup over lxml (MIT, BSD) and markdown-it-py
(MIT), each imported when its first file comes.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ragkit.types import RESERVED, Document, Value, moment


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was not ingested, and why."""

    path: str  # absolute POSIX path
    reason: str


DocumentReader = Callable[[Path], Iterable[Document | Skipped]]


class Unreadable(ValueError):
    """A file or record whose content is not what it should be."""


def read_text(path: Path) -> Iterator[Document]:
    yield _whole_file(_decode(path.read_bytes()))


def read_markdown(path: Path) -> Iterator[Document]:
    """Markdown by way of its HTML: markup goes, text, tables and code stay. Front matter is dropped."""
    from markdown_it import MarkdownIt

    source = re.sub(r"\A---\n.*?\n---\n", "", _decode(path.read_bytes()), count=1, flags=re.DOTALL)
    yield _html_document(MarkdownIt("commonmark").enable("table").render(source))


def read_html(path: Path) -> Iterator[Document]:
    """UTF-8 if the bytes are that (a wrong ``charset`` is common), else the encoding that it declares."""
    from bs4.dammit import EncodingDetector

    data = path.read_bytes()
    try:
        markup = _decode(data)
    except Unreadable:
        declared = EncodingDetector.find_declared_encoding(data, is_html=True)
        if declared is None:
            raise
        try:
            markup = data.decode(declared)
        except (UnicodeDecodeError, LookupError) as error:
            raise Unreadable(f"declares charset {declared!r}, but is not in it: {error}") from None
    yield _html_document(markup)


def read_pdf(path: Path) -> Iterator[Document]:
    """The text layer, page after page. A scan has none: run OCR over it first."""
    from pypdf import PdfReader

    with PdfReader(path) as pdf:
        pages = [page.extract_text() for page in pdf.pages]
        title = pdf.metadata.title if pdf.metadata else None
    yield _whole_file("\n".join(pages), title or "")


def read_docx(path: Path) -> Iterator[Document]:
    """Paragraphs and tables of the body in reading order; a table row is a line."""
    import docx
    from docx.table import Table

    document = docx.Document(str(path))
    blocks: list[str] = []
    for item in document.iter_inner_content():
        if isinstance(item, Table):
            blocks.append("\n".join(" | ".join(cell.text.strip() for cell in row.cells) for row in item.rows))
        else:
            blocks.append(item.text)
    yield _whole_file("\n\n".join(blocks), document.core_properties.title or "")


def read_jsonl(path: Path) -> Iterator[Document | Skipped]:
    """BEIR's ``corpus.jsonl``: ``{"_id", "title", "text"}`` a line, and optionally ``desc``, ``lang``,
    ``date`` (ISO 8601) and ``metadata``, an object. What no filter could use is left out: a date that is none,
    metadata that are objects themselves, or are called as a field of a passage is.

    The document's text is title, description and text, a line each: BEIR's convention is to embed
    ``title + " " + text``, since the text often leaves out what the title has named. So its first
    passage starts with the title. A title that the text already starts with is not repeated.
    """
    with path.open("rb") as probe:
        encoding = _bom(probe.read(4)) or "utf-8"
    # surrogateescape keeps a bad byte visible in its line, so that the other lines still count.
    with path.open(encoding=encoding, errors="surrogateescape") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                try:
                    yield _record(line)
                except (ValueError, RecursionError) as error:
                    yield _skipped(path, f"line {number}: {error}")


READERS: dict[str, DocumentReader] = {
    ".docx": read_docx,
    ".htm": read_html,
    ".html": read_html,
    ".jsonl": read_jsonl,
    ".markdown": read_markdown,
    ".md": read_markdown,
    ".pdf": read_pdf,
    ".text": read_text,
    ".txt": read_text,
}


def find_files(root: Path) -> Iterator[Path | Skipped]:
    """The files at or below ``root`` that have a reader, in sorted order, and what is left out with its
    reason. Folders behind symbolic links are not entered, so loops of links end."""
    if not root.is_dir():
        yield _eligible(root)
        return
    failed: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=failed.append):
        here = Path(folder)
        folders.sort()
        for name in list(folders):
            path = here / name
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
                linked = "a symbolic link to a folder: name it as a path of its own"
                yield _skipped(path, "hidden" if name.startswith(".") else linked)
        for name in sorted(files):
            path = here / name
            yield _skipped(path, "hidden") if name.startswith(".") else _eligible(path)
    for error in failed:
        yield _skipped(Path(error.filename), f"cannot be read: {error.strerror}")


def _eligible(path: Path) -> Path | Skipped:
    suffix = path.suffix.lower()
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:  # a broken link, a loop of links, no permission
        return _skipped(path, f"cannot be read: {error.strerror}")
    if not regular:
        return _skipped(path, "not a regular file")
    if suffix not in READERS:
        return _skipped(path, f"no reader for {suffix or 'a name without suffix'}: known are {' '.join(READERS)}")
    if path.name == "queries.jsonl" and path.with_name("corpus.jsonl").exists():
        return _skipped(path, "BEIR queries beside their corpus.jsonl, not documents")
    return path


def _skipped(path: Path, reason: str) -> Skipped:
    return Skipped(clean(path.as_posix()), reason)


def clean(text: str) -> str:
    """Lone surrogates (from JSON escapes, PDFs, file names in another encoding) cannot be stored as
    UTF-8, and NUL separates the parts of a passage id."""
    return re.sub("[\ud800-\udfff\0]", "\ufffd", text)


def _whole_file(text: str, title: str = "") -> Document:
    return Document(id="", path="", text=text, lang="", title=title.strip())


def _record(line: str) -> Document:
    if re.search("[\udc80-\udcff]", line):
        raise Unreadable("not valid UTF-8")
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not valid JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(record, dict):
        raise Unreadable(f"a record must be a JSON object, got {type(record).__name__}")
    fields: dict[str, Any] = record
    key = fields.get("_id")
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        raise Unreadable(f"'_id' must be a string or a number, got {key!r}")
    if not isinstance(fields.get("text"), str):
        raise Unreadable(f"record {key!r}: 'text' must be a string, got {fields.get('text')!r:.40}")
    title, desc, text = (
        value.strip() if isinstance(value := fields.get(k), str) else "" for k in ("title", "desc", "text")
    )
    for lead in (desc, title):
        text = f"{lead}\n{text}".strip() if not text.startswith(lead) else text
    lang, date, metadata = (fields.get(k) for k in ("lang", "date", "metadata"))
    return Document(
        id=str(key),
        path="",
        text=text,
        lang=lang if isinstance(lang, str) else "",
        title=title,
        date=date if _is_date(date) else "",
        metadata={k: v for k, v in metadata.items() if k not in RESERVED and _comparable(v)}
        if isinstance(metadata, dict)
        else {},
    )


def _is_date(date: object) -> TypeGuard[str]:
    try:
        return isinstance(date, str) and bool(moment(date))
    except ValueError:
        return False


def _comparable(value: object) -> bool:
    """A value, or a list of values, that a filter can name."""
    several = value if isinstance(value, list) and value else [value]
    return all(isinstance(one, Value) and one == one for one in several)  # NaN equals nothing


def _bom(head: bytes) -> str | None:
    boms = {  # UTF-32 first: its mark starts with UTF-16's
        codecs.BOM_UTF32_LE: "utf-32",
        codecs.BOM_UTF32_BE: "utf-32",
        codecs.BOM_UTF8: "utf-8-sig",
        codecs.BOM_UTF16_LE: "utf-16",
        codecs.BOM_UTF16_BE: "utf-16",
    }
    return next((encoding for bom, encoding in boms.items() if head.startswith(bom)), None)


def _decode(data: bytes) -> str:
    encoding = _bom(data[:4])
    if encoding is None and b"\0" in data:
        raise Unreadable("holds NUL bytes: a binary file, or UTF-16 without its byte order mark")
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        name = encoding or "UTF-8"
        raise Unreadable(f"not valid {name} at byte {error.start} ({error.reason}): convert it to UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


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


def _html_document(markup: str) -> Document:
    """The page's visible text: a blank line around blocks, a line per item and table row."""
    from bs4 import BeautifulSoup
    from bs4.element import NavigableString

    soup = BeautifulSoup(markup, "lxml")
    heading = soup.title or soup.h1
    title = " ".join(heading.get_text().split()) if heading else ""
    for tag in soup.find_all(_UNSEEN):
        tag.decompose()
    for string in soup.find_all(string=True):
        if type(string) is NavigableString and string.find_parent("pre") is None:
            between = string.parent is not None and string.parent.name in _PARTS and not string.strip()
            string.replace_with("" if between else re.sub(r"[ \t\n\f\r]+", " ", string))
    for tag in soup.find_all(_BLOCKS):
        tag.insert_before("\n\n")
        tag.insert_after("\n\n")
    for tag in soup.find_all(_LINES):
        tag.insert_after("\n")
    for cell in soup.select("td + td, td + th, th + th, th + td"):
        cell.insert_before(" | ")
    lines = (line.rstrip() if line.strip() else "" for line in soup.get_text().split("\n"))
    text = re.sub(r"\n{3,}", "\n\n", re.sub(r"(?m)^ (?=\S)", "", "\n".join(lines)))
    return _whole_file(text.strip(), title)
