"""From what a model said to fields: JSON of the kind's exact shape, or a reason why not.

JSON alone, in a code fence at most. Nothing is guessed: no missing brace is added, no prose is skipped,
nothing is evaluated. A key that is missing, extra or doubled, a value that is no string, a blank one or
one with broken characters turns the whole answer down, and whatever the text is, the only exception that
leaves is ``Rejected``.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

import regex
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, create_model

from trainer.prompts import FIELDS
from trainer.slots import KINDS, QUESTION

_FENCE = regex.compile(r"\s*```[A-Za-z]*[ \t]*\r?\n(?P<json>.*?)\r?\n?[ \t]*```\s*", regex.DOTALL)
# Lone surrogates, the replacement character, control characters but tab and line ends, and code points
# that are never to stand in text.
_BROKEN = regex.compile(r"[\ud800-\udfff\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufdd0-\ufdef\ufffe\uffff]")


class Rejected(Exception):
    """``reason`` is one of a few, for counting; ``detail`` says what of this answer."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason, self.detail = reason, detail


_Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1)]


def _shape(kind: str) -> type[BaseModel]:
    fields: dict[str, Any] = dict.fromkeys(FIELDS[kind], (_Text, ...))
    return create_model(kind, __config__=ConfigDict(extra="forbid"), **fields)


_SHAPES = {kind: _shape(kind) for kind in (*KINDS, QUESTION)}


def parse_json(text: str) -> Any:
    """The one JSON value that ``text`` is. Raises Rejected."""
    fenced = _FENCE.fullmatch(text)
    try:
        return json.loads(
            fenced["json"] if fenced else text, object_pairs_hook=_no_doubles, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:  # ValueError: JSONDecodeError, and numbers of 5,000 digits
        raise Rejected("not JSON", _brief(error)) from None


def parse_example(kind: str, text: str) -> dict[str, str]:
    """The fields of one example of ``kind``. Raises Rejected."""
    return validate_example(kind, parse_json(text))


_REASONS = {"string_too_short": "empty field", "string_unicode": "broken characters"}  # by pydantic's error type


def validate_example(kind: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Rejected("wrong fields", f"a JSON {_name(value)} instead of an object")
    try:
        fields: dict[str, str] = _SHAPES[kind].model_validate(value).model_dump()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        reason = _REASONS.get(first["type"], "wrong fields")
        raise Rejected(reason, f"{where}: {first['msg']}"[:200]) from None
    for name, field in fields.items():
        require_sound(name, field)
    return fields


def parse_tasks(text: str) -> list[Any]:
    """The items of a brainstorm, which may still be anything. Raises Rejected."""
    value = parse_json(text)
    if isinstance(value, dict) and list(value) == ["tasks"]:
        value = value["tasks"]
    if not isinstance(value, list):
        raise Rejected("wrong fields", f'a JSON {_name(value)} instead of a list, alone or as "tasks"')
    return value


def require_sound(name: str, text: str) -> None:
    """Raises Rejected for characters that no text has."""
    if found := _BROKEN.search(text):
        raise Rejected("broken characters", f"{name} has U+{ord(found.group()):04X}")


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _name(value: Any) -> str:
    names = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _brief(error: Exception) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else str(error)[:120]
