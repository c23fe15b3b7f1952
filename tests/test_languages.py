"""The Languages page's numbers, on cases small enough to count by hand."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder, opened

from apps import languages, maps
from apps.languages import Found, Share
from ragkit.evaluate import Questions
from ragkit.retrieve import Retriever
from ragkit.task import TASKS
from ragkit.types import Passage

TASK = TASKS["question-answering"]
ROOT = Path(__file__).parents[1]


def questions(languages: dict[str, str], qrels: dict[str, dict[str, int]]) -> Questions:
    return Questions({q: f"text of {q}" for q in languages}, languages, qrels)


def ranking(*documents: str, lang: str = "en") -> tuple[Found, ...]:
    return tuple(Found(document, lang) for document in documents)


# ---------------------------------------------------------------------- quality


def test_a_cell_is_the_mean_over_its_questions_and_an_empty_one_is_not_there() -> None:
    asked = questions(
        {"1": "am", "2": "am", "3": "th", "4": "th"}, {"1": {"zh1": 1}, "2": {"zh2": 1}, "3": {"ja1": 1}, "4": {}}
    )
    run = {
        "1": ranking("zh1", "x"),
        "2": ranking("x", "y", "zh2", "zh2", "z"),  # third; a document's second passage takes no place
        "3": ranking(*(f"x{n}" for n in range(10)), "ja1"),  # eleventh
    }
    found = languages.matrix(asked, run, {"zh1": "zh", "zh2": "zh", "ja1": "ja"})
    assert found.cells.keys() == {("am", "zh"), ("th", "ja")}
    assert found.cells["am", "zh"].questions == 2
    assert found.cells["am", "zh"].scores == pytest.approx({"recall@10": 1.0, "ndcg@10": (1 + 1 / math.log2(4)) / 2})
    assert found.cells["th", "ja"].scores == {"recall@10": 0.0, "ndcg@10": 0.0}
    assert found.rows["am"] == found.columns["zh"] == found.cells["am", "zh"]
    assert found.total.questions == 3 and found.total.scores["recall@10"] == pytest.approx(2 / 3)


def test_answers_in_two_languages_count_in_two_cells_and_do_not_crowd_each_other_out() -> None:
    asked = questions({"1": "ar"}, {"1": {**{f"en{n}": 1 for n in range(10)}, "hi1": 1, "hi2": 2, "not": 0}})
    documents = {**{f"en{n}": "en" for n in range(10)}, "hi1": "hi", "hi2": "hi", "not": "hi"}
    run = {"1": ranking(*(f"en{n}" for n in range(10)), "hi2")}
    found = languages.matrix(asked, run, documents)
    assert found.cells["ar", "en"].scores == {"recall@10": 1.0, "ndcg@10": 1.0}
    hindi = found.cells["ar", "hi"].scores  # first of those that are not answers in English: gain 2 of 2 + 1 / log2(3)
    assert hindi == pytest.approx({"recall@10": 0.5, "ndcg@10": 2 / (2 + 1 / math.log2(3))})
    assert found.rows["ar"].questions == 2


def test_what_is_not_stored_is_told_apart_from_what_is_not_found() -> None:
    asked = questions({"1": "am", "2": "am"}, {"1": {"here": 1, "gone": 1}, "2": {"away": 1}})
    found = languages.matrix(asked, {}, {"here": "zh"})
    assert found.missing == ("away", "gone") and found.total.questions == 1 and found.total.scores["recall@10"] == 0
    with pytest.raises(ValueError, match="none of the 3 documents"):
        languages.matrix(asked, {}, {})


# ---------------------------------------------------------------------- bias


def test_shares_of_what_was_found_against_the_corpus() -> None:
    asked = questions({"1": "fr", "2": "de"}, {})
    run = {"1": (Found("a", "en"), Found("b", "en"), Found("c", "zh")), "2": (Found("a", "en"), Found("b", "am"))}
    bias = languages.top_k_bias(asked, run, {"am": 2, "en": 1, "zh": 1}, {}, k=2)
    assert bias.questions == 2 and bias.own is None  # the corpus speaks neither
    assert bias.languages == (Share("en", 0.75, 0.25), Share("am", 0.25, 0.5), Share("zh", 0.0, 0.25))
    assert [share.ratio for share in bias.languages] == [3.0, 0.5, 0.0]
    alone = languages.top_k_bias(asked, run, {"am": 2, "en": 1, "zh": 1}, {}, k=2, lang="fr")
    assert alone.questions == 1 and alone.languages[0] == Share("en", 1.0, 0.25)


def test_a_question_s_own_language_is_weighed_without_the_answers() -> None:
    asked = questions({"1": "zh", "2": "en", "3": "am"}, {})
    answers = {"1": {"en"}, "2": {"en"}, "3": {"zh-Hant"}}
    corpus = {"en": 4, "zh": 1, "zh-Hant": 1, "am": 2}
    run = {
        "1": (Found("a", "en"), Found("b", "zh-Hant"), Found("c", "am")),  # of b and c one; by lot 2 * 2 / 4
        "2": (Found("a", "en"),),  # has an answer at home: says nothing
        "3": (Found("a", "zh"), Found("b", "zh-Hant"), Found("c", "en")),  # of c none; by lot 1 * 2 / 6
    }
    own = languages.top_k_bias(asked, run, corpus, answers).own
    assert own and own.found == pytest.approx(1 / 3) and own.expected == pytest.approx((1 + 1 / 3) / 3)
    assert own.ratio == pytest.approx(0.75)


def test_nothing_found_is_no_division_by_zero() -> None:
    asked = questions({"1": "en"}, {})
    assert languages.top_k_bias(asked, {}, {"en": 3}, {}).languages == (Share("en", 0.0, 1.0),)
    assert languages.top_k_bias(asked, {}, {}, {}).languages == ()
    assert math.isnan(Share("en", 0.0, 0.0).ratio)


def test_neighbours_of_one_label_against_chance() -> None:
    two = np.repeat(np.eye(2, dtype=np.float32), 3, axis=0)  # three rows each way
    assert languages.neighbour_bias(two, ["am"] * 3 + ["th"] * 3, k=2) == Share("", 1.0, 2 / 5)
    assert languages.neighbour_bias(two, ["am", "th", "zh"] * 2, k=2) == Share("", 0.0, 1 / 5)
    assert languages.neighbour_bias(two, ["am"] * 6, k=50).ratio == 1.0  # all five others, all alike
    strewn = np.random.default_rng(0).normal(size=(600, 32)).astype(np.float32)
    strewn /= np.linalg.norm(strewn, axis=1, keepdims=True)
    assert languages.neighbour_bias(strewn, ["am", "th", "zh"] * 200).ratio == pytest.approx(1.0, abs=0.1)
    for rows, labels in ((two[:1], ["am"]), (two, ["am"])):
        with pytest.raises(ValueError, match="a label each"):
            languages.neighbour_bias(rows, labels)


# ---------------------------------------------------------------------- asking a real store


def test_questions_are_embedded_once_for_every_mode(location: str, encoder: HashEncoder) -> None:
    asked = Questions(dict(SCRIPTS), {lang: lang for lang in SCRIPTS}, {lang: {f"d-{lang}": 1} for lang in SCRIPTS})
    passages = [
        Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, lang)), text, lang, f"d-{lang}", "/a", 0, "h", 1)
        for lang, text in SCRIPTS.items()
    ]
    told: list[tuple[int, int]] = []
    embeddings = languages.embed_questions(encoder, asked, TASK, lambda *done: told.append(done), batch=3)
    assert told == [(3, 7), (6, 7), (7, 7)]
    np.testing.assert_array_equal(embeddings, encoder.encode_queries(list(SCRIPTS.values()), TASK))
    assert languages.embed_questions(encoder, questions({}, {}), TASK).shape == (0, encoder.dimension)
    with opened(location, encoder) as store:
        store.upsert(passages, encoder.encode_passages([p.text for p in passages]))
        retriever = Retriever(store, encoder)
        encoder.encode_queries = None  # type: ignore[method-assign]  # who embeds again fails
        documents = store.document_languages([f"d-{lang}" for lang in SCRIPTS])
        for mode in ("dense", "sparse", "hybrid"):
            run = languages.ask_all(retriever, asked, embeddings, mode=mode)
            found = languages.matrix(asked, run, documents)
            assert found.cells.keys() == {(lang, lang) for lang in SCRIPTS}
            first = {lang: run[lang][0] for lang in SCRIPTS if run[lang]}  # emoji have no terms for BM25
            assert first == {lang: Found(f"d-{lang}", lang) for lang in SCRIPTS if mode != "sparse" or lang != "emoji"}
    assert languages.answer_languages(asked, documents) == {lang: {lang} for lang in SCRIPTS}


# ---------------------------------------------------------------------- map


def clouds(groups: int, each: int, dimension: int = 64) -> np.ndarray:
    """Unit rows (groups * each, D) about as many directions."""
    rng = np.random.default_rng(3)
    rows = np.repeat(np.eye(groups, dimension), each, axis=0) + rng.normal(size=(groups * each, dimension)) * 0.05
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_a_map_keeps_neighbours_and_is_the_same_again() -> None:
    rows = clouds(10, 25)
    before = time.process_time()
    places = maps.project(rows)
    assert time.process_time() - before < 20  # about 1 s alone; a limit against another order of growth
    assert places.shape == (250, 2) and np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    nearest = np.argsort(distances, axis=1)[:, 1:11]
    assert (nearest // 25 == np.arange(250)[:, None] // 25).mean() > 0.98
    np.testing.assert_array_equal(places, maps.project(rows))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 9, 10, 12])
def test_a_small_or_flat_corpus_has_a_map_too(n: int) -> None:
    assert np.isfinite(maps.project(clouds(3, 4)[:n])).all()
    same = maps.project(np.repeat(clouds(1, 1), n, axis=0))
    assert same.shape == (n, 2) and np.isfinite(same).all()


def test_topics_are_named_by_the_passage_in_their_middle() -> None:
    def passage(n: int, lang: str, title: str) -> Passage:
        return Passage(str(n), "the first words", lang, f"d{n}", "", n, "h", 1, title)

    rows = np.array([[1, 0.3], [1, 0], [1, -0.3], [0, 1], [0.1, 1]], np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    passages = [
        passage(0, "en", "a"),
        passage(1, "ar", "وسط"),
        passage(2, "en", "b"),
        passage(3, "th", ""),
        passage(4, "th", ""),
    ]
    labels, topics = maps.topics(passages, rows, most=2)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert [(t.title, t.lang, t.passages, t.languages) for t in topics] == [
        ("وسط", "ar", 3, {"en": 2, "ar": 1}),
        ("the first words", "th", 2, {"th": 2}),
    ]
    assert maps.topics([], rows[:0])[1] == ()
    assert len(maps.topics(passages[:2], rows[[0, 0]], most=12)[1]) == 1  # twice the same: one topic


# ---------------------------------------------------------------------- the demo


@pytest.mark.skipif("RAGKIT_PROVE" not in os.environ, reason="RAGKIT_PROVE: ingests the demo with mini, minutes")
def test_the_demo_says_what_its_page_shows(tmp_path: Path) -> None:
    from ragkit.encoder import LocalEncoder
    from ragkit.store import open_store

    folder = ROOT / "apps" / "corpus" / "mul"
    program = "from ragkit.cli import main; main()"
    command = [sys.executable, "-c", program, "ingest", str(folder / "corpus.jsonl"), "--corpus", "selvara"]
    subprocess.run(command, check=True, cwd=ROOT, env=os.environ | {"RAGKIT_STORE": str(tmp_path)})
    encoder = LocalEncoder.load("mini")
    asked = languages.read_questions(folder)
    with open_store(tmp_path, "selvara", encoder, create=False) as store:
        documents = store.document_languages(sorted({d for judged in asked.qrels.values() for d in judged}))
        written = map(json.loads, (folder / "corpus.jsonl").read_text("utf-8").splitlines())
        assert documents.items() <= {record["_id"]: record["lang"] for record in written}.items()
        answers = languages.answer_languages(asked, documents)
        embeddings = languages.embed_questions(encoder, asked, TASK)
        for mode in ("dense", "sparse", "hybrid"):
            run = languages.ask_all(Retriever(store, encoder), asked, embeddings, mode=mode)
            found = languages.matrix(asked, run, documents)
            bias = languages.top_k_bias(asked, run, store.languages(), answers)
            print(mode, found.total, bias.own, bias.own and bias.own.ratio, [(s.name, s.ratio) for s in bias.languages])
            assert not found.missing and all(asked != answered for asked, answered in found.cells)
        passages, rows = store.sample(maps.SAMPLE)
        assert len(passages) == store.count()
        for labels, vectors in (
            ([p.lang for p in passages], rows),
            (list(asked.languages.values()), embeddings),
        ):
            share = languages.neighbour_bias(vectors, labels)
            print(share, share.ratio)
            assert share.ratio > 0
