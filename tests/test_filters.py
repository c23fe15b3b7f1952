"""Filters by source, date and metadata; diverse and widened hits: the same in every store."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import HashEncoder, opened

from ragkit.filters import where_filter
from ragkit.records import record_document
from ragkit.retrieve import Retriever, expand
from ragkit.sparse import sparse_query
from ragkit.store import Store, open_store
from ragkit.types import Hit, Metadata, Passage, Where

ROWS: list[tuple[str, str, str, Metadata]] = [
    ("/d/ሰነድ/a.md", "2026-01-31", "am", {"author": "ሰላም", "year": 2026, "draft": False, "tags": ["ferry", "渡轮"]}),
    ("/d/ሰነድ/b.md", "2026-01-31T23:59:59.500000+00:00", "ar", {"author": "سلام", "year": 2025, "draft": True}),
    ("/d/ሰነድx/c.md", "2026-02-01T01:00:00+03:00", "th", {"author": "ada", "price": 1.5, "tags": ["boat"]}),
    ("/d/e.md", "2026-02-02", "hi", {"author": "Ada", "year": 2026, "🙂": "yes", "a.b[0] c": 7}),
    ("/d/f.md", "", "zh", {}),
]
PASSAGES = [
    Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, path)), f"ferry {n}", lang, "d", path, n, "h", 5, "", date, metadata)
    for n, (path, date, lang, metadata) in enumerate(ROWS)
]


@pytest.fixture
def empty(location: str, encoder: HashEncoder) -> Iterator[Store]:
    with opened(location, encoder) as store:
        yield store


@pytest.fixture
def store(empty: Store, encoder: HashEncoder) -> Store:
    empty.upsert(PASSAGES, encoder.encode_passages([p.text for p in PASSAGES]))
    return empty


CASES = [
    (Where(source="/d/ሰነድ"), {0, 1}),
    (Where(source="/d/ሰነድ/"), {0, 1}),
    (Where(source="/d/f.md"), {4}),
    (Where(since="2026-02-01"), {3}),  # c was written on 31 January, in UTC
    (Where(until="2026-01-31"), {0, 1, 2}),  # the whole day, by half a second
    (Where(since="2026-01-31T12:00:00", until="2026-01-31T22:00:00+00:00"), {2}),
    (Where(until="9999-12-31"), {0, 1, 2, 3}),  # what has no date is not found by one
    (Where(metadata={"author": "ada"}), {2}),  # not Ada
    (Where(metadata={"author": ["ada", "سلام"]}), {1, 2}),
    (Where(metadata={"year": 2026}), {0, 3}),
    (Where(metadata={"draft": False}), {0}),
    (Where(metadata={"draft": [True, False]}), {0, 1}),
    (Where(metadata={"price": 1.5}), {2}),
    (Where(metadata={"tags": "渡轮"}), {0}),
    (Where(metadata={"🙂": "yes", "a.b[0] c": 7}), {3}),
    (Where(metadata={"year": 2026, "author": "Ada"}), {3}),
    (Where(source="/d/ሰነድ", since="2026-01-31", metadata={"year": [2025, 2026]}), {0, 1}),
    (Where(metadata={"absent": "x"}), set[int]()),
    (Where(), {0, 1, 2, 3, 4}),
]


@pytest.mark.parametrize(("where", "expected"), CASES)
def test_where_holds_in_every_kind_of_search(
    store: Store, encoder: HashEncoder, where: Where, expected: set[int]
) -> None:
    dense, sparse = encoder.encode_passages(["ferry"])[0], sparse_query("ferry", "en")
    for query in ({"dense": dense}, {"sparse": sparse}, {"dense": dense, "sparse": sparse}):
        assert {h.passage.ordinal for h in store.search(**query, where=where)} == expected
    assert len(store.scores(dense=dense, where=where)) == len(expected)
    assert {h.passage.ordinal for h in store.search(dense=dense, where=where, diversity=0.3)} == expected
    for mode in ("dense", "sparse", "hybrid"):
        assert {
            h.passage.ordinal for h in Retriever(store, encoder).search("ferry", mode=mode, where=where)
        } == expected
    assert {h.passage.ordinal for h in store.search(dense=dense, where=where, lang="am")} == expected & {0}


def test_date_and_metadata_come_back(store: Store) -> None:
    assert store.passages([p.id for p in PASSAGES]) == PASSAGES


@pytest.mark.parametrize(
    ("date", "kept"),
    [
        ("20260131", "2026-01-31"),
        ("2026-W05-6", "2026-01-31"),
        ("20260131T090000Z", "2026-01-31T09:00:00+00:00"),
        ("2026-01-31T09", "2026-01-31T09:00:00"),
    ],
)
def test_however_a_date_is_written_it_is_found(empty: Store, encoder: HashEncoder, date: str, kept: str) -> None:
    row = encoder.encode_passages(["ferry 0"])
    empty.upsert([dataclasses.replace(PASSAGES[0], date=date)], row)
    [hit] = empty.search(dense=row[0], where=Where(since="2026-01-31", until="2026-01-31"))
    assert hit.passage.date == kept
    assert record_document({"_id": "1", "text": "ferry", "date": date}).date == kept


def test_what_no_filter_could_find_is_refused(empty: Store, encoder: HashEncoder) -> None:
    row = encoder.encode_passages(["x"])
    with pytest.raises(ValueError, match="'yesterday' is not ISO 8601"):
        empty.upsert([dataclasses.replace(PASSAGES[0], date="yesterday")], row)
    with pytest.raises(ValueError, match="metadata lang, tenant of"):
        empty.upsert([dataclasses.replace(PASSAGES[0], metadata={"tenant": "a", "lang": "b"})], row)
    assert empty.count() == 0
    for wrong in (
        Where(since="31.1.2026"),
        Where(until="2026-13-01"),
        Where(metadata={"a": []}),
        Where(metadata={'"': 1}),
    ):
        with pytest.raises(ValueError, match=r"ISO 8601|give a text|double quote"):
            where_filter(wrong)


def test_records_bring_dates_and_metadata(tmp_path: Path, encoder: HashEncoder) -> None:
    from ragkit.ingest import ingest

    file = tmp_path / "corpus.jsonl"
    file.write_text(
        '{"_id": "1", "text": "ጀልባ", "date": "2026-03-01", "metadata": {"town": "ሊንዳ", "x": {"y": 1}, "lang": "no"}}\n'
        '{"_id": "2", "text": "ferry", "date": "in March", "metadata": {"town": ["Linda", "Oslo"]}}\n'
        '{"_id": "3", "text": "boat", "metadata": "none"}\n',
        "utf-8",
    )
    with open_store(":memory:", "town", encoder) as store:
        assert ingest([file], store, encoder).skipped == ()
        found = {p.document: p for p in store.passages([s.id for s in store.states()])}
        assert [(found[i].date, dict(found[i].metadata)) for i in "123"] == [
            ("2026-03-01", {"town": "ሊንዳ"}), ("", {"town": ["Linda", "Oslo"]}), ("", {})
        ]  # fmt: skip
        file.write_text(file.read_text("utf-8").replace("2026-03-01", "2026-03-02"), "utf-8")
        assert ingest([file], store, encoder).changed == 1


# ---------------------------------------------------------------------- diversity


def test_diversity_passes_over_near_copies(empty: Store) -> None:
    """Four passages say the same and two something else; the query is nearest to the four."""
    rows = np.eye(6, 64, dtype=np.float32)[[0, 0, 0, 0, 1, 2]] + np.eye(6, 64, dtype=np.float32)[3:4] * 0.5
    rows[1:4, 10] = [0.01, 0.02, 0.03]
    stored = [dataclasses.replace(PASSAGES[0], id=str(uuid.UUID(int=n)), ordinal=n) for n in range(6)]
    empty.upsert(stored, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    query = np.zeros(64, dtype=np.float32)
    query[[0, 1, 2]] = (1.0, 0.7, 0.6)

    def found(diversity: float, k: int = 3) -> list[int]:
        return [h.passage.ordinal for h in empty.search(dense=query, k=k, diversity=diversity)]

    assert set(found(0)) <= {0, 1, 2, 3}
    assert found(0.5)[0] in {0, 1, 2, 3} and found(0.5)[1:] == [4, 5]
    assert found(0.5, k=6)[:3] == found(0.5)
    hits = empty.search(dense=query, sparse=sparse_query("ferry", "en"), k=3, diversity=0.5)
    assert [h.rank for h in hits] == [1, 2, 3] and [h.passage.ordinal for h in hits][1:] == [4, 5]
    for wrong in (-0.1, 1.1):
        with pytest.raises(ValueError, match="diversity"):
            found(wrong)
    with pytest.raises(ValueError, match="give dense too"):
        empty.search(sparse=sparse_query("ferry", "en"), diversity=0.5)


# ---------------------------------------------------------------------- widened hits


def test_hits_are_widened_and_nothing_is_told_twice(empty: Store, encoder: HashEncoder) -> None:
    texts = ["አንድ", "สอง", "三", "четыре", "五", "६"]
    one = [
        Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, t)), t, "und", "d", "/a", n, "now", 6) for n, t in enumerate(texts)
    ]
    stale = dataclasses.replace(one[2], id=str(uuid.uuid4()), text="old", document_hash="before")
    other = dataclasses.replace(one[1], id=str(uuid.uuid4()), text="elsewhere", path="/b")
    stored = [*one, stale, other]
    empty.upsert(stored, encoder.encode_passages([p.text for p in stored]))

    def widened(ordinals: list[int], window: int) -> list[str]:
        hits = [Hit(rank, 1 / rank, one[n]) for rank, n in enumerate(ordinals, start=1)]
        found = expand(empty, hits, window)
        assert [h.rank for h in found] == list(range(1, len(found) + 1))
        return [h.passage.text for h in found]

    assert widened([2], 1) == ["สอง\n三\nчетыре"]
    assert widened([0, 5], 1) == ["አንድ\nสอง", "五\n६"]
    assert widened([1, 3], 1) == ["አንድ\nสอง\n三", "четыре\n五"]  # 三 is told once
    assert widened([1, 2, 5], 1) == ["አንድ\nสอง\n三", "五\n६"]  # the second lies in the first
    assert widened([2, 0], 0) == ["三", "አንድ"]
    assert widened([3], 9) == ["\n".join(texts)]
