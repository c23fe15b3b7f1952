"""What a cluster would be sent: read consistency, tiers and promotion, a load without the graph, a next generation
that lies as the present one does. fake_qdrant.py reads it with the client's own models and routes nothing: that a
shard holds what is sent to it, only a cluster could prove, and none was at hand."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import HashEncoder
from fake_qdrant import FakeQdrant, serving
from qdrant_client import models
from test_store import PASSAGES, passage
from typer.testing import CliRunner

from ragkit.cli import app
from ragkit.cluster import loading, promote
from ragkit.reindex import reindex
from ragkit.settings import QdrantSettings
from ragkit.sparse import sparse_query
from ragkit.store import Store, StoreError, open_store

ROOT = Path(__file__).parent.parent
OLD, NEW = HashEncoder("old"), HashEncoder("new")
TIERS = QdrantSettings(tiers=True, replicas=2)
ROUTED = {"target": "ሀ", "fallback": 0}


def fill(store: Store) -> None:
    store.upsert(PASSAGES, OLD.encode_passages([p.text for p in PASSAGES]))


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize(("wanted", "sent"), [("majority", "majority"), ("2", "2"), ("all", "all")])
def test_a_search_asks_as_many_replicas_as_wanted(wanted: str, sent: str):
    with serving() as (fake, url):
        settings = QdrantSettings(read_consistency=wanted)
        for tenant in (None, "ሀ"):
            with open_store(url, f"town{bool(tenant)}", OLD, tenant=tenant, qdrant_settings=settings) as store:
                dense, sparse = OLD.encode_passages(["port"])[0], sparse_query("port", "en")
                store.search(dense=dense, sparse=sparse)
                store.scores(sparse=sparse)
        searches = [query for path, query in fake.asked if path.endswith("/points/query")]
        assert len(searches) == 4 and all(query["consistency"] == [sent] for query in searches)


def test_by_default_one_replica_answers():
    with serving() as (fake, url), open_store(url, "town", OLD) as store:
        store.search(dense=OLD.encode_passages(["port"])[0])
        assert not any("consistency" in query for _, query in fake.asked)


@pytest.mark.parametrize(
    "wrong", [{"read_consistency": "most"}, {"read_consistency": "0"}, {"tiers": True, "shards": 3}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"read_consistency is|shards is 3"):
        QdrantSettings(**wrong)


def test_a_folder_has_no_cluster(tmp_path: Path):
    settings = QdrantSettings(tiers=True, read_consistency="all")
    with pytest.raises(ValueError, match="read_consistency, tiers: not in a store"):
        open_store(tmp_path, "town", OLD, tenant="ሀ", qdrant_settings=settings)


# ---------------------------------------------------------------------- tiers


def test_tiers_are_for_tenants():
    with serving() as (fake, url), pytest.raises(ValueError, match="only where tenants share"):
        open_store(url, "town", OLD, qdrant_settings=TIERS)
    assert not fake.created


def test_every_call_of_a_tenant_names_their_shard_and_the_shared_one():
    with serving() as (fake, url), open_store(url, "town", OLD, tenant="ሀ", qdrant_settings=TIERS) as store:
        made = fake.created[store.collection]
        assert (made.sharding_method, made.shard_number, made.replication_factor) == ("custom", 1, 2)
        assert [body for body in fake.bodies("/shards") if body] == [
            {"shard_key": 0, "shards_number": 1, "replication_factor": 2}
        ]
        before = len(fake.seen)
        fill(store)
        dense = OLD.encode_passages(["port"])[0]
        store.search(dense=dense, sparse=sparse_query("port", "en"))
        store.count()
        store.languages()
        store.passages([PASSAGES[0].id])
        list(store.states())
        store.delete([PASSAGES[0].id])
        batch = models.QueryRequest(query=dense.tolist(), using="dense")
        store._client.query_batch_points(store.collection, [batch])
        sent = [(path.rpartition("--")[2].partition("/")[2], body) for _, path, body, _ in fake.seen[before:]]
        keys = {path: body.get("shard_key") for path, body in sent if not path.endswith("batch")}
        assert keys.pop("points") == ROUTED
        assert keys == dict.fromkeys(
            ("points/query", "points/count", "facet", "points/scroll", "points/delete"), ROUTED
        )  # fmt: skip
        taken = next(body for path, body in sent if path == "points/count")
        assert "shard_key" not in taken or taken["shard_key"] is None  # whose ids are taken is asked of all shards
        [batched] = [body for path, body in sent if path.endswith("batch")]
        assert [one["shard_key"] for one in batched["searches"]] == [ROUTED]


def test_a_corpus_without_tiers_is_sent_no_shard():
    with serving() as (fake, url), open_store(url, "town", OLD, tenant="ሀ") as store:
        fill(store)
        store.search(dense=OLD.encode_passages(["port"])[0])
        assert not any((body or {}).get("shard_key") for _, _, body, _ in fake.seen if isinstance(body, dict))
        with pytest.raises(StoreError, match=r"is not tiered.*RAGKIT_QDRANT_TIERS=1"):
            promote(store.client, store.collection, "ሀ")


def promoted(fake: FakeQdrant) -> list[tuple[str, str]]:
    """What a promotion changes, in its order."""
    changing = ("PUT", "/shards"), ("POST", "/cluster"), ("POST", "/points/delete")
    return [(m, p.rpartition("/")[2]) for m, p, _, _ in fake.seen if any(m == n and p.endswith(q) for n, q in changing)]


def test_a_tenant_is_promoted_and_leaves_the_shared_shard(monkeypatch: pytest.MonkeyPatch):
    with serving() as (fake, url):
        with open_store(url, "town", OLD, tenant="ሀ", qdrant_settings=TIERS) as store:
            fill(store)
        fake.seen.clear()
        # the fake has one pile of points for all shards: what is deleted from the shared one must not be carried out
        monkeypatch.setattr(fake.local, "delete", lambda *_, **__: None)
        done = CliRunner().invoke(app, ["promote", "ሀ", "--corpus", "town", "--store", url])
        assert done.exit_code == 0 and f"ሀ: {len(PASSAGES)} passages in their own shard" in done.stdout
        assert promoted(fake) == [("PUT", "shards"), ("POST", "cluster"), ("POST", "delete")]
        [partial] = [body for m, p, body, _ in fake.seen if m == "PUT" and p.endswith("/shards")]
        assert partial == {"shard_key": "ሀ", "shards_number": 1, "replication_factor": 1, "initial_state": "Partial"}
        [copy] = [body["replicate_points"] for body in fake.bodies("/cluster") if body]
        ours = {"must": [{"key": "tenant", "match": {"value": "ሀ"}}]}
        assert (copy["from_shard_key"], copy["to_shard_key"], copy["filter"]) == (0, "ሀ", ours)
        [gone] = fake.bodies("/points/delete")
        assert (gone["filter"], gone["shard_key"]) == (ours, 0)


def test_a_promotion_that_was_cut_off_goes_on_and_one_that_takes_long_is_told():
    with serving() as (fake, url), open_store(url, "town", OLD, tenant="ሀ", qdrant_settings=TIERS) as store:
        key = {"shard_key": "ሀ", "shards_number": 1, "replication_factor": 1, "initial_state": "Partial"}
        fake.answer("PUT", f"/collections/{store.collection}/shards", key)  # killed after this
        fake.seen.clear()
        promote(store.client, store.collection, "ሀ", poll=0.01)
        assert promoted(fake) == [("POST", "cluster")]  # nothing is in the shared shard: nothing is deleted
        fake.shards_as["ሀ"] = "Dead"
        with pytest.raises(StoreError, match=r"shard of 'ሀ' is Dead after 0 s.*run this again"):
            promote(store.client, store.collection, "ሀ", timeout=0.05, poll=0.01)


# ---------------------------------------------------------------------- loading


def graph(store: Store) -> tuple[Any, Any, bool]:
    info = store.client.get_collection(store.collection)
    dense = info.config.params.vectors["dense"].hnsw_config
    return dense.m, dense.payload_m, "loading" in info.config.metadata


@pytest.mark.parametrize(("tenant", "off", "on"), [(None, (0, None), (24, None)), ("ሀ", (0, 0), (0, 24))])
def test_no_graph_is_built_while_loading_and_it_comes_back(tenant: str | None, off: Any, on: Any):
    settings = QdrantSettings(m=24, ef_construct=200)
    with serving() as (fake, url), open_store(url, "town", OLD, tenant=tenant, qdrant_settings=settings) as store:
        with loading(store.client, store.collection):
            assert graph(store) == (*off, True)
            fill(store)
        assert graph(store) == (*on, False)
        with pytest.raises(RuntimeError, match="broken"), loading(store.client, store.collection):
            raise RuntimeError("broken")
        assert graph(store) == (*on, False)
        made: Any = fake.created[store.collection].vectors
        assert made["dense"].hnsw_config.ef_construct == 200 and store.count() == len(PASSAGES)


LOAD = """
import sys
sys.path.insert(0, "tests")
from conftest import HashEncoder
from ragkit.cluster import loading
from ragkit.store import open_store
with open_store(sys.argv[1], "town", HashEncoder("old")) as store, loading(store.client, store.collection):
    print("loading", flush=True)
    sys.stdin.read()
