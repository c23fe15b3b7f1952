"""What stands around an encoder: a cache, a shorter row. None of it knows what the encoder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ragkit.encoder import Encoder


class Around:
    """What an Encoder around the Encoder ``inner`` leaves as it is; it has yet to encode."""

    def __init__(self, inner: Encoder) -> None:
        self.inner: Any = inner
        self.dimension, self.max_length, self.fingerprint = inner.dimension, inner.max_length, inner.fingerprint
        self.answer_threshold = float(getattr(inner, "answer_threshold", 0.0))

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)


def shorten(rows: np.ndarray, dimension: int) -> np.ndarray:
    """The first ``dimension`` columns of unit rows (N, D), at unit length again (Matryoshka, arXiv 2205.13147). Raises
    ValueError where a row has fewer, or none is asked for."""
    if not 0 < dimension <= rows.shape[1]:
        raise ValueError(f"dimensions is {dimension}, an embedding has {rows.shape[1]}")
    cut = rows[:, :dimension]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)
