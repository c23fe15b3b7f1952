"""``make demo``: questions in one language, answers from documents in others, in the terminal.

The corpus is the town of Selvara (apps/corpus), ingested into the embedded store; the questions are its
own. A check mark stands where the qrels call a hit relevant, so the tour shows its misses too.
"""

from __future__ import annotations

import sys

from apps.command import DEMO
from ragkit import TASKS
from ragkit.answer import extractive_answer
from ragkit.commands import show
from ragkit.encoder import LocalEncoder
from ragkit.evaluate import evaluate, read_questions
from ragkit.retrieve import Retriever
from ragkit.settings import Settings
from ragkit.store import open_store
from ragkit.task import ANSWER_TASK

LANGUAGES = ("en", "zh", "hi", "sw", "am", "ar", "ru", "ja")  # of each the first question, whatever comes of it
UNANSWERABLE = ("A-u03", "C-u08")
TASK = TASKS[ANSWER_TASK]


def main() -> None:
    sys.stdout.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    questions = read_questions(DEMO)
    settings = Settings()
    encoder = LocalEncoder.load(settings.model)
    with open_store(settings.store, "selvara", encoder, create=False) as store:
        retriever = Retriever(store, encoder)
        first = [next(key for key in questions.qrels if questions.languages[key] == lang) for lang in LANGUAGES]
        for key in (*first, *UNANSWERABLE):
            question = questions.texts[key]
            hits = retriever.search(question, task=TASK, k=3)
            answer = extractive_answer(question, hits, encoder, TASK, threshold=encoder.answer_threshold)
            print(f"\n[{questions.languages[key]}] {question}")
            for hit in hits:
                mark = "✓" if hit.passage.document in questions.qrels.get(key, {}) else " "
                print(f"  {mark} {show(hit).splitlines()[0].strip()}  {hit.passage.title}")
            print("  →", answer.text or "The corpus does not say.")
        report = evaluate(retriever, questions, task=TASK)
        scores = " · ".join(f"{name} {value:.2f}" for name, value in report.scores.items())
        print(f"\nAll {report.questions} questions of the corpus, none in the language of its answer: {scores}")


if __name__ == "__main__":
    main()
