"""What does a store cost, and how right is it? Upsert, index build, latency, recall@10, memory and disk, for the
embedded engine with each quantisation, and for what may stand above or beside it.

    python benchmarks/store.py --embeddings FILE.npy --points 50000 [--queries 500] [--only STORE:QUANTIZATION ...]
                               [--out rows.jsonl] [--keep FOLDER]

Stores: ``engine`` is a bare loop over qdrant-edge, fed with finished points; ``ragkit`` is our Store; ``llama-index``
is LlamaIndex's QdrantVectorStore over it; ``local`` is the client's local mode, which is exact. All hold the same:
dense and BM25 vectors, the payload of a passage, and its indexes (local mode has none). The texts are the demo
corpus's, in turn. More points than the file has rows are its rows plus noise: uniformly random vectors have no
neighbours to find. Exact means numpy over all points, made block by block, so that memory does not grow with them.

Building and searching have a process each: memory is that of one that opened a finished store and answered every query
twice. Only a store in memory answers where it was built. With ``--out``, a row that is there is not measured again,
and `ragkit plan --check` compares the rows with its predictions. ``--keep`` leaves each store for benchmarks/backup.py.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from stores import STORES, passages_of, point_id, sizes

QUANTIZATIONS = ("none", "scalar", "turbo", "binary")
DEFAULT = [*(f"engine:{q}" for q in QUANTIZATIONS), "ragkit:none", "ragkit:scalar", "llama-index:none", "local:none"]
TEXTS = Path(__file__).parent.parent / "apps" / "corpus" / "mul" / "corpus.jsonl"
NOISE = 0.3  # length of the noise beside a unit row: a copy keeps a cosine of about 0.96 to its origin
BLOCK = 16_384  # points made, compared and stored at once
K = 10
QUANTILES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 100)


@dataclass(frozen=True, slots=True)
class Job:
    """What a row measures; equal jobs give equal rows, but for the times."""

    store: str
    quantization: str
    points: int
    dimension: int
    queries: int
    seed: int
    embeddings: str  # the file's content, 16 hex digits of SHA-256


# ---------------------------------------------------------------------- data


def blocks(rows: np.ndarray, count: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
    """``count`` unit rows (n, D) float32 with the number of their first: those given, in turn, each but the first copy
    moved by noise. A block's noise depends on its place alone, so it can be made again anywhere."""
    for start in range(0, count, BLOCK):
        numbers = np.arange(start, min(start + BLOCK, count))
        block = rows[numbers % len(rows)]
        block = block + noise(block.shape, [seed, start]) * (numbers >= len(rows))[:, None]
        yield start, block / np.linalg.norm(block, axis=1, keepdims=True)


