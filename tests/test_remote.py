"""RemoteEncoder against our server, a real llama.cpp, and servers that speak vLLM's and TEI's documented protocols.

vLLM and TEI cannot run here. What stands in for them answers in their shapes with the real model's vectors: it
proves that we speak what is documented, not that they do.
"""

from __future__ import annotations

import json
import logging
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from exporting import exported
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from pydantic import SecretStr
from serving import serving, serving_model
from typer.testing import CliRunner

from ragkit import TASKS
from ragkit.cli import app as command_line
from ragkit.embedding import TaskEmbedding
from ragkit.encoder import LocalEncoder, plain_ids
from ragkit.remote import RemoteConfig, RemoteEncoder, RemoteError, open_encoder

KEY = "sesame-sesame-0123456789"
TEXTS = list(SCRIPTS.values())
TASK = TASKS["fact-checking"]
LONG = "the harbour library " * 60
MAX_LENGTH = 128
QUICK = RemoteConfig(batch_texts=3, retries=2, connect_timeout=1.0)


@pytest.fixture(scope="module")
def folder(mistral_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with a GGUF file, made from the tiny Mistral."""
    return exported(
        mistral_folder, tmp_path_factory, "safetensors", "gguf", max_length=MAX_LENGTH, base="", answer_threshold=0.25
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalEncoder:
    return LocalEncoder.load(folder, device="cpu", dtype=torch.float32)


def agrees(remote: RemoteEncoder, model: LocalEncoder, least: float = 0.9999) -> None:
    """The encoder's contract, held against the local one."""
    for ours, theirs in (
        (model.encode_queries(TEXTS, TASK), remote.encode_queries(TEXTS, TASK)),
        (model.encode_passages(TEXTS), remote.encode_passages(TEXTS)),
    ):
        assert theirs.shape == (len(TEXTS), 64) and theirs.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(theirs, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(axis=1).min() > least
    assert remote.count_tokens(TEXTS) == model.count_tokens(TEXTS)
    assert (remote.dimension, remote.max_length) == (64, MAX_LENGTH)
    assert remote.encode_passages([]).shape == (0, 64)
    cut = remote.truncated
    found = remote.encode_passages(["short", LONG])
    assert remote.truncated == cut + 1
    assert (found * model.encode_passages(["short", LONG])).sum(axis=1).min() > least
    with pytest.raises(ValueError, match="already starts with the prefix"):
        remote.encode_queries([TASK.prompt("x")], TASK)
    with pytest.raises(TypeError, match="wrap it in a list"):
        remote.encode_passages("x")  # type: ignore[arg-type]


def test_ours(model: LocalEncoder):
    with serving_model(model) as url, RemoteEncoder(f"{url}/v1/", config=QUICK) as remote:
        agrees(remote, model, 0.999999)
        assert remote.fingerprint == model.fingerprint and remote.answer_threshold == 0.25
        own = type(TASK)("own", "Given a part, retrieve pages that sell it")
        np.testing.assert_allclose(remote.encode_queries(TEXTS, own), model.encode_queries(TEXTS, own), atol=1e-5)
        odd = ["a \ud800 b", "</s> is text", ""]
        np.testing.assert_allclose(remote.encode_passages(odd), model.encode_passages(odd), atol=1e-5)


def test_order_is_kept_over_many_parts(model: LocalEncoder):
    texts = [f"{text} {'x ' * (n % 50)}{n}" for n, text in enumerate(TEXTS * 20)]
    with serving_model(model) as url, RemoteEncoder(url, config=QUICK) as remote:
        np.testing.assert_allclose(remote.encode_passages(texts), model.encode_passages(texts), atol=1e-5)


def test_every_script_fits_the_servers_body(model: LocalEncoder):
    """In its first 4,000 bytes; what is larger goes in parts, and one text that is larger in pieces."""
    with serving_model(model, max_body=4000) as url, RemoteEncoder(url) as remote:
        texts = [text * 20 for text in TEXTS] * 4 + ["\x01\ud800" * 300]
        assert remote.count_tokens(texts) == model.count_tokens(texts)
        np.testing.assert_allclose(remote.encode_passages(texts), model.encode_passages(texts), atol=1e-5)
        np.testing.assert_allclose(remote.encode_queries(texts, TASK), model.encode_queries(texts, TASK), atol=1e-5)
        for text in TEXTS:
            large, cut = text * 400, remote.truncated
            exact = model.count_tokens([large])[0]
            found, short = remote.count_tokens([large, "x"])
            assert exact <= found < exact * 1.02 and [short] == model.count_tokens(["x"])
            np.testing.assert_allclose(remote.encode_passages([large]), model.encode_passages([large]), atol=1e-5)
            assert remote.truncated == cut + 1


def test_llama_cpp_for_real(folder: Path, model: LocalEncoder):
    xllamacpp: Any = import_module("xllamacpp")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.embedding = True
    parameters.n_ctx = MAX_LENGTH + 1
    parameters.n_parallel = 1
    parameters.verbosity = 0
    parameters.warmup = False
    server = xllamacpp.Server(parameters)
    with RemoteEncoder(server.listening_address, folder=folder, config=QUICK) as remote:
        assert remote.server.kind == "llama.cpp" and remote.answer_threshold == 0.25
        agrees(remote, model)
        stored = json.loads((folder / "reference.json").read_text("utf-8"))["fingerprint"]
        assert remote.fingerprint == stored
    with RemoteEncoder(server.listening_address, config=QUICK) as remote:  # it counts, where there is no folder
        # It writes the tokens of '</s>' in a text as EOS and counts so: documented, and told in the README.
        assert remote.count_tokens(TEXTS) == model.count_tokens(TEXTS)
        assert remote.max_length == 255  # its context is rounded up to 256
        assert remote.encode_passages([LONG * 4]).shape == (1, 64) and remote.truncated == 1
        assert remote.fingerprint != stored


def foreign(model: LocalEncoder, kind: str, **tricks: Any) -> FastAPI:
    """A server in the shapes of vLLM's or TEI's documents: it embeds what it gets, and refuses what is too long."""
    app = FastAPI()
    app.state.seen = []

    @app.get("/v1/models")
    async def models() -> Any:
        if kind == "tei":
            return JSONResponse({}, 404)
        row = {"id": "org/tiny", "object": "model", "owned_by": "vllm", "max_model_len": MAX_LENGTH}
        return {"object": "list", "data": [row] * tricks.get("models", 1)}

    @app.get("/info")
    async def info() -> Any:
        return {"model_id": "org/tiny", "max_input_length": MAX_LENGTH, "max_client_batch_size": 2}

    @app.post("/tokenize")
    async def tokenize(request: Request) -> Any:
        body = await request.json()
        assert body["add_special_tokens"] is False
        texts = body["inputs"] if kind == "tei" else [body["prompt"]]
        ids = plain_ids(model.tokenizer, texts)
        return [[{"id": i} for i in row] for row in ids] if kind == "tei" else {"count": len(ids[0]), "tokens": ids[0]}

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Any:
        body = await request.json()
        app.state.seen.append((body, request.headers.get("authorization")))
        if tricks.get("answers"):
            return tricks["answers"].pop(0)
        if kind == "tei" and len(body["input"]) > 2:
            return JSONResponse({"error": "batch size", "error_type": "validation"}, 413)
        if max(model.count_tokens(body["input"])) > MAX_LENGTH - 2:
            return JSONResponse({"error": {"message": "too long"}}, 400)
        rows = model.encode_passages(body["input"]) * tricks.get("scale", 1)
        data = [{"index": n, "embedding": row.tolist()} for n, row in enumerate(rows)]
        return {"data": data[::-1], "model": body["model"]}  # the order is said by index alone

    return app


@pytest.mark.parametrize("kind", ["vllm", "tei"])
def test_foreign_servers_get_the_prompt_and_no_text_that_is_too_long(kind: str, model: LocalEncoder, folder: Path):
    app = foreign(model, kind, scale=3)  # not normalised, too
    with serving(app) as url:
        with RemoteEncoder(url, config=QUICK) as remote:
            assert (remote.server.kind, remote.server.model) == (kind, "org/tiny")
            agrees(remote, model, 0.98)  # without a tokenizer texts are cut at a letter, not at a token
            app.state.seen.clear()
            remote.encode_queries(["x"], TASK)
            assert [body["input"] for body, _ in app.state.seen] == [[TASK.prompt("x")]]
            assert "input_type" not in app.state.seen[0][0]
            assert remote.fingerprint not in (model.fingerprint, "")
        with RemoteEncoder(url, folder=folder, config=QUICK) as remote:
            agrees(remote, model)
            for letter in "𞤀🫨ሰ":  # of several tokens: the server refuses who sends one that does not fit whole
                texts = ["x " * n + letter * 200 for n in range(5)]
                assert remote.encode_passages(texts).shape == (5, 64)


def test_a_server_that_is_not_the_folders_model_is_refused(model: LocalEncoder, folder: Path, mistral_folder: Path):
    torch.manual_seed(5)
    other = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, max_length=MAX_LENGTH)
    with torch.no_grad():
        other.model.embed_tokens.weight.normal_()  # type: ignore[union-attr,operator]
    with serving(foreign(other, "vllm")) as url, pytest.raises(RemoteError, match=r"cosine .*ragkit doctor"):
        RemoteEncoder(url, folder=folder)


def test_another_model_under_the_same_name_is_evaluated_anew(model: LocalEncoder, mistral_folder: Path):
    from trainer.peers import open_model

    torch.manual_seed(5)
    other = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, max_length=MAX_LENGTH)
    with torch.no_grad():
        other.model.embed_tokens.weight.normal_()  # type: ignore[union-attr,operator]
    fingerprints = []
    for served in (model, model, other):
        with serving(foreign(served, "vllm")) as url:
            name, encoder, _ = open_model(url)
            fingerprints.append((name, encoder.fingerprint))
    assert fingerprints[0] == fingerprints[1] and len({name for name, _ in fingerprints}) == 1
    assert fingerprints[0] != fingerprints[2]


