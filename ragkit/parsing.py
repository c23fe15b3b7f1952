"""Files are parsed in a child process: one that hangs, swallows memory or crashes costs itself alone.

A parser of hostile files cannot be trusted to come back, and Python cannot stop a thread. So a child
reads the files one after another, the parent waits ``limits.seconds`` for each document, and a child that
is late is killed and replaced. The two speak JSON lines: whatever took over the child could not run code
here, as it could through a pickle. A reader that the child cannot import (a lambda, a function of the
script that is running) is called in this process, without the limits on time and memory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any, Self

from ragkit.files import Skipped, skipped
from ragkit.limits import Limits
from ragkit.readers import Reader
from ragkit.types import Document, Mark

_START = 120  # seconds until the child is up: Python's own start, on a machine that is busy
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "AUTH")  # in names of variables that the child has no use for


class Parser:
    """A context manager. :meth:`read` yields what a reader says of a file, and never raises for the file."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._stopped = threading.Event()

    def read(self, path: Path, reader: Reader) -> Iterator[Document | Skipped]:
        name = _importable(reader)
        return _items(path, reader, self.limits) if name is None else self._there(path, name)

    def _there(self, path: Path, reader: str) -> Iterator[Document | Skipped]:
        limits = self.limits
        request = {"path": str(path), "reader": reader, "limits": asdict(limits)}
        if self._child is None:
            self._start()
        assert self._child is not None and self._child.stdin is not None
        done = False
        try:
            with contextlib.suppress(OSError):  # it is dead: the answer, which does not come, tells why
                self._child.stdin.write(json.dumps(request).encode() + b"\n")
                self._child.stdin.flush()
            while True:
                try:
                    line = self._answers.get(timeout=limits.seconds)
                except queue.Empty:
                    yield skipped(
                        path,
                        f"cannot be read: its parser took longer than {limits.seconds:g} seconds "
                        "(RAGKIT_LIMITS_SECONDS)",
                    )
                    return
                if not line:
                    yield skipped(path, f"cannot be read: {self._death()}")
                    return
                kind, said = json.loads(line)
                if kind == "end":
                    done = True
                    return
                yield skipped(path, said) if kind == "skipped" else _document(said)
        finally:  # also where the caller stopped asking: the rest of this file must not answer for the next
            if not done:
                self.close()

    def _start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not any(s in name for s in _SECRET)}
        # The parent's own path: -P keeps the working folder off it, which may be the folder of documents.
        environment["PYTHONPATH"] = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        command = [sys.executable, "-P", "-c", "from ragkit.parsing import serve; serve()"]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, env=environment
        )
        self._answers = queue.Queue(maxsize=4)
        self._stopped = threading.Event()
        pump = threading.Thread(target=_pump, args=(self._child.stdout, self._answers, self._stopped), daemon=True)
        pump.start()
        try:
            ready = self._answers.get(timeout=_START)
        except queue.Empty:
            ready = b""
        if not ready:
            died = self._death()
            self.close()
            raise RuntimeError(f"the process that parses files does not start: {died}")

    def _death(self) -> str:
        """How the child ended, in words."""
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5)
        code = self._child.returncode
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - 1000))
        last = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        return f"its parser died ({how}{': ' + last if last else ''})"

    def close(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        self._stopped.set()
        child.kill()
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        child.wait()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pump(pipe: IO[bytes], answers: queue.Queue[bytes], stopped: threading.Event) -> None:
    """Lines from the child into the queue; an empty one says that it has ended."""

    def put(line: bytes) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                return answers.put(line, timeout=0.5)

    with contextlib.suppress(OSError, ValueError):  # closed under our hands
        for line in pipe:
            if line.endswith(b"\n") and not stopped.is_set():
                put(line)
    put(b"")


def _importable(reader: Reader) -> str | None:
    """``module:function`` where the child can find it under that name."""
    module, name = getattr(reader, "__module__", None), getattr(reader, "__qualname__", "<>")
    if module in (None, "__main__") or "<" in name or getattr(sys.modules.get(module), name, None) is not reader:
        return None
    return f"{module}:{name}"


def _document(fields: dict[str, Any]) -> Document:
    return replace(Document(**fields), marks=tuple(Mark(*mark) for mark in fields["marks"]))


def _items(path: Path, reader: Reader, limits: Limits) -> Iterator[Document | Skipped]:
    """What a reader says of a file. Parsers raise what they like: it is the file's, and ends it."""
    try:
        for item in reader(path, limits):
            if isinstance(item, Document) and len(item.text) > limits.characters:
                named = f"document {item.id[:80]!r} has " if item.id else ""
                limit = f"the limit is {limits.characters:,}: split it, or raise the limit characters"
                yield skipped(path, f"{named}{len(item.text):,} characters, {limit}")
            else:
                yield item
    except Exception as error:  # MemoryError and RecursionError are among them
        told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}".rstrip(": ")
        yield skipped(path, f"cannot be read: {told[:500]}")


# ------------------------------------------------------------------ in the child


def serve() -> None:
    """Requests on standard input, answers on standard output, until the parent is gone."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not end up between the answers
    logging.disable()
    warnings.simplefilter("ignore")

    def answer(kind: str, said: Any) -> None:
        answers.write(json.dumps([kind, said]).encode() + b"\n")
        answers.flush()

    answer("ready", "")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        limits = Limits(**request["limits"])
        module, _, name = request["reader"].partition(":")
        reader: Reader = getattr(importlib.import_module(module), name)
        _restrain(limits)
        for item in _items(Path(request["path"]), reader, limits):
            if isinstance(item, Skipped):
                answer("skipped", item.reason)
            else:
                answer("document", _fields(item))
            _restrain(limits)
        answer("end", "")


def _fields(document: Document) -> dict[str, Any]:
    marks = [(mark.start, mark.page, mark.heading) for mark in document.marks]
    fields = {"id": document.id, "path": document.path, "text": document.text, "lang": document.lang}
    more = {"title": document.title, "date": document.date, "metadata": dict(document.metadata)}
    return fields | more | {"marks": marks}


def _restrain(limits: Limits) -> None:
    """Where the system can, bound what the child may take by itself: the parent may be killed, and then
    nobody would be left to stop a parser that hangs."""
    try:
        import resource
    except ImportError:  # Windows
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits.seconds) + 10
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
