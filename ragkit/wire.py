"""What an embeddings request may say, and what it then means. Pure: no server, no model.

OpenAI's shape has no role and no task, so three things are added: ``input_type``, ``task`` (or a whole
``instruction``) and ``truncate``; clients that cannot send them name the model ``NAME:query/TASK``. A
request that contradicts itself is refused, and so is a field that we do not know: an ignored
``prompt_name`` would be a silent loss of quality.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator

from ragkit.around import shorten
from ragkit.task import DEFAULT_TASK, TASKS, Task

LONGEST_INSTRUCTION = 2000  # characters: it is put before each of the texts
InputType = Literal["query", "document"]


class Refused(Exception):
    """A request that will not be served; ``status`` and ``code`` are for programs, the text for people."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 429 else "overloaded_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


class EmbeddingRequest(BaseModel):
    """Body of ``POST /v1/embeddings``: OpenAI's, with the role, the task and the choice not to be cut."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str] = Field(description="One text or several. Bare: the server writes the prompt.")
    model: str = Field(description="NAME, NAME:document, NAME:query, or NAME:query/TASK.")
    input_type: InputType | None = Field(None, description="Queries carry the task's prompt, documents stay bare.")
    task: str | None = Field(None, description=f"Of a query: a name of TASKS. Default: {DEFAULT_TASK}.")
    instruction: str | None = Field(
        None, max_length=LONGEST_INSTRUCTION, description="Of a query: a task of your own, in one sentence."
    )
    truncate: bool = Field(True, description="false: a text that is too long is an error.")
    dimensions: int | None = Field(None, ge=1, description="So many, at unit length again.")
    encoding_format: Literal["float", "base64"] = "float"
    user: str | None = Field(None, description="Accepted, not read.")

    @field_validator("input", mode="before")
    @classmethod
    def _no_token_ids(cls, value: Any) -> Any:
        if isinstance(value, list) and value and all(isinstance(item, int | list) for item in value):
            raise ValueError(
                "token ids are refused: a client's ids are of its own vocabulary (LangChain's OpenAIEmbeddings sends "
                "OpenAI's cl100k_base), which this model would read as other words. Send the text; LangChain does with "
                "check_embedding_ctx_length=False"
            )
        if value == []:
            raise ValueError("input is an empty list: send at least one text")
        return value

    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class CountRequest(BaseModel):
    """Body of ``POST /v1/tokens``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: list[str] = Field(min_length=1, description="Bare texts.")


class Item(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Read by the model: prompts, BOS and EOS included.")
    total_tokens: int


class EmbeddingResponse(BaseModel):
    """OpenAI's, with what was understood and what was cut."""

    object: Literal["list"]
    data: list[Item]
    model: str
    usage: Usage
    input_type: InputType
    truncated: int = Field(description="Texts that did not fit.")
    fingerprint: str = Field(description="Vectors of another fingerprint mean something else.")


class CountResponse(BaseModel):
    counts: list[int] = Field(description="Tokens of each text, without prompt, BOS and EOS.")
    max_length: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for. ``task`` is None for documents."""

    input_type: InputType
    task: Task | None
    told: bool  # the client said which; else it is the server's default

    def prompts(self, texts: Sequence[str]) -> list[str]:
        try:
            return [self.task.prompt(text) for text in texts] if self.task else list(texts)
        except ValueError as error:  # the prefix is there already
            raise Refused(422, str(error), code="prefix_doubled", param="input") from error


def aliases(name: str) -> Iterator[str]:
    yield from (name, f"{name}:document", f"{name}:query")
    yield from (f"{name}:query/{task}" for task in TASKS)


def understand(request: EmbeddingRequest, name: str) -> Wanted:
    """Role and task of a request to the model ``name``. Raises :class:`Refused` where it contradicts itself."""
    served, colon, alias = request.model.partition(":") if not name.count(":") else _split(request.model, name)
    if served != name:
        raise Refused(
            404, f"no model {request.model[:80]!r} here: ask for {name!r}", code="model_not_found", param="model"
        )
    role, slash, task = alias.partition("/")
    if (colon and role not in ("query", "document")) or (slash and (role != "query" or not task)):
        raise Refused(
            404,
            f"model {request.model[:80]!r}: after the name comes ':document', ':query' or ':query/TASK'",
            code="model_not_found",
            param="model",
        )
    for field, ours, theirs in (("input_type", role, request.input_type), ("task", task, request.task)):
        if ours and theirs and ours != theirs:
            raise Refused(
                422,
                f"the model's name says {field} {ours!r}, the request says {theirs!r}: leave one out",
                code="contradiction",
                param=field,
            )
    task = task or request.task or ""
    if task and request.instruction is not None:
        raise Refused(422, "give task or instruction, not both", code="contradiction", param="instruction")
    told = role or request.input_type
    if not told and (task or request.instruction is not None):
        raise Refused(
            422,
            "a task without input_type: say 'query' (the prompt is added) or 'document' (it is not)",
            code="input_type_missing",
            param="input_type",
        )
    if told != "query":
        _refuse_symmetric(task)
        return Wanted("document", None, bool(told))
    return Wanted("query", _task(task, request.instruction), True)


def _split(model: str, name: str) -> tuple[str, str, str]:
    rest = model.removeprefix(name)
    return (name, rest[:1], rest[1:]) if model.startswith(name) and rest[:1] in ("", ":") else (model, "", "")


def _refuse_symmetric(task: str) -> None:
    if task in TASKS and TASKS[task].symmetric:
        raise Refused(
            422,
            f"task {task!r} compares like with like, so both sides carry its prompt: send input_type 'query' for both",
            code="symmetric_task",
            param="input_type",
        )


def _task(name: str, instruction: str | None) -> Task:
    if instruction is not None:
        try:
            return Task("own", instruction)
        except ValueError as error:
            raise Refused(422, str(error), code="bad_instruction", param="instruction") from error
    if name and name not in TASKS:
        raise Refused(
            422, f"unknown task {name[:80]!r}: use one of {', '.join(TASKS)}", code="unknown_task", param="task"
        )
    return TASKS[name or DEFAULT_TASK]


def shortened(rows: np.ndarray, dimensions: int | None, axes: np.ndarray | None = None) -> np.ndarray:
    """Unit rows (N, D) in ``dimensions`` numbers: :func:`ragkit.around.shorten`. Raises :class:`Refused`."""
    try:
        return rows if dimensions is None else shorten(rows, dimensions, axes)
    except ValueError as error:
        raise Refused(422, str(error), code="too_many_dimensions", param="dimensions") from error


def encode(row: np.ndarray, encoding_format: str) -> str | list[float]:
    """A row as JSON carries it: numbers, or OpenAI's base64 of little-endian float32."""
    if encoding_format == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    return row.tolist()
