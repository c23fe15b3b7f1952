"""The stores that benchmarks/store.py measures, behind one face: prepare (not timed), upsert, optimize, search.

Each is made from a folder, empty or with the store that an earlier one built there.
"""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import qdrant_edge as edge
from llama_index.core.vector_stores import VectorStoreQuery
from llama_index.vector_stores.qdrant import QdrantVectorStore  # noqa: F401  (before memory is counted)

from ragkit import nodes, qdrant
from ragkit.edge_models import to_config, to_index
from ragkit.settings import QdrantSettings
from ragkit.sparse import sparse_passage
from ragkit.store import Store, open_store
from ragkit.types import Passage

UPSERT = qdrant.UPSERT  # points a call, for every store
K = 10


def point_id(n: int) -> str:
    return str(uuid.UUID(int=int(n)))


def passages_of(texts: Sequence[dict[str, str]], first: int, count: int) -> list[Passage]:
    """Texts in turn, ten to a document."""
    made = []
    for n in range(first, first + count):
        text, document = texts[n % len(texts)], f"handbook/{n // 10_000}/{n // 10}.md"
        made.append(
            Passage(point_id(n), text["text"], text["lang"], document, f"/srv/documents/{document}", n % 10,
                    f"{n // 10:016x}", 10, text["title"])
        )  # fmt: skip
    return made


_sparse = lru_cache(maxsize=10_000)(sparse_passage)  # texts come again, and this is not timed


class _Rows:
    """Stands for the encoder, whose embeddings are given: a Store asks it for no more than this."""

    fingerprint, max_length = "0123456789abcdef", 512

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension


class Engine:
    """qdrant-edge itself. Its layout is translated from ours, so that all have the same; no other code of ours runs in
    the timed calls. As durable as ours: flushed after every call."""

    def __init__(self, folder: Path, dimension: int, quantization: str) -> None:
        settings = QdrantSettings(quantization=cast(Any, quantization))
        layout = qdrant.layout(dimension, settings, server=False, tenants=False)
        if folder.exists():
            self.shard = edge.EdgeShard.load(str(folder))
        else:
            folder.mkdir(parents=True)
            config = to_config(layout["vectors_config"], layout["sparse_vectors_config"], layout["on_disk_payload"])
            self.shard = edge.EdgeShard.create(str(folder), config)
            for field, schema in qdrant.indexes(settings, tenants=False).items():
                self.shard.update(edge.UpdateOperation.create_field_index(field, to_index(schema)))
        self.params = None
        if quantization != "none":
            rescored = edge.QuantizationSearchParams(
                ignore=False, rescore=settings.rescore, oversampling=settings.oversampling
            )
            self.params = edge.SearchParams(quantization=rescored)

    def prepare(self, passages: Sequence[Passage], embeddings: np.ndarray) -> list[edge.Point]:
        points = []
        for passage, row in zip(passages, embeddings, strict=True):
            sparse = _sparse(passage.text, passage.lang)
            vectors: Any = {
                "dense": row.tolist(),
                "sparse": edge.SparseVector(list(sparse.indices), list(sparse.values)),
            }
            points.append(edge.Point(passage.id, vectors, nodes.to_payload(passage)))
        return points

    def upsert(self, prepared: list[edge.Point]) -> None:
        for start in range(0, len(prepared), UPSERT):
            self.shard.update(edge.UpdateOperation.upsert_points(prepared[start : start + UPSERT]))
            self.shard.flush()

    def optimize(self) -> None:
        self.shard.optimize()
        self.shard.flush()

    def search(self, query: np.ndarray) -> list[str]:
        request = edge.QueryRequest(
            limit=K, query=edge.Query.Nearest(query.tolist(), using="dense"), params=self.params, with_payload=True
        )
        return [str(p.id) for p in self.shard.query(request)]

    def close(self) -> None:
        self.shard.close()


class Ragkit:
    """ragkit's Store in a folder: payloads and BM25 vectors are made in the timed upsert, Passages in the search."""

    def __init__(self, folder: Path, dimension: int, quantization: str, location: str = "") -> None:
        settings = QdrantSettings(quantization=cast(Any, quantization))
        self.store: Store = open_store(
            location or folder, "bench", cast(Any, _Rows(dimension)), qdrant_settings=settings
        )

    def prepare(self, passages: Sequence[Passage], embeddings: np.ndarray) -> Any:
        return passages, embeddings

    def upsert(self, prepared: Any) -> None:
        self.store.upsert(*prepared)

    def optimize(self) -> None:
        self.store.optimize()

    def search(self, query: np.ndarray) -> list[str]:
        return [hit.passage.id for hit in self.store.search(dense=query, k=K)]

    def close(self) -> None:
        self.store.close()


class LlamaIndex(Ragkit):
    """LlamaIndex's QdrantVectorStore over the same folder: nodes are ready, their points are made in the timed call."""

    def prepare(self, passages: Sequence[Passage], embeddings: np.ndarray) -> Any:
        made = [nodes.to_node(passage) for passage in passages]
        for node, row in zip(made, embeddings, strict=True):
            node.embedding = row.tolist()
        return made

    def upsert(self, prepared: Any) -> None:
        for start in range(0, len(prepared), UPSERT):
            self.store.vector_store.add(prepared[start : start + UPSERT])

    def search(self, query: np.ndarray) -> list[str]:
        found = self.store.vector_store.query(VectorStoreQuery(query_embedding=query.tolist(), similarity_top_k=K))
        return list(found.ids or [])


class Local(Ragkit):
    """The client's local mode: numpy in this process, nothing on disk."""

    def __init__(self, folder: Path, dimension: int, quantization: str) -> None:
        warnings.filterwarnings("ignore", message="Local mode is not recommended")  # that is the point
        super().__init__(folder, dimension, quantization, ":memory:")


def sizes(passages: Sequence[Passage]) -> tuple[float, float]:
    """Bytes of a payload as JSON and terms of a BM25 vector, means."""
    payloads = [len(json.dumps(nodes.to_payload(p), ensure_ascii=False).encode()) for p in passages]
    terms = [len(sparse_passage(p.text, p.lang).indices) for p in passages]
    return float(np.mean(payloads)), float(np.mean(terms))


STORES: dict[str, Callable[[Path, int, str], Any]] = {
    "engine": Engine,
    "ragkit": Ragkit,
    "llama-index": LlamaIndex,
    "local": Local,
}
