"""Searches as they queue: latency of a whole search against the number of shards, simulated event by event (simpy).

Queries come at random (Poisson). Each asks every shard; a shard is asked on one of the nodes that hold a copy, where
it waits for a core, first come first served, and holds it for a service time drawn from what one shard was measured
to take. The query is answered when its slowest shard is. Merging the shards' hits and the network's time are a
constant beside it. Formulas of queueing theory know one queue; where they apply, the simulation is tested on them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

Service = Callable[[random.Random], float]  # draws the seconds that one shard takes

WARM = 0.1  # of the queries come before counting: a simulation begins with empty queues
VISITS = 15_000  # of shards, for one point of a curve: more time for a steadier p99
LEAST = 200  # queries of a point


@dataclass(frozen=True, slots=True)
class Load:
    queries_per_second: float
    shards: int
    nodes: int = 1
    cores: int = 1  # of a node
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class Latency:
    """Of whole searches, seconds. ``busy`` is the part of all cores' time that was spent searching."""

    shards: int
    mean: float
    p50: float
    p99: float
    busy: float
    queries: int


def lognormal(p50: float, p95: float) -> Service:
    """A service time with these quantiles (seconds): skewed to the right, as measured latencies are."""
    spread = math.log(p95 / p50) / 1.6449  # the normal distribution's 95 %
    return lambda rng: p50 * math.exp(spread * rng.gauss(0, 1))


def measured(quantiles: Sequence[tuple[float, float]]) -> Service:
    """A service time drawn from measured (percent, seconds), straight lines between them."""
    if len(quantiles) < 2 or quantiles[0][0] != 0 or quantiles[-1][0] != 100:
        raise ValueError(f"quantiles {quantiles}: give (percent, seconds) from 0 to 100")

    def draw(rng: random.Random) -> float:
        at = 100 * rng.random()
        for (below, low), (above, high) in pairwise(quantiles):
            if at <= above:
                return low + (high - low) * (at - below) / (above - below)
        return quantiles[-1][1]

    return draw


def simulate(load: Load, service: Service, *, queries: int, seed: int = 0, hop: float = 0.0) -> Latency:
    """``queries`` searches after a warm-up. Raises ValueError where more comes than the cores can do."""
    import simpy

    rng = random.Random(seed)
    expected = sum(service(rng) for _ in range(1000)) / 1000
    holding = min(load.nodes, load.shards * load.replicas)  # with few shards, other nodes have nothing to search
    busy = load.queries_per_second * load.shards * expected / (holding * load.cores)
    if busy >= 1:
        raise ValueError(
            f"{load.queries_per_second:g} queries a second on {load.shards} shards are {busy:.1f} times the work that "
            f"{holding} x {load.cores} cores can do: give more cores or nodes, or fewer shards"
        )
    world = simpy.Environment()
    nodes = [simpy.Resource(world, capacity=load.cores) for _ in range(load.nodes)]
    skipped = int(queries * WARM)
    taken: list[float] = []
    worked = 0.0

    def visit(shard: int) -> Generator[Any, Any, None]:
        nonlocal worked
        copy = rng.randrange(load.replicas)  # which copy is asked
        node = nodes[(shard + copy * max(1, load.nodes // load.replicas)) % load.nodes]
        with node.request() as turn:
            yield turn
            seconds = service(rng)
            worked += seconds
            yield world.timeout(seconds)

    def search(number: int) -> Generator[Any, Any, None]:
        began = world.now
        yield world.all_of([world.process(visit(shard)) for shard in range(load.shards)])
        if number >= skipped:
            taken.append(world.now - began + hop)

    def arrivals() -> Generator[Any, Any, None]:
        for number in range(queries + skipped):
            yield world.timeout(rng.expovariate(load.queries_per_second))
            world.process(search(number))

    world.process(arrivals())
    world.run()
    taken.sort()

    def quantile(part: float) -> float:
        return taken[min(len(taken) - 1, int(part * len(taken)))]

    share = worked / (world.now * load.nodes * load.cores)
    return Latency(load.shards, sum(taken) / len(taken), quantile(0.5), quantile(0.99), share, len(taken))


def curve(
    load: Load, service_of: Callable[[int], Service], shards: Sequence[int], *, hop: float = 0.0, seed: int = 0
) -> list[Latency]:
    """A point for each number of shards; ``service_of`` makes a shard's service time, for smaller shards are faster.
    Numbers at which the cores cannot keep up are left out."""
    found = []
    for count in shards:
        here = Load(load.queries_per_second, count, load.nodes, load.cores, load.replicas)
        queries = max(LEAST, VISITS // count)
        try:
            found.append(simulate(here, service_of(count), queries=queries, seed=seed, hop=hop))
        except ValueError:
            continue
    return found


def shard_counts(planned: int, most: int = 64) -> list[int]:
    """What to draw around a plan: the planned number, and powers of two up to twice that number or ``most``."""
    limit = min(most, 2 * planned)
    return sorted({2**n for n in range(20) if 2**n <= limit} | {planned})
