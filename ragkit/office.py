"""PDF, and the formats that are ZIP archives of XML: docx, pptx, epub.

pypdf (BSD), python-docx and python-pptx (MIT) do the parsing; an EPUB is XHTML pages in a stated order,
which lxml and markup.py read (the one kept library for it is under the AGPL). Page numbers are kept where
the format has fixed pages: PDF pages and slides. A docx has none until a program lays it out.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ragkit.files import Unreadable, refuse_wrong_content
from ragkit.limits import Limits
from ragkit.markup import HEADING_LENGTH, heading_marks, html_document, merge_marks
from ragkit.types import Document, Mark

_MEMBERS = 20_000  # files in an archive: more is an attack, not a document


def read_pdf(path: Path, limits: Limits) -> Iterator[Document]:
    """The text layer, page after page; headings are the outline's. A scan has none: run OCR over it first."""
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    refuse_wrong_content(path, limits.file_bytes)
    with PdfReader(path) as pdf:
        if pdf.is_encrypted:
            try:
                locked = not pdf.decrypt("")  # many are open to read and locked only against printing
            except DependencyError as error:
                raise Unreadable(f"is encrypted: {error}") from None
            if locked:
                raise Unreadable("is encrypted: save it without its password")
        if len(pdf.pages) > limits.pages:
            raise Unreadable(_too_many(len(pdf.pages), "pages", limits))
        pages = [page.extract_text() for page in pdf.pages]
        title = pdf.metadata.title if pdf.metadata else None
        outline = _outline(pdf)
    starts = _starts(pages, "\n")
    # An outline names a page; its words are mostly found there, and say where on the page it begins.
    places = [
        (starts[at] + max(pages[at].find(said), 0), level, said) for at, level, said in outline if at < len(starts)
    ]
    marks = merge_marks(starts, heading_marks(sorted(places, key=lambda place: place[0])))
    yield Document("", "", "\n".join(pages), "", (title or "").strip(), marks)


def _outline(pdf: Any) -> list[tuple[int, int, str]]:
    """(page from 0, level, words) of the outline's entries, by page. An outline that is broken is none:
    it names parts of the text, and says nothing itself."""
    found: list[tuple[int, int, str]] = []

    def visit(entries: Sequence[Any], level: int) -> None:
        for entry in entries:
            if isinstance(entry, list):
                visit(entry, level + 1)
            else:
                page = pdf.get_destination_page_number(entry)
                if page is not None and page >= 0 and entry.title:
                    found.append((page, level, str(entry.title)))

    try:
        visit(pdf.outline, 1)
    except Exception:  # pypdf raises whatever the broken object leads it to
        return []
    return sorted(found, key=lambda entry: entry[0])


def read_docx(path: Path, limits: Limits) -> Iterator[Document]:
    """Paragraphs and tables of the body in reading order, with what was inserted under review and without what was
    deleted; a table row is a line."""
    import docx
    from docx.text.paragraph import Paragraph

    checked_archive(path, limits).close()
    document = docx.Document(str(path))
    blocks, headings = list[str](), list[tuple[int, int, str]]()
    length = 0
    for block in _inner(document.element.body, ("p", "tbl")):
        text = _word_text(block)
        if _local(block) == "p":
            level = _heading_level(Paragraph(block, document))
            if level and text.strip() and len(text) <= HEADING_LENGTH:
                headings.append((length, level, text))
        blocks.append(text)
        length += len(text) + 2
    title = document.core_properties.title or ""
    yield Document("", "", "\n\n".join(blocks), "", title.strip(), heading_marks(headings))


# Deleted or moved elsewhere, a text box drawn again for old programs, codes of fields, and how a word is read (ruby).
_SILENT = {"del", "moveFrom", "Fallback", "pPr", "rPr", "trPr", "instrText", "delText", "delInstrText", "rt"}
_STANDS_FOR = {"tab": "\t", "ptab": "\t", "cr": "\n", "noBreakHyphen": "-"}


def _local(element: Any) -> str:
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""  # a comment's is a function


