"""``ragkit serve``: our embeddings over OpenAI's HTTP interface, told apart by role and task.

The path of a request: the gate (guard.py: key, body), its meaning (wire.py: role, task, contradictions),
token ids in one thread, the queue (batching.py), the model in another. What cannot be served is refused
with a body that says why: 413 too much, 422 wrong, 429 too busy. Nothing is cut in silence: ``usage``
counts what the model read, ``truncated`` the texts that did not fit, ``truncate=false`` makes it an error.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import SecretStr
from starlette.exceptions import HTTPException

from ragkit import __version__
from ragkit.batching import Batcher, Busy
from ragkit.guard import Guard, Keys, Metrics
from ragkit.task import TASKS
from ragkit.wire import (
    CountRequest,
    CountResponse,
    EmbeddingRequest,
    EmbeddingResponse,
    Refused,
    Wanted,
    aliases,
    encode,
    shortened,
    understand,
)

if TYPE_CHECKING:
    from ragkit.encoder import LocalEncoder, Tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The limits of a server."""

    name: str = "mini"  # what clients call the model
    batch_tokens: int = 2048  # tokens computed at once: throughput against the wait of who comes next; GPU: 16,384
    queue_tokens: int = 131_072  # tokens that may wait, and the most of one request: beyond it 429, 413
    max_texts: int = 2048  # of a request, as OpenAI's
    max_body: int = 8 << 20  # bytes
    body_seconds: float = 30.0  # for a body to arrive
    seconds: float = 120.0  # for an answer, waiting included
    require_input_type: bool = False  # refuse who does not say query or document; else untold texts are documents

    def __post_init__(self) -> None:
        for knob in ("batch_tokens", "queue_tokens", "max_texts", "max_body", "body_seconds", "seconds"):
            if getattr(self, knob) <= 0:
                raise ValueError(f"{knob} is {getattr(self, knob)}: it must be above 0")


ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/json": {"schema": ERROR}}}
    for status, text in {
        400: "No JSON.",
        401: "No key, or not one of ours.",
        404: "No such model.",
        408: "The body came too slowly.",
        413: "Body, batch or tokens too many.",
        422: "The request says something wrong, or contradicts itself.",
        429: "Busy: try again after Retry-After.",
    }.items()
}
GATE: dict[int | str, dict[str, Any]] = {status: REFUSALS[status] for status in (401, 408, 413, 429)}


def create_app(encoder: LocalEncoder, config: ServeConfig, keys: Sequence[SecretStr] = ()) -> Any:
    """The ASGI application. Without ``keys`` everybody who reaches it is served."""
    service = _Service(encoder, config)
    bearer = [Depends(HTTPBearer(auto_error=False, description="One of the server's keys."))] if keys else []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.batcher:
            await service.batcher.encode(encoder.tokenize(["ready?"]).ids, config.seconds)  # fails now, not later
            yield
        service.tokenizer.shutdown()

    app = FastAPI(title="ragkit embeddings", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)

    @app.post("/v1/embeddings", responses=REFUSALS, dependencies=bearer, response_model=EmbeddingResponse)
    async def embeddings(request: EmbeddingRequest) -> Response:
        """Embeddings of texts, as OpenAI's endpoint gives them."""
        return await service.embeddings(request)

    @app.post("/v1/tokens", responses=REFUSALS, dependencies=bearer, response_model=CountResponse)
    async def tokens(request: CountRequest) -> Response:
        """How many tokens each text has, without prompt, BOS and EOS."""
        service.check_texts(request.input)
        counts = await service.in_thread(encoder.count_tokens, request.input)
        return JSONResponse({"counts": counts, "max_length": encoder.max_length})

    @app.get("/v1/models", responses=GATE, dependencies=bearer)
    async def models() -> Response:
        """The model under its name and the aliases that carry a role and a task."""
        return JSONResponse({"object": "list", "data": [service.model(alias) for alias in aliases(config.name)]})

    @app.get("/health")
    async def health() -> Response:
        """The process answers."""
        return JSONResponse({"status": "ok"})

    unready = {"description": "Not ready.", "content": {"application/json": {"schema": {"type": "object"}}}}

    @app.get("/ready", responses={503: unready})
    async def ready() -> Response:
        """The model is loaded and computes."""
        if not service.batcher.alive:
            return JSONResponse({"status": "not ready"}, 503)
        return JSONResponse({"status": "ready", "fingerprint": encoder.fingerprint})

    text = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", responses=GATE | {200: text}, dependencies=bearer, response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counts for Prometheus."""
        service.metrics.queue.set(service.batcher.waiting)
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    _explain_errors(app)
    _describe(app, encoder, config)
    paths = frozenset(getattr(route, "path", "") for route in app.routes)
    return Guard(
        app,
        keys=Keys(keys),
        max_body=config.max_body,
        body_seconds=config.body_seconds,
        metrics=service.metrics,
        paths=paths,
    )


