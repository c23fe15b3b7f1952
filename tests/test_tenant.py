"""Nobody sees, changes or counts what isn't theirs: by hand, and by Hypothesis trying to get out."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SERVER, WITH_SERVER, HashEncoder, opened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from ragkit.retrieve import Retriever, expand
from ragkit.sparse import sparse_query
from ragkit.store import Store, StoreError, open_store
from ragkit.types import Passage, Where

TENANTS = ["ada", "Ada", "ada ", "ሀ", "🙂"]  # near-twins: nothing is trimmed, folded or normalised
WORDS = ["ferry", "boat", "ጀልባ", "渡轮", "เรือ"]


def passage(tenant: str, n: int) -> Passage:
    """The same text, path and document for everyone; only whose it is differs."""
    made = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{tenant}/{n}"))
    text = f"the {WORDS[n]} leaves at nine"
    return Passage(made, text, "en", "doc", "/docs/a.md", n, "h", 5, date="2026-05-01", metadata={"kind": WORDS[n]})


OWN = {tenant: [passage(tenant, n) for n in range(len(WORDS))] for tenant in TENANTS}
IDS = {tenant: {p.id for p in passages} for tenant, passages in OWN.items()}


def fill(store: Store) -> None:
    for tenant in TENANTS:
        theirs = store.for_tenant(tenant)
        theirs.upsert(OWN[tenant], store.encoder.encode_passages([p.text for p in OWN[tenant]]))


@pytest.fixture
def shared(location: str, encoder: HashEncoder) -> Iterator[Store]:
    """Ada's store, over a collection where everyone has five passages."""
    with opened(location, encoder, tenant="ada") as store:
        fill(store)
        yield store


def everything(store: Store) -> dict[str, Any]:
    """What is really there, asked past the tenant."""
    records, offset = store._whole.scroll(store.collection, limit=1000, with_payload=True)
    assert offset is None
    return {str(r.id): r.payload for r in records}


def test_every_way_of_asking_finds_ones_own(shared: Store, encoder: HashEncoder) -> None:
    dense, sparse = encoder.encode_passages(["the ferry leaves"])[0], sparse_query("the ferry leaves ጀልባ", "en")
    for tenant in TENANTS:
        store = shared.for_tenant(tenant)
        for query in ({"dense": dense}, {"sparse": sparse}, {"dense": dense, "sparse": sparse}):
            assert {h.passage.id for h in store.search(**query, k=50)} <= IDS[tenant]
        for query in ({"dense": dense}, {"dense": dense, "sparse": sparse}):
            assert {h.passage.id for h in store.search(**query, k=50)} == IDS[tenant]
            assert {h.passage.id for h in store.search(**query, k=50, diversity=0.5)} == IDS[tenant]
        assert len(store.scores(dense=dense)) == store.count() == 5
        assert store.languages() == {"en": 5}
        assert {s.id for s in store.states()} == IDS[tenant]
        everyone = [i for ids in IDS.values() for i in ids]
        assert {p.id for p in store.passages(everyone)} == IDS[tenant]
        assert store.documents(["doc"]) == {"doc"}
        assert store.document_languages(["doc"]) == {"doc": "en"}
        assert {p.id for p in store.sample(50)[0]} == IDS[tenant] and len(store.sample(3)[1]) == 3
        hits = Retriever(store, encoder).search("the ferry leaves", k=1)
        assert set(expand(store, hits, 4)[0].passage.text.split("\n")) == {p.text for p in OWN[tenant]}


