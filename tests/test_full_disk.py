"""A full disk is an error that says so, and the next run goes on. A real one, small and of its own, where root may
mount it; and behind RAGKIT_PROVE=1, a minute of benchmarks/soak.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import HashEncoder
from test_store import PASSAGES, passage

from ragkit import edge
from ragkit.store import StoreError, open_store

pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")

ROOT = Path(__file__).parent.parent
ENCODER = HashEncoder()

FILL = """
import sys
sys.path.insert(0, "tests")
from conftest import HashEncoder
from ragkit.store import open_store
from test_store import passage
encoder = HashEncoder()
with open_store(sys.argv[1], "town", encoder) as store:
    for n in range(0, 100_000, 50):
        texts = [f"text {m} " * 200 for m in range(n, n + 50)]
        store.upsert([passage(m, text, "en") for m, text in enumerate(texts, n)], encoder.encode_passages(texts))
        print(n + 50, flush=True)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 80 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=80m", "ragkit", str(disk)]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_fills_up_ends_in_an_error_and_loses_nothing(small: Path):
    place = small / "store"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FILL, place], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1, done.returncode  # not SIGBUS, which is what an unguarded write ends in
    assert "NoRoom: 67 MB are needed at" in done.stderr and "make room and run this again" in done.stderr

    stored = int(done.stdout.split()[-1])
    assert stored > 100

    ballast = small / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(1 << 12))
    with pytest.raises(StoreError, match="67 MB are needed at"):  # not a byte is free: opening it would be SIGBUS
        open_store(place, "town", ENCODER, create=False)
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,size=400m", str(small)], check=True)
    with open_store(place, "town", ENCODER, create=False) as store:
        assert store.count() == stored and sum(len(page) for page in store.pages()) == stored
        store.upsert([passage(0, "after", "en")], ENCODER.encode_passages(["after"]))
        store.optimize()
        assert store.count() == stored + 1


def test_writes_are_refused_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    with open_store(tmp_path, "town", ENCODER) as store:
        store.upsert(PASSAGES, ENCODER.encode_passages([p.text for p in PASSAGES]))
        full = shutil.disk_usage(tmp_path)._replace(free=edge.ROOM - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
        for write in (
            lambda: store.upsert([passage(0, "after", "en")], ENCODER.encode_passages(["after"])),
            lambda: store.delete([PASSAGES[0].id]),
        ):
            with pytest.raises(StoreError, match="are needed at"):
                write()
        store.optimize()  # speed alone, so not refused
        assert "slower than they could be" in caplog.text
        assert store.count() == len(PASSAGES)


def test_room_is_looked_for_before_a_collection_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = shutil.disk_usage(tmp_path)._replace(free=edge.ROOM - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StoreError, match="67 MB are needed"):
        open_store(tmp_path, "town", ENCODER)
    monkeypatch.undo()
    with open_store(tmp_path, "town", ENCODER) as store:
        assert store.count() == 0


@pytest.mark.skipif(not os.environ.get("RAGKIT_PROVE"), reason="a minute: RAGKIT_PROVE=1")
def test_a_minute_of_soaking():
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--minutes", "1", "--seed", "1"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
