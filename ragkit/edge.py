"""The part of QdrantClient's interface that the store uses, over the embedded engine (qdrant-edge).

qdrant-edge is the real engine (HNSW, sparse index, fusion, write-ahead log) inside this process, but it
knows no collections: one shard is one folder. :class:`EdgeClient` is one collection in one folder, with
QdrantClient's methods and models, so that the store and LlamaIndex's QdrantVectorStore run the same code
over it, over ``QdrantClient(":memory:")`` and over a server.

    <folder>/shard/            the engine's files (no pickles: a folder from elsewhere cannot run code)
    <folder>/collection.json   vectors and metadata; written last, so a folder without it is an unfinished one. After
                               a restore it names the shard: its replacement is the moment of the exchange
    <folder>/lock, owner.json  who has it open, see owner.py

Where qdrant-edge has no wheel, importing this module raises ImportError; the store says what to do.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qdrant_edge as edge
from qdrant_client import models
from qdrant_client.http.models import QueryResponse  # `models` has fastembed's of that name

from ragkit.archive import require_room, taken
from ragkit.edge_models import (
    from_id,
    from_records,
    from_scored,
    to_config,
    to_filter,
    to_index,
    to_params,
    to_prefetch,
    to_query,
    to_vectors,
)
from ragkit.owner import FolderLock, StoreError, sync_folder, write_json

# Bytes that must be free to open and to write: files are mapped with holes, and a hole that the disk has no block for
# kills the process (SIGBUS), where a write would have raised an error. A tmpfs wants blocks for what is read too.
ROOM = 64 << 20


class EdgeClient:
    """One collection, named as its folder; opened if it exists, otherwise made by :meth:`create_collection`.

    Every call holds the GIL until the engine is done (milliseconds, except :meth:`optimize`), so calls
    from several threads take turns.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._lock: FolderLock | None = FolderLock(folder)
        self._open: edge.EdgeShard | None = None
        try:
            if (folder / "collection.json").exists():
                require_room(folder, ROOM)
                self._open = edge.EdgeShard.load(str(_shard(folder)))
                _sweep(folder)
        except StoreError:
            self.close()
            raise
        except Exception as error:  # the engine raises plain Exception
            self.close()
            raise StoreError(
                f"the engine cannot read {folder}: {error}. Restore it from a backup (ragkit restore --replace), "
                "or delete it and ingest again"
            ) from error

    @property
    def _shard(self) -> edge.EdgeShard:
        if self._open is None:
            state = "has been closed" if self._lock is None else "holds no collection yet"
            raise StoreError(f"{self.folder} {state}: open the corpus with open_store")
        return self._open

    # ------------------------------------------------------------------ collection

    def collection_exists(self, collection_name: str) -> bool:
        return collection_name == self.folder.name and self._open is not None

    def create_collection(
        self,
        collection_name: str,
        vectors_config: dict[str, models.VectorParams],
        sparse_vectors_config: dict[str, models.SparseVectorParams] | None = None,
        metadata: dict[str, Any] | None = None,
        on_disk_payload: bool | None = None,
        **unsupported: Any,
    ) -> bool:
        self._check(collection_name, unsupported)
        if self._open is not None:
            raise StoreError(f"{self.folder} already holds its collection: delete it first")
        require_room(self.folder, ROOM)
        sparse = sparse_vectors_config or {}
        config = to_config(vectors_config, sparse, on_disk_payload)
        for left in self.folder.glob("shard*"):  # by a creation or a restore that was killed
            shutil.rmtree(left)
        self._open = edge.EdgeShard.create(str(self.folder / "shard"), config)
        params = models.CollectionParams(vectors=vectors_config, sparse_vectors=sparse)
        description = {"params": params.model_dump(mode="json", exclude_none=True), "metadata": metadata or {}}
        write_json(self.folder / "collection.json", description)
        return True

    def get_collection(self, collection_name: str) -> models.CollectionInfo:
        self._check(collection_name)
        info = self._shard.info()
        description = json.loads((self.folder / "collection.json").read_text("utf-8"))
        # model_construct: the interface requires HNSW and optimizer settings, which the engine keeps to itself
        return models.CollectionInfo.model_construct(
            status=models.CollectionStatus.GREEN,
            points_count=info.points_count,
            indexed_vectors_count=info.indexed_vectors_count,
            segments_count=info.segments_count,
            payload_schema=dict(info.payload_schema),
            config=models.CollectionConfig.model_construct(
                params=models.CollectionParams(**description["params"]), metadata=description["metadata"]
            ),
        )

    def update_metadata(self, collection_name: str, metadata: dict[str, Any]) -> None:
        self._check(collection_name)
        file = self.folder / "collection.json"
        description = json.loads(file.read_text("utf-8"))
        write_json(file, {**description, "metadata": {**description["metadata"], **metadata}})

    def delete_collection(self, collection_name: str) -> bool:
        self._check(collection_name)
        shard = _shard(self.folder)
        (self.folder / "collection.json").unlink()  # first: what remains is an unfinished folder
        self._shard.close()
        self._open = None
        shutil.rmtree(shard)
        return True

    def create_payload_index(
        self, collection_name: str, field_name: str, field_schema: Any, wait: bool = True, **unsupported: Any
    ) -> None:
        self._check(collection_name, unsupported)
        self._shard.update(edge.UpdateOperation.create_field_index(field_name, to_index(field_schema)))

    # ------------------------------------------------------------------ writing

    def upsert(
        self,
        collection_name: str,
        points: Iterable[models.PointStruct],
        wait: bool = True,
        update_filter: models.Filter | None = None,
        **unsupported: Any,
    ) -> None:
        """A point that exists is replaced if ``update_filter`` lets it through, else left alone. Durable on return:
        a killed process loses nothing (write-ahead log), nor does a power cut (flush)."""
        self._check(collection_name, unsupported)
        batch = [edge.Point(p.id, to_vectors(p.vector), p.payload) for p in points]
        if batch:
            require_room(self.folder, ROOM)
            self._write(edge.UpdateOperation.upsert_points(batch, condition=to_filter(update_filter)))

    def upload_points(
        self,
        collection_name: str,
        points: Iterable[models.PointStruct],
        batch_size: int = 64,
        parallel: int = 1,
        max_retries: int = 3,
        wait: bool = True,
        **unsupported: Any,
    ) -> None:
        """:meth:`upsert` in batches. There is no network here to retry on, and nothing to run in parallel."""
        rest = list(points)
        for start in range(0, len(rest), batch_size):
            self.upsert(collection_name, rest[start : start + batch_size], **unsupported)

    def delete(
        self,
        collection_name: str,
        points_selector: Sequence[str | int] | models.Filter,
        wait: bool = True,
        **unsupported: Any,
    ) -> None:
        self._check(collection_name, unsupported)
        require_room(self.folder, ROOM)
        if isinstance(points_selector, models.Filter):
            condition = to_filter(points_selector)
            assert condition is not None
            self._write(edge.UpdateOperation.delete_points_by_filter(condition))
        else:
            self._write(edge.UpdateOperation.delete_points(list(points_selector)))

    def optimize(self) -> None:
        """Build what searches large collections fast (HNSW), if it is not there yet. Blocks every thread for its
        seconds. It writes segments anew beside those they replace, so it needs as much room as all of them."""
        require_room(self.folder, ROOM + taken(_shard(self.folder)))
        self._shard.optimize()
        self._shard.flush()

    def _write(self, operation: edge.UpdateOperation) -> None:
        self._shard.update(operation)
        self._shard.flush()

    # ------------------------------------------------------------------ reading

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[str | int],
        with_payload: Any = True,
        with_vectors: Any = False,
        **unsupported: Any,
    ) -> list[models.Record]:
        self._check(collection_name, unsupported)
        return from_records(self._shard.retrieve(list(ids), with_payload=with_payload, with_vector=with_vectors))

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        offset: str | int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **unsupported: Any,
    ) -> tuple[list[models.Record], Any]:
        self._check(collection_name, unsupported)
        found, next_offset = self._shard.scroll(
            edge.ScrollRequest(
                offset=offset,
                limit=limit,
                filter=to_filter(scroll_filter),
                with_payload=with_payload,
                with_vector=with_vectors,
            )
        )
        return from_records(found), from_id(next_offset)

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **unsupported: Any
    ) -> models.CountResult:
        self._check(collection_name, unsupported)
        return models.CountResult(
            count=self._shard.count(edge.CountRequest(exact=exact, filter=to_filter(count_filter)))
        )

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **unsupported: Any,
    ) -> models.FacetResponse:
        self._check(collection_name, unsupported)
        found = self._shard.facet(edge.FacetRequest(key, limit=limit, exact=exact, filter=to_filter(facet_filter)))
        return models.FacetResponse(hits=[models.FacetValueHit(value=h.value, count=h.count) for h in found.hits])

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: models.Prefetch | list[models.Prefetch] | None = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        **unsupported: Any,
    ) -> QueryResponse:
        self._check(collection_name, unsupported)
        legs = [prefetch] if isinstance(prefetch, models.Prefetch) else prefetch or []
        found = self._shard.query(
            edge.QueryRequest(
                limit=limit,
                offset=offset,
                query=to_query(query, using),
                prefetches=[to_prefetch(leg) for leg in legs],
                filter=to_filter(query_filter),
                params=to_params(search_params),
                score_threshold=score_threshold,
                with_payload=with_payload,
                with_vector=with_vectors,
            )
        )
        return QueryResponse(points=from_scored(found))

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **unsupported: Any
    ) -> list[QueryResponse]:
        self._check(collection_name, unsupported)
        return [
            self.query_points(
                collection_name,
                query=r.query,
                using=r.using,
                prefetch=r.prefetch,
                query_filter=r.filter,
                search_params=r.params,
                limit=r.limit or 10,
                offset=r.offset,
                with_payload=r.with_payload or False,
                with_vectors=r.with_vector or False,
                score_threshold=r.score_threshold,
                shard_key_selector=r.shard_key,
                lookup_from=r.lookup_from,
            )
            for r in requests
        ]

    # ------------------------------------------------------------------ life

    @contextmanager
    def at_rest(self) -> Iterator[Path]:
        """The engine's files, to be copied: it is closed for the time of this block, and the lock stays."""
        self._shard.flush()
        self._shard.close()
        self._open = None
        shard = _shard(self.folder)
        try:
            yield shard
        finally:
            self._open = edge.EdgeShard.load(str(shard))

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _check(self, collection_name: str, unsupported: dict[str, Any] | None = None) -> None:
        if collection_name != self.folder.name:
            raise StoreError(f"{self.folder} holds the collection {self.folder.name!r}, not {collection_name!r}")
        given = {name: value for name, value in (unsupported or {}).items() if value is not None}
        if given:
            raise TypeError(f"{given}: the embedded store has no such option; leave it out, or use a Qdrant server")


