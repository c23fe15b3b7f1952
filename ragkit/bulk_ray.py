"""The engine of many workers: Ray Data hands the planned shards to a pool of actors, each with its own encoder.

What travels is a shard's number. Workers read the plan and write the shard themselves, so nothing large passes
through this process, and it and its workers must see one folder: one machine, or a shared file system. A worker
that dies is started again and its shard handed out again, by Ray; a shard takes its place whole, so neither a
worker that died in the middle nor one that was only thought dead loses or doubles anything.

Without an address a Ray is started for this run alone: on loopback, behind a token that nobody else knows, without
dashboard and without usage statistics. Ray trusts whoever holds its token with any code: join only your own cluster.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ragkit.bulk import Model, embed_shard
from ragkit.extras import install
from ragkit.progress import Bar
from ragkit.shards import Folder, Manifest, ShardError

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

RETRIES = 5  # of a shard whose worker died: a shard that kills each of them must end the run, not go round for ever
DEATHS = 5  # of workers in a row that do not get as far as their encoder
_KEPT = "What is embedded is kept: run this again for the rest"
_STORE = 100_000_000  # bytes of shared memory for a Ray of our own: numbers travel, nothing else


@dataclass(frozen=True, slots=True)
class RayEngine:
    """An engine for :func:`ragkit.bulk.embed`. ``workers`` None: one for each GPU, else for every ``worker_cores``
    cores of a node. Raises ImportError where Ray is missing, ShardError where workers fail for good."""

    address: str = ""  # of a running cluster, "auto" for the one this machine belongs to; "": one for this run
    workers: int | None = None
    worker_cores: int = 4  # of a worker without a GPU; where no machine has as many, those of the largest

    def __call__(self, folder: Folder, todo: Sequence[int], model: Model, bar: Bar) -> None:
        model.release()  # the plan is made: memory is for the workers
        with _connected(self.address):
            import ray
            from ray.data import ActorPoolStrategy, from_items
            from ray.exceptions import RayError

            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            size, needs = pool(nodes, self.workers, self.worker_cores, len(todo))
            shards = from_items([{"shard": n} for n in todo], override_num_blocks=len(todo))
            with warnings.catch_warnings():
                # Deprecated from 2.60 and gone in 2.64, without a successor for max_task_retries yet.
                warnings.filterwarnings("ignore", message=".*ray_remote_args.*")
                done = shards.map_batches(
                    Worker, batch_size=1, compute=ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=1),
                    fn_constructor_kwargs={"folder": str(folder.path), "load": model.load},
                    max_restarts=-1, max_task_retries=RETRIES, **needs,
                )  # fmt: skip
            try:
                for row in done.iter_rows():
                    if row["error"]:
                        raise ShardError(f"a worker failed: {row['error']}. {_KEPT}")
                    bar.update(int(row["passages"]))
            except RayError as error:
                told = str(error).strip().partition("\n")[0]
                raise ShardError(f"a worker died: {type(error).__name__}: {told} {_KEPT}") from error


class Worker:
    """In a process of its own, perhaps on another machine: one encoder for all the shards that it is given. What goes
    wrong is an answer like any other: as an exception it would arrive as Ray's account of itself."""

    def __init__(self, folder: str, load: Callable[[], Encoder]) -> None:
        self._path = Path(folder)
        self._model = Model(load)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        answers = [self._embed(int(n)) for n in batch["shard"]]
        return {"passages": [passages for passages, _ in answers], "error": [error for _, error in answers]}

    def _embed(self, n: int) -> tuple[int, str]:
        try:
            manifest = Manifest.read(self._path)
            if manifest is None:
                raise ShardError(f"no manifest in {self._path} as this worker sees it: all must share the --out folder")
            folder = Folder(self._path, manifest)
            if not folder.whole(n):  # else a worker that was taken for dead has finished it
                embed_shard(folder, n, self._model.encoder, lambda passages: None)
            return manifest.shards[n][0], ""
        except Exception as error:
            return 0, f"{type(error).__name__}: {error}"


def pool(
    nodes: Sequence[Mapping[str, float]], workers: int | None, worker_cores: int, shards: int
) -> tuple[int, dict[str, Any]]:
    """How many workers, and what each needs, in Ray's terms; ``nodes`` are the resources of each. More workers than
    fit, or one that fits no node, would be waited for."""
    gpus = sum(int(min(node.get("GPU", 0), node.get("CPU", 0))) for node in nodes)
    if gpus:
        return min(workers or gpus, gpus, shards), {"num_gpus": 1, "num_cpus": 1}
    cores = [int(node.get("CPU", 0)) for node in nodes]

    def room(each: int) -> int:
        return sum(there // each for there in cores)

    most = min(worker_cores, max(cores))
    each = next((n for n in range(most, 1, -1) if room(n) >= (workers or 1)), 1)
    return min(workers or shards, room(each), shards), {"num_cpus": each}


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Joined to a cluster, or in one of our own; left as it was, where the caller has a Ray already."""
    if not address and "ray" not in sys.modules:
        os.environ.update(_alone())
    try:
        import ray
        from ray.data import DataContext
    except ImportError as error:
        raise ImportError(f"the engine 'ray' is not installed ({error}): {install('ray')}") from error
    ours = not ray.is_initialized()
    if ours and address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    elif ours:
        start_alone()
    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False  # the caller has a bar
    context.max_consecutive_actor_init_deaths = DEATHS
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the caller has a bar, and gets the exception
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


def _alone() -> dict[str, str]:
    """What Ray reads at its import."""
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32),
        # Meant for Windows and macOS, where Ray then keeps to loopback. On Linux too (2.60: all ports of its servers
        # and workers); `_node_ip_address` does not do it, since 127.0.0.1 is replaced by the machine's own address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_BACKEND_LOG_LEVEL": "fatal",  # what goes wrong comes as an exception
    }


def start_alone(**options: Any) -> None:
    """A Ray of this machine's, for this process; ``options`` are those of ``ray.init``. Raises ShardError where Ray was
    imported before, and so without what keeps it to itself."""
    if "ray" not in sys.modules:
        os.environ.update(_alone())
    elif any(os.environ.get(name) != value for name, value in _alone().items()):
        raise ShardError(
            "Ray was imported before it could be told to keep to loopback: let ragkit import it, or start or join a "
            "cluster first (ray.init), which is then used"
        )
    import ray

    ray.init(
        address="local", include_dashboard=False, log_to_driver=False, logging_level=logging.WARNING,
        object_store_memory=_STORE, **options,
    )  # fmt: skip
