"""Another embedder for a corpus, without its documents: the passages are read out of the store.

A new generation is filled beside the current one, which serves on; then the pointer is swapped, atomically.
Every point is copied with its payload and id as they are, whoever's it is, so tenants, metadata and what
LlamaIndex added come along. A run that was cut off goes on: what is there already is not embedded again.
Passes repeat until one finds nothing to do, so that what was written meanwhile is not lost; from then to the swap
ragkit's own writers are refused (what LlamaIndex writes in that moment is not seen). The old generation stays until
you :func:`prune`; :func:`roll_back` makes it current again, and a second one takes that back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragkit import cluster, nodes, qdrant
from ragkit.client import is_url, masked
from ragkit.generations import SUPERSEDING, Folder, Generation, Generations, Server
from ragkit.progress import Bar, shown
from ragkit.settings import QdrantSettings
from ragkit.sparse import SCHEME
from ragkit.store import CorpusNotFound, Store, StoreError, open_store
from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

PASSES = 20  # over the corpus, before a writer that never rests is asked to


@dataclass(frozen=True, slots=True)
class ReindexReport:
    passages: int  # in the new generation
    embedded: int  # by this run: fewer where an earlier one was cut off
    dropped: int  # of an earlier run, gone from the corpus since
    previous: str  # fingerprint of the generation that was current


@dataclass(frozen=True, slots=True)
class Identity:
    """What a collection says of its encoder: enough to open it, when the model itself need not be there."""

    fingerprint: str
    dimension: int
    max_length: int
    truncated: int = 0

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        raise StoreError(f"the model {self.fingerprint} is not loaded: nothing can be embedded by it")

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        raise StoreError(f"the model {self.fingerprint} is not loaded: nothing can be embedded by it")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise StoreError(f"the model {self.fingerprint} is not loaded: its tokens cannot be counted")


@contextmanager
def _generations(location: str | Path, settings: QdrantSettings) -> Iterator[Generations]:
    place = str(location)
    if is_url(place):
        client = qdrant.connect(place, settings)
        try:
            yield Server(client)
        finally:
            client.close()
    elif place == ":memory:":
        raise StoreError("a store in memory ends with its client: there is nothing to reindex")
    else:
        yield Folder(Path(location).expanduser().resolve())


def _current(generations: Generations, location: str | Path, corpus: str) -> tuple[str, dict[str, Any]]:
    current = generations.current(corpus)
    metadata = generations.metadata(corpus, current) if current else None
    if current is None or metadata is None:
        raise CorpusNotFound(
            f"no corpus {corpus!r} at {masked(location)} has a current generation: ingest documents first"
        )
    return current, metadata


def open_current(location: str | Path, corpus: str, settings: QdrantSettings | None = None) -> Store:
    """The current generation, without its model: to read and to search by vectors, whoever's points they are."""
    settings = settings or QdrantSettings()
    with _generations(location, settings) as generations:
        _, metadata = _current(generations, location, corpus)
    encoder = Identity(metadata["fingerprint"], metadata["dimension"], metadata["max_length"])
    scheme = metadata.get("sparse", "")
    return open_store(
        location, corpus, encoder, tenant=_any(metadata), qdrant_settings=settings, create=False, scheme=scheme
    )


def _any(metadata: dict[str, Any]) -> str | None:
    return "-" if metadata.get("tenants") else None  # points are copied past the tenants, so any name will do


def reindex(
    location: str | Path,
    corpus: str,
    encoder: Encoder,
    *,
    settings: QdrantSettings | None = None,
    current: Store | None = None,
    progress: bool | Bar = False,
) -> ReindexReport:
    """Embed the corpus anew with ``encoder`` and make that its current generation. Where it is current already, nothing
    is embedded; BM25 vectors of an earlier version's scheme are made anew.

    ``current``: the open store to read from, where this process serves it; else it is opened here, and one
    embedded by another process is refused (:class:`CorpusInUse`, which names the process). Raises StoreError
    where the corpus is written to so fast that the copy does not catch up; it can be run again.
    """
    settings = settings or QdrantSettings()
    old = current or open_current(location, corpus, settings)
    try:
        admit_writers(location, corpus, settings)  # whom one that was cut off still refuses
        if old.fingerprint == encoder.fingerprint:
            if old.scheme != SCHEME:
                with _writers_refused(old, old.fingerprint):
                    old.renew_words()
            return ReindexReport(old.count(everybody=True), 0, 0, old.fingerprint)
        new, embedded, dropped = beside(old, encoder, progress=progress)
        with new:
            new.optimize()
            with _writers_refused(old, encoder.fingerprint) as others, _generations(location, settings) as generations:
                if others:  # may have written since the last pass
                    embedded += _copy(old, new, encoder, progress)
                    dropped += _drop_absent(old, new)
                passages = new.count(everybody=True)
                generations.make_current(corpus, encoder.fingerprint)
        return ReindexReport(passages, embedded, dropped, old.fingerprint)
    finally:
        if current is None:
            old.close()


