"""Every format read, every drop reported, and a store that always ends up saying what the files say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import docx
import numpy as np
import pytest
from conftest import HashEncoder

from ragkit import Document, Passage
from ragkit.ingest import IngestError, IngestReport, ingest
from ragkit.language import detect_language
from ragkit.limits import Limits
from ragkit.owner import NoRoom
from ragkit.readers import READERS
from ragkit.retrieve import Retriever
from ragkit.store import Store, open_store


@pytest.fixture
def store(encoder: HashEncoder) -> Iterator[Store]:
    with open_store(":memory:", "town", encoder) as opened:
        yield opened


def stored(store: Store) -> list[Passage]:
    passages = store.passages([state.id for state in store.states()])
    return sorted(passages, key=lambda passage: (passage.path, passage.document, passage.ordinal))


def texts(store: Store) -> dict[str, str]:
    """Document id -> its passages, joined."""
    joined: dict[str, list[str]] = {}
    for passage in stored(store):
        joined.setdefault(passage.document, []).append(passage.text)
    return {document: "\n".join(parts) for document, parts in joined.items()}


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.changed, report.unchanged, report.removed


def write_jsonl(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path


def write_pdf(path: Path, *pages: str) -> Path:
    """A PDF by hand: each page one line of text, its characters mapped to themselves by ToUnicode."""
    letters = sorted({letter for page in pages for letter in page})
    cmap = "/CIDInit /ProcSet findresource begin begincmap 1 begincodespacerange <0000> <FFFF> endcodespacerange\n"
    for letter in letters:
        cmap += f"1 beginbfchar <{ord(letter):04X}> <{ord(letter):04X}> endbfchar\n"
    cmap += "endcmap end"
    kids = " ".join(f"{6 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Count {len(pages)}/Kids[{kids}]>>",
        "<</Type/Font/Subtype/Type0/BaseFont/X/Encoding/Identity-H/DescendantFonts[4 0 R]/ToUnicode 5 0 R>>",
        "<</Type/Font/Subtype/CIDFontType2/BaseFont/X/CIDSystemInfo<</Registry(Adobe)/Ordering(Identity)/Supplement 0>>>>",  # noqa: E501
        f"<</Length {len(cmap)}>>stream\n{cmap}\nendstream",
    ]
    for index, page in enumerate(pages):
        content = f"BT /F 12 Tf 50 700 Td <{page.encode('utf-16-be').hex()}> Tj ET"
        box = "/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>"
        objects.append(f"<</Type/Page/Parent 2 0 R{box}/Contents {7 + 2 * index} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    data, offsets = b"%PDF-1.4\n", list[int]()
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF"
    path.write_bytes(data + f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}{trailer}".encode())
    return path


def write_docx(path: Path) -> Path:
    document = docx.Document()
    document.core_properties.title = "図書館の案内"
    document.add_heading("図書館の案内", 1)
    document.add_paragraph("図書館は午前八時に開きます。")
    table = document.add_table(rows=1, cols=2)
    table.rows[0].cells[0].text, table.rows[0].cells[1].text = "月曜日", "休館"
    document.add_paragraph("入館は無料です。")
    document.save(str(path))
    return path


# --- what is read


def test_every_format_gives_its_text_title_and_language(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    (tmp_path / "a.txt").write_text("የከተማው ቤተ መጻሕፍት ጠዋት ይከፈታል።\r\nእንኳን ደህና መጡ። 😀", encoding="utf-8")
    (tmp_path / "b.md").write_text(
        "---\ntags: x\n---\n# ห้องสมุด\n\nเปิด **แปดโมง** เช้า\n\n- ฟรี\n\n| วัน | เวลา |\n|---|---|\n| จันทร์ | ปิด |\n",
        encoding="utf-8",
    )
    (tmp_path / "c.HTML").write_text(
        "<html><head><title>مكتبة &amp; مدينة</title><style>p{}</style></head><body><script>x()</script>"
        "<h1>المكتبة</h1><p>تفتح <b>المكتبة</b>\n أبوابها.</p><ul><li>مجانا<li>كل يوم</ul>"
        "<table><tr><td>الاثنين</td><td>مغلق</td></tr></table><!-- no --><pre>a\n  b</pre></body></html>",
        encoding="utf-8",
    )
    write_pdf(tmp_path / "d.pdf", "Die Bibliothek öffnet um acht Uhr.", "图书馆八点开门。")
    write_docx(tmp_path / "e.docx")
    write_jsonl(tmp_path / "f.jsonl", {"_id": "q/१", "title": "पुस्तकालय", "text": "सुबह आठ बजे खुलता है।", "lang": "hi_IN"})

    report = ingest([tmp_path], store, encoder)

    assert (counts(report), report.skipped, report.passages) == ((6, 0, 0, 0), (), 6)
    assert texts(store) == {
        "a.txt": "የከተማው ቤተ መጻሕፍት ጠዋት ይከፈታል።\nእንኳን ደህና መጡ። 😀",
        "b.md": "ห้องสมุด\n\nเปิด แปดโมง เช้า\n\nฟรี\n\nวัน | เวลา\nจันทร์ | ปิด",
        "c.HTML": "المكتبة\n\nتفتح المكتبة أبوابها.\n\nمجانا\nكل يوم\n\nالاثنين | مغلق\n\na\n  b",
        "d.pdf": "Die Bibliothek öffnet um acht Uhr.\n图书馆八点开门。",
        "e.docx": "図書館の案内\n\n図書館は午前八時に開きます。\n\n月曜日 | 休館\n\n入館は無料です。",
        "q/१": "पुस्तकालय\nसुबह आठ बजे खुलता है।",
    }
    about = {passage.document: (passage.lang, passage.title, passage.path) for passage in stored(store)}
    assert about == {
        "a.txt": ("am", "", f"{tmp_path}/a.txt"),
        "b.md": ("th", "ห้องสมุด", f"{tmp_path}/b.md"),
        "c.HTML": ("ar", "مكتبة & مدينة", f"{tmp_path}/c.HTML"),
        "d.pdf": ("de", "", f"{tmp_path}/d.pdf"),
        "e.docx": ("ja", "図書館の案内", f"{tmp_path}/e.docx"),
        "q/१": ("hi", "पुस्तकालय", f"{tmp_path}/f.jsonl"),
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(tmp_path: Path, store: Store, encoder: HashEncoder, encoding: str) -> None:
    (tmp_path / "a.txt").write_text("图书馆八点开门。😀", encoding=encoding)
    (tmp_path / "b.jsonl").write_text(
        '{"_id": "b", "text": "图书馆"}\n{"_id": "c", "text": "开门"}\n', encoding=encoding
    )
    assert counts(ingest([tmp_path], store, encoder)) == (3, 0, 0, 0)
    assert texts(store) == {"a.txt": "图书馆八点开门。😀", "b": "图书馆", "c": "开门"}


def test_html_in_its_declared_encoding(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    page = '<meta charset="{}"><p>図書館は午前八時に開きます。</p>'
    (tmp_path / "right.html").write_bytes(page.format("shift_jis").encode("shift_jis"))
    (tmp_path / "utf8-that-lies.html").write_bytes(page.format("iso-8859-1").encode("utf-8"))
    (tmp_path / "wrong.html").write_bytes(page.format("ascii").encode("shift_jis"))
    more = {  # what browsers read under names that mean less to Python
        "gb2312": ("朱镕基", "gb18030"), "Shift_JIS": ("① 髙島屋", "cp932"), "euc-kr": ("똠방각하", "cp949"),
        "big5": ("喺呢度", "big5hkscs"), "iso-8859-1": ("“smart” 5 €", "cp1252"), "iso-8859-9": ("“ığdır”", "cp1254"),
        "tis-620": ("“ห้องสมุด”", "cp874"),
    }  # fmt: skip
    for label, (text, encoding) in more.items():
        (tmp_path / f"{label}.html").write_bytes(f'<meta charset="{label}"><p>{text}</p>'.encode(encoding))
    report = ingest([tmp_path], store, encoder)
    found = texts(store)
    assert {label: found.pop(f"{label}.html") for label in more} == {label: text for label, (text, _) in more.items()}
    assert found == dict.fromkeys(["right.html", "utf8-that-lies.html"], "図書館は午前八時に開きます。")
    assert [(skipped.path, skipped.reason[:40]) for skipped in report.skipped] == [
        (f"{tmp_path}/wrong.html", "cannot be read: declares charset 'ascii'")
    ]


def test_records(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    path = write_jsonl(
        tmp_path / "corpus.jsonl",
        {"_id": 7, "title": "Library", "desc": "Where books are.", "text": "It opens at eight."},
        {"_id": "same", "title": "Library", "text": "Library of the town.", "lang": "pt_BR"},
        {"_id": "same", "text": "Once more."},
        {"_id": "none", "title": "Only a title"},
        {"_id": "null", "text": None},
        {"text": "No id."},
        {"_id": "blank", "title": " ", "text": "\n"},
        ["not", "an", "object"],
    )
    with path.open("ab") as file:
        file.write(b'{"_id": "odd", "title": 5, "lang": 5, "text": "\\ud800 lone"}\n')
        file.write(b'\n{"_id": "cut", "text": "\n{"_id": "latin", "text": "caf\xe9"}\n' + b"[" * 100_000 + b"\n")
        file.write('{"_id": "last", "text": "終わり"}'.encode())

    report = ingest([path], store, encoder)

    assert texts(store) == {
        "7": "Library\nWhere books are.\nIt opens at eight.",
        "same": "Library of the town.",
        "odd": "\ufffd lone",
        "last": "終わり",
    }
    assert {passage.document: passage.lang for passage in stored(store)}["same"] == "pt"
    assert [skipped.reason for skipped in report.skipped] == [
        "document 'same' again: the first one counts",
        "line 4: record 'none': 'text' must be a string, got None",
        "line 5: record 'null': 'text' must be a string, got None",
        "line 6: '_id' must be a string or a number, got None",
        "document 'blank' has no text",
        "line 8: a record must be a JSON object, got list",
        "line 11: not valid JSON: Invalid control character at (column 25)",
        "line 12: not valid UTF-8",
        "line 13: maximum recursion depth exceeded while decoding a JSON array from a unicode string",
    ]
    assert all(skipped.part for skipped in report.skipped)  # the others were read


def test_what_is_left_out_is_reported(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "note.txt").write_text("hidden")
    (tmp_path / ".note.txt").write_text("hidden")
    (tmp_path / "sub" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "loop.txt").symlink_to(tmp_path / "loop.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "binary.txt").write_bytes(b"\x7fELF\0\0")
    (tmp_path / "broken.docx").write_bytes(b"PK no")
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.4 no")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    (tmp_path / "picture.png").write_bytes(b"png")
    write_pdf(tmp_path / "scan.pdf", "")
    write_jsonl(tmp_path / "sub" / "corpus.jsonl", {"_id": "ሀ", "text": "ሰላም ነው።"})
    write_jsonl(tmp_path / "sub" / "queries.jsonl", {"_id": "q", "text": "ሰላም ነው?"})
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("A name in Latin-1.")

    report = ingest([tmp_path], store, encoder)

    assert texts(store) == {"caf\\xe9.txt": "A name in Latin-1.", "ሀ": "ሰላም ነው።"}
    reasons = {skipped.path.removeprefix(f"{tmp_path}/"): skipped.reason for skipped in report.skipped}
    assert len(reasons) == len(report.skipped) == 14 and not any(skipped.part for skipped in report.skipped)
    exact = {
        ".git": "hidden",
        ".note.txt": "hidden",
        "binary.txt": "cannot be read: holds a program, though its name ends in .txt: save it as what it is",
        "empty.jsonl": "no documents in it",
        "empty.txt": "document 'empty.txt' has no text",
        "latin.txt": "cannot be read: not valid UTF-8 at byte 3 (unexpected end of data): convert it to UTF-8",
        "loop.txt": "cannot be read: Too many levels of symbolic links",
        "pipe.txt": "not a regular file",
        "picture.png": f"no reader for .png: known are {' '.join(READERS)}",
        "scan.pdf": "document 'scan.pdf' has no text",
        "sub/queries.jsonl": "BEIR queries beside their corpus.jsonl, not documents",
        "sub/up": "a symbolic link to a folder: name it as a path of its own",
    }
    assert {name: reasons[name] for name in exact} == exact
    assert all(reasons[name].startswith("cannot be read: ") for name in ("broken.docx", "broken.pdf"))


def test_a_new_format_is_a_new_entry(
    tmp_path: Path, store: Store, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READERS, ".rot", lambda path, limits: [Document("", "", path.read_text()[::-1], "")])
    (tmp_path / "a.rot").write_text(".thgie ta snepo yrarbil ehT")
    ingest([tmp_path], store, encoder)
    assert [(passage.text, passage.lang) for passage in stored(store)] == [("The library opens at eight.", "en")]


# --- what a second run does


def test_a_second_run_embeds_nothing(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    (tmp_path / "a.txt").write_text("One two three. " * 40)
    write_jsonl(tmp_path / "b.jsonl", *({"_id": str(n), "text": f"图书馆 {n}"} for n in range(5)))
    first = ingest([tmp_path], store, encoder, passage_tokens=30)
    assert (counts(first), first.passages, encoder.encoded) == ((6, 0, 0, 0), 9, 9)
    before = stored(store)
    assert [passage.ordinal for passage in before if passage.document == "a.txt"] == [0, 1, 2, 3]
    assert {passage.document_passages for passage in before if passage.document == "a.txt"} == {4}
    second = ingest([str(tmp_path), tmp_path / "a.txt"], store, encoder, passage_tokens=30)  # a.txt is read once
    assert (counts(second), second.passages, encoder.encoded) == ((0, 0, 6, 0), 0, 9)
    assert stored(store) == before
    third = ingest([tmp_path], store, encoder, passage_tokens=60)  # other splitting, other passages
    assert (counts(third), store.count()) == ((0, 1 + 5, 0, 0), 2 + 5)


def test_ids_do_not_depend_on_order_or_batch_but_on_the_corpus(tmp_path: Path, encoder: HashEncoder) -> None:
    (tmp_path / "a.txt").write_text("ห้องสมุดเปิดแปดโมงเช้า")
    (tmp_path / "b.txt").write_text("ห้องสมุดเปิดแปดโมงเช้า")
    ids: list[set[str]] = []
    for corpus, names, batch in [("x", "ab", 64), ("x", "ba", 1), ("y", "ab", 64)]:
        with open_store(":memory:", corpus, encoder) as store:
            ingest([tmp_path / f"{name}.txt" for name in names], store, encoder, batch=batch)
            ids.append({state.id for state in store.states()})
    assert ids[0] == ids[1]
    assert len(ids[0]) == 2
    assert not ids[0] & ids[2]


def test_changes_and_removals(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs-2").mkdir()
    for name in ("a", "b", "c"):
        (tmp_path / "docs" / f"{name}.txt").write_text(f"Text {name} one. " * 10)
    (tmp_path / "docs-2" / "a.txt").write_text("Another root.")
    ingest([tmp_path / "docs", tmp_path / "docs-2"], store, encoder, passage_tokens=15)

    (tmp_path / "docs" / "a.txt").write_text("Short now.")
    (tmp_path / "docs" / "b.txt").unlink()
    (tmp_path / "docs-2" / "a.txt").unlink()
    report = ingest([tmp_path / "docs"], store, encoder, passage_tokens=15)
    assert (counts(report), report.passages) == ((0, 1, 1, 1), 1)
    assert [(p.path.removeprefix(f"{tmp_path}/"), p.text) for p in stored(store) if "c.txt" not in p.path] == [
        ("docs-2/a.txt", "Another root."),  # not named in this run
        ("docs/a.txt", "Short now."),
    ]
    (tmp_path / "docs" / "a.txt").write_text("")  # readable, and says nothing any more
    assert counts(ingest([tmp_path / "docs"], store, encoder, passage_tokens=15)) == (0, 0, 1, 1)


def test_a_record_that_leaves_its_file_is_removed(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    records = [{"_id": str(n), "text": f"記録 {n}"} for n in range(3)]
    path = write_jsonl(tmp_path / "c.jsonl", *records)
    ingest([path], store, encoder)
    assert counts(ingest([write_jsonl(path, records[0], records[2])], store, encoder)) == (0, 0, 2, 1)
    path.write_text(path.read_text().replace('{"_id": "2"', '{"_id: "2"'))  # which record is broken? none is removed
    assert counts(ingest([path], store, encoder)) == (0, 0, 1, 0)
    assert sorted(texts(store)) == ["0", "2"]


def test_unreadable_keeps_what_was_stored(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    pdf = write_pdf(tmp_path / "a.pdf", "Die Bibliothek öffnet um acht Uhr.")
    (tmp_path / "b.txt").write_text("Plain text.")
    ingest([tmp_path], store, encoder)
    before = stored(store)
    pdf.write_bytes(b"half a file")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\xff")
    report = ingest([tmp_path], store, encoder)
    assert counts(report) == (0, 0, 0, 0)
    assert [skipped.path for skipped in report.skipped] == [f"{tmp_path}/a.pdf", f"{tmp_path}/b.txt"]
    assert stored(store) == before


def test_an_unreadable_folder_keeps_what_was_stored(
    tmp_path: Path, store: Store, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("Inside.")
    (tmp_path / "b.txt").write_text("Outside.")
    ingest([tmp_path], store, encoder)
    scandir = os.scandir

    def denied(path: str) -> Iterator[os.DirEntry[str]]:  # root may read everything, so the refusal is made here
        if str(path) == str(tmp_path / "in"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    (tmp_path / "b.txt").unlink()
    report = ingest([tmp_path], store, encoder)
    assert counts(report) == (0, 0, 0, 1)
    assert [skipped.reason for skipped in report.skipped] == ["cannot be read: Permission denied"]
    assert texts(store) == {"in/a.txt": "Inside."}


def test_a_missing_root_changes_nothing(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("Text.")
    ingest([tmp_path / "docs"], store, encoder)
    (tmp_path / "docs").rename(tmp_path / "moved")
    with pytest.raises(IngestError, match=r"cannot read '.*docs' \(No such file or directory\): nothing was ingested"):
        ingest([tmp_path / "moved", tmp_path / "docs"], store, encoder)
    assert [passage.path for passage in stored(store)] == [f"{tmp_path}/docs/a.txt"]


def test_a_root_that_goes_while_another_is_read_keeps_its_passages(
    tmp_path: Path, store: Store, encoder: HashEncoder
) -> None:
    first, share = tmp_path / "a", tmp_path / "b"
    for root in (first, share):
        root.mkdir()
        (root / "t.gone").write_text(f"Text of {root.name}.")

    def read(path: Path, limits: Limits) -> Iterator[Document]:
        if path.parent == first and share.exists() and next(store.states(), None):
            share.rename(tmp_path / "unplugged")
        yield Document("", "", path.read_text("utf-8"), "")

    readers = {".gone": read}
    assert counts(ingest([first, share], store, encoder, readers=readers)) == (2, 0, 0, 0)
    before = stored(store)
    report = ingest([first, share], store, encoder, readers=readers)
    assert counts(report) == (0, 0, 1, 0) and stored(store) == before
    assert [(s.path, s.reason) for s in report.skipped] == [(f"{share}", "cannot be read: No such file or directory")]


def test_names_that_are_no_utf8_stay_apart(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    names = [word.encode("cp1251") + b".txt" for word in ("отчёт", "устав", "планы")]
    for name in names:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text(f"Text of {name!r}.", "utf-8")
    assert counts(ingest([tmp_path], store, encoder)) == (3, 0, 0, 0)
    assert set(texts(store)) == {name.decode("utf-8", "backslashreplace") for name in names}
    assert counts(ingest([tmp_path], store, encoder)) == (0, 0, 3, 0)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + names[1])).unlink()
    assert counts(ingest([tmp_path], store, encoder)) == (0, 0, 2, 1)


def test_a_full_disk_leaves_searches_slower_and_loses_nothing(
    tmp_path: Path, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("ቤተ መጻሕፍት")
    with open_store(tmp_path / "store", "town", encoder) as kept:

        def full() -> None:
            raise NoRoom("9 MB are needed")

        monkeypatch.setattr(kept._whole, "optimize", full)
        assert counts(ingest([tmp_path / "a.txt"], kept, encoder)) == (1, 0, 0, 0)
        assert "slower than they could be: 9 MB are needed" in caplog.text
        assert [h.passage.text for h in kept.search(dense=encoder.encode_passages(["ቤተ"])[0])] == ["ቤተ መጻሕፍት"]


def test_passages_must_fit_the_encoder(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    with pytest.raises(IngestError, match="passage_tokens is 511, but the encoder reads 1 to 510 tokens"):
        ingest([tmp_path], store, encoder, passage_tokens=511)


class FailingEncoder(HashEncoder):
    """Raises when it has embedded ``limit`` passages."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        if self.encoded + len(passages) > self.limit:
            raise RuntimeError("out of memory")
        return super().encode_passages(passages)


