"""Files -> Documents -> Passages -> store: run it again and only what changed is embedded.

The store is the only memory. A document is *complete* when every passage of its present hash is
stored; then it is left alone, else what is missing is embedded. Passage ids derive from the content,
so a run that was cut short is finished by the next one, without duplicates. New passages are upserted
before stale ones are deleted, so a document under change never disappears.

A document that vanished below a root given here is removed, unless its file (or a folder above it) is
there but could not be read: what cannot be read keeps its passages and is reported. A root that does
not exist is refused before anything is touched. One document is in memory at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ragkit.language import detect_language, normalise_language
from ragkit.readers import READERS, Skipped, clean, find_files
from ragkit.split import SPLIT_VERSION, split_passages
from ragkit.types import Document, Passage

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.store import Store

NAMESPACE = uuid.UUID("3c2f6c1e-8f43-5d5b-9a55-0f6b6d7a5b21")  # of passage ids: a new value re-embeds every corpus


class IngestError(ValueError):
    """The request itself is wrong: nothing was read and nothing was changed."""


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What a run did, counted in documents (``passages`` and ``truncated`` in passages)."""

    added: int  # not in the store before, or never completely
    changed: int  # stored before with other content, title, language or splitting
    unchanged: int
    removed: int  # vanished below the roots
    skipped: tuple[Skipped, ...]
    passages: int  # embedded by this run
    truncated: int  # passages that the encoder cut


def ingest(
    paths: Sequence[str | Path],
    store: Store,
    encoder: Encoder,
    *,
    passage_tokens: int = 200,  # the encoder's tokens: smaller is sharper, larger keeps more context
    batch: int = 64,  # passages per encoder call and upsert; also what a crash can cost
    progress: bool = False,  # a bar on standard error
) -> IngestReport:
    """Bring the store's view of ``paths`` (files and folders) up to date. Raises IngestError for a root
    that does not exist; whatever the store or the encoder raises passes through, and the next run
    goes on from there."""
    if not 1 <= passage_tokens <= encoder.max_length - 2:
        raise IngestError(
            f"passage_tokens is {passage_tokens}, but the encoder reads 1 to {encoder.max_length - 2} tokens "
            f"of a passage (max_length {encoder.max_length} less BOS and EOS): choose a number in between"
        )
    roots = _roots(paths)
    run = _Run(store, encoder, passage_tokens, batch)
    truncated = encoder.truncated
    with tqdm(desc="ingest", unit=" documents", file=sys.stderr, disable=not progress) as bar:
        for root in roots:
            stored = _stored(store, root)
            present, unread = set[_Key](), set[str]()
            for entry in find_files(root):
                if isinstance(entry, Skipped):
                    run.skipped.append(entry)
                    unread.add(entry.path)
                    continue
                items = 0
                for item in _documents(entry, root):
                    items += 1
                    if isinstance(item, Skipped):
                        run.skipped.append(item)
                        unread.add(item.path)
                    elif (key := (item.path, item.id)) in present:
                        run.skipped.append(Skipped(item.path, f"document {item.id!r} again: the first one counts"))
                    elif not item.text.strip():
                        run.skipped.append(Skipped(item.path, f"document {item.id!r} has no text"))
                    else:
                        present.add(key)
                        run.put(item, stored.get(key, {}))
                        bar.update()
                        bar.set_postfix(passages=run.passages, skipped=len(run.skipped), refresh=False)
                if not items:
                    run.skipped.append(Skipped(clean(entry.as_posix()), "no documents in it"))
            run.flush()
            gone = [key for key in stored if key not in present and not _below(key[0], unread)]
            if gone:
                store.delete([id for key in gone for ids in stored[key].values() for id in ids])
                run.removed += len(gone)
    if run.passages or run.removed or run.deleted:
        store.optimize()
    cut = encoder.truncated - truncated
    return IngestReport(run.added, run.changed, run.unchanged, run.removed, tuple(run.skipped), run.passages, cut)