@contextmanager
def _writers_refused(old: Store, coming: str) -> Iterator[bool]:
    """Whether there are any: on a server others may write too, in a folder its owner alone can."""
    if not hasattr(old.client, "update_collection"):
        yield False
        return
    old.client.update_collection(old.collection, metadata={SUPERSEDING: coming})
    try:
        yield True
    finally:
        old.client.update_collection(old.collection, metadata={SUPERSEDING: None})


def admit_writers(location: str | Path, corpus: str, settings: QdrantSettings | None = None) -> None:
    """Give up a reindex that was killed between its last pass and the swap: until then writers are refused."""
    with _generations(location, settings or QdrantSettings()) as generations:
        current, _ = _current(generations, location, corpus)
        generations.admit_writers(corpus, current)


def beside(old: Store, encoder: Encoder, *, progress: bool | Bar = False) -> tuple[Store, int, int]:
    """The generation of ``encoder`` beside the current one, ``old``: open, brought up to it, and not made current.
    Also how many passages were embedded for that, and how many were gone. Raises StoreError where ``old`` is written
    to faster than this copies, and FingerprintMismatch where it is current no more."""
    old.refuse_overtaken()
    with _generations(old.location, old.settings) as generations:
        generations.make_current(old.corpus, old.fingerprint)  # said outright, before there is a second one
        left = generations.metadata(old.corpus, encoder.fingerprint) or {}  # of a reindex before
    shared = None if old.tenant is None else "-"  # points are copied past the tenants, so any name will do
    present = old.client.get_collection(old.collection)
    settings = qdrant.carried(old.settings, present)
    if is_url(old.location):
        settings = cluster.carried(settings, present)
    new = open_store(
        old.location,
        old.corpus,
        encoder,
        tenant=shared,
        qdrant_settings=settings,
        generation=True,
        scheme=left.get("sparse", SCHEME),
    )
    try:
        if new.scheme != SCHEME:
            new.renew_words()
        if settings.tiers:
            kept = cluster.tiered(present)
            promoted = cluster.shard_keys(old.client, old.collection) if kept else []
            cluster.make_shards(new.client, new.collection, settings, promoted)
        embedded = dropped = 0
        for _ in range(PASSES):
            wrote, gone = _copy(old, new, encoder, progress), _drop_absent(old, new)
            embedded, dropped = embedded + wrote, dropped + gone
            if not wrote and not gone:
                return new, embedded, dropped
        raise StoreError(
            f"corpus {old.corpus!r} changed during each of {PASSES} passes: stop what writes to it and run this again; "
            "what is embedded is kept"
        )
    except BaseException:
        new.close()
        raise


def roll_back(location: str | Path, corpus: str, settings: QdrantSettings | None = None) -> str:
    """Make the generation that was current before this one current again; its fingerprint."""
    with _generations(location, settings or QdrantSettings()) as generations:
        _, metadata = _current(generations, location, corpus)
        previous = metadata.get("previous")
        if not previous or generations.metadata(corpus, previous) is None:
            raise StoreError(
                f"corpus {corpus!r} at {masked(location)} has no generation before the current one"
                + (f": {corpus}--{previous} is gone" if previous else "")
            )
        generations.make_current(corpus, previous)
        return previous


def generations_of(location: str | Path, corpus: str, settings: QdrantSettings | None = None) -> list[Generation]:
    """All that there are, the current one first."""
    with _generations(location, settings or QdrantSettings()) as generations:
        return generations.all(corpus)


def prune(location: str | Path, corpus: str, settings: QdrantSettings | None = None) -> list[Generation]:
    """Remove every generation but the current one; what was removed. There is no way back to them.

    Raises :class:`CorpusNotFound` where no generation is the current one, and :class:`CorpusInUse` where a process has
    one of them open: a reindex that is filling it. On a server nobody can tell: let none run meanwhile.
    """
    with _generations(location, settings or QdrantSettings()) as generations:
        current, _ = _current(generations, location, corpus)
        generations.make_current(corpus, current)  # said outright: it may have been the only whole one
        generations.admit_writers(corpus, current)
        others = [one for one in generations.all(corpus) if not one.current]
        for other in others:
            generations.remove(corpus, other.fingerprint)
        return others


def _copy(old: Store, new: Store, encoder: Encoder, progress: bool | Bar) -> int:
    wrote = 0
    with shown(progress, "reindex", "passages") as bar:
        for page in old.pages():
            there = new.payloads([str(record.id) for record in page])
            fresh = [record for record in page if there.get(str(record.id)) != (record.payload or {})]
            if fresh:
                texts = [nodes.from_payload(str(record.id), record.payload).text for record in fresh]
                new.put(fresh, encoder.encode_passages(texts))
            wrote += len(fresh)
            bar.update(len(page))
    return wrote


def _drop_absent(old: Store, new: Store) -> int:
    gone = 0
    for ids in new.ids():
        there = old.stored(ids)
        absent = [i for i in ids if i not in there]
        new.drop(absent)
        gone += len(absent)
    return gone
