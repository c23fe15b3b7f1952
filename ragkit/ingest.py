"""Files -> Documents -> Passages -> store: run it again and only what changed is embedded.

The store is the only memory. A document is *complete* when every passage of its present hash is
stored; then it is left alone, else what is missing is embedded. Passage ids derive from the content,
so a run that was cut short is finished by the next one, without duplicates. New passages are upserted
before stale ones are deleted, so at every moment all of a document's old text or all of its new is there.

A document that vanished below a root given here is removed, unless its file (or a folder above it) is
there but could not be read: what cannot be read keeps its passages and is reported. So does a folder that
has become empty, which is what a share that is not mounted looks like: ``allow_empty`` removes what it
held. A root that does not exist is refused before anything is touched. Memory holds a batch of documents,
never a list of all: the keys of those that were seen lie in a temporary file (keys.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ragkit.documents import IngestError, Reading, check_passage_tokens, check_roots, document_hash, split_document
from ragkit.files import EmptyFolder, Skipped, find_files, stored_path
from ragkit.keys import Keys
from ragkit.limits import Limits
from ragkit.parsing import Parser
from ragkit.progress import Bar, shown
from ragkit.readers import READERS, Reader
from ragkit.types import Document, Passage

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.store import Store

_TOGETHER = 4_000_000  # characters of documents that are looked up together: bounds what is held at once
_STALE = 1000  # ids that may wait to be deleted
# Batches that are sorted by length together before they are embedded and stored one by one, so that a forward pass has
# few pads and a crash still costs one batch. Of 1,720 passages of manuals, in batches of 64, pads were 3.4 % at 1,
# 1.4 % at 4 and 0.7 % at 16.
_SORTED = 4


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
    limits: Limits | None = None,  # what one file may cost
    readers: Mapping[str, Reader] = READERS,  # by suffix
    allow_empty: bool = False,  # remove what is stored of folders that are empty now
    progress: bool | Bar = False,  # a bar on standard error, or your own
) -> IngestReport:
    """Bring the store's view of ``paths`` (files and folders) up to date. Raises IngestError for a root
    that does not exist, or that holds no file any more though documents of it are stored; whatever the
    store or the encoder raises passes through, and the next run goes on from there. So does FingerprintMismatch
    where the corpus is switched to another encoder meanwhile: that run is to be by the other one."""
    run = Sync(store, encoder, passage_tokens, batch, limits or Limits(), dict(readers), allow_empty)
    roots = check_roots(paths)
    for root in roots:
        run.refuse_vanished(root)
    with shown(progress, "ingest", "documents") as bar:
        return run([(root, root) for root in roots], bar)


_Key = tuple[str, str]  # Document.path, Document.id
_States = dict[str, dict[str, int]]  # document_hash -> passage id -> document_passages


@dataclass(frozen=True, slots=True)
class Sync:
    """How to bring parts of a store up to date, as :func:`ingest` says. Called with (root, below) pairs: what
    is at or below ``below``, whose documents are named by their paths below ``root``."""

    store: Store
    encoder: Encoder
    passage_tokens: int
    batch: int
    limits: Limits
    readers: dict[str, Reader]
    allow_empty: bool

    def __post_init__(self) -> None:
        check_passage_tokens(self.passage_tokens, self.encoder)

    def __call__(self, targets: Sequence[tuple[Path, Path]], bar: Bar | None = None) -> IngestReport:
        self.store.refuse_superseded()
        run = _Run(self.store, self.encoder, self.passage_tokens, self.batch)
        truncated = self.encoder.truncated
        with Parser(self.limits) as parser:
            for root, below in targets:
                self._bring(run, parser, root, below, bar)
        self.store.optimize()  # though nothing was written: the run before may have been cut off here
        cut = self.encoder.truncated - truncated
        return IngestReport(run.added, run.changed, run.unchanged, run.removed, tuple(run.skipped), run.passages, cut)

    def _bring(self, run: _Run, parser: Parser, root: Path, below: Path, bar: Bar | None) -> None:
        with Keys() as present, Keys() as gone:
            reading = Reading(parser, self.readers, present, self._emptied, run.skipped)
            read = _group(reading.below(root, below), self.batch)
            for documents in read:
                stored = _stored(self.store, documents)
                for document in documents:
                    run.put(document, stored.get((document.path, document.id), {}))
                    if bar is not None:
                        bar.update()
                        bar.set_postfix(passages=run.passages, skipped=len(run.skipped), refresh=False)
            run.flush()
            for state in self.store.states(stored_path(below)):
                if (state.path, state.document) not in present and not _below(state.path, reading.unread):
                    run.removed += gone.add((state.path, state.document))
                    run.drop([state.id])
            run.flush()

    def _emptied(self, folder: EmptyFolder) -> Skipped | None:
        if self.allow_empty or next(self.store.states(folder.path), None) is None:
            return None
        kept = "an empty folder, but documents of it are stored, and kept: is a share not mounted?"
        return Skipped(folder.path, f"{kept} If they should go, allow that (--allow-empty)")

    def refuse_vanished(self, root: Path) -> None:
        """Raises IngestError for a root without any file, of which documents are stored."""
        found = (
            entry.reason.startswith("cannot be read") if isinstance(entry, Skipped) else isinstance(entry, Path)
            for entry in find_files(root, self.readers)
        )  # what is there and cannot be read keeps its passages anyway
        if not self.allow_empty and not any(found) and next(self.store.states(stored_path(root)), None):
            raise IngestError(
                f"{str(root)!r} holds no file that can be read any more, but documents of it are stored: is a "
                "share not mounted? Nothing was ingested or removed. If they should go, allow that (--allow-empty)"
            )


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
        digest = document_hash(document, self.passage_tokens)
        same = states.get(digest, {})
        if same and len(same) == next(iter(same.values())):  # complete
            self.unchanged += 1
            self.drop([id for other, ids in states.items() if other != digest for id in ids if id not in same])
            return
        passages = split_document(document, digest, self.store.namespace, self.encoder, self.passage_tokens)
        if states.keys() - {digest}:
            self.changed += 1
        else:
            self.added += 1
        for passage in passages:
            if passage.id not in same:
                self._waiting.append(passage)
                if len(self._waiting) >= _SORTED * self.batch:
                    self._write()
        fresh = {passage.id for passage in passages}
        self.drop([id for ids in states.values() for id in ids if id not in fresh])

    def drop(self, ids: Sequence[str]) -> None:
        """Delete these, but not before all that wait are stored."""
        self._stale += ids
        if len(self._stale) >= _STALE:
            self.flush()

    def flush(self) -> None:
        self._write()
        if self._stale:
            self.store.delete(self._stale)
            self.deleted += len(self._stale)
            self._stale = []
        self.store.refuse_superseded()  # after the writing, so that what was reported was current when it was written

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        if len(waiting) > self.batch:
            lengths = self.encoder.count_tokens([passage.text for passage in waiting])
            waiting = [waiting[n] for n in sorted(range(len(waiting)), key=lengths.__getitem__)]
        for start in range(0, len(waiting), self.batch):
            part = waiting[start : start + self.batch]
            self.store.upsert(part, self.encoder.encode_passages([passage.text for passage in part]))
            self.passages += len(part)


def _group(documents: Iterator[Document], most: int) -> Iterator[list[Document]]:
    """Documents to look up together: ``most`` of them, or fewer where they are long."""
    for first in documents:
        group, length = [first], len(first.text)
        while len(group) < most and length < _TOGETHER and (more := next(documents, None)) is not None:
            group.append(more)
            length += len(more.text)
        yield group


def _stored(store: Store, documents: Sequence[Document]) -> dict[_Key, _States]:
    stored: dict[_Key, _States] = {}
    for state in store.states_of([(document.path, document.id) for document in documents]):
        ids = stored.setdefault((state.path, state.document), {}).setdefault(state.document_hash, {})
        ids[state.id] = state.document_passages
    return stored


def _below(path: str, folders: set[str]) -> bool:
    return bool(folders) and (path in folders or any(parent.as_posix() in folders for parent in Path(path).parents))
