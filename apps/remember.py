"""An encoder that keeps what it encoded a moment ago, and encodes together what several visitors wait for.

A page asks for the same things again: a question is searched, compared, then answered; the sentences of a
passage that many visitors find are marked for each. Rows are kept by text and prompt, the least recently used
go first. What is new waits for its turn at the model; whoever has the turn takes along what waits with the same
prompt, a few texts a call, so that twenty questions at once cost a few calls and not twenty, and no question
waits for the end of another visitor's long work.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ragkit.around import Around
from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

CHUNK = 8  # texts a call: a second or so of two cores, which the next one waits


class Remembering(Around):
    """The Encoder ``inner`` with a memory of ``rows`` embeddings; safe to share among threads."""

    def __init__(self, inner: Encoder, rows: int = 8192) -> None:
        super().__init__(inner)
        self._rows: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._most = rows
        self._lock = threading.Lock()  # of the two dictionaries
        self._turn = threading.Lock()  # at the model
        self._waiting: dict[str, dict[str, int]] = {}  # prefix -> text -> callers that want it

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        for query in queries:
            task.prompt(query)  # refuses a doubled prefix, remembered or not
        return self._encode(queries, task.prefix, lambda texts: self.inner.encode_queries(texts, task))

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self._encode(passages, "", self.inner.encode_passages)

    def _encode(self, texts: Sequence[str], prefix: str, encode: Callable[[Sequence[str]], np.ndarray]) -> np.ndarray:
        if not texts:
            return np.empty((0, self.dimension), np.float32)
        found = self._known(prefix, texts)
        fresh = sorted({text for text in texts if text not in found}, key=len)  # like lengths share a call
        for start in range(0, len(fresh), CHUNK):
            mine = fresh[start : start + CHUNK]
            with self._lock:
                waiting = self._waiting.setdefault(prefix, {})
                for text in mine:
                    waiting[text] = waiting.get(text, 0) + 1
            try:
                with self._turn:
                    done = self._known(prefix, mine)
                    if left := [text for text in mine if text not in done]:
                        with self._lock:
                            others = [text for text in waiting if text not in left and (prefix, text) not in self._rows]
                        together = [*left, *others][:CHUNK]
                        done |= dict(zip(together, encode(together), strict=True))
                        self._keep(prefix, done)
            finally:
                with self._lock:
                    for text in mine:
                        waiting[text] -= 1
                        if not waiting[text]:
                            del waiting[text]
                    if not waiting:  # every visitor may write a prompt
                        del self._waiting[prefix]
            found |= done
        return np.stack([found[text] for text in texts])

    def _known(self, prefix: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
        with self._lock:
            found = {text: row for text in texts if (row := self._rows.get((prefix, text))) is not None}
            for text in found:
                self._rows.move_to_end((prefix, text))
        return found

    def _keep(self, prefix: str, rows: Mapping[str, np.ndarray]) -> None:
        with self._lock:
            for text, row in rows.items():
                self._rows[prefix, text] = row
            while len(self._rows) > self._most:
                self._rows.popitem(last=False)
