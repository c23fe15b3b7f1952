"""Is an answer an example to train on? One reason if not.

Pure functions over a request's slots and an answer's fields. Every check is blind to the language that
an example is written in: words are counted in units of the script, borders of words are those of every
script, and a text passes for a language unless it is plainly another. They turn down what is broken, not
what is weak: the paper filters nothing but what does not parse.

``tests/synthetic.jsonl.gz`` holds 768 real answers in 47 languages; its records are read by
:func:`check_record`, and none of the checks may turn down a good one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.identify import PARAGRAPH, wrong_language
from trainer.languages import language
from trainer.parse import Rejected, parse_example, parse_tasks, require_sound, validate_example
from trainer.prompts import FIELDS, brainstorm_text, example_text
from trainer.refusals import is_refusal
from trainer.slots import QUESTION, Slots
from trainer.words import count_words, letters, normalise, stands_in, units

FAR = 3.0  # times more or fewer words than asked for is far off
COPIED = 3  # words from which a query that stands in its positive is a copy, and not a name
_REPEATS = 0.5  # share of a text's runs of four words that are new. Of 2,256 real fields the least is 0.86
_ECHO = 40  # letters of a field that stand in the prompt

_PLAIN_KEYS = {"input", "label"}  # words that a text may well use

# Words at least and at most, before FAR; None where the request sets no bound.
_QUERY_WORDS = {"less than 5 words": (None, 5), "5 to 15 words": (5, 15), "at least 10 words": (10, None)}
_INPUT_WORDS = {"less than 10": (None, 10)}  # else "at least N"
_UNIT_WORDS = {"phrase": (None, 20), "sentence": (None, 50), "passage": (10, None)}
_SHORT_TEXT = (None, 30)  # of short-short
_LONG_TEXT = (300, None)  # of long-long
_LABEL = (None, 12)

Bounds = tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which field of a kind is what."""

    query: str
    positive: str
    negative: str | None = None


COLUMNS = {
    "short-long": Columns("user_query", "positive_document", "hard_negative_document"),
    "long-short": Columns("input_text", "label", "misleading_label"),
    "short-short": Columns("input", "positive_document"),
    "long-long": Columns("input", "positive_document"),
    "sts": Columns("S1", "S2", "S3"),
    "bitext": Columns("S1", "S2", "S3"),
    QUESTION: Columns("user_query", "passage"),  # the passage is a slot
}


def check_answer(kind: str, slots: Slots, text: str, *, refused: bool = False) -> dict[str, str]:
    """The fields of the example in ``text``, the model's raw answer. Raises Rejected, and nothing else."""
    if refused:
        raise Rejected("refusal", "marked by the server")
    try:
        fields = parse_example(kind, text)
    except Rejected:
        if is_refusal(text):
            raise Rejected("refusal", normalise(text)[:80]) from None
        raise
    check_fields(kind, slots, fields)
    return fields


def check_record(record: Mapping[str, Any]) -> dict[str, str]:
    """The same for a record that holds kind, slots and fields side by side. Raises Rejected."""
    kind = record["kind"]
    fields = validate_example(kind, {name: record[name] for name in FIELDS[kind] if name in record})
    check_fields(kind, {**record["slots"], **({"task": record["task"]} if "task" in record else {})}, fields)
    return fields


def check_fields(kind: str, slots: Slots, fields: Mapping[str, str]) -> None:
    """Raises Rejected with the first reason that applies."""
    c = COLUMNS[kind]
    query, positive = fields[c.query], fields.get(c.positive) or slots[c.positive]
    negative = fields[c.negative] if c.negative else None
    for name, text in fields.items():
        if is_refusal(text):
            raise Rejected("refusal", name)
    asked = normalise(example_text(kind, slots))
    for name, text in fields.items():
        if len(letters(text)) >= _ECHO and normalise(text) in asked:
            raise Rejected("echoes the prompt", name)
    # A weak model writes about the keys: "S3", "The sentence farther from S1". One key alone may be meant: AWS S3.
    if sum(any(stands_in(key, text) for text in fields.values()) for key in fields if key not in _PLAIN_KEYS) > 1:
        raise Rejected("echoes the prompt", "keys as values")
    for name, text in fields.items():
        if repeats_itself(text):
            raise Rejected("repeats itself", name)
    texts = {name: normalise(text) for name, text in fields.items()}
    names = list(texts)
    for n, name in enumerate(names):
        for other in names[n + 1 :]:
            if texts[name] == texts[other]:
                raise Rejected("identical pair", f"{name}, {other}")
    if kind == "long-short":
        for label in (positive, negative or ""):
            if stands_in(label, query):
                raise Rejected("label in the input", label[:80])
    elif kind not in ("sts", "bitext") and count_words(query) >= COPIED and stands_in(query, positive):
        raise Rejected("query copied into the positive")
    by_language: dict[str, list[str]] = {}
    for name, asked_language in field_languages(kind, slots):
        by_language.setdefault(asked_language, []).append(name)
        if found := wrong_language(fields[name], language(asked_language)):
            raise Rejected("wrong language", f"{name} is {found}, asked for {asked_language}")
    for asked_language, names in by_language.items():
        if all(len(letters(fields[name])) >= PARAGRAPH for name in names):
            continue
        # Short fields together may tell what none tells alone.
        if found := wrong_language("\n".join(fields[name] for name in names), language(asked_language)):
            raise Rejected("wrong language", f"{' and '.join(names)}: {found}, asked for {asked_language}")
    for name, bounds in field_bounds(kind, slots):
        _check_length(name, fields[name], bounds)


