"""One Qdrant collection per corpus and encoder: passages in, ranked hits out.

A vector means nothing without the encoder that made it, so a collection is named
``<corpus>--<fingerprint>``, carries the encoder's identity in its metadata, and a corpus that exists
only under another fingerprint is refused. Embedded engine, client's local mode and server run the same
code: they differ in the client that :func:`open_store` makes. Dense and BM25 vectors are stored side by
side from the first day, and the engine fuses the two rankings (RRF). Payloads are LlamaIndex nodes plus
our Passage fields, so plain LlamaIndex reads our collections and we read what it adds to them. A collection
belongs to one, or is shared by tenants for ever; a shared one cannot be opened without saying for whom.

A corpus may have several collections, its generations, one for each encoder it was embedded by (reindex.py).
One is current: on a server that to which the alias ``<corpus>`` points, in a folder the one that
``<corpus>.json`` names. Both are swapped atomically, and no other generation can be opened by mistake.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from qdrant_client import QdrantClient, models

from ragkit import cluster, filters, nodes, qdrant
from ragkit.client import is_url, masked
from ragkit.documents import namespace
from ragkit.generations import SUPERSEDING, Folder, Generations, Server
from ragkit.names import check_corpus, check_tenant
from ragkit.owner import CorpusInUse, NoRoom, StoreError
from ragkit.qdrant import DENSE, PAGE, SPARSE, UPSERT
from ragkit.settings import QdrantSettings
from ragkit.sparse import SCHEME, SparseVector, sparse_passage, well_formed
from ragkit.tenant import TenantClient
from ragkit.types import UNDETERMINED, Hit, Passage, Where, moment

if TYPE_CHECKING:
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    from ragkit.encoder import Encoder

__all__ = [
    "CorpusInUse", "CorpusNotFound", "EarlierWords", "FingerprintMismatch", "PassageState", "Store", "StoreError",
    "open_store",
]  # fmt: skip

log = logging.getLogger(__name__)

_TIES = 1000  # points beyond k that are fetched, at most, to order equal scores: far below a strict server's limit
_STATE = ("path", "document", "document_hash", "document_passages")


class CorpusNotFound(StoreError):
    """There is no such corpus at this location."""


class FingerprintMismatch(StoreError):
    """The corpus was embedded by another encoder, so its vectors mean something else."""


class EarlierWords(FingerprintMismatch):
    """The model is the corpus's, but an earlier version made its BM25 vectors, which this one's do not match."""


@dataclass(frozen=True, slots=True)
class PassageState:
    """What ingestion compares to find what changed; no text, no vectors."""

    id: str
    path: str
    document: str
    document_hash: str
    document_passages: int


def open_store(
    location: str | Path,
    corpus: str,
    encoder: Encoder,
    *,
    tenant: str | None = None,
    qdrant_settings: QdrantSettings | None = None,
    create: bool = True,
    generation: bool = False,
    scheme: str = SCHEME,
) -> Store:
    """The corpus at ``location``: a folder (embedded engine), ``":memory:"``, or the URL of a Qdrant server.

    A corpus that is not there yet is made, or with ``create=False`` refused (:class:`CorpusNotFound`). Made
    with a ``tenant``, it is shared by tenants, and everything done here is done to that tenant's part.
    ``generation=True`` opens, or makes, the encoder's own generation although another one is current. ``scheme`` is
    that of its BM25 vectors, where an earlier version made them: not to be searched by words.
    Raises :class:`FingerprintMismatch` where it exists under another encoder only, :class:`CorpusInUse`
    where another process owns the folder, ValueError for settings that the place cannot honour.
    """
    check_corpus(corpus)
    if tenant is not None:
        check_tenant(tenant)  # before a corpus is made that is shared for ever
    place = str(location)
    settings = qdrant_settings or QdrantSettings()
    name = f"{corpus}--{encoder.fingerprint}"
    server = is_url(place)
    if not server:
        qdrant.refuse_unsupported(settings, place)
    root: Path | None = None
    client: Any = None
    existing: list[str] = []
    if place == ":memory:":
        client = QdrantClient(place)
    elif server:
        client = qdrant.connect(place, settings)
    elif "://" in place:
        raise StoreError(
            f"location {masked(place)!r}: give a folder, ':memory:', or a server's URL (http:// or https://)"
        )
    else:
        root = Path(location).expanduser().resolve()
        existing = [folder.parent.name for folder in root.glob("*--*/collection.json")]
    try:
        if server:
            existing = [c.name for c in client.get_collections().collections]
        generations = _generations(place, client)
        current = generations.current(corpus) if generations else None
        if not generation:
            _refuse_absent(name, existing, current, masked(place), create)
        if root is not None:
            client = _embedded(root / name)
        store = Store(client, place, corpus, encoder, tenant=tenant, qdrant_settings=settings, scheme=scheme)
        if generations and generations.current(corpus) is None:  # in a folder, a second one leaves it open which is
            generations.make_current(corpus, current or encoder.fingerprint)
        return store
    except BaseException:
        if client is not None:
            client.close()
        raise


def _generations(place: str, client: Any) -> Generations | None:
    if place == ":memory:":
        return None
    server = is_url(place)
    return Server(client) if server else Folder(Path(place).expanduser().resolve())


def _refuse_absent(name: str, existing: Sequence[str], current: str | None, place: str, create: bool) -> None:
    corpus, _, fingerprint = name.rpartition("--")
    if name in existing and current in (None, fingerprint):
        return
    others = sorted(n.removeprefix(f"{corpus}--") for n in existing if n.startswith(f"{corpus}--"))
    if others:
        raise FingerprintMismatch(
            f"corpus {corpus!r} at {place} is embedded by encoder {current or ', '.join(others)}, this encoder is "
            f"{fingerprint}: their vectors cannot be compared. Load that model, or `ragkit reindex --corpus {corpus}` "
            "with this one, which reads the passages out of the store"
        )
    if not create:
        corpora = sorted({n.rpartition("--")[0] for n in existing if "--" in n})
        raise CorpusNotFound(
            f"no corpus {corpus!r} at {place}; what is there: {', '.join(corpora) or 'nothing'}. Ingest documents first"
        )


def _embedded(folder: Path) -> Any:
    try:
        from ragkit.edge import EdgeClient
    except ImportError as error:
        raise StoreError(
            f"cannot open {folder}: the embedded engine is not available here ({error}). Install qdrant-edge-py "
            "where it has a wheel, or give the URL of a Qdrant server in place of the path"
        ) from error
    return EdgeClient(folder)


class Store:
    """An open corpus; a context manager. Made by :func:`open_store`."""

    def __init__(
        self,
        client: Any,
        location: str,
        corpus: str,
        encoder: Encoder,
        *,
        tenant: str | None = None,
        qdrant_settings: QdrantSettings | None = None,
        scheme: str = SCHEME,
    ) -> None:
        self.location = location
        self.scheme = scheme
        self.corpus = corpus
        self.encoder = encoder
        self.tenant = tenant
        self.settings = qdrant_settings or QdrantSettings()
        self.fingerprint = encoder.fingerprint
        self.dimension = encoder.dimension
        self.collection = f"{corpus}--{encoder.fingerprint}"
        self._whole = client  # everybody's: to open, lay out and close
        self._generations = _generations(location, client)
        identity = {
            "corpus": corpus,
            "fingerprint": encoder.fingerprint,
            "dimension": encoder.dimension,
            "max_length": encoder.max_length,
            "sparse": scheme,
        }
        made = not client.collection_exists(self.collection)
        if made:
            self._create(identity)
        info = client.get_collection(self.collection)
        found = info.config.metadata or {}
        wrong = {key: (found.get(key), value) for key, value in identity.items() if found.get(key) != value}
        if wrong:
            told = ", ".join(f"{key} is {was!r}, expected {now!r}" for key, (was, now) in wrong.items())
            told = f"collection {self.collection!r} at {masked(location)} was made differently: {told}"
            if wrong.keys() == {"sparse"}:
                raise EarlierWords(
                    f"{told}. `ragkit reindex --corpus {corpus}` makes its words anew, and embeds nothing"
                )
            raise FingerprintMismatch(f"{told}. Ingest again under a new corpus name")
        if bool(found.get("tenants")) != (tenant is not None):
            place = masked(location)
            raise StoreError(
                f"corpus {corpus!r} at {place} is shared by tenants: say whose part to open (tenant=, --tenant)"
                if tenant is None
                else f"corpus {corpus!r} at {place} is not shared by tenants: open it without one, or ingest for "
                f"{tenant!r} under a new corpus name"
            )
        self._index(info.payload_schema or {})
        self._tiered = cluster.tiered(info)
        if self._tiered:
            cluster.make_shards(client, self.collection, self.settings)
        self._client = client if tenant is None else TenantClient(client, tenant, tiered=self._tiered)  # for all else
        if cluster.LOADING in found:
            log.warning(
                "corpus %r has no graph since a bulk load was cut off, so every search compares with all of it: run "
                "the load again, or leave a block of ragkit.cluster.loading", corpus,
            )  # fmt: skip
        quantization = qdrant.quantization_of(info)
        if quantization != self.settings.quantization and not made:
            log.warning(
                "corpus %r keeps the quantization it was made with, %s, not %s: ingest under a new name to change it",
                corpus, quantization, self.settings.quantization,
            )  # fmt: skip
        self._quantized = quantization != "none"

    def for_tenant(self, tenant: str) -> Store:
        """The same shared corpus for another tenant, over this store's client: close only the one that was opened."""
        return Store(
            self._whole, self.location, self.corpus, self.encoder, tenant=tenant, qdrant_settings=self.settings
        )

    def refuse_overtaken(self) -> None:
        """Raises FingerprintMismatch where another generation is the current one by now, as after a reindex: what is
        written here would not be found."""
        current = self._generations.current(self.corpus) if self._generations else None
        if current not in (None, self.fingerprint):
            raise FingerprintMismatch(
                f"corpus {self.corpus!r} at {masked(self.location)} was switched to encoder {current} while this "
                f"process wrote to it with {self.fingerprint}, so what it wrote last may not be found: start it again "
                "with that model (RAGKIT_MODEL, --model)"
            )

    def refuse_superseded(self) -> None:
        """:meth:`refuse_overtaken`, and StoreError where that is about to happen: for who has written, or will."""
        self.refuse_overtaken()
        told = self._generations.metadata(self.corpus, self.fingerprint) if self._generations else None
        if told and (coming := told.get(SUPERSEDING)):
            raise StoreError(
                f"corpus {self.corpus!r} at {masked(self.location)} is being switched to encoder {coming}, so what "
                "this process wrote last may not be found: run it again when `ragkit reindex` is done. If that was cut "
                "off, run that again, or give it up by `ragkit generations --prune`, which leaves the current one alone"
            )

    @property
    def client(self) -> Any:
        """Everybody's, whoever's part this is: for what is done to the collection as a whole."""
        return self._whole

    @property
    def namespace(self) -> str:
        return namespace(self.corpus, self.tenant)

    def _create(self, identity: dict[str, Any]) -> None:
        shared = self.tenant is not None
        server = is_url(self.location)
        qdrant.indexes(self.settings, tenants=shared)  # refused here, where it is wrong, before anything is made
        self._whole.create_collection(
            self.collection,
            **qdrant.layout(self.dimension, self.settings, server=server, tenants=shared),
            metadata=identity | ({"tenants": True} if shared else {}),
        )

    def _index(self, there: Mapping[str, Any]) -> None:
        """Payload indexes that are missing: all of them at first, and those of which a killed creation was robbed."""
        if self.location != ":memory:":  # the client's local mode has no indexes, and warns
            paths = {key if set(key) & set('".[') else filters.quoted(key) for key in there}  # servers quote fewer
            for field, schema in qdrant.indexes(self.settings, tenants=self.tenant is not None).items():
                if field not in paths:
                    self._whole.create_payload_index(self.collection, field, field_schema=schema)

    # ------------------------------------------------------------------ writing

    def upsert(self, passages: Sequence[Passage], embeddings: np.ndarray) -> None:
        """Store ``passages`` with their ``embeddings`` (N, D) and BM25 vectors; an existing id is replaced.
        Durable when it returns."""
        self._check(embeddings, [passage.id for passage in passages])
        for passage in passages:
            if passage.date:
                moment(passage.date)  # what is no date the engine would leave out of its index, silently
        for start in range(0, len(passages), UPSERT):
            batch = zip(passages[start : start + UPSERT], embeddings[start : start + UPSERT], strict=True)
            self._client.upsert(self.collection, points=[_point(p, e) for p, e in batch], wait=True)

    def delete(self, passage_ids: Sequence[str]) -> None:
        """Remove these passages; ids that are not there are no error."""
        ids = [_checked_id(i) for i in passage_ids]
        for start in range(0, len(ids), PAGE):
            self._client.delete(self.collection, points_selector=ids[start : start + PAGE], wait=True)

    # ------------------------------------------------------------------ reading

    def states(self, path_prefix: str | None = None) -> Iterator[PassageState]:
        """Of every stored passage whose path is ``path_prefix`` or lies below it (``path_prefix/...``)."""
        yield from self._states(None if path_prefix is None else filters.below(path_prefix))

    def states_of(self, documents: Sequence[tuple[str, str]]) -> Iterator[PassageState]:
        """Of the passages of these documents, each given as (path, document)."""
        if not documents:
            return
        either = [sorted({well_formed(name) for name in names}) for names in zip(*documents, strict=True)]
        wanted = set(documents)
        conditions: list[Any] = [
            models.FieldCondition(key=key, match=models.MatchAny(any=names))
            for key, names in zip(("path", "document"), either, strict=True)
        ]
        for state in self._states(models.Filter(must=conditions)):
            if (state.path, state.document) in wanted:
                yield state

    def _states(self, below: models.Filter | None) -> Iterator[PassageState]:
        for records in _pages(self._client, self.collection, PAGE, list(_STATE), below):
            for record in records:
                payload = record.payload or {}
                if all(field in payload for field in _STATE):  # not what LlamaIndex added by itself
                    yield PassageState(str(record.id), **{field: payload[field] for field in _STATE})

    def passages(self, ids: Sequence[str]) -> list[Passage]:
        """In the order of ``ids``; those that are not stored are left out."""
        records = self._client.retrieve(self.collection, ids=[_checked_id(i) for i in ids], with_payload=True)
        found = {str(record.id): nodes.from_payload(str(record.id), record.payload) for record in records}
        return [found[i] for i in map(_checked_id, ids) if i in found]

    def embeddings(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """By id, (D,) float32 of unit length, of those of these passages that are stored with one."""
        records = self._client.retrieve(
            self.collection, ids=[_checked_id(i) for i in ids], with_payload=False, with_vectors=[DENSE]
        )
        vectors = {str(record.id): record.vector for record in records}
        return {i: np.array(v[DENSE], np.float32) for i, v in vectors.items() if isinstance(v, dict) and DENSE in v}

    def hashes(self, ids: Sequence[str]) -> dict[str, str]:
        """``document_hash`` of those of these passages that are stored."""
        found = self._client.retrieve(self.collection, ids=list(ids), with_payload=["document_hash"])
        return {str(record.id): (record.payload or {}).get("document_hash") or "" for record in found}

    def neighbours(self, passage: Passage, window: int) -> list[Passage]:
        """``passage`` and the ``window`` passages of its document before and after it, in their order."""
        near = models.Range(gte=passage.ordinal - window, lte=passage.ordinal + window)
        conditions: list[Any] = [
            filters.value_is("path", passage.path),
            filters.value_is("document", passage.document),
            models.FieldCondition(key="ordinal", range=near),
        ]
        found, _ = self._client.scroll(
            # twice: while a document changes, its old passages lie beside the new ones
            self.collection, scroll_filter=models.Filter(must=conditions), limit=2 * (2 * window + 1), with_payload=True
        )  # fmt: skip
        same = [nodes.from_payload(str(record.id), record.payload) for record in found]
        return sorted((p for p in same if p.document_hash == passage.document_hash), key=lambda p: p.ordinal)

    def documents(self, ids: Sequence[str]) -> set[str]:
        """Which of these ``Passage.document`` are stored."""
        stored: set[str] = set()
        for start in range(0, len(ids), PAGE):
            wanted = models.MatchAny(any=list(ids[start : start + PAGE]))
            hits = self._client.facet(
                self.collection,
                key="document",
                facet_filter=models.Filter(must=[models.FieldCondition(key="document", match=wanted)]),
                limit=PAGE,
                exact=True,
            ).hits
            stored |= {str(hit.value) for hit in hits}
        return stored

    def document_languages(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those of these ``Passage.document`` that are stored, the language of their first passage."""
        found: dict[str, str] = {}
        for start in range(0, len(ids), PAGE):
            wanted = models.MatchAny(any=list(ids[start : start + PAGE]))
            first: list[Any] = [
                models.FieldCondition(key="document", match=wanted),
                filters.value_is("ordinal", 0),
            ]
            for records in _pages(self._client, self.collection, PAGE, ["document", "lang"], models.Filter(must=first)):
                told = [record.payload or {} for record in records]
                found |= {payload["document"]: payload.get("lang") or UNDETERMINED for payload in told}
        return found

    def sample(self, n: int) -> tuple[list[Passage], np.ndarray]:
        """``n`` passages, or all if there are fewer, and their stored embeddings (n, D): the first by id. Ids are
        hashes, so these are as good as drawn by lot, and the same ones at every call. Reads no more than it returns."""
        passages: list[Passage] = []
        rows: list[Any] = []
        offset = None
        while len(rows) < n:
            records, offset = self._client.scroll(
                self.collection, limit=min(UPSERT, n - len(rows)), offset=offset, with_payload=True,
                with_vectors=[DENSE],
            )  # fmt: skip
            for record in records:
                if isinstance(record.vector, dict) and DENSE in record.vector:  # what LlamaIndex added may have none
                    passages.append(nodes.from_payload(str(record.id), record.payload))
                    rows.append(record.vector[DENSE])
            if offset is None:
                break
        return passages, np.array(rows, dtype=np.float32).reshape(len(rows), self.dimension)

    def pages(self) -> Iterator[list[models.Record]]:
        """All points as they are stored, payloads whole, vectors left out: everybody's where tenants share them."""
        return _pages(self._whole, self.collection, UPSERT, True)

    def ids(self) -> Iterator[list[str]]:
        """Of all points, whoever's, in pages."""
        for records in _pages(self._whole, self.collection, PAGE, False):
            yield [str(record.id) for record in records]

    def stored(self, ids: Sequence[str]) -> set[str]:
        """Which of these points are there, whoever's."""
        return {str(r.id) for r in self._whole.retrieve(self.collection, ids=list(ids), with_payload=False)}

    def payloads(self, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Whole, of those of these points that are stored, whoever's."""
        found = self._whole.retrieve(self.collection, ids=list(ids), with_payload=True)
        return {str(record.id): record.payload or {} for record in found}

    def put(self, records: Sequence[models.Record], embeddings: np.ndarray) -> None:
        """Store points of another generation with ``embeddings`` (N, D) of this one, payloads as they are."""
        self._check(embeddings, [str(record.id) for record in records])
        points = {}
        for record, embedding in zip(records, embeddings, strict=True):
            passage = nodes.from_payload(str(record.id), record.payload)
            vectors = _vectors(passage, embedding)
            points[record.id] = models.PointStruct(id=record.id, vector=vectors, payload=record.payload)
        if not self._tiered:
            self._whole.upsert(self.collection, points=list(points.values()), wait=True)
            return
        for shard, own in cluster.by_shard(records):
            ours = [points[record.id] for record in own]
            self._whole.upsert(self.collection, points=ours, shard_key_selector=shard, wait=True)

    def renew_words(self) -> int:
        """Make the BM25 vectors of an earlier scheme anew, embeddings as they are: everybody's. How many passages. To
        be run again where it was cut off; let nothing write meanwhile."""
        renewed = 0
        for records in _pages(self._whole, self.collection, UPSERT, True, vectors=[DENSE]):
            rows = {str(r.id): r.vector[DENSE] for r in records if isinstance(r.vector, dict) and DENSE in r.vector}
            found = [record for record in records if str(record.id) in rows]
            if found:
                self.put(found, np.array(list(rows.values()), np.float32))
            renewed += len(found)
        update = getattr(self._whole, "update_metadata", None)  # of the embedded engine
        if update:
            update(self.collection, {"sparse": SCHEME})
        else:
            self._whole.update_collection(self.collection, metadata={"sparse": SCHEME})
        self.scheme = SCHEME
        self.optimize()
        return renewed

    def _check(self, embeddings: np.ndarray, ids: Sequence[str]) -> None:
        expected = (len(ids), self.dimension)
        if embeddings.shape != expected:
            raise ValueError(f"embeddings of shape {embeddings.shape} for {len(ids)} passages: expected {expected}")
        if not np.isfinite(embeddings).all():
            bad = int((~np.isfinite(embeddings).all(axis=1)).argmax())
            raise ValueError(f"embedding {bad} (passage {ids[bad]}) is not finite: check the encoder's precision")

    def drop(self, ids: Sequence[str]) -> None:
        """Remove these points, whoever's."""
        if ids:
            keys = cluster.shard_keys(self._whole, self.collection) if self._tiered else None
            where = {"shard_key_selector": keys} if keys else {}
            self._whole.delete(self.collection, points_selector=list(ids), wait=True, **where)

    def count(self, *, everybody: bool = False) -> int:
        """Passages; ``everybody``: of all tenants."""
        return (self._whole if everybody else self._client).count(self.collection, exact=True).count

    def languages(self) -> dict[str, int]:
        """Passages per language, most first."""
        hits = self._client.facet(self.collection, key="lang", limit=10_000, exact=True).hits
        return {str(h.value): h.count for h in sorted(hits, key=lambda h: (-h.count, str(h.value)))}

    # ------------------------------------------------------------------ search

    def search(
        self,
        *,
        dense: np.ndarray | None = None,
        sparse: SparseVector | None = None,
        k: int = 10,
        lang: str | None = None,
        where: Where | None = None,
        sparse_lang: str | None = None,
        or_unknown: bool = False,
        weights: tuple[float, float] = (1.0, 1.0),
        rrf_k: int = 60,
        depth: int = 100,
        diversity: float = 0.0,
        exact: bool = False,
    ) -> list[Hit]:
        """The ``k`` best passages for one query, by ``dense`` (D,), by ``sparse``, or by both rankings fused.

        ``lang`` keeps passages of that language (``zh`` keeps ``zh-Hant``), with ``or_unknown`` also those in none that
        is known, ``where`` those of a source, date or metadata. ``sparse_lang`` is the query's own language: how rare a
        term is, BM25 then counts among the passages in it, since over a mixed corpus the stop words of one language
        look rare.

        Fusion is the engine's RRF over the first ``depth`` of each ranking, ``weights`` are (dense, sparse). The
        engine's score is 1 / (rank / weight + rrf_k - 1): a weight stretches ranks, so at a large ``rrf_k`` the
        smaller weight tells its own first ranks apart *more* sharply. At ``rrf_k=1`` it is weight / rank.
        Equal scores are ordered by passage id, also across the cut at ``k`` unless 1,000 more have the same.

        ``diversity`` above 0 chooses from the first ``depth`` of each ranking by maximal marginal relevance: the
        engine takes the passage with the best (1 - diversity) * cosine to the query - diversity * its greatest
        cosine to those taken, and so on. Scores are then cosines, not falling. ``exact`` compares with every
        passage and its original embedding, to measure what the index and quantisation lose.
        """
        if k < 1:
            raise ValueError(f"k={k}: ask for at least one hit")
        if not 0 <= diversity <= 1:
            raise ValueError(f"diversity={diversity}: 0 (the best alone) to 1 (the most unlike alone)")
        legs = self._legs(dense, sparse, lang, where, sparse_lang, or_unknown, exact)
        if not legs:
            return []
        prefetch = [models.Prefetch(**leg, limit=max(depth, k)) for leg in legs]
        request: dict[str, Any]
        if diversity:
            if dense is None:
                raise ValueError("diversity compares embeddings: give dense too, or leave it at 0")
            mmr = models.Mmr(diversity=diversity, candidates_limit=len(legs) * max(depth, k))
            near = models.NearestQuery(nearest=dense.astype(np.float32).tolist(), mmr=mmr)
            request = {"prefetch": prefetch, "query": near, "using": DENSE}
        elif len(legs) == 1:
            request = _alone(legs[0])
        else:
            request = {"prefetch": prefetch, "query": models.RrfQuery(rrf=models.Rrf(k=rrf_k, weights=list(weights)))}

        def ask(limit: int) -> list[models.ScoredPoint]:
            asked = {**request, **qdrant.read_options(self.settings), "limit": limit}
            return self._client.query_points(self.collection, **asked, with_payload=True).points

        top = ask(k) if diversity else _top(ask, k)
        return [Hit(rank, p.score, nodes.from_payload(str(p.id), p.payload)) for rank, p in enumerate(top, start=1)]

    def scores(
        self,
        *,
        dense: np.ndarray | None = None,
        sparse: SparseVector | None = None,
        k: int = 100,
        lang: str | None = None,
        where: Where | None = None,
        sparse_lang: str | None = None,
        or_unknown: bool = False,
    ) -> np.ndarray:
        """The ``k`` best scores of one ranking, falling; without the passages, so cheaper than :meth:`search`."""
        legs = self._legs(dense, sparse, lang, where, sparse_lang, or_unknown)
        if not legs:
            return np.empty(0, dtype=np.float32)
        [leg] = legs
        asked = {**_alone(leg), **qdrant.read_options(self.settings), "limit": k}
        found = self._client.query_points(self.collection, **asked, with_payload=False).points
        return np.array([point.score for point in found], dtype=np.float32)

    def _legs(
        self,
        dense: np.ndarray | None,
        sparse: SparseVector | None,
        lang: str | None,
        where: Where | None,
        sparse_lang: str | None,
        or_unknown: bool,
        exact: bool = False,
    ) -> list[dict[str, Any]]:
        """What to rank by, as arguments of a Prefetch. A sparse query without terms (emoji alone) ranks nothing."""
        if dense is None and sparse is None:
            raise ValueError("a search needs dense, sparse, or both")
        if dense is not None and dense.shape != (self.dimension,):
            raise ValueError(
                f"dense query of shape {dense.shape}: expected ({self.dimension},), one row of encode_queries"
            )
        if dense is not None and not np.isfinite(dense).all():
            raise ValueError("the query's embedding is not finite: check the encoder's precision")
        legs: list[dict[str, Any]] = []
        wanted = filters.all_of(filters.speaks(lang, or_unknown=or_unknown), filters.where_filter(where))
        if dense is not None:
            params = None  # the client's local mode is exact, and warns of any
            if self.location != ":memory:":
                params = qdrant.search_params(self.settings, quantized=self._quantized, exact=exact)
            query = dense.astype(np.float32).tolist()
            legs.append({"query": query, "using": DENSE, "filter": wanted, "params": params})
        if sparse is not None and sparse.indices:
            own = filters.speaks(sparse_lang)
            params = models.SearchParams(idf=models.IdfCorpusParams(corpus=own)) if own else None
            vector = models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
            legs.append({"query": vector, "using": SPARSE, "filter": wanted, "params": params})
        return legs

    @cached_property
    def vector_store(self) -> QdrantVectorStore:
        """The LlamaIndex vector store over this collection: what its indexes add, we find, and the reverse."""
        return nodes.vector_store(self._client, self.collection, DENSE, SPARSE)

    # ------------------------------------------------------------------ life

    def optimize(self) -> None:
        """Embedded: build the HNSW index (blocks for its seconds); where the disk has no room for it, searches stay as
        they are, slower and whole. A server does that by itself."""
        if hasattr(self._whole, "optimize"):
            try:
                self._whole.optimize()
            except NoRoom as error:
                log.warning("searches of %r are slower than they could be: %s", self.corpus, error)

    @contextmanager
    def unindexed(self, *, keep: bool) -> Iterator[None]:
        """Much will be written: no HNSW graph is built before this ends, and then all at once; ``keep`` leaves one that
        is there. The embedded engine builds none by itself, see :meth:`optimize`."""
        server = is_url(self.location)
        metadata = self._whole.get_collection(self.collection).config.metadata or {}
        if not server or (keep and cluster.LOADING not in metadata):
            yield
        else:
            with cluster.loading(self._whole, self.collection):
                yield

    def close(self) -> None:
        self._whole.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _alone(leg: dict[str, Any]) -> dict[str, Any]:
    """A Prefetch's arguments as those of query_points, which names two of them otherwise."""
    renamed = {"filter": "query_filter", "params": "search_params"}
    return {renamed.get(name, name): value for name, value in leg.items()}


def _top(ask: Callable[[int], list[models.ScoredPoint]], k: int) -> list[models.ScoredPoint]:
    """The first ``k``, equal scores by id. Engines cut inside a run of equal scores as they please, so
    ask for more until the run has ended, or ``_TIES`` points beyond k have not ended it. Six digits: the last bits
    of a float32 sum depend on its order."""

    def score(point: models.ScoredPoint) -> float:
        return float(f"{point.score:.6g}")

    limit = k + 8
    points = ask(limit)
    while len(points) == limit < k + _TIES and score(points[-1]) == score(points[k - 1]):
        limit = min(2 * limit, k + _TIES)
        points = ask(limit)
    return sorted(points, key=lambda p: (-score(p), str(p.id)))[:k]


def _checked_id(passage_id: str) -> str:
    try:
        return str(uuid.UUID(passage_id))
    except ValueError as error:
        raise ValueError(
            f"passage id {passage_id!r} is no UUID: Qdrant takes no other, use uuid5 of what it stands for"
        ) from error


def _pages(
    client: Any,
    collection: str,
    limit: int,
    with_payload: Any,
    wanted: models.Filter | None = None,
    vectors: Any = False,
) -> Iterator[list[models.Record]]:
    offset = None
    while True:
        records, offset = client.scroll(
            collection,
            scroll_filter=wanted,
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vectors=vectors,
        )
        if records:
            yield records
        if offset is None:
            return


def _vectors(passage: Passage, embedding: np.ndarray) -> dict[str, Any]:
    vector: dict[str, Any] = {DENSE: embedding.astype(np.float32).tolist()}
    sparse = sparse_passage(passage.text, passage.lang)
    if sparse.indices:  # engines disagree on whether an empty vector counts in IDF
        vector[SPARSE] = models.SparseVector(indices=list(sparse.indices), values=list(sparse.values))
    return vector


def _point(passage: Passage, embedding: np.ndarray) -> models.PointStruct:
    return models.PointStruct(
        id=_checked_id(passage.id), vector=_vectors(passage, embedding), payload=nodes.to_payload(passage)
    )
