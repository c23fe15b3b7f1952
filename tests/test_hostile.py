"""Files that nobody wants to meet, made here: each is read as it should be or skipped with its reason, the
run goes on, and nothing is lost without a word."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import docx
import pytest
from conftest import HashEncoder
from pypdf import PdfReader, PdfWriter
from test_ingest import texts, write_pdf

from ragkit.ingest import IngestReport, ingest
from ragkit.limits import Limits
from ragkit.readers import READERS, read_text
from ragkit.store import open_store

LIMITS = Limits(pages=50, expanded_bytes=50_000_000)
LONG = 50_000_000
LAUGHS = '<!DOCTYPE x [<!ENTITY a0 "ha">' + "".join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)
) + "]>"  # fmt: skip
CONTAINER = '<container><rootfiles><rootfile full-path="o/book.opf"/></rootfiles></container>'
OPF = '<package><metadata/><manifest><item id="a" href="{}"/></manifest><spine><itemref idref="a"/></spine></package>'


def archive(**members: str | bytes) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name.replace("__", "/").replace("_dot_", "."), content)
    return data.getvalue()


def epub(opf: str = OPF.format("c.xhtml"), **more: str | bytes) -> bytes:
    page = "<html><body><h1>第一章</h1><p>図書館は八時に開く。</p></body></html>"
    return archive(**{"META-INF/container.xml": CONTAINER, "o/book.opf": opf, "o/c.xhtml": page} | more)


def word(path: Path) -> bytes:
    document = docx.Document()
    document.add_paragraph("ቤተ መጻሕፍቱ ይከፈታል።")
    document.save(str(path))
    return path.read_bytes()


def with_document_xml(path: Path, xml: str) -> None:
    source = zipfile.ZipFile(io.BytesIO(word(path)))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, xml if name == "word/document.xml" else source.read(name))


def laughing_docx(path: Path) -> None:
    w = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    body = f'<w:document xmlns:w="{w}"><w:body><w:p><w:r><w:t>safe &a9;</w:t></w:r></w:p></w:body></w:document>'
    with_document_xml(path, LAUGHS.replace("DOCTYPE x", "DOCTYPE w:document") + body)


def encrypted_zip(path: Path) -> None:
    data = bytearray(word(path))
    at = data.index(b"PK\x01\x02")  # the first entry of the central directory; bit 0 of its flags
    data[at + 8] |= 1
    path.write_bytes(data)


def encrypted_pdf(user: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        writer = PdfWriter(clone_from=PdfReader(write_pdf(path, "Offen für alle.")))
        writer.encrypt(user, "owner", algorithm="AES-256")
        writer.write(path)

    return make


def bomb_pdf(path: Path) -> None:
    stream = zlib.compress(b" " * 300_000_000, 1)
    data = write_pdf(path, "x").read_bytes()
    start, end = data.index(b"<</Length", data.index(b"/Type/Page/Parent")), data.rindex(b"endobj")
    body = b"<</Filter/FlateDecode/Length %d>>stream\n" % len(stream) + stream + b"\nendstream"
    path.write_bytes(data[:start] + body + data[end:])  # its table of offsets is wrong now: readers search then


def mutated_pdf(old: bytes, new: bytes) -> Callable[[Path], None]:
    return lambda path: (path.write_bytes(write_pdf(path, "Seite eins.").read_bytes().replace(old, new)), None)[1]


def cut(make: Callable[[Path], object], share: float = 0.5) -> Callable[[Path], None]:
    def made(path: Path) -> None:
        make(path)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])

    return made


# name -> bytes, or a function that makes it; and the text read, or (in a list) a part of the reason.
BYTES: dict[str, tuple[bytes | Callable[[Path], object], str | list[str]]] = {
    # plain text
    "empty.txt": (b"", ["has no text"]),
    "spaces.txt": (b" \n\t\r\n", ["has no text"]),
    "program.txt": (b"\x7fELF\x02\x01\x01\0\0", ["holds a program, though its name ends in .txt"]),
    "nul.txt": (b"abc\0def", ["holds NUL bytes"]),
    "random.txt": (bytes(range(1, 256)) * 9, ["not valid UTF-8 at byte"]),
    "latin-1.txt": ("café à midi".encode("latin-1"), ["not valid UTF-8 at byte 3"]),
    "half-a-letter.txt": ("图书馆".encode()[:-1], ["not valid UTF-8 at byte 6"]),
    "surrogate.txt": (b"a \xed\xa0\x80", ["not valid UTF-8"]),
    "bom.txt": ("\ufeffห้องสมุดเปิด".encode(), "ห้องสมุดเปิด"),
    "utf-16.txt": ("पुस्तकालय खुला है".encode("utf-16"), "पुस्तकालय खुला है"),
    "utf-16-without-bom.txt": ("library".encode("utf-16-le"), ["UTF-16 without its byte order mark"]),
    "utf-16-odd.txt": ("library".encode("utf-16") + b"!", ["not valid utf-16"]),
    "utf-32.txt": ("🙂 مكتبة".encode("utf-32"), "🙂 مكتبة"),
    "terminal.txt": (b"\x1b[31mred\x07 alert", "\x1b[31mred\x07 alert"),
    "line-50-mb.txt": (b"a" * LONG, ["50,000,000 characters, the limit is 5,000,000"]),
    "pdf.txt": (write_pdf, ["holds a PDF, though its name ends in .txt"]),
    "zip.md": (word, ["holds a ZIP archive, though its name ends in .md"]),
    "picture.html": (b"\x89PNG\r\n\x1a\n", ["holds a picture"]),
    "no-suffix": (b"text", ["no reader for a name without suffix"]),
    "program.exe": (b"MZ", ["no reader for .exe"]),
    ".hidden.txt": (b"text", ["hidden"]),
    # markup
    "deep.html": (b"<p>before" + b"<div>" * 5000 + b"deep" + b"</div>" * 5000 + b"<p>after",
                  "before\n\ndeep\n\nafter"),
    "deep-headings.html": (b"<h1>" * 500 + b"top", "top"),
    "unclosed.html": (b"<p><b>open<table><tr><td>cell<td>next", "open\n\ncell | next"),
    "odd-entities.html": (b"<p>&lt;&amp;&#x1F642;&#xD800;&#0;&nosuch;", "<&🙂\ufffd\ufffd&nosuch;"),
    "inner-signs.html": ("<p>a\ufdd01b\ufdd1</p><h2>Öffnung</h2>".encode(), "a\ufffd1b\ufffd\n\nÖffnung"),
    "outside-entity.xhtml": (b'<!DOCTYPE p [<!ENTITY x SYSTEM "file:///etc/passwd">]><p>safe &x;',
                             "]>\n\nsafe &x;"),
    "laughs.xhtml": ((LAUGHS + "<p>safe &a9;</p>").encode(), "]>\n\nsafe &a9;"),
    "script-only.html": (b"<script>alert(1)</script>", ["has no text"]),
    "wrong-charset.html": (b'<meta charset="ascii"><p>caf\xe9', ["declares charset 'ascii', but is not in it"]),
    "unknown-charset.html": (b'<meta charset="klingon"><p>caf\xe9', ["declares charset 'klingon'"]),
    "deep.md": (b">" * 300 + b" quoted", "quoted"),
    "deeper.md": (b">" * 50_000 + b" quoted", ["RecursionError"]),
    "front-matter.md": (b"---\ntitle: x\n---\n", ["has no text"]),
    # records
    "array.jsonl": (b'["not", "an object"]', ["line 1: a record must be a JSON object, got list"]),
    "deep.jsonl": (b'{"_id": "x", "text": ' + b"[" * 200_000, ["line 1: maximum recursion depth exceeded"]),
    "digits.jsonl": (b'{"_id": ' + b"9" * 9000 + b', "text": "x"}', ["line 1: Exceeds the limit"]),
    "blank.jsonl": (b"\n\n  \n", ["no documents in it"]),
    "nul.csv": (b"name,day\nlib\0rary,monday\n", ["line 2: holds NUL bytes"]),
    "open-quote.csv": (b'name,day\n"library,monday\nmore,tuesday\n', ["not valid CSV: unexpected end of data"]),
    "numbers.csv": (b"1,2\n3,4\n", ["its first row names no columns"]),
    "header-only.csv": (b"name,day\n", ["no documents in it"]),
    "empty.csv": (b"", ["no documents in it"]),
    "line-50-mb.csv": (b"name,day\nlibrary," + b"a" * LONG, ["has 50,000,019 characters, the limit is 5,000,000"]),
    # PDF
    "empty.pdf": (b"", ["cannot be read"]),
    "head-only.pdf": (b"%PDF-1.7\n", ["cannot be read"]),
    "html.pdf": (b"<html><p>not a PDF", ["cannot be read"]),
    "cut.pdf": (cut(lambda path: write_pdf(path, "Seite eins.")), ["cannot be read"]),
    "locked.pdf": (encrypted_pdf("secret"), ["is encrypted: save it without its password"]),
    "open-to-read.pdf": (encrypted_pdf(""), "Offen für alle."),
    "own-parent.pdf": (mutated_pdf(b"/Kids[6 0 R]", b"/Kids[2 0 R]"), ["cannot be read"]),
    "no-offsets.pdf": (mutated_pdf(b"startxref", b"startyref"), ["startxref not found"]),
    "wrong-offsets.pdf": (mutated_pdf(b"startxref\n", b"startxref\n9"), "Seite eins."),
    "bomb.pdf": (bomb_pdf, ["cannot be read"]),
    "pages.pdf": (lambda path: write_pdf(path, *["x"] * 51), ["51 pages, the limit is 50"]),
    # archives of XML
    "empty.pptx": (b"", ["no pptx, or cut off: File is not a zip file"]),
    "text.docx": (b"only text", ["no docx, or cut off"]),
    "cut.docx": (cut(word), ["no docx, or cut off"]),
    "no-content.docx": (archive(readme="x"), ["cannot be read"]),
    "word.pptx": (word, ["cannot be read"]),
    "old.docx": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, ["holds an old or an encrypted Office file"]),
    "locked.docx": (encrypted_zip, ["is encrypted"]),
    "laughs.docx": (laughing_docx, ["cannot be read"]),
    "bomb.docx": (archive(word__document_dot_xml=b"\0" * 60_000_000), ["expands to 60,000,000 bytes, the limit is"]),
    "deep.docx": (lambda path: with_document_xml(path, "<a>" * 100_000), ["cannot be read"]),
    "cut.epub": (cut(lambda path: path.write_bytes(epub())), ["no epub, or cut off"]),
    "good.epub": (epub(), "第一章\n\n図書館は八時に開く。"),
    "no-container.epub": (archive(mimetype="application/epub+zip"), ["no EPUB, its package file cannot be read"]),
    "missing-chapter.epub": (epub(OPF.format("gone.xhtml")), ["its chapter 'o/gone.xhtml' is missing"]),
    "climbing.epub": (epub(OPF.format("../../../../etc/passwd")), ["its chapter '../../../etc/passwd' is missing"]),
    "laughs.epub": (epub(LAUGHS + OPF.format("&a9;c.xhtml")), ["cannot be read"]),
    "rights.epub": (
        epub(**{"META-INF/encryption.xml": '<e><CipherReference URI="o/c.xhtml"/></e>'}), ["is encrypted (DRM)"]
    ),
    "members.epub": (epub(**{f"m{n}": b"" for n in range(20_001)}), ["an archive of 20,004 files"]),
    # names
    "new\nline.txt": ("ስም".encode(), "ስም"),
    "quote'\"\t\\;$(rm).txt": (b"A name for a shell.", "A name for a shell."),
    "é" * 120 + ".txt": (b"A long name.", "A long name."),
}  # fmt: skip

# Records of a file that is partly good: both what was read and what was not.
RECORDS = {
    "line-50-mb.jsonl": (b'{"_id": "long", "text": "' + b"a" * LONG + b'"}\n{"_id": "after-long", "text": "Good."}\n',
                         {"after-long": "Good."}, ["document 'long' has 50,000,000 characters, the limit is"]),
    "bad-bytes.jsonl": (b'{"_id": "b", "text": "caf\xe9"}\n{"_id": "after-bad", "text": "Good."}',
                        {"after-bad": "Good."}, ["line 1: not valid UTF-8"]),
    "nul.jsonl": (b'{"_id": "n\\u0000", "text": "a\\u0000b \\ud800"}', {"n\ufffd": "a\ufffdb \ufffd"}, []),
    "twice.jsonl": (b'{"_id": "t", "text": "One."}\n{"_id": "t", "text": "Two."}', {"t": "One."},
                    ["document 't' again: the first one counts"]),
    "ragged.csv": ("id;name;day\nr1;مكتبة\nr2;library;monday;and more\n".encode("utf-8-sig"),
                   {"r1": "id: r1\nname: مكتبة", "r2": "id: r2\nname: library\nday: monday\nand more"}, []),
    "bad-bytes.csv": (b"id,text\nc1,caf\xe9\nc2,Good.\n", {"c2": "Good."}, ["line 2: not valid UTF-8"]),
}  # fmt: skip


class Result:
    def __init__(self, folder: Path, report: IngestReport, stored: dict[str, str]) -> None:
        self.folder, self.report, self.texts = folder, report, stored
        self.reasons: dict[str, list[str]] = {}
        for skipped in report.skipped:
            self.reasons.setdefault(skipped.path.removeprefix(f"{folder}/"), []).append(skipped.reason)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("hostile")
    for name, (made, _) in BYTES.items():
        path = folder / name
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            made(path)
    for name, (data, *_) in RECORDS.items():
        (folder / name).write_bytes(data)
    (folder / "zz-the-last.txt").write_text("The run went on.")
    encoder = HashEncoder()
    with open_store(":memory:", "town", encoder) as store:
        report = ingest([folder], store, encoder, limits=LIMITS)
        return Result(folder, report, texts(store))


@pytest.mark.parametrize("name", BYTES, ids=ascii)
def test_read_or_skipped_with_its_reason(result: Result, name: str):
    expected = BYTES[name][1]
    if isinstance(expected, str):
        assert result.texts[name] == expected
        assert name not in result.reasons
    else:
        [reason] = result.reasons[name]
        assert expected[0] in reason and len(reason) < 700
        assert name not in result.texts


@pytest.mark.parametrize("name", RECORDS)
def test_the_good_records_of_a_bad_file_count(result: Result, name: str):
    _, good, reasons = RECORDS[name]
    assert good.items() <= result.texts.items()
    found = result.reasons.get(name, [])
    assert len(found) == len(reasons) and all(part in reason for part, reason in zip(reasons, found, strict=True))


def test_nothing_is_lost_without_a_word(result: Result):
    assert len(BYTES) + len(RECORDS) >= 40
    assert result.texts["zz-the-last.txt"] == "The run went on."
    names = {path.name for path in result.folder.iterdir()}
    assert names == {*BYTES, *RECORDS, "zz-the-last.txt"}
    records = {id for _, good, _ in RECORDS.values() for id in good}
    assert set(result.texts) - records | set(result.reasons) | set(RECORDS) == names
    assert "root:" not in "".join(result.texts.values())  # of /etc/passwd


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that another user may enter, which pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name).resolve()


def test_links_pipes_sockets_devices_and_locked_files(open_folder: Path, encoder: HashEncoder):
    folder = open_folder / "docs"
    (folder / "in.txt").mkdir(parents=True)  # a folder that is called like a file
    (folder / "in.txt" / "a.txt").write_text("Inside.")
    (open_folder / "secret.txt").write_text("Outside.")
    (folder / "loop.txt").symlink_to("loop.txt")
    (folder / "a-loop").symlink_to(".")
    (folder / "out.txt").symlink_to("../secret.txt")
    (folder / "out").symlink_to("..")
    (folder / "within.txt").symlink_to("in.txt/a.txt")
    (folder / "broken.txt").symlink_to("nowhere.txt")
    (folder / "device.txt").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "socket.txt"))
    (folder / "locked.txt").write_text("Locked.")
    (folder / "locked.txt").chmod(0)
    (folder / "locked").mkdir()
    (folder / "locked" / "a.txt").write_text("Locked.")
    (folder / "locked").chmod(0)
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with open_store(":memory:", "town", encoder) as store:
            # Read in this process: the other user may not start this Python.
            readers = READERS | {".txt": lambda path, limits: read_text(path, limits)}
            report = ingest([folder], store, encoder, readers=readers)
            found = texts(store)
    finally:
        os.seteuid(before)
        (folder / "locked").chmod(0o755)
    assert found == {"in.txt/a.txt": "Inside.", "within.txt": "Inside."}
    link = "a symbolic link to a folder: name it as a path of its own"
    outside = "a symbolic link to a file outside the folder: name that file as a path of its own"
    assert {skipped.path.removeprefix(f"{folder}/"): skipped.reason for skipped in report.skipped} == {
        "a-loop": link,
        "broken.txt": "cannot be read: No such file or directory",
        "device.txt": outside,
        "locked": "cannot be read: Permission denied",
        "locked.txt": f"cannot be read: PermissionError: [Errno 13] Permission denied: '{folder}/locked.txt'",
        "loop.txt": "cannot be read: Too many levels of symbolic links",
        "out": link,
        "out.txt": outside,
        "pipe.txt": "not a regular file",
        "socket.txt": "not a regular file",
    }
