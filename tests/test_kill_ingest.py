"""``kill -9`` at random moments of an ingestion, then a run to its end: the store of the run never killed.

Two kills and a small folder here; with RAGKIT_PROVE=1 (``make prove``) thirty, over shared/data/docs.tar.xz.
Every second one hits an update, of a store that holds an older version of the folder.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import SCRIPTS, HashEncoder

from ragkit.store import open_store

ROOT = Path(__file__).parent.parent
PROVE = bool(os.environ.get("RAGKIT_PROVE"))
KILLS = 30 if PROVE else 2
ARCHIVES = [parent / "shared" / "data" / "docs.tar.xz" for parent in ROOT.parents]

Point = tuple[dict[str, Any], Any]  # payload, vectors


class World(NamedTuple):
    folder: Path  # to be ingested
    old: Path  # store of an older version of it
    texts: tuple[dict[str, set[str]], dict[str, set[str]]]  # by document: of the older version, of this one
    points: dict[str, Point]  # by id: what the run never killed has stored
    seconds: float  # of its work


def points(place: Path) -> dict[str, Point]:
    with open_store(place, "town", HashEncoder(), create=False) as store:
        found, offset = dict[str, Point](), None
        while True:
            records, offset = store._client.scroll(store.collection, limit=500, offset=offset, with_vectors=True)
            for record in records:
                assert record.id not in found
                found[record.id] = record.payload, record.vector
            if offset is None:
                assert len(found) == store.count()
                return found


def texts(stored: dict[str, Point]) -> dict[str, set[str]]:
    by_document: dict[str, set[str]] = {}
    for payload, _ in stored.values():
        text = json.loads(payload["_node_content"])["text"]
        by_document.setdefault(f"{payload['path']} {payload['document']}", set()).add(text)
    return by_document


def start(folder: Path, place: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "tests" / "ingest_once.py"), str(folder), str(place)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(place.glob("*/owner.json")):
        time.sleep(0.005)
    return process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    base = tmp_path_factory.mktemp("world")
    folder = base / "docs"
    folder.mkdir()
    if PROVE:
        archive = next((path for path in ARCHIVES if path.exists()), None)
        if archive is None:
            pytest.skip("shared/data/docs.tar.xz is not here")
        with tarfile.open(archive) as file:
            file.extractall(folder, filter="data")
    else:
        for lang, text in SCRIPTS.items():
            lines = [{"_id": f"{lang}{n}", "text": f"{text} {n}. " * 60} for n in range(15)]
            (folder / f"{lang}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    files = {path: path.read_text("utf-8") for path in folder.rglob("*.jsonl")}
    for path, content in files.items():  # the older version: a fifth is not there yet, a third reads otherwise
        records = [json.loads(line) for number, line in enumerate(content.splitlines()) if number % 5]
        for record in records[::3]:
            record["text"] = f"Before. {record['text'][::2]}"
        gone = [{"_id": f"gone-{n}", "text": f"Gone {n}. " * 30} for n in range(5)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records + gone), "utf-8")
    assert start(folder, base / "old").wait(600) == 0
    for path, content in files.items():
        path.write_text(content, "utf-8")
    process = start(folder, base / "whole")
    began = time.monotonic()
    assert process.wait(600) == 0
    seconds = time.monotonic() - began
    whole = points(base / "whole")
    print(f"{len(files)} files, {len(texts(whole))} documents, {len(whole)} passages in {seconds:.1f} s")
    return World(folder, base / "old", (texts(points(base / "old")), texts(whole)), whole, seconds)


@pytest.mark.parametrize("n", range(KILLS))
def test_kill_and_run_again(world: World, tmp_path: Path, n: int):
    place, update = tmp_path / "store", n % 2 == 1
    wait = random.Random(n).random() * world.seconds * (0.7 if update else 1.0)  # an update has less to do
    for attempt in range(1, 6):  # where the machine was busy when the whole run was timed, this one ends too soon
        if update:
            shutil.copytree(world.old, place)
        process = start(world.folder, place)
        time.sleep(wait / attempt)
        process.send_signal(signal.SIGKILL)
        killed = process.wait(60) == -signal.SIGKILL
        if killed:
            break
        shutil.rmtree(place)
    else:
        pytest.fail("no run could be killed before its end")

    half = dict[str, Point]()
    if list(place.glob("*/collection.json")):
        half = points(place)
    found, (old, new) = texts(half), world.texts
    for document, was in old.items() if update else ():
        if document in new:  # at every moment all of its old text, or all of its new
            assert found[document] >= was or found[document] >= new[document]
    print(f"killed, {len(half)} passages stored, {len(half.keys() - world.points.keys())} of them stale")

    assert start(world.folder, place).wait(600) == 0
    again = points(place)
    assert again.keys() == world.points.keys()  # none lost, none twice, none stale
    assert again == world.points  # payloads and vectors, dense and sparse, to the bit
    shutil.rmtree(place)
