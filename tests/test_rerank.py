"""Reranking through endpoints that behave like Jina's, an OpenAI-compatible server's and TEI's, and by a
cross-encoder here. The endpoints are local servers that score by shared words; the cross-encoder is real code
on tiny random weights: no trained one could be had offline, so nothing is claimed about its quality."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import SCRIPTS, HashEncoder
from pydantic import SecretStr

from ragkit.rerank import CrossEncoderReranker, EndpointReranker, RerankError, load_reranker, read_scores
from ragkit.retrieve import Retriever, rerank
from ragkit.settings import RerankSettings
from ragkit.store import open_store
from ragkit.types import Hit, Passage

KEY = "key-that-nobody-sees"


def words(query: str, text: str) -> float:
    return float(len(set(query.split()) & set(text.split())))


def jina(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Sorted, `results`, `relevance_score`; the documents come back unless they are not wanted."""
    assert path == "/v1/rerank"
    if set(body) - {"model", "query", "documents", "top_n", "return_documents"} or not body.get("model"):
        return 422, {"detail": "[ValidationError] model and documents are needed, nothing else is known"}
    ranked = by_score(body["query"], body["documents"])[: body["top_n"]]
    shown = {"document": {"text": "..."}} if body.get("return_documents", True) else {}
    results = [{"index": i, "relevance_score": s, **shown} for s, i in ranked]
    return 200, {"model": body["model"], "usage": {"total_tokens": 9}, "results": results}


