"""One process owns an embedded folder, and whoever comes second is told who that is.

The lock is the kernel's (flock through portalocker) and ends with its process. What a killed process
leaves behind, ``owner.json``, explains a refusal but never causes one. Beside the lock stand the error
types of the storage layer and the atomic JSON write, which both files below it need.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import portalocker


class StoreError(RuntimeError):
    """A corpus that cannot be opened, read or written. The message says what to do."""


class CorpusInUse(StoreError):
    """The embedded corpus is open in another process, or twice in this one."""


class NoRoom(StoreError):
    """The disk has less free than the work needs."""


class FolderLock:
    """Held from construction to :meth:`release`; raises :class:`CorpusInUse` if somebody has it."""

    def __init__(self, folder: Path) -> None:
        self._owner = folder / "owner.json"
        self._file = (folder / "lock").open("a")
        try:
            portalocker.lock(self._file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.LockException as error:
            self._file.close()
            raise CorpusInUse(
                f"{folder} is open in {self._describe_owner()}: one process owns an embedded corpus. Close that one, "
                "or ask it instead, or use a Qdrant server (a URL in place of the path), which many can share"
            ) from error
        command = " ".join([Path(sys.executable).name, *sys.argv[:2]])  # no more: later arguments may be secrets
        since = datetime.now(UTC).isoformat(timespec="seconds")
        with contextlib.suppress(OSError):  # a full disk: what is there can still be read
            write_json(
                self._owner, {"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}
            )

    def _describe_owner(self) -> str:
        try:
            owner = json.loads(self._owner.read_text("utf-8"))
            return f"process {owner['pid']} on {owner['host']} ({owner['command']}, since {owner['since']})"
        except (OSError, ValueError, KeyError, TypeError):  # it is opening or closing at this moment
            return "another process"

    def release(self) -> None:
        with contextlib.suppress(OSError):
            self._owner.unlink(missing_ok=True)
        portalocker.unlock(self._file)
        self._file.close()


def write_json(path: Path, content: Any) -> None:
    """Whole or not at all: a reader, or the next start after a crash, never sees half a file."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=True, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """What was made, renamed or removed in it stays so through a power cut. Windows knows no such call."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
