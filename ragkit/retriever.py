"""A Retriever as LlamaIndex's retriever: query engines and chat engines take it, each query with a task of its own.

Apart from retrieve.py because LlamaIndex takes two seconds to import, and ``ragkit search`` needs none of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragkit import nodes
from ragkit.retrieve import Mode, Retriever, expand
from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Where


@dataclass
class TaskQuery(QueryBundle):
    """A LlamaIndex query with what it asks for: query engines hand it to the retriever as it is."""

    task: Task | None = None
    lang: str | None = None
    where: Where | None = None


class TaskRetriever(BaseRetriever):
    """LlamaIndex's retriever over a :class:`Retriever`: query engines and chat engines take it.

    ``task``, ``lang`` and ``where`` are what a query gets that brings none of its own; a :class:`TaskQuery` does,
    and nothing of it stays here, so requests at the same time do not see each other's. What LlamaIndex makes
    into new queries by itself (QueryFusionRetriever) has lost them. A bundle that brings its embedding is searched by
    that one, and one that says which texts to embed (HyDE's) by their mean; its words are for BM25.
    """

    def __init__(
        self,
        retriever: Retriever,
        *,
        task: Task = TASKS[DEFAULT_TASK],
        mode: Mode = "hybrid",
        lang: str | None = None,
        where: Where | None = None,
        diversity: float = 0.0,
        window: int = 0,  # passages before and after each hit, see expand
        k: int = 10,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.retriever = retriever
        self.task = task
        self.mode: Mode = mode
        self.lang = lang
        self.where = where
        self.diversity = diversity
        self.window = window
        self.k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        own = query_bundle if isinstance(query_bundle, TaskQuery) else TaskQuery(query_bundle.query_str)
        task, given = own.task or self.task, query_bundle.embedding
        if given is None and query_bundle.custom_embedding_strs and self.mode != "sparse":
            mean = self.retriever.encoder.encode_queries(query_bundle.custom_embedding_strs, task).mean(axis=0)
            given = mean / max(float(np.linalg.norm(mean)), 1e-12)
        [hits] = self.retriever.search_batch(
            [query_bundle.query_str],
            task=task,
            mode=self.mode,
            lang=own.lang or self.lang,
            where=own.where or self.where,
            diversity=self.diversity,
            k=self.k,
            embeddings=None if given is None else np.asarray([given], dtype=np.float32),
        )
        hits = expand(self.retriever.store, hits, self.window)
        return [NodeWithScore(node=nodes.to_node(hit.passage), score=hit.score) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)
