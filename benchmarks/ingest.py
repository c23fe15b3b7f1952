"""What does ingestion cost beside the model? Passages a second from files to a searchable store, over those of the
encoder alone on the same passages; and memory as the corpus grows tenfold.

    python benchmarks/ingest.py FOLDER [--passages 200] [--rounds 3]

FOLDER holds real documents as *.jsonl or *.jsonl.gz in BEIR's layout; where they are too few, they come again under
other names. The encoder has all passages in one call, so that it can sort them by length: its best case. Both take
turns; the last line is the ratio of their medians, 0.9 or more is what is wanted. Nothing is kept.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from ragkit.encoder import LocalEncoder
from ragkit.ingest import ingest
from ragkit.split import split_passages
from ragkit.store import open_store

PASSAGE_TOKENS = 200  # as ragkit ingest has it


def documents(folder: Path) -> Iterator[dict[str, Any]]:
    """Without end: one of each file in turn, then the next, so that a few have many languages."""
    files = sorted([*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")])
    if not files:
        sys.exit(f"no *.jsonl or *.jsonl.gz in {folder}: give a folder of documents in BEIR's layout")
    for turn in itertools.count():
        with ExitStack() as stack:
            opened = [stack.enter_context(open_lines(file)) for file in files]
            for number, lines in enumerate(itertools.zip_longest(*opened)):
                for n, line in enumerate(lines):
                    if line:
                        yield {**json.loads(line), "_id": f"{turn}-{number}-{n}"}


def open_lines(file: Path) -> IO[str]:
    return gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8")


def write(folder: Path, file: Path, passages: int, encoder: LocalEncoder) -> None:
    """The first documents that make at least so many passages."""
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for document in documents(folder):
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
            count += len(split_passages(document["text"], "und", encoder.count_tokens, PASSAGE_TOKENS))
            if count >= passages:
                return


class Recorder:
    """The encoder, and what it was given."""

    def __init__(self, encoder: LocalEncoder) -> None:
        self._encoder = encoder
        self.texts: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        self.texts += passages
        return self._encoder.encode_passages(passages)


def fill(file: Path, place: Path, encoder: Any) -> float:
    """Seconds."""
    begin = time.perf_counter()
    with open_store(place, "bench", encoder) as store:
        ingest([file], store, encoder, passage_tokens=PASSAGE_TOKENS)
    return time.perf_counter() - begin


def peak(folder: Path, passages: int, model: str) -> float:
    """Megabytes that a process holds at most which ingests so many, the model among them."""
    command = [sys.executable, __file__, str(folder), "--passages", str(passages), "--model", model, "--peak"]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--peak", action="store_true", help="ingest once and print the peak of memory alone")
    options = parser.parse_args()
    encoder = LocalEncoder.load(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "documents.jsonl"
        write(options.folder, file, options.passages, encoder)
        if options.peak:
            fill(file, Path(scratch) / "store", encoder)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            return
        recorder = Recorder(encoder)
        fill(file, Path(scratch) / "warm", recorder)  # loads what loads at its first use
        texts = recorder.texts
        whole, alone = list[float](), list[float]()
        for n in range(options.rounds):
            begin = time.perf_counter()
            encoder.encode_passages(texts)
            alone.append(time.perf_counter() - begin)
            whole.append(fill(file, Path(scratch) / f"store-{n}", encoder))
            print(f"{len(texts)} passages: encoder {alone[-1]:.1f} s, ingestion {whole[-1]:.1f} s", flush=True)
    small, large = (peak(options.folder, times * options.passages, options.model) for times in (1, 10))
    print(f"peak memory: {small:.0f} MB for {options.passages} passages, {large:.0f} MB for ten times as many", end="")
    print(f" ({large / small:.2f})")
    print(f"ingestion over encoder: {statistics.median(alone) / statistics.median(whole):.3f}")


if __name__ == "__main__":
    main()
