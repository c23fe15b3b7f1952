"""Every format with its pages and headings, and a child process whose worst costs one file."""

from __future__ import annotations

import csv
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import docx
import pytest
from conftest import HashEncoder
from pptx import Presentation
from pptx.util import Inches
from pypdf import PdfReader, PdfWriter
from test_ingest import stored, write_pdf

from ragkit import Document
from ragkit.files import Skipped
from ragkit.ingest import ingest
from ragkit.limits import Limits
from ragkit.markup import markdown_document
from ragkit.parsing import Parser
from ragkit.readers import READERS
from ragkit.store import Store, open_store


@pytest.fixture
def store(encoder: HashEncoder) -> Iterator[Store]:
    with open_store(":memory:", "town", encoder) as opened:
        yield opened


def read(path: Path, limits: Limits | None = None) -> Document:
    with Parser(limits) as parser:
        [document] = parser.read(path, READERS[path.suffix])
    assert isinstance(document, Document), document
    return document


def places(document: Document) -> list[tuple[str, int, str]]:
    """Of each mark the text up to the next one, the page and the heading."""
    ends = [*(mark.start for mark in document.marks[1:]), len(document.text)]
    return [(document.text[m.start : end].strip(), m.page, m.heading)
            for m, end in zip(document.marks, ends, strict=True)]  # fmt: skip


# ------------------------------------------------------------------ page and heading


def test_a_pdf_has_pages_and_the_headings_of_its_outline(tmp_path: Path):
    writer = PdfWriter(clone_from=PdfReader(write_pdf(tmp_path / "a.pdf", "Vorwort. 序言", "Öffnung: um acht", "mehr")))
    chapter = writer.add_outline_item("Haus", 0)
    writer.add_outline_item("acht", 1, parent=chapter)  # found in the middle of page 2
    writer.write(tmp_path / "a.pdf")
    assert places(read(tmp_path / "a.pdf")) == [
        ("Vorwort. 序言", 1, "Haus"), ("Öffnung: um", 2, "Haus"), ("acht", 2, "Haus > acht"), ("mehr", 3, "Haus > acht")
    ]  # fmt: skip


def test_headings_of_html_and_markdown(tmp_path: Path):
    (tmp_path / "a.md").write_text("intro\n\n# መጽሐፍ\n\none\n\n### ክፍል *ሦስት*\n\ntwo\n\n# 次\n\nthree")
    assert places(read(tmp_path / "a.md")) == [
        ("መጽሐፍ\n\none", 0, "መጽሐፍ"), ("ክፍል ሦስት\n\ntwo", 0, "መጽሐፍ > ክፍል ሦስት"), ("次\n\nthree", 0, "次")
    ]  # fmt: skip
    (tmp_path / "a.html").write_text("<h2> a <b>b</b>\n c</h2>x<h2></h2><table><tr><td><h3>d</h3></table>")
    assert places(read(tmp_path / "a.html")) == [("a b c\n\nx", 0, "a b c"), ("d", 0, "a b c > d")]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("---\nርዕስ: ጀልባ\ntags:\n- x\n---\nጽሑፍ\n\n---\n\nend", "ጽሑፍ\n\nend"),
        ("--- \nशीर्षक : नाव\n---", ""),
        ("---\n---\ntext", "text"),
        ("---\n\n渡轮九点出发。\n\n---\n\nend", "渡轮九点出发。\n\nend"),
        ("---\nWe met at noon: it rained.\n\n---\nend", "We met at noon: it rained.\n\nend"),
        ("---\nhttps://example.org\n\n---\nend", "https://example.org\n\nend"),
        ("---\ntext", "text"),
        ("text\n\n---\nkey: value\n\n---\nend", "text\n\nkey: value\n\nend"),
    ],
)
def test_markdown_that_begins_with_a_rule_loses_front_matter_alone(source: str, text: str):
    assert markdown_document(source).text == text


