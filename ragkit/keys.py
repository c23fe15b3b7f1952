"""A set of strings too many for memory: SQLite's own temporary file, which goes when it is closed."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Self


class Keys:
    """Which keys (tuples of strings) were added. A context manager; one thread's own."""

    def __init__(self) -> None:
        self._base = sqlite3.connect("", isolation_level=None)  # "": a file that only this connection knows
        for setting in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -4000"):  # KiB
            _ = self._base.execute(f"PRAGMA {setting}")
        _ = self._base.execute("CREATE TABLE keys (digest BLOB PRIMARY KEY) WITHOUT ROWID")

    def add(self, key: Sequence[str]) -> bool:
        """Whether it was new."""
        return self._base.execute("INSERT OR IGNORE INTO keys VALUES (?)", (_digest(key),)).rowcount == 1

    def discard(self, key: Sequence[str]) -> None:
        _ = self._base.execute("DELETE FROM keys WHERE digest = ?", (_digest(key),))

    def __contains__(self, key: Sequence[str]) -> bool:
        return self._base.execute("SELECT 1 FROM keys WHERE digest = ?", (_digest(key),)).fetchone() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._base.close()


def _digest(key: Sequence[str]) -> bytes:
    """16 bytes: two of a billion keys are taken for one with a chance of 1e-21."""
    return hashlib.blake2b("\0".join(key).encode("utf-8", "surrogatepass"), digest_size=16).digest()
