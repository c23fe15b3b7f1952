"""Query in, hits out: dense, sparse (BM25), or both fused by the engine.

Fusing helps where both rankings are evidence. Across languages BM25 is nearly blind, and plain RRF then
drags a good dense ranking down (measured: ndcg@10 0.96 to 0.44). So in hybrid mode BM25 ranks only the
passages in the query's own language, and is heard only where its best passage has enough of the query's
terms; otherwise the dense ranking stands as it is. The constants are in :class:`Fusion`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragkit import nodes
from ragkit.language import detect_language
from ragkit.sparse import coverage, sparse_passage, sparse_query
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import UNDETERMINED, Hit

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.store import Store

Mode = Literal["dense", "sparse", "hybrid"]


@dataclass(frozen=True, slots=True)
class Fusion:
    """How hybrid search weighs its two rankings."""

    rrf_k: int = 60  # larger: agreement of the rankings counts for more, the first ranks for less
    depth: int = 100  # of each ranking
    dense: float = 1.0  # the engine's weights stretch ranks: at 0.5, rank 1 counts as rank 2
    sparse: float = 1.0
    min_coverage: float = 0.4  # share of the query's terms in BM25's best passage, below which BM25 is not heard


class Retriever:
    """Searches one store with the encoder that filled it."""

    def __init__(self, store: Store, encoder: Encoder, fusion: Fusion | None = None) -> None:
        if encoder.fingerprint != store.fingerprint:
            raise ValueError(
                f"the store was opened for encoder {store.fingerprint}, this one is {encoder.fingerprint}: "
                "their vectors cannot be compared, so search with the encoder that filled the corpus"
            )
        self.store = store
        self.encoder = encoder
        self.fusion = fusion or Fusion()

    def search(
        self,
        query: str,
        *,
        task: Task = TASKS[DEFAULT_TASK],
        mode: Mode = "hybrid",
        lang: str | None = None,
        k: int = 10,
    ) -> list[Hit]:
        """The ``k`` best passages, of language ``lang`` if given. Scores are cosines (dense, and hybrid where
        BM25 is not heard), BM25 scores (sparse), or sums of reciprocal ranks (hybrid): compare them within
        one ranking only."""
        return self.search_batch([query], task=task, mode=mode, lang=lang, k=k)[0]

    def search_batch(
        self,
        queries: Sequence[str],
        *,
        task: Task = TASKS[DEFAULT_TASK],
        mode: Mode = "hybrid",
        lang: str | None = None,
        k: int = 10,
        embeddings: np.ndarray | None = None,
    ) -> list[list[Hit]]:
        """:meth:`search` for many queries, encoded together; or not at all where their ``embeddings`` (N, D)
        are given."""
        if mode not in ("dense", "sparse", "hybrid"):
            raise ValueError(f"mode {mode!r}: use 'dense', 'sparse' or 'hybrid'")
        if mode == "sparse":
            return [self._sparse(query, lang, k) for query in queries]
        rows = self.encoder.encode_queries(queries, task) if embeddings is None else embeddings
        if mode == "dense":
            return [self.store.search(dense=row, lang=lang, k=k) for _, row in zip(queries, rows, strict=True)]
        return [self._hybrid(query, row, lang, k) for query, row in zip(queries, rows, strict=True)]

    def _sparse(self, query: str, lang: str | None, k: int) -> list[Hit]:
        own = detect_language(query)
        return self.store.search(sparse=sparse_query(query, own), sparse_lang=_known(own), lang=lang, k=k)

    def _hybrid(self, query: str, dense: np.ndarray, lang: str | None, k: int) -> list[Hit]:
        own = detect_language(query)
        terms = sparse_query(query, own)
        leg: dict[str, Any] = {"sparse": terms, "sparse_lang": _known(own), "sparse_filter": True, "lang": lang}
        best = self.store.search(**leg, k=1)
        if not best:
            return self.store.search(dense=dense, lang=lang, k=k)
        passage = best[0].passage
        if coverage(terms, sparse_passage(passage.text, passage.lang)) < self.fusion.min_coverage:
            return self.store.search(dense=dense, lang=lang, k=k)
        return self.store.search(
            **leg,
            dense=dense,
            k=k,
            weights=(self.fusion.dense, self.fusion.sparse),
            rrf_k=self.fusion.rrf_k,
            depth=self.fusion.depth,
        )


def _known(lang: str) -> str | None:
    """A name or a number alone has no language: BM25 then looks at all passages."""
    return None if lang == UNDETERMINED else lang


class TaskRetriever(BaseRetriever):
    """LlamaIndex's retriever over a :class:`Retriever`: query engines and chat engines take it.

    The task is the retriever's own, so two tasks over one index are two of these. A bundle that brings its
    embedding is searched by that one.
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        task: Task = TASKS[DEFAULT_TASK],
        mode: Mode = "hybrid",
        lang: str | None = None,
        k: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.retriever = retriever
        self.task = task
        self.mode: Mode = mode
        self.lang = lang
        self.k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        given = query_bundle.embedding
        [hits] = self.retriever.search_batch(
            [query_bundle.query_str],
            task=self.task,
            mode=self.mode,
            lang=self.lang,
            k=self.k,
            embeddings=None if given is None else np.asarray([given], dtype=np.float32),
        )
        return [NodeWithScore(node=nodes.to_node(hit.passage), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
