"""The embeddings server over real HTTP: the official client, LlamaIndex's class, refusals, limits, keys."""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from pydantic import SecretStr
from serving import serving_model

from ragkit import TASKS
from ragkit.batching import Batcher, Busy
from ragkit.encoder import LocalEncoder
from ragkit.server import parse_keys, refuse_open
from ragkit.wire import EmbeddingRequest, Refused, understand

ROOT = Path(__file__).parent.parent
PROVE = bool(os.environ.get("RAGKIT_PROVE"))
KEY = "sesame-sesame-0123456789"
TEXTS = list(SCRIPTS.values())
MAX_LENGTH = 128


@pytest.fixture(scope="module")
def model(mistral_folder: Path) -> LocalEncoder:
    return LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, max_length=MAX_LENGTH)


@pytest.fixture(scope="module")
def url(model: LocalEncoder) -> Iterator[str]:
    with serving_model(model) as url:
        yield url


def ask(url: str, **body: Any) -> dict[str, Any]:
    answer = httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def rows(answer: dict[str, Any]) -> np.ndarray:
    return np.array([item["embedding"] for item in answer["data"]], np.float32)


def refusal(url: str, **body: Any) -> tuple[int, str]:
    content = json.dumps({"model": "tiny", "input": "x", **body})  # in ASCII: a lone surrogate passes
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{url}/v1/embeddings", content=content, headers=headers, timeout=60)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["message"]


# ---- what is embedded


def test_documents_are_bare_and_queries_carry_their_task(url: str, model: LocalEncoder):
    passages = model.encode_passages(TEXTS)
    np.testing.assert_allclose(rows(ask(url, input=TEXTS, input_type="document")), passages, atol=1e-5)
    np.testing.assert_allclose(rows(ask(url, input=TEXTS)), passages, atol=1e-5)
    for task in list(TASKS.values())[::4]:
        told = ask(url, input=TEXTS[:2], input_type="query", task=task.name)
        np.testing.assert_allclose(rows(told), model.encode_queries(TEXTS[:2], task), atol=1e-5)
        alias = ask(url, input=TEXTS[:2], model=f"tiny:query/{task.name}")
        np.testing.assert_array_equal(rows(alias), rows(told))
    default = model.encode_queries(TEXTS, TASKS["web-search"])
    np.testing.assert_allclose(rows(ask(url, input=TEXTS, model="tiny:query")), default, atol=1e-5)
    own = ask(url, input=TEXTS, input_type="query", instruction=TASKS["web-search"].instruction)
    np.testing.assert_allclose(rows(own), default, atol=1e-5)
    assert abs(default - passages).max() > 0.01  # else the two would pass for one another


def test_a_lone_surrogate_is_read_as_the_encoder_reads_it(url: str, model: LocalEncoder):
    content = json.dumps({"model": "tiny", "input": ["a \ud800 b"]})  # in ASCII: json escapes it
    answer = httpx.post(f"{url}/v1/embeddings", content=content, headers={"content-type": "application/json"})
    np.testing.assert_allclose(rows(answer.json()), model.encode_passages(["a \ufffd b"]), atol=1e-5)


def test_usage_counts_what_the_model_read(url: str, model: LocalEncoder):
    words = model.count_tokens(TEXTS)
    assert ask(url, input=TEXTS)["usage"] == {"prompt_tokens": sum(words) + 14, "total_tokens": sum(words) + 14}
    prompted = model.count_tokens([TASKS["sts"].prompt(text) for text in TEXTS])
    told = ask(url, input=TEXTS, input_type="query", task="sts")
    assert told["usage"]["prompt_tokens"] == sum(prompted) + 14 and told["input_type"] == "query"
    counted = httpx.post(f"{url}/v1/tokens", json={"input": TEXTS}).json()
    assert counted == {"counts": words, "max_length": MAX_LENGTH}


def test_dimensions_are_cut_and_at_unit_length_again(url: str, model: LocalEncoder):
    expected = model.encode_passages(TEXTS)[:, :16]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows(ask(url, input=TEXTS, dimensions=16)), expected, atol=1e-5)
    assert refusal(url, dimensions=65) == (422, "dimensions is 65, an embedding has 64")


def test_dimensions_are_those_of_the_model_s_axes(url: str, model: LocalEncoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model, "axes", np.eye(64, dtype=np.float32)[:, ::-1])
    expected = model.encode_passages(TEXTS)[:, :-17:-1]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(rows(ask(url, input=TEXTS, dimensions=16)), expected, atol=1e-5)


