"""Embedded by workers of a Ray cluster: the shards of one process, through workers killed in the middle.

One cluster of two workers for all of these, and only with RAGKIT_PROVE=1: it takes a minute of both cores to be there,
and gives up where they are busy with other tests.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import SCRIPTS
from embed_once import Deadly, Failing, Noting
from test_bulk import rows, run

from ragkit.bulk_ray import RayEngine, pool, start_alone
from ragkit.load import load
from ragkit.shards import ShardError

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="the extra 'ray' is not installed")

KILLS = 10
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayEngine]:
    if not os.environ.get("RAGKIT_PROVE"):
        pytest.skip("starts a Ray cluster (RAGKIT_PROVE=1)")
    path = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS), *filter(None, [path])])
    # else workers wait behind everything else that a busy machine does
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  (as Ray spells it)
    start_alone(num_cpus=2)
    yield RayEngine(workers=2)
    import ray  # not before: it reads how to start at its import

    ray.shutdown()
    os.environ["PYTHONPATH"] = path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    for lang, text in SCRIPTS.items():
        for n in range(10):
            (folder / f"{lang}-{n}.txt").write_text(f"{text} {n}. " * 30, "utf-8")
    return folder


def listening(pids: set[int]) -> set[str]:
    """Addresses on which these processes accept connections."""
    inodes = set[str]()
    for pid in pids:
        with contextlib.suppress(OSError):
            links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
            inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set[str]()
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                packed = bytes.fromhex(fields[1].partition(":")[0])
                words = [packed[i : i + 4][::-1] for i in range(0, len(packed), 4)]
                found.add(socket.inet_ntop(family, b"".join(words)))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ray_of_our_own_keeps_to_loopback_and_tells_nobody(cluster: RayEngine):
    token = os.environ["RAY_AUTH_TOKEN"].encode()
    pids = {os.getpid()}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if token in (folder / "environ").read_bytes():
                pids.add(int(folder.name))
    assert len(pids) > 3  # its servers were found
    addresses = listening(pids)
    assert addresses and all(a in ("127.0.0.1", "::1", "::ffff:127.0.0.1") for a in addresses), addresses
    from ray._common.usage import usage_lib

    assert not usage_lib.usage_stats_enabled()
    assert len(token) == 64


def test_workers_make_the_shards_of_one_process_though_one_is_killed(cluster: RayEngine, source: Path, tmp_path: Path):
    here, there, notes = tmp_path / "here", tmp_path / "there", tmp_path / "notes"
    notes.mkdir()
    run(source, here, shard_passages=5)
    expected = rows(here)
    killed, over = list[int](), threading.Event()

    def kill() -> None:
        chance = random.Random(0)
        while len(killed) < KILLS and not over.is_set():
            busy = [int(f.name) for f in notes.iterdir() if int(f.name) not in killed and f.read_text().count("x") > 1]
            if busy and list(there.glob("*.parquet")):
                time.sleep(chance.random() * 0.2)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(busy[0], signal.SIGKILL)
                    killed.append(busy[0])
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        pace = 0.3 if KILLS == 1 else 2.0  # the prover's run must last for all of its kills
        report = run(source, there, partial(Noting, str(notes), pace), engine=cluster, shard_passages=5)
    finally:
        over.set()
        killer.join()
    assert len(killed) == KILLS
    workers = {int(f.name) for f in notes.iterdir()} - {os.getpid()}
    assert len(workers) >= 2 + KILLS  # whoever was killed was replaced
    assert report.embedded == len(expected)
    assert rows(there) == expected  # ids, passages and vectors, to the bit; `rows` fails on a duplicate
    assert {f.name: f.read_bytes() for f in there.glob("*.parquet")} == {
        f.name: f.read_bytes() for f in here.glob("*.parquet")
    }
    assert not list(there.glob("*.tmp"))
    loaded = load(there, tmp_path / "store", "town")
    assert loaded.stored == loaded.compared == len(expected)


def test_what_a_worker_says_is_told_and_what_is_made_is_kept(cluster: RayEngine, source: Path, tmp_path: Path):
    run(source, tmp_path, shard_passages=20)
    whole = rows(tmp_path)
    (tmp_path / "00001.parquet").unlink()
    with pytest.raises(ShardError, match=r"a worker failed.*no memory for ቤተ መጻሕፍት.*run this again for the rest"):
        run(source, tmp_path, Failing, engine=cluster, shard_passages=20)
    assert not (tmp_path / "00001.parquet").exists()
    assert run(source, tmp_path, engine=cluster, shard_passages=20).embedded == 20
    assert rows(tmp_path) == whole


def test_a_shard_that_kills_whoever_reads_it_ends_the_run(cluster: RayEngine, source: Path, tmp_path: Path):
    with pytest.raises(ShardError, match="a worker died"):
        run(source / "am-0.txt", tmp_path, Deadly, engine=cluster)
    assert run(source / "am-0.txt", tmp_path, engine=cluster).embedded > 0


@pytest.mark.parametrize(
    ("nodes", "workers", "expected"),
    [
        ([{"CPU": 64.0}], None, (16, {"num_cpus": 4})),
        ([{"CPU": 64.0}], 3, (3, {"num_cpus": 4})),
        ([{"CPU": 2.0}], None, (1, {"num_cpus": 2})),
        ([{"CPU": 2.0}], 2, (2, {"num_cpus": 1})),
        ([{"CPU": 2.0}], 9, (2, {"num_cpus": 1})),
        ([{"CPU": 2.0}] * 2, None, (2, {"num_cpus": 2})),  # 4 cores, but no node has them
        ([{"CPU": 6.0}] * 2, None, (2, {"num_cpus": 4})),  # what is left of both is no node's either
        ([{"CPU": 3.0}] * 2, 3, (3, {"num_cpus": 1})),
        ([{"CPU": 8.0}, {"CPU": 1.0}, {"memory": 1.0}], None, (2, {"num_cpus": 4})),
        ([{"CPU": 64.0, "GPU": 8.0}], None, (8, {"num_gpus": 1, "num_cpus": 1})),
        ([{"CPU": 64.0, "GPU": 8.0}], 2, (2, {"num_gpus": 1, "num_cpus": 1})),
        ([{"CPU": 64.0, "GPU": 8.0}, {"CPU": 9.0}, {"CPU": 2.0, "GPU": 4.0}], 99, (10, {"num_gpus": 1, "num_cpus": 1})),
    ],
)
def test_a_worker_for_each_gpu_or_every_few_cores_of_a_node(
    nodes: list[dict[str, float]], workers: int | None, expected: tuple[int, dict[str, float]]
):
    assert pool(nodes, workers, 4, 1000) == expected
    assert pool(nodes, workers, 4, 1)[0] == 1  # never more than there are shards
