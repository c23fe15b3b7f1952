"""``qdrant_client.models`` <-> ``qdrant_edge``: the same words in two dialects, as pure functions.

Only what the store and LlamaIndex's QdrantVectorStore say is translated. Anything else raises
TypeError: a condition that was silently dropped would match everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

import qdrant_edge as edge
from qdrant_client import models


def to_vectors(vector: Any) -> Any:
    """A point's vector(s): named or not, dense or sparse."""
    if isinstance(vector, dict):
        return {name: to_vectors(v) for name, v in vector.items()}
    if isinstance(vector, models.SparseVector):
        return edge.SparseVector(vector.indices, vector.values)
    return [float(x) for x in vector]


def to_query(query: Any, using: str | None) -> Any:
    match query:
        case None:
            return None
        case models.NearestQuery(nearest=vector):
            return to_query(vector, using)
        case models.RrfQuery(rrf=models.Rrf(k=k, weights=weights)):
            # 2 is what a server does when k is not given; the store always gives it
            return edge.Fusion.Rrf(k=2 if k is None else k, weights=weights)
        case models.SparseVector() | list():
            return edge.Query.Nearest(to_vectors(query), using=using)
    raise TypeError(
        f"query of type {type(query).__name__}: the embedded store takes a list of floats, a SparseVector or RrfQuery"
    )


def to_prefetch(prefetch: models.Prefetch) -> edge.Prefetch:
    if prefetch.prefetch or prefetch.lookup_from:
        raise TypeError("a prefetch inside a prefetch, or a look-up in another collection: not in the embedded store")
    return edge.Prefetch(
        limit=prefetch.limit or 10,
        query=to_query(prefetch.query, prefetch.using),
        params=to_params(prefetch.params),
        filter=to_filter(prefetch.filter),
        score_threshold=prefetch.score_threshold,
    )


def to_params(params: models.SearchParams | None) -> edge.SearchParams | None:
    if params is None:
        return None
    if params.quantization or params.acorn:
        raise TypeError("quantization and acorn search parameters are not translated for the embedded store")
    idf = None
    if isinstance(params.idf, models.IdfCorpusParams):
        idf = edge.IdfParams(corpus=to_filter(params.idf.corpus))
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef, exact=bool(params.exact), indexed_only=bool(params.indexed_only), idf=idf
    )


def to_filter(condition: models.Filter | None) -> edge.Filter | None:
    if condition is None:
        return None
    if condition.min_should is not None:
        raise TypeError("Filter.min_should is not translated for the embedded store: use must, should or must_not")
    return edge.Filter(
        must=_conditions(condition.must),
        should=_conditions(condition.should),
        must_not=_conditions(condition.must_not),
    )


def _conditions(conditions: Any) -> list[Any] | None:
    if conditions is None:
        return None
    return [_condition(c) for c in (conditions if isinstance(conditions, list) else [conditions])]


def _condition(condition: Any) -> Any:
    match condition:
        case models.Filter():
            return to_filter(condition)
        case models.HasIdCondition(has_id=ids):
            return edge.HasIdCondition(set(ids))
        case models.IsEmptyCondition(is_empty=field):
            return edge.IsEmptyCondition(field.key)
        case models.FieldCondition(key=key, match=match) if match is not None:
            return edge.FieldCondition(key, match=_match(match))
        case models.FieldCondition(key=key, range=models.Range() as r):
            return edge.FieldCondition(key, range=edge.RangeFloat(gte=r.gte, gt=r.gt, lte=r.lte, lt=r.lt))
    raise TypeError(
        f"condition {condition!r}: the embedded store filters by field match, number range, emptiness and ids"
    )


def _match(match: Any) -> Any:
    match match:
        case models.MatchValue(value=value):
            return edge.MatchValue(value)
        case models.MatchAny(any=values):
            return edge.MatchAny(cast(Any, values))
        case models.MatchExcept(except_=values):
            return edge.MatchExcept(cast(Any, values))
        case models.MatchText(text=text):
            return edge.MatchText(text)
        case models.MatchPrefix(prefix=prefix):
            return edge.MatchPrefix(prefix)
    raise TypeError(f"match {match!r}: the embedded store matches a value, any, except, text or prefix")


def from_id(point_id: Any) -> Any:
    return str(point_id) if isinstance(point_id, UUID) else point_id


def from_records(found: Iterable[edge.Record]) -> list[models.Record]:
    return [models.Record(id=from_id(r.id), payload=r.payload, vector=_from_vectors(r.vector)) for r in found]


def from_scored(found: Iterable[edge.ScoredPoint]) -> list[models.ScoredPoint]:
    return [
        models.ScoredPoint(
            id=from_id(p.id), version=p.version, score=p.score, payload=p.payload, vector=_from_vectors(p.vector)
        )
        for p in found
    ]


def _from_vectors(vector: Any) -> Any:
    if isinstance(vector, dict):
        return {name: _from_vectors(v) for name, v in vector.items()}
    if isinstance(vector, edge.SparseVector):
        return models.SparseVector(indices=vector.indices, values=vector.values)
    return vector