@pytest.mark.parametrize("limit", range(0, 24, 3))
def test_a_run_that_breaks_off_is_completed(tmp_path: Path, store: Store, encoder: HashEncoder, limit: int) -> None:
    path = tmp_path / "c.jsonl"
    old = [{"_id": f"{n}", "text": " ".join(f"Old {n} {m} 旧。" for m in range(8))} for n in range(3)]
    new = [{"_id": f"{n}", "text": " ".join(f"New {n} {m} 😀." for m in range(8))} for n in range(3)]
    ingest([write_jsonl(path, *old)], store, encoder, passage_tokens=4)
    write_jsonl(path, *new)

    with pytest.raises(RuntimeError, match="out of memory"):
        ingest([path], store, FailingEncoder(limit), passage_tokens=4, batch=3)
    kept = {passage.document for passage in stored(store)}
    assert kept == {"0", "1", "2"}  # a document under change never disappears

    encoder.encoded = 0
    report = ingest([path], store, encoder, passage_tokens=4, batch=3)
    assert encoder.encoded == report.passages == 24 - limit  # nothing is embedded twice
    assert texts(store) == {
        record["_id"]: "\n".join(f"New {record['_id']} {m} 😀." for m in range(8)) for record in new
    }
    with open_store(":memory:", "town", encoder) as straight:
        ingest([path], straight, encoder, passage_tokens=4)
        assert stored(straight) == stored(store)
    assert counts(ingest([path], store, encoder, passage_tokens=4)) == (0, 0, 3, 0)