def test_answers_are_those_of_a_store_with_nobody_else_in_it(shared: Store, encoder: HashEncoder) -> None:
    """Ranks and scores too: what others have takes no place in a ranking, and makes no word common."""
    dense, rng = np.eye(1, 64, dtype=np.float32)[0], np.random.default_rng(0)

    def around(count: int, noise: float) -> np.ndarray:  # no two are as near to the query as each other
        rows = dense + rng.normal(size=(count, 64)) * noise
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    mine = around(5, 1.0)
    shared.upsert(OWN["ada"], mine)
    crowd = [dataclasses.replace(passage("🙂", n % 5), id=str(uuid.uuid4())) for n in range(150)]
    shared.for_tenant("🙂").upsert(crowd, around(150, 0.1))
    sparse = sparse_query("ferry", "en")
    with open_store(":memory:", "alone", encoder) as alone:
        alone.upsert(OWN["ada"], mine)
        for query in (
            {"dense": dense},
            {"sparse": sparse},
            {"sparse": sparse, "sparse_lang": "en"},
            {"dense": dense, "sparse": sparse, "depth": 3},
            {"dense": dense, "sparse": sparse, "depth": 3, "diversity": 0.4},
            {"dense": dense, "diversity": 0.4, "depth": 3},
        ):
            ours, theirs = shared.search(**query, k=3), alone.search(**query, k=3)
            assert [h.passage.id for h in ours] == [h.passage.id for h in theirs]
            assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], rel=1e-4)


def test_deleting_deletes_ones_own(shared: Store) -> None:
    shared.delete([i for ids in IDS.values() for i in ids])
    assert shared.count() == 0
    assert set(everything(shared)) == set().union(*IDS.values()) - IDS["ada"]
    shared.for_tenant("ሀ").vector_store.clear()
    assert set(everything(shared)) == set().union(*IDS.values()) - IDS["ada"] - IDS["ሀ"]


def test_another_s_passage_cannot_be_written_over(shared: Store, encoder: HashEncoder) -> None:
    before = everything(shared)
    stolen = dataclasses.replace(OWN["🙂"][0], text="mine now")
    rows = encoder.encode_passages(["new", "mine now"])
    with pytest.raises(StoreError, match="taken by another tenant: nothing was written"):
        shared.upsert([dataclasses.replace(stolen, id=str(uuid.uuid4())), stolen], rows)
    assert everything(shared) == before
    # And by the engine itself, if it was written between the look and the write.
    point = models.PointStruct(id=stolen.id, vector={"dense": rows[1].tolist()}, payload={"tenant": "ada"})
    shared._whole.upsert(shared.collection, points=[point], update_filter=shared._client._within(None))
    assert everything(shared) == before


def test_a_node_that_says_it_is_another_s_is_refused(shared: Store, encoder: HashEncoder) -> None:
    from llama_index.core.schema import TextNode

    node = TextNode(text="hello", metadata={"tenant": "🙂"}, embedding=encoder.encode_passages(["hello"])[0].tolist())
    with pytest.raises(StoreError, match="its tenant is '🙂', but this is 'ada'"):
        shared.vector_store.add([node])
    node.metadata = {}
    shared.vector_store.add([node])
    assert everything(shared)[node.node_id]["tenant"] == "ada"
    assert shared.for_tenant("🙂").count() == 5


def test_rarity_is_counted_among_ones_own_passages(shared: Store, encoder: HashEncoder) -> None:
    """Otherwise a score would tell what others have."""
    query = sparse_query("ferry", "en")
    alone = shared.search(sparse=query)[0].score
    other = shared.for_tenant("🙂")
    many = [dataclasses.replace(passage("🙂", 0), id=str(uuid.uuid4())) for _ in range(50)]
    other.upsert(many, encoder.encode_passages([p.text for p in many]))
    assert shared.search(sparse=query)[0].score == pytest.approx(alone, rel=1e-6)
    assert other.search(sparse=query)[0].score < 0.7 * alone


