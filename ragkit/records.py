"""A record in BEIR's terms -> a Document, whatever file it stood in: a line of JSONL, a row of CSV or parquet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ragkit.files import Unreadable
from ragkit.types import RESERVED, Document, Value, canonical_date


def record_document(fields: Mapping[str, Any]) -> Document:
    """Raises Unreadable for a record without ``_id`` or ``text``."""
    key = fields.get("_id")
    if isinstance(key, bool) or not isinstance(key, str | int) or key == "":
        raise Unreadable(f"'_id' must be a string or a number, got {key!r:.40}")
    if not isinstance(fields.get("text"), str):
        raise Unreadable(f"record {key!r:.40}: 'text' must be a string, got {fields.get('text')!r:.40}")
    title, desc, text = (
        value.strip() if isinstance(value := fields.get(k), str) else "" for k in ("title", "desc", "text")
    )
    for lead in (desc, title):
        text = f"{lead}\n{text}".strip() if not text.startswith(lead) else text
    lang, date, metadata = (fields.get(k) for k in ("lang", "date", "metadata"))
    return Document(
        id=str(key),
        path="",
        text=text,
        lang=lang if isinstance(lang, str) else "",
        title=title,
        date=_date(date),
        metadata={k: v for k, v in metadata.items() if k not in RESERVED and _comparable(v)}
        if isinstance(metadata, dict)
        else {},
    )


def _date(date: object) -> str:
    try:
        return canonical_date(date) if isinstance(date, str) else ""
    except ValueError:
        return ""


def _comparable(value: object) -> bool:
    """A value, or a list of values, that a filter can name."""
    several = value if isinstance(value, list) and value else [value]
    return all(isinstance(one, Value) and one == one for one in several)  # NaN equals nothing