def test_a_model_that_changes_under_way_is_refused(model: LocalEncoder):
    with serving_model(model) as url, RemoteEncoder(url) as remote:
        before, model.fingerprint = model.fingerprint, "0" * 16
        try:
            with pytest.raises(RemoteError, match="now serves model 0000000000000000"):
                remote.encode_passages(["x"])
        finally:
            model.fingerprint = before


def test_retries_what_passes_and_nothing_else(model: LocalEncoder):
    busy, broken = JSONResponse({"error": "busy"}, 429, headers={"Retry-After": "0"}), Response(status_code=503)
    app = foreign(model, "vllm")
    with serving(app) as url, RemoteEncoder(url, config=QUICK) as remote:
        expected = remote.encode_passages(["x"])

        def after(*answers: Any) -> int:
            """Requests that were made; what comes after the answers is served."""
            app.state.seen.clear()
            app.router.routes[:] = [r for r in app.router.routes if getattr(r, "path", "") != "/v1/embeddings"]
            app.router.routes.extend(foreign_routes(model, app, list(answers)))
            np.testing.assert_allclose(remote.encode_passages(["x"]), expected, atol=1e-6)
            return len(app.state.seen)

        assert after(busy) == 2 and after(busy, broken) == 3
        with pytest.raises(RemoteError, match="answered 429: busy") as caught:
            after(busy, busy, busy)
        assert caught.value.status == 429 and len(app.state.seen) == 3
        for answer, reason in (
            (JSONResponse({"error": {"message": "no such thing"}}, 422), "answered 422: no such thing"),
            (JSONResponse({"detail": "nope"}, 403), "answered 403: nope"),
            (Response("<html>", 500), "answered 500: <html>"),
            (RedirectResponse("http://127.0.0.1:9/"), "redirect"),
            (Response("<html>"), "no JSON"),
            (JSONResponse({"data": []}), "0 embeddings for 1 texts"),
            (JSONResponse({"rows": []}), "shape that is not OpenAI's"),
            (JSONResponse([]), "shape that is not OpenAI's"),
            (JSONResponse({"data": [{"index": 0, "embedding": ["x"]}]}), "shape that is not OpenAI's"),
            (Response('{"data": [{"index": 0, "embedding": [NaN]}]}', media_type="application/json"), "not finite"),
            (JSONResponse({"data": [{"index": 0, "embedding": [0.0] * 64}]}), "zeros"),
        ):
            with pytest.raises(RemoteError, match=reason):
                after(answer)
            assert len(app.state.seen) == 1


