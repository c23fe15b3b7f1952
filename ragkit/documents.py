"""Files -> Documents -> Passages: what ``ingest`` stores and ``embed`` writes, read and split in one place.

Both must make the same passages with the same ids of the same files, or a corpus that was loaded would be
embedded again by the next ingestion. An id derives from the corpus, the document and the passage's own text.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Protocol

from ragkit.files import EmptyFolder, Skipped, clean, find_files, skipped, stored_path
from ragkit.keys import Keys
from ragkit.language import detect_language, normalise_language, possible_languages
from ragkit.parsing import Parser
from ragkit.readers import Reader
from ragkit.split import SPLIT_VERSION, split_passages
from ragkit.types import UNDETERMINED, Document, Mark, Passage

TELLS = 80  # characters of a passage from which its language is told by itself
NAMESPACE = uuid.UUID("3c2f6c1e-8f43-5d5b-9a55-0f6b6d7a5b21")  # of passage ids: a new value re-embeds every corpus


class IngestError(ValueError):
    """The request itself is wrong: nothing was read and nothing was changed."""


class TokenCounter(Protocol):
    """The part of an encoder that splitting needs."""

    @property
    def max_length(self) -> int: ...  # tokens, BOS and EOS included

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...  # without BOS and EOS


def check_roots(paths: Sequence[str | Path]) -> list[Path]:
    """Absolute roots, sorted, without those that lie below another: no file is read twice."""
    roots = sorted({Path(os.path.abspath(path)) for path in paths})  # noqa: PTH100  (resolve() would follow links)
    for root in roots:
        try:
            _ = next(root.iterdir(), None) if root.is_dir() else root.stat()
        except OSError as error:
            raise IngestError(
                f"cannot read {str(root)!r} ({error.strerror}): nothing was ingested or removed; check the path"
            ) from error
    return [root for root in roots if not any(other in root.parents for other in roots)]


@dataclass(slots=True)
class Reading:
    """Documents below roots, as they are to be stored; what is left out, and why, is in ``skipped``."""

    parser: Parser
    readers: Mapping[str, Reader]
    present: Keys  # of every document that was yielded: (path, id)
    emptied: Callable[[EmptyFolder], Skipped | None] = lambda folder: None  # what an empty folder means
    skipped: list[Skipped] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)  # paths that are there and could not be read

    def below(self, root: Path, below: Path) -> Iterator[Document]:
        """Those at or below ``below``, named by their paths below ``root``."""
        try:
            os.lstat(below)
        except OSError as error:
            deleted = isinstance(error, FileNotFoundError | NotADirectoryError)
            if below == root or not deleted:  # a share that went, a disk that fails
                self._unreadable(skipped(below, f"cannot be read: {error.strerror}"))
            return
        for entry in find_files(below, self.readers, root):
            if isinstance(entry, EmptyFolder):
                entry = self.emptied(entry)
                if entry is None:
                    continue
            if isinstance(entry, Skipped):
                self._unreadable(entry)
                continue
            items, documents, before = 0, 0, len(self.skipped)
            for item in _documents(self.parser, self.readers[entry.suffix.lower()], entry, root):
                items += 1
                if isinstance(item, Skipped):
                    self._unreadable(item)
                elif not self.present.add((item.path, item.id)):
                    self.skipped.append(Skipped(item.path, f"document {item.id!r} again: the first one counts"))
                elif not item.text.strip():
                    self.skipped.append(Skipped(item.path, f"document {item.id!r} has no text"))
                    self.present.discard((item.path, item.id))
                else:
                    documents += 1
                    yield item
            if not items:
                self.skipped.append(Skipped(stored_path(entry), "no documents in it"))
            if documents:
                self.skipped[before:] = [replace(one, part=True) for one in self.skipped[before:]]

    def _unreadable(self, item: Skipped) -> None:
        self.skipped.append(item)
        self.unread.add(item.path)


def _documents(parser: Parser, reader: Reader, path: Path, root: Path) -> Iterator[Document | Skipped]:
    """The file's documents, complete with id and path."""
    name = stored_path(path)
    own_id = stored_path(Path(path.name) if path == root else path.relative_to(root))
    for item in parser.read(path, reader):
        if isinstance(item, Skipped):
            yield Skipped(name, clean(item.reason))
            continue
        text, title = clean(item.text), clean(item.title)
        lang = normalise_language(item.lang) or ""
        marks = tuple(replace(mark, heading=clean(mark.heading)) for mark in item.marks)
        key = clean(item.id) or own_id
        yield replace(item, id=key, path=name, text=text, title=title, lang=lang, marks=marks)


def check_passage_tokens(passage_tokens: int, encoder: TokenCounter) -> None:
    """Raises IngestError for a length of passages that the encoder would cut."""
    longest = encoder.max_length - 2
    if not 1 <= passage_tokens <= longest:
        raise IngestError(
            f"passage_tokens is {passage_tokens}, but the encoder reads 1 to {longest} tokens of a passage "
            f"(max_length {encoder.max_length} less BOS and EOS): choose a number in between"
        )


def namespace(corpus: str, tenant: str | None) -> str:
    """What passage ids are to be made from beside their content: two tenants may have the same file."""
    return corpus if tenant is None else f"{corpus}\0{tenant}"


def split_document(
    document: Document, digest: str, namespace: str, encoder: TokenCounter, max_tokens: int
) -> list[Passage]:
    lang = document.lang or detect_language(document.text)
    texts = split_passages(document.text, lang, encoder.count_tokens, max_tokens)
    places = _places(document, texts)
    return [
        Passage(
            id=str(
                uuid.uuid5(NAMESPACE, "\0".join((namespace, document.path, document.id, str(ordinal), _sha256(text))))
            ),
            text=text,
            lang=document.lang or _spoken(text, lang),
            document=document.id,
            path=document.path,
            ordinal=ordinal,
            document_hash=digest,
            document_passages=len(texts),
            title=document.title,
            date=document.date,
            metadata=document.metadata,
            page=place.page,
            heading=place.heading,
        )
        for ordinal, (text, place) in enumerate(zip(texts, places, strict=True))
    ]


def _spoken(text: str, main: str) -> str:
    """A passage's own language, where it has enough letters to tell: a manual may be in twelve. Else ``main``, its
    document's. On 5,259 passages of 24 languages it is another than their set's for 16, half of them rightly."""
    own = possible_languages(text) if len(text) >= TELLS else [UNDETERMINED]
    return main if main in own or own == [UNDETERMINED] else own[0]


def _places(document: Document, texts: Sequence[str]) -> Iterator[Mark]:
    """The mark at which each passage begins. Passages are slices of the text in order, with nothing but white
    space between them, so each is found at its own place."""
    starts = [mark.start for mark in document.marks]
    end = 0
    for text in texts:
        start = document.text.index(text, end)
        end = start + len(text)
        at = bisect_right(starts, start)
        yield document.marks[at - 1] if at else Mark(0)


def document_hash(document: Document, passage_tokens: int) -> str:
    """Everything that a passage's text or payload depends on: a change of any means embedding anew."""
    facts: list[object] = [SPLIT_VERSION, passage_tokens, document.lang, document.title, document.text]
    if document.marks:
        facts.append([astuple(mark) for mark in document.marks])
    if document.date or document.metadata:
        facts += [document.date, sorted(document.metadata.items())]
    return _sha256(json.dumps(facts))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
