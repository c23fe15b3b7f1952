"""The records that flow through ragkit: documents in, passages stored, hits and cited answers out.

Frozen and stdlib-only, so every layer can share them without importing another. A *document* is a
source file (or one record of a JSONL file); a *passage* is the unit that is embedded and retrieved.
Languages are BCP-47 codes; ``"und"`` (undetermined) where nothing could be detected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Literal

UNDETERMINED = "und"  # BCP-47 for "language not known"

Value = str | int | float | bool
Metadata = Mapping[str, Value | Sequence[Value]]  # one value a field, or several

# Names that a stored passage needs for itself and LlamaIndex for its node, so that metadata cannot have them.
RESERVED = frozenset(
    ("lang", "document", "path", "ordinal", "document_hash", "document_passages", "title", "page", "heading", "date",
     "tenant",
     "_node_content", "_node_type", "document_id", "doc_id", "ref_doc_id")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a text stands in its file, from ``start`` on and up to the next mark."""

    start: int  # characters into Document.text
    page: int = 0  # or slide, from 1; 0 where the format has none
    heading: str = ""  # the headings above, outermost first: "Handbook > Opening hours"


@dataclass(frozen=True, slots=True)
class Document:
    """One source text, before splitting. ``(path, id)`` identifies it; ``text`` is what it says."""

    id: str  # a record's own `_id`, or the file's path below the ingested root
    path: str  # absolute POSIX path of the file it was read from
    text: str
    lang: str  # BCP-47, as the file says; "" where it does not
    title: str = ""
    marks: tuple[Mark, ...] = ()  # by rising start
    date: str = ""  # ISO 8601, a day or a moment; what it says of itself, not when the file was written
    metadata: Metadata = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Passage:
    """The unit that is embedded (``text`` alone: titles and other metadata stay out) and retrieved."""

    id: str  # uuid5 of corpus, document, ordinal and content
    text: str
    lang: str  # BCP-47
    document: str  # Document.id
    path: str  # Document.path
    ordinal: int  # position in its document, from 0
    document_hash: str  # content and splitting of the whole document
    document_passages: int  # how many passages the whole document has
    title: str = ""  # Document.title
    date: str = ""  # Document.date
    metadata: Metadata = field(default_factory=dict, hash=False)  # Document.metadata, and what else to filter by
    page: int = 0  # of the file, from 1, on which it begins; 0 where the format has none
    heading: str = ""  # the headings it stands under, outermost first, joined by " > "


@dataclass(frozen=True, slots=True)
class Where:
    """Which passages may be found, beside their language; all that is given must hold."""

    source: str = ""  # a Passage.path, or a folder above it
    since: str = ""  # ISO 8601, this day or moment included; what has no date is then never found
    until: str = ""  # ISO 8601; a day is included whole
    metadata: Metadata = field(default_factory=dict, hash=False)  # of several values given, one must be there


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was retrieved. ``score`` is cosine (dense), BM25 (sparse), 1 / rank (hybrid), or the
    reranker's."""

    rank: int  # from 1
    score: float
    passage: Passage


@dataclass(frozen=True, slots=True)
class Citation:
    """Marker ``[number]`` of an answer points to this span of this hit's passage."""

    number: int  # from 1, as it stands in the answer
    hit: Hit
    start: int  # characters into hit.passage.text
    end: int

    @property
    def quote(self) -> str:
        return self.hit.passage.text[self.start : self.end]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the corpus says, or ``text is None`` when it does not say; ``hits`` are what was read.

    A model's answer without citations is not backed by any passage: say so where it is shown.
    """

    text: str | None
    citations: tuple[Citation, ...] = ()
    hits: tuple[Hit, ...] = field(default=(), repr=False)
    model: str = ""  # that wrote the text; "" where it is a sentence of the corpus, word for word
    invalid: int = 0  # numbers that the model cited and that stand for no passage; they are not in the text
    cut: bool = False  # the model reached its limit of tokens


def moment(text: str) -> datetime:
    """A day or moment of ISO 8601, in UTC where it names no zone. Raises ValueError."""
    parsed = _date(text)
    if not isinstance(parsed, datetime):
        return datetime(parsed.year, parsed.month, parsed.day, tzinfo=UTC)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def canonical_date(text: str) -> str:
    """The one way to write it that Qdrant reads too: of 20260131, 2026-W05-6 or 2026-01-31T09 it would index nothing.
    Raises ValueError."""
    return _date(text).isoformat()


def _date(text: str) -> date:
    try:
        return datetime.fromisoformat(text) if len(text) > len("2026-01-31") else date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"date {text!r} is not ISO 8601: write 2026-01-31, or 2026-01-31T09:00:00+03:00 with a zone"
        ) from error


@dataclass(frozen=True, slots=True)
class Finding:
    """What ``ragkit doctor`` saw. ``cause`` is the fault's short name, "" where none is known or nothing is wrong."""

    check: str
    status: Literal["ok", "warning", "failed"]
    text: str
    cause: str = ""