def test_too_long_is_counted_or_refused_never_silent(url: str, model: LocalEncoder):
    long = "library " * 500
    cut = ask(url, input=["short", long])
    assert cut["truncated"] == 1 and ask(url, input="short")["truncated"] == 0
    np.testing.assert_allclose(rows(cut), model.encode_passages(["short", long]), atol=1e-5)
    status, message = refusal(url, input=["short", long], truncate=False)
    [count] = model.count_tokens([long])
    assert status == 422 and f"input[1] has {count} tokens" in message and "input[0]" not in message
    assert ask(url, input="short", truncate=False)["data"]


def test_the_official_client(url: str, model: LocalEncoder):
    """base64 is what it asks for by default."""
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
    got = client.embeddings.create(model="tiny", input=TEXTS)
    np.testing.assert_allclose([item.embedding for item in got.data], model.encode_passages(TEXTS), atol=1e-6)
    assert [item.index for item in got.data] == list(range(len(TEXTS))) and got.usage.total_tokens > 0
    body = {"input_type": "query", "task": "fact-checking"}
    got = client.embeddings.create(model="tiny", input=TEXTS, extra_body=body, encoding_format="float", dimensions=32)
    expected = model.encode_queries(TEXTS, TASKS["fact-checking"])[:, :32]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose([item.embedding for item in got.data], expected, atol=1e-5)
    assert {"tiny", "tiny:query/sts", "tiny:document"} <= {listed.id for listed in client.models.list()}
    with pytest.raises(openai.NotFoundError, match="no model 'other' here"):
        client.embeddings.create(model="other", input="x")
    with pytest.raises(openai.UnprocessableEntityError, match="token ids are refused"):
        client.embeddings.create(model="tiny", input=[[9906, 1917], [15339]])  # as LangChain sends them
    with pytest.raises(openai.UnprocessableEntityError, match="token ids are refused"):
        client.embeddings.create(model="tiny", input=[9906, 1917])


def test_llama_index_unchanged(url: str, model: LocalEncoder):
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    def embedding(name: str) -> OpenAILikeEmbedding:
        return OpenAILikeEmbedding(model_name=name, api_base=f"{url}/v1", api_key="unused", embed_batch_size=3)

    documents, queries = embedding("tiny"), embedding("tiny:query/question-answering")
    np.testing.assert_allclose(documents.get_text_embedding_batch(TEXTS), model.encode_passages(TEXTS), atol=1e-5)
    expected = model.encode_queries(TEXTS, TASKS["question-answering"])
    np.testing.assert_allclose([queries.get_query_embedding(text) for text in TEXTS], expected, atol=1e-5)
    found = asyncio.run(queries.aget_query_embedding(TEXTS[0]))
    np.testing.assert_allclose(found, expected[0], atol=1e-5)
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=documents)
    best = index.as_retriever(similarity_top_k=1, embed_model=queries).retrieve(TEXTS[3])[0]
    scores = model.encode_passages(TEXTS) @ expected[3]
    assert best.text == TEXTS[int(scores.argmax())] and best.score == pytest.approx(scores.max(), abs=1e-4)


# ---- what is refused


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({"model": "mini"}, 404, "no model 'mini' here: ask for 'tiny'"),
        ({"model": "tiny:passage"}, 404, "after the name comes"),
        ({"model": "tiny:query/"}, 404, "after the name comes"),
        ({"model": "tiny:document/sts"}, 404, "after the name comes"),
        ({"model": "tiny:query/cooking"}, 422, "unknown task 'cooking'"),
        ({"model": "tiny:query", "input_type": "document"}, 422, "leave one out"),
        ({"model": "tiny:query/sts", "task": "bitext"}, 422, "leave one out"),
        ({"input_type": "query", "task": "sts", "instruction": "Find it"}, 422, "not both"),
        ({"task": "web-search"}, 422, "a task without input_type"),
        ({"input_type": "document", "task": "sts"}, 422, "both sides carry its prompt"),
        ({"input_type": "query", "instruction": " "}, 422, "blank instruction"),
        ({"input_type": "query", "instruction": "one\ntwo"}, 422, "line break"),
        ({"input_type": "query", "input": TASKS["web-search"].prompt("x")}, 422, "already starts with the prefix"),
        ({"input": []}, 422, "empty list"),
        ({"input": [["a"]]}, 422, "token ids"),
        ({"input": ["a", 1]}, 422, "input"),
        ({"input": None}, 422, "input"),
        ({"prompt_name": "query"}, 422, "prompt_name"),
        ({"dimensions": 0}, 422, "dimensions"),
        ({"input_type": "query", "instruction": "x" * 2001}, 422, "instruction"),
        ({"encoding_format": "int8"}, 422, "encoding_format"),
        ({"input": ["a"] * 2049}, 413, "at most 2048"),
        ({"input": ["é ß " * 50] * 2048}, 413, "at most 131072: send the texts in parts"),
        ({"input": "a" * (9 << 20)}, 413, "at most 8388608 are read"),
    ],
)
def test_refusals_say_why(url: str, body: dict[str, Any], status: int, reason: str):
    found, message = refusal(url, **body)
    assert found == status and reason in message


