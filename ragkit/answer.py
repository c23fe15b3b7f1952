"""Hits -> an answer that can be checked: every marker ``[n]`` points into a passage that was retrieved.

Without a language model the answer is extractive: the sentence that the embedder finds nearest to the
question, word for word, in the language of its document. Where even the nearest passage lies below the
model's threshold, the answer is that the corpus does not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import regex

from ragkit.around import whole
from ragkit.split import split_sentences
from ragkit.task import Task
from ragkit.types import Answer, Citation, Hit

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

READ = 3  # hits that are searched for the sentence
SHORT = 12  # characters: what is shorter is a heading or a number, not an answer, unless it is a sentence all the same
_SENTENCE = regex.compile(r"(?:\p{L}\P{L}*){4}\p{STerm}[\p{Pe}\p{Pf}\p{Pi}\"']*")


def extractive_answer(
    query: str,
    hits: Sequence[Hit],
    encoder: Encoder,
    task: Task,
    *,
    threshold: float = 0.0,
    question: np.ndarray | None = None,
    stored: Mapping[str, np.ndarray] | None = None,
) -> Answer:
    """The best sentence of the first hits, cited; ``text`` is None where no passage reaches ``threshold``.

    ``threshold`` is a cosine between query and passage and belongs to the model
    (``LocalEncoder.answer_threshold``). A sentence is judged by its own cosine and its passage's together:
    alone it often lacks what its passage is about.

    Nothing need be embedded twice: ``question`` is the query's embedding (D,) if the search had one, ``stored`` the
    passages' by id (``Store.embeddings``). What is not given is computed. Short embeddings serve the store alone: their
    cosines are higher, so ``threshold`` would mean nothing, and whole ones are computed here.
    """
    if (judge := whole(encoder)) is not encoder:
        encoder, question, stored = judge, None, None
    read = list(hits[:READ])
    if not read:
        return Answer(None, hits=tuple(hits))
    if question is None:
        question = encoder.encode_queries([query], task)[0]
    known = dict(stored or {})
    unknown = [hit.passage for hit in read if hit.passage.id not in known]
    if unknown:
        rows = encoder.encode_passages([passage.text for passage in unknown])
        known |= {passage.id: row for passage, row in zip(unknown, rows, strict=True)}
    passages = np.stack([known[hit.passage.id] for hit in read]) @ question  # (H,)
    if float(passages.max()) < threshold:
        return Answer(None, hits=tuple(hits))
    spans = [(n, start, end) for n, hit in enumerate(read) for start, end in sentence_spans(hit)]
    sentences = encoder.encode_passages([read[n].passage.text[start:end] for n, start, end in spans]) @ question
    best = int(np.argmax([score + passages[n] for score, (n, _, _) in zip(sentences, spans, strict=True)]))
    n, start, end = spans[best]
    citation = Citation(1, read[n], start, end)
    return Answer(f"{citation.quote} [1]", (citation,), tuple(hits))


def sentence_spans(hit: Hit) -> list[tuple[int, int]]:
    """(start, end) characters of the passage's sentences that could answer, its title not among them (a first
    passage starts with it); all of the passage, where none is long enough."""
    spans: list[tuple[int, int]] = []
    position = 0
    for sentence in split_sentences(hit.passage.text, hit.passage.lang):
        start = hit.passage.text.index(sentence, position)
        position = start + len(sentence)
        spans.append((start, position))
    text, title = hit.passage.text, hit.passage.title.strip()
    long = [(a, b) for a, b in spans if b - a >= SHORT or _SENTENCE.search(text, a, b)]
    return [(a, b) for a, b in long if text[a:b] != title] or [(0, len(text))]
