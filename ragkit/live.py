"""A retriever that can be exchanged while it is being searched, for programs that serve on through a reindex.

A search keeps the store and the encoder it began with to its end, so no query embedded by one model ever
meets vectors of another. :meth:`LiveRetriever.swap` puts a second open store in the place of the first, and
nobody waits. Where the two cannot be open at once, since both are the same folder, :meth:`LiveRetriever.replace`
closes one and opens the other between two searches, and searches wait for that moment.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
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
        self._replacing = False

    @contextmanager
    def lease(self) -> Iterator[Retriever]:
        """The present retriever, which stays open until this block ends."""
        with self._changed:
            self._changed.wait_for(lambda: not self._replacing)
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

    def replace(self, make: Callable[[Retriever], Retriever], timeout: float | None = None) -> None:
        """Once no search is under way, ``make`` gets the present retriever and returns the next one; searches that
        begin meanwhile wait. What ``make`` raises passes through, and the present retriever stays.

        Raises TimeoutError, and changes nothing, where searches take longer than ``timeout`` seconds to end.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._replacing, timeout):
                raise TimeoutError(f"another store is still being put in place after {timeout} s")
            self._replacing = True
        try:
            with self._changed:
                old = self._now
                if not self._changed.wait_for(lambda: not self._searches[id(old)], timeout):
                    raise TimeoutError(f"{self._searches[id(old)]} searches still use the store after {timeout} s")
            new = make(old)
            with self._changed:
                del self._searches[id(old)]
                self._now = new
        finally:
            with self._changed:
                self._replacing = False
                self._changed.notify_all()
