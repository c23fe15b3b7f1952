"""Chat with a language model behind an OpenAI-compatible or Azure endpoint: one call, ``Chat.chat``.

The ``openai`` package speaks HTTP; what is added is what a run of days needs. A refusal (429) holds all
requests to the endpoint for as long as the server asks; server errors, cut connections, stalls and
bodies that are no answer are tried again with growing pauses; a fault that more tries cannot mend is
told apart from one that they can. A schema goes out as ``json_schema`` where the server takes it, else
as ``json_object``, else not at all: the first answer shows which. So messages must say the form, too.

Keys come from environment variables named by the endpoint, and stay in a ``SecretStr``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx2
import openai
from pydantic import SecretStr

from ragkit.endpoint import STRUCTURED, Endpoint, Reply, reply_of, request_body
from ragkit.pace import LONGEST, Pace, retry_after

if TYPE_CHECKING:
    from ragkit.settings import LlmSettings

log = logging.getLogger(__name__)

_NOT_TAKEN = (None, "", "unsupported_parameter", "unsupported_value")  # error codes; a value out of range is another
_OTHERWISE = {"max_tokens": "max_completion_tokens", "temperature": "", "top_p": ""}  # fields, and their other names
_DENIALS = 5  # requests turned down, and none answered, that show an endpoint to be set up wrongly


class ChatError(Exception):
    """No answer. ``permanent`` where asking the same again cannot help."""

    def __init__(self, message: str, *, permanent: bool = False, tries: int = 1) -> None:
        super().__init__(message)
        self.permanent, self.tries = permanent, tries


class EndpointDown(ChatError):
    """No request to this endpoint can succeed: a wrong key, a model that is not there, no money left."""


class AnswerCut(ChatError):
    """The answer reached ``max_tokens``; its pieces came."""


class Chat:
    """An open endpoint. One per event loop; ``async with`` closes its connections."""

    def __init__(self, endpoint: Endpoint, *, pace: Pace | None = None, key: SecretStr | None = None) -> None:
        """``key``: where it does not come from the variable that the endpoint names."""
        self.endpoint = endpoint
        self.pace = pace or Pace()
        given = key or _key(endpoint)
        self._key = SecretStr(given.get_secret_value().strip())  # without the line break that `echo` leaves
        self._client = _client(endpoint, self._key)
        self._asked = endpoint  # with what was learnt of its fields
        auto = endpoint.structured == "auto"
        self._forms = list(STRUCTURED) if auto else [endpoint.structured]
        self._typical = 0  # tokens of a request, by those seen; 0: nothing was answered yet
        self._denied = 0  # requests turned down for what they say

    async def __aenter__(self) -> Chat:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def chat(self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any] | None = None) -> Reply:
        """The model's answer, as JSON of ``schema`` as far as the server can see to it.

        Raises EndpointDown or ChatError; what it raises holds no key.
        """
        forms = self._forms if schema is not None else ["none"]
        refusals = failures = 0
        begun = time.monotonic()
        while True:
            tries, sent = refusals + failures + 1, self._asked
            try:
                reply = await self._try(sent, messages, schema, forms[0])
            except openai.APIStatusError as error:
                status, said = error.status_code, self._said(error)
                if status == 429 and error.code != "insufficient_quota":
                    refusals += 1
                    if time.monotonic() - begun > self.endpoint.patience:
                        raise ChatError(f"refused {refusals} times: {said}", tries=tries) from None
                    wait = retry_after(error.response.headers)
                    # A server that keeps refusing after the pause it asked for is given a longer one.
                    least = _pause(refusals - 5) if refusals > 5 or wait is None else 0.0
                    self.pace.hold(max(wait or 0.0, least))
                    continue
                if status in (401, 403, 404, 429):
                    raise EndpointDown(f"{self.endpoint.label} answers {said}", permanent=True, tries=tries) from None
                if self._learns(error, sent):
                    continue
                if status in (400, 422) and len(forms) > 1 and error.code != "content_filter":
                    forms = forms[1:]  # perhaps the server does not know this form
                    continue
                if status < 500 and status not in (408, 409):
                    raise self._denial(said, tries) from None
                wait = retry_after(error.response.headers)
            except (openai.APIError, TimeoutError, ValueError, RecursionError) as error:
                said, wait = self._said(error), None  # the last two: a body that is no JSON, or "[[[[[…"
            else:
                if len(forms) < len(self._forms) and schema is not None:
                    self._forms = forms  # what worked is asked for first from now on
                return dataclasses.replace(reply, tries=tries)
            failures += 1
            if failures > self.endpoint.retries:
                raise ChatError(f"failed {failures} times, at last with {said}", tries=tries) from None
            await asyncio.sleep(_pause(failures) if wait is None else min(wait, LONGEST))

    async def stream(self, messages: Sequence[Mapping[str, str]]) -> AsyncIterator[str]:
        """The answer in pieces, as they come. Tried again, a few times, as long as nothing has come.

        Raises EndpointDown or ChatError; after the pieces that came ChatError where the stream broke off, and AnswerCut
        where the answer reached ``max_tokens``.
        """
        client = self._client.with_options(max_retries=min(3, self.endpoint.retries))

        async def begun() -> Any:
            sent = self._asked
            body = request_body(sent, messages)
            try:
                return await client.chat.completions.create(
                    model=body.pop("model"), messages=body.pop("messages"), stream=True, extra_body=body
                )
            except openai.APIStatusError as error:
                if self._learns(error, sent):
                    return await begun()
                raise

        finish = None
        try:
            chunks = await begun()
            async with chunks:
                async for chunk in chunks:
                    for choice in chunk.choices[:1]:
                        finish = choice.finish_reason or finish
                        if choice.delta.content:
                            yield choice.delta.content
        except openai.APIStatusError as error:
            kind = EndpointDown if error.status_code in (401, 403, 404) else ChatError
            raise kind(
                f"{self.endpoint.label} answers {self._said(error)}", permanent=error.status_code < 500
            ) from None
        except (openai.APIError, httpx2.HTTPError, TimeoutError, ValueError) as error:
            raise ChatError(f"{self.endpoint.label}: {self._said(error)}") from None
        if finish == "length":
            raise AnswerCut(f"the answer was cut off at max_tokens, {self.endpoint.max_tokens}", permanent=True)
        if finish is None:
            raise ChatError(f"the answer of {self.endpoint.label} broke off")

    async def _try(
        self, e: Endpoint, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any] | None, form: str
    ) -> Reply:
        await self.pace.start()
        headers: Mapping[str, str] | None = None
        try:
            async with asyncio.timeout(e.timeout):  # the client's own timeout is between bytes
                # `post`, not `chat.completions.create`: both go the same way, but the second walks the body and the
                # answer field by field along the client's types, a third of the CPU time of a request.
                raw = await self._client.post(
                    "/chat/completions", cast_to=httpx2.Response, body=request_body(e, messages, schema, form)
                )
            headers = raw.headers
            reply = reply_of(json.loads(raw.content), messages)
            self._typical = max(self._typical, reply.prompt_tokens + reply.completion_tokens)
            return reply
        finally:
            self.pace.end(headers, tokens=self._typical)

    def _learns(self, error: openai.APIStatusError, sent: Endpoint) -> bool:
        """Whether the server named a field of ``sent`` that this model does not take, as OpenAI's reasoning models do
        not: it goes under its other name, or not at all, from now on. What the endpoint's ``extra`` says stays."""
        field = error.param
        if error.status_code != 400 or error.code not in _NOT_TAKEN or field not in _OTHERWISE:
            return False
        if field in sent.extra:
            return False  # the user's own word, or what was learnt did not help
        if field not in self._asked.extra:  # else another request has learnt it meanwhile
            other = _OTHERWISE[field]
            instead = {field: None} | ({other: self.endpoint.max_tokens} if other else {})
            self._asked = dataclasses.replace(self._asked, extra=instead | dict(self._asked.extra))
            how = f"by {other}" if other else "without"
            log.warning("%s takes no %s: asked %s from now on", self.endpoint.label, field, how)
        return True

    def _denial(self, said: str, tries: int) -> ChatError:
        """Is it this request, or all of them? An endpoint that has answered nothing yet and turns one after another
        down has a knob that its model does not take (``max_tokens``, ``temperature``), and no request is at fault."""
        self._denied += 1
        if self._typical or self._denied < _DENIALS:
            return ChatError(said, permanent=self._typical > 0, tries=tries)
        message = f"{self.endpoint.label} has turned down all of {self._denied} requests: {said}. Is a field of the "
        message += "body not its own? Take it out with the endpoint's extra: {max_tokens: null}"
        return EndpointDown(message, permanent=True, tries=tries)

    def _said(self, error: Exception) -> str:
        """One line without the key, which some servers repeat."""
        kind = f"{error.status_code} " if isinstance(error, openai.APIStatusError) else f"{type(error).__name__} "
        text = " ".join(f"{kind}{error}".split())
        secret = self._key.get_secret_value()
        return (text.replace(secret, "***") if len(secret) > 4 else text)[:500]