_Key = tuple[str, str]  # Document.path, Document.id
_States = dict[str, dict[str, int]]  # document_hash -> passage id -> document_passages


@dataclass(slots=True)
class _Run:
    """The writing half of a run: what is decided but not yet stored, and the counts."""

    store: Store
    encoder: Encoder
    passage_tokens: int
    batch: int
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    deleted: int = 0
    passages: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    _waiting: list[Passage] = field(default_factory=list)
    _stale: list[str] = field(default_factory=list)  # ids to delete once all that wait are stored

    def put(self, document: Document, states: _States) -> None:
        digest = _document_hash(document, self.passage_tokens)
        same = states.get(digest, {})
        if same and len(same) == next(iter(same.values())):  # complete
            self.unchanged += 1
            self._stale += [id for other, ids in states.items() if other != digest for id in ids if id not in same]
            return
        passages = _passages(document, digest, self.store.namespace, self.encoder, self.passage_tokens)
        if states.keys() - {digest}:
            self.changed += 1
        else:
            self.added += 1
        for passage in passages:
            if passage.id not in same:
                self._waiting.append(passage)
                if len(self._waiting) >= self.batch:
                    self._write()
        fresh = {passage.id for passage in passages}
        self._stale += [id for ids in states.values() for id in ids if id not in fresh]

    def flush(self) -> None:
        self._write()
        if self._stale:
            self.store.delete(self._stale)
            self.deleted += len(self._stale)
            self._stale = []

    def _write(self) -> None:
        if self._waiting:
            self.store.upsert(self._waiting, self.encoder.encode_passages([passage.text for passage in self._waiting]))
            self.passages += len(self._waiting)
            self._waiting = []


def _passages(document: Document, digest: str, namespace: str, encoder: Encoder, max_tokens: int) -> list[Passage]:
    texts = split_passages(document.text, document.lang, encoder.count_tokens, max_tokens)
    return [
        Passage(
            id=str(
                uuid.uuid5(NAMESPACE, "\0".join((namespace, document.path, document.id, str(ordinal), _sha256(text))))
            ),
            text=text,
            lang=document.lang,
            document=document.id,
            path=document.path,
            ordinal=ordinal,
            document_hash=digest,
            document_passages=len(texts),
            title=document.title,
            date=document.date,
            metadata=document.metadata,
        )
        for ordinal, text in enumerate(texts)
    ]


def _document_hash(document: Document, passage_tokens: int) -> str:
    """Everything that a passage's text or payload depends on: a change of any means embedding anew."""
    facts: list[object] = [SPLIT_VERSION, passage_tokens, document.lang, document.title, document.text]
    if document.date or document.metadata:
        facts += [document.date, sorted(document.metadata.items())]
    return _sha256(json.dumps(facts))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _stored(store: Store, root: Path) -> dict[_Key, _States]:
    stored: dict[_Key, _States] = {}
    for state in store.states(clean(root.as_posix())):
        ids = stored.setdefault((state.path, state.document), {}).setdefault(state.document_hash, {})
        ids[state.id] = state.document_passages
    return stored


def _roots(paths: Sequence[str | Path]) -> list[Path]:
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


def _documents(path: Path, root: Path) -> Iterator[Document | Skipped]:
    """The file's documents, complete with id, path and language. Parsers raise what they like, so any
    exception of theirs is the file's: it is reported, and the run goes on."""
    name = clean(path.as_posix())
    own_id = clean(path.name if path == root else path.relative_to(root).as_posix())
    try:
        for item in READERS[path.suffix.lower()](path):
            if isinstance(item, Skipped):
                yield Skipped(name, item.reason)
                continue
            text, title = clean(item.text), clean(item.title)
            lang = normalise_language(item.lang) or detect_language(text)
            yield replace(item, id=clean(item.id) or own_id, path=name, text=text, title=title, lang=lang)
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        yield Skipped(name, f"cannot be read: {said}")


def _below(path: str, folders: set[str]) -> bool:
    return bool(folders) and (path in folders or any(parent.as_posix() in folders for parent in Path(path).parents))
