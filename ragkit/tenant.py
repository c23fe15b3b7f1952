"""The one place that keeps tenants apart: a client that sees, and touches, one tenant's points only.

Qdrant cannot do it for us: payload claims in its tokens were removed in 1.16, so whoever may read a
collection may read all of it. :class:`TenantClient` stands between the client and everything that uses it,
the store and LlamaIndex's QdrantVectorStore alike. It has the methods named here and no others: each puts
the tenant into what is written, and beside (never into) whatever filter it was given, so that no OR, NOT or
id of a caller reaches past it. Where the collection is tiered (cluster.py), each call is also sent to the tenant's own
shard, if it has one, else to the one that small tenants share: for speed alone, the filter is what keeps them apart.
What would read another's points in passing is refused: queries by a point's
id, look-ups in other collections, and rarity (IDF) counted over everybody's passages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from qdrant_client import models

from ragkit.names import check_tenant
from ragkit.owner import StoreError

TENANT = "tenant"  # the payload field
FALLBACK = 0  # key of the shard that small tenants share; no tenant is called so, since names are strings

_Part = TypeVar("_Part", models.Prefetch, models.QueryRequest)
_PASSED = frozenset({"consistency", "ordering", "timeout", "wait"})  # options that name no points


class TenantClient:
    """``client`` (QdrantClient, or EdgeClient) as ``tenant`` may use it. Raises ValueError as ``check_tenant`` does."""

    def __init__(self, client: Any, tenant: str, *, tiered: bool = False) -> None:
        check_tenant(tenant)
        self._client = client
        self.tenant = tenant
        self._ours = models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant))
        self._there: dict[str, Any] = {"shard_key_selector": shard_of(tenant)} if tiered else {}

    def _within(self, wanted: models.Filter | None) -> models.Filter:
        if wanted is not None and not isinstance(wanted, models.Filter):
            raise TypeError(f"filter {wanted!r}: give a qdrant_client.models.Filter, so that it can be kept apart")
        return models.Filter(must=[self._ours] if wanted is None else [self._ours, wanted])

    # ------------------------------------------------------------------ writing

    def upsert(self, collection_name: str, points: Iterable[models.PointStruct], **options: Any) -> Any:
        """Raises StoreError, and writes nothing, where a point is another tenant's or says it is."""
        ours = [self._claim(point) for point in points]
        if not ours:
            return None
        taken = models.Filter(must=[_ids([p.id for p in ours])], must_not=[self._ours])
        if self._client.count(collection_name, count_filter=taken, exact=True).count:  # in all shards
            raise StoreError(
                f"an id among these {len(ours)} points is taken by another tenant: nothing was written. Make ids from "
                "the tenant's name too, as ingestion does, or at random"
            )
        # The engine's own condition, for the moment between that look and this write.
        return self._client.upsert(
            collection_name, points=ours, update_filter=self._within(None), **self._there, **_known(options)
        )

    def upload_points(
        self, collection_name: str, points: Iterable[models.PointStruct], batch_size: int = 64, **options: Any
    ) -> None:
        rest = list(points)
        options = {name: value for name, value in options.items() if name not in ("parallel", "max_retries")}
        for start in range(0, len(rest), batch_size):
            self.upsert(collection_name, rest[start : start + batch_size], **options)

    def _claim(self, point: models.PointStruct) -> models.PointStruct:
        if not isinstance(point, models.PointStruct):
            raise TypeError(f"point of type {type(point).__name__}: give a PointStruct, whose payload can be claimed")
        payload = point.payload or {}
        if payload.get(TENANT, self.tenant) != self.tenant:
            raise StoreError(
                f"point {point.id} says that its tenant is {payload[TENANT]!r}, but this is {self.tenant!r}'s store: "
                f"write it there, or call the field something else than {TENANT!r}"
            )
        return point.model_copy(update={"payload": {**payload, TENANT: self.tenant}})

    def delete(self, collection_name: str, points_selector: Any, **options: Any) -> Any:
        match points_selector:
            case models.Filter():
                wanted = points_selector
            case models.FilterSelector(filter=wanted):
                pass
            case models.PointIdsList(points=found):
                wanted = models.Filter(must=[_ids(found)])
            case _:
                wanted = models.Filter(must=[_ids(points_selector)])
        return self._client.delete(
            collection_name, points_selector=self._within(wanted), **self._there, **_known(options)
        )

    def delete_collection(self, collection_name: str, **options: Any) -> bool:
        """Empties it of this tenant's points: the collection is not one tenant's to delete."""
        self._client.delete(collection_name, points_selector=self._within(None), **self._there, **_known(options))
        return True

    # ------------------------------------------------------------------ reading

    def retrieve(
        self,
        collection_name: str,
        ids: Sequence[str | int],
        with_payload: Any = True,
        with_vectors: Any = False,
        **options: Any,
    ) -> list[models.Record]:
        if not ids:
            return []
        wanted = models.Filter(must=[_ids(ids)])
        found, _ = self.scroll(
            collection_name, wanted, limit=len(ids), with_payload=with_payload, with_vectors=with_vectors, **options
        )
        return found

    def scroll(
        self,
        collection_name: str,
        scroll_filter: models.Filter | None = None,
        limit: int = 10,
        offset: Any = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        **options: Any,
    ) -> tuple[list[models.Record], Any]:
        return self._client.scroll(
            collection_name,
            scroll_filter=self._within(scroll_filter),
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
            **self._there,
            **_known(options),
        )

    def count(
        self, collection_name: str, count_filter: models.Filter | None = None, exact: bool = True, **options: Any
    ) -> models.CountResult:
        within = self._within(count_filter)
        return self._client.count(collection_name, count_filter=within, exact=exact, **self._there, **_known(options))

    def facet(
        self,
        collection_name: str,
        key: str,
        facet_filter: models.Filter | None = None,
        limit: int = 10,
        exact: bool = False,
        **options: Any,
    ) -> models.FacetResponse:
        within = self._within(facet_filter)
        return self._client.facet(
            collection_name, key=key, facet_filter=within, limit=limit, exact=exact, **self._there, **_known(options)
        )

    def query_points(
        self,
        collection_name: str,
        query: Any = None,
        using: str | None = None,
        prefetch: Any = None,
        query_filter: models.Filter | None = None,
        search_params: models.SearchParams | None = None,
        limit: int = 10,
        offset: int | None = None,
        with_payload: Any = True,
        with_vectors: Any = False,
        score_threshold: float | None = None,
        **options: Any,
    ) -> Any:
        return self._client.query_points(
            collection_name,
            query=_by_value(query),
            using=using,
            prefetch=self._legs(prefetch),
            query_filter=self._within(query_filter),
            search_params=self._params(search_params, query),
            limit=limit,
            offset=offset,
            with_payload=with_payload,
            with_vectors=with_vectors,
            score_threshold=score_threshold,
            **self._there,
            **_known(options),
        )

    def query_batch_points(
        self, collection_name: str, requests: Sequence[models.QueryRequest], **options: Any
    ) -> list[Any]:
        ours = [self._guarded(request) for request in requests]
        if self._there:
            ours = [request.model_copy(update={"shard_key": self._there["shard_key_selector"]}) for request in ours]
        return self._client.query_batch_points(collection_name, requests=ours, **_known(options))

    def _guarded(self, part: _Part) -> _Part:
        """A request of a batch, or a leg at any depth, kept within the tenant."""
        _no_lookup(part)
        return part.model_copy(
            update={
                "query": _by_value(part.query),
                "prefetch": self._legs(part.prefetch),
                "filter": self._within(part.filter),
                "params": self._params(part.params, part.query),
            }
        )

    def _legs(self, prefetch: Any) -> list[models.Prefetch] | None:
        legs = [prefetch] if isinstance(prefetch, models.Prefetch) else prefetch
        return [self._guarded(leg) for leg in legs] if legs else None

    def _params(self, params: models.SearchParams | None, query: Any) -> models.SearchParams | None:
        """A term is rare among the tenant's own passages: counted over everybody's, its score would tell what
        others have."""
        if isinstance(query, models.NearestQuery):
            query = query.nearest
        if not isinstance(query, models.SparseVector):
            return params
        params = params or models.SearchParams()
        corpus = params.idf.corpus if isinstance(params.idf, models.IdfCorpusParams) else None
        return params.model_copy(update={"idf": models.IdfCorpusParams(corpus=self._within(corpus))})

    # ------------------------------------------------------------------ the collection

    def create_collection(self, collection_name: str, **_: Any) -> bool:
        """LlamaIndex wants to, after its ``clear()``, and goes on at these words."""
        raise ValueError(f"collection {collection_name!r} already exists: open_store makes it, a tenant does not")

    def collection_exists(self, collection_name: str) -> bool:
        return self._client.collection_exists(collection_name)

    def get_collection(self, collection_name: str) -> models.CollectionInfo:
        """Its counts are of the whole collection."""
        return self._client.get_collection(collection_name)


def shard_of(tenant: str) -> models.ShardKeyWithFallback:
    return models.ShardKeyWithFallback(target=tenant, fallback=FALLBACK)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := given.keys() - _PASSED:
        raise TypeError(f"{', '.join(sorted(unknown))}: not for a tenant: it is not known to keep to their points")
    return given


def _ids(found: Sequence[Any]) -> models.HasIdCondition:
    return models.HasIdCondition(has_id=list(found))


def _by_value(query: Any) -> Any:
    """The query, if it brings its own vector or fuses what was found."""
    match query:
        case None | models.SparseVector() | models.RrfQuery() | models.FusionQuery():
            return query
        case models.NearestQuery(nearest=nearest):
            _by_value(nearest)
            return query
        case [*values] if all(isinstance(value, int | float) for value in values):
            return query
    raise TypeError(
        f"query of type {type(query).__name__}: a tenant searches by a vector of their own, since an id, an example or "
        "a formula could speak of another's points"
    )


def _no_lookup(request: models.Prefetch | models.QueryRequest) -> None:
    if request.lookup_from is not None or getattr(request, "shard_key", None) is not None:
        raise TypeError("lookup_from and shard_key: not for a tenant, since they reach other points")