"""


def test_a_load_that_was_killed_is_told_and_the_next_one_puts_it_right(caplog: pytest.LogCaptureFixture):
    with serving() as (_, url):
        open_store(url, "town", OLD).close()
        process = subprocess.Popen(
            [sys.executable, "-c", LOAD, url], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        with caplog.at_level(logging.WARNING), open_store(url, "town", OLD) as store:
            assert "has no graph since a bulk load was cut off" in caplog.text
            assert graph(store) == (0, None, True)
            with loading(store.client, store.collection):
                pass
            assert graph(store) == (16, None, False)


def test_in_a_folder_loading_is_nothing(tmp_path: Path):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    with open_store(tmp_path, "town", OLD) as store, loading(store.client, store.collection):
        fill(store)
        assert store.count() == len(PASSAGES)


@pytest.mark.parametrize("place", ["folder", "rest"])
def test_a_creation_that_was_killed_before_its_indexes_gets_them(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with serving() as (fake, url):
        location = url if place == "rest" else str(tmp_path)
        monkeypatch.setattr(Store, "_index", lambda *_: None)
        with open_store(location, "town", OLD) as store:
            fill(store)
        monkeypatch.undo()
        with open_store(location, "town", OLD) as store:
            indexed = store.client.get_collection(store.collection).payload_schema
            assert {"lang", "path", "document", "ordinal", "date"} <= set(indexed)
            assert sum(store.languages().values()) == len(PASSAGES)
        before = len(fake.bodies("/index"))
        open_store(location, "town", OLD).close()
        assert len(fake.bodies("/index")) == before  # once


# ---------------------------------------------------------------------- the next generation


def test_the_next_generation_lies_as_the_present_one():
    with serving() as (fake, url):
        asked = QdrantSettings(shards=6, replicas=3, write_consistency=2)
        with open_store(url, "town", OLD, qdrant_settings=asked) as store:
            fill(store)
        reindex(url, "town", NEW)  # by somebody whose settings say nothing of it
        made = fake.created[f"town--{NEW.fingerprint}"]
        assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (6, 3, 2)
        third = HashEncoder("third")
        reindex(url, "town", third, settings=QdrantSettings(shards=12, replicas=1))
        made = fake.created[f"town--{third.fingerprint}"]
        assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (12, 1, 1)


def test_a_tiered_corpus_is_reindexed_with_its_shards():
    with serving() as (fake, url):
        for tenant in ("ሀ", "b"):
            with open_store(url, "town", OLD, tenant=tenant, qdrant_settings=TIERS) as store:
                store.upsert([passage(1, tenant, "en")], OLD.encode_passages([tenant]))
        key = {"shard_key": "b", "shards_number": 1, "replication_factor": 1}
        fake.answer("PUT", f"/collections/town--{OLD.fingerprint}/shards", key)
        fake.seen.clear()
        assert reindex(url, "town", NEW).passages == 2
        name = f"town--{NEW.fingerprint}"
        assert fake.created[name].sharding_method == "custom" and fake.keys[name] == [0, "b"]
        written = [b for m, p, b, _ in fake.seen if m == "PUT" and p == f"/collections/{name}/points"]
        assert {(b["shard_key"]["target"], p["payload"]["tenant"]) for b in written for p in b["points"]} == {
            ("ሀ", "ሀ"), ("b", "b")
        }  # fmt: skip
        with open_store(url, "town", OLD, tenant="b", generation=True) as old:
            old.drop([passage(1, "b", "en").id])
        assert fake.bodies("/points/delete")[-1]["shard_key"] == [0, "b"]
