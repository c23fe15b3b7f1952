"""ndcg@10, recall@100 and mrr@10, computed by pytrec_eval (NIST's trec_eval).

Rankings are made as trec_eval makes them: by score, and equal scores by descending document id. A query
of the qrels for which the run has nothing scores 0 rather than dropping out of the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

import pytrec_eval

Qrels = Mapping[str, Mapping[str, int]]  # query -> document -> relevance
Run = Mapping[str, Mapping[str, float]]  # query -> document -> score

METRICS = ("ndcg@10", "recall@100", "mrr@10")


def per_query(qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Query -> metric -> value, for every query with a relevant document."""
    judged = {query: dict(documents) for query, documents in qrels.items() if any(r > 0 for r in documents.values())}
    given = {query: {d: float(s) for d, s in run.get(query, {}).items()} for query in judged}
    top = {query: dict(ranking(documents)[:10]) for query, documents in given.items()}
    full = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.100"}).evaluate(given)
    cut = pytrec_eval.RelevanceEvaluator(judged, {"recip_rank"}).evaluate(top)
    return {
        query: {
            "ndcg@10": full.get(query, {}).get("ndcg_cut_10", 0.0),
            "recall@100": full.get(query, {}).get("recall_100", 0.0),
            "mrr@10": cut.get(query, {}).get("recip_rank", 0.0),
        }
        for query in judged
    }


def mean(qrels: Qrels, run: Run) -> dict[str, float]:
    """Metric -> mean over queries. Raises ValueError where no query has a relevant document."""
    values = per_query(qrels, run).values()
    if not values:
        raise ValueError("no query of these qrels has a relevant document: nothing can be measured")
    return {metric: fmean(v[metric] for v in values) for metric in METRICS}


def ranking(documents: Mapping[str, float]) -> list[tuple[str, float]]:
    """(document, score) in trec_eval's order."""
    return sorted(documents.items(), key=lambda item: (item[1], item[0]), reverse=True)