def test_what_could_reach_out_is_refused(shared: Store) -> None:
    client, name = shared._client, shared.collection
    theirs = OWN["🙂"][0].id
    recommend = models.RecommendQuery(recommend=models.RecommendInput(positive=[theirs]))
    elsewhere = models.LookupLocation(collection=name, vector="dense")
    for query in (theirs, models.NearestQuery(nearest=theirs), recommend, models.OrderByQuery(order_by="ordinal")):
        with pytest.raises(TypeError, match="a vector of their own"):
            client.query_points(name, query=query, using="dense")
        with pytest.raises(TypeError, match="a vector of their own"):
            client.query_points(name, prefetch=[models.Prefetch(query=query, using="dense")])
    with pytest.raises(TypeError, match="lookup_from"):
        client.query_points(name, prefetch=models.Prefetch(query=[0.0] * 64, using="dense", lookup_from=elsewhere))
    for method in ("lookup_from", "with_lookup", "shard_key_selector"):
        with pytest.raises(TypeError, match=method):
            client.query_points(name, query=[0.0] * 64, using="dense", **{method: elsewhere})
    for method in ("set_payload", "overwrite_payload", "batch_update_points", "query_points_groups", "create_snapshot"):
        with pytest.raises(AttributeError):
            getattr(client, method)
    with pytest.raises(TypeError, match=r"give a qdrant_client.models.Filter"):
        client.count(name, count_filter={"should": []})


def test_a_shared_corpus_is_not_opened_without_a_tenant(tmp_path: Path, encoder: HashEncoder) -> None:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    open_store(tmp_path, "shared", encoder, tenant="ada").close()
    open_store(tmp_path, "single", encoder).close()
    with pytest.raises(StoreError, match="shared by tenants: say whose part"):
        open_store(tmp_path, "shared", encoder)
    with pytest.raises(StoreError, match="not shared by tenants"):
        open_store(tmp_path, "single", encoder, tenant="ada")
    for wrong in ("", "a" * 257, "\ud800"):
        with pytest.raises(ValueError, match="1 to 256 characters"):
            open_store(tmp_path, "shared", encoder, tenant=wrong)
        with pytest.raises(ValueError, match="1 to 256 characters"):
            open_store(tmp_path, "new", encoder, tenant=wrong)
    assert not list(tmp_path.glob("new*"))
    open_store(tmp_path, "shared", encoder, tenant="ሀ").close()  # refusals let go of the folder


def test_two_tenants_may_ingest_the_same_file(tmp_path: Path, encoder: HashEncoder) -> None:
    from ragkit.ingest import ingest

    (tmp_path / "a.txt").write_text("ሰላም ለሁሉም", "utf-8")
    with open_store(":memory:", "town", encoder, tenant="ada") as ada:
        other = ada.for_tenant("ሀ")
        for store in (ada, other, ada):
            ingest([tmp_path / "a.txt"], store, encoder)
        assert (ada.count(), other.count(), len(everything(ada))) == (1, 1, 2)
        (tmp_path / "a.txt").write_text("changed", "utf-8")
        ingest([tmp_path / "a.txt"], ada, encoder)
        assert [p.text for p in other.passages([s.id for s in other.states()])] == ["ሰላም ለሁሉም"]


# ---------------------------------------------------------------------- Hypothesis

ALL_IDS = sorted(set().union(*IDS.values()))
VALUES = st.sampled_from([*TENANTS, *WORDS, "en", "doc", "/docs/a.md"])
KEYS = st.sampled_from(["tenant", "kind", "lang", "document", "path", "absent"])
CONDITIONS = st.one_of(
    st.builds(lambda k, v: models.FieldCondition(key=k, match=models.MatchValue(value=v)), KEYS, VALUES),
    st.builds(
        lambda k, v: models.FieldCondition(key=k, match=models.MatchAny(any=v)), KEYS, st.lists(VALUES, min_size=1)
    ),
    st.builds(
        lambda k, v: models.FieldCondition(key=k, match=models.MatchExcept(**{"except": v})),
        KEYS,
        st.lists(VALUES, min_size=1),
    ),
    st.builds(lambda k: models.IsEmptyCondition(is_empty=models.PayloadField(key=k)), KEYS),
    st.builds(lambda ids: models.HasIdCondition(has_id=ids), st.lists(st.sampled_from(ALL_IDS), min_size=1)),
)