def foreign_routes(model: LocalEncoder, app: FastAPI, answers: list[Any]) -> list[Any]:
    again = foreign(model, "vllm", answers=answers)
    again.state.seen = app.state.seen
    return [route for route in again.router.routes if getattr(route, "path", "") == "/v1/embeddings"]


def test_servers_that_are_none(model: LocalEncoder):
    with pytest.raises(RemoteError, match="Is the server running there"):
        RemoteEncoder("http://127.0.0.1:9", config=QUICK)
    with serving(FastAPI()) as url, pytest.raises(RemoteError, match="/info answered 404"):
        RemoteEncoder(url)
    with serving(foreign(model, "vllm", models=2)) as url, pytest.raises(RemoteError, match="serves 2 models"):
        RemoteEncoder(url)
    with serving_model(model) as url, pytest.raises(RemoteError, match="serves 'tiny', not 'other'"):
        RemoteEncoder(url, model="other")
    for bad in ("http://user:pass@host", "http://", "http://host/?x=1"):
        with pytest.raises(ValueError) as caught:
            RemoteEncoder(bad)
        assert "pass@" not in str(caught.value)


# ---- secrets


def test_the_key_is_sent_and_shown_nowhere(model: LocalEncoder, caplog: pytest.LogCaptureFixture, capfd: Any):
    """Logs at their most talkative, repr, to_dict, errors; a server that echoes what it was sent."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "uvicorn", "ragkit"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    shown: list[str] = []
    with serving_model(model, keys=[KEY]) as url:
        with pytest.raises(RemoteError, match="401") as caught:
            RemoteEncoder(url, api_key=SecretStr(f"{KEY}-wrong"), config=QUICK)
        shown += [str(caught.value), repr(caught.value)]
        with RemoteEncoder(url, api_key=SecretStr(KEY), config=QUICK) as remote:
            embedding = TaskEmbedding(model_name=url, encoder=remote)
            assert len(embedding.get_query_embedding("x")) == 64
            shown += [repr(remote), str(vars(remote)), repr(vars(remote._client)["url"]), repr(remote._client)]
            shown += [repr(embedding), json.dumps(embedding.to_dict()), str(embedding.model_dump())]
    echo = FastAPI()

    @echo.get("/v1/models")
    async def models(request: Request) -> Any:
        return JSONResponse({"error": {"message": f"bad key {request.headers['authorization']}"}}, 401)

    with serving(echo) as url, pytest.raises(RemoteError, match=r"bad key Bearer \*\*\*") as caught:
        RemoteEncoder(url, api_key=SecretStr(KEY))
    shown += [str(caught.value), repr(caught.value)]
    for bad in (f"{KEY}\n{KEY}", f"{KEY}\t{KEY}", f"{KEY}ü"):
        with pytest.raises(ValueError, match="letters that a header cannot carry") as wrong:
            RemoteEncoder("http://127.0.0.1:9", api_key=SecretStr(bad))
        shown += [str(wrong.value), repr(wrong.value)]
    printed = capfd.readouterr()
    for text in (*shown, caplog.text, printed.out, printed.err):
        assert KEY not in text
    assert "127.0.0.1" in caplog.text  # the logs were on


def test_settings_show_no_key(monkeypatch: pytest.MonkeyPatch):
    from ragkit.settings import Settings

    for name in ("EMBEDDER_API_KEY", "SERVE_API_KEYS", "QDRANT_API_KEY"):
        monkeypatch.setenv(f"RAGKIT_{name}", KEY)
    settings = Settings()
    assert settings.serve_api_keys and settings.serve_api_keys.get_secret_value() == KEY
    assert KEY not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()


# ---- where models are named


def test_in_llama_index(model: LocalEncoder):
    with serving_model(model) as url:
        embedding = TaskEmbedding(model_name=url, task="question-answering")
        expected = model.encode_queries(TEXTS, TASKS["question-answering"])
        np.testing.assert_allclose(embedding.get_query_embeddings(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(embedding.get_text_embedding_batch(TEXTS), model.encode_passages(TEXTS), atol=1e-5)
        again = TaskEmbedding.from_dict(embedding.to_dict())
        assert again.fingerprint == model.fingerprint == embedding.fingerprint


def test_in_the_command_line(model: LocalEncoder, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A corpus made by the server is the corpus of the model behind it."""
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAGKIT_EMBEDDER_API_KEY", KEY)
    (tmp_path / "documents").mkdir()
    for lang, text in SCRIPTS.items():
        (tmp_path / "documents" / f"{lang}.txt").write_text(text, "utf-8")

    def run(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(command_line, [*arguments, "--corpus", "town", "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    monkeypatch.setenv("RAGKIT_PASSAGE_TOKENS", "100")
    with serving_model(model, keys=[KEY]) as url:
        assert run("ingest", str(tmp_path / "documents"), "--model", url)["added"] == 7
        remote = run("search", SCRIPTS["am"], "--mode", "dense", "--model", url)["hits"]
        assert run("ask", SCRIPTS["am"], "--model", f"{url}/v1")["hits"]
    local = run("search", SCRIPTS["am"], "--mode", "dense", "--model", str(folder))["hits"]
    assert [hit["id"] for hit in remote] == [hit["id"] for hit in local]
    gone = CliRunner().invoke(command_line, ["search", "x", "--corpus", "town", "--model", "http://127.0.0.1:9"])
    assert gone.exit_code == 1 and KEY not in gone.output


def test_a_url_needs_no_torch(model: LocalEncoder):
    import subprocess
    import sys

    code = (
        "import sys; from ragkit.remote import open_encoder; e = open_encoder(sys.argv[1]);"
        "print(e.encode_passages(['x']).shape, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    with serving_model(model) as url:
        root = str(Path(__file__).parent.parent)
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.split("\n")[0] == "(1, 64) False False"


def test_open_encoder_takes_a_folder_too(folder: Path, model: LocalEncoder):
    assert open_encoder(folder).fingerprint == model.fingerprint


def test_a_request_that_is_too_much_is_halved():
    """A server may bound the tokens of a request, which its texts and bytes do not tell."""
    sent: list[int] = []

    def post(path: str, body: dict[str, Any]) -> Any:
        sent.append(len(body["input"]))
        if len(body["input"]) > 2:
            raise RemoteError("too many tokens: send the texts in parts", 413)
        return {"data": [{"index": n, "embedding": [1.0, float(t)]} for n, t in enumerate(body["input"])]}

    remote: Any = object.__new__(RemoteEncoder)
    remote._client, remote.server = SimpleNamespace(post=post), SimpleNamespace(fingerprint="")
    assert remote._embed(["1", "2", "3", "4", "5"], {})[:, 1].tolist() == [1, 2, 3, 4, 5]
    assert sent == [5, 2, 3, 1, 2]
    remote._client = SimpleNamespace(post=lambda *_: post("", {"input": "abc"}))
    with pytest.raises(RemoteError, match="in parts"):
        remote._embed(["one that is too long by itself"], {})
