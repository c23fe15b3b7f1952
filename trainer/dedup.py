"""Seen before? Exactly, as in the paper, or nearly, by MinHash over runs of characters.

Characters, not words: the same measure then serves scripts with spaces and without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from trainer.words import normalise

_GRAM = 5  # characters
_HASHES = 128


class Seen:
    """Texts met so far, sixteen bytes each."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def add(self, *texts: str) -> bool:
        """Whether exactly these texts were met before; from now on they were."""
        digest = hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._digests:
            return True
        self._digests.add(digest)
        return False


class NearlySeen:
    """Texts met so far, by the Jaccard similarity of their character 5-grams. Needs datasketch (extra
    ``synthesise``). ``threshold`` from 0 to 1: 0.8 is a text with a word or two changed."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        if not 0 < threshold <= 1:
            raise ValueError(f"the threshold of near duplicates is {threshold}: it is a share above 0, up to 1")
        self._threshold = threshold
        self._index = MinHashLSH(threshold=threshold, num_perm=_HASHES)
        self._made: dict[str, object] = {}

    def add(self, key: str, text: str) -> str | None:
        """The key of a text met before that is as near as the threshold, or None; then it is remembered."""
        from datasketch import MinHash

        made = MinHash(num_perm=_HASHES)
        made.update_batch(list(grams(text)))
        for other in self._index.query(made):
            if made.jaccard(self._made[str(other)]) >= self._threshold:  # pyright: ignore[reportArgumentType]
                return str(other)
        self._index.insert(key, made)
        self._made[key] = made
        return None


def grams(text: str) -> Iterator[bytes]:
    text = normalise(text)
    for start in range(max(1, len(text) - _GRAM + 1)):
        yield text[start : start + _GRAM].encode("utf-8", "surrogatepass")
