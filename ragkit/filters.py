"""The one home of filters: what a caller wants to see (:class:`Where`, a language, a path) as Qdrant conditions.

Pure functions; None is "everything". Dates are compared as the engine stores them, in UTC, where a day
given to ``until`` ends with its last moment. Whose passages they are is not decided here but in tenant.py,
which no caller's filter gets past.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from qdrant_client import models

from ragkit.sparse import well_formed
from ragkit.types import UNDETERMINED, Value, Where, moment


def value_is(key: str, value: Value) -> models.FieldCondition:
    """``key`` is ``value`` or, of several values there, one is. A float matches itself alone."""
    key = quoted(key)
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(
        key=key, match=models.MatchValue(value=well_formed(value) if isinstance(value, str) else value)
    )


def quoted(key: str) -> str:
    """A field's name as Qdrant's path to it, where a dot or bracket would lead into the field."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", key):
        return key
    if '"' in key or not key:
        raise ValueError(f"metadata {key!r}: a filter cannot name an empty field, nor one with a double quote")
    return f'"{well_formed(key)}"'


def any_of(*conditions: models.FieldCondition) -> models.Filter:
    return models.Filter(should=list(conditions))


def all_of(*filters: models.Filter | None) -> models.Filter | None:
    """What every one of ``filters`` lets through. Each stays whole, nested: merging their lists would let
    one's ``should`` be met by another's."""
    given = [f for f in filters if f is not None]
    return models.Filter(must=list(given)) if len(given) > 1 else (given[0] if given else None)


def speaks(lang: str | None, *, or_unknown: bool = False) -> models.Filter | None:
    """Passages in ``lang`` or one of its variants (RFC 4647 basic filtering); ``or_unknown``: or in none that is known,
    as a row of numbers, or what LlamaIndex added."""
    if lang is None:
        return None
    prefix = models.FieldCondition(key="lang", match=models.MatchPrefix(prefix=f"{well_formed(lang)}-"))
    spoken = [value_is("lang", lang), prefix]
    if not or_unknown:
        return any_of(*spoken)
    absent = models.IsEmptyCondition(is_empty=models.PayloadField(key="lang"))
    return models.Filter(should=[*spoken, value_is("lang", UNDETERMINED), absent])


def below(path: str) -> models.Filter:
    """Passages whose path is ``path`` or lies below it (``path/...``)."""
    prefix = models.FieldCondition(key="path", match=models.MatchPrefix(prefix=well_formed(path).rstrip("/") + "/"))
    return any_of(value_is("path", path), prefix)


def where_filter(where: Where | None) -> models.Filter | None:
    """Raises ValueError for a date that is none, or a value that cannot be compared."""
    if where is None:
        return None
    conditions: list[Any] = [below(where.source)] if where.source else []
    if where.since or where.until:
        since = moment(where.since) if where.since else None
        until = moment(where.until) if where.until else None
        whole_day = len(where.until) <= len("2026-01-31")
        if until and whole_day and until.year < 9999:
            until += timedelta(days=1)
        limits = {"gte": since, "lt" if whole_day else "lte": until}
        conditions.append(models.FieldCondition(key="date", range=models.DatetimeRange(**limits)))
    for key, wanted in where.metadata.items():
        values = [wanted] if isinstance(wanted, Value) else list(wanted)
        if not values or not all(isinstance(value, Value) for value in values):
            raise ValueError(f"metadata {key!r} is to be {wanted!r}: give a text, number or truth value, or some")
        conditions.append(value_is(key, values[0]) if len(values) == 1 else any_of(*(value_is(key, v) for v in values)))
    return models.Filter(must=conditions) if conditions else None
