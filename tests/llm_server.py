"""A chat server on loopback that answers by the schema it is given, and misbehaves as it is told to.

Run as a program: prints its port, then serves. What it did with each request goes to ``--log`` as JSON
lines, keyed by a digest of the messages, so that a test can count what was asked, answered and lost.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
from pathlib import Path
from typing import Any

from aiohttp import web

FAULTS = ("429", "500", "cut", "stall", "truncated body", "html", "truncated answer")


def digest(messages: list[dict[str, str]]) -> str:
    return hashlib.sha256(json.dumps(messages, sort_keys=True).encode()).hexdigest()[:12]


class Server:
    def __init__(self, *, delay: float, faults: float, stall: float, capacity: int, log: Path | None) -> None:
        self.delay, self.faults, self.stall, self.capacity = delay, faults, stall, capacity
        self.rng = random.Random(0)
        self.busy = 0
        self.log = log.open("a") if log else None

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        key = digest(body["messages"])
        fault = self.rng.choice(FAULTS) if self.rng.random() < self.faults else ""
        if self.busy >= self.capacity:
            fault = "429"
        self.busy += 1
        try:
            return await self._answer(request, body, key, fault)
        finally:
            self.busy -= 1

    async def _answer(self, request: web.Request, body: dict[str, Any], key: str, fault: str) -> web.StreamResponse:
        self._note(key, fault or "asked")
        if fault == "429":
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "0.05"})
        if fault == "500":
            return web.json_response({"error": {"message": "oops"}}, status=500)
        if fault == "cut":
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        if fault == "html":
            return web.Response(text="<html><body>Bad gateway</body></html>", content_type="text/html")
        if fault == "stall":
            await asyncio.sleep(self.stall)
        elif self.delay:
            await asyncio.sleep(self.delay)
        text = json.dumps(fill(body, key), ensure_ascii=False)
        if fault == "truncated answer":
            text = text[: len(text) // 2]
        reply = json.dumps(completion(text, body["model"], "length" if fault == "truncated answer" else "stop"))
        if fault == "truncated body":
            reply = reply[: len(reply) // 2]
        elif fault != "stall":
            self._note(key, "answered")
        return web.Response(text=reply, content_type="application/json")

    def _note(self, key: str, what: str) -> None:
        if self.log:
            self.log.write(json.dumps({"key": key, "what": what}) + "\n")
            self.log.flush()


def fill(body: dict[str, Any], key: str) -> dict[str, Any]:
    """Values for the schema's keys: texts that differ by request."""
    wanted = body["response_format"]["json_schema"]["schema"]["properties"]
    rng = random.Random(key)
    words = [
        "the",
        "old",
        "river",
        "harbour",
        "and",
        "a",
        "quiet",
        "winter",
        "lantern",
        "near",
        "bread",
        "garden",
        "copper",
        "letter",
        "where",
        "people",
        "often",
        "walk",
        "in",
        "the",
        "evening",
        "because",
        "they",
        "like",
        "their",
        "small",
        "bright",
        "kitchen",
        "window",
        "with",
        "green",
        "stairs",
        "under",
        "falling",
        "rain",
    ]

    def text(count: int) -> str:
        return " ".join([key, *(rng.choice(words) for _ in range(count))])

    def value(name: str, form: dict[str, Any]) -> Any:
        if form["type"] == "array":
            return [f"Given {text(6)}, retrieve {text(5)}." for _ in range(20)]
        return text(70 if "document" in name or "text" in name else 2 if "label" in name else 9)

    return {name: value(name, form) for name, form in wanted.items()}


def completion(text: str, model: str, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{"index": 0, "finish_reason": finish, "message": message}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds before an answer")
    parser.add_argument("--faults", type=float, default=0.0, help="share of requests that go wrong")
    parser.add_argument("--stall", type=float, default=30.0, help="seconds of a stall")
    parser.add_argument("--capacity", type=int, default=1 << 30, help="requests at a time, 429 beyond")
    parser.add_argument("--log", type=Path)
    server = Server(**vars(parser.parse_args()))

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", server.chat)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
