"""Tables of records, read by pyarrow batch by batch: parquet, and the .arrow files of a saved `datasets` folder.

Columns are those of a JSONL record: ``_id`` or ``id``, ``text``, and optionally ``title``, ``desc``, ``lang``, ``date``
and ``metadata``, a struct; other columns are not read. Nothing is mapped into memory and no thread is started, so
that a file of any size passes through the limits of the process that parses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from ragkit.extras import install
from ragkit.files import Skipped, Unreadable, skipped
from ragkit.limits import Limits
from ragkit.records import record_document
from ragkit.types import Document

COLUMNS = ("_id", "id", "text", "title", "desc", "lang", "date", "metadata")
_ROWS = 256  # held at once


def read_parquet(path: Path, limits: Limits) -> Iterator[Document | Skipped]:
    _require_pyarrow()
    from pyarrow import parquet

    with parquet.ParquetFile(path, memory_map=False, page_checksum_verification=True) as file:
        columns = _known(file.schema_arrow.names)
        rows = file.iter_batches(batch_size=_ROWS, columns=columns, use_threads=False)
        yield from _documents(path, rows)


def read_arrow(path: Path, limits: Limits) -> Iterator[Document | Skipped]:
    """A stream, as `datasets` saves it. Beside a ``state.json`` only the files that it lists are read: the others
    are the library's caches of what was once computed from them."""
    _require_pyarrow()
    import pyarrow as pa

    state = path.with_name("state.json")
    if state.exists():
        listed = {part["filename"] for part in json.loads(state.read_text("utf-8"))["_data_files"]}
        if path.name not in listed:
            raise Unreadable("none of the data set's own files, says state.json beside it")
    with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
        columns = _known(stream.schema.names)
        yield from _documents(path, (batch.select(columns) for batch in stream))


def _documents(path: Path, batches: Iterable[Any]) -> Iterator[Document | Skipped]:
    numbers = count(1)
    for batch in batches:
        for start in range(0, batch.num_rows, _ROWS):
            for row in batch.slice(start, _ROWS).to_pylist():
                number = next(numbers)
                key = row.get("_id") if row.get("_id") is not None else row.get("id")
                try:
                    own = {"_id": key, "date": _text(row.get("date")), "metadata": _given(row.get("metadata"))}
                    yield record_document(row | own)
                except ValueError as error:
                    yield skipped(path, f"row {number}: {error}")


def _text(date: Any) -> Any:
    return date.isoformat() if hasattr(date, "isoformat") else date


def _given(metadata: Any) -> Any:
    """A struct has every field in every row: one without a value was not given."""
    return {k: v for k, v in metadata.items() if v is not None} if isinstance(metadata, dict) else metadata


def _known(names: list[str]) -> list[str]:
    if "text" not in names or not {"_id", "id"} & set(names):
        raise Unreadable(f"has the columns {', '.join(names)[:200]}: `text` and `id` (or `_id`) are needed")
    return [name for name in names if name in COLUMNS]


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise Unreadable(f"parquet and arrow are read by pyarrow: {install('bulk')}") from None