def test_headings_of_docx(tmp_path: Path):
    document = docx.Document()
    document.add_heading("दस्तावेज़", 0)
    document.add_heading("समय", 1)
    document.add_paragraph("आठ बजे")
    document.add_heading("भाग", 2)
    document.save(str(tmp_path / "a.docx"))
    assert places(read(tmp_path / "a.docx")) == [
        ("दस्तावेज़", 0, "दस्तावेज़"), ("समय\n\nआठ बजे", 0, "समय"), ("भाग", 0, "समय > भाग")
    ]  # fmt: skip


def test_a_reviewed_form_of_docx_is_read_as_if_its_changes_were_accepted(tmp_path: Path):
    """python-docx leaves out what was inserted, what stands in a content control, and tables within cells."""
    from docx.oxml import parse_xml
    from docx.oxml.ns import nsdecls

    def run(text: str) -> str:
        return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'

    document = docx.Document()
    body = document.element.body
    word = nsdecls("w")
    gone = f"<w:del><w:r><w:delText>4</w:delText></w:r></w:del><w:moveFrom>{run('gone')}</w:moveFrom>"
    rest = "<w:r><w:tab/><w:t>a year.</w:t><w:br/><w:br w:type='page'/></w:r>"
    field = f"<w:p><w:pPr><w:tabs><w:tab w:pos='9'/></w:tabs></w:pPr>{run('नाम')}</w:p>"
    inner = f"<w:tbl><w:tr><w:tc><w:p>{run('内')}</w:p></w:tc></w:tr></w:tbl>"
    row = f"<w:tr><w:tc><w:p>{run('a')}</w:p>{inner}</w:tc><w:tc><w:p>{run('b')}</w:p></w:tc></w:tr>"

    def cell(text: str, facts: str = "") -> str:
        return f"<w:tc><w:tcPr>{facts}</w:tcPr><w:p>{run(text) if text else ''}</w:p></w:tc>"

    first, goes_on, long = "<w:vMerge w:val='restart'/>", "<w:vMerge/>", "long " * 99 + "text"
    merged = [
        cell("wide", "<w:gridSpan w:val='2'/>") + cell("ผู้ใหญ่", first) + cell(long, first),
        cell("out", "<w:cellDel/>") + cell("1") + cell("", goes_on) + cell("", goes_on),
        "<w:trPr><w:gridBefore w:val='1'/></w:trPr>" + cell("2") + cell("", goes_on),
        "<w:trPr><w:del/></w:trPr>" + cell("3") + cell("4") + cell("เด็ก", first),
        cell("5") + cell("6") + cell("", goes_on),
    ]
    labels = "".join(f"<w:tr>{row}</w:tr>" for row in merged)
    deleted = f"<w:tr><w:trPr><w:del/></w:trPr><w:tc><w:p>{run('out')}</w:p></w:tc></w:tr>"
    ruby = f"<w:ruby><w:rt>{run('よ')}</w:rt><w:rubyBase>{run('読')}</w:rubyBase></w:ruby>"
    parts = [
        f"<w:p {word}>{run('The fee is ')}<w:ins>{run('አምስት መቶ')}</w:ins>{gone}{rest}</w:p>",
        f"<w:sdt {word}><w:sdtContent>{field}</w:sdtContent></w:sdt>",
        f"<w:tbl {word}>{row}{deleted}{labels}</w:tbl>",
        f"<w:p {word}><w:r>{ruby}</w:r></w:p>",
    ]
    for part in parts:
        body.insert(len(body) - 1, parse_xml(part))  # before the section's settings
    document.save(str(tmp_path / "a.docx"))
    table = f"a\n内 | b\nwide | ผู้ใหญ่ | {long}\n1 | ผู้ใหญ่ | \n2 | ผู้ใหญ่\n5 | 6 | เด็ก"
    assert read(tmp_path / "a.docx").text == f"The fee is አምስት መቶ\ta year.\n\n\nनाम\n\n{table}\n\n読"


