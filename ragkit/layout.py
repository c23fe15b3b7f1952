"""docling (MIT, the extra ``docling``) in place of the light readers: layout, reading order, tables.

It sees columns, tables and scans (with OCR) that a text layer does not show, and costs models of several
hundred MB from the Hub (PDF) and seconds a page. Same interface, chosen with ``RAGKIT_PARSER=docling``;
torch needs more room than the light readers: ``RAGKIT_LIMITS_MEMORY_BYTES=16000000000``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ragkit.extras import install
from ragkit.files import Unreadable, refuse_wrong_content
from ragkit.limits import Limits
from ragkit.markup import heading_marks
from ragkit.office import checked_archive
from ragkit.readers import READERS, Reader
from ragkit.types import Document, Mark

_converter: Any = None  # one a process: it loads its models once


def readers_of(parser: str) -> dict[str, Reader]:
    """``light``: READERS. ``docling``: the same, with docling for the formats that have a layout."""
    if parser != "docling":
        return dict(READERS)
    from importlib.util import find_spec

    if find_spec("docling") is None:
        raise ImportError(f"the parser 'docling' is not installed: {install('docling')}, or use 'light'")
    return READERS | dict.fromkeys((".pdf", ".docx", ".pptx", ".html", ".htm"), read_with_docling)


def read_with_docling(path: Path, limits: Limits) -> Iterator[Document]:
    global _converter
    if path.suffix.lower() in (".docx", ".pptx"):
        checked_archive(path, limits).close()
    else:
        refuse_wrong_content(path, limits.file_bytes)
    if _converter is None:
        from docling.document_converter import DocumentConverter  # pyright: ignore[reportMissingImports]

        _converter = DocumentConverter()
    result = _converter.convert(path, max_num_pages=limits.pages, max_file_size=limits.file_bytes)
    if result.status.value != "success":
        raise Unreadable(f"docling: {result.status.value}: {'; '.join(e.error_message for e in result.errors)}")
    yield from_docling(result.document)


def from_docling(document: Any) -> Document:
    """A DoclingDocument's texts and tables in reading order, with their pages and section headings."""
    blocks, headings = list[str](), list[tuple[int, int, str]]()
    places: list[tuple[int, int]] = []  # start, page
    length, title = 0, ""
    for item, _ in document.iterate_items():
        label = str(getattr(item.label, "value", item.label))
        table = hasattr(item, "export_to_dataframe")
        text = item.export_to_markdown(document) if table else getattr(item, "text", "")
        if not text.strip():
            continue
        if label in ("title", "section_header"):
            title = title or (text if label == "title" else "")
            headings.append((length, 1 if label == "title" else 1 + getattr(item, "level", 1), text))
        places.append((length, item.prov[0].page_no if item.prov else 0))
        blocks.append(text)
        length += len(text) + 2
    above, heading, marks = {mark.start: mark.heading for mark in heading_marks(headings)}, "", list[Mark]()
    for start, page in places:
        heading = above.get(start, heading)
        marks.append(Mark(start, page, heading))
    return Document("", "", "\n\n".join(blocks), "", title.strip(), tuple(marks))
