"""A server's client, and the settings as Qdrant's own models: pure, so that a test reads what it would be sent.

``on_disk`` and ``always_ram`` are used and not the newer ``memory``, which servers before 1.20 do not know.
Quantised vectors always stay in memory: that is what they are for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from grpc import RpcError
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException

from ragkit import filters
from ragkit.client import header_key, masked
from ragkit.owner import StoreError
from ragkit.settings import QdrantSettings
from ragkit.tenant import TENANT

DENSE, SPARSE = "dense", "sparse"
UPSERT = 256  # points a request: under a server's 32 MB even at 4,096 dimensions
PAGE = 1000  # points a scroll or a list of ids

_TURBO_BITS = {1: "bits1", 1.5: "bits1_5", 2: "bits2", 4: "bits4", 8: "bits8"}
_INDEX_TYPES = ("keyword", "integer", "float", "bool", "datetime")


class _Server:
    """QdrantClient, but whatever keeps a request from being answered is a StoreError."""

    def __init__(self, client: QdrantClient, url: str) -> None:
        self._client = client
        self._url = masked(url)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._ask, found) if callable(found) else found

    def _ask(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        try:
            return method(*arguments, **options)
        except (ApiException, QdrantException, OSError, RpcError) as error:
            told = " ".join(str(error).split())  # theirs have several lines
            raise StoreError(f"the Qdrant server at {self._url} {_refusal(error, told)}") from error


def _refusal(error: Exception, told: str) -> str:
    status = getattr(error, "status_code", None)
    code = getattr(error.code(), "name", "") if isinstance(error, RpcError) and hasattr(error, "code") else ""
    if status in (401, 403) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return f"cannot be asked ({told}): is the API key right, and may it write?"
    if status in (502, 503, 504) or (status is None and code in ("", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN")):
        return f"cannot be asked ({told}): is it running there?"
    if "ndex required" in told:
        return f"refused ({told}): name the field in RAGKIT_QDRANT_INDEX, as `author, year:integer`"
    return f"refused ({told})"


def connect(url: str, settings: QdrantSettings) -> Any:
    """A QdrantClient whose methods raise StoreError. Raises OSError where the certificate authority's file cannot be
    read, ValueError for a key that no header can carry."""
    options: dict[str, Any] = {}
    if settings.ca:
        authority = Path(settings.ca).read_bytes()
        options = {"verify": settings.ca, "grpc_options": {"root_certificates": authority}}
    client = QdrantClient(
        url=url,
        api_key=header_key(settings.api_key) or None,
        timeout=settings.timeout,
        prefer_grpc=settings.grpc,
        grpc_port=settings.grpc_port,
        **options,
    )
    return _Server(client, url)


def refuse_unsupported(settings: QdrantSettings, place: str) -> None:
    """Raises ValueError for what only a server can do, and for any layout in the client's local mode."""
    fresh = QdrantSettings()
    only = ["shards", "replicas", "write_consistency", "read_consistency", "tiers", "strict"]
    if place == ":memory:":
        only += ["quantization", "vectors_on_disk", "graph_on_disk", "sparse_on_disk"]
    wrong = [name for name in only if getattr(settings, name) != getattr(fresh, name)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)}: not in a store at {place}; leave out, or use the URL of a Qdrant server")


def layout(dimension: int, settings: QdrantSettings, *, server: bool, tenants: bool) -> dict[str, Any]:
    """Arguments of ``create_collection``.

    Where tenants share it, no graph goes across them: one is built within each (``m`` 0, ``payload_m``), as
    Qdrant advises, for every search has a tenant.
    """
    if settings.tiers and not tenants:
        raise ValueError("tiers: only where tenants share the corpus: say for whom it is made (tenant=, --tenant)")
    graph = models.HnswConfigDiff(
        m=0 if tenants else settings.m,
        payload_m=settings.m if tenants else None,
        ef_construct=settings.ef_construct,
        on_disk=settings.graph_on_disk,
    )
    vectors = models.VectorParams(
        size=dimension,
        distance=models.Distance.COSINE,
        on_disk=settings.vectors_on_disk,
        hnsw_config=graph,
        quantization_config=_quantization(settings),
    )
    sparse = models.SparseVectorParams(
        modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=settings.sparse_on_disk)
    )
    arguments: dict[str, Any] = {
        "vectors_config": {DENSE: vectors},
        "sparse_vectors_config": {SPARSE: sparse},
        "on_disk_payload": settings.payload_on_disk,
    }
    if server:
        arguments |= {
            "shard_number": 1 if settings.tiers else settings.shards,
            "sharding_method": models.ShardingMethod.CUSTOM if settings.tiers else None,
            "replication_factor": settings.replicas,
            "write_consistency_factor": settings.write_consistency,
            "strict_mode_config": _strict(settings) if settings.strict else None,
        }
    return arguments


