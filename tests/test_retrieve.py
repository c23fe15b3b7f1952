"""Which passages come first, and when BM25 is heard. The store is a real one, in memory."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from conftest import HashEncoder

from ragkit import TASKS, Task
from ragkit.retrieve import Fusion, Retriever, stands_out, take_positions
from ragkit.retriever import TaskQuery, TaskRetriever
from ragkit.store import Store, open_store
from ragkit.types import Hit, Passage, Where

ENGLISH = [
    "The lost property office of the harbour is open until five",
    "The library of the harbour is closed on the first Monday",
    "Tickets for the mountain railway are sold at the kiosk",
]
THAI = ["สำนักงานของหายอยู่ที่ท่าเรือ เปิดถึงห้าโมงเย็น", "ตั๋วรถไฟสายภูเขาขายที่ซุ้ม"]
AMHARIC = ["የጠፉ ዕቃዎች ቢሮ በወደቡ ይገኛል"]


def passage(text: str, lang: str) -> Passage:
    return Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, text)), text, lang, text[:9], f"/{lang}.md", 0, "h", 1)


PASSAGES = [passage(text, lang) for lang, texts in (("en", ENGLISH), ("th", THAI), ("am", AMHARIC)) for text in texts]


class PickyEncoder(HashEncoder):
    """Knows which passage each query means, whatever its language: the dense ranking is right by decree."""

    def __init__(self, meant: dict[str, str]) -> None:
        super().__init__()
        self.meant = meant
        self.prompts: list[str] = []

    def encode_queries(self, queries: list[str], task: Task) -> np.ndarray:
        self.prompts += [task.prompt(query) for query in queries]
        return self._embed([self.meant.get(query, query) for query in queries])


ENGLISH_QUERY = "Where is the lost property office of the harbour?"
RAILWAY_QUERY = "Where do I buy what the conductor of the old cable car wants to see?"
MEANT = {RAILWAY_QUERY: THAI[1], ENGLISH_QUERY: ENGLISH[1], "ของหาย": ENGLISH[0], "🎫": THAI[1]}


@pytest.fixture
def picky() -> PickyEncoder:
    return PickyEncoder(MEANT)


@pytest.fixture
def store(picky: PickyEncoder) -> Iterator[Store]:
    with open_store(":memory:", "town", picky) as store:
        store.upsert(PASSAGES, picky.encode_passages([p.text for p in PASSAGES]))
        yield store


def texts(hits: list) -> list[str]:
    return [hit.passage.text for hit in hits]


def test_dense_and_sparse_are_their_own_rankings(store: Store, picky: PickyEncoder) -> None:
    retriever = Retriever(store, picky)
    assert texts(retriever.search(ENGLISH_QUERY, mode="dense"))[0] == ENGLISH[1]
    assert texts(retriever.search(ENGLISH_QUERY, mode="sparse"))[0] == ENGLISH[0]
    assert texts(retriever.search("สำนักงานของหาย", mode="sparse"))[0] == THAI[0]
    assert texts(retriever.search("ቢሮው የት ነው", mode="sparse")) == AMHARIC


def test_hybrid_fuses_and_its_lean_decides_between_two_firsts(store: Store, picky: PickyEncoder) -> None:
    """Dense puts the library first and BM25 the lost property office: fused, both precede all others."""
    hits = Retriever(store, picky).search(ENGLISH_QUERY, mode="hybrid")
    assert set(texts(hits)[:2]) == {ENGLISH[0], ENGLISH[1]}
    assert [hit.score for hit in hits] == [1 / hit.rank for hit in hits] == [1 / n for n in range(1, len(hits) + 1)]
    for lean, first in ((100.0, ENGLISH[0]), (0.01, ENGLISH[1])):
        fused = Retriever(store, picky, Fusion(lean=lean, lift=2.0)).search(ENGLISH_QUERY, mode="hybrid")
        assert texts(fused)[0] == first


def test_shared_words_do_not_push_out_another_language(store: Store, picky: PickyEncoder) -> None:
    """BM25 finds `the`, `of`, `where` in English passages; the answer is Thai. Of the dense ranking's positions
    those of English passages stay English, and all others keep their passages."""
    retriever = Retriever(store, picky)
    assert texts(retriever.search(RAILWAY_QUERY, mode="sparse"))[0] in ENGLISH
    dense, hybrid = (retriever.search(RAILWAY_QUERY, mode=mode) for mode in ("dense", "hybrid"))
    assert texts(hybrid)[0] == THAI[1]
    assert [h.passage.lang for h in hybrid] == [h.passage.lang for h in dense]
    assert [t for t in texts(hybrid) if t not in ENGLISH] == [t for t in texts(dense) if t not in ENGLISH]
    assert sorted(texts(hybrid)) == sorted(texts(dense))


def test_strong_evidence_lifts_the_fused_best_to_the_top(store: Store, picky: PickyEncoder) -> None:
    picky.meant[ENGLISH[2]] = THAI[0]  # the query is a passage word for word, the dense ranking errs
    retriever = Retriever(store, picky)
    assert texts(retriever.search(ENGLISH[2], mode="dense"))[0] == THAI[0]
    assert texts(retriever.search(ENGLISH[2]))[:2] == [ENGLISH[2], THAI[0]]
    assert len(retriever.search(ENGLISH[2], k=2)) == 2
    unlifted = Retriever(store, picky, Fusion(lift=1.1)).search(ENGLISH[2])
    assert texts(unlifted)[0] == THAI[0]


def test_without_passages_in_the_query_s_language_hybrid_is_dense(store: Store, picky: PickyEncoder) -> None:
    store.delete([p.id for p in PASSAGES if p.lang == "th"])
    retriever = Retriever(store, picky)
    assert texts(retriever.search("ของหาย")) == texts(retriever.search("ของหาย", mode="dense"))
    assert texts(retriever.search("ของหาย"))[0] == ENGLISH[0]
    english = [retriever.search("ของหาย", mode=mode, lang="en") for mode in ("hybrid", "dense")]
    assert texts(english[0]) == texts(english[1])


def test_any_tag_of_a_language_narrows_to_it(store: Store, picky: PickyEncoder) -> None:
    retriever = Retriever(store, picky)
    for mode in ("dense", "sparse", "hybrid"):
        for tag in ("am", "AM", "amh", "am_ET"):
            assert texts(retriever.search("ቢሮው የት ነው", mode=mode, lang=tag)) == AMHARIC
        assert retriever.search("ቢሮው የት ነው", mode=mode, lang="und") == []
    with pytest.raises(ValueError, match="'Amharic' is no language code"):
        retriever.search("ቢሮው የት ነው", lang="Amharic")


def test_how_far_the_best_stands_out() -> None:
    assert stands_out(np.array([3.0, 1.0, 1.0, 1.0])) == pytest.approx(1.5 / np.sqrt(0.75))
    clear, flat = np.array([9.0, *[1.0] * 20]), np.array([1.1, *np.linspace(1, 0.9, 20)])
    assert stands_out(clear) > stands_out(flat) > 0
    assert stands_out(2 * flat + 7) == pytest.approx(stands_out(flat))  # cosines and BM25 have no common scale
    for nothing_to_compare in ([], [2.0], [2.0, 1.0], [0.5, 0.5, 0.5]):
        assert stands_out(np.array(nothing_to_compare)) == 1.0


def test_positions_of_a_language_are_refilled_in_order() -> None:
    overall = [Hit(n, 1.0, passage(f"{lang}{n}", lang)) for n, lang in enumerate(["zh", "th", "zh-Hant", "am", "zh"])]
    fused = [Hit(0, 1.0, passage(name, "zh")) for name in ("first", "second")]
    assert texts(take_positions(overall, fused, "zh")) == ["first", "th1", "second", "am3", "zh4"]
    assert take_positions(overall, fused, "ja") == overall


def test_texts_without_language_search_all_passages(store: Store, picky: PickyEncoder) -> None:
    number = passage("ሰረገላ BR-218", "am")
    store.upsert([number], picky.encode_passages([number.text]))
    retriever = Retriever(store, picky)
    assert texts(retriever.search("218", mode="sparse")) == [number.text]
    assert number.text in texts(retriever.search("218", k=2))
    assert texts(retriever.search("🎫"))[0] == THAI[1]  # no terms at all: dense
    assert retriever.search("🎫", mode="sparse") == []
    for query in ("", "\ud800"):
        assert len(retriever.search(query, k=3)) == 3


def test_language_and_k_hold_in_every_mode(store: Store, picky: PickyEncoder) -> None:
    retriever = Retriever(store, picky)
    for mode in ("dense", "sparse", "hybrid"):
        hits = retriever.search(ENGLISH_QUERY, mode=mode, lang="en", k=2)
        assert len(hits) == 2
        assert {h.passage.lang for h in hits} == {"en"}
        assert retriever.search(ENGLISH_QUERY, mode=mode, lang="sw") == []
    assert texts(retriever.search(RAILWAY_QUERY, lang="am")) == AMHARIC


def test_a_batch_is_encoded_once_with_the_task_s_prompt(store: Store, picky: PickyEncoder) -> None:
    retriever = Retriever(store, picky)
    queries = [ENGLISH_QUERY, "ของหาย"]
    batch = retriever.search_batch(queries, task=TASKS["fact-checking"], k=3)
    assert picky.prompts == [TASKS["fact-checking"].prompt(query) for query in queries]
    assert batch == [retriever.search(query, k=3) for query in queries]
    assert retriever.search_batch([]) == []
    rows = picky.encode_queries(queries, TASKS["web-search"])
    seen = len(picky.prompts)
    assert retriever.search_batch(queries, k=3, embeddings=rows) == batch
    assert len(picky.prompts) == seen


def test_wrong_use_is_refused(store: Store, picky: PickyEncoder) -> None:
    with pytest.raises(ValueError, match="'best': use 'dense', 'sparse' or 'hybrid'"):
        Retriever(store, picky).search("x", mode="best")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="cannot be compared"):
        Retriever(store, HashEncoder("other"))
    with pytest.raises(ValueError, match="already starts with the prefix"):
        Retriever(store, picky).search(TASKS["sts"].prompt("x"), task=TASKS["sts"])


def test_llamaindex_gets_the_same_hits_as_nodes(store: Store, picky: PickyEncoder) -> None:
    retriever = Retriever(store, picky)
    wrapped = TaskRetriever(retriever, task=TASKS["question-answering"], mode="hybrid", k=2)
    hits = retriever.search(ENGLISH_QUERY, task=TASKS["question-answering"], k=2)
    for found in (wrapped.retrieve(ENGLISH_QUERY), asyncio.run(wrapped.aretrieve(ENGLISH_QUERY))):
        assert [(n.node.node_id, n.score) for n in found] == [(h.passage.id, h.score) for h in hits]
    assert found[0].node.metadata["lang"] == "en"
    assert TASKS["question-answering"].prompt(ENGLISH_QUERY) in picky.prompts


def test_a_bundle_s_own_embedding_is_used(store: Store, picky: PickyEncoder) -> None:
    from llama_index.core.schema import QueryBundle

    [row] = picky.encode_passages([THAI[0]])
    bundle = QueryBundle(ENGLISH_QUERY, embedding=row.tolist())
    [node] = TaskRetriever(Retriever(store, picky), mode="dense", k=1).retrieve(bundle)
    assert node.get_content() == THAI[0]
    assert picky.prompts == []


def test_a_bundle_that_says_what_to_embed_is_searched_by_its_mean(store: Store, picky: PickyEncoder) -> None:
    """As HyDE's, whose answers are made up by a language model."""
    from llama_index.core.schema import QueryBundle

    retriever = TaskRetriever(Retriever(store, picky), mode="dense", k=1)
    [node] = retriever.retrieve(QueryBundle("?", custom_embedding_strs=[AMHARIC[0], AMHARIC[0], THAI[1]]))
    assert node.get_content() == AMHARIC[0]
    assert picky.prompts == [retriever.task.prompt(text) for text in (AMHARIC[0], AMHARIC[0], THAI[1])]


