"""``ragkit app`` in a process of its own while a block runs: for its pictures, its benchmark and its tests."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

STARTS = 240  # seconds, at most


class Running(NamedTuple):
    url: str
    pid: int


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[Running]:
    """The app on a free port of the loopback, with these of its command's arguments and environment variables. Raises
    RuntimeError with what it said where it ends or does not answer before a block is begun."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("ragkit")), "app", "--port", str(port), *arguments]
    environment = os.environ | {"NO_PROXY": "127.0.0.1"} | variables
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would stop it once it is full
        app = subprocess.Popen(command, stderr=said, text=True, env=environment)
        try:
            _wait(app, url, said)
            yield Running(url, app.pid)
        finally:
            app.terminate()
            try:
                app.wait(30)
            except subprocess.TimeoutExpired:
                app.kill()
                app.wait()


def _wait(app: subprocess.Popen[str], url: str, said: IO[str]) -> None:
    deadline = time.monotonic() + STARTS
    while True:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=5).close()
            return
        except OSError:
            ended, late = app.poll() is not None, time.monotonic() > deadline
            if ended or late:
                said.seek(0)
                what = f"ended with exit code {app.returncode}" if ended else f"did not answer within {STARTS} s"
                raise RuntimeError(f"{' '.join(map(str, app.args))} {what}:\n{said.read()}") from None  # type: ignore[arg-type]
            time.sleep(0.2)
