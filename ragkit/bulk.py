"""Files -> a folder of embedded passages, without a store: for corpora that one machine cannot embed in time.

First a plan: the sources are read and split as ingestion does it, and cut into shards of a fixed number of
passages. Then each shard is embedded by itself, here or by a cluster (bulk_ray.py), with the same result: what a
shard holds was settled before anyone began. A shard that is there is not made again, so a run that was cut off
goes on with the next one, and costs at most the shards that were in work. ``ragkit load`` takes it from there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from filelock import FileLock, Timeout

from ragkit.documents import Reading, check_passage_tokens, check_roots, document_hash, namespace, split_document
from ragkit.files import Skipped, find_files
from ragkit.keys import Keys
from ragkit.limits import Limits
from ragkit.names import check_corpus, check_tenant
from ragkit.parsing import Parser
from ragkit.progress import Bar, shown
from ragkit.readers import READERS, Reader
from ragkit.shards import Folder, Manifest, PlanWriter, ShardError, refuse_foreign

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

SLICE = 256  # passages an encoder call: the same for every engine, so that they batch alike


class Engine(Protocol):
    """Embeds the shards ``todo`` of a folder. Tells the bar of each passage."""

    def __call__(self, folder: Folder, todo: Sequence[int], model: Model, bar: Bar) -> None: ...


@dataclass(frozen=True, slots=True)
class EmbedReport:
    documents: int
    passages: int
    shards: int
    embedded: int  # passages, by this run: fewer where an earlier one was cut off
    skipped: tuple[Skipped, ...]  # of the reading; empty where the sources had not to be read again
    fingerprint: str


class Model:
    """An encoder that is loaded when it is first wanted, and can be let go: on a cluster the workers have theirs."""

    def __init__(self, load: Callable[[], Encoder]) -> None:
        self.load = load
        self._loaded: Encoder | None = None

    @property
    def encoder(self) -> Encoder:
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    def release(self) -> None:
        self._loaded = None


def embed(
    paths: Sequence[str | Path],
    out: str | Path,
    load: Callable[[], Encoder],  # called here, and by each worker of a cluster
    *,
    corpus: str,
    tenant: str | None = None,
    engine: Engine | None = None,  # this process, if not given
    model: str = "",  # its name, for the manifest
    passage_tokens: int = 200,
    shard_passages: int = 4096,  # rows of a file; also what a crash can cost each worker
    limits: Limits | None = None,
    readers: Mapping[str, Reader] = READERS,
    progress: bool | Bar = False,
) -> EmbedReport:
    """Make ``out`` hold the embedded passages of ``paths``. Raises IngestError for a path that cannot be read,
    ShardError where ``out`` was begun with other settings or other sources, or is being written by another run,
    StoreError and ValueError for a corpus and a tenant that no store could hold."""
    check_corpus(corpus)
    if tenant is not None:
        check_tenant(tenant)
    if shard_passages < 1:
        raise ValueError(f"shard_passages is {shard_passages}: a shard needs at least one")
    roots = check_roots(paths)
    target = Path(out).expanduser().resolve()
    if inside := [str(root) for root in roots if target.is_relative_to(root.resolve())]:
        raise ShardError(f"--out {target} lies in the source {inside[0]}: the next run would read what this one wrote")
    plans = target / "plan", target / "plan.tmp"
    if inside := [str(root) for root in roots if any(root.resolve().is_relative_to(plan) for plan in plans)]:
        raise ShardError(f"the source {inside[0]} lies where --out {target} keeps its plan: give another --out")
    target.mkdir(parents=True, exist_ok=True)
    lock = FileLock(target / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ShardError(f"another run writes into {target}: wait for it, or give another --out") from error
    try:
        held = Model(load)
        manifest, skipped = _Wanted(  # bound to no name: it would keep the encoder from being let go
            target, roots, held.encoder, corpus, tenant, model, passage_tokens, shard_passages,
            limits or Limits(), dict(readers),
        ).plan(progress)  # fmt: skip
        folder = Folder(target, manifest)
        folder.clear()
        todo = folder.missing()
        rows = sum(manifest.shards[n][0] for n in todo)
        with shown(progress, "embed", "passages", manifest.passages) as bar:
            bar.update(manifest.passages - rows)
            if todo:
                (engine or embed_here)(folder, todo, held, bar)
        if lost := folder.missing():
            raise ShardError(
                f"{len(lost)} of {len(manifest.shards)} shards are not in {target} although their workers are done: "
                "do all of them see this folder under this name? Run this again for the rest"
            )
        folder.clear()
        folder.drop_plan()
        return EmbedReport(
            manifest.documents, manifest.passages, len(manifest.shards), rows, skipped, manifest.fingerprint
        )
    finally:
        lock.release()


def embed_here(folder: Folder, todo: Sequence[int], model: Model, bar: Bar) -> None:
    """The engine that is this process."""
    for n in todo:
        embed_shard(folder, n, model.encoder, bar.update)


def embed_shard(folder: Folder, n: int, encoder: Encoder, advance: Callable[[int], Any]) -> None:
    """Embed planned shard ``n`` and write it. Raises ShardError for another encoder than the plan's."""
    if encoder.fingerprint != folder.manifest.fingerprint:
        raise ShardError(
            f"the encoder is {encoder.fingerprint}, the plan is for {folder.manifest.fingerprint}: give every worker "
            "the same model"
        )
    planned = folder.planned(n)
    texts = planned.column("text").to_pylist()
    out = np.empty((len(texts), encoder.dimension), dtype=np.float32)
    for start in range(0, len(texts), SLICE):
        part = texts[start : start + SLICE]
        out[start : start + len(part)] = encoder.encode_passages(part)
        advance(len(part))
    folder.write(n, planned, out)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What this run was asked for; :meth:`plan` brings it together with what the folder holds."""

    target: Path
    roots: list[Path]
    encoder: Encoder
    corpus: str
    tenant: str | None
    model: str
    passage_tokens: int
    shard_passages: int
    limits: Limits
    readers: dict[str, Reader]

    def plan(self, progress: bool | Bar) -> tuple[Manifest, tuple[Skipped, ...]]:
        """The folder's manifest, its plan made if there is anything left to embed."""
        check_passage_tokens(self.passage_tokens, self.encoder)
        manifest, skipped = self._manifest(), ()
        before = Manifest.read(self.target)
        if before is None:
            refuse_foreign(self.target)
        else:
            self._refuse_other(before, manifest)
            planned = (self.target / "plan").is_dir()
            if before.listing == manifest.listing and (planned or not Folder(self.target, before).missing()):
                return before, ()
        writer = PlanWriter(self.target, self.shard_passages)
        try:
            documents, skipped = self._read(writer, progress)
            digest, shards = writer.finish()
            rows = sum(n for n, _ in shards)
            manifest = replace(manifest, digest=digest, documents=documents, passages=rows, shards=shards)
            if before is not None and before.digest != digest:
                raise ShardError(
                    f"the sources say something else than when {self.target} was begun ({before.passages} passages "
                    f"then, {rows} now): give another --out, or delete that folder"
                )
            if before is None:
                manifest.write(self.target)  # first: a plan without one is not ours
            writer.publish()
            manifest.write(self.target)
        finally:
            writer.discard()
        return manifest, skipped

    def _manifest(self) -> Manifest:
        encoder = self.encoder
        return Manifest(
            self.corpus, self.tenant, self.model, encoder.fingerprint, encoder.dimension, encoder.max_length,
            self.passage_tokens, self.shard_passages, tuple(str(root) for root in self.roots), self._listing(),
            "", 0, 0, (),
        )  # fmt: skip

    def _listing(self) -> str:
        """Of everything that decides which documents there are, short of reading them."""
        told = hashlib.sha256(json.dumps([asdict(self.limits), sorted(self.readers)]).encode())
        told.update("".join(f"{s}:{r.__module__}.{r.__qualname__}\n" for s, r in sorted(self.readers.items())).encode())
        for root in self.roots:
            for entry in find_files(root, self.readers):
                if isinstance(entry, Path):
                    state = entry.stat()
                    told.update(f"{entry}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
        return told.hexdigest()

    def _refuse_other(self, before: Manifest, now: Manifest) -> None:
        names = ("corpus", "tenant", "fingerprint", "passage_tokens", "shard_passages", "sources")
        other = [name for name in names if getattr(before, name) != getattr(now, name)]
        if other:
            told = "; ".join(f"{name} was {getattr(before, name)!r}, is {getattr(now, name)!r}" for name in other)
            raise ShardError(
                f"{self.target} was begun with other settings: {told}. Give another --out, the earlier settings, or "
                "delete that folder"
            )

    def _read(self, writer: PlanWriter, progress: bool | Bar) -> tuple[int, tuple[Skipped, ...]]:
        documents, space = 0, namespace(self.corpus, self.tenant)
        skipped = list[Skipped]()
        with Parser(self.limits) as parser, shown(progress, "read", "documents") as bar:
            for root in self.roots:
                with Keys() as present:
                    for document in Reading(parser, self.readers, present, skipped=skipped).below(root, root):
                        digest = document_hash(document, self.passage_tokens)
                        writer.add(split_document(document, digest, space, self.encoder, self.passage_tokens))
                        documents += 1
                        bar.update()
        return documents, tuple(skipped)