def check_tasks(kind: str, text: str, *, refused: bool = False) -> Iterator[tuple[str, Rejected | None]]:
    """Each task of a brainstorm, and why it is turned down if it is. Raises Rejected for the whole answer."""
    if refused:
        raise Rejected("refusal", "marked by the server")
    try:
        items = parse_tasks(text)
    except Rejected:
        if is_refusal(text):
            raise Rejected("refusal", normalise(text)[:80]) from None
        raise
    asked = normalise(brainstorm_text(kind))
    for item in items:
        if not isinstance(item, str):
            yield str(item)[:500], Rejected("wrong fields", "a task that is no string")
            continue
        task = " ".join(item.split())  # an instruction is one line
        try:
            _check_task(task, asked)
        except Rejected as reason:
            yield task, reason
        else:
            yield task, None


def _check_task(task: str, asked: str) -> None:
    if not task:
        raise Rejected("empty field", "a blank task")
    require_sound("the task", task)
    if is_refusal(task):
        raise Rejected("refusal", "a task")
    words = count_words(task)
    if not 3 <= words <= 80:
        raise Rejected("wrong length", f"a task of {words:.0f} words")
    if normalise(task) in asked:
        raise Rejected("echoes the prompt", "a task")
    if repeats_itself(task):
        raise Rejected("repeats itself", "a task")


def field_languages(kind: str, slots: Slots) -> list[tuple[str, str]]:
    """(field, name of its language)."""
    if kind == "bitext":
        return [("S1", slots["src_lang"]), ("S2", slots["tgt_lang"]), ("S3", slots["tgt_lang"])]
    if kind == QUESTION:
        return [("user_query", slots["query_language"])]
    own = slots["language"]
    if kind == "short-long":
        document = slots.get("document_language", own)
        query = slots.get("query_language", own)
        return [("user_query", query), ("positive_document", document), ("hard_negative_document", document)]
    return [(name, own) for name in FIELDS[kind]]


def field_bounds(kind: str, slots: Slots) -> list[tuple[str, Bounds]]:
    """(field, words at least and at most) as the request has them; a slot that is missing sets no bound."""
    words = str(slots.get("num_words", "")).removeprefix("at least ")
    least: Bounds = (int(words), None) if words.isdecimal() else (None, None)
    if kind == "short-long":
        query = _QUERY_WORDS.get(slots.get("query_length", ""), (None, None))
        return [("user_query", query), ("positive_document", least), ("hard_negative_document", least)]
    if kind == QUESTION:
        return [("user_query", _QUERY_WORDS[slots["query_length"]])]
    if kind == "long-short":
        return [("input_text", _INPUT_WORDS.get(words, least)), ("label", _LABEL), ("misleading_label", _LABEL)]
    if kind in ("short-short", "long-long"):
        return [(name, _SHORT_TEXT if kind == "short-short" else _LONG_TEXT) for name in FIELDS[kind]]
    return [(name, _UNIT_WORDS.get(slots.get("unit", ""), (None, None))) for name in FIELDS[kind]]


def repeats_itself(text: str) -> bool:
    """Whether a text goes round in circles, as small models do."""
    words = [unit for unit, _ in units(text)]
    runs = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    return len(runs) >= 20 and len(set(runs)) < _REPEATS * len(runs)


def _check_length(name: str, text: str, bounds: Bounds) -> None:
    least, most = bounds
    words = count_words(text)
    if least is not None and words * FAR < least:
        raise Rejected("wrong length", f"{name} has {words:.0f} words, asked for at least {least}")
    if most is not None and words > FAR * most:
        raise Rejected("wrong length", f"{name} has {words:.0f} words, asked for at most {most}")