@pytest.mark.parametrize("lang", ["und", None])
def test_words_find_what_has_no_language_beside_what_has(store: Store, picky: PickyEncoder, lang: str | None) -> None:
    part = passage("QX-9931-ZT 12.50 EUR", lang or "und")
    row = picky.encode_passages(["zebra quagga okapi"])  # the embedder is of no help
    store.upsert([part], row)
    if lang is None:  # as LlamaIndex adds it
        store._client.delete_payload(store.collection, keys=["lang"], points=[part.id])
    query = "What does the library charge for QX-9931-ZT?"
    assert texts(Retriever(store, picky).search(query, mode="sparse"))[0] == part.text
    assert part.text in texts(Retriever(store, picky).search(query, k=3))
    assert part.text not in texts(Retriever(store, picky).search(query, lang="en"))


def test_what_is_not_finite_is_no_query(store: Store, picky: PickyEncoder) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Retriever(store, picky).search_batch(["q"], embeddings=np.full((1, picky.dimension), np.nan, np.float32))


# ---------------------------------------------------------------------- a task per request


class Meeting(HashEncoder):
    """Lets no query through until ``count`` are in it at the same time, and notes each one's prompt."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.barrier = threading.Barrier(count, timeout=60)
        self.prompts: list[str] = []

    def encode_queries(self, queries: list[str], task: Task) -> np.ndarray:
        self.barrier.wait()
        self.prompts += [task.prompt(query) for query in queries]
        return self._embed([f"{task.name}-{query}" for query in queries])


def test_requests_at_the_same_time_keep_their_tasks_and_filters() -> None:
    """One retriever, one query engine, eight requests inside the encoder at once: each is answered for its own
    task, and with its own language."""
    from llama_index.core.llms import MockLLM
    from llama_index.core.query_engine import RetrieverQueryEngine
    from llama_index.core.response_synthesizers import get_response_synthesizer

    names = list(TASKS)[:4]
    asked = [TaskQuery(f"q{n}", task=TASKS[name], lang=lang) for lang in ("en", "am") for n, name in enumerate(names)]
    meeting = Meeting(len(asked))
    texts = [(f"{q.task.name}-{q.query_str}", q.lang) for q in asked if q.task and q.lang]
    stored = [passage(f"{text} in {lang}", lang) for text, lang in texts]
    with open_store(":memory:", "town", meeting) as store:
        store.upsert(stored, meeting._embed([text for text, _ in texts]))
        retriever = TaskRetriever(Retriever(store, meeting), mode="dense", k=1)
        engine = RetrieverQueryEngine(retriever, get_response_synthesizer(llm=MockLLM()))

        async def together() -> list[Any]:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(len(asked)))  # all of them meet
            return await asyncio.gather(*(engine.aquery(query) for query in asked))

        found = asyncio.run(together())
        assert [[n.node.get_content() for n in answer.source_nodes] for answer in found] == [[p.text] for p in stored]
        assert sorted(meeting.prompts) == sorted(q.task.prompt(q.query_str) for q in asked if q.task)
        assert (retriever.task, retriever.lang) == (TASKS["web-search"], None)  # nothing of them stays


def test_a_request_without_a_task_gets_the_retriever_s(store: Store, picky: PickyEncoder) -> None:
    retriever = TaskRetriever(Retriever(store, picky), task=TASKS["sts"], mode="dense", lang="th", k=9)
    assert {n.node.metadata["lang"] for n in retriever.retrieve(TaskQuery("x"))} == {"th"}
    assert {n.node.metadata["lang"] for n in retriever.retrieve("x")} == {"th"}
    assert {n.node.metadata["lang"] for n in retriever.retrieve(TaskQuery("x", lang="am"))} == {"am"}
    assert picky.prompts == [TASKS["sts"].prompt("x")] * 3
    found = retriever.retrieve(TaskQuery("x", lang="en", where=Where(source="/en.md")))
    assert [n.node.metadata["path"] for n in found] == ["/en.md"] * 3
    assert retriever.retrieve(TaskQuery("x", lang="en", where=Where(source="/th.md"))) == []


def test_han_alone_may_be_japanese(encoder: HashEncoder):
    """東京 所在地 has no kana: where there is no Chinese, or Japanese is asked for, BM25 is heard on Japanese."""
    japanese = [passage(f"東京都庁の所在地は{n}丁目です", "ja") for n in range(3)] + [
        passage("港の図書館は休みです", "ja")
    ]
    chinese = [passage(f"图书馆在码头旁边{n}号", "zh") for n in range(3)]
    away = HashEncoder()
    with open_store(":memory:", "town", away) as store:
        store.upsert(japanese, away.encode_passages([p.text for p in japanese]))
        asked = Spying(store, "東京 所在地")
        assert asked.homes == ["zh", "ja"]
        store.upsert(chinese, away.encode_passages([p.text for p in chinese]))
        assert Spying(store, "東京 所在地", lang="ja").homes == ["ja"]
        assert Spying(store, "码头 图书馆").homes == ["zh"]
        assert Spying(store, "東京の所在地").homes == ["ja"]


class Spying:
    """In which languages' passages BM25 was looked for."""

    def __init__(self, store: Store, query: str, lang: str | None = None) -> None:
        self.homes: list[str | None] = []
        whole = store.scores

        def scores(**asked: Any) -> np.ndarray:
            if asked.get("sparse"):
                self.homes.append(asked["lang"])
            return whole(**asked)

        store.scores = scores  # type: ignore[method-assign]
        try:
            assert Retriever(store, store.encoder).search(query, lang=lang, k=2)
        finally:
            store.scores = whole  # type: ignore[method-assign]
