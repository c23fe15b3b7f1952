"""The chat client against a real server on loopback: retries, forms of structured output, pace, secrets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ragkit.endpoint import Endpoint, Reply, reply_of
from ragkit.llm import Chat, ChatError, EndpointDown
from ragkit.pace import Pace, retry_after, seconds
from trainer.request_plan import SynthesisConfig

MESSAGES = [{"role": "user", "content": "ማን ነህ? 谁?"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
Answer = tuple[int, dict[str, str], str]
OK = {"model": "m", "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}]}


class Script:
    """A server whose answers a test lists; the last one repeats. ``seen`` are the bodies, paths and keys asked with."""

    def __init__(self, *answers: Answer | Callable[[dict[str, Any]], Answer]) -> None:
        self.answers = list(answers)
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                script.seen.append(body)
                script.paths.append(self.path)
                script.headers.append({k.lower(): v for k, v in self.headers.items()})
                answer = script.answers.pop(0) if len(script.answers) > 1 else script.answers[0]
                status, headers, text = answer(body) if callable(answer) else answer
                if status == 0:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                data = text.encode()
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def serve() -> Iterator[Callable[..., Script]]:
    scripts: list[Script] = []

    def start(*answers: Answer | Callable[[dict[str, Any]], Answer]) -> Script:
        scripts.append(Script(*answers))
        return scripts[-1]

    yield start
    for script in scripts:
        script.server.shutdown()
        script.server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.llm._pause", lambda failures: 0.01)


def good(text: str = "ok", **usage: int) -> Answer:
    body = {**OK, "choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
    return 200, {}, json.dumps({**body, "usage": usage} if usage else body)


def ask(endpoint: Endpoint, schema: dict[str, Any] | None = None, times: int = 1, pace: Pace | None = None) -> Reply:
    async def run() -> Reply:
        async with Chat(endpoint, pace=pace) as chat:
            for _ in range(times - 1):
                await chat.chat(MESSAGES, schema)
            return await chat.chat(MESSAGES, schema)

    return asyncio.run(run())


def error(status: int, message: str = "no", **extra: str) -> Answer:
    return status, {}, json.dumps({"error": {"message": message, **extra}})


def test_an_answer_and_its_tokens(serve: Callable[..., Script]):
    server = serve(good("ሰላም", prompt_tokens=7, completion_tokens=3))
    reply = ask(Endpoint("m", base_url=server.url, price_in=2.0, price_out=10.0))
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens, reply.estimated) == ("ሰላም", 7, 3, False)
    assert Endpoint("m", price_in=2.0, price_out=10.0).cost(1_000_000, 500_000) == 7.0
    assert server.seen[0]["temperature"] == 1.0 and server.seen[0]["top_p"] == 1.0
    assert server.seen[0]["messages"] == MESSAGES and "response_format" not in server.seen[0]


def test_tokens_are_estimated_where_the_server_does_not_count(serve: Callable[..., Script]):
    reply = ask(Endpoint("m", base_url=serve(good("12345678")).url))
    assert reply.estimated and reply.completion_tokens == 2 and reply.prompt_tokens > 0


@pytest.mark.parametrize(
    "fault",
    [
        error(500), error(503), error(408), (200, {"content-type": "text/html"}, "<html>Bad gateway</html>"),
        (200, {}, '{"choices": [{"mess'), (200, {}, "[" * 100_000), (200, {}, '{"choices": []}'), (200, {}, "[1]"),
        (0, {}, ""),        (429, {"retry-after": "0.01"}, "{}"),
    ],
    ids=["500", "503", "408", "html", "cut JSON", "deep JSON", "no choice", "a list", "cut connection", "429"],
)  # fmt: skip
def test_what_passes_is_tried_again(serve: Callable[..., Script], fault: Answer):
    reply = ask(Endpoint("m", base_url=serve(fault, fault, good()).url))
    assert reply.text == "ok" and reply.tries == 3


def test_a_stall_is_cut_and_tried_again(serve: Callable[..., Script]):
    def stall(_: dict[str, Any]) -> Answer:
        time.sleep(2)
        return good("late")

    assert ask(Endpoint("m", base_url=serve(stall, good()).url, timeout=0.3)).text == "ok"


def test_tries_end(serve: Callable[..., Script]):
    server = serve(error(500, "always"))
    with pytest.raises(ChatError, match=r"failed 3 times, at last with 500 .*always") as caught:
        ask(Endpoint("m", base_url=server.url, retries=2))
    assert not caught.value.permanent and len(server.seen) == 3


def test_refusals_are_put_up_with_for_a_time(serve: Callable[..., Script]):
    endless = serve((429, {"retry-after": "0.01"}, "{}"))
    with pytest.raises(ChatError, match=r"refused [0-9]+ times") as caught:
        ask(Endpoint("m", base_url=endless.url, patience=0.2))
    assert not caught.value.permanent
    forty = serve(*[(429, {"retry-after": "0.001"}, "{}")] * 40, good())
    assert ask(Endpoint("m", base_url=forty.url, retries=0)).tries == 41


def test_a_fault_of_the_request_is_not_tried_again(serve: Callable[..., Script]):
    server = serve(good(), error(400, "filtered", code="content_filter"))
    with pytest.raises(ChatError, match="filtered") as caught:
        ask(Endpoint("m", base_url=server.url), SCHEMA, times=2)
    assert caught.value.permanent and len(server.seen) == 2 and not isinstance(caught.value, EndpointDown)


def test_an_endpoint_that_turns_everything_down_is_set_up_wrongly(serve: Callable[..., Script]):
    """As a model does that knows no max_tokens: without this, a run would list each of its requests as hopeless."""
    server = serve(error(400, "use max_completion_tokens"))

    async def run() -> list[ChatError]:
        caught: list[ChatError] = []
        async with Chat(Endpoint("m", base_url=server.url)) as chat:
            for _ in range(6):
                with pytest.raises(ChatError) as info:
                    await chat.chat(MESSAGES)
                caught.append(info.value)
        return caught

    *first, fifth, sixth = asyncio.run(run())
    assert not any(error.permanent for error in first)
    assert isinstance(fifth, EndpointDown) and isinstance(sixth, EndpointDown)
    assert "all of 5 requests: 400 " in str(fifth) and "max_tokens: null" in str(fifth)


def test_a_failing_server_cannot_send_a_request_to_sleep_for_a_day(
    serve: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
):
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    server = serve((503, {"retry-after": "86400"}, "{}"), good())
    monkeypatch.setattr("ragkit.llm.asyncio.sleep", sleep)
    assert ask(Endpoint("m", base_url=server.url)).text == "ok"
    assert 600.0 in slept and max(slept) == 600.0


@pytest.mark.parametrize("answer", [error(401), error(404), error(429, "pay", code="insufficient_quota")])
def test_an_endpoint_that_cannot_answer_is_down(serve: Callable[..., Script], answer: Answer):
    with pytest.raises(EndpointDown):
        ask(Endpoint("m", base_url=serve(answer).url))


def test_the_strictest_form_that_the_server_takes_is_found_and_kept(serve: Callable[..., Script]):
    def objects_only(body: dict[str, Any]) -> Answer:
        return error(400, "unknown format") if body["response_format"]["type"] == "json_schema" else good()

    server = serve(objects_only)
    ask(Endpoint("m", base_url=server.url), SCHEMA, times=2)
    assert [b["response_format"]["type"] for b in server.seen] == ["json_schema", "json_object", "json_object"]
    strict = serve(good())
    ask(Endpoint("m", base_url=strict.url), SCHEMA)
    assert strict.seen[0]["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": SCHEMA}


def test_a_server_without_any_form_gets_none(serve: Callable[..., Script]):
    server = serve(lambda body: error(400, "no") if "response_format" in body else good())
    ask(Endpoint("m", base_url=server.url), SCHEMA, times=2)
    assert ["response_format" in b for b in server.seen] == [True, True, False, False]


def test_extra_fields_are_added_and_taken_out(serve: Callable[..., Script]):
    server = serve(good())
    ask(Endpoint("m", base_url=server.url, extra={"max_tokens": None, "max_completion_tokens": 9}))
    assert "max_tokens" not in server.seen[0] and server.seen[0]["max_completion_tokens"] == 9


def test_a_field_that_the_model_does_not_take_goes_under_its_other_name(serve: Callable[..., Script]):
    """As OpenAI's reasoning models: no max_tokens, and no temperature but their own."""

    def strict(body: dict[str, Any]) -> Answer:
        for field in ("max_tokens", "temperature"):
            if field in body:
                return error(400, f"Unsupported parameter: '{field}'", param=field, code="unsupported_parameter")
        return good()

    server = serve(strict)
    endpoint = Endpoint("m", base_url=server.url, api_key_env="", max_tokens=7, retries=0)
    ask(endpoint, times=2)
    assert [("max_tokens" in body, "temperature" in body) for body in server.seen] == [
        (True, True), (False, True), (False, False), (False, False)
    ]  # fmt: skip
    assert server.seen[-1]["max_completion_tokens"] == 7 and server.seen[-1]["top_p"] == 1.0
    with pytest.raises(ChatError, match="max_tokens"):  # what the user wrote is the user's
        ask(Endpoint("m", base_url=server.url, api_key_env="", extra={"max_tokens": 9}))


