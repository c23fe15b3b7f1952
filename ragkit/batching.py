"""Requests from many clients, computed together: a queue of token rows in front of one encoder.

Each turn takes rows from every waiting request in rotation until ``batch_tokens`` are full, so a query
that arrives behind a thousand passages waits for one turn and not for the thousand. One thread
computes; the event loop stays free. The queue is bounded in tokens: what does not fit is refused at
once (:class:`Busy`), because a client that waits for nothing retries and makes it worse.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

Rows = Sequence[Sequence[int]]


class Busy(Exception):
    """Too much is waiting; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(eq=False, slots=True)
class _Request:
    rows: Rows
    done: asyncio.Future[np.ndarray]
    taken: int = 0  # rows handed to the encoder
    parts: list[np.ndarray] = field(default_factory=list)


class Batcher:
    """``encode`` maps token rows to embeddings (N, D) and is called in one thread. Use as an async context."""

    def __init__(
        self,
        encode: Callable[[Rows], np.ndarray],
        *,
        batch_tokens: int,
        queue_tokens: int,
        seen: Callable[[int, int], None] = lambda rows, tokens: None,  # after each turn, for metrics
    ) -> None:
        self.queue_tokens = queue_tokens
        self.waiting = 0  # tokens accepted and not yet computed
        self._encode = encode
        self._batch_tokens = batch_tokens
        self._seen = seen
        self._requests: deque[_Request] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")
        self._loop: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Batcher:
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._loop:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for request in self._requests:
            request.done.cancel()
        self._thread.shutdown(wait=True)

    @property
    def alive(self) -> bool:
        return self._loop is not None and not self._loop.done()

    async def encode(self, rows: Rows, timeout: float) -> np.ndarray:
        """Embeddings (N, D) of ``rows``, in their order. Raises :class:`Busy` where the queue has no room, or
        ``timeout`` seconds have passed: what is then still waiting is never computed."""
        tokens = sum(map(len, rows))
        if self.waiting + tokens > self.queue_tokens:
            raise Busy(
                f"{self.waiting} tokens are waiting and {tokens} more make over {self.queue_tokens}: try again", 1
            )
        self.waiting += tokens
        request = _Request(rows, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._arrived.set()
        try:
            async with asyncio.timeout(timeout):
                return await request.done
        except TimeoutError:
            raise Busy(f"not done within {timeout:g} s: send fewer texts at a time, or try again later", 5) from None
        finally:
            if request in self._requests:  # timed out, or the client has gone
                self._requests.remove(request)
            self.waiting -= sum(map(len, rows[request.taken :]))

    def _turn(self) -> list[tuple[_Request, int]]:
        """The next rows to compute, one from each request in rotation. At least one row, however long."""
        taken: list[tuple[_Request, int]] = []
        tokens = 0
        while self._requests:
            request = self._requests[0]
            length = len(request.rows[request.taken])
            if taken and tokens + length > self._batch_tokens:
                break
            self._requests.popleft()
            taken.append((request, request.taken))
            request.taken += 1
            tokens += length
            if request.taken < len(request.rows):
                self._requests.append(request)
        self.waiting -= tokens
        return taken

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._requests:
                turn = self._turn()
                rows = [request.rows[n] for request, n in turn]
                try:
                    out = await loop.run_in_executor(self._thread, self._encode, rows)
                except Exception as error:
                    for request in {request for request, _ in turn}:
                        if not request.done.done():
                            request.done.set_exception(error)
                        if request in self._requests:
                            self._requests.remove(request)
                    continue
                for (request, _), row in zip(turn, out, strict=True):
                    request.parts.append(row)
                    if len(request.parts) == len(request.rows) and not request.done.done():
                        request.done.set_result(np.stack(request.parts))
                self._seen(len(rows), sum(map(len, rows)))
