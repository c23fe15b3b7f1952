"""A second reading: each hit beside the query, by a model that sees both at once.

A :class:`Reranker` is one method. :class:`EndpointReranker` asks a ``/rerank`` endpoint: Jina's, one of the
servers that call themselves OpenAI-compatible (vLLM, llama.cpp, LiteLLM), or Hugging Face's TEI. They differ
in three names of the request, and in whether the reply is a list. :class:`CrossEncoderReranker` runs a model
here, by sentence-transformers. Neither is shown a task's instruction: cross-encoders are trained without.

Texts go out in batches, so scores must not depend on the other texts of a batch: true of cross-encoders,
not of listwise models (jina-reranker-v3), which want ``batch`` no smaller than ``depth``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import httpx

from ragkit.client import header_key, is_url, masked
from ragkit.extras import install
from ragkit.settings import RerankSettings
from ragkit.sparse import well_formed


class RerankError(RuntimeError):
    """The reranker did not answer, or answered what is no score for each text."""


class Reranker(Protocol):
    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """One score a text, in the order given; greater is better."""
        ...


def load_reranker(settings: RerankSettings) -> Reranker | None:
    """None where nothing is configured."""
    if settings.url:
        return EndpointReranker(settings)
    return CrossEncoderReranker(settings.model, batch=settings.batch) if settings.model else None


class EndpointReranker:
    """Safe to share among threads. Raises :class:`RerankError` where the endpoint fails."""

    def __init__(self, settings: RerankSettings) -> None:
        if not is_url(settings.url):
            raise ValueError(
                f"rerank url {masked(settings.url)!r}: give the whole address, as http://localhost:8080/rerank"
            )
        if settings.style not in ("jina", "openai", "tei"):
            raise ValueError(f"rerank style {settings.style!r}: use 'jina', 'openai' or 'tei'")
        self.settings = settings
        key = header_key(settings.api_key)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=settings.timeout)

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        batch = self.settings.batch
        return [
            score for start in range(0, len(texts), batch) for score in self._ask(query, texts[start : start + batch])
        ]

    def _ask(self, query: str, texts: Sequence[str]) -> list[float]:
        url = masked(self.settings.url)
        try:
            reply = self._client.post(self.settings.url, json=request_body(self.settings, query, texts))
        except httpx.HTTPError as error:
            raise RerankError(f"the reranker at {url} cannot be asked ({error}): is it running there?") from error
        if reply.status_code != 200:
            raise RerankError(
                f"the reranker at {url} answered {reply.status_code}: {' '.join(reply.text.split())[:300]}. "
                f"It was asked as {self.settings.style!r}, {len(texts)} texts: check style, model, key and batch"
            )
        try:
            return read_scores(reply.json(), len(texts))
        except ValueError as error:
            raise RerankError(f"the reranker at {url} answered something else than scores: {error}") from error

    def close(self) -> None:
        self._client.close()


def request_body(settings: RerankSettings, query: str, texts: Sequence[str]) -> dict[str, Any]:
    """TEI: ``texts``, and long ones are cut where it would refuse them. Others: ``documents`` and a model."""
    query, texts = well_formed(query), [well_formed(text) for text in texts]
    if settings.style == "tei":
        return {"query": query, "texts": texts, "truncate": True, "raw_scores": False}
    body: dict[str, Any] = {"query": query, "documents": texts, "top_n": len(texts)}
    if settings.model:
        body["model"] = settings.model
    if settings.style == "jina":
        body["return_documents"] = False
    return body


def read_scores(reply: Any, count: int) -> list[float]:
    """Scores in the order asked, from a reply sorted by score. Raises ValueError unless each of the ``count``
    texts has one finite score."""
    ranked = reply.get("results", reply.get("data")) if isinstance(reply, dict) else reply
    if not isinstance(ranked, list):
        raise ValueError(f"no list of results in {str(reply)[:200]!r}")
    scores: dict[int, float] = {}
    for entry in ranked:
        try:
            index, score = entry["index"], float(entry["relevance_score" if "relevance_score" in entry else "score"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"a result without index or score: {str(entry)[:200]!r}") from error
        if not isinstance(index, int) or not 0 <= index < count or index in scores or not math.isfinite(score):
            raise ValueError(f"result {str(entry)[:200]!r} among {count} texts")
        scores[index] = score
    if len(scores) != count:
        raise ValueError(f"{len(scores)} results for {count} texts")
    return [scores[index] for index in range(count)]


class CrossEncoderReranker:
    """A sentence-transformers CrossEncoder in this process: a folder or Hub id. Needs the extra
    ``rerank``. Choose a multilingual one."""

    def __init__(self, model: str, *, batch: int = 32, device: str | None = None) -> None:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise ImportError(f"a cross-encoder needs sentence-transformers: {install('rerank')}") from error
        self._model = CrossEncoder(model, device=device, trust_remote_code=False)
        if self._model.num_labels != 1:
            raise ValueError(f"{model} tells {self._model.num_labels} classes apart: a reranker gives one score")
        self._batch = batch
        self._lock = threading.Lock()  # as LocalEncoder: two passes at once would fight for the same cores

    def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        pairs = [(well_formed(query), well_formed(text)) for text in texts]
        with self._lock:
            found = self._model.predict(pairs, batch_size=self._batch, show_progress_bar=False)
        return [float(score) for score in found]