def test_requests_under_way_learn_it_together(serve: Callable[..., Script]):
    def strict(body: dict[str, Any]) -> Answer:
        return error(400, "no", param="max_tokens") if "max_tokens" in body else good("{}")

    async def run(endpoint: Endpoint) -> list[Reply]:
        async with Chat(endpoint) as chat:
            return await asyncio.gather(*(chat.chat(MESSAGES, SCHEMA) for _ in range(4)))

    server = serve(strict)
    assert len(asyncio.run(run(Endpoint("m", base_url=server.url, api_key_env="", retries=0)))) == 4
    assert {body["response_format"]["type"] for body in server.seen} == {"json_schema"}


def test_a_value_out_of_range_is_the_users_to_mend(serve: Callable[..., Script]):
    server = serve(error(400, "above the maximum", param="temperature", code="decimal_above_max_value"))
    with pytest.raises(ChatError, match="above the maximum"):
        ask(Endpoint("m", base_url=server.url, api_key_env="", temperature=3.0))
    assert len(server.seen) == 1


def test_a_stream_finds_them_too(serve: Callable[..., Script]):
    def strict(body: dict[str, Any]) -> Answer:
        if "max_tokens" in body:
            return error(400, "no", param="max_tokens")
        chunk = {**OK, "choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}
        return 200, {"content-type": "text/event-stream"}, f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"

    async def run(endpoint: Endpoint) -> list[str]:
        async with Chat(endpoint) as chat:
            return [piece async for piece in chat.stream(MESSAGES)]

    assert asyncio.run(run(Endpoint("m", base_url=serve(strict).url, api_key_env="", retries=0))) == ["ok"]


def test_azure_is_asked_by_deployment_with_its_own_header(
    serve: Callable[..., Script], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_AZURE_KEY", "azure-secret")
    server = serve(good())
    root = server.url.removesuffix("/v1")
    ask(Endpoint("gpt-4", api="azure", base_url=root, api_version="2024-10-21", api_key_env="MY_AZURE_KEY"))
    assert server.paths == ["/openai/deployments/gpt-4/chat/completions?api-version=2024-10-21"]
    assert server.headers[0]["api-key"] == "azure-secret"


def test_a_key_is_never_said(serve: Callable[..., Script], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    endpoint = Endpoint("m", base_url=serve(error(400, "bad key sk-very-secret")).url, api_key_env="MY_KEY")
    with pytest.raises(ChatError) as caught:
        ask(endpoint)
    assert "sk-very-secret" not in str(caught.value) and "***" in str(caught.value)
    chat = Chat(endpoint)
    assert "sk-very-secret" not in f"{vars(chat)} {endpoint}"


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(EndpointDown, match="set the environment variable 'OPENAI_API_KEY'"):
        ask(Endpoint("gpt-4"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"api": "azure"}, "is Azure's: give base_url and api_version"),
        ({"api": "other"}, "use 'openai' or 'azure'"),
        ({"structured": "xml"}, "use auto, json_schema"),
        ({"concurrency": 0}, "give at least 1"),
    ],
)
def test_wrong_knobs_are_named(knobs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        Endpoint("m", **knobs)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"api_key": "sk-very-secret"}, "sets api_key, which is not known"),
        ({"api_key_env": "sk-very-secret"}, "names no environment variable"),
        ({"base_url": "https://me:sk-very-secret@host/v1"}, "a base_url with a password in it"),
    ],
)
def test_a_key_in_a_config_is_refused_and_not_repeated(knobs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        SynthesisConfig.read({"endpoints": [{"model": "m", **knobs}]})
    assert "secret" not in str(caught.value)


def test_a_refusal_of_the_server_is_marked():
    body = {"choices": [{"message": {"content": None, "refusal": "I will not"}, "finish_reason": "stop"}]}
    assert reply_of(body, MESSAGES).refused and reply_of(body, MESSAGES).text == "I will not"


@pytest.mark.parametrize("body", [None, 1, "x", [], {}, {"choices": [1]}, {"choices": [{"message": {}}]}])
def test_any_other_body_is_no_answer(body: Any):
    with pytest.raises(ValueError):
        reply_of(body, MESSAGES)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5", 1.5), ("6m0s", 360.0), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("-3", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("", None), (None, None), ("nan", None),
    ],
)  # fmt: skip
def test_durations(text: str | None, value: float | None):
    assert seconds(text) == value