def _describe(app: FastAPI, encoder: LocalEncoder, config: ServeConfig) -> None:
    """The OpenAPI document with this server's own names and limits."""
    schemas = app.openapi()["components"]["schemas"]  # made once, then kept by the application
    fields = schemas["EmbeddingRequest"]["properties"]
    fields["model"]["enum"] = list(aliases(config.name))
    for kind in fields["input"]["anyOf"]:
        if kind["type"] == "array":
            kind |= {"minItems": 1, "maxItems": config.max_texts}
    fields["task"]["anyOf"][0]["enum"] = list(TASKS)
    fields["dimensions"]["anyOf"][0]["maximum"] = encoder.dimension
    schemas["CountRequest"]["properties"]["input"]["maxItems"] = config.max_texts


def _explain_errors(app: FastAPI) -> None:
    """Every refusal in OpenAI's shape; none repeats the input, which may be private, huge or no Unicode."""

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> Response:
        body = Refused(429, str(error), code="busy").body()
        return JSONResponse(body, 429, headers={"Retry-After": str(error.retry_after)})

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        status = 400 if first["type"] == "json_invalid" else 422
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        where = where.encode("ascii", "backslashreplace").decode("ascii")[:80]  # a field's name may be anything
        message = first["msg"].removeprefix("Value error, ")
        body = Refused(status, f"{where}: {message}" if where else message, code=first["type"], param=where or None)
        return JSONResponse(body.body(), status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        body = Refused(error.status_code, str(error.detail), code="http_error").body()
        return JSONResponse(body, error.status_code, headers=error.headers)

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return JSONResponse(Refused(500, "the server failed; its log says how", code="internal").body(), 500)


class _Service:
    """The model behind the routes."""

    def __init__(self, encoder: LocalEncoder, config: ServeConfig) -> None:
        self.encoder, self.config = encoder, config
        self.metrics = Metrics()
        self.created = int(time.time())
        self.tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")  # fast tokenizers are not re-entrant
        self.batcher = Batcher(
            encoder.encode_rows,
            batch_tokens=config.batch_tokens,
            queue_tokens=config.queue_tokens,
            seen=self._seen,
        )
        self.metrics.model.labels(config.name, encoder.fingerprint, encoder.dimension, encoder.max_length).set(1)

    def _seen(self, rows: int, tokens: int) -> None:
        self.metrics.batch_texts.observe(rows)
        self.metrics.batch_tokens.observe(tokens)

    def model(self, alias: str) -> dict[str, Any]:
        """An entry of ``/v1/models``; ``ragkit`` is what RemoteEncoder reads."""
        return {
            "id": alias,
            "object": "model",
            "created": self.created,
            "owned_by": "ragkit",
            "ragkit": {
                "name": self.config.name,
                "fingerprint": self.encoder.fingerprint,
                "dimension": self.encoder.dimension,
                "max_length": self.encoder.max_length,
                "answer_threshold": self.encoder.answer_threshold,
                "max_texts": self.config.max_texts,
                "max_body": self.config.max_body,
            },
        }

    async def in_thread(self, function: Any, *arguments: Any) -> Any:
        """Raises Busy after the seconds of an answer; what then still waits for the thread is never done."""
        try:
            async with asyncio.timeout(self.config.seconds):
                return await asyncio.get_running_loop().run_in_executor(self.tokenizer, function, *arguments)
        except TimeoutError:
            told = f"not read within {self.config.seconds:g} s: send fewer texts at a time, or try again later"
            raise Busy(told, 5) from None

    def check_texts(self, texts: Sequence[str]) -> None:
        if len(texts) > self.config.max_texts:
            raise Refused(
                413,
                f"{len(texts)} texts in one request, at most {self.config.max_texts}: send them in parts",
                code="too_many_texts",
                param="input",
            )

    async def embeddings(self, request: EmbeddingRequest) -> Response:
        wanted = understand(request, self.config.name)
        if self.config.require_input_type and not wanted.told:
            raise Refused(
                422,
                f"say what the texts are: input_type 'query' or 'document', or the model '{self.config.name}:query'",
                code="input_type_missing",
                param="input_type",
            )
        self.check_texts(request.texts())
        if request.dimensions:  # before the work, not after it
            shortened(np.empty((0, self.encoder.dimension), np.float32), request.dimensions)
        prompts = wanted.prompts(request.texts())
        if wanted.task:
            await self.in_thread(self.encoder.share, wanted.task)
        read = await self.in_thread(self.encoder.tokenize, prompts)
        if read.truncated and not request.truncate:
            raise await self.in_thread(self._too_long, prompts, wanted)
        tokens = sum(map(len, read.ids))
        if tokens > self.config.queue_tokens:
            raise Refused(
                413,
                f"{tokens} tokens in one request, at most {self.config.queue_tokens}: send the texts in parts",
                code="too_many_tokens",
                param="input",
            )
        rows = await self.batcher.encode(read.ids, self.config.seconds)
        self.metrics.texts.labels(wanted.input_type if wanted.told else "untold").inc(len(rows))
        self.metrics.tokens.inc(tokens)
        self.metrics.truncated.inc(read.truncated)
        return await asyncio.to_thread(self._answer, rows, request, wanted, read, tokens)

    def _answer(
        self, rows: np.ndarray, request: EmbeddingRequest, wanted: Wanted, read: Tokens, tokens: int
    ) -> Response:
        """Off the event loop: a million numbers take a second to write."""
        if not np.isfinite(rows).all():
            raise RuntimeError("an embedding is not finite: the model overflows in this precision")
        rows = shortened(rows, request.dimensions, self.encoder.axes)
        return JSONResponse(
            {
                "object": "list",
                "data": [
                    {"object": "embedding", "index": n, "embedding": encode(row, request.encoding_format)}
                    for n, row in enumerate(rows)
                ],
                "model": request.model,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
                "input_type": wanted.input_type,
                "truncated": read.truncated,
                "fingerprint": self.encoder.fingerprint,
            }
        )

    def _too_long(self, prompts: Sequence[str], wanted: Wanted) -> Refused:
        room = self.encoder.max_length - len(self.encoder.tokenize([""]).ids[0])
        counts = self.encoder.count_tokens(prompts)
        long = [f"input[{n}] has {count}" for n, count in enumerate(counts) if count > room]
        prompt = " with its prompt" if wanted.task else ""
        more = f" and {len(long) - 3} more" if len(long) > 3 else ""
        return Refused(
            422,
            f"{', '.join(long[:3])}{more} tokens{prompt}, the model reads {room}, and truncate is false: split the "
            "text, or let it be cut",
            code="text_too_long",
            param="input",
        )


def parse_keys(setting: SecretStr | None) -> list[SecretStr]:
    """The keys of ``RAGKIT_SERVE_API_KEYS``. Raises ValueError, which quotes none of them."""
    if setting is None:
        return []
    keys = [key.strip() for key in setting.get_secret_value().split(",")]
    for number, key in enumerate(keys, start=1):
        if len(key) < 16 or not all("!" <= letter <= "~" for letter in key):
            raise ValueError(
                f"key {number} of RAGKIT_SERVE_API_KEYS is blank, shorter than 16 characters, or no plain ASCII: make "
                "one with 'python -c \"import secrets; print(secrets.token_urlsafe(32))\"'"
            )
    return [SecretStr(key) for key in keys]


def refuse_open(host: str, keys: Sequence[SecretStr]) -> None:
    """Raises ValueError for an address that others reach, without keys."""
    try:
        alone = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = False
    if not keys and not alone:
        raise ValueError(f"{host} can be reached by others: set RAGKIT_SERVE_API_KEYS, or serve on 127.0.0.1")


def serve(encoder: LocalEncoder, config: ServeConfig, keys: Sequence[SecretStr], host: str, port: int) -> None:
    """Serve until interrupted. Raises ValueError for an address that others reach, without keys."""
    import uvicorn

    refuse_open(host, keys)
    app = create_app(encoder, config, keys)
    uvicorn.run(app, host=host, port=port, log_level="warning", server_header=False, timeout_graceful_shutdown=30)
