"""What each file says: one function per suffix, listed in ``READERS``.

A new format is a new entry. A reader takes a path and the limits and yields Documents, lazily, so that a
JSONL or CSV of any size streams. It leaves ``id``, ``path`` and ``lang`` empty where the format does not
say; ingestion fills them in. A record it cannot read it yields as ``Skipped``; a file it cannot read at
all it raises for. Plain text, markup and records are read here, PDF and the zipped formats in office.py,
parquet and arrow in tables.py;
libraries are imported when their first file comes.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from ragkit.files import Skipped, Unreadable, refuse_wrong_content, skipped
from ragkit.limits import Limits
from ragkit.markup import html_document, markdown_document
from ragkit.office import read_docx, read_epub, read_pdf, read_pptx
from ragkit.records import record_document
from ragkit.tables import read_arrow, read_parquet
from ragkit.types import Document

__all__ = ["READERS", "Reader", "Skipped", "Unreadable"]

Reader = Callable[[Path, Limits], Iterable[Document | Skipped]]


def read_text(path: Path, limits: Limits) -> Iterator[Document]:
    yield Document("", "", _decode(_content(path, limits)), "")


def read_markdown(path: Path, limits: Limits) -> Iterator[Document]:
    yield markdown_document(_decode(_content(path, limits)))


# What browsers read under a name that means less to Python (https://encoding.spec.whatwg.org/#names-and-labels).
_WEB = {
    "gb2312": "gb18030", "gb_2312-80": "gb18030", "gbk": "gb18030", "x-gbk": "gb18030",
    "shift_jis": "cp932", "shift-jis": "cp932", "sjis": "cp932", "x-sjis": "cp932", "ms_kanji": "cp932",
    "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "ksc5601": "cp949", "korean": "cp949",
    "big5": "big5hkscs", "big5-hkscs": "big5hkscs", "x-x-big5": "big5hkscs",
    "iso-8859-1": "cp1252", "iso8859-1": "cp1252", "latin1": "cp1252",
    "iso-8859-9": "cp1254", "iso8859-9": "cp1254", "latin5": "cp1254",
    "iso-8859-11": "cp874", "iso8859-11": "cp874", "tis-620": "cp874",
}  # fmt: skip


def _decode_as(data: bytes, *encodings: str) -> str:
    """By the first of ``encodings`` that fits. Raises what the last raises."""
    for encoding in encodings[:-1]:
        with suppress(UnicodeDecodeError, LookupError):
            return data.decode(encoding)
    return data.decode(encodings[-1])


def read_html(path: Path, limits: Limits) -> Iterator[Document]:
    """UTF-8 if the bytes are that (a wrong ``charset`` is common), else the encoding that it declares."""
    from bs4.dammit import EncodingDetector

    data = _content(path, limits)
    try:
        markup = _decode(data)
    except Unreadable:
        declared = EncodingDetector.find_declared_encoding(data, is_html=True)
        if declared is None:
            raise
        label = declared.lower().strip()
        try:
            markup = _decode_as(data, _WEB.get(label, label), label)
        except (UnicodeDecodeError, LookupError) as error:
            raise Unreadable(f"declares charset {declared!r}, but is not in it: {error}") from None
    yield html_document(markup)


def read_jsonl(path: Path, limits: Limits) -> Iterator[Document | Skipped]:
    """BEIR's ``corpus.jsonl``: ``{"_id", "title", "text"}`` a line, and optionally ``desc``, ``lang``,
    ``date`` (ISO 8601) and ``metadata``, an object. What no filter could use is left out: a date that is none,
    metadata that are objects themselves, or are called as a field of a passage is.

    The document's text is title, description and text, a line each: BEIR's convention is to embed
    ``title + " " + text``, since the text often leaves out what the title has named. So its first
    passage starts with the title. A title that the text already starts with is not repeated.
    """
    with _opened(path) as file:
        for number, line in _lines(file, limits.file_bytes):
            if isinstance(line, Unreadable):
                yield skipped(path, f"line {number}: {line}")
            elif line.strip():
                try:
                    yield _record(line)
                except (ValueError, RecursionError) as error:
                    yield skipped(path, f"line {number}: {error}")


def read_csv(path: Path, limits: Limits) -> Iterator[Document | Skipped]:
    """A document per row. With a column ``text`` it is a record as in JSONL (``_id`` or ``id``, ``title``,
    ``desc``, ``lang``), else every cell is a line ``column: cell``. The first row names the columns.

    A row without an id of its own gets one from its content: rows inserted above it change nothing.
    """
    csv.field_size_limit(min(limits.file_bytes, 2**31 - 1))
    with _opened(path, newline="") as file:
        lines = _text_lines(file, limits.file_bytes)
        first = next(lines, "")
        rows = csv.reader(_again(first, lines), delimiter=_delimiter(first), strict=True)
        header = [name.strip() for name in next(rows, [])]
        if header and all(re.fullmatch(r"[\d.,\s-]*", name) for name in header):
            raise Unreadable("its first row names no columns, all cells are numbers or empty: put a header first")
        records = {name.lower() for name in header} >= {"text"}
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise Unreadable(f"line {rows.line_num}: not valid CSV: {error}") from None
            if any(cell.strip() for cell in row):
                try:
                    yield _row(header, row, records)
                except ValueError as error:
                    yield skipped(path, f"line {rows.line_num}: {error}")


READERS: dict[str, Reader] = {
    ".arrow": read_arrow,
    ".csv": read_csv,
    ".docx": read_docx,
    ".epub": read_epub,
    ".htm": read_html,
    ".html": read_html,
    ".jsonl": read_jsonl,
    ".markdown": read_markdown,
    ".md": read_markdown,
    ".parquet": read_parquet,
    ".pdf": read_pdf,
    ".pptx": read_pptx,
    ".text": read_text,
    ".tsv": read_csv,
    ".txt": read_text,
    ".xhtml": read_html,
}

# --- bytes -> text


def _content(path: Path, limits: Limits) -> bytes:
    refuse_wrong_content(path, limits.file_bytes)
    return path.read_bytes()


def _opened(path: Path, newline: str | None = None) -> IO[str]:
    """surrogateescape keeps a bad byte visible in its line, so that the other lines still count."""
    refuse_wrong_content(path, max_bytes=2**63)
    with path.open("rb") as probe:
        encoding = _bom(probe.read(4)) or "utf-8"
    return path.open(encoding=encoding, errors="surrogateescape", newline=newline)


def _lines(file: IO[str], max_length: int) -> Iterator[tuple[int, str | Unreadable]]:
    """Numbered lines; of one that is longer than ``max_length`` only that it is."""
    number = 0
    while line := file.readline(max_length + 1):
        number += 1
        if len(line) <= max_length:
            yield number, line
            continue
        while line and not line.endswith("\n"):
            line = file.readline(max_length + 1)
        yield number, Unreadable(f"longer than {max_length:,} characters: split it, or raise the limit file_bytes")


def _text_lines(file: IO[str], max_length: int) -> Iterator[str]:
    """Lines of a CSV, where a broken one may have torn the rows that follow: it ends the file."""
    for number, line in _lines(file, max_length):
        if isinstance(line, Unreadable):
            raise Unreadable(f"line {number}: {line}")
        if "\0" in line:
            raise Unreadable(f"line {number}: holds NUL bytes: a binary file, or UTF-16 without its byte order mark")
        yield line


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


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


# --- records


def _record(line: str) -> Document:
    _refuse_bad_bytes(line)
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise Unreadable(f"not valid JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(record, dict):
        raise Unreadable(f"a record must be a JSON object, got {type(record).__name__}")
    return record_document(record)


def _row(header: list[str], row: list[str], records: bool) -> Document:
    _refuse_bad_bytes("".join(row))
    named = {name.lower(): cell for name, cell in zip(header, row, strict=False)}
    own = "row-" + hashlib.sha256("\0".join(row).encode()).hexdigest()[:16]
    key = (named.get("_id") or named.get("id") or "").strip() or own
    if records and len(row) <= len(header):
        return record_document({**named, "_id": key, "text": named.get("text", "")})
    names = [*header, *[""] * (len(row) - len(header))]  # cells beyond the header are kept, without a name
    cells = [(name, cell.strip()) for name, cell in zip(names, row, strict=False) if cell.strip()]
    return Document(key, "", "\n".join(f"{name}: {cell}" if name else cell for name, cell in cells), "")


def _refuse_bad_bytes(text: str) -> None:
    if re.search("[\udc80-\udcff]", text):
        raise Unreadable("not valid UTF-8")


def _delimiter(header: str) -> str:
    """The one of the usual separators that the first line has most of."""
    return max(",;\t|", key=header.count)
