"""When may the next request to a server go out? Read from the headers of its answers, kept per server.

OpenAI and those that follow it say how many requests and tokens are left and when the count is reset
(``x-ratelimit-remaining-requests``, ``x-ratelimit-reset-requests: 6m0s``); a refusal says how long to
wait (``retry-after``). One ``Pace`` is shared by all requests to a server, so that one refusal holds
them all back, and not each of them learns it by a refusal of its own.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections.abc import Awaitable, Callable, Mapping

import regex

LONGEST = 600.0  # seconds: a server that asks for more is asked again after this
_DURATION = regex.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")


def seconds(text: str | None) -> float | None:
    """``"1.5"``, ``"6m0s"``, ``"120ms"`` or an HTTP date, as seconds from now; None where it is none of them."""
    text = (text or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        return max(0.0, value) if math.isfinite(value) else None
    match = _DURATION.fullmatch(text)
    if match:
        units = (86400.0, 3600.0, 60.0, 1.0, 0.001)
        return sum(float(part) * unit for part, unit in zip(match.groups(), units, strict=True) if part)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a refusal asks to wait, or None where it does not say."""
    milliseconds = seconds(headers.get("retry-after-ms"))
    return milliseconds / 1000 if milliseconds is not None else seconds(headers.get("retry-after"))


class Pace:
    """Holds requests back until the server is ready for them. ``clock`` and ``sleep`` are for tests."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        self._until = 0.0  # no request before this
        self._left: int | None = None  # requests that the server will still take, None where it did not say
        self._reset = 0.0  # when they are counted anew
        self._flying = 0  # sent and not answered

    def hold(self, wait: float) -> None:
        """No request for so many seconds."""
        self._until = max(self._until, self._clock() + min(wait, LONGEST))

    async def start(self) -> None:
        """Returns when a request may go out; pair it with :meth:`end`."""
        while True:
            now = self._clock()
            if self._left is not None and now >= self._reset:
                self._left = None
            spent = self._left is not None and self._left <= 0
            wait = max(self._until, self._reset if spent else 0.0) - now
            if wait <= 0:
                break
            await self._sleep(wait)
        if self._left is not None:
            self._left -= 1
        self._flying += 1

    def end(self, headers: Mapping[str, str] | None = None, *, tokens: int = 0) -> None:
        """The request was answered (or lost, without headers). ``tokens``: what one request takes."""
        self._flying -= 1
        if headers is None:
            return
        remaining = _count(headers.get("x-ratelimit-remaining-requests"))
        reset = seconds(headers.get("x-ratelimit-reset-requests"))
        if remaining is not None and reset:
            # Those in flight may not be counted by the server yet.
            self._left = max(0, remaining - self._flying)
            self._reset = self._clock() + min(reset, LONGEST)
        left, reset = (
            _count(headers.get("x-ratelimit-remaining-tokens")),
            seconds(headers.get("x-ratelimit-reset-tokens")),
        )
        if left is not None and reset and left < tokens * (self._flying + 1):
            self.hold(reset)


def _count(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
