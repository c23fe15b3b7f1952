"""Folders that became empty, corpora too large for memory, and the look-ups that make both safe."""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from conftest import HashEncoder, no_room_once
from test_ingest import counts, stored, texts, write_jsonl

from ragkit import Passage
from ragkit.ingest import IngestError, ingest
from ragkit.keys import Keys
from ragkit.store import FingerprintMismatch, PassageState, Store, StoreError, open_store

SIZES = (2_000, 100_000) if os.environ.get("RAGKIT_PROVE") else (1_000, 8_000)


@pytest.fixture(params=[":memory:", "embedded"])
def store(request: pytest.FixtureRequest, tmp_path: Path, encoder: HashEncoder) -> Iterator[Store]:
    place = tmp_path / "store" if request.param == "embedded" else request.param
    with open_store(place, "town", encoder) as opened:
        yield opened


def test_an_empty_root_removes_nothing_unasked(tmp_path: Path, store: Store, encoder: HashEncoder):
    root = tmp_path / "share"
    root.mkdir()
    (root / "a.txt").write_text("ห้องสมุด")
    ingest([root], store, encoder)
    (root / "a.txt").unlink()
    (root / "lost+found").mkdir()
    (root / "picture.png").write_bytes(b"")
    with pytest.raises(IngestError, match=r"no file that can be read any more.*Nothing was ingested or removed"):
        ingest([root], store, encoder)
    assert texts(store) == {"a.txt": "ห้องสมุด"}
    assert counts(ingest([root], store, encoder, allow_empty=True)) == (0, 0, 0, 1)
    assert store.count() == 0
    assert counts(ingest([root], store, encoder)) == (0, 0, 0, 0)  # empty, and so is the store: nothing to refuse


def test_an_empty_folder_below_a_root_keeps_what_it_held(tmp_path: Path, store: Store, encoder: HashEncoder):
    root = tmp_path / "docs"
    (root / "share" / "deep").mkdir(parents=True)
    (root / "bare").mkdir()  # never held anything: not worth a word
    (root / "a.txt").write_text("መጽሐፍ")
    (root / "share" / "deep" / "b.txt").write_text("किताब")
    assert ingest([root], store, encoder).skipped == ()
    (root / "share" / "deep" / "b.txt").unlink()
    (root / "share" / "deep").rmdir()
    report = ingest([root], store, encoder)
    assert counts(report) == (0, 0, 1, 0)
    [skipped] = report.skipped
    assert skipped.path == f"{root}/share" and "is a share not mounted" in skipped.reason
    assert texts(store) == {"a.txt": "መጽሐፍ", "share/deep/b.txt": "किताब"}
    assert counts(ingest([root], store, encoder, allow_empty=True)) == (0, 0, 1, 1)
    assert texts(store) == {"a.txt": "መጽሐፍ"}


def test_states_of_is_exact(tmp_path: Path, store: Store, encoder: HashEncoder):
    for name in ("a", "b", "c"):
        write_jsonl(tmp_path / f"{name}.jsonl", *({"_id": key, "text": f"{name} {key} 本"} for key in "xyz"))
    ingest([tmp_path / f"{name}.jsonl" for name in "abc"], store, encoder)
    a, b = (f"{tmp_path}/{name}.jsonl" for name in "ab")
    found = store.states_of([(a, "x"), (b, "y"), (a, "gone")])  # not a's y, not b's x
    assert sorted((state.path, state.document) for state in found) == [(a, "x"), (b, "y")]
    assert list(store.states_of([])) == []


def test_many_changes_and_removals(tmp_path: Path, store: Store, encoder: HashEncoder):
    """More stale passages than are deleted at once, in the middle of the run and at its end."""
    path = tmp_path / "c.jsonl"
    ingest([write_jsonl(path, *({"_id": str(n), "text": f"old {n}"} for n in range(2600)))], store, encoder)
    write_jsonl(path, *({"_id": str(n), "text": f"new {n}"} for n in range(1300)))
    assert counts(ingest([path], store, encoder)) == (0, 1300, 0, 1300)
    assert texts(store) == {str(n): f"new {n}" for n in range(1300)}


