"""What a backup of a corpus and its restoration take, and whether all is back.

    python benchmarks/store.py --embeddings rows.npy --points 100000 --only ragkit:scalar --keep stores
    python benchmarks/backup.py stores/ragkit-scalar-100000 --embeddings rows.npy

The corpus is written to one file, restored beside itself, and both are asked the same: how many passages they hold, a
sample of them by their ids, and searches, whose hits and scores must be equal to the bit. Exit code 1 if any is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from store import K, unit_rows
from stores import Ragkit, point_id

from ragkit.backup import backup, restore
from ragkit.settings import QdrantSettings


def said(folder: Path, dimension: int, quantization: str, queries: np.ndarray, sample: int) -> tuple[int, Any, Any]:
    """Count, passages of the sample, and hits with scores."""
    opened = Ragkit(folder, dimension, quantization)
    count = opened.store.count()
    chosen = np.random.default_rng(0).choice(count, min(sample, count), replace=False)
    passages = opened.store.passages([point_id(n) for n in chosen])
    hits = [[(hit.passage.id, hit.score) for hit in opened.store.search(dense=query, k=K)] for query in queries]
    opened.close()
    return count, passages, hits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path, help="a folder of benchmarks/store.py --keep, of ragkit's store")
    parser.add_argument("--embeddings", type=Path, required=True, help="the .npy that it was made of")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--sample", type=int, default=1000, help="passages compared")
    arguments = parser.parse_args()
    kind, quantization, _ = arguments.store.name.rsplit("-", 2)
    if kind != "ragkit":
        parser.error(f"{arguments.store} is of {kind!r}: ragkit backs up its own stores, ragkit:{quantization}")
    queries = unit_rows(arguments.embeddings)[: arguments.queries]
    asked = (queries.shape[1], quantization, queries, arguments.sample)
    settings = QdrantSettings(quantization=quantization)
    before = said(arguments.store, *asked)
    with tempfile.TemporaryDirectory(dir=arguments.store.parent) as made:
        began = time.perf_counter()
        kept = backup(arguments.store, "bench", Path(made) / "bench.tar.gz", settings)
        written = time.perf_counter()
        restore(kept.file, Path(made) / "restored", "bench")
        restored = time.perf_counter()
        after = said(Path(made) / "restored", *asked)
    print("| passages | backup | file | restored |\n|---|---|---|---|")
    print(
        f"| {kept.points:,} | {written - began:.1f} s | {kept.bytes / 1e6:,.0f} MB | {restored - written:.1f} s |\n\n"
        f"{after[0]:,} of {before[0]:,} passages counted, {len(after[1])} compared, {len(queries)} searches compared"
    )
    if wrong := [name for name, a, b in zip(("count", "passages", "hits"), before, after, strict=True) if a != b]:
        sys.exit(f"not as before: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
