"""The gate of the embeddings server: keys, the size and the slowness of a body, and the counts.

One ASGI layer around the application, so that a stranger's body is not read, and those in hand at once are no
more than memory has room for. Keys are compared as digests in constant time, every one of them, whatever
matched; nothing here logs a header.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import SecretStr

from ragkit.wire import Refused

OPEN = frozenset({"/health", "/ready", "/openapi.json"})  # without a key or a body: for a load balancer and a reader
BODIES = 16  # of the largest size, in hand at once, from their first byte to their answer; beyond it 429


class Metrics:
    """Prometheus' counts of one server, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = into = CollectorRegistry()
        few, many = [2**n for n in range(12)], [2**n for n in range(6, 18)]
        model = ["model", "fingerprint", "dimension", "max_length"]
        roles = "Embedded, by role; 'untold': the client gave none."
        self.requests = Counter("ragkit_requests", "Answered.", ["path", "status"], registry=into)
        self.seconds = Histogram("ragkit_request_seconds", "From head to answer.", ["path"], registry=into)
        self.texts = Counter("ragkit_texts", roles, ["input_type"], registry=into)
        self.tokens = Counter("ragkit_tokens", "Read: prompts, BOS and EOS included.", registry=into)
        self.truncated = Counter("ragkit_truncated_texts", "Cut to fit.", registry=into)
        self.batch_texts = Histogram("ragkit_batch_texts", "In a turn.", registry=into, buckets=few)
        self.batch_tokens = Histogram("ragkit_batch_tokens", "In a turn.", registry=into, buckets=many)
        self.queue = Gauge("ragkit_queue_tokens", "Accepted, not yet computed.", registry=into)
        self.model = Gauge("ragkit_model_info", "1.", model, registry=into)


class Keys:
    """API keys as digests: equally long, so a comparison tells nothing of a key's length."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        self._digests = [_digest(key.get_secret_value()) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def admit(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        found = _digest(token.strip())
        matches = [hmac.compare_digest(found, digest) for digest in self._digests]  # all of them, no early end
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Guard:
    """ASGI: ``app`` behind keys and limits. Refusals have OpenAI's shape and say why."""

    def __init__(
        self, app: Any, *, keys: Keys, max_body: int, body_seconds: float, metrics: Metrics, paths: frozenset[str]
    ) -> None:
        self.app, self.keys, self.max_body, self.body_seconds = app, keys, max_body, body_seconds
        self.metrics, self.paths = metrics, paths
        self.held = 0  # bytes of bodies

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, answered, body = time.monotonic(), 0, bytearray()
        path = scope["path"] if scope["path"] in self.paths else "other"  # strangers may not make up labels

        async def sent(message: Any) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = message["status"]
            await send(message)

        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            if self.keys and scope["path"] not in OPEN and not self.keys.admit(headers.get("authorization", "")):
                raise Refused(401, "no API key of this server: send 'Authorization: Bearer KEY'", code="unauthorized")
            if scope["path"] not in OPEN:
                await self._read(body, headers, receive)
            await self.app(scope, _replay(body, receive), sent)
        except Refused as refused:
            await respond(sent, refused)
        finally:
            self.held -= len(body)
            self.metrics.requests.labels(path, answered or 499).inc()
            self.metrics.seconds.labels(path).observe(time.monotonic() - start)

    async def _read(self, body: bytearray, headers: dict[str, str], receive: Any) -> None:
        told = headers.get("content-length", "")
        if told.isdecimal() and int(told[:20]) > self.max_body:
            raise self._too_large(told[:20])
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":  # the client has gone
                        return
                    body += (part := message.get("body", b""))
                    self.held += len(part)
                    if len(body) > self.max_body:
                        raise self._too_large(f"more than {len(body)}")
                    if self.held > BODIES * self.max_body:
                        raise Refused(429, f"{self.held} bytes are being read or wait: try again", code="busy")
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            raise Refused(
                408, f"the body did not arrive within {self.body_seconds:g} s: send it at once", code="slow_body"
            ) from None

    def _too_large(self, size: str) -> Refused:
        return Refused(
            413, f"the body has {size} bytes, at most {self.max_body} are read: send fewer texts", code="body_too_large"
        )


def _replay(body: bytes | bytearray, receive: Any) -> Any:
    sent = False

    async def again() -> Any:
        nonlocal sent
        if sent:
            return await receive()  # waits for the disconnect
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def respond(send: Any, refused: Refused) -> None:
    body = json.dumps(refused.body()).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refused.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.status == 429:
        headers.append((b"retry-after", b"1"))
    if refused.status in (408, 413, 429):
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
