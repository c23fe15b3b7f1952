"""What changes in a folder is in the store a moment later; what only disappears with its root is not removed."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HashEncoder
from test_ingest import counts, texts

from ragkit.ingest import IngestError, IngestReport, ingest
from ragkit.store import Store, open_store
from ragkit.watch import _targets, watch


@pytest.fixture
def store(encoder: HashEncoder) -> Iterator[Store]:
    with open_store(":memory:", "town", encoder) as opened:
        yield opened


def until(reports: Iterator[IngestReport], store: Store, expected: dict[str, str]) -> None:
    """Reads on until the store says what is expected. Never returning is this test's way to fail."""
    while texts(store) != expected:
        _ = next(reports)


def test_changes_are_followed(tmp_path: Path, store: Store, encoder: HashEncoder):
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("図書館")
    (root / "sub" / "b.txt").write_text("مكتبة")
    stop = threading.Event()
    reports = watch([root], store, encoder, wait=0.1, stop=stop)
    assert counts(next(reports)) == (2, 0, 0, 0)
    encoder.encoded = 0
    (root / "a.txt").write_text("図書館は開く")
    until(reports, store, {"a.txt": "図書館は開く", "sub/b.txt": "مكتبة"})
    (root / "new").mkdir()
    (root / "new" / "c.md").write_text("# ሰላም")
    until(reports, store, {"a.txt": "図書館は開く", "sub/b.txt": "مكتبة", "new/c.md": "ሰላም"})
    (root / "sub" / "b.txt").unlink()  # the last file of its folder: this deletion was seen
    until(reports, store, {"a.txt": "図書館は開く", "new/c.md": "ሰላም"})
    (root / "new").rename(root / "moved")
    until(reports, store, {"a.txt": "図書館は開く", "moved/c.md": "ሰላም"})
    (root / ".hidden").write_text("no")
    (root / "a.txt").write_bytes(b"\xff no text")
    report = next(reports)
    while not report.skipped:
        report = next(reports)
    assert [skipped.path for skipped in report.skipped] == [f"{root}/a.txt"]
    assert texts(store) == {"a.txt": "図書館は開く", "moved/c.md": "ሰላም"}  # what cannot be read stays
    assert encoder.encoded == 3  # a, c, and c where it moved to: nothing else was embedded again
    stop.set()
    assert list(reports) == []
    assert counts(ingest([root], store, encoder)) == (0, 0, 1, 0)  # the same names as a whole run gives


def test_a_link_that_appears_is_not_followed_out_of_the_root(tmp_path: Path, store: Store, encoder: HashEncoder):
    root, outside = tmp_path / "共享", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "a.txt").write_text("图书馆")
    (outside / "secret.txt").write_text("ምስጢር")
    stop = threading.Event()
    reports = watch([root], store, encoder, wait=0.1, stop=stop)
    _ = next(reports)
    (root / "link").symlink_to(outside, target_is_directory=True)
    report = next(reports)
    assert [(skipped.path, skipped.reason) for skipped in report.skipped] == [
        (f"{root}/link", "a symbolic link to a folder: name it as a path of its own")
    ]
    (outside / "secret.txt").write_text("ሌላ ምስጢር")
    (root / "a.txt").write_text("图书馆开门")
    until(reports, store, {"a.txt": "图书馆开门"})
    stop.set()
    assert list(reports) == []


def test_a_root_that_goes_keeps_its_passages(tmp_path: Path, store: Store, encoder: HashEncoder):
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.txt").write_text("A text.")
    ingest([root], store, encoder)
    root.rename(tmp_path / "elsewhere")
    assert _targets([root], {root, root / "a.txt"}) == []
    root.mkdir()
    with pytest.raises(IngestError, match="is a share not mounted"):
        next(watch([root], store, encoder))
    assert texts(store) == {"a.txt": "A text."}


