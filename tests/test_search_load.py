"""The simulation of search load, on cases whose answer is known."""

from __future__ import annotations

import math
import os
import random
import statistics

import pytest

from ragkit import search_load
from ragkit.search_load import Load, curve, lognormal, measured, shard_counts, simulate

QUERIES = 8_000
COUNT, CLOSE = (300_000, 0.02) if os.environ.get("RAGKIT_PROVE") else (12_000, 0.08)


def exponential(mean: float):
    return lambda rng: rng.expovariate(1 / mean)


def m_m_1(rate: float, mean: float) -> tuple[float, float]:
    """Mean and 99 % of the time in a queue with one server, exponential service times of this mean (seconds)."""
    free = 1 / mean - rate
    return 1 / free, math.log(100) / free


def m_g_1(rate: float, mean: float, variance: float) -> float:
    """Mean time in a queue with one server and any service time (Pollaczek and Khinchine)."""
    return mean + rate * (mean**2 + variance) / (2 * (1 - rate * mean))


def m_m_c(rate: float, mean: float, servers: int) -> float:
    """Mean time in a queue with ``servers``, exponential service times (Erlang's C)."""
    load = rate * mean
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    waits = last / (sum(load**n / math.factorial(n) for n in range(servers)) + last)
    return mean + waits * mean / (servers - load)


def test_one_server_is_as_the_theory_says():
    mean, p99 = m_m_1(rate=50, mean=0.01)
    assert (mean, p99) == pytest.approx((0.02, 0.0921), rel=1e-3)
    found = simulate(Load(50, shards=1), exponential(0.01), queries=COUNT)
    assert found.mean == pytest.approx(mean, rel=CLOSE)
    assert found.p99 == pytest.approx(p99, rel=1.5 * CLOSE)
    assert found.busy == pytest.approx(0.5, rel=0.03)


def test_equal_service_times_wait_half_as_long():
    expected = m_g_1(rate=70, mean=0.01, variance=0)
    assert expected == pytest.approx(0.01 + 0.7 * 0.01 / (2 * 0.3))
    found = simulate(Load(70, shards=1), lambda rng: 0.01, queries=COUNT)
    assert found.mean == pytest.approx(expected, rel=CLOSE)


def test_several_cores_share_a_queue():
    expected = m_m_c(rate=300, mean=0.01, servers=4)
    assert m_m_c(rate=50, mean=0.01, servers=1) == pytest.approx(m_m_1(50, 0.01)[0])
    assert simulate(Load(300, shards=1, cores=4), exponential(0.01), queries=COUNT).mean == pytest.approx(
        expected, rel=CLOSE
    )


def test_a_query_waits_for_its_slowest_shard():
    """Without a queue: the greatest of n exponential times has the mean 1 + 1/2 + ... + 1/n."""
    found = simulate(Load(0.1, shards=8, nodes=8, cores=8), exponential(0.01), queries=QUERIES // 2, hop=0.5)
    assert found.mean == pytest.approx(0.5 + 0.01 * sum(1 / n for n in range(1, 9)), rel=0.03)
    assert (found.mean - 0.5) == pytest.approx(0.0272, rel=0.04)


def test_replicas_divide_the_load():
    one = simulate(Load(80, shards=1, nodes=2), exponential(0.01), queries=QUERIES)
    two = simulate(Load(80, shards=1, nodes=2, replicas=2), exponential(0.01), queries=QUERIES)
    assert two.mean == pytest.approx(m_m_1(40, 0.01)[0], rel=0.1) and two.mean < one.mean / 2


def test_more_than_can_be_done_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(search_load, "VISITS", 1000)
    with pytest.raises(ValueError, match="give more cores or nodes, or fewer shards"):
        simulate(Load(200, shards=1), lambda rng: 0.01, queries=100)
    points = curve(Load(90, shards=1), lambda shards: lambda rng: 0.004, [1, 2, 4])
    assert [point.shards for point in points] == [1, 2]  # four would need 1.4 cores


def test_service_times_have_the_measured_quantiles():
    rng = random.Random(1)
    drawn = sorted(lognormal(0.38, 0.50)(rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(0.38, rel=0.01) and drawn[19_000] == pytest.approx(0.50, rel=0.01)
    draw = measured([(0, 1.0), (50, 2.0), (100, 4.0)])
    drawn = sorted(draw(rng) for _ in range(20_000))
    assert drawn[10_000] == pytest.approx(2.0, rel=0.02) and drawn[15_000] == pytest.approx(3.0, rel=0.02)
    assert statistics.fmean(drawn) == pytest.approx(2.25, rel=0.02) and math.isclose(drawn[-1], 4.0, rel_tol=0.01)
    with pytest.raises(ValueError, match="from 0 to 100"):
        measured([(5, 1.0), (95, 2.0)])


def test_counts_are_drawn_around_the_plan():
    assert shard_counts(6) == [1, 2, 4, 6, 8]
    assert shard_counts(717) == [1, 2, 4, 8, 16, 32, 64, 717]