def _inner(element: Any, names: tuple[str, ...]) -> Iterator[Any]:
    """The elements of these names within, in order; not those within one another. python-docx leaves out what stands
    in a content control, or was inserted as a tracked change."""
    for child in element:
        name = _local(child)
        if name in names:
            yield child
        elif name not in _SILENT:
            yield from _inner(child, names)


def _facts(element: Any, properties: str) -> dict[str, str]:
    """What its ``trPr`` or ``tcPr`` says: name -> value."""
    found = [fact for child in element if _local(child) == properties for fact in child]
    return {_local(fact): next(iter(fact.attrib.values()), "") for fact in found}


def _cells(row: Any, facts: dict[str, str], above: dict[int, str]) -> list[str]:
    """The row's cells; one that is merged with the cell above says again what stands there, if that is a label."""
    cells, column = list[str](), _number(facts.get("gridBefore", ""), 0)
    for cell in _inner(row, ("tc",)):
        facts = _facts(cell, "tcPr")
        if facts.get("vMerge", "restart") == "restart":
            text = _word_text(cell).strip()
            above[column] = text if len(text) <= HEADING_LENGTH and "\n" not in text else ""
        else:
            text = above.get(column, "")
        if "cellDel" not in facts:
            cells.append(text)
        column += _number(facts.get("gridSpan", ""), 1)
    return cells


def _number(text: str, default: int) -> int:
    return int(text[:3]) if text.isdecimal() else default


def _word_text(element: Any) -> str:
    match name := _local(element):
        case "t":
            return element.text or ""
        case "br":
            return "" if any(kind in ("page", "column") for kind in element.attrib.values()) else "\n"
        case "tbl":
            above: dict[int, str] = {}  # a column's label, for the rows that it is merged into
            rows = [(_facts(row, "trPr"), row) for row in _inner(element, ("tr",))]
            told = [("del" in facts, _cells(row, facts, above)) for facts, row in rows]
            return "\n".join(" | ".join(cells) for deleted, cells in told if not deleted)
        case "tc":
            return "\n".join(_word_text(block) for block in _inner(element, ("p", "tbl")))
        case "txbxContent":
            return "\n" + "\n".join(_word_text(block) for block in _inner(element, ("p", "tbl"))) + "\n"
        case _:
            return _STANDS_FOR.get(name) or ("" if name in _SILENT else "".join(map(_word_text, element)))


def _heading_level(paragraph: Any) -> int:
    """0 for what is no heading. Word stores a built-in style's English name in every language."""
    name = (paragraph.style.name or "").lower() if paragraph.style is not None else ""
    if name == "title":
        return 1
    number = name.removeprefix("heading ")
    return min(int(number), 6) if name.startswith("heading ") and number.isascii() and number.isdigit() else 0


def read_pptx(path: Path, limits: Limits) -> Iterator[Document]:
    """Slide after slide: title, texts and tables in the order they are drawn, then the speaker's notes."""
    from pptx import Presentation

    checked_archive(path, limits).close()
    deck = Presentation(str(path))
    if len(deck.slides) > limits.pages:
        raise Unreadable(_too_many(len(deck.slides), "slides", limits))
    slides, titles = list[str](), list[str]()
    for slide in deck.slides:
        heading = slide.shapes.title
        titles.append(" ".join(heading.text_frame.text.split())[:HEADING_LENGTH] if heading is not None else "")
        blocks = [text for shape in slide.shapes for text in _shape_texts(shape) if text.strip()]
        notes = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
        slides.append("\n\n".join([*blocks, *([notes.text] if notes is not None and notes.text.strip() else [])]))
    marks = [Mark(start, page + 1, titles[page]) for page, start in enumerate(_starts(slides, "\n\n"))]
    yield Document("", "", "\n\n".join(slides), "", (deck.core_properties.title or "").strip(), tuple(marks))


def _shape_texts(shape: Any) -> Iterator[str]:
    if hasattr(shape, "shapes"):  # a group
        for inner in shape.shapes:
            yield from _shape_texts(inner)
    elif getattr(shape, "has_table", False):
        yield "\n".join(" | ".join(cell.text.strip() for cell in row.cells) for row in shape.table.rows)
    elif shape.has_text_frame:
        yield shape.text_frame.text.replace("\v", "\n")


