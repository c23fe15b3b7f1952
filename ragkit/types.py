"""The records that flow through ragkit: documents in, passages stored, hits and cited answers out.

Frozen and stdlib-only, so every layer can share them without importing another. A *document* is a
source file (or one record of a JSONL file); a *passage* is the unit that is embedded and retrieved.
Languages are BCP-47 codes; ``"und"`` (undetermined) where nothing could be detected.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UNDETERMINED = "und"  # BCP-47 for "language not known"


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
    lang: str  # BCP-47
    title: str = ""
    marks: tuple[Mark, ...] = ()  # by rising start


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
    page: int = 0  # of the file, from 1, on which it begins; 0 where the format has none
    heading: str = ""  # the headings it stands under, outermost first, joined by " > "


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was retrieved. ``score`` is cosine (dense), BM25 (sparse) or 1 / rank (hybrid)."""

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
    """What the corpus says, or ``text is None`` when it does not say; ``hits`` are what was read."""

    text: str | None
    citations: tuple[Citation, ...] = ()
    hits: tuple[Hit, ...] = field(default=(), repr=False)
