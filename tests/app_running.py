"""The app as its users run it, for tests: ``ragkit app`` in a process of its own, over a small corpus and `mini`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "apps" / "corpus" / "mul"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def part_of_the_demo(folder: Path, languages: Mapping[str, int]) -> Path:
    """A folder with the demo's first documents in some languages, so many of each, and the questions they answer."""
    documents = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text("utf-8").splitlines()]
    of_each = [[d for d in documents if d["lang"] == lang][:most] for lang, most in languages.items()]
    kept = {d["_id"]: d for some in of_each for d in some}
    head, *judged = (DEMO / "qrels.tsv").read_text("utf-8").splitlines()
    judged = [line for line in judged if line.split("\t")[1] in kept]
    asked = {line.split("\t")[0] for line in judged}
    questions = [q for q in (DEMO / "queries.jsonl").read_text("utf-8").splitlines() if json.loads(q)["_id"] in asked]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(d, ensure_ascii=False) for d in kept.values()]
    for name, content in (("corpus.jsonl", lines), ("queries.jsonl", questions), ("qrels.tsv", [head, *judged])):
        (folder / name).write_text("".join(f"{line}\n" for line in content), "utf-8")
    return folder


def ragkit(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ragkit")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | variables, timeout=600)


@contextmanager
def running(*arguments: str, **variables: str) -> Iterator[str]:
    """The app's URL while the block runs."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("ragkit")), "app", "--port", str(port), *arguments]
    environment = os.environ | {"NO_PROXY": "127.0.0.1"} | variables
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryFile("w+") as said:  # a pipe that nobody reads would stop it once it is full
        app = subprocess.Popen(command, stderr=said, text=True, cwd=ROOT, env=environment)
        try:
            deadline = time.monotonic() + 240
            while True:
                try:
                    urllib.request.urlopen(f"{url}/health", timeout=5)
                    break
                except OSError:
                    assert app.poll() is None, _read(said)
                    assert time.monotonic() < deadline, "the app did not start"
                    time.sleep(0.2)
            yield url
        finally:
            app.terminate()
            try:
                app.wait(30)
            except subprocess.TimeoutExpired:
                app.kill()


def _read(file: IO[str]) -> str:
    file.seek(0)
    return file.read()
