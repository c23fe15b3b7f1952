"""A folder of embedded passages: parquet shards, and a manifest that says what their vectors mean.

    <folder>/manifest.json         whose passages, which encoder, and how many rows each shard has
    <folder>/plan/00000.parquet    passages of a shard that are to be embedded; gone when all of them are
    <folder>/00000.parquet         the same rows with their embeddings: what ``ragkit load`` reads
    <folder>/plan.tmp, *.tmp       what is being written

A shard appears under its name only when it is whole, and says in its footer which plan and which encoder it
is of, so whoever writes it twice writes the same. Columns are the fields of a Passage, metadata as JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from ragkit.owner import write_json
from ragkit.types import Passage

_INTEGERS = ("ordinal", "document_passages", "page")
_ROWS = 256  # read at once
_BEGUN = {".lock", "plan.tmp", "manifest.json.tmp"}  # what a first run leaves that is killed before its plan is made
_TEMPORARY = re.compile(r"\d{5,}\.parquet\.[0-9a-f]{32}\.tmp")  # of a shard, see _write
PASSAGE = pa.schema(
    [(f.name, pa.int32() if f.name in _INTEGERS else pa.string()) for f in fields(Passage)]  # metadata: JSON
)


class ShardError(RuntimeError):
    """A folder of vectors that cannot be written or read. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    corpus: str  # passage ids are made from it
    tenant: str | None
    model: str  # as it was named
    fingerprint: str  # of the encoder
    dimension: int
    max_length: int  # of the encoder, tokens
    passage_tokens: int
    shard_passages: int
    sources: tuple[str, ...]  # absolute paths
    listing: str  # SHA-256 of the sources' names, sizes and times: equal, and they need not be read again
    digest: str  # SHA-256 of all passages, in order
    documents: int
    passages: int
    shards: tuple[tuple[int, str], ...]  # rows and SHA-256 of the passages of each

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None where there is none yet. Raises ShardError for a file that is none."""
        file = folder / "manifest.json"
        try:
            told = json.loads(file.read_text("utf-8"))
            told |= {"sources": tuple(told["sources"]), "shards": tuple((int(n), str(d)) for n, d in told["shards"])}
            return cls(**told)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ShardError(f"{file} is no manifest of `ragkit embed` ({error}): name its --out folder") from error

    def write(self, folder: Path) -> None:
        write_json(folder / "manifest.json", asdict(self))


def refuse_foreign(folder: Path) -> None:
    """Raises ShardError for a folder without a manifest that holds what no run of ours can have begun."""
    if foreign := sorted(path.name for path in folder.iterdir() if path.name not in _BEGUN):
        raise ShardError(
            f"{folder} holds {foreign[0]!r}, which is not this command's: give an empty --out, or a new folder in it"
        )


class PlanWriter:
    """Passages -> the plan's shards, in the order they come; nothing counts before :meth:`finish`."""

    def __init__(self, folder: Path, shard_passages: int) -> None:
        self._final = folder / "plan"
        self._folder = folder / "plan.tmp"
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        self._most = shard_passages
        self._waiting: list[Passage] = []
        self.shards: list[tuple[int, str]] = []

    def add(self, passages: Sequence[Passage]) -> None:
        for passage in passages:
            self._waiting.append(passage)
            if len(self._waiting) == self._most:
                self._flush()

    def finish(self) -> tuple[str, tuple[tuple[int, str], ...]]:
        """Digest of all passages, and each shard's rows and digest."""
        if self._waiting:
            self._flush()
        return hashlib.sha256("".join(digest for _, digest in self.shards).encode()).hexdigest(), tuple(self.shards)

    def publish(self) -> None:
        shutil.rmtree(self._final, ignore_errors=True)
        self._folder.rename(self._final)

    def discard(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _flush(self) -> None:
        rows, self._waiting = self._waiting, []
        told = hashlib.sha256()
        for passage in rows:  # the hash covers the document: text, title, language, date, metadata, splitting
            told.update(f"{passage.id}\0{passage.document_hash}\n".encode())
        _write(self._folder / _name(len(self.shards)), to_table(rows), {})
        self.shards.append((len(rows), told.hexdigest()))


class Folder:
    """The shards that a manifest speaks of."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    def whole(self, n: int) -> bool:
        """Whether shard ``n`` is there, with all of its rows, of this plan and this encoder."""
        try:
            footer = parquet.read_metadata(self.path / _name(n))
        except (OSError, pa.ArrowInvalid):
            return False
        return footer.num_rows == self.manifest.shards[n][0] and (footer.metadata or {}).get(b"ragkit") == self._stamp(
            n
        )

    def missing(self) -> list[int]:
        return [n for n in range(len(self.manifest.shards)) if not self.whole(n)]

    def planned(self, n: int) -> pa.Table:
        """Raises ShardError where the plan is not there, or is damaged."""
        file = self.path / "plan" / _name(n)
        if not file.exists():
            raise ShardError(
                f"no plan of shard {n} in {self.path} as this machine sees it: all workers must see one folder under "
                "that name, as on a shared file system"
            )
        cure = f"delete {file.parent} and run `ragkit embed` again"
        table = pa.Table.from_batches(list(_read(file, PASSAGE.names, _ROWS, cure)), PASSAGE)
        _compare(file, table.to_batches(), cure)
        return table

    def write(self, n: int, planned: pa.Table, embeddings: np.ndarray) -> None:
        """``embeddings`` (N, D) float32, a row for each planned passage."""
        expected = (self.manifest.shards[n][0], self.manifest.dimension)
        if embeddings.shape != expected or not np.isfinite(embeddings).all():
            raise ShardError(
                f"embeddings of shape {embeddings.shape} for shard {n}: expected {expected}, all finite; "
                "check the encoder's precision"
            )
        flat = pa.array(np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1))
        rows = pa.FixedSizeListArray.from_arrays(flat, self.manifest.dimension)
        _write(self.path / _name(n), planned.append_column("embedding", rows), {b"ragkit": self._stamp(n)})

    def batches(self, n: int, rows: int = _ROWS) -> Iterator[tuple[list[Passage], np.ndarray]]:
        """Passages of shard ``n`` and their embeddings (N, D), as they were written. Raises ShardError for a damaged
        file before the first of them, which takes a reading of its own."""
        file, cure = self.path / _name(n), "delete it and run `ragkit embed` again"
        columns = [*PASSAGE.names, "embedding"]
        _compare(file, _read(file, columns, rows, cure), cure)
        for batch in _read(file, columns, rows, cure):
            yield from_table(batch), _embeddings(batch)

    def clear(self) -> None:
        """What a killed run has left half written."""
        for file in self.path.glob("*.parquet.*.tmp"):
            if _TEMPORARY.fullmatch(file.name):
                file.unlink(missing_ok=True)

    def drop_plan(self) -> None:
        shutil.rmtree(self.path / "plan", ignore_errors=True)

    def _stamp(self, n: int) -> bytes:
        return json.dumps([self.manifest.fingerprint, self.manifest.dimension, self.manifest.shards[n][1]]).encode()


def to_table(passages: Sequence[Passage]) -> pa.Table:
    columns: dict[str, list[Any]] = {name: [getattr(p, name) for p in passages] for name in PASSAGE.names}
    columns["metadata"] = [json.dumps(dict(p.metadata)) if p.metadata else "" for p in passages]
    return pa.table(columns, schema=PASSAGE)


def from_table(batch: pa.RecordBatch | pa.Table) -> list[Passage]:
    rows = batch.select(PASSAGE.names).to_pylist()
    return [Passage(**row | {"metadata": json.loads(row["metadata"] or "{}")}) for row in rows]


def _embeddings(batch: pa.RecordBatch) -> np.ndarray:
    """(N, D) float32."""
    return batch.column("embedding").flatten().to_numpy().reshape(batch.num_rows, -1)


def _read(file: Path, columns: Sequence[str], rows: int, cure: str) -> Iterator[pa.RecordBatch]:
    try:
        with parquet.ParquetFile(file, memory_map=False, page_checksum_verification=True) as opened:
            for batch in opened.iter_batches(batch_size=rows, use_threads=False):
                yield batch.select(columns)
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise ShardError(f"{file} cannot be read ({error}): {cure}") from error


def _compare(file: Path, batches: Iterable[pa.RecordBatch], cure: str) -> None:
    """Raises ShardError where what was read is not what :func:`_write` was given. Parquet's own checksums of its pages
    leave out the headers between them."""
    content = _digest(batches)
    if (parquet.read_metadata(file).metadata or {}).get(b"content") != content:
        raise ShardError(f"{file} is not what was written: {cure}")


def _digest(batches: Iterable[pa.RecordBatch]) -> bytes:
    """SHA-256 of the rows, the same however they are batched."""
    told = hashlib.sha256()
    for batch in batches:
        embeddings = _embeddings(batch) if "embedding" in batch.schema.names else [b""] * batch.num_rows
        for row, embedding in zip(batch.select(PASSAGE.names).to_pylist(), embeddings, strict=True):
            told.update(json.dumps(list(row.values()), default=str).encode())
            told.update(embedding)
    return told.hexdigest().encode()


def _name(n: int) -> str:
    return f"{n:05}.parquet"


def _write(file: Path, table: pa.Table, metadata: dict[bytes, bytes]) -> None:
    """Whole or not at all, also after a power cut, and whoever else writes the same file at this moment. The footer
    keeps ``metadata`` and the digest of the rows."""
    table = table.replace_schema_metadata(metadata | {b"content": _digest(table.to_batches())})
    temporary = file.with_name(f"{file.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as out:
            parquet.write_table(table, out, compression="zstd", write_page_checksum=True)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
