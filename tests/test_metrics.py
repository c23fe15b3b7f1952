"""Metrics with known answers, ties and omissions included."""

import math

import pytest

from ragkit import metrics


def test_known_answers():
    qrels = {"a": {"x": 1, "y": 1}, "b": {"z": 1}}
    run = {"a": {"x": 3.0, "n": 2.0, "y": 1.0}, "b": {"n": 2.0, "z": 1.0}}
    a, b = (metrics.per_query(qrels, run)[q] for q in "ab")
    assert a["ndcg@10"] == pytest.approx((1 + 1 / math.log2(4)) / (1 + 1 / math.log2(3)))
    assert a["mrr@10"] == 1 and a["recall@100"] == 1
    assert b["ndcg@10"] == pytest.approx(1 / math.log2(3)) and b["mrr@10"] == 0.5
    assert metrics.mean(qrels, run)["mrr@10"] == 0.75


def test_mrr_stops_at_ten_and_recall_at_a_hundred():
    run = {"q": {f"d{n:03}": 1000.0 - n for n in range(150)}}
    assert metrics.mean({"q": {"d009": 1}}, run)["mrr@10"] == pytest.approx(0.1)
    assert metrics.mean({"q": {"d010": 1}}, run)["mrr@10"] == 0
    assert metrics.mean({"q": {"d099": 1}}, run)["recall@100"] == 1
    assert metrics.mean({"q": {"d100": 1}}, run)["recall@100"] == 0


def test_ties_are_broken_by_descending_id_as_trec_eval_does():
    run = {"q": {"a": 1.0, "b": 1.0}}
    assert metrics.mean({"q": {"b": 1}}, run) == {"ndcg@10": 1, "recall@100": 1, "mrr@10": 1}
    assert metrics.mean({"q": {"a": 1}}, run)["mrr@10"] == 0.5
    assert [d for d, _ in metrics.ranking(run["q"])] == ["b", "a"]


def test_a_query_without_hits_counts_as_zero():
    qrels = {"hit": {"d": 1}, "missed": {"d": 1}, "empty": {"d": 1}, "unjudged": {"d": 0}}
    assert metrics.mean(qrels, {"hit": {"d": 1.0}, "empty": {}})["ndcg@10"] == pytest.approx(1 / 3)


def test_nothing_to_measure():
    with pytest.raises(ValueError, match="no query of these qrels"):
        metrics.mean({}, {})
