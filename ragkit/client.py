"""JSON over HTTP with patience: timeouts, retries of what may pass, and no secret in any error.

Retried: a connection that fails, a timeout, and the answers 408, 425, 429, 502, 503, 504, waiting as long
as ``Retry-After`` says or longer each time. An embedding request may be sent twice: it changes nothing.
Redirects are not followed, since they would carry the key elsewhere.
"""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from ragkit.sparse import well_formed

PASSING = frozenset({408, 425, 429, 502, 503, 504})


class RemoteError(OSError):
    """A server cannot be reached, refuses, or answers what it should not. ``status`` is None without an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class RemoteConfig:
    """How a server is asked."""

    batch_texts: int = 64  # texts a request; a server's own limit is kept where it tells one
    batch_bytes: int = 1 << 15  # of texts a request, as JSON: what a CPU embeds within the timeout, four at once
    concurrency: int = 4  # requests at once
    timeout: float = 120.0  # seconds for an answer
    connect_timeout: float = 5.0  # seconds
    retries: int = 6  # of one request
    patience: float = 180.0  # seconds after which nothing is retried


def is_url(name: object) -> bool:
    return str(name).startswith(("http://", "https://"))


def written(body: Any) -> bytes:
    """JSON in UTF-8: escaped in ASCII, a letter of Arabic or Hindi would take 6 bytes instead of 2 or 3."""
    return well_formed(json.dumps(body, ensure_ascii=False)).encode()


def masked(text: object) -> str:
    """``text`` as it may be shown: without the user, often with a password, in its URLs."""
    return re.sub(r"(https?://)[^\s/?#]*@", r"\1", str(text))


def base_url(url: str) -> str:
    """``url`` without ``/v1`` and the last slash. Raises ValueError for one with a password, query or fragment."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise ValueError("a server's URL with a user or password in it is written to logs and files: give an API key")
    if not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is no server's address: write http://HOST:PORT, with a path before /v1 at most")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def header_key(key: SecretStr | None) -> str:
    """A key as a header carries it, without the line break that ``echo`` leaves at its end; "" for none. Raises
    ValueError, without the key, for one that no header can carry: httpx's own error would quote it."""
    told = key.get_secret_value().strip() if key else ""
    if not all(" " <= letter <= "~" for letter in told):
        raise ValueError("the API key has line breaks or letters that a header cannot carry: is it whole?")
    return told


class Client:
    """Requests to one server; thread-safe. ``url`` is its root: paths begin after it."""

    def __init__(self, url: str, api_key: SecretStr | None = None, config: RemoteConfig | None = None) -> None:
        self.url = base_url(url)
        self.config = config or RemoteConfig()
        self._key = header_key(api_key)
        times = httpx.Timeout(self.config.timeout, connect=self.config.connect_timeout)
        self._http = httpx.Client(timeout=times, headers={"User-Agent": "ragkit"})

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def close(self) -> None:
        self._http.close()

    def get(self, path: str, *, retries: int = 1) -> Any:
        return self._ask("GET", path, None, retries)

    def post(self, path: str, body: Any) -> Any:
        return self._ask("POST", path, body, self.config.retries)

    def _ask(self, method: str, path: str, body: Any, retries: int) -> Any:
        content = None if body is None else written(body)
        headers = {"Content-Type": "application/json"} if content else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        end = time.monotonic() + self.config.patience
        for attempt in range(retries + 1):
            pause = min(0.25 * 2**attempt, 8.0) * random.uniform(0.5, 1.0)  # so that clients do not return together
            try:
                answer = self._http.request(method, self.url + path, content=content, headers=headers)
            except httpx.TransportError as error:
                what = f"{method} {self.url}{path} failed: {type(error).__name__} {error}".rstrip()
                failure = RemoteError(f"{self._hidden(what)}. Is the server running there?")
            else:
                if answer.is_success:
                    return self._json(answer, path)
                told = f"{method} {self.url}{path} answered {answer.status_code}: {self._reason(answer)}"
                failure = RemoteError(self._hidden(told), answer.status_code)
                if answer.status_code not in PASSING:
                    raise failure
                pause = max(pause, _retry_after(answer))
            if attempt == retries or time.monotonic() + pause > end:
                raise failure
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _json(self, answer: httpx.Response, path: str) -> Any:
        try:
            return answer.json()
        except ValueError:
            text = self._hidden(answer.text)[:80]
            raise RemoteError(
                f"{self.url}{path} answered no JSON ({text!r}): is it an embeddings server?", answer.status_code
            ) from None

    def _reason(self, answer: httpx.Response) -> str:
        """The server's own words: OpenAI's and vLLM's error.message, TEI's error, FastAPI's detail."""
        if answer.is_redirect:
            return "a redirect, which is not followed: give the final address"
        try:
            body = answer.json()
        except ValueError:
            return " ".join(self._hidden(answer.text)[:200].split()) or answer.reason_phrase
        found = body.get("error", body.get("message", body.get("detail", body))) if isinstance(body, dict) else body
        found = found.get("message", found) if isinstance(found, dict) else found
        return self._hidden(str(found))[:500]

    def _hidden(self, text: str) -> str:
        """A server may echo what it was sent."""
        return text.replace(self._key, "***") if self._key else text


def _retry_after(answer: httpx.Response) -> float:
    told = answer.headers.get("Retry-After", "")
    return min(float(told), 60.0) if told.isdecimal() else 0.0  # a date is not worth a parser
