"""``make demo``: questions in one language, answers from documents in others, in the terminal.

The corpus is the town of Selvara (apps/corpus), ingested into the embedded store; the questions are its
own. A check mark stands where the qrels call a hit relevant, so the tour shows its misses too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ragkit import TASKS, metrics
from ragkit.answer import extractive_answer
from ragkit.commands import show
from ragkit.encoder import LocalEncoder
from ragkit.retrieve import Retriever
from ragkit.settings import Settings
from ragkit.store import open_store

CORPUS = Path(__file__).parent / "corpus" / "mul"
LANGUAGES = ("en", "zh", "hi", "sw", "am", "ar", "ru", "ja")  # of each the first question, whatever comes of it
UNANSWERABLE = ("A-u03", "C-u08")
TASK = TASKS["question-answering"]


def read(name: str) -> dict[str, dict[str, Any]]:
    lines = (CORPUS / name).read_text("utf-8").splitlines()
    return {record["_id"]: record for record in map(json.loads, lines)}


def main() -> None:
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    documents, questions = read("corpus.jsonl"), read("queries.jsonl")
    qrels: dict[str, dict[str, int]] = {}
    for line in (CORPUS / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        question, document, relevance = line.split("\t")
        qrels.setdefault(question, {})[document] = int(relevance)

    settings = Settings()
    encoder = LocalEncoder.load(settings.model)
    with open_store(settings.store, "selvara", encoder, create=False) as store:
        retriever = Retriever(store, encoder)
        first = [next(key for key, q in questions.items() if q["lang"] == lang and key in qrels) for lang in LANGUAGES]
        for key in (*first, *UNANSWERABLE):
            question = questions[key]
            hits = retriever.search(question["text"], task=TASK, k=3)
            answer = extractive_answer(question["text"], hits, encoder, TASK, threshold=encoder.answer_threshold)
            print(f"\n[{question['lang']}] {question['text']}")
            for hit in hits:
                mark = "✓" if hit.passage.document in qrels.get(key, {}) else " "
                print(f"  {mark} {show(hit).splitlines()[0].strip()}  {documents[hit.passage.document]['title']}")
            print("  →", answer.text or "The corpus does not say.")

        asked = {key: questions[key]["text"] for key in qrels}
        found = retriever.search_batch(list(asked.values()), task=TASK, k=100)
        run = {
            key: {hit.passage.document: -float(hit.rank) for hit in reversed(hits)}  # a document counts by its best hit
            for key, hits in zip(asked, found, strict=True)
        }
        scores = " · ".join(f"{name} {value:.2f}" for name, value in metrics.mean(qrels, run).items())
        print(f"\nAll {len(asked)} questions of the corpus, none in the language of its answer: {scores}")


if __name__ == "__main__":
    main()
