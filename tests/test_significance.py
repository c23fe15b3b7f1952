"""Paired tests with answers that can be worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trainer.significance import adjust, compare, holm


def test_few_queries_are_tested_exactly():
    one = compare([[1, 1, 1, 1, 1]])
    assert (one.difference, one.low, one.high, one.queries) == (1, 1, 1, 5)
    assert one.p == 2 / 2**5  # of 32 ways to give signs, all plus and all minus are as extreme
    signs = np.array(list(itertools.product([-1, 1], repeat=4)))
    sums = np.abs((signs * np.array([0.5, -0.25, 0.75, 0.5])).sum(axis=1))
    assert compare([[0.5, -0.25, 0.75, 0.5]]).p == pytest.approx((sums >= 1.5).mean())


def test_ties_say_nothing():
    assert compare([[0.0] * 40]).p == 1
    assert compare([[0.0] * 40 + [1, 1, 1, 1, 1]]).p == 2 / 2**5


def test_the_sign_of_a_difference_does_not_matter_to_p():
    values = np.random.default_rng(3).normal(0.1, 0.5, 60)
    up, down = compare([values]), compare([-values])
    assert up.p == pytest.approx(down.p, abs=0.02) and up.difference == -down.difference


def test_equal_models_are_rarely_told_apart_and_different_ones_are():
    random = np.random.default_rng(0)
    ps = [compare([random.normal(0, 0.3, 40)], resamples=400, seed=n).p for n in range(100)]
    assert 0 <= sum(p < 0.05 for p in ps) <= 12  # 5 are expected
    assert compare([random.normal(0.2, 0.3, 100)]).p < 0.001


def test_the_interval_is_that_of_a_mean():
    values = np.random.default_rng(1).normal(0.0, 1.0, 400)
    one = compare([values])
    half = 1.96 * values.std() / 20
    assert one.low == pytest.approx(values.mean() - half, abs=0.02)
    assert one.high == pytest.approx(values.mean() + half, abs=0.02)


def test_sets_weigh_the_same_whatever_their_size():
    small, large = [1.0, 1.0, 1.0, 1.0], [0.0] * 96
    one = compare([small, large])
    assert one.difference == 0.5 and (one.low, one.high) == (0.5, 0.5) and one.queries == 100
    assert one.p == 2 / 2**4


def test_one_query_gives_no_interval_and_none_is_refused():
    one = compare([[0.3]])
    assert (one.low, one.high, one.p) == (float("-inf"), float("inf"), 1)
    with pytest.raises(ValueError, match="at least one query"):
        compare([[]])


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_family_is_adjusted_together():
    family = {"a": compare([[1.0] * 6]), "b": compare([[1.0] * 7]), "c": compare([[1.0, -1.0]])}
    adjusted = adjust(family)
    assert adjusted["b"].adjusted == pytest.approx(3 * 2 / 2**7) and adjusted["b"].significant
    assert adjusted["a"].adjusted == pytest.approx(2 * 2 / 2**6) and not adjusted["a"].significant
    assert family["a"].p < 0.05  # alone it would have been
