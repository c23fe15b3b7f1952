"""One process a folder: what two write to at once is neither's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """``folder``, made if need be, is this process's until the block or the process ends. Raises ValueError where
    another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run writes to {folder}: wait for it, or give an --out of its own") from None
    try:
        yield
    finally:
        lock.release()
