"""A retriever that can be exchanged while it is being searched, for programs that serve on through a reindex.

A search keeps the store and the encoder it began with to its end, so no query embedded by one model ever
meets vectors of another. The one that was exchanged is handed back when its last search is over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ragkit.retrieve import Retriever
from ragkit.types import Hit


class LiveRetriever:
    """Safe to share among threads."""

    def __init__(self, retriever: Retriever) -> None:
        self._now = retriever
        self._searches: Counter[int] = Counter()  # under way, by the retriever's identity
        self._changed = threading.Condition()

    @contextmanager
    def lease(self) -> Iterator[Retriever]:
        """The present retriever, which stays open until this block ends."""
        with self._changed:
            mine = self._now
            self._searches[id(mine)] += 1
        try:
            yield mine
        finally:
            with self._changed:
                self._searches[id(mine)] -= 1
                self._changed.notify_all()

    def search(self, query: str, **options: Any) -> list[Hit]:
        """:meth:`Retriever.search`."""
        with self.lease() as retriever:
            return retriever.search(query, **options)

    def swap(self, retriever: Retriever, timeout: float | None = None) -> Retriever:
        """Searches that begin from now on use ``retriever``. Returns the former one once none uses it any more, to be
        closed; raises TimeoutError where that takes longer than ``timeout`` seconds (the swap stands)."""
        with self._changed:
            old, self._now = self._now, retriever
            if not self._changed.wait_for(lambda: not self._searches[id(old)], timeout):
                raise TimeoutError(f"{self._searches[id(old)]} searches still use the former store after {timeout} s")
            del self._searches[id(old)]
        return old
