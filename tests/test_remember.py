from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder

from apps.remember import CHUNK, Remembering
from ragkit import TASKS, Task

TASK = TASKS["web-search"]


class Counting(HashEncoder):
    """Says what it was asked, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.calls: list[list[str]] = []
        self.seconds = seconds

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        self.calls.append(list(queries))
        time.sleep(self.seconds)
        return super().encode_queries(queries, task)


def test_the_same_rows_in_the_order_asked():
    texts = [*SCRIPTS.values(), "again", "again", *SCRIPTS.values()]
    plain, remembering = HashEncoder(), Remembering(HashEncoder())
    for _ in range(2):
        np.testing.assert_array_equal(remembering.encode_queries(texts, TASK), plain.encode_queries(texts, TASK))
        np.testing.assert_array_equal(remembering.encode_passages(texts), plain.encode_passages(texts))
    assert remembering.encode_passages([]).shape == (0, plain.dimension)


def test_nothing_is_encoded_twice_and_roles_are_told_apart():
    inner = Counting()
    remembering = Remembering(inner)
    for task in (TASK, TASKS["fact-checking"], TASK):
        remembering.encode_queries(["a", "b"], task)
    remembering.encode_passages(["a"])
    assert sorted(map(sorted, inner.calls)) == [["a", "b"], ["a", "b"]] and inner.encoded == 1


def test_a_doubled_prefix_is_refused_though_remembered():
    remembering = Remembering(HashEncoder())
    remembering.encode_queries(["q"], TASK)
    with pytest.raises(ValueError, match="prefix"):
        remembering.encode_queries([TASK.prefix + "q"], TASK)


def test_the_least_recently_used_go_first():
    inner = Counting()
    remembering = Remembering(inner, rows=2)
    for query in ("a", "b", "a", "c", "a", "b"):
        remembering.encode_queries([query], TASK)
    assert inner.calls == [["a"], ["b"], ["c"], ["b"]]


def test_twenty_at_once_share_their_calls():
    inner = Counting(0.1)
    remembering, plain = Remembering(inner), HashEncoder()
    rows: dict[int, np.ndarray] = {}

    def ask(n: int) -> None:
        rows[n] = remembering.encode_queries([f"question {n}"], TASK)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, row in rows.items():
        np.testing.assert_array_equal(row, plain.encode_queries([f"question {n}"], TASK))
    asked = [query for call in inner.calls for query in call]
    assert sorted(asked) == sorted(f"question {n}" for n in range(20))  # each once
    assert max(map(len, inner.calls)) <= CHUNK and len(inner.calls) <= 8
    assert not any(remembering._waiting.values())


def test_a_failure_reaches_who_asked_and_nobody_else():
    class Failing(Counting):
        def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
            if "bad" in queries:
                raise RuntimeError("no")
            return super().encode_queries(queries, task)

    remembering = Remembering(Failing())
    with pytest.raises(RuntimeError):
        remembering.encode_queries(["bad"], TASK)
    assert remembering.encode_queries(["good"], TASK).shape == (1, 64)
    assert not any(remembering._waiting.values())


def test_prompts_of_visitors_are_not_kept():
    remembering = Remembering(HashEncoder(), rows=4)
    for n in range(20):
        remembering.encode_queries(["a", "b"], Task("own", f"Instruction {n}"))
    assert remembering._waiting == {}