def _quantization(settings: QdrantSettings) -> Any:
    match settings.quantization:
        case "scalar":  # the outer 1% of values is clipped: a few outliers would take the 256 steps from all others
            config = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=config)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case "turbo":
            if not hasattr(models, "TurboQuantization"):
                raise ValueError("quantization is 'turbo': the installed qdrant-client does not know it; use 'scalar'")
            bits = models.TurboQuantBitSize(_TURBO_BITS[settings.bits])
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=bits, always_ram=True))
    return None


def quantization_of(info: models.CollectionInfo) -> str:
    """``none``, or what an existing collection's dense vectors are quantised by."""
    vectors: Any = info.config.params.vectors
    config = vectors[DENSE].quantization_config
    return type(config).__name__.removesuffix("Quantization").lower() if config else "none"


def carried(settings: QdrantSettings, info: models.CollectionInfo) -> QdrantSettings:
    """The settings of a next generation: where they name no quantization, and nothing that is to lie on disk, as the
    present one has it. Another one would not fit where this one did."""
    vectors: Any = info.config.params.vectors
    sparse: Any = info.config.params.sparse_vectors
    present, kind = vectors[DENSE], quantization_of(info)
    kept: dict[str, Any] = {
        "vectors_on_disk": settings.vectors_on_disk or bool(present.on_disk),
        "graph_on_disk": settings.graph_on_disk or bool(getattr(present.hnsw_config, "on_disk", False)),
        "sparse_on_disk": settings.sparse_on_disk or bool(getattr(sparse[SPARSE].index, "on_disk", False)),
    }
    if settings.quantization == "none" and kind in ("scalar", "binary", "turbo"):
        kept["quantization"] = kind
        turbo = getattr(present.quantization_config, "turbo", None)
        size = getattr(getattr(turbo, "bits", None), "value", None)
        kept["bits"] = next((bits for bits, name in _TURBO_BITS.items() if name == size), settings.bits)
    return replace(settings, **kept)


def _strict(settings: QdrantSettings) -> models.StrictModeConfig:
    """Limits just above what ragkit and LlamaIndex (9,999 nodes) ask for themselves."""
    return models.StrictModeConfig(
        enabled=True,
        unindexed_filtering_retrieve=False,
        unindexed_filtering_update=False,
        max_query_limit=10_000,
        search_max_hnsw_ef=max(1000, settings.ef or 0),
        search_max_oversampling=max(4.0, settings.oversampling),
        upsert_max_batchsize=4 * UPSERT,
        filter_max_conditions=200,
        condition_max_size=10_000,
    )


def indexes(settings: QdrantSettings, *, tenants: bool) -> dict[str, Any]:
    """Path to a payload field, as filters write it -> schema, of everything that ragkit filters on. Raises ValueError
    for a wrong ``index``."""
    keyword = models.KeywordIndexType.KEYWORD
    schemas: dict[str, Any] = {
        "lang": models.KeywordIndexParams(type=keyword, prefix=True),
        "path": models.KeywordIndexParams(type=keyword, prefix=True),
        "document": models.KeywordIndexParams(type=keyword),
        "doc_id": models.KeywordIndexParams(type=keyword),  # LlamaIndex deletes by it
        "ordinal": models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER, lookup=True, range=True),
        "date": models.DatetimeIndexParams(type=models.DatetimeIndexType.DATETIME),
    }
    if tenants:
        schemas = {TENANT: models.KeywordIndexParams(type=keyword, is_tenant=True), **schemas}
    for entry in filter(None, (part.strip() for part in settings.index.split(","))):
        field, _, kind = entry.partition(":")
        if not field or (kind or "keyword") not in _INDEX_TYPES:
            raise ValueError(f"index {entry!r}: write FIELD, or FIELD:TYPE with one of {', '.join(_INDEX_TYPES)}")
        if field in schemas:
            raise ValueError(f"index {entry!r}: {field!r} is indexed anyway; leave it out")
        schemas[filters.quoted(field)] = models.PayloadSchemaType(kind or "keyword")
    return schemas


def read_options(settings: QdrantSettings) -> dict[str, Any]:
    """Options of a search, beside its parameters."""
    wanted = settings.read_consistency
    if not wanted:
        return {}
    return {"consistency": int(wanted) if wanted.isdecimal() else models.ReadConsistencyType(wanted)}


def search_params(settings: QdrantSettings, *, quantized: bool, exact: bool = False) -> models.SearchParams | None:
    """None where everything is as the engine does it by itself. ``exact`` compares with every original."""
    quantization = None
    if quantized:
        quantization = models.QuantizationSearchParams(
            ignore=exact or None, rescore=settings.rescore, oversampling=settings.oversampling
        )
    given = {
        "hnsw_ef": settings.ef,
        "exact": exact or None,
        "quantization": quantization,
    }
    known = {name: value for name, value in given.items() if value is not None}
    return models.SearchParams(**known) if known else None