def test_slides_of_pptx(tmp_path: Path):
    deck = Presentation()
    deck.core_properties.title = "Town"
    for number, (title, body) in enumerate([("เปิด", "แปดโมง"), ("Closed", "Monday")]):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text, slide.placeholders[1].text = title, body
        if number:
            table = slide.shapes.add_table(1, 2, Inches(1), Inches(1), Inches(1), Inches(1)).table
            table.cell(0, 0).text, table.cell(0, 1).text = "a", "b"
            group = slide.shapes.add_group_shape()
            group.shapes.add_textbox(0, 0, 9, 9).text_frame.text = "grouped"
            slide.notes_slide.notes_text_frame.text = "said"
    deck.save(str(tmp_path / "a.pptx"))
    document = read(tmp_path / "a.pptx")
    assert document.title == "Town"
    assert places(document) == [
        ("เปิด\n\nแปดโมง", 1, "เปิด"), ("Closed\n\nMonday\n\na | b\n\ngrouped\n\nsaid", 2, "Closed")
    ]  # fmt: skip


def test_chapters_of_epub_in_the_order_of_the_spine(tmp_path: Path):
    opf = """<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">
      <metadata><dc:title>本</dc:title><dc:language>ja-JP</dc:language></metadata>
      <manifest><item id="1" href="a%20b.xhtml"/><item id="2" href="../c.xhtml"/><item id="3" href="no.css"/></manifest>
      <spine><itemref idref="2"/><itemref idref="1"/></spine></package>"""
    with zipfile.ZipFile(tmp_path / "a.epub", "w") as book:
        book.writestr("META-INF/container.xml", '<c><rootfile full-path="in/book.opf"/></c>')
        book.writestr("in/book.opf", opf)
        book.writestr("in/a b.xhtml", "<html><head><title>後</title></head><p>二番目</p><h2>節</h2><p>三</p></html>")
        book.writestr("c.xhtml", '<?xml version="1.0" encoding="utf-8"?><html><h1>前</h1><p>一番目</p></html>')
    document = read(tmp_path / "a.epub")
    assert (document.title, document.lang) == ("本", "ja-JP")
    assert places(document) == [("前\n\n一番目", 0, "前"), ("二番目", 0, "後"), ("節\n\n三", 0, "節")]


def test_rows_of_csv_keep_their_ids_when_others_come_before(tmp_path: Path, store: Store, encoder: HashEncoder):
    rows = [["ስም", "note"], ["ሰላም", 'two\nlines, "quoted"'], ["مكتبة", ""]]
    path = tmp_path / "a.tsv"

    def write(rows: list[list[str]]) -> None:
        text = io.StringIO()
        csv.writer(text, delimiter="\t").writerows(rows)
        path.write_text(text.getvalue(), "utf-16", newline="")

    write(rows)
    assert ingest([path], store, encoder).added == 2
    assert {p.text for p in stored(store)} == {'ስም: ሰላም\nnote: two\nlines, "quoted"', "ስም: مكتبة"}
    write([rows[0], ["new", "row"], *rows[1:]])
    report = ingest([path], store, encoder)
    assert (report.added, report.unchanged, report.removed) == (1, 2, 0)
    path.write_text("_id,title,text,lang\nx,Library,It opens.,pt_BR\n")
    path = path.rename(tmp_path / "b.csv")
    ingest([path], store, encoder)
    assert [(p.document, p.text, p.lang) for p in stored(store) if p.path == str(path)] == [
        ("x", "Library\nIt opens.", "pt")
    ]


