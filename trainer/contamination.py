"""Does a text share a run of words with an evaluation set? Then it must not be trained on.

The set is any folder in BEIR's layout, or one that holds such folders: every ``corpus.jsonl`` and
``queries.jsonl`` below it. The measure is the usual one, a run of 13 words in common; in scripts without
spaces it is as many characters as 13 words have (23 of Han, 52 of Thai). A query is often shorter than
that, so whole queries of four words or more are compared as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from trainer.data import read_texts
from trainer.words import units

RUN = 13.0  # words
QUERY = 4.0  # words of a query that is compared whole


class Evaluation:
    """The runs of words of evaluation sets: eight bytes each, found by binary search."""

    def __init__(self, folders: Iterable[Path]) -> None:
        hashes = np.fromiter((h for folder in folders for h in _of_folder(folder)), np.uint64)
        self._hashes = np.unique(hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def shares(self, text: str) -> bool:
        """Whether a run of ``text``, or all of it, stands in the sets."""
        asked = np.fromiter((*runs(text), *_whole(text)), np.uint64)
        if not len(asked) or not len(self._hashes):
            return False
        found = np.searchsorted(self._hashes, asked)
        found[found == len(self._hashes)] = 0
        return bool((self._hashes[found] == asked).any())


def runs(text: str, length: float = RUN) -> Iterator[int]:
    """A hash of each run of at least ``length`` words, from each place where one begins."""
    pieces = list(units(text))
    end, size = 0, 0.0
    for start in range(len(pieces)):
        while size < length - 1e-9 and end < len(pieces):
            size += pieces[end][1]
            end += 1
        if size < length - 1e-9:
            return
        yield _hash(" ".join(piece for piece, _ in pieces[start:end]))
        size -= pieces[start][1]


def _whole(text: str) -> Iterator[int]:
    pieces = list(units(text))
    if QUERY - 1e-9 <= sum(share for _, share in pieces) < RUN:
        yield _hash("\0".join(piece for piece, _ in pieces))


def _of_folder(folder: Path) -> Iterator[int]:
    files = sorted(p for name in ("corpus", "queries") for p in folder.rglob(f"{name}.jsonl*") if p.is_file())
    if not files:
        raise ValueError(f"no corpus.jsonl or queries.jsonl below {folder}: is it an evaluation set in BEIR's layout?")
    for file in files:
        for text in read_texts(file):
            yield from runs(text.whole)
            if file.name.startswith("queries"):
                yield from _whole(text.whole)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