def test_retry_after_prefers_milliseconds():
    assert retry_after({"retry-after-ms": "250", "retry-after": "9"}) == 0.25
    assert retry_after({"retry-after": "9"}) == 9
    assert retry_after({}) is None


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, wait: float) -> None:
        self.now += wait


def test_pace_waits_for_the_reset_when_no_requests_are_left():
    clock = Clock()
    pace = Pace(clock, clock.sleep)

    async def run() -> list[float]:
        times: list[float] = []
        for remaining in (2, 1, 0, 5):
            await pace.start()
            times.append(clock.now)
            pace.end({"x-ratelimit-remaining-requests": str(remaining), "x-ratelimit-reset-requests": "10s"})
        return times

    assert asyncio.run(run()) == [100, 100, 100, 110]


def test_pace_counts_what_is_in_flight():
    clock = Clock()
    pace = Pace(clock, clock.sleep)

    async def run() -> float:
        for _ in range(3):
            await pace.start()
        pace.end({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "10s"})
        await pace.start()  # 3 left, 2 of them in flight: one more may go
        assert clock.now == 100
        await pace.start()
        return clock.now

    assert asyncio.run(run()) == 110


def test_pace_waits_when_the_tokens_left_do_not_suffice():
    clock = Clock()
    pace = Pace(clock, clock.sleep)

    async def run() -> float:
        await pace.start()
        pace.end({"x-ratelimit-remaining-tokens": "300", "x-ratelimit-reset-tokens": "2s"}, tokens=400)
        await pace.start()
        return clock.now

    assert asyncio.run(run()) == 102


def test_one_refusal_holds_all(serve: Callable[..., Script]):
    """Ten requests at once, the first refused: the others wait as well, and each is answered."""
    clock = Clock()
    pace = Pace(clock, clock.sleep)
    server = serve((429, {"retry-after": "7"}, "{}"), good())

    async def run() -> list[Reply]:
        async with Chat(Endpoint("m", base_url=server.url), pace=pace) as chat:
            return await asyncio.gather(*(chat.chat(MESSAGES) for _ in range(10)))

    assert [r.text for r in asyncio.run(run())] == ["ok"] * 10
    assert len(server.seen) == 11 and clock.now >= 107
