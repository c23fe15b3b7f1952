"""A model behind an OpenAI-compatible or Azure endpoint, and the form of what goes there and comes back.

Pure: no connection, no key. :mod:`ragkit.llm` asks over HTTP; ``trainer synthesise plan | collect`` write
and read the same bodies as files, and need no client for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

STRUCTURED = ("json_schema", "json_object", "none")  # from strict to free


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model and where it is served. Holds no secret: ``api_key_env`` names a variable."""

    model: str  # as the server calls it; Azure: the deployment
    name: str = ""  # in reports and files; "" for the model's
    api: str = "openai"  # or "azure"
    base_url: str = ""  # "" for api.openai.com; Azure: https://NAME.openai.azure.com
    api_version: str = ""  # Azure only
    api_key_env: str = "OPENAI_API_KEY"
    share: float = 1.0  # of the requests, relative to the other endpoints'
    structured: str = "auto"  # or one of STRUCTURED, where the server's way is known
    temperature: float = 1.0  # the paper's, for diversity
    top_p: float = 1.0
    max_tokens: int = 2048  # of an answer; bounds what a model that does not stop can cost
    concurrency: int = 16  # requests at a time
    timeout: float = 120.0  # seconds for one try, from sending to the last byte
    retries: int = 6  # after failures
    patience: float = 3600.0  # seconds that a request puts up with refusals (429): long, since waiting is what they ask
    price_in: float | None = None  # money per million tokens of prompt; 0 for a server of one's own
    price_out: float | None = None  # and of answer
    # Further fields of the request body; null takes one out: {max_tokens: null, max_completion_tokens: 2048}.
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.api not in ("openai", "azure"):
            raise ValueError(f"endpoint {self.label!r} has api {self.api!r}: use 'openai' or 'azure'")
        if self.api == "azure" and not (self.base_url and self.api_version):
            raise ValueError(f"endpoint {self.label!r} is Azure's: give base_url and api_version")
        if self.structured not in ("auto", *STRUCTURED):
            raise ValueError(
                f"endpoint {self.label!r} has structured {self.structured!r}: use auto, {', '.join(STRUCTURED)}"
            )
        if self.concurrency < 1 or self.share < 0:
            raise ValueError(
                f"endpoint {self.label!r} has concurrency {self.concurrency} and share {self.share}: "
                "give at least 1, and 0 or more"
            )

        # Endpoints are saved with a run, so what may be a key is refused, and not repeated.
        if self.api_key_env and not self.api_key_env.isidentifier():
            raise ValueError(
                f"endpoint {self.label!r} has an api_key_env that names no environment variable: "
                "put the key into a variable, and the variable's name here"
            )
        if "@" in urlsplit(self.base_url).netloc:
            raise ValueError(
                f"endpoint {self.label!r} has a base_url with a password in it: put it into the variable "
                "that api_key_env names"
            )

    @property
    def label(self) -> str:
        return self.name or self.model

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """Money, in the currency of the prices; 0 where none is known."""
        return (prompt_tokens * (self.price_in or 0.0) + completion_tokens * (self.price_out or 0.0)) / 1e6


@dataclass(frozen=True, slots=True)
class Reply:
    text: str  # what the model said; its refusal, where the server marks one
    model: str  # as the server names it
    prompt_tokens: int
    completion_tokens: int
    finish: str = ""  # the server's finish_reason: "stop", "length", "content_filter"
    refused: bool = False  # the server marked the text as a refusal
    estimated: bool = False  # the server did not count; tokens are UTF-8 bytes / 4
    tries: int = 1


def request_body(
    endpoint: Endpoint,
    messages: Sequence[Mapping[str, str]],
    schema: Mapping[str, Any] | None = None,
    form: str = "json_schema",
) -> dict[str, Any]:
    """The body of a chat completion, as the API and its batch files have it."""
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": list(messages),
        "temperature": endpoint.temperature,
        "top_p": endpoint.top_p,
        "max_tokens": endpoint.max_tokens,
    }
    if schema is not None and form == "json_schema":
        wanted = {"name": "answer", "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
    elif schema is not None and form == "json_object":
        body["response_format"] = {"type": "json_object"}
    return {name: value for name, value in (body | dict(endpoint.extra)).items() if value is not None}


def estimate_tokens(text: str) -> int:
    """For servers that do not count: UTF-8 bytes / 4, about right for most tokenizers and scripts."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def reply_of(completion: Any, messages: Sequence[Mapping[str, str]]) -> Reply:
    """From a chat completion as JSON. Raises ValueError where it is none: servers and proxies send anything."""
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
    except (TypeError, KeyError, IndexError, AttributeError):
        raise ValueError(f"a body that is no chat completion: {str(completion)[:80]!r}") from None
    finish = str(choice.get("finish_reason") or "")
    if not isinstance(text, str) and not refusal and finish not in ("content_filter", "length"):
        raise ValueError("a chat completion without content")
    text = text if isinstance(text, str) and text else str(refusal or "")
    counted = _counts(completion.get("usage"))
    prompt, answer = counted or (sum(estimate_tokens(m["content"]) for m in messages), estimate_tokens(text))
    return Reply(
        text,
        str(completion.get("model") or ""),
        prompt,
        answer,
        finish=finish,
        refused=bool(refusal) or finish == "content_filter",
        estimated=counted is None,
    )


def _counts(usage: Any) -> tuple[int, int] | None:
    """Tokens of prompt and answer, where the server says both."""
    if not isinstance(usage, dict):
        return None
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (
        (prompt, answer) if isinstance(prompt, int) and isinstance(answer, int) and min(prompt, answer) >= 0 else None
    )
