"""From which cosine on does the demo corpus answer? What a model's ``answer_threshold`` would refuse, cosine by cosine.

    python benchmarks/threshold.py [--model runs/mini/model]

Of the corpus's questions 30 have no answer in it. Each threshold is shown with how many of those it refuses, and how
many of the others; the last line is the one that tells them apart best (the one share less the other). It is chosen
and judged on the same questions: on others it will do worse.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from ragkit import TASKS
from ragkit.encoder import LocalEncoder
from ragkit.ingest import ingest
from ragkit.retrieve import Retriever
from ragkit.store import open_store
from ragkit.task import ANSWER_TASK

CORPUS = Path(__file__).parent.parent / "apps" / "corpus" / "mul"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    encoder = LocalEncoder.load(parser.parse_args().model)
    questions = [json.loads(line) for line in (CORPUS / "queries.jsonl").read_text("utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder, open_store(folder, "selvara", encoder) as store:
        ingest([CORPUS / "corpus.jsonl"], store, encoder)
        retriever = Retriever(store, encoder)
        found = retriever.search_batch([q["text"] for q in questions], task=TASKS[ANSWER_TASK], k=1, mode="dense")
    cosines = np.array([hits[0].score for hits in found])
    answerable = np.array([q["answerable"] for q in questions])
    print(f"cosines of the best passage: {cosines.min():.3f} to {cosines.max():.3f}")
    print("| threshold | refused, of the unanswerable | refused, of the answerable |\n|---|---|---|")
    apart: dict[float, float] = {}
    for threshold in np.arange(np.floor(cosines.min() * 100) / 100, cosines.max() + 0.01, 0.01).round(2):
        wrong, right = ((cosines < threshold) & ~answerable).sum(), ((cosines < threshold) & answerable).sum()
        apart[float(threshold)] = wrong / (~answerable).sum() - right / answerable.sum()
        print(f"| {threshold:.2f} | {wrong} of {(~answerable).sum()} | {right} of {answerable.sum()} |")
    print(f"best: {max(apart, key=lambda one: apart[one]):.2f}")


if __name__ == "__main__":
    main()
