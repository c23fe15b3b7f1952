"""What differs between embeddings servers: how they introduce themselves and count tokens.

All four answer ``POST /v1/embeddings``. Sources: vllm/entrypoints (``/v1/models`` with ``owned_by: vllm``
and ``max_model_len``; ``/tokenize`` with ``prompt``), TEI router/src/http (``/info``, ``/tokenize`` with
``inputs``), llama.cpp tools/server (``/v1/models`` with ``owned_by: llamacpp``, ``/props``, ``/tokenize``
with ``content``). An unknown server is spoken to as OpenAI's, and cannot count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from ragkit.client import Client, RemoteError, written


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a server says of itself; zeros and blanks where it does not."""

    kind: str  # of KINDS
    model: str  # what requests name
    max_length: int = 0  # tokens, BOS and EOS included
    max_texts: int = 0  # of a request
    max_body: int = 0  # bytes of a request
    dimension: int = 0
    fingerprint: str = ""
    answer_threshold: float = 0.0

    @property
    def room(self) -> int:
        """Bytes for a request's texts as JSON: an eighth of the body is left to what stands beside them."""
        return self.max_body - self.max_body // 8


KINDS = ("ragkit", "vllm", "tei", "llama.cpp", "openai")


def introduce(client: Client, model: str = "") -> Introduction:
    """Ask a server what it is. ``model`` chooses among several. Raises :class:`RemoteError`."""
    try:
        listed = client.get("/v1/models")
    except RemoteError as error:
        if error.status not in (404, 405):
            raise
        return _tei(client, model)
    rows = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "id" in row for row in rows):
        raise RemoteError(f"{client.url}/v1/models lists no models: is it an embeddings server?")
    ours = [row["ragkit"] for row in rows if isinstance(row.get("ragkit"), dict)]
    if ours:
        return _ragkit(ours[0], client, model)
    row = _chosen(rows, client, model)
    owner, name = str(row.get("owned_by")), str(row["id"])
    if owner == "vllm":
        return Introduction("vllm", name, int(row.get("max_model_len") or 0))
    if owner == "llamacpp":
        return Introduction(
            "llama.cpp", name, _context(client), dimension=int((row.get("meta") or {}).get("n_embd", 0))
        )
    return Introduction("openai", name)


def _chosen(rows: list[dict[str, Any]], client: Client, model: str) -> dict[str, Any]:
    names = [str(row["id"]) for row in rows]
    if model and model not in names:
        raise RemoteError(f"{client.url} has no model {model!r}; it serves {', '.join(names) or 'none'}")
    if not model and len(rows) != 1:
        raise RemoteError(f"{client.url} serves {len(rows)} models: name one of {', '.join(names[:20]) or 'none'}")
    return rows[names.index(model)] if model else rows[0]


def _ragkit(told: dict[str, Any], client: Client, model: str) -> Introduction:
    if model and model != told["name"]:
        raise RemoteError(f"{client.url} serves {told['name']!r}, not {model!r}")
    return Introduction(
        "ragkit",
        str(told["name"]),
        int(told["max_length"]),
        int(told["max_texts"]),
        int(told["max_body"]),
        int(told["dimension"]),
        str(told["fingerprint"]),
        float(told["answer_threshold"]),
    )


def _tei(client: Client, model: str) -> Introduction:
    told = client.get("/info")
    if not isinstance(told, dict) or "model_id" not in told:
        raise RemoteError(f"{client.url} has neither /v1/models nor TEI's /info: is it an embeddings server?")
    name = str(told["model_id"])
    return Introduction(
        "tei", model or name, int(told.get("max_input_length") or 0), int(told.get("max_client_batch_size") or 0)
    )


def _context(client: Client) -> int:
    """llama.cpp refuses a text that fills its context, so one token less."""
    settings = client.get("/props").get("default_generation_settings") or {}
    return max(0, int(settings.get("n_ctx") or 0) - 1)


def pieces(text: str, room: int) -> list[str]:
    """``text``, cut where its JSON has over ``room`` bytes; a letter has 6 at most. 0: whatever it has."""
    most = max(1, room // 6)
    if not room or len(text) <= most or len(written(text)) <= room:
        return [text]
    return [text[start : start + most] for start in range(0, len(text), most)]


def parts(texts: Sequence[str], most: int, room: int) -> Iterator[list[str]]:
    """``texts`` in order, for a request each: at most ``most``, of ``room`` bytes of JSON; a larger one by itself."""
    part: list[str] = []
    size = 0
    for text in texts:
        length = len(written(text)) + 2  # a comma and a space
        if part and (len(part) == most or size + length > room):
            yield part
            part, size = [], 0
        part.append(text)
        size += length
    yield part


def count_tokens(client: Client, server: Introduction, texts: Sequence[str], pool: Executor) -> list[int]:
    """Tokens of each text, without BOS and EOS, counted by the server. A text that is larger than our server's body
    is counted in pieces, which may be a few tokens more."""

    def one(body: Callable[[str], dict[str, Any]]) -> list[int]:
        answers = pool.map(lambda text: client.post("/tokenize", body(text)), texts)
        return [len(answer["tokens"]) for answer in answers]

    if not texts:
        return []
    if server.kind == "ragkit":
        cut = [pieces(text, server.room) for text in texts]
        asked = parts([piece for text in cut for piece in text], server.max_texts, server.room)
        counts = chain.from_iterable(client.post("/v1/tokens", {"input": part})["counts"] for part in asked)
        return [sum(islice(counts, len(text))) for text in cut]
    if server.kind == "tei":
        asked = parts(texts, server.max_texts or 32, client.config.batch_bytes)
        rows = [client.post("/tokenize", {"inputs": part, "add_special_tokens": False}) for part in asked]
        return [len(row) for part in rows for row in part]
    if server.kind == "vllm":
        return one(lambda text: {"model": server.model, "prompt": text, "add_special_tokens": False})
    if server.kind == "llama.cpp":
        return one(lambda text: {"content": text, "add_special": False})
    raise RemoteError(
        f"{client.url} cannot count tokens, which passages are sized in: give the model's folder (its tokenizer.json)"
    )