def test_a_change_back_in_the_middle_of_a_change(tmp_path: Path, store: Store, encoder: HashEncoder):
    """Old, half new (the run breaks off), old again: the passage that both share carries the new hash then."""
    path = tmp_path / "a.txt"
    path.write_text("Shared words here.\n\nOld words here.\n\nMore old words.")
    ingest([path], store, encoder, passage_tokens=4)
    before = stored(store)

    class Breaks(HashEncoder):
        def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
            if self.encoded:
                raise RuntimeError("gone")
            return super().encode_passages(passages)

    old = path.read_text()
    path.write_text(old.replace("Old", "New").replace("old", "new"))
    with pytest.raises(RuntimeError, match="gone"):
        ingest([path], store, Breaks(), passage_tokens=4, batch=1)
    assert len({state.document_hash for state in store.states()}) == 2
    path.write_text(old)
    assert ingest([path], store, encoder, passage_tokens=4).passages == 1
    assert stored(store) == before


def test_an_index_that_was_not_built_is_built_by_the_next_run(
    tmp_path: Path, store: Store, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "a.txt").write_text("ቤተ መጻሕፍት")
    calls = no_room_once(monkeypatch)
    with pytest.raises(StoreError, match="make room"):
        ingest([tmp_path / "a.txt"], store, encoder)
    assert ingest([tmp_path / "a.txt"], store, encoder).unchanged == 1
    assert calls == [1, 1]


def test_another_encoder_is_noticed(tmp_path: Path, encoder: HashEncoder):
    (tmp_path / "a.txt").write_text("Text.")
    with open_store(tmp_path / "store", "town", encoder) as store:
        ingest([tmp_path / "a.txt"], store, encoder)
    with pytest.raises(FingerprintMismatch, match="is embedded by encoder"):
        open_store(tmp_path / "store", "town", HashEncoder("b"))


class Counted:
    """A store that keeps what ingestion asks for in numbers only, so that all memory seen is ingestion's."""

    corpus = namespace = "town"

    def __init__(self) -> None:
        self.count = 0

    def upsert(self, passages: Sequence[Passage], embeddings: np.ndarray) -> None:
        self.count += len(passages)

    def states_of(self, documents: Sequence[tuple[str, str]]) -> Iterator[PassageState]:
        return iter(())

    def states(self, path_prefix: str | None = None) -> Iterator[PassageState]:
        for n in range(self.count):  # all of them gone from the file
            yield PassageState(f"00000000-0000-4000-8000-{n:012}", "/gone", f"gone {n}", "", 1)

    def delete(self, passage_ids: Sequence[str]) -> None:
        pass

    def optimize(self) -> None:
        pass

    def refuse_superseded(self) -> None:
        pass


def test_memory_is_flat(tmp_path: Path, encoder: HashEncoder):
    peaks: list[int] = []
    path = tmp_path / "many.jsonl"
    for size in SIZES:
        with path.open("w") as file:
            for n in range(size):
                _ = file.write(json.dumps({"_id": f"record {n}", "text": f"{n} 図書館 library.", "lang": "en"}) + "\n")
        store = Counted()
        tracemalloc.start()
        report = ingest([path], store, encoder)  # pyright: ignore[reportArgumentType]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (report.added, report.removed, store.count) == (size, size, size)
    print(f"{SIZES} passages: peaks of {[f'{peak / 1e6:.1f} MB' for peak in peaks]}")
    assert peaks[1] < peaks[0] * 1.2 + 500_000


def test_keys():
    with Keys() as keys, Keys() as others:
        assert [keys.add(("a", "b")), keys.add(("a", "b")), keys.add(("a\0b", ""))] == [True, False, True]
        assert ("a", "b") in keys and ("b", "a") not in keys and ("a", "b") not in others
        keys.discard(("a", "b"))
        assert ("a", "b") not in keys and keys.add(("a", "b"))
        assert keys.add(("\ud800", "አ"))