def answering(settings: LlmSettings, model: str = "") -> Chat:
    """The chat model that words answers: ``model``, or the one that the settings name. Raises EndpointDown."""
    endpoint = Endpoint(
        model or settings.model,
        base_url=settings.url,
        api_key_env="RAGKIT_LLM_API_KEY",
        temperature=0.0,
        max_tokens=settings.max_tokens,
    )
    return Chat(endpoint, key=settings.api_key)


def _key(endpoint: Endpoint) -> SecretStr:
    value = os.environ.get(endpoint.api_key_env, "") if endpoint.api_key_env else ""
    if not value and not (endpoint.base_url and endpoint.api == "openai"):
        raise EndpointDown(
            f"endpoint {endpoint.label!r} needs a key: set the environment variable {endpoint.api_key_env!r}",
            permanent=True,
        )
    return SecretStr(value or "none")  # a server of one's own may ask for none; the client wants one


def _client(endpoint: Endpoint, key: SecretStr) -> openai.AsyncOpenAI:
    # 1.4 ms of CPU time an answer at 64 at once, against 2.2 with httpx (benchmarks/synthesise.py).
    http = openai.DefaultAioHttpClient(timeout=endpoint.timeout)
    common: dict[str, Any] = {"api_key": key.get_secret_value(), "max_retries": 0, "http_client": http}
    if endpoint.api == "azure":
        return openai.AsyncAzureOpenAI(
            azure_endpoint=endpoint.base_url,
            azure_deployment=endpoint.model,
            api_version=endpoint.api_version,
            **common,
        )
    return openai.AsyncOpenAI(base_url=endpoint.base_url or None, **common)


def _pause(failures: int) -> float:
    """Seconds: 0.5, 1, 2 … 30, each less up to a quarter by chance, so that requests do not come in step."""
    return min(30.0, 0.5 * 2.0 ** min(max(failures, 1) - 1, 10)) * random.uniform(0.75, 1.0)
