"""The store, in the client's local mode, embedded, through the REST interface (a recorder answers, see
fake_qdrant.py), and on a server where RAGKIT_TEST_QDRANT_URL names one."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HashEncoder, opened
from qdrant_client import models

from ragkit.sparse import sparse_query
from ragkit.store import CorpusInUse, CorpusNotFound, FingerprintMismatch, Store, StoreError, _top, open_store
from ragkit.types import Passage

ROOT = Path(__file__).parents[1]

TEXTS = [
    ("ar", "تغادر العبارة إلى ليندا في الساعة التاسعة"),
    ("hi", "लिंडा जाने वाली नाव नौ बजे छूटती है"),
    ("th", "เรือข้ามฟากไปลินดาออกเวลาเก้าโมง"),
    ("zh", "开往林达的渡轮九点出发"),
    ("zh-Hant", "開往林達的渡輪九點出發"),
    ("ja", "リンダ行きのフェリーは九時に出発します"),
    ("am", "ወደ ሊንዳ የሚሄደው ጀልባ በዘጠኝ ሰዓት ይነሳል"),
    ("de", "Die Fähre nach Linda fährt um neun"),
    ("en", "The ferry to Linda leaves at nine"),
    ("en", "The mail boat leaves at six"),
    ("und", "⛴️ 9:00"),
]


def passage(n: int, text: str, lang: str, path: str = "/docs/a.md") -> Passage:
    made = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{path}{n}{text}".encode("utf-8", "replace").decode()))
    return Passage(made, text, lang, f"d{n}", path, n, f"hash{n}", 1, f"Title {n}")


PASSAGES = [passage(n, text, lang) for n, (lang, text) in enumerate(TEXTS)]


@pytest.fixture
def empty(location: str, encoder: HashEncoder) -> Iterator[Store]:
    with opened(location, encoder) as store:
        yield store


@pytest.fixture
def store(empty: Store, encoder: HashEncoder) -> Store:
    empty.upsert(PASSAGES, encoder.encode_passages([p.text for p in PASSAGES]))
    return empty


def embed(encoder: HashEncoder, text: str) -> np.ndarray:
    return encoder.encode_passages([text])[0]


# ---------------------------------------------------------------------- passages


def test_a_sample_is_the_first_by_id_with_the_embeddings_that_were_stored(
    store: Store, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ragkit.store.UPSERT", 4)  # several pages
    ordered = sorted(PASSAGES, key=lambda p: p.id)
    for n in (0, 1, 4, 6, len(PASSAGES), 1000):
        passages, embeddings = store.sample(n)
        assert passages == ordered[:n]
        assert embeddings.shape == (len(ordered[:n]), encoder.dimension) and embeddings.dtype == np.float32
        np.testing.assert_allclose(embeddings, encoder.encode_passages([p.text for p in ordered[:n]]), atol=1e-6)


def test_a_sample_leaves_out_what_llamaindex_added_without_an_embedding_of_ours(store: Store) -> None:
    bare = models.PointStruct(id=str(uuid.UUID(int=1)), vector={}, payload={})  # the first of all ids
    store._client.upsert(store.collection, points=[bare])
    assert len(store.sample(3)[0]) == 3 and store.sample(1000)[1].shape == (len(PASSAGES), store.dimension)


def test_a_document_s_language_is_that_of_its_first_passage(empty: Store, encoder: HashEncoder) -> None:
    first = passage(0, "Ratiba ya feri", "sw")
    second = dataclasses.replace(passage(1, "ferry timetable", "en"), document=first.document)
    other = dataclasses.replace(passage(0, "渡轮", "zh-Hant"), document="渡")
    empty.upsert([second, first, other], encoder.encode_passages(["a", "b", "c"]))
    assert empty.document_languages([first.document, "渡", "elsewhere"]) == {first.document: "sw", "渡": "zh-Hant"}
    assert empty.document_languages([]) == {}


def test_passages_come_back_as_they_were(store: Store) -> None:
    ids = [p.id for p in reversed(PASSAGES)]
    assert store.passages(ids) == list(reversed(PASSAGES))
    assert store.passages([str(uuid.uuid4()), ids[0]]) == [PASSAGES[-1]]
    assert store.count() == len(PASSAGES)
    assert store.languages() == {
        "en": 2,
        **dict.fromkeys(["am", "ar", "de", "hi", "ja", "th", "und", "zh", "zh-Hant"], 1),
    }


def test_stored_embeddings_are_those_that_were_given(store: Store, encoder: HashEncoder) -> None:
    found = store.embeddings([PASSAGES[1].id, str(uuid.uuid4()), PASSAGES[0].id])
    assert found.keys() == {PASSAGES[0].id, PASSAGES[1].id}
    for passage in PASSAGES[:2]:
        np.testing.assert_allclose(found[passage.id], encoder.encode_passages([passage.text])[0], atol=1e-6)


def test_an_id_is_replaced_and_deleting_twice_is_harmless(store: Store, encoder: HashEncoder) -> None:
    changed = dataclasses.replace(PASSAGES[0], text="أغلقت العبارة", ordinal=7)
    store.upsert([changed], encoder.encode_passages([changed.text]))
    assert store.count() == len(PASSAGES)
    assert store.passages([changed.id]) == [changed]
    for _ in range(2):
        store.delete([PASSAGES[0].id, PASSAGES[1].id])
        assert store.count() == len(PASSAGES) - 2
    assert store.search(sparse=sparse_query("أغلقت العبارة", "ar")) == []


def test_lone_surrogates_and_empty_texts_are_stored(empty: Store, encoder: HashEncoder) -> None:
    odd = [passage(0, "", "und"), passage(1, "half \ud83d of 😀", "en", "/docs/caf\udce9.md")]
    empty.upsert(odd, encoder.encode_passages([p.text for p in odd]))
    assert [p.text for p in empty.passages([p.id for p in odd])] == ["", "half \ufffd of 😀"]
    assert [s.path for s in empty.states("/docs/caf\udce9.md")] == ["/docs/caf\ufffd.md"]


def test_states_are_those_at_or_below_a_path(empty: Store, encoder: HashEncoder) -> None:
    paths = ["/d/a", "/d/a/x.md", "/d/a/b/y.md", "/d/ab/z.md", "/d/a.md", "/ሰነድ/🚢.txt"]
    stored = [passage(n, f"text {n}", "en", path) for n, path in enumerate(paths)]
    empty.upsert(stored, encoder.encode_passages([p.text for p in stored]))

    def below(prefix: str | None) -> set[str]:
        return {state.path for state in empty.states(prefix)}

    assert below("/d/a") == below("/d/a/") | {"/d/a"} == {"/d/a", "/d/a/x.md", "/d/a/b/y.md"}
    assert below("/ሰነድ") == {"/ሰነድ/🚢.txt"}
    assert below("/d/a/b/y.md") == {"/d/a/b/y.md"}
    assert below("/absent") == set()
    assert below(None) == set(paths)
    [state] = empty.states("/d/a.md")
    assert state == type(state)(stored[4].id, "/d/a.md", "d4", "hash4", 1)


def test_states_go_past_one_page(empty: Store, encoder: HashEncoder) -> None:
    many = [passage(n, f"n{n}", "en") for n in range(1203)]
    empty.upsert(many, encoder.encode_passages([p.text for p in many]))
    assert {s.id for s in empty.states("/docs")} == {p.id for p in many}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[:1], r"\(1, 64\).*expected \(11, 64\)"),
        (lambda e: e[:, :8], r"\(11, 8\)"),
        (lambda e: np.where(np.arange(11)[:, None] == 3, np.nan, e), "embedding 3 .* not finite"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(
    empty: Store, encoder: HashEncoder, change: Callable[[Any], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        empty.upsert(PASSAGES, change(encoder.encode_passages([p.text for p in PASSAGES])))
    assert empty.count() == 0


def test_ids_that_are_no_uuid_are_refused(empty: Store, encoder: HashEncoder) -> None:
    with pytest.raises(ValueError, match="'doc-1' is no UUID"):
        empty.upsert([dataclasses.replace(PASSAGES[0], id="doc-1")], encoder.encode_passages(["x"]))


# ---------------------------------------------------------------------- search


@pytest.mark.parametrize("n", range(len(TEXTS) - 1))
def test_every_passage_is_found_by_its_own_words(store: Store, encoder: HashEncoder, n: int) -> None:
    lang, text = TEXTS[n]
    dense, sparse = embed(encoder, text), sparse_query(text, lang)
    for hits in (store.search(dense=dense), store.search(sparse=sparse), store.search(dense=dense, sparse=sparse)):
        assert hits[0].passage == PASSAGES[n]
        assert [h.rank for h in hits] == list(range(1, len(hits) + 1))
        assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    assert store.search(dense=dense)[0].score == pytest.approx(1.0, abs=1e-5)


def test_k_and_language_limit_every_kind_of_search(store: Store, encoder: HashEncoder) -> None:
    dense, sparse = embed(encoder, "The ferry leaves"), sparse_query("The ferry leaves 渡輪九點出發 渡轮九点出发", "en")
    for query in ({"dense": dense}, {"sparse": sparse}, {"dense": dense, "sparse": sparse}):
        assert len(store.search(**query, k=1)) == 1
        assert {h.passage.lang for h in store.search(**query, lang="en")} == {"en"}
        assert {h.passage.lang for h in store.search(**query, lang="zh")} == {"zh", "zh-Hant"}
        assert store.search(**query, lang="sw") == []
    assert len(store.search(dense=dense, k=100)) == len(PASSAGES)


def test_scores_are_those_of_the_search(store: Store, encoder: HashEncoder) -> None:
    dense, sparse = embed(encoder, "The ferry leaves"), sparse_query("The ferry leaves", "en")
    in_english: dict[str, Any] = {"sparse": sparse, "sparse_lang": "en"}
    for query in ({"dense": dense}, {"sparse": sparse}, in_english, {"dense": dense, "lang": "zh"}):
        expected = [h.score for h in store.search(**query, k=100)]
        assert store.scores(**query).tolist() == pytest.approx(expected, abs=1e-6)
    assert len(store.scores(dense=dense, k=3)) == 3
    assert len(store.scores(sparse=sparse_query("😀", "en"))) == 0


def test_rare_terms_are_rare_in_the_query_s_language(empty: Store, encoder: HashEncoder) -> None:
    """Over the whole corpus `the` is rarer than `boat`; among English passages it is in every one."""
    texts = ["the cat", "the dog", "the boat", *(f"boat {n}" for n in range(40))]
    stored = [passage(n, text, "xx" if n < 3 else "yy") for n, text in enumerate(texts)]
    empty.upsert(stored, encoder.encode_passages(texts))
    query = sparse_query("the", "xx")
    overall = empty.search(sparse=query, k=1)[0].score
    assert empty.search(sparse=query, k=1, sparse_lang="xx")[0].score < overall / 2


def test_rrf_is_the_engine_s_with_k_60(empty: Store) -> None:
    """a: dense rank 1, sparse rank 2; b: dense rank 2, sparse rank 1; c: dense rank 3 only."""
    a, b, c = passage(0, "boat", "xx"), passage(1, "boat ferry", "xx"), passage(2, "ሰላም", "xx")
    empty.upsert([a, b, c], np.eye(3, 64, dtype=np.float32))
    dense = np.zeros(64, dtype=np.float32)
    dense[:3] = (1.0, 0.8, 0.1)
    sparse = sparse_query("boat ferry", "xx")
    hits = empty.search(dense=dense, sparse=sparse)
    tied = sorted([a.id, b.id])
    assert [h.passage.id for h in hits] == [*tied, c.id]
    assert [h.score for h in hits] == pytest.approx([1 / 60 + 1 / 61] * 2 + [1 / 62], rel=1e-5)
    hits = empty.search(dense=dense, sparse=sparse, weights=(1.0, 0.5), rrf_k=2)  # rank r counts as r / weight
    assert [h.passage.id for h in hits] == [a.id, b.id, c.id]
    assert [h.score for h in hits] == pytest.approx([1 / 2 + 1 / 5, 1 / 3 + 1 / 3, 1 / 4], rel=1e-5)
    hits = empty.search(dense=dense, sparse=sparse, weights=(1.0, 1.5), rrf_k=1)  # weight / rank
    assert [h.passage.id for h in hits] == [b.id, a.id, c.id]
    assert [h.score for h in hits] == pytest.approx([1 / 2 + 1.5, 1 + 1.5 / 2, 1 / 3], rel=1e-5)


@pytest.mark.parametrize("k", [1, 3, 10, 30])
def test_equal_scores_are_ordered_by_id_across_the_cut(empty: Store, encoder: HashEncoder, k: int) -> None:
    same = [passage(n, "одинаковый текст", "ru") for n in range(40)]
    best = passage(99, "одинаковый", "ru")
    for one in [*same[20:], best, *same[:20]]:  # the order of arrival is not the order of ids
        empty.upsert([one], encoder.encode_passages([one.text]))
    ids = sorted(p.id for p in same)
    assert [h.passage.id for h in empty.search(dense=embed(encoder, "одинаковый"), k=k)] == [best.id, *ids][:k]
    assert [h.passage.id for h in empty.search(sparse=sparse_query("текст", "ru"), k=k)] == ids[:k]


def test_a_long_run_of_equal_scores_is_not_fetched_whole() -> None:
    """Twenty thousand copies of a passage were, each with its text, for ten hits; a strict server refuses so many."""
    asked: list[int] = []

    def ask(limit: int) -> list[models.ScoredPoint]:
        asked.append(limit)
        return [models.ScoredPoint(id=n, version=0, score=0.5) for n in range(20_000)][:limit]

    assert len(_top(ask, 10)) == 10
    assert max(asked) == 1010


def test_an_empty_corpus_answers_with_nothing(empty: Store, encoder: HashEncoder) -> None:
    assert empty.search(dense=embed(encoder, "hello"), sparse=sparse_query("hello", "en")) == []
    assert empty.search(sparse=sparse_query("hello", "en"), sparse_lang="en") == []
    assert (empty.count(), empty.languages(), list(empty.states()), empty.passages([])) == (0, {}, [], [])
    empty.upsert([], np.zeros((0, 64), dtype=np.float32))
    empty.delete([])
    empty.optimize()


def test_queries_without_terms_are_answered_by_the_dense_ranking(store: Store, encoder: HashEncoder) -> None:
    emoji = sparse_query("😀", "und")
    assert store.search(sparse=emoji) == []
    dense = embed(encoder, "ferry")
    found, alone = store.search(dense=dense, sparse=emoji), store.search(dense=dense)
    assert [h.passage.id for h in found] == [h.passage.id for h in alone]
    assert [h.score for h in found] == pytest.approx([h.score for h in alone])  # a float32 sum's order is free


def test_wrong_searches_are_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="k=0"):
        store.search(dense=np.ones(64), k=0)
    with pytest.raises(ValueError, match="dense, sparse, or both"):
        store.search()
    with pytest.raises(ValueError, match=r"\(1, 64\): expected \(64,\)"):
        store.search(dense=np.ones((1, 64)))


# ---------------------------------------------------------------------- identity and life


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    return tmp_path / "store"


def test_an_embedded_corpus_is_there_the_next_time(folder: Path, encoder: HashEncoder) -> None:
    with open_store(folder, "town", encoder) as store:
        store.upsert(PASSAGES, encoder.encode_passages([p.text for p in PASSAGES]))
        before = store.search(dense=embed(encoder, "ferry"), sparse=sparse_query("ferry", "en"))
        store.optimize()
    assert [f.name for f in folder.iterdir()] == [f"town--{encoder.fingerprint}"]
    with open_store(folder, "town", encoder, create=False) as store:
        assert store.search(dense=embed(encoder, "ferry"), sparse=sparse_query("ferry", "en")) == before


def test_a_corpus_of_another_encoder_is_refused(folder: Path, encoder: HashEncoder) -> None:
    other = HashEncoder("b")
    open_store(folder, "town", encoder).close()
    with pytest.raises(FingerprintMismatch, match=f"{encoder.fingerprint}.*{other.fingerprint}.*reindex --corpus town"):
        open_store(folder, "town", other)
    open_store(folder, "town2", other).close()  # a name may begin as another does
    assert len(list(folder.iterdir())) == 2


def test_the_encoder_s_other_facts_are_compared_too(folder: Path, encoder: HashEncoder) -> None:
    open_store(folder, "town", encoder).close()
    encoder.max_length = 128
    for _ in range(2):
        with pytest.raises(FingerprintMismatch, match="max_length is 512, expected 128"):
            open_store(folder, "town", encoder)


def test_a_missing_corpus_is_refused_where_it_should_exist(folder: Path, encoder: HashEncoder) -> None:
    with pytest.raises(CorpusNotFound, match="what is there: nothing"):
        open_store(folder, "town", encoder, create=False)
    assert not folder.exists()
    open_store(folder, "river", encoder).close()
    with pytest.raises(CorpusNotFound, match="what is there: river"):
        open_store(folder, "town", encoder, create=False)


@pytest.mark.parametrize("name", ["", "a/b", "..", "../up", "a--b", "-a", "a.", "ሰነድ", "a b", "a\x00", "a" * 65, "a\n"])
def test_unsafe_corpus_names_are_refused(folder: Path, encoder: HashEncoder, name: str) -> None:
    with pytest.raises(StoreError, match="corpus name"):
        open_store(folder, name, encoder)
    assert not folder.exists()


def test_locations_that_are_none_are_refused(encoder: HashEncoder) -> None:
    with pytest.raises(StoreError, match="give a folder, ':memory:', or a server's URL"):
        open_store("postgres://db", "town", encoder)
    with pytest.raises(StoreError, match="is it running there"):
        open_store("http://127.0.0.1:9", "town", encoder)  # the discard port: nothing listens


def test_without_the_engine_a_path_is_refused(
    tmp_path: Path, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ragkit.edge", None)  # what a missing wheel looks like to import
    with pytest.raises(StoreError, match=r"Install qdrant-edge-py.*URL of a Qdrant server"):
        open_store(tmp_path, "town", encoder)


CHILD = """
import sys
sys.path.insert(0, "tests")
from conftest import HashEncoder
from test_store import PASSAGES
from ragkit.store import open_store
encoder = HashEncoder()
store = open_store(sys.argv[1], "town", encoder)
store.upsert(PASSAGES, encoder.encode_passages([p.text for p in PASSAGES]))
print("stored", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_told_the_owner_and_a_killed_one_loses_nothing(folder: Path, encoder: HashEncoder) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "stored\n"
    with pytest.raises(CorpusInUse, match=f"process {child.pid} "):
        open_store(folder, "town", encoder)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    with open_store(folder, "town", encoder) as store:
        assert store.passages([p.id for p in PASSAGES]) == PASSAGES


# ---------------------------------------------------------------------- LlamaIndex


class PlainEmbedding:
    """Made inside the tests: importing LlamaIndex takes a second that the other tests need not wait for."""

    @staticmethod
    def over(encoder: HashEncoder) -> Any:
        from llama_index.core.embeddings import BaseEmbedding

        class Embedding(BaseEmbedding):
            seen: list[str] = []  # noqa: RUF012  (a pydantic field)

            def _get_text_embedding(self, text: str) -> list[float]:
                self.seen.append(text)
                return embed(encoder, text).tolist()

            _get_query_embedding = _get_text_embedding

            async def _aget_query_embedding(self, query: str) -> list[float]:
                return self._get_query_embedding(query)

        return Embedding()


@pytest.mark.filterwarnings("ignore")
def test_plain_llamaindex_reads_and_writes_our_collection(store: Store, encoder: HashEncoder) -> None:
    import asyncio

    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import NodeWithScore, TextNode
    from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

    model = PlainEmbedding.over(encoder)
    index = VectorStoreIndex.from_vector_store(store.vector_store, embed_model=model)
    thai = next(p for p in PASSAGES if p.lang == "th")

    def first(found: list[NodeWithScore]) -> tuple[str, str]:
        return found[0].node.node_id, found[0].node.get_content()

    assert first(index.as_retriever().retrieve(thai.text)) == (thai.id, thai.text)
    for mode in ("default", "sparse", "hybrid"):
        retriever = index.as_retriever(vector_store_query_mode=mode, sparse_top_k=3)
        assert first(retriever.retrieve(thai.text)) == (thai.id, thai.text)
        assert first(asyncio.run(retriever.aretrieve(thai.text))) == (thai.id, thai.text)
    german = MetadataFilters(filters=[MetadataFilter(key="lang", value="de")])
    assert [n.node.metadata["lang"] for n in index.as_retriever(filters=german).retrieve("ferry")] == ["de"]
    [node] = store.vector_store.get_nodes([thai.id])
    assert node.get_content(metadata_mode="embed") == thai.text  # metadata stays out of what is embedded
    assert node.ref_doc_id == f"{thai.path}#{thai.document}"

    added = TextNode(text="Meli ya barua huondoka saa kumi na mbili", metadata={"lang": "sw"})
    index.insert_nodes([added])
    assert model.seen[-1].endswith(added.text)
    [hit] = store.search(sparse=sparse_query("meli ya barua", "sw"), lang="sw")
    assert (hit.passage.id, hit.passage.text, hit.passage.path) == (added.node_id, added.text, "")
    assert hit.passage.document == ""  # LlamaIndex stores the word None
    assert added.node_id not in {s.id for s in store.states()}  # ingestion leaves alone what it did not bring

    store.vector_store.delete(f"{thai.path}#{thai.document}")
    assert store.passages([thai.id]) == []