def test_what_is_no_json_is_400(url: str):
    headers = {"content-type": "application/json"}
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b"nul"):
        answer = httpx.post(f"{url}/v1/embeddings", content=content, headers=headers)
        assert answer.status_code in (400, 422) and answer.json()["error"]["message"], content[:10]


def test_roles_may_be_demanded(model: LocalEncoder):
    with serving_model(model, require_input_type=True) as url:
        assert refusal(url) == (
            422,
            "say what the texts are: input_type 'query' or 'document', or the model 'tiny:query'",
        )
        assert ask(url, input="x", model="tiny:document")["input_type"] == "document"


@pytest.mark.parametrize("name", ["mini", "a:b", "a:query"])
def test_names_with_colons(name: str):
    def means(model: str) -> str:
        wanted = understand(EmbeddingRequest(input="x", model=model), name)
        return wanted.task.name if wanted.task else wanted.input_type

    assert means(name) == "document" and means(f"{name}:query") == "web-search"
    assert means(f"{name}:query/sts") == "sts"
    for other in ("a", f"{name}x", f"x{name}", "", ":query"):
        with pytest.raises(Refused):
            means(other)


# ---- keys and gates


def test_keys(model: LocalEncoder, capfd: pytest.CaptureFixture[str]):
    with serving_model(model, keys=["other-other-9876543210", KEY]) as url:
        body = {"model": "tiny", "input": "x"}
        for key in ("", "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer ü"):
            answer = httpx.post(f"{url}/v1/embeddings", json=body, headers={"authorization": key.encode()})
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
        # A stranger's body is not read: it would be 413.
        large = httpx.post(f"{url}/v1/embeddings", content=b"a" * (9 << 20))
        assert large.status_code == 401
        for path in ("/v1/models", "/metrics", "/v1/tokens", "/nothing"):
            assert httpx.get(url + path).status_code == 401
        for path in ("/health", "/ready", "/openapi.json"):
            assert httpx.get(url + path).status_code == 200
        headers = {"authorization": f"Bearer {KEY}"}
        assert httpx.post(f"{url}/v1/embeddings", json=body, headers=headers).status_code == 200
        told = httpx.get(f"{url}/metrics", headers=headers).text + httpx.get(f"{url}/openapi.json").text
        assert KEY not in told and 'ragkit_requests_total{path="/v1/embeddings",status="401"}' in told
    printed = capfd.readouterr()
    assert KEY not in printed.out + printed.err


def test_keys_are_parsed_without_being_shown():
    first, second = parse_keys(SecretStr(f"{KEY}, other-other-9876543210"))
    assert first.get_secret_value() == KEY and second.get_secret_value() == "other-other-9876543210"
    assert parse_keys(None) == []
    for bad in ("", f"{KEY},", "short-secret", "secret secret secret", "sécret-sécret-sécret"):
        with pytest.raises(ValueError, match="make one with") as caught:
            parse_keys(SecretStr(bad))
        assert "secret-" not in str(caught.value) and "sécret" not in str(caught.value)


def test_an_open_address_wants_keys():
    for host in ("127.0.0.1", "::1", "localhost"):
        refuse_open(host, [])
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", ""):
        with pytest.raises(ValueError, match="RAGKIT_SERVE_API_KEYS"):
            refuse_open(host, [])
        refuse_open(host, [SecretStr(KEY)])


def test_a_slow_body_is_given_up(model: LocalEncoder):
    with serving_model(model, body_seconds=0.2) as url:
        with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as slow:
            head = b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            slow.sendall(head + b"content-length: 40\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert ask(url, input="x")["data"]


def half(url: str, path: str, length: int, sent: bytes, key: str = "") -> socket.socket:
    """A request whose body has ``length`` bytes, of which only ``sent`` come."""
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=60)
    connection.sendall(head.encode() + sent)
    return connection