def test_passages_know_page_and_heading(tmp_path: Path, store: Store, encoder: HashEncoder):
    text = "same words here. " * 6  # passages with equal texts are still told apart
    (tmp_path / "a.md").write_text(f"{text}\n\n# One\n\n{text}\n\n# Two\n\n{text}")
    write_pdf(tmp_path / "b.pdf", *[f"page {n} says a few words more" for n in range(1, 6)])
    ingest([tmp_path], store, encoder, passage_tokens=12)
    found = stored(store)
    headings = [p.heading for p in found if p.document == "a.md"]
    assert headings == sorted(headings, key=["", "One", "Two"].index) and set(headings) == {"", "One", "Two"}
    pdf = [p for p in found if p.document == "b.pdf"]
    before = ["".join(f"{p.text}\n" for p in pdf[:n]) + p.text.split()[0] for n, p in enumerate(pdf)]
    assert [p.page for p in pdf] == [text.count("page") for text in before] and pdf[-1].page > 3
    # A heading that changes changes the document, though its text stays.
    (tmp_path / "a.md").write_text((tmp_path / "a.md").read_text().replace("# Two", "## Two"))
    assert ingest([tmp_path], store, encoder, passage_tokens=12).changed == 1
    assert "One > Two" in {p.heading for p in stored(store)}


def test_a_docling_document():
    """The half of the docling reader that needs no models; the other half is docling's own call."""
    core = pytest.importorskip("docling_core.types.doc")
    from ragkit.layout import from_docling

    document = core.DoclingDocument(name="x")
    place = {"bbox": core.BoundingBox(l=0, t=0, r=1, b=1), "charspan": (0, 1)}
    document.add_title("ቤተ መጻሕፍት", prov=core.ProvenanceItem(page_no=1, **place))
    document.add_heading("ሰዓት", level=1, prov=core.ProvenanceItem(page_no=1, **place))
    document.add_text(core.DocItemLabel.PARAGRAPH, "ጠዋት", prov=core.ProvenanceItem(page_no=2, **place))
    data = core.TableData(num_rows=1, num_cols=2)
    for column, text in enumerate(["周一", "休馆"]):
        data.table_cells.append(
            core.TableCell(text=text, start_row_offset_idx=0, end_row_offset_idx=1, start_col_offset_idx=column,
                           end_col_offset_idx=column + 1)
        )  # fmt: skip
    document.add_table(data, prov=core.ProvenanceItem(page_no=3, **place))
    found = from_docling(document)
    assert found.title == "ቤተ መጻሕፍት"
    assert [(page, heading) for _, page, heading in places(found)] == [
        (1, "ቤተ መጻሕፍት"), (1, "ቤተ መጻሕፍት > ሰዓት"), (2, "ቤተ መጻሕፍት > ሰዓት"), (3, "ቤተ መጻሕፍት > ሰዓት")
    ]  # fmt: skip
    assert places(found)[2][0] == "ጠዋት" and "周一" in places(found)[3][0]


def test_docling_that_is_not_installed_is_said():
    from importlib.util import find_spec

    from ragkit.layout import readers_of

    assert readers_of("light") == READERS
    if find_spec("docling") is None:
        with pytest.raises(ImportError, match=r"pip install -e '\.\[docling\]' in ragkit's checkout"):
            readers_of("docling")


# ------------------------------------------------------------------ the child


BAD = """
import os, time
from ragkit import Document
from ragkit.files import Skipped, Unreadable
def document(text): return Document(text, "", text, "en")
def hang(path, limits):
    yield document("first")
    time.sleep(3600)
def spin(path, limits):
    while True: pass
def die(path, limits):
    yield document("first")
    os.kill(os.getpid(), 11)
def leave(path, limits):
    os._exit(3)
def swallow(path, limits):
    return [document("x" * (4_000_000_000))]
def shout(path, limits):
    print("between the answers", flush=True)
    os.write(1, b"and raw")
    return [document(os.environ.get("RAGKIT_QDRANT_API_KEY", "no key"))]
def refuse(path, limits):
    raise Unreadable("line\\nbreak \\ud800")
def many(path, limits):
    for n in range(100_000): yield document(str(n))
def fine(path, limits):
    return [document("fine")]
"""


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "bad_readers.py").write_text(BAD)
    monkeypatch.syspath_prepend(tmp_path)
    import bad_readers  # pyright: ignore[reportMissingImports]

    yield bad_readers
    del sys.modules["bad_readers"]