def trees(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    some = st.none() | st.lists(inner, max_size=3)
    return st.builds(lambda a, b, c: models.Filter(must=a, should=b, must_not=c), some, some, some)


FILTERS = trees(st.recursive(CONDITIONS, trees, max_leaves=8))
ATTEMPTS = st.sampled_from(
    ["dense", "sparse", "fused", "mmr", "batch", "scroll", "count", "facet", "retrieve", "delete", "upsert"]
)


def vector(seed: int) -> list[float]:
    return np.random.default_rng(seed).normal(size=64).astype(np.float32).tolist()


@pytest.fixture(scope="module", params=["memory", "embedded", pytest.param("server", marks=WITH_SERVER)])
def arena(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    places = {"memory": ":memory:", "embedded": str(tmp_path_factory.mktemp("arena")), "server": SERVER}
    with opened(places[request.param], HashEncoder(), tenant="ada") as store:
        yield store


POINTS: list[models.PointStruct] = []  # what fill writes, to be put back past the tenants in one request


def reset(store: Store) -> dict[str, Any]:
    store._whole.delete(store.collection, points_selector=models.Filter())
    if not POINTS:
        fill(store)
        found, _ = store._whole.scroll(store.collection, limit=1000, with_payload=True, with_vectors=True)
        POINTS.extend(models.PointStruct(id=r.id, vector=r.vector, payload=r.payload) for r in found)
    store._whole.upsert(store.collection, points=POINTS)
    return everything(store)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tenant=st.sampled_from(TENANTS),
    moves=st.lists(st.tuples(ATTEMPTS, FILTERS, VALUES, st.integers(0, 9)), min_size=1, max_size=4),
)
def test_nobody_breaks_out(arena: Store, tenant: str, moves: list[tuple[str, models.Filter, str, int]]) -> None:
    """Whatever the filter and the move: what is seen is the tenant's own, and what is others' stays as it was."""
    before = reset(arena)
    client, name = arena.for_tenant(tenant)._client, arena.collection
    added = set[str]()
    for move, wanted, value, seed in moves:
        own = IDS[tenant] | added
        dense, sparse = vector(seed), sparse_vector()
        leg = {"query": dense, "using": "dense", "filter": wanted}
        match move:
            case "dense" | "sparse":
                query = {"query": dense, "using": "dense"} if move == "dense" else {"query": sparse, "using": "sparse"}
                seen = ids(client.query_points(name, **query, query_filter=wanted, limit=100).points)
            case "fused":
                legs = [models.Prefetch(**leg), models.Prefetch(query=sparse, using="sparse", filter=wanted)]
                query = models.RrfQuery(rrf=models.Rrf(k=1))
                seen = ids(client.query_points(name, query=query, prefetch=legs, limit=100).points)
            case "mmr":
                near = models.NearestQuery(nearest=dense, mmr=models.Mmr(diversity=0.5, candidates_limit=100))
                legs = models.Prefetch(**leg, limit=100)
                seen = ids(client.query_points(name, query=near, using="dense", prefetch=legs, limit=100).points)
            case "batch":
                asks = [models.QueryRequest(**leg, limit=100, with_payload=True)]
                seen = ids(client.query_batch_points(name, requests=asks)[0].points)
            case "scroll":
                seen = ids(client.scroll(name, wanted, limit=100)[0])
            case "count":
                assert client.count(name, wanted).count <= len(own)
                seen = set[str]()
            case "facet":
                counts = {h.value: h.count for h in client.facet(name, "tenant", wanted, limit=100, exact=True).hits}
                assert counts.keys() <= {tenant} and sum(counts.values()) <= len(own)
                seen = set[str]()
            case "retrieve":
                seen = ids(client.retrieve(name, ALL_IDS))
            case "delete":
                client.delete(name, wanted if seed % 2 else ALL_IDS)
                seen = set[str]()
            case _:
                target = ALL_IDS[seed * 2] if seed % 2 else str(uuid.uuid5(uuid.NAMESPACE_URL, f"{seed}"))
                point = models.PointStruct(id=target, vector={"dense": dense}, payload={"tenant": value, "kind": value})
                try:
                    client.upsert(name, [point])
                    assert value == tenant
                    added.add(target)
                except StoreError:
                    assert value != tenant or target not in IDS[tenant]
                seen = set[str]()
        assert seen <= IDS[tenant] | added
    after = everything(arena)
    others = {i: payload for i, payload in before.items() if i not in IDS[tenant]}
    assert {i: payload for i, payload in after.items() if i in others} == others
    assert after.keys() <= before.keys() | added
    assert {payload["tenant"] for i, payload in after.items() if i in added} <= {tenant}


def sparse_vector() -> models.SparseVector:
    terms = sparse_query(" ".join(WORDS) + " the leaves nine", "en")
    return models.SparseVector(indices=list(terms.indices), values=list(terms.values))


def ids(found: list[Any]) -> set[str]:
    return {str(point.id) for point in found}


OPERATORS = st.sampled_from(["==", "!=", "in", "nin", "text_match", "is_empty"])


def metadata_filters() -> st.SearchStrategy[Any]:
    from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters

    def leaf(key: str, operator: str, value: str, values: list[str]) -> Any:
        wanted: Any = {"in": values, "nin": values, "is_empty": None}.get(operator, value)
        return MetadataFilter(key=key, operator=operator, value=wanted)  # pyright: ignore[reportArgumentType]

    leaves = st.builds(leaf, KEYS, OPERATORS, VALUES, st.lists(VALUES, min_size=1, max_size=3))
    conditions = st.sampled_from([FilterCondition.AND, FilterCondition.OR, FilterCondition.NOT])

    def group(inner: Any) -> Any:
        return st.builds(
            lambda f, c: MetadataFilters(filters=f, condition=c), st.lists(inner, min_size=1, max_size=3), conditions
        )

    return group(st.recursive(leaves, group, max_leaves=6))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tenant=st.sampled_from(TENANTS), data=st.data(), mode=st.sampled_from(["default", "sparse", "hybrid"]))