def test_open_paths_read_no_body(model: LocalEncoder):
    with serving_model(model, keys=[KEY], body_seconds=1e6) as url:
        for path in ("/health", "/ready", "/openapi.json"):
            with half(url, path, 40, b"{") as stranger:
                assert stranger.recv(100).startswith(b"HTTP/1.1 405")
            assert httpx.request("GET", url + path, content=b"a" * (9 << 20)).status_code == 200


def test_bodies_in_hand_are_bounded(model: LocalEncoder):
    text = "መቼ ይከፈታል?".encode() * 30
    with serving_model(model, keys=[KEY], max_body=1000) as url:
        held = [half(url, "/v1/tokens", 1000, text, KEY) for _ in range(16000 // len(text) + 4)]
        deadline = time.monotonic() + 30
        while len(refused := select.select(held, [], [], 0.1)[0]) < 4 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(refused) == 4
        for one in refused:
            answer = one.recv(1000)
            assert answer.startswith(b"HTTP/1.1 429") and b"retry-after: 1" in answer.lower()
        for one in held:
            one.close()
        headers = {"authorization": f"Bearer {KEY}"}
        for _ in range(100):
            answer = httpx.post(f"{url}/v1/tokens", json={"input": ["x" * 900]}, headers=headers)
            if answer.status_code == 200:
                break
            time.sleep(0.05)
        assert answer.status_code == 200


def test_a_tokenizer_that_is_behind_is_429(model: LocalEncoder, monkeypatch: pytest.MonkeyPatch):
    count = model.count_tokens
    monkeypatch.setattr(model, "count_tokens", lambda texts: time.sleep(1.0) or count(texts))
    with serving_model(model, seconds=0.3) as url:
        answer = httpx.post(f"{url}/v1/tokens", json={"input": TEXTS}, timeout=60)
        assert answer.status_code == 429 and answer.headers["retry-after"] == "5"
        assert "not read within 0.3 s" in answer.json()["error"]["message"]


def test_a_body_without_length_is_measured(url: str):
    def stream() -> Iterator[bytes]:
        yield b'{"model": "tiny", "input": "'
        for _ in range(20):
            yield b"a" * (1 << 19)

    answer = httpx.post(f"{url}/v1/embeddings", content=stream(), headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "at most 8388608" in answer.json()["error"]["message"]


# ---- the queue


class Turns:
    """An encoder of rows that writes down what was computed together and waits for leave."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []

    def __call__(self, rows: Any) -> np.ndarray:
        self.turns.append([row[0] for row in rows])
        time.sleep(0.02)
        return np.array([[row[0], len(row)] for row in rows], np.float32)


def test_requests_share_turns_and_small_ones_do_not_wait_for_large_ones():
    async def run() -> list[list[int]]:
        turns = Turns()
        async with Batcher(turns, batch_tokens=8, queue_tokens=1000) as batcher:
            large = asyncio.create_task(batcher.encode([[n, n] for n in range(40)], 60))
            await asyncio.sleep(0.03)
            small = asyncio.create_task(batcher.encode([[99, 0, 0]], 60))
            found = await small
            assert not large.done() and found.tolist() == [[99, 3]]
            assert [row[0] for row in (await large).tolist()] == list(range(40))  # in their order
            assert batcher.waiting == 0
        return turns.turns

    turns = asyncio.run(run())
    assert [n for turn in turns for n in turn if n != 99] == list(range(40))
    assert max(map(len, turns)) == 4 and any(99 in turn and len(turn) > 1 for turn in turns)


def test_a_full_queue_a_late_answer_and_a_failure():
    async def run() -> None:
        turns = Turns()
        async with Batcher(turns, batch_tokens=4, queue_tokens=20) as batcher:
            first = asyncio.create_task(batcher.encode([[1, 1, 1, 1]] * 5, 60))
            await asyncio.sleep(0)
            with pytest.raises(Busy, match="make over 20"):
                await batcher.encode([[2, 2, 2, 2, 2]], 60)
            await first
            assert batcher.waiting == 0
            with pytest.raises(Busy, match="not done within"):
                await batcher.encode([[3, 3, 3, 3]] * 5, 0.01)
            await asyncio.sleep(0.1)
            assert batcher.waiting == 0 and sum(3 in turn for turn in turns.turns) < 5  # the rest never ran
            batcher._encode = lambda rows: 1 / 0  # type: ignore[assignment,return-value]
            with pytest.raises(ZeroDivisionError):
                await batcher.encode([[4]], 60)
            batcher._encode = turns
            assert batcher.alive and (await batcher.encode([[5]], 60)).tolist() == [[5, 1]]
            assert batcher.waiting == 0

    asyncio.run(run())


def test_busy_is_429_with_retry_after(model: LocalEncoder):
    def one(_: int) -> httpx.Response:
        return httpx.post(f"{url}/v1/embeddings", json={"model": "tiny", "input": TEXTS * 4}, timeout=60)

    tokens = sum(model.count_tokens(TEXTS * 4)) + 2 * 28
    with serving_model(model, queue_tokens=tokens, batch_tokens=64) as url, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(16)))
        busy = [answer for answer in answers if answer.status_code == 429]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert all(answer.headers["retry-after"] == "1" for answer in busy)
        assert "tokens are waiting" in busy[0].json()["error"]["message"]
        assert ask(url, input="x")["data"]


def test_metrics_and_health(url: str):
    ask(url, input=["a", "b"], input_type="query")
    httpx.get(f"{url}/{KEY}")
    told = httpx.get(f"{url}/metrics").text
    assert re.search(r'ragkit_texts_total\{input_type="query"\} \d', told)
    assert 'path="other"' in told and KEY not in told  # a path that somebody made up is no label
    assert "ragkit_queue_tokens 0.0" in told and 'ragkit_model_info{dimension="64"' in told
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    assert httpx.get(f"{url}/ready").json()["status"] == "ready"


# ---- proof 3


def test_schemathesis_finds_no_server_error(url: str):
    """Every operation of the OpenAPI document, valid and invalid; 500 cases each with RAGKIT_PROVE=1."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--checks"]
    command += ["not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]
    command += ["--max-examples", "500" if PROVE else "40", "--phases", "examples,coverage,fuzzing", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, cwd="/tmp")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.fixture
def command(mistral_folder: Path) -> Iterator[tuple[str, int]]:
    """`ragkit serve` as a process of its own: URL and process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = [sys.executable, "-c", "from ragkit.cli import main; main()", "serve", "--model", str(mistral_folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*start, "--port", str(port), "--name", "tiny"], env=environment) as process:
        try:
            for _ in range(1200):
                assert process.poll() is None, "the server ended"
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait(60)


def resident(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index] # kB


def test_many_clients_at_once_without_an_error_and_with_flat_memory(command: tuple[str, int]):
    """64 clients for 60 s with RAGKIT_PROVE=1, 16 for 6 s else, after as many requests as fill what is kept of each
    shape of a batch; texts of every length up to the longest."""
    url, pid = command
    clients, seconds, warm = (64, 60.0, 2000) if PROVE else (16, 6.0, 300)
    loop_end, begun = math.inf, 0
    memory: list[int] = []
    random = np.random.default_rng(0)
    shapes = [[int(n) for n in random.integers(1, 400, size=random.integers(1, 9))] for _ in range(200)]

    async def client(http: httpx.AsyncClient, number: int) -> int:
        nonlocal loop_end, begun
        done = 0
        while time.monotonic() < loop_end:
            begun += 1
            if begun == warm:
                loop_end = time.monotonic() + seconds
            lengths = shapes[(number * 31 + done) % len(shapes)]
            body = {
                "input": [f"{TEXTS[n % 7]} " + "ab " * n for n in lengths],
                "model": ("tiny", "tiny:query")[done % 2],
            }
            answer = await http.post("/v1/embeddings", json=body)
            assert answer.status_code == 200, answer.text
            assert len(answer.json()["data"]) == len(lengths)
            done += 1
        return done

    async def watch() -> None:
        while time.monotonic() < loop_end:
            if loop_end < math.inf:
                memory.append(resident(pid))
            await asyncio.sleep(seconds / 60)

    async def run() -> int:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            done = await asyncio.gather(watch(), *(client(http, n) for n in range(clients)))
        return sum(count for count in done if count)

    answered = asyncio.run(run())
    third = len(memory) // 3
    early, late = max(memory[third : 2 * third]), max(memory[2 * third :])
    print(json.dumps({"clients": clients, "seconds": seconds, "answered": answered, "kB": memory}))
    assert answered > warm
    assert late < early * 1.05 + 20_000, memory  # kB
    told = httpx.get(f"{url}/metrics").text
    assert "ragkit_queue_tokens 0.0" in told and 'status="500"' not in told