def noise(shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    return drawn * np.float32(NOISE / np.sqrt(shape[1]))


def questions(rows: np.ndarray, job: Job) -> tuple[np.ndarray, np.ndarray]:
    """Queries (Q, D), points plus other noise, and the numbers of their nearest points (Q, K), by comparing all."""
    asked = np.sort(np.random.default_rng([job.seed, job.points]).choice(job.points, job.queries))
    made: list[np.ndarray] = []
    for start, block in blocks(rows, job.points, job.seed):
        made.append(block[asked[(asked >= start) & (asked < start + len(block))] - start])
    queries = np.concatenate(made)
    queries = queries + noise(queries.shape, [job.seed, job.points, 1])
    scores = np.full((len(queries), K), -np.inf, dtype=np.float32)
    nearest = np.zeros((len(queries), K), dtype=np.int64)
    for start, block in blocks(rows, job.points, job.seed):
        both = np.concatenate([scores, queries @ block.T], axis=1)
        best = np.argpartition(-both, K - 1, axis=1)[:, :K]
        scores = np.take_along_axis(both, best, axis=1)
        nearest = np.where(best < K, np.take_along_axis(nearest, np.minimum(best, K - 1), axis=1), best - K + start)
    return queries, nearest


def unit_rows(file: Path) -> np.ndarray:
    rows = np.load(file, allow_pickle=False)
    if rows.ndim != 2 or len(rows) < K:
        raise SystemExit(f"{file} has shape {rows.shape}: give at least {K} rows of embeddings, (N, D)")
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


# ---------------------------------------------------------------------- the two processes of a row


def build(job: Job, file: Path, folder: Path) -> dict[str, Any]:
    """Upsert and index. What a store's user would have done before (texts, ready vectors) is not timed."""
    store = STORES[job.store](folder, job.dimension, job.quantization)
    texts = [json.loads(line) for line in TEXTS.open(encoding="utf-8")]
    seconds = payload = terms = 0.0
    for start, block in blocks(unit_rows(file), job.points, job.seed):
        for at in range(0, len(block), 1024):
            part = block[at : at + 1024]
            passages = passages_of(texts, start + at, len(part))
            prepared = store.prepare(passages, part)
            began = time.perf_counter()
            store.upsert(prepared)
            seconds += time.perf_counter() - began
            if start == at == 0:
                payload, terms = sizes(passages)
    began = time.perf_counter()
    store.optimize()
    measured = {
        "upsert_s": seconds,
        "index_s": time.perf_counter() - began,
        "build_peak_bytes": status()["VmHWM"],
        "payload_bytes": payload,
        "terms": terms,
    }
    if job.store == "local":  # it is nowhere else
        gc.collect()
        measured |= search(job, folder, store)
    store.close()
    return measured


def search(job: Job, folder: Path, store: Any = None) -> dict[str, Any]:
    """Each query alone, after all were asked once. Memory beyond that of the process before the store was opened."""
    with np.load(folder.parent / "questions.npz") as saved:
        queries, nearest = saved["queries"], saved["nearest"]
    before = status()
    where = folder if store is None else None
    store = store or STORES[job.store](folder, job.dimension, job.quantization)
    found, seconds = [], []
    for query in queries:
        store.search(query)
    for query in queries:
        began = time.perf_counter()
        hits = store.search(query)
        seconds.append(time.perf_counter() - began)
        found.append(hits)
    after = status()
    right = [len(set(hits) & {point_id(n) for n in row}) / K for hits, row in zip(found, nearest, strict=True)]
    milliseconds = np.percentile(np.array(seconds) * 1000, QUANTILES)
    measured: dict[str, Any] = {
        "p50_ms": float(np.percentile(seconds, 50) * 1000),
        "p95_ms": float(np.percentile(seconds, 95) * 1000),
        "recall@10": float(np.mean(right)),
        "latency_ms": {str(q): round(float(ms), 4) for q, ms in zip(QUANTILES, milliseconds, strict=True)},
    }
    if where:
        store.close()
        used = {name: after[name] - before[name] for name in before}
        measured |= {
            "memory_bytes": used["VmRSS"],
            "anonymous_bytes": used["RssAnon"],
            "mapped_bytes": used["RssFile"],  # pages of the store's files, which the kernel may take back
            "disk_bytes": sum(512 * f.stat().st_blocks for f in where.rglob("*") if f.is_file()),
        }
    else:
        measured |= {"memory_bytes": after["RssAnon"] - BASE["RssAnon"], "disk_bytes": 0}
    return measured


def status() -> dict[str, int]:
    """Bytes of this process, of Linux's /proc."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {w[0][:-1]: int(w[1]) * 1024 for w in lines if w[0][:-1] in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}


BASE = status()  # of a child: what it has imported


def alone(function: Any, *arguments: Any) -> dict[str, Any]:
    """In a new process, so that no earlier work is in its memory."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# ---------------------------------------------------------------------- rows


def measure(job: Job, file: Path, folder: Path, keep: Path | None) -> dict[str, Any]:
    began = os.getloadavg()[0]
    row = asdict(job) | {"m": 16} | alone(build, job, file, folder / "store")
    if job.store != "local":
        row |= alone(search, job, folder / "store")
    if keep and (folder / "store").exists():
        shutil.move(folder / "store", keep / f"{job.store}-{job.quantization}-{job.points}")
    shutil.rmtree(folder / "store", ignore_errors=True)
    return row | {
        "engine": version("qdrant-edge-py"),
        "client": version("qdrant-client"),
        "machine": f"{machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "load": round(began, 2),  # processes that ran when it began
        "date": datetime.now(UTC).date().isoformat(),
    }


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


HEAD = "| store | quantization | upsert | index | p50 | p95 | recall@10 | memory | disk |\n" + "|---" * 9 + "|"


def shown(r: dict[str, Any]) -> str:
    return (
        f"| {r['store']} | {r['quantization']} | {r['upsert_s']:.1f} s | {r['index_s']:.1f} s | {r['p50_ms']:.2f} ms "
        f"| {r['p95_ms']:.2f} ms | {r['recall@10']:.3f} | {r['memory_bytes'] / 1e6:,.0f} MB "
        f"| {r['disk_bytes'] / 1e6:,.0f} MB |"
    )


def ratios(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Against the bare engine without quantisation."""
    base = next((r for r in rows if (r["store"], r["quantization"]) == ("engine", "none")), None)
    for r in rows:
        if base and r is not base:
            told = ", ".join(
                f"{label} {(r[name] + r.get(plus, 0)) / (base[name] + base.get(plus, 0)):.2f}"
                for label, name, plus in (
                    ("upsert and index", "upsert_s", "index_s"),
                    ("p50", "p50_ms", ""),
                    ("p95", "p95_ms", ""),
                    ("memory", "memory_bytes", ""),
                    ("disk", "disk_bytes", ""),
                )
            )
            yield f"{r['store']}:{r['quantization']} / engine:none: {told}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", type=Path, required=True, help=".npy of real embeddings, (N, D) floats")
    parser.add_argument("--points", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=DEFAULT, metavar="STORE:QUANTIZATION", help=" ".join(DEFAULT))
    parser.add_argument("--out", type=Path, help="rows are added here, and those that are here are not measured again")
    parser.add_argument("--folder", type=Path, help="where the stores are built, one after the other [a temporary one]")
    parser.add_argument("--keep", type=Path, help="a folder where the stores stay, each by its name")
    arguments = parser.parse_args()
    wanted = [tuple(name.split(":")) for name in arguments.only]
    for name in wanted:
        if len(name) != 2 or name[0] not in STORES or name[1] not in QUANTIZATIONS:
            parser.error(f"{':'.join(name)!r}: write STORE:QUANTIZATION of {', '.join(STORES)} and {QUANTIZATIONS}")
        if name[0] == "local" and name[1] != "none":
            parser.error(f"{':'.join(name)!r}: local mode has no quantisation, write local:none")
    if arguments.points < K or arguments.queries < 1:
        parser.error(f"--points {arguments.points} --queries {arguments.queries}: at least {K} points and one query")
    if arguments.keep:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    rows = unit_rows(arguments.embeddings)
    digest = sha256(arguments.embeddings.read_bytes()).hexdigest()[:16]
    there = [json.loads(line) for line in arguments.out.open()] if arguments.out and arguments.out.exists() else []
    done: list[dict[str, Any]] = []
    print(
        f"{arguments.points:,} x {rows.shape[1]} from {len(rows):,} embeddings, {arguments.queries} queries\n\n{HEAD}"
    )
    with tempfile.TemporaryDirectory(dir=arguments.folder) as made:
        folder = Path(made)
        for store, quantization in wanted:
            size = (arguments.points, rows.shape[1], arguments.queries, arguments.seed)
            job = Job(store, quantization, *size, digest)
            row = next((r for r in there if asdict(job).items() <= r.items()), None)
            if row is None:
                if not (folder / "questions.npz").exists():
                    queries, nearest = questions(rows, job)
                    np.savez(folder / "questions.npz", queries=queries, nearest=nearest)
                try:
                    row = measure(job, arguments.embeddings, folder, arguments.keep)
                except BrokenProcessPool:
                    print(
                        f"{store}:{quantization}: the process was killed, most likely for its memory", file=sys.stderr
                    )
                    shutil.rmtree(folder / "store", ignore_errors=True)
                    continue
                if arguments.out:
                    with arguments.out.open("a") as out:
                        out.write(json.dumps(row) + "\n")
            done.append(row)
            print(shown(row), flush=True)
    print("", *ratios(done), sep="\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Local mode is not recommended")  # that is the point
    main()
