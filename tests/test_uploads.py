from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from conftest import SCRIPTS

from apps.uploads import brought_in, refusal, safe_name

MOST = 1_000_000


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("notes.md", "notes.md"),
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\ana\\plan.txt", "plan.txt"),
        ("/abs/x.txt", "x.txt"),
        (".hidden", ""),
        ("..", ""),
        ("", ""),
        ("a\nb\x00c\u202egnp.txt", "abcgnp.txt"),
        ("  spaces .txt ", "spaces .txt"),
    ],
)
def test_names_are_made_safe(name: str, kept: str):
    assert safe_name(name) == kept


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_of_every_script_stay(script: str):
    name = f"{SCRIPTS[script].rstrip('?？؟')}.txt".replace("/", "")
    kept = safe_name(name)
    assert kept.endswith(".txt") and len(kept) > 5


def test_a_long_name_is_cut_between_characters():
    kept = safe_name("图" * 300 + ".pdf")
    assert kept.endswith("图.pdf") and len(kept.encode()) <= 200


@pytest.mark.parametrize("letter", ["图", "ก", "भ", "ቤ", "🚢", "x"])
def test_long_names_that_differ_at_their_end_stay_two(letter: str, tmp_path: Path):
    folder = tmp_path / "kept"
    one, other = made(tmp_path, "1", b"one"), made(tmp_path, "2", b"other")
    names = [f"{letter * 210} {n}.txt" for n in (1, 2)]
    with brought_in([(one, names[0]), (other, names[1])], folder, MOST, MOST) as arrival:
        assert arrival.refused == []
    assert sorted(path.read_bytes() for path in folder.iterdir()) == [b"one", b"other"]
    assert all(name.endswith(".txt") and len(name.encode()) <= 200 for name in arrival.taken)
    cut = f"{letter * (196 // len(letter.encode()))}.txt"  # what Gradio makes of both
    with brought_in([(one, cut), (other, cut)], folder, MOST, MOST) as again:
        assert sorted(again.taken) == sorted(arrival.taken)  # the same files: new versions of the same documents


def test_a_name_that_comes_twice_at_once_is_refused(tmp_path: Path):
    files = [(made(tmp_path, "1", b"one"), "a/ملف.txt"), (made(tmp_path, "2", b"other"), "b/ملف.txt")]
    with brought_in(files, tmp_path / "kept", MOST, MOST) as arrival:
        pass
    assert [(r.name, r.reason) for r in arrival.refused] == [("b/ملف.txt", "upload.twice")]
    assert (tmp_path / "kept" / "ملف.txt").read_bytes() == b"one"


def made(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_first_bytes_must_be_what_the_suffix_says(tmp_path: Path):
    docx = tmp_path / "d"
    with zipfile.ZipFile(docx, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    cases = [
        (made(tmp_path, "a", b"%PDF-1.7 ..."), "a.pdf", ""),
        (made(tmp_path, "b", b"MZ\x90\x00 program"), "b.pdf", "upload.not_its_type"),
        (docx, "d.docx", ""),
        (docx, "d.epub", "upload.not_its_type"),
        (made(tmp_path, "e", b"PK\x03\x04 broken"), "e.pptx", "upload.not_its_type"),
        (made(tmp_path, "f", "ቤተ መጻሕፍት".encode()), "f.txt", ""),
        (made(tmp_path, "g", "كتاب".encode("utf-16")), "g.md", ""),
        (made(tmp_path, "h", b"\x7fELF\x00\x01"), "h.txt", "upload.not_its_type"),
        (made(tmp_path, "i", b""), "i.txt", "upload.no_bytes"),
        (made(tmp_path, "j", b"x" * 2_000_000), "j.txt", "upload.too_large"),
        (made(tmp_path, "k", b"x"), "k.exe", "upload.bad_type"),
        (made(tmp_path, "l", b"x"), "...", "upload.bad_name"),
        (tmp_path, "folder.txt", "upload.no_file"),
    ]
    for path, name, expected in cases:
        found = refusal(path, name, MOST)
        assert (found.reason if found else "") == expected, name


def test_what_could_not_be_read_goes_and_its_version_before_comes_back(tmp_path: Path):
    folder = tmp_path / "kept"
    old, new, other = made(tmp_path, "1", b"old"), made(tmp_path, "2", b"new"), made(tmp_path, "3", b"other")
    with brought_in([(old, "a.txt")], folder, MOST, MOST):
        assert (folder / "a.txt").read_bytes() == b"old"
    with brought_in([(new, "a.txt"), (other, "b.txt")], folder, MOST, MOST) as arrival:
        assert (folder / "a.txt").read_bytes() == b"new"
        assert [arrival.unreadable(name) for name in ("a.txt", "a.txt", "d.txt")] == [True, False, False]
        assert arrival.taken == ["b.txt"]
    assert (folder / "a.txt").read_bytes() == b"old"
    assert (folder / "b.txt").read_bytes() == b"other"
    twice = [(new, "a.txt"), (other, "a.txt"), (new, "c.txt")]
    with pytest.raises(RuntimeError), brought_in(twice, folder, MOST, MOST):
        raise RuntimeError("the child died")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"a.txt": b"old", "b.txt": b"other"}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_the_room_is_shared_by_all(tmp_path: Path):
    folder = tmp_path / "kept"
    files = [(made(tmp_path, str(n), b"x" * 400), f"{n}.txt") for n in range(3)]
    with brought_in(files, folder, MOST, 1000) as arrival:
        pass
    assert arrival.taken == ["0.txt", "1.txt"] and arrival.paths == [folder / "0.txt", folder / "1.txt"]
    assert [(r.name, r.reason) for r in arrival.refused] == [("2.txt", "upload.no_room")]
