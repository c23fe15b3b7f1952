"""An encoder that keeps what it encoded a moment ago.

A page asks for the same things again: a question is searched, compared, then answered; the sentences of a
passage that many visitors find are marked for each. Rows are kept by text and prompt, the least recently used
go first. What is new is encoded a few texts a call, so that a visitor's question need not wait for the end of
another's work.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ragkit.encoder import Encoder
from ragkit.task import Task

CHUNK = 8  # texts a call: a second or so of two cores


class Remembering:
    """The Encoder ``inner`` with a memory of ``rows`` embeddings; safe to share among threads."""

    def __init__(self, inner: Encoder, rows: int = 8192) -> None:
        self.inner: Any = inner
        self.dimension, self.max_length, self.fingerprint = inner.dimension, inner.max_length, inner.fingerprint
        self.answer_threshold = float(getattr(inner, "answer_threshold", 0.0))
        self._rows: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._most = rows
        self._lock = threading.Lock()

    @property
    def truncated(self) -> int:
        return self.inner.truncated

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        for query in queries:
            task.prompt(query)  # refuses a doubled prefix, remembered or not
        return self._encode(queries, task.prefix, lambda texts: self.inner.encode_queries(texts, task))

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self._encode(passages, "", self.inner.encode_passages)

    def _encode(self, texts: Sequence[str], prefix: str, encode: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        found: dict[str, np.ndarray] = {}
        with self._lock:
            for text in texts:
                row = self._rows.get((prefix, text))
                if row is not None:
                    self._rows.move_to_end((prefix, text))
                    found[text] = row
        fresh = sorted({text for text in texts if text not in found}, key=len)  # like lengths share a call
        for start in range(0, len(fresh), CHUNK):
            part = fresh[start : start + CHUNK]
            found |= dict(zip(part, encode(part), strict=True))
        with self._lock:
            for text in fresh:
                self._rows[prefix, text] = found[text]
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
        return np.stack([found[text] for text in texts]) if texts else np.empty((0, self.dimension), np.float32)
