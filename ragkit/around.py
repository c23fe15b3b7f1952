"""What stands around an encoder: a cache, a shorter row. None of it knows what the encoder is.

A short embedding is what an embedding is along its model's principal axes, where a model folder has them (``axes.npy``,
made by ``trainer axes``), else its first numbers. The whole embeddings stay as they are either way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.task import Task

AXES_FILE = "axes.npy"  # beside an adapter or weights: (D, D) float16


class Around:
    """What an Encoder around the Encoder ``inner`` leaves as it is; it has yet to encode."""

    def __init__(self, inner: Encoder) -> None:
        self.inner: Any = inner
        self.dimension, self.max_length, self.fingerprint = inner.dimension, inner.max_length, inner.fingerprint
        self.answer_threshold = float(getattr(inner, "answer_threshold", 0.0))
        self.axes: np.ndarray | None = getattr(inner, "axes", None)

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)


class ShortEncoder(Around):
    """An encoder's embeddings in ``dimension`` numbers: see :func:`shorten`, which says what it raises."""

    def __init__(self, inner: Encoder, dimension: int) -> None:
        super().__init__(inner)
        shorten(np.empty((0, inner.dimension), np.float32), dimension)  # refused before a text is encoded
        self.dimension = dimension
        axes = None if self.axes is None else hashlib.sha256(self.axes.tobytes()).hexdigest()
        self.fingerprint = fingerprint(inner.fingerprint, dimension, axes)

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return shorten(self.inner.encode_queries(queries, task), self.dimension, self.axes)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return shorten(self.inner.encode_passages(passages), self.dimension, self.axes)


def whole(encoder: Encoder) -> Encoder:
    """What gives the whole embeddings where ``encoder`` shortens them, under whatever stands around; else itself."""
    layer = encoder
    while isinstance(layer, Around):
        if isinstance(layer, ShortEncoder):
            return layer.inner
        layer = layer.inner
    return encoder


def fingerprint(*meaning: Any) -> str:
    """16 hex digits of whatever decides what a passage embedding means, as JSON has it."""
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()[:16]


def shorten(rows: np.ndarray, dimension: int, axes: np.ndarray | None = None) -> np.ndarray:
    """Unit rows (N, D) along the first ``dimension`` of ``axes`` (D, D), without them in their first columns
    (Matryoshka, arXiv 2205.13147): (N, dimension), at unit length again. Raises ValueError where a row has fewer, or
    none is asked for."""
    if not 0 < dimension <= rows.shape[1]:
        raise ValueError(f"dimensions is {dimension}, an embedding has {rows.shape[1]}")
    if dimension == rows.shape[1]:
        return rows
    cut = rows[:, :dimension] if axes is None else rows @ axes[:, :dimension]
    return cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def principal_axes(rows: np.ndarray) -> np.ndarray:
    """Orthogonal directions in which unit rows (N, D) extend, the longest first: (D, D) float32, a column each (PCA).
    Not centred, for what is kept is the cosine. A thousand rows of any languages do."""
    axes = np.linalg.svd(rows.T @ rows)[0]
    return np.ascontiguousarray(axes, dtype=np.float32)


def read_axes(folder: Path, dimension: int) -> np.ndarray | None:
    """Of a model folder, None where it has none. Raises ValueError where they are not of such a model."""
    file = folder / AXES_FILE
    if not file.exists():
        return None
    axes = np.load(file, allow_pickle=False)
    if axes.shape != (dimension, dimension):
        raise ValueError(f"{file} has shape {axes.shape}, the model {dimension} dimensions: make it by `trainer axes`")
    return axes.astype(np.float32)


def write_axes(axes: np.ndarray, folder: Path) -> Path:
    file = folder / AXES_FILE
    np.save(file, axes.astype(np.float16), allow_pickle=False)
    return file