def exchange(folder: Path, description: dict[str, Any], fill: Callable[[Path], None], points: int) -> None:
    """Put the shard that ``fill`` writes into an empty folder in the place of what ``folder`` holds, if anything.

    The engine must open it and count ``points`` in it first. What was there stays whole, and is what is opened next,
    until one file's replacement; a process killed before that leaves a folder that the next opening removes.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        _sweep(folder)
        fresh = folder / f"shard-{uuid.uuid4().hex[:8]}"
        fresh.mkdir()
        try:
            fill(fresh)
            found = _counted(fresh)
            if found != points:
                raise StoreError(f"the engine finds {found} points in what was to be {points}: nothing was exchanged")
            for path in [*fresh.rglob("*"), fresh]:
                if path.is_dir():
                    sync_folder(path)
            write_json(folder / "collection.json", {**description, "shard": fresh.name})
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        _sweep(folder)
    finally:
        lock.release()
        if made and not (folder / "collection.json").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _counted(shard: Path) -> int:
    try:
        opened = edge.EdgeShard.load(str(shard))
    except Exception as error:  # the engine raises plain Exception
        raise StoreError(f"the engine cannot read what was restored: {error}; nothing was exchanged") from error
    try:
        return opened.count(edge.CountRequest(exact=True))
    finally:
        opened.close()


def _shard(folder: Path) -> Path:
    description = json.loads((folder / "collection.json").read_text("utf-8"))
    return folder / description.get("shard", "shard")


def _sweep(folder: Path) -> None:
    """Remove shards that the collection does not name: a restore was killed, or this one has been replaced."""
    if (folder / "collection.json").exists():
        shard = _shard(folder)
        for left in folder.glob("shard*"):
            if left != shard:
                shutil.rmtree(left)