def test_documents_stream(tmp_path: Path, store: Store, encoder: HashEncoder) -> None:
    read: list[int] = []

    def endless(path: Path, limits: Limits) -> Iterator[Document]:
        for number in range(10_000):
            read.append(number)
            yield Document(str(number), "", f"Text {number}.", "en")

    (tmp_path / "a.big").write_text("")
    READERS[".big"] = endless
    try:
        with pytest.raises(RuntimeError, match="out of memory"):
            ingest([tmp_path], store, FailingEncoder(8), batch=4)
    finally:
        del READERS[".big"]
    assert (len(read), store.count()) == (16, 8)  # four batches are read, to be sorted; the third fails


def test_a_manual_in_many_languages_is_found_in_each(
    tmp_path: Path, store: Store, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each passage has its own language; a line too short to tell has its document's, a declared one stays."""
    paragraphs = {
        "de": "Drücken Sie den grünen Knopf drei Sekunden lang, bis die Lampe blinkt, und schließen Sie den Deckel.",
        "fr": "Appuyez sur le bouton vert pendant trois secondes jusqu'à ce qu'il clignote, puis fermez le capot.",
        "ja": "緑色のボタンを三秒間押し続け、ランプが点滅したら、ゆっくりとふたを閉めてください。" * 2,
        "am": "መብራቱ እስኪበራ ድረስ አረንጓዴውን ቁልፍ ለሦስት ሰከንድ ተጭነው ይያዙ፤ ከዚያም ክዳኑን ቀስ አድርገው ይዝጉ፤ መመሪያውን በጥንቃቄ ያንብቡ።",
        "ar": "اضغط على الزر الأخضر لمدة ثلاث ثوان حتى يومض المصباح، ثم أغلق الغطاء ببطء واقرأ بقية التعليمات بعناية.",
    }
    whole = "\n\n".join([*paragraphs.values(), "Model 7 B"])
    (tmp_path / "manual.txt").write_text(whole, "utf-8")
    write_jsonl(tmp_path / "told.jsonl", {"_id": "told", "text": paragraphs["fr"], "lang": "de"})
    monkeypatch.setattr(encoder, "count_tokens", lambda texts: list(map(len, texts)))
    monkeypatch.setattr(encoder, "max_length", 200)
    ingest([tmp_path], store, encoder, passage_tokens=112)
    spoken = {passage.text: passage.lang for passage in stored(store) if passage.document == "manual.txt"}
    assert spoken == {text: lang for lang, text in paragraphs.items()} | {"Model 7 B": detect_language(whole)}
    assert {passage.lang for passage in stored(store) if passage.document == "told"} == {"de"}
    [found] = Retriever(store, encoder).search("አረንጓዴውን ቁልፍ", lang="am")
    assert found.passage.text == paragraphs["am"]