def read_epub(path: Path, limits: Limits) -> Iterator[Document]:
    """The chapters of the book's spine (its reading order), as one document with their headings."""
    import lxml.etree as etree

    # No entities, no network, no DTD: a package file needs none of them, an attack does.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    with checked_archive(path, limits) as archive:
        if "META-INF/encryption.xml" in archive.namelist() and b"CipherReference" in archive.read(
            "META-INF/encryption.xml"
        ):
            fonts_only = all(
                name.lower().endswith((".otf", ".ttf", ".woff", ".woff2"))
                for name in etree.fromstring(archive.read("META-INF/encryption.xml"), parser).xpath(
                    "//*[local-name()='CipherReference']/@URI"
                )
            )
            if not fonts_only:
                raise Unreadable("is encrypted (DRM): only its reading program can open it")
        try:
            container = etree.fromstring(archive.read("META-INF/container.xml"), parser)
            [place, *_] = container.xpath("//*[local-name()='rootfile']/@full-path")
            package = etree.fromstring(archive.read(place), parser)
        except (KeyError, ValueError, etree.XMLSyntaxError) as error:
            raise Unreadable(f"no EPUB, its package file cannot be read: {error}") from None
        hrefs = {item.get("id"): item.get("href") for item in package.xpath("//*[local-name()='manifest']/*")}
        spine = [hrefs.get(item.get("idref")) for item in package.xpath("//*[local-name()='spine']/*")]
        if len(spine) > limits.pages:
            raise Unreadable(_too_many(len(spine), "chapters", limits))
        chapters: list[Document] = []
        for href in spine:
            name = posixpath.normpath(posixpath.join(posixpath.dirname(place), unquote(href or "").partition("#")[0]))
            try:
                chapters.append(html_document(_markup(archive.read(name))))
            except KeyError:
                raise Unreadable(f"its chapter {name!r} is missing: the book is incomplete") from None
        said = [str(text) for text in package.xpath("//*[local-name()='metadata']/*[local-name()='title']/text()")]
        lang = [str(text) for text in package.xpath("//*[local-name()='metadata']/*[local-name()='language']/text()")]
    marks: list[Mark] = []
    for start, chapter in zip(_starts([c.text for c in chapters], "\n\n"), chapters, strict=True):
        own = tuple(Mark(start + mark.start, 0, mark.heading) for mark in chapter.marks)
        # Where a chapter starts without a heading, its title is one: the last chapter's must not reach into it.
        marks += own if own and own[0].start == start else (Mark(start, 0, chapter.title), *own)
    text = "\n\n".join(chapter.text for chapter in chapters)
    yield Document("", "", text, lang[0] if lang else "", said[0].strip() if said else "", tuple(marks))


def _markup(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # the two that EPUB allows
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Unreadable(f"a chapter is not valid {encoding}: {error.reason} at byte {error.start}") from None


def checked_archive(path: Path, limits: Limits) -> zipfile.ZipFile:
    """Opened, after a look at what it would expand to. zipfile reads no more of a member than its header
    announces, so a header that lies ends in a wrong checksum."""
    refuse_wrong_content(path, limits.file_bytes)
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise Unreadable(f"no {path.suffix.lower()[1:]}, or cut off: {error}") from None
    members = archive.infolist()
    expanded = sum(member.file_size for member in members)
    said = ""
    if len(members) > _MEMBERS:
        said = f"an archive of {len(members):,} files, the limit is {_MEMBERS:,}"
    elif expanded > limits.expanded_bytes:
        said = f"expands to {expanded:,} bytes, the limit is {limits.expanded_bytes:,}: raise expanded_bytes"
    elif any(member.flag_bits & 1 for member in members):
        said = "is encrypted: save it without its password"
    if said:
        archive.close()
        raise Unreadable(said)
    return archive


def _starts(parts: Sequence[str], between: str) -> list[int]:
    """Where each part begins once they are joined."""
    starts, length = list[int](), 0
    for part in parts:
        starts.append(length)
        length += len(part) + len(between)
    return starts


def _too_many(count: int, what: str, limits: Limits) -> str:
    return f"{count:,} {what}, the limit is {limits.pages:,}: split it, or raise the limit pages"