def test_nobody_breaks_out_by_llamaindex_s_filters(arena: Store, tenant: str, data: st.DataObject, mode: str) -> None:
    from llama_index.core.vector_stores import VectorStoreQuery

    before = reset(arena)
    wanted = data.draw(metadata_filters())
    store = arena.for_tenant(tenant).vector_store
    query = VectorStoreQuery(
        query_embedding=vector(1), query_str=" ".join(WORDS), similarity_top_k=100, sparse_top_k=100, filters=wanted,
        mode=mode,  # pyright: ignore[reportArgumentType]
    )  # fmt: skip
    theirs = sorted(set(ALL_IDS) - IDS[tenant])
    assert set(store.query(query).ids or []) <= IDS[tenant]
    assert set(asyncio.run(store.aquery(query)).ids or []) <= IDS[tenant]
    for node_ids in (None, theirs, ALL_IDS):
        assert {node.node_id for node in store.get_nodes(node_ids, filters=wanted)} <= IDS[tenant]
    if data.draw(st.booleans()):
        store.delete_nodes(data.draw(st.sampled_from([None, theirs])), filters=wanted)
    else:
        store.delete_nodes(None)  # LlamaIndex makes this an empty filter, which matches everything
    store.delete("/docs/a.md#doc")  # everyone has this document
    after = everything(arena)
    others = {i: payload for i, payload in before.items() if i not in IDS[tenant]}
    assert {i: payload for i, payload in after.items() if i in others} == others


def test_where_and_language_stay_inside(shared: Store, encoder: HashEncoder) -> None:
    row = encoder.encode_passages(["ferry"])[0]
    for where in (Where(source="/docs"), Where(since="2026-05-01"), Where(metadata={"kind": WORDS})):
        assert {h.passage.id for h in shared.search(dense=row, k=50, where=where, lang="en")} == IDS["ada"]
    assert shared.search(dense=row, where=Where(metadata={"tenant": "🙂"})) == []
