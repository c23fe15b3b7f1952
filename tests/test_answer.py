"""Extractive answers: the right sentence, cited by its exact span, or none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder

from ragkit import TASKS, Hit, Passage, Task
from ragkit.answer import extractive_answer, sentence_spans
from ragkit.around import Around, ShortEncoder

TASK = TASKS["question-answering"]


def hit(rank: int, text: str, lang: str = "en") -> Hit:
    return Hit(rank, 1 / rank, Passage(f"id{rank}", text, lang, f"doc{rank}", f"/doc{rank}", 0, "h", 1))


HITS = [
    hit(1, "The ferry Alma sails at nine. Tickets cost four lumo at the quay. Dogs travel free of charge."),
    hit(2, "The museum opens late on Thursdays. It shows ships in bottles."),
]


def test_the_sentence_that_answers_is_cited_to_the_letter(encoder: HashEncoder):
    answer = extractive_answer("what do tickets cost at the quay", HITS, encoder, TASK)
    assert answer.text == "Tickets cost four lumo at the quay. [1]"
    [citation] = answer.citations
    assert citation.hit is HITS[0] and citation.number == 1
    assert citation.quote == "Tickets cost four lumo at the quay."
    assert answer.hits == tuple(HITS)


def test_a_later_hit_can_answer(encoder: HashEncoder):
    answer = extractive_answer("the museum opens late on which Thursdays", HITS, encoder, TASK)
    assert answer.citations[0].hit.rank == 2


def test_the_corpus_may_not_say(encoder: HashEncoder):
    answer = extractive_answer("zebra quagga okapi", HITS, encoder, TASK, threshold=0.5)
    assert answer.text is None and answer.citations == () and answer.hits == tuple(HITS)
    assert extractive_answer("anything", [], encoder, TASK).text is None


class Kept(Around):
    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self.inner.encode_queries(queries, task)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self.inner.encode_passages(passages)


@pytest.mark.parametrize("lang", SCRIPTS)
def test_short_embeddings_refuse_and_answer_as_whole_ones(encoder: HashEncoder, lang: str):
    short = ShortEncoder(encoder, 1)  # every cosine is 1, 0 or -1
    hits = [*HITS, hit(3, f"{SCRIPTS[lang]} {SCRIPTS[lang]}", lang)]
    for asked in ("zebra quagga okapi", "what do tickets cost at the quay", SCRIPTS[lang]):
        given = {
            "question": short.encode_queries([asked], TASK)[0],
            "stored": {h.passage.id: short.encode_passages([h.passage.text])[0] for h in hits},
        }
        for threshold in (0.0, 0.3, 0.6):
            found = extractive_answer(asked, hits, short, TASK, threshold=threshold, **given)
            assert found == extractive_answer(asked, hits, encoder, TASK, threshold=threshold)
            around = Kept(short)  # as the app's memory of embeddings stands around it
            assert found == extractive_answer(asked, hits, around, TASK, threshold=threshold, **given)


@pytest.mark.parametrize("lang", SCRIPTS)
def test_every_script_is_quoted_exactly(encoder: HashEncoder, lang: str):
    text = f"{SCRIPTS[lang]} {SCRIPTS[lang]}\n{SCRIPTS[lang]}"
    answer = extractive_answer(SCRIPTS[lang], [hit(1, text, lang)], encoder, TASK)
    [citation] = answer.citations
    assert citation.quote and text[citation.start : citation.end] == citation.quote
    assert answer.text == f"{citation.quote} [1]"


def test_repeated_sentences_have_their_own_spans():
    spans = sentence_spans(hit(1, "Closed on Mondays. Open else. Closed on Mondays."))
    assert spans == [(0, 18), (19, 29), (30, 48)]
    assert sentence_spans(hit(1, "Yes.")) == [(0, 4)]


def test_a_title_is_no_answer(encoder: HashEncoder):
    text = "What the ferry costs\nAdults pay nine lumo on the ferry."
    titled = Hit(1, 1.0, Passage("id", text, "en", "doc", "/doc", 0, "h", 1, title="What the ferry costs"))
    assert (
        extractive_answer("What the ferry costs", [titled], encoder, TASK).text
        == "Adults pay nine lumo on the ferry. [1]"
    )


def test_what_the_search_and_the_store_know_is_not_embedded_again(encoder: HashEncoder):
    query = "what do tickets cost at the quay"
    question = encoder.encode_queries([query], TASK)[0]
    whole = extractive_answer(query, HITS, encoder, TASK)
    row = encoder.encode_passages([HITS[0].passage.text])[0]
    for stored, left in ({}, 2), ({"other": row}, 2), ({"id1": row}, 1), ({"id1": row, "id2": 9 * question}, 0):
        before, sentences = encoder.encoded, sum(len(sentence_spans(hit)) for hit in HITS)
        answer = extractive_answer(query, HITS, encoder, TASK, question=question, stored=stored)
        assert encoder.encoded - before == sentences + left
        assert answer.citations[0].quote == whole.citations[0].quote or "id2" in stored
    # an embedding that is given is the one that counts: here the second passage outdoes all
    assert answer.citations[0].hit is HITS[1]


@pytest.mark.parametrize(
    ("lang", "text", "sentences"),
    [
        ("zh", "港口图书馆平日上午九点开门。星期六十点开门。票价是五元。儿童免费。", 4),
        ("ja", "図書館は九時に開きます。土曜は十時です。料金は五円です。", 3),
        ("ko", "도서관은 아홉 시에 문을 엽니다. 토요일은 열 시. 요금은 5원. 무료예요.", 4),
        ("en", "Fees\nThe library opens at nine. It is free. No.", 2),
        ("hi", "पुस्तकालय नौ बजे खुलता है। शुल्क पाँच है।", 2),
    ],
)
def test_short_sentences_can_answer_too(lang: str, text: str, sentences: int):
    assert len(sentence_spans(hit(1, text, lang))) == sentences