def test_a_root_that_comes_back_is_followed_again(tmp_path: Path, store: Store, encoder: HashEncoder):
    root, other, note = tmp_path / "docs", tmp_path / "other", tmp_path / "ማስታወሻ.txt"
    root.mkdir()
    other.mkdir()
    (root / "a.txt").write_text("図書館")
    note.write_text("ሰላም")
    stop = threading.Event()
    reports = watch([root, other, note], store, encoder, wait=0.1, stop=stop)
    assert counts(next(reports)) == (2, 0, 0, 0)
    stored = {"a.txt": "図書館", "ማስታወሻ.txt": "ሰላም"}
    for text in ("ሰላም ነው", "ቤተ መጻሕፍት"):  # saved as editors do, twice
        (tmp_path / "saved").write_text(text)
        (tmp_path / "saved").replace(note)
        until(reports, store, stored := stored | {"ማስታወሻ.txt": text})
    shutil.rmtree(root)  # a checkout anew, a share mounted again
    root.mkdir()
    (root / "b.txt").write_text("مكتبة")
    until(reports, store, stored := {"b.txt": "مكتبة", "ማስታወሻ.txt": "ቤተ መጻሕፍት"})
    (root / "b.txt").write_text("مكتبة عامة")
    until(reports, store, stored := stored | {"b.txt": "مكتبة عامة"})
    root.rename(tmp_path / "elsewhere")
    (other / "c.txt").write_text("ห้องสมุด")
    until(reports, store, stored := stored | {"c.txt": "ห้องสมุด"})  # what is stored of a root that went stays
    (tmp_path / "elsewhere").rename(root)
    (root / "b.txt").unlink()
    (root / "d.txt").write_text("पुस्तकालय")
    until(reports, store, {"d.txt": "पुस्तकालय", "ማስታወሻ.txt": "ቤተ መጻሕፍት", "c.txt": "ห้องสมุด"})
    stop.set()
    assert list(reports) == []


def test_a_share_that_is_mounted_again_is_followed(tmp_path: Path, store: Store, encoder: HashEncoder):
    """Unmounting is no event, and leaves the folder below, with whatever stands in it."""
    share, other = tmp_path / "share", tmp_path / "other"
    for root in (share, other):
        root.mkdir()
    (share / ".keep").touch()
    (share / "no reader.bin").touch()

    def mount() -> None:
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "ragkit", str(share)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting takes root")
        (share / "a.txt").write_text("図書館")

    def unmount() -> None:
        subprocess.run(["umount", "--lazy", str(share)], check=True)

    mount()
    stop = threading.Event()
    reports = watch([share, other], store, encoder, wait=0.1, stop=stop, allow_empty=True)
    try:
        assert counts(next(reports)) == (1, 0, 0, 0)
        (share / "a.txt").write_text("図書館は開く")
    finally:
        unmount()
    (other / "b.txt").write_text("مكتبة")
    while "b.txt" not in texts(store):  # so it was looked at while the share was away
        _ = next(reports)
    assert texts(store).keys() == {"a.txt", "b.txt"}
    mount()
    try:
        (share / "c.txt").write_text("ห้องสมุด")
        until(reports, store, {"a.txt": "図書館", "b.txt": "مكتبة", "c.txt": "ห้องสมุด"})
        (share / "a.txt").write_text("図書館は開く")
        until(reports, store, {"a.txt": "図書館は開く", "b.txt": "مكتبة", "c.txt": "ห้องสมุด"})
        stop.set()
        assert list(reports) == []
    finally:
        unmount()


def test_targets(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in", target_is_directory=True)
    names = ["in", "in/a.txt", "in/b/c.txt", ".git/x.txt", "d/.x/y.txt", "link/a.txt", "z.txt"]
    changed = {tmp_path, tmp_path.parent / "other.txt", *(tmp_path / name for name in names)}
    assert _targets([tmp_path], changed) == [(tmp_path, tmp_path / "in"), (tmp_path, tmp_path / "z.txt")]
    assert _targets([tmp_path / "z.txt"], {tmp_path / "z.txt"}) == []  # a file as a root, which is gone
    (tmp_path / "z.txt").write_text("z")
    assert _targets([tmp_path / "z.txt"], {tmp_path / "z.txt"}) == [(tmp_path / "z.txt", tmp_path / "z.txt")]