def openai(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """As vLLM: documents always come back, and a model's name may be left out."""
    assert path == "/v1/rerank"
    if "documents" not in body or "texts" in body:
        return 400, {"error": {"message": "Field required: documents", "type": "BadRequestError", "code": 400}}
    ranked = by_score(body["query"], body["documents"])[: body.get("top_n") or None]
    results = [{"index": i, "document": {"text": body["documents"][i]}, "relevance_score": s} for s, i in ranked]
    return 200, {"id": "rerank-1", "model": body.get("model", "served"), "results": results}


def tei(path: str, body: dict[str, Any]) -> tuple[int, Any]:
    """A bare list; at most 32 texts a request; texts over the model's length are refused unless cut."""
    assert path == "/rerank"
    if "texts" not in body:
        return 422, {"error": "missing field `texts`", "error_type": "validation"}
    if len(body["texts"]) > 32:
        return 413, {
            "error": f"batch size {len(body['texts'])} > 32 allowed",
            "error_type": "Validation",
        }
    if any(len(text) > 2000 for text in body["texts"]) and not body.get("truncate"):
        return 413, {"error": "`inputs` must have less than 512 tokens", "error_type": "Validation"}
    return 200, [{"index": i, "score": s} for s, i in by_score(body["query"], body["texts"])]


def by_score(query: str, texts: list[str]) -> list[tuple[float, int]]:
    return sorted(((words(query, text), i) for i, text in enumerate(texts)), reverse=True)


@contextmanager
def endpoint(answer: Callable[[str, dict[str, Any]], tuple[int, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append(body)
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                status, reply = 401, {"error": "no key"}
            else:
                status, reply = answer(self.path, body)
            sent = reply.encode() if isinstance(reply, str) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


STYLES: dict[str, tuple[Any, str]] = {
    "jina": (jina, "/v1/rerank"), "openai": (openai, "/v1/rerank"), "tei": (tei, "/rerank")
}  # fmt: skip


def configured(style: Any, url: str, **more: Any) -> RerankSettings:
    return RerankSettings(url=url, style=style, model="m" if style == "jina" else "", api_key=SecretStr(KEY), **more)


@pytest.mark.parametrize("style", STYLES)
def test_scores_come_back_in_the_order_asked(style: str) -> None:
    answer, path = STYLES[style]
    texts = [*SCRIPTS.values(), "", "x " * 3000, "half \ud83d", *(f"a b {n}" for n in range(60))]
    query = "መቼ a b ይከፈታል?"
    with endpoint(answer) as (url, seen):
        reranker = EndpointReranker(configured(style, url + path))
        clean = [text.replace("\ud83d", "\ufffd") for text in texts]
        assert reranker.scores(query, texts) == [words(query, text) for text in clean]
        assert [len(body.get("texts") or body["documents"]) for body in seen] == [32, 32, len(texts) - 64]
        assert reranker.scores(query, []) == []
        reranker.close()


@pytest.mark.parametrize("style", STYLES)
def test_another_style_or_no_key_is_told_and_the_key_is_not(style: str) -> None:
    answer, path = STYLES[style]
    with endpoint(answer) as (url, _):
        other: Any = "tei" if style != "tei" else "jina"
        told: list[str] = []
        for settings in (configured(other, url + path), RerankSettings(url=url + path, api_key=SecretStr(KEY + "?"))):
            with pytest.raises(RerankError, match=r"answered 4\d\d: .* check style, model, key and batch") as error:
                EndpointReranker(settings).scores("q", ["t"])
            told += [str(error.value), repr(settings)]
        assert not [text for text in told if KEY in text]


def test_an_endpoint_that_is_not_there() -> None:
    with pytest.raises(RerankError, match="is it running there"):
        EndpointReranker(configured("tei", "http://127.0.0.1:9/rerank")).scores("q", ["t"])
    with pytest.raises(ValueError, match="give the whole address"):
        EndpointReranker(RerankSettings(url="localhost/rerank"))


@pytest.mark.parametrize(
    "reply",
    [
        "not json",
        {"error": "none"},
        {"results": [{"index": 0, "relevance_score": 1.0}]},
        [{"index": 0, "score": 1.0}, {"index": 0, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 2, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": -1, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 1, "score": float("nan")}],
        [{"index": 0, "score": 1.0}, {"index": 1}],
        [{"index": 0, "score": 1.0}, 7],
    ],
)
def test_replies_that_are_no_scores_are_refused(reply: Any) -> None:
    with endpoint(lambda *_: (200, reply)) as (url, _), pytest.raises(RerankError, match="else than scores"):
        EndpointReranker(configured("tei", url)).scores("q", ["a", "b"])


def test_other_names_of_the_same_fields() -> None:
    assert read_scores({"data": [{"index": 1, "score": 2}, {"index": 0, "relevance_score": 1}]}, 2) == [1, 2]


def hit(rank: int, text: str) -> Hit:
    return Hit(rank, 1 / rank, Passage(str(uuid.uuid5(uuid.NAMESPACE_OID, text)), text, "en", "d", "/d", rank, "h", 9))


class Words:
    """A reranker by shared words, that notes what it was given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, int]] = []

    def scores(self, query: str, texts: Any) -> list[float]:
        self.given.append((query, len(texts)))
        return [words(query, text) for text in texts]


def test_equal_scores_keep_their_order() -> None:
    hits = [hit(n, text) for n, text in enumerate(["b", "x", "a b", "y", "b c"], start=1)]
    found = rerank(Words(), "a b", hits)
    assert [(h.rank, h.score, h.passage.text) for h in found] == [
        (1, 2, "a b"), (2, 1, "b"), (3, 1, "b c"), (4, 0, "x"), (5, 0, "y")
    ]  # fmt: skip
    assert rerank(Words(), "a", []) == []


def test_the_retriever_reads_more_hits_again_than_it_returns(encoder: HashEncoder) -> None:
    """The best passage by words stands ninth by the embedding, and comes first."""
    texts = [f"ferry {n}" for n in range(20)] + ["the mail boat to Linda leaves at six from the old pier"]
    with open_store(":memory:", "town", encoder) as store:
        store.upsert([hit(n, text).passage for n, text in enumerate(texts, 1)], encoder.encode_passages(texts))
        query, reader = "ferry ferry ferry ferry mail boat Linda", Words()
        plain = Retriever(store, encoder).search(query, mode="dense", k=3)
        assert texts[-1] not in [h.passage.text for h in plain]
        reranking = Retriever(store, encoder, reranker=reader, rerank_depth=21)
        for mode in ("dense", "sparse", "hybrid"):
            found = reranking.search(query, mode=mode, k=3)
            assert found[0].passage.text == texts[-1] and [h.rank for h in found] == [1, 2, 3]
        assert reader.given == [(query, 21)] * 3  # without the task's instruction
        with pytest.raises(ValueError, match="no reranker"):
            reranking.search(query, diversity=0.5)


# ---------------------------------------------------------------------- a cross-encoder


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Tiny BERTs for sequence classification with random weights and a vocabulary of single characters."""
    pytest.importorskip("sentence_transformers")
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    def make(labels: int) -> Path:
        folder = tmp_path_factory.mktemp("cross")
        letters = sorted({c for text in SCRIPTS.values() for c in text if not c.isspace()})
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
        vocabulary = folder / "vocab.txt"
        vocabulary.write_text("\n".join(tokens) + "\n", "utf-8")
        BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=len(tokens), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=64, num_labels=labels, initializer_range=0.5,
        )  # fmt: skip
        BertForSequenceClassification(config).save_pretrained(folder)
        return folder

    return make


def test_a_cross_encoder_runs_here(cross_encoder: Callable[[int], Path]) -> None:
    folder = cross_encoder(1)
    reranker = load_reranker(RerankSettings(model=str(folder), batch=3))
    assert isinstance(reranker, CrossEncoderReranker)
    texts = [*SCRIPTS.values(), "", "አ" * 500]
    scores = reranker.scores(SCRIPTS["am"], texts)
    assert len(scores) == len(texts) and len(set(scores)) > 5
    alone = [reranker.scores(SCRIPTS["am"], [text])[0] for text in texts]
    assert scores == pytest.approx(alone, abs=1e-5)  # whatever shares the batch
    assert reranker.scores("q", []) == []
    assert load_reranker(RerankSettings()) is None


def test_a_classifier_is_no_reranker(cross_encoder: Callable[[int], Path]) -> None:
    with pytest.raises(ValueError, match="tells 3 classes apart"):
        CrossEncoderReranker(str(cross_encoder(3)))


def test_a_password_in_its_url_is_not_shown():
    asked = EndpointReranker(RerankSettings(url="http://user:hunter2@127.0.0.1:9/rerank", timeout=1.0))
    with pytest.raises(RerankError, match=r"the reranker at http://127\.0\.0\.1:9/rerank cannot") as told:
        asked.scores("q", ["a"])
    assert "hunter2" not in str(told.value)


def test_a_key_with_a_line_break_is_not_shown():
    settings = RerankSettings(url="http://127.0.0.1:9/rerank", api_key=SecretStr("s3cret\nkey"))
    with pytest.raises(ValueError, match="a header cannot carry") as told:
        EndpointReranker(settings)
    assert "s3cret" not in str(told.value)


def test_what_lies_beyond_the_depth_is_returned_and_not_read_again(encoder: HashEncoder) -> None:
    """`ragkit evaluate` asks for 200 passages, and measures what a search for 10 would find."""
    read: list[int] = []

    class Counting:
        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            read.append(len(texts))
            return [float(n) for n in range(len(texts))]

    texts = [f"the ferry leaves at {n}" for n in range(9)]
    passages = [Passage(str(uuid.UUID(int=n)), t, "en", "d", "/d", n, "h", 9) for n, t in enumerate(texts)]
    with open_store(":memory:", "town", encoder) as store:
        store.upsert(passages, encoder.encode_passages(texts))
        plain = Retriever(store, encoder).search("ferry", mode="dense", k=9)
        found = Retriever(store, encoder, reranker=Counting(), rerank_depth=4).search("ferry", mode="dense", k=9)
    assert read == [4] and [hit.rank for hit in found] == list(range(1, 10))
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert [h.passage.id for h in found] == [h.passage.id for h in [*plain[3::-1], *plain[4:]]]