@pytest.mark.parametrize(
    ("name", "texts", "reason"),
    [
        ("hang", ["first"], "its parser took longer than 5 seconds"),
        ("spin", [], "its parser took longer than 5 seconds"),
        ("die", ["first"], "its parser died (signal 11)"),
        ("leave", [], "its parser died (exit code 3)"),
        ("swallow", [], "MemoryError"),
        ("shout", ["no key"], None),
        ("refuse", [], "line\nbreak \ufffd"),
    ],
)
def test_a_parser_costs_its_own_file_alone(
    bad: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, texts: list[str], reason: str | None
):
    if name == "swallow" and sys.platform != "linux":
        pytest.skip("only Linux limits the address space")
    monkeypatch.setenv("RAGKIT_QDRANT_API_KEY", "secret")
    with Parser(Limits(seconds=5)) as parser:
        assert [d.text for d in parser.read(tmp_path, bad.fine) if isinstance(d, Document)] == ["fine"]
        items = list(parser.read(tmp_path, getattr(bad, name)))
        assert [item.text for item in items if isinstance(item, Document)] == texts
        reasons = [item.reason for item in items if isinstance(item, Skipped)]
        assert len(reasons) == (reason is not None)
        assert all(reason in told for told in reasons if reason)
        assert [d.text for d in parser.read(tmp_path, bad.fine) if isinstance(d, Document)] == ["fine"]


def test_an_abandoned_file_does_not_answer_for_the_next(bad: ModuleType, tmp_path: Path):
    with Parser() as parser:
        items = parser.read(tmp_path, bad.many)
        assert [next(items), next(items)] == [Document("0", "", "0", "en"), Document("1", "", "1", "en")]
        items.close()  # pyright: ignore[reportAttributeAccessIssue]
        assert list(parser.read(tmp_path, bad.fine)) == [Document("fine", "", "fine", "en")]
        assert len(list(parser.read(tmp_path, bad.many))) == 100_000


def test_no_child_outlives_its_parser(bad: ModuleType, tmp_path: Path):
    with Parser() as parser:
        _ = next(iter(parser.read(tmp_path, bad.hang)))
        list(parser.read(tmp_path, bad.fine))
        child = parser._child
        assert child is not None and child.poll() is None
    assert child.poll() is not None


def test_the_folder_of_documents_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "csv.py").write_text("open('ran', 'w')")
    (tmp_path / "a.txt").write_text("Text.")
    monkeypatch.chdir(tmp_path)
    assert read(Path("a.txt")).text == "Text."
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(file_bytes=10), "15 bytes, the limit is 10"),
        (Limits(characters=10), "15 characters, the limit is 10"),
    ],
)
def test_limits_are_told(tmp_path: Path, limits: Limits, reason: str):
    (tmp_path / "a.txt").write_text("fifteen letters")
    with Parser(limits) as parser:
        [item] = parser.read(tmp_path / "a.txt", READERS[".txt"])
    assert isinstance(item, Skipped) and reason in item.reason


def test_a_long_line_is_its_own_loss(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"_id": "a", "text": "%s"}\n{"_id": "b", "text": "short"}\n' % ("x" * 100))
    with Parser(Limits(file_bytes=50)) as parser:
        skip, document = parser.read(tmp_path / "a.jsonl", READERS[".jsonl"])
    assert isinstance(skip, Skipped) and "line 1: longer than 50 characters" in skip.reason
    assert isinstance(document, Document) and document.text == "short"


def test_limits_are_settings(monkeypatch: pytest.MonkeyPatch):
    from ragkit.settings import Settings

    monkeypatch.setenv("RAGKIT_LIMITS_PAGES", "7")
    monkeypatch.setenv("RAGKIT_LIMITS_FILE_BYTES", "9")
    assert Settings().limits == Limits(pages=7, file_bytes=9)
    with pytest.raises(ValueError, match="limit seconds is 0"):
        Limits(seconds=0)
