"""``qdrant_client.models`` <-> ``qdrant_edge``: the same words in two dialects, as pure functions.

Only what the store and LlamaIndex's QdrantVectorStore say is translated. Anything else raises
TypeError: a condition that was silently dropped would match everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from qdrant_client import models


def to_config(
    vectors: dict[str, models.VectorParams], sparse: dict[str, models.SparseVectorParams], on_disk_payload: bool | None
) -> edge.EdgeConfig:
    return edge.EdgeConfig(
        vectors={
            name: edge.EdgeVectorParams(
                size=v.size,
                distance=getattr(edge.Distance, v.distance.value),
                on_disk=v.on_disk,
                hnsw_config=_hnsw(v.hnsw_config),
                quantization_config=_quantization(v.quantization_config),
            )
            for name, v in vectors.items()
        },
        sparse_vectors={
            name: edge.EdgeSparseVectorParams(
                modifier=edge.Modifier.Idf if v.modifier else None, on_disk=v.index.on_disk if v.index else None
            )
            for name, v in sparse.items()
        },
        on_disk_payload=on_disk_payload,
    )


def _hnsw(config: models.HnswConfigDiff | None) -> edge.HnswIndexConfig | None:
    if config is None:
        return None
    return edge.HnswIndexConfig(
        m=16 if config.m is None else config.m,  # the server's defaults, where the interface wants a number
        ef_construct=config.ef_construct or 100,
        full_scan_threshold=config.full_scan_threshold or 10_000,  # kB
        on_disk=config.on_disk,
        payload_m=config.payload_m,
    )


def _quantization(config: Any) -> Any:
    match config:
        case None:
            return None
        case models.ScalarQuantization(scalar=s):
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=s.quantile, always_ram=s.always_ram)
        case models.BinaryQuantization(binary=b):
            return edge.BinaryQuantizationConfig(always_ram=b.always_ram)
        case models.TurboQuantization(turbo=t):
            bits = getattr(edge.TurboQuantBitSize, t.bits.value.capitalize()) if t.bits else None
            return edge.TurboQuantQuantizationConfig(always_ram=t.always_ram, bits=bits)
    raise TypeError(f"quantization {config!r}: the embedded store has scalar, binary and TurboQuant")


def to_index(schema: Any) -> Any:
    """A payload index's parameters; of a bare type, that type's defaults."""
    match schema:
        case models.KeywordIndexParams():
            return edge.KeywordIndexParams(prefix=schema.prefix, is_tenant=schema.is_tenant)
        case models.IntegerIndexParams():
            return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
        case models.DatetimeIndexParams() | models.PayloadSchemaType.DATETIME:
            return edge.DatetimeIndexParams()
        case models.PayloadSchemaType.KEYWORD:
            return edge.KeywordIndexParams()
        case models.PayloadSchemaType.INTEGER:
            return edge.IntegerIndexParams(lookup=True, range=True)
        case models.PayloadSchemaType.FLOAT:
            return edge.FloatIndexParams()
        case models.PayloadSchemaType.BOOL:
            return edge.BoolIndexParams()
    raise TypeError(f"payload index {schema!r}: the embedded store has keyword, integer, float, bool and datetime")


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
        case models.NearestQuery(nearest=vector, mmr=models.Mmr(diversity=diversity, candidates_limit=candidates)):
            if diversity is None or candidates is None:
                raise TypeError("mmr needs diversity and candidates_limit in the embedded store")
            return edge.Mmr(to_vectors(vector), lambda_=1 - diversity, candidates_limit=candidates, using=using)
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
    if params.acorn:
        raise TypeError("acorn search parameters are not translated for the embedded store")
    quantization = None
    if params.quantization:
        q = params.quantization
        quantization = edge.QuantizationSearchParams(
            ignore=bool(q.ignore), rescore=q.rescore, oversampling=q.oversampling
        )
    idf = None
    if isinstance(params.idf, models.IdfCorpusParams):
        idf = edge.IdfParams(corpus=to_filter(params.idf.corpus))
    return edge.SearchParams(
        hnsw_ef=params.hnsw_ef,
        exact=bool(params.exact),
        quantization=quantization,
        indexed_only=bool(params.indexed_only),
        idf=idf,
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
        case models.FieldCondition(key=key, range=models.DatetimeRange() as r):
            limits = {name: moment.isoformat() for name in ("gte", "gt", "lte", "lt") if (moment := getattr(r, name))}
            return edge.FieldCondition(key, range=edge.RangeDateTime(**limits))
    raise TypeError(
        f"condition {condition!r}: the embedded store filters by field match, number or date range, emptiness and ids"
    )


def _match(match: Any) -> Any:
    match match:
        case models.MatchValue(value=bool() as value):  # Python's own is a number to the engine, and equals none stored
            return edge.MatchValue(cast(Any, np.bool_(value)))
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
