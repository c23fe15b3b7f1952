"""A folder of embedded passages -> the store, without the model that made them.

The manifest says whose the vectors are, so the corpus can be opened, or made, by its encoder's fingerprint alone;
a corpus of another encoder refuses them. The store is the only memory of how far a load is: what it holds with the
same document hash is left alone, so a run that was cut off goes on, and one run again changes nothing. Documents
that were stored with other content are brought to this one. At the end it is counted, and a sample of passages is
read back and compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from ragkit.client import is_url
from ragkit.progress import Bar, shown
from ragkit.reindex import Identity
from ragkit.settings import QdrantSettings
from ragkit.shards import Folder, Manifest, ShardError
from ragkit.store import Store, StoreError, open_store
from ragkit.types import Passage

SAMPLE = 256  # passages that are read back; all, where there are no more
_SAME = 0.9999  # cosine of what was written and what is read: float32 there and back


@dataclass(frozen=True, slots=True)
class LoadReport:
    passages: int  # in the folder
    written: int  # by this run: new to the store, or of a document that had changed
    removed: int  # of what those documents said before
    stored: int  # in the corpus now; of the tenant, where it is shared
    compared: int  # read back and found the same
    fingerprint: str


def load(
    path: str | Path,
    location: str | Path,
    corpus: str,
    *,
    settings: QdrantSettings | None = None,
    parallel: int = 4,  # requests at once; the embedded engine takes one
    progress: bool | Bar = False,
) -> LoadReport:
    """Bring what ``embed`` wrote into ``path`` into the corpus at ``location``. Raises ShardError for a folder that
    is not whole, FingerprintMismatch where the corpus is another encoder's, StoreError where what is read back at
    the end is not what was written."""
    folder = _whole_folder(Path(path).expanduser().resolve(), corpus)
    manifest = folder.manifest
    identity = Identity(manifest.fingerprint, manifest.dimension, manifest.max_length)
    with open_store(location, corpus, identity, tenant=manifest.tenant, qdrant_settings=settings) as store:
        before = store.count()
        threads = parallel if is_url(store.location) else 1
        run = _Load(store, folder, look=before > 0)
        # A graph that serves more than what is to come, whoever's, is worth keeping.
        keep = store.count(everybody=True) >= manifest.passages
        with shown(progress, "load", "passages", manifest.passages) as bar, store.unindexed(keep=keep):
            run.write(threads, bar)
        removed = run.drop_stale() if store.count() != manifest.passages else 0
        run.verify(before + run.added - removed)
        store.optimize()  # though nothing was written: the run before may have been cut off here
        return LoadReport(manifest.passages, run.written, removed, store.count(), len(run.sample), manifest.fingerprint)


def _whole_folder(path: Path, corpus: str) -> Folder:
    manifest = Manifest.read(path)
    if manifest is None:
        raise ShardError(f"{path} holds no manifest.json: give the --out folder of `ragkit embed`")
    if manifest.corpus != corpus:
        raise ShardError(
            f"{path} was embedded for the corpus {manifest.corpus!r}, and its passage ids are made of that name: load "
            f"it as that, or embed with --corpus {corpus}"
        )
    folder = Folder(path, manifest)
    if missing := folder.missing():
        raise ShardError(
            f"{len(missing)} of {len(manifest.shards)} shards are not in {path} ({', '.join(map(str, missing[:5]))}"
            f"{', …' if missing[5:] else ''}): run the same `ragkit embed` again, which makes only those"
        )
    return folder


_Batch = tuple[list[Passage], np.ndarray]


class _Load:
    """The work on one open store, and what it has counted."""

    def __init__(self, store: Store, folder: Folder, *, look: bool) -> None:
        self.store = store
        self.folder = folder
        self.look = look  # whether there can be anything that need not be written
        self.written = 0
        self.added = 0  # of those: ids that were not there
        self.sample: list[tuple[Passage, np.ndarray]] = []
        self._chosen = SAMPLE / max(1, folder.manifest.passages)

    def write(self, threads: int, bar: Bar) -> None:
        """All batches; no more of them in memory than twice the threads."""
        waiting = set[Future[tuple[int, int]]]()

        def collect(done: set[Future[tuple[int, int]]]) -> None:
            for future in done:
                written, added = future.result()
                self.written, self.added = self.written + written, self.added + added

        with ThreadPoolExecutor(threads, thread_name_prefix="load") as pool:
            try:
                for batch in self._batches():
                    waiting.add(pool.submit(self._put, batch))
                    if len(waiting) >= 2 * threads:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        collect(done)
                    bar.update(len(batch[0]))
                collect(waiting)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _batches(self) -> Iterator[_Batch]:
        for n in range(len(self.folder.manifest.shards)):
            for passages, rows in self.folder.batches(n):
                for passage, row in zip(passages, rows, strict=True):
                    if int(passage.id[:8], 16) < self._chosen * 2**32:  # ids are hashes: as good as drawn by lot
                        self.sample.append((passage, row.copy()))
                yield passages, rows

    def _put(self, batch: _Batch) -> tuple[int, int]:
        """How many were written, and how many of these are new."""
        passages, rows = batch
        there = self.store.hashes([p.id for p in passages]) if self.look else {}
        fresh = [n for n, p in enumerate(passages) if there.get(p.id) != p.document_hash]
        if fresh:
            self.store.upsert([passages[n] for n in fresh], rows[fresh])
        return len(fresh), sum(passages[n].id not in there for n in fresh)

    def drop_stale(self) -> int:
        """Delete what the loaded documents said before; only now that all of their new passages are there."""
        removed = 0
        for n in range(len(self.folder.manifest.shards)):
            now = {(p.path, p.document): p.document_hash for passages, _ in self.folder.batches(n) for p in passages}
            keys = iter(now)
            while group := list(islice(keys, 256)):
                old = [s.id for s in self.store.states_of(group) if s.document_hash != now[s.path, s.document]]
                self.store.delete(old)
                removed += len(old)
        return removed

    def verify(self, expected: int) -> None:
        """Raises StoreError for a passage that is missing, is not what was written, or will not be found."""
        self.store.refuse_superseded()
        if (count := self.store.count()) < expected:
            raise StoreError(
                f"corpus {self.store.corpus!r} holds {count} passages, {expected} were expected: does something else "
                "delete from it? Load again, which writes what is missing"
            )
        for start in range(0, len(self.sample), 64):
            part = self.sample[start : start + 64]
            ids = [passage.id for passage, _ in part]
            stored, rows = {p.id: p for p in self.store.passages(ids)}, self.store.embeddings(ids)
            wrong = [p.id for p, row in part if not _same(p, row, stored.get(p.id), rows.get(p.id))]
            if wrong:
                raise StoreError(
                    f"{len(wrong)} of {len(part)} passages read back from corpus {self.store.corpus!r} are not what "
                    f"was written, the first is {wrong[0]}: does something else write to it? Load again"
                )


def _same(passage: Passage, row: np.ndarray, stored: Passage | None, kept: np.ndarray | None) -> bool:
    if stored is None or kept is None:
        return False
    cosine = float(row @ kept) / max(1e-12, float(np.linalg.norm(row)) * float(np.linalg.norm(kept)))
    return cosine > _SAME and (stored.text, stored.document_hash) == (passage.text, passage.document_hash)
