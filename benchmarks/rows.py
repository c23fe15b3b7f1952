"""Real embeddings for benchmarks/store.py: passages and questions of sets in BEIR's layout, by a model.

    python benchmarks/rows.py DEV --out rows.npy [--model mini] [--passages 900] [--questions 2500]

Of every SET/LANG below DEV alike, each text once, in an order drawn by --seed: (N, D) float32, unit rows.
"""

from __future__ import annotations

import argparse
from itertools import chain, islice
from pathlib import Path

import numpy as np

from ragkit import TASKS
from ragkit.encoder import LocalEncoder
from trainer.evaluate import RetrievalSet, read_sets


def drawn(sets: list[RetrievalSet], kind: str, count: int) -> list[str]:
    """The first texts of each set, as many of each, until there are ``count``."""
    share = -(-count // len(sets))
    every = chain.from_iterable(islice(getattr(data, kind).values(), share) for data in sets)
    return list(dict.fromkeys(every))[:count]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--passages", type=int, default=900)
    parser.add_argument("--questions", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sets = list(read_sets(arguments.data))
    encoder = LocalEncoder.load(arguments.model)
    passages = encoder.encode_passages(drawn(sets, "passages", arguments.passages))
    questions = encoder.encode_queries(drawn(sets, "queries", arguments.questions), TASKS["question-answering"])
    rows = np.concatenate([questions, passages])
    np.save(arguments.out, rows[np.random.default_rng(arguments.seed).permutation(len(rows))])
    print(f"{len(passages)} passages and {len(questions)} questions of {len(sets)} sets in {arguments.out}")


if __name__ == "__main__":
    main()
