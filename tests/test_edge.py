"""The embedded engine behind QdrantClient's interface: same answers as the client's own local mode, one
owner at a time, and nothing lost when the process is killed. Processes here are real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from ragkit.owner import CorpusInUse, StoreError

edge = pytest.importorskip("ragkit.edge", reason="qdrant-edge has no wheel here")
ROOT = Path(__file__).parents[1]
NAME = "words"


def point_id(n: int) -> str:
    return str(uuid.UUID(int=n))


TEXTS = ["ውሃ", "ماء", "पानी", "น้ำ", "水", "Wasser", "😀"]
POINTS = [
    models.PointStruct(
        id=point_id(n),
        vector={
            "dense": [1.0, float(n), 0.5, -1.0],
            "sparse": models.SparseVector(indices=[n % 3, 7], values=[2.0 + n, 1.0 + n / 10]),
        },
        payload={"text": text, "n": n, "path": f"/docs/{n % 2}/{n}"},
    )
    for n, text in enumerate(TEXTS)
]


def fill(client: Any) -> Any:
    client.create_collection(
        NAME,
        vectors_config={"dense": models.VectorParams(size=4, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
        metadata={"made": "here"},
    )
    client.upsert(NAME, POINTS)
    return client


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Any, Any]]:
    embedded, local = fill(edge.EdgeClient(tmp_path / NAME)), fill(QdrantClient(":memory:"))
    embedded.create_payload_index(
        NAME, "path", models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, prefix=True)
    )
    yield embedded, local
    embedded.close()
    local.close()


def field(key: str, match: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=match)


FILTERS = {
    "value": models.Filter(must=[field("text", models.MatchValue(value="水"))]),
    "single": models.Filter(must=field("text", models.MatchValue(value="水"))),
    "any": models.Filter(must=[field("text", models.MatchAny(any=["ماء", "น้ำ"]))]),
    "except": models.Filter(must=[field("text", models.MatchExcept(**{"except": ["ماء", "น้ำ"]}))]),
    "prefix": models.Filter(must=[field("path", models.MatchPrefix(prefix="/docs/1"))]),
    "range": models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gt=1, lte=4))]),
    "not": models.Filter(must_not=[field("text", models.MatchValue(value="水"))]),
    "ids": models.Filter(must=[models.HasIdCondition(has_id=[point_id(2), point_id(5)])]),
    "nested": models.Filter(must=[models.Filter(should=[field("n", models.MatchValue(value=v)) for v in (0, 6)])]),
    "empty": models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="absent"))]),
    "none": models.Filter(must=[field("text", models.MatchValue(value="absent"))]),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_keep_what_the_client_s_local_mode_keeps(both: tuple[Any, Any], name: str) -> None:
    embedded, local = both
    expected = {r.id for r in local.scroll(NAME, FILTERS[name], limit=100)[0]}
    assert {r.id for r in embedded.scroll(NAME, FILTERS[name], limit=100)[0]} == expected
    assert embedded.count(NAME, FILTERS[name]).count == local.count(NAME, FILTERS[name]).count == len(expected)


SPARSE_QUERY = models.SparseVector(indices=[0, 7], values=[1.0, 0.5])
LEGS = [
    models.Prefetch(query=[1.0, 2.0, 0.5, -1.0], using="dense", limit=5),
    models.Prefetch(query=SPARSE_QUERY, using="sparse", limit=3, filter=FILTERS["range"]),
]
QUERIES: dict[str, dict[str, Any]] = {
    "dense": {"query": [1.0, 2.0, 0.5, -1.0], "using": "dense"},
    "sparse": {"query": SPARSE_QUERY, "using": "sparse"},
    "filtered": {"query": SPARSE_QUERY, "using": "sparse", "query_filter": FILTERS["prefix"]},
    "idf of a part": {
        "query": SPARSE_QUERY,
        "using": "sparse",
        "search_params": models.SearchParams(idf=models.IdfCorpusParams(corpus=FILTERS["range"])),
    },
    "fused": {"prefetch": LEGS, "query": models.RrfQuery(rrf=models.Rrf(k=60, weights=[1.0, 0.5]))},
}


@pytest.mark.parametrize("name", QUERIES)
def test_scores_are_those_of_the_client_s_local_mode(both: tuple[Any, Any], name: str) -> None:
    embedded, local = (client.query_points(NAME, **QUERIES[name], limit=4).points for client in both)
    assert [p.score for p in embedded] == pytest.approx([p.score for p in local], rel=1e-5)
    assert embedded[0].payload == local[0].payload


def test_scroll_pages_through_everything_once(both: tuple[Any, Any]) -> None:
    embedded, _ = both
    seen: list[Any] = []
    offset = None
    while True:
        records, offset = embedded.scroll(NAME, limit=3, offset=offset, with_payload=["text"], with_vectors=["sparse"])
        seen += records
        if offset is None:
            break
    assert sorted(r.payload["text"] for r in seen) == sorted(TEXTS)
    assert {tuple(r.payload) for r in seen} == {("text",)}
    assert all(isinstance(r.vector["sparse"], models.SparseVector) and set(r.vector) == {"sparse"} for r in seen)


def test_points_are_replaced_and_deleted_by_id_and_by_filter(both: tuple[Any, Any]) -> None:
    embedded, _ = both
    changed = models.PointStruct(id=point_id(0), vector={"dense": [0.0, 0.0, 0.0, 1.0]}, payload={"text": "न"})
    embedded.upsert(NAME, [changed])
    assert embedded.count(NAME).count == len(TEXTS)
    assert embedded.retrieve(NAME, [point_id(0), point_id(99)])[0].payload == {"text": "न"}
    embedded.delete(NAME, [point_id(0), point_id(99)])
    embedded.delete(NAME, FILTERS["prefix"])
    assert sorted(r.payload["n"] for r in embedded.scroll(NAME, limit=9)[0]) == [2, 4, 6]


def test_what_is_not_translated_is_refused_not_ignored(both: tuple[Any, Any]) -> None:
    embedded, _ = both
    at_least = models.Filter(min_should=models.MinShould(conditions=[], min_count=1))
    with pytest.raises(TypeError, match="min_should"):
        embedded.count(NAME, at_least)
    with pytest.raises(TypeError, match="the embedded store filters by"):
        box = models.GeoRadius(center=models.GeoPoint(lon=0, lat=0), radius=1)
        embedded.count(NAME, models.Filter(must=[models.FieldCondition(key="n", geo_radius=box)]))
    with pytest.raises(TypeError, match="RrfQuery"):
        embedded.query_points(NAME, query=models.FusionQuery(fusion=models.Fusion.DBSF), prefetch=LEGS)
    with pytest.raises(TypeError, match="shard_key_selector"):
        embedded.count(NAME, shard_key_selector="eu")
    with pytest.raises(StoreError, match="'words', not 'other'"):
        embedded.count("other")


def test_the_collection_is_there_when_the_folder_is_opened_again(tmp_path: Path) -> None:
    fill(edge.EdgeClient(tmp_path / NAME)).close()
    again = edge.EdgeClient(tmp_path / NAME)
    info = again.get_collection(NAME)
    assert info.config.metadata == {"made": "here"}
    assert info.config.params.vectors["dense"].size == 4
    assert info.config.params.sparse_vectors["sparse"].modifier == models.Modifier.IDF
    assert again.count(NAME).count == info.points_count == len(TEXTS)
    again.optimize()
    assert again.count(NAME).count == len(TEXTS)
    again.delete_collection(NAME)
    assert not again.collection_exists(NAME)
    assert fill(again).count(NAME).count == len(TEXTS)  # LlamaIndex's clear() and then add()
    again.close()
    with pytest.raises(StoreError, match="has been closed"):
        again.count(NAME)


def test_a_creation_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    client = fill(edge.EdgeClient(tmp_path / NAME))
    client.close()
    (tmp_path / NAME / "collection.json").unlink()  # the last thing a creation writes
    client = edge.EdgeClient(tmp_path / NAME)
    assert not client.collection_exists(NAME)
    assert fill(client).count(NAME).count == len(TEXTS)
    client.close()


def test_a_broken_folder_is_refused_and_set_free(tmp_path: Path) -> None:
    fill(edge.EdgeClient(tmp_path / NAME)).close()
    (tmp_path / NAME / "shard" / "edge_config.json").write_text("{")
    for _ in range(2):  # the second refusal is for the same reason: the first one let go of the lock
        with pytest.raises(StoreError, match=r"engine cannot read.*ingest again"):
            edge.EdgeClient(tmp_path / NAME)


OWN = """
import sys, pathlib
from ragkit.edge import EdgeClient
client = EdgeClient(pathlib.Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""

UPSERT_AND_WAIT = """
import sys, pathlib
sys.path.insert(0, "tests")
from ragkit.edge import EdgeClient
from test_edge import fill
fill(EdgeClient(pathlib.Path(sys.argv[1])))
print("open", flush=True)
sys.stdin.read()
"""


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(folder), "--api-key=secret"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    owner = start(OWN, tmp_path / NAME)
    try:
        with pytest.raises(CorpusInUse, match=rf"open in process {owner.pid} on .*python.*Qdrant server") as refusal:
            edge.EdgeClient(tmp_path / NAME)
        assert "secret" not in str(refusal.value)
    finally:
        owner.communicate("")
    edge.EdgeClient(tmp_path / NAME).close()  # it has gone, and is not in the way


def test_opening_twice_in_one_process_is_refused_too(tmp_path: Path) -> None:
    first = edge.EdgeClient(tmp_path / NAME)
    with pytest.raises(CorpusInUse, match="open in process"):
        edge.EdgeClient(tmp_path / NAME)
    first.close()
    first.close()  # harmless
    edge.EdgeClient(tmp_path / NAME).close()


def test_a_killed_process_loses_nothing_and_blocks_nobody(tmp_path: Path) -> None:
    process = start(UPSERT_AND_WAIT, tmp_path / NAME)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = json.loads((tmp_path / NAME / "owner.json").read_text())
    assert left["pid"] == process.pid
    client = edge.EdgeClient(tmp_path / NAME)
    assert sorted(r.payload["text"] for r in client.scroll(NAME, limit=100)[0]) == sorted(TEXTS)
    client.close()
