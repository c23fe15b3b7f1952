"""How fast and how right is the embedded store? Search latency and recall@10 against exact search, beside
the client's local mode.

    python benchmarks/store.py --embeddings FILE.npy [--points 50000] [--queries 500]

The file holds real embeddings (N, D). More points than it has are made from its rows plus small noise:
uniformly random vectors have no neighbours to find. Queries are rows plus other noise. Exact means numpy
over all rows. Prints a markdown table; nothing is kept.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from qdrant_client import QdrantClient, models

from ragkit.edge import EdgeClient

T = TypeVar("T")
NAME = "bench"
NOISE = 0.3  # length of the noise beside a unit row: a copy keeps a cosine of about 0.96 to its origin
BATCH = 500


def grow(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` unit rows: those given, in turn, each but the first copy moved by noise."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    grown = rows[np.arange(count) % len(rows)].astype(np.float32)
    copies = grown[len(rows) :]
    copies += noise(copies.shape, rng)
    return grown / np.linalg.norm(grown, axis=1, keepdims=True)


def noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return (rng.normal(size=shape) * NOISE / np.sqrt(shape[1])).astype(np.float32)


def exact(points: np.ndarray, queries: np.ndarray, k: int = 10) -> list[set[str]]:
    return [{point_id(i) for i in np.argpartition(-(points @ query), k)[:k]} for query in queries]


def point_id(n: int) -> str:
    return str(uuid.UUID(int=int(n)))


def timed(call: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result  # seconds


def measure(label: str, client: Any, points: np.ndarray, queries: np.ndarray, truth: list[set[str]]) -> str:
    client.create_collection(
        NAME, vectors_config={"dense": models.VectorParams(size=points.shape[1], distance=models.Distance.COSINE)}
    )

    def upsert() -> None:
        for start in range(0, len(points), BATCH):
            batch = enumerate(points[start : start + BATCH], start)
            client.upsert(NAME, [models.PointStruct(id=point_id(i), vector={"dense": v.tolist()}) for i, v in batch])

    def search(query: np.ndarray) -> set[str]:
        found = client.query_points(NAME, query=query.tolist(), using="dense", limit=10, with_payload=False)
        return {str(p.id) for p in found.points}

    loading, _ = timed(upsert)
    building, _ = timed(client.optimize) if hasattr(client, "optimize") else (0.0, None)
    search(queries[0])  # warm
    runs = [timed(lambda query=query: search(query)) for query in queries]
    p50, p95 = np.percentile([seconds for seconds, _ in runs], [50, 95]) * 1000
    recall = np.mean([len(found & right) / len(right) for (_, found), right in zip(runs, truth, strict=True)])
    return f"| {label} | {loading:.1f} s | {building:.1f} s | {p50:.2f} ms | {p95:.2f} ms | {recall:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, required=True, help=".npy of real embeddings, (N, D) floats")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows = np.load(arguments.embeddings, allow_pickle=False)
    if rows.ndim != 2 or len(rows) < 10:
        parser.error(f"{arguments.embeddings} has shape {rows.shape}: give at least 10 rows of embeddings, (N, D)")
    points = grow(rows, arguments.points, rng)
    origins = points[rng.choice(len(points), arguments.queries)]
    queries = origins + noise(origins.shape, rng)
    truth = exact(points, queries)

    print(f"{len(points):,} x {points.shape[1]} from {len(rows):,} embeddings, {len(queries)} queries, one at a time;")
    engine, client = version("qdrant-edge-py"), version("qdrant-client")
    print(f"qdrant-edge-py {engine}, qdrant-client {client}, {platform.platform()}\n")
    print("| store | upsert | index | search p50 | p95 | recall@10 |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        embedded = EdgeClient(Path(folder) / NAME)
        print(measure("embedded (qdrant-edge)", embedded, points, queries, truth), flush=True)
        embedded.close()
    warnings.filterwarnings("ignore", message="Local mode is not recommended")  # that is the point
    print(measure("client's local mode", QdrantClient(":memory:"), points, queries, truth))


if __name__ == "__main__":
    main()
