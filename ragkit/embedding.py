"""TaskEmbedding: an Encoder and a Task as a LlamaIndex embedding.

Queries carry the task's prompt, passages are bare. LlamaIndex knows queries one by one and without a
task, so two methods are added: :meth:`TaskEmbedding.get_query_embeddings` for many at once, and
:meth:`TaskEmbedding.query_bundle`, which puts a query embedded for any task into the object that every
LlamaIndex retriever takes. What an embedding depends on (instruction, template, fingerprint) is public,
because LlamaIndex's pipeline caches by ``to_dict()``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator
from llama_index.core.schema import BaseNode, MetadataMode, QueryBundle

from ragkit.remote import open_encoder
from ragkit.task import DEFAULT_TASK, TASKS, Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

TEMPLATE = Task("template", "{instruction}").prompt("{query}")


class TaskEmbedding(BaseEmbedding):
    """``TaskEmbedding(model_name="mini")`` loads the encoder, ``model_name="http://..."`` asks a server; pass
    ``encoder=`` to share one, or for a server that wants a key (which is then in no field and no ``to_dict``).

    ``task`` (a name of TASKS or a :class:`Task`) is the default of every query; each call may name
    another. Raises ValueError for an unknown task, for a ``fingerprint`` (of a serialised one) that the
    loaded model does not have, and for ``embeddings_cache``.
    """

    model_name: str = Field(default="mini", description="What LocalEncoder.load takes, or a server's URL.")
    embed_batch_size: int = Field(
        default=256, gt=0, le=2048, description="Texts a call; the encoder batches by tokens."
    )
    task_name: str = Field(default=DEFAULT_TASK, description="Name of the default task.", frozen=True)
    instruction: str = Field(default="", description="The default task's sentence.", frozen=True)
    template: str = Field(default=TEMPLATE, description="What a query becomes; passages stay bare.", frozen=True)
    fingerprint: str = Field(default="", description="What a passage embedding means: weights, EOS, length, pooling.")
    dimension: int = Field(default=0, description="Of an embedding.")
    max_length: int = Field(default=0, description="Tokens read of a text, BOS and EOS included.")
    _encoder: Encoder = PrivateAttr()
    _named: bool = PrivateAttr()  # the encoder can be made again from model_name

    def __init__(self, *, task: Task | str | None = None, encoder: Encoder | None = None, **data: Any) -> None:
        if task is not None:
            task = _task(task)
            data |= {"task_name": task.name, "instruction": task.instruction}
        elif not data.get("instruction"):
            data["instruction"] = _task(data.get("task_name", DEFAULT_TASK)).instruction
        Task(data.get("task_name", DEFAULT_TASK), data["instruction"])  # refuses a blank sentence now, not at a query
        known = data.get("fingerprint")
        named = encoder is None
        encoder = encoder or open_encoder(data.get("model_name", "mini"))
        if known and known != encoder.fingerprint:
            raise ValueError(
                f"model {data.get('model_name', 'mini')!r} has fingerprint {encoder.fingerprint}, this embedding was "
                f"made with {known}: load the old model, or drop the fingerprint and embed the passages again"
            )
        data |= {"fingerprint": encoder.fingerprint, "dimension": encoder.dimension, "max_length": encoder.max_length}
        super().__init__(**data)
        self._encoder, self._named = encoder, named

    def __getstate__(self) -> dict[str, Any]:
        if not self._named:
            raise TypeError(
                "an embedding with an encoder of yours (encoder=) cannot go to another process: give it model_name= "
                "alone, which is loaded again there, or use one process (num_workers=1)"
            )
        state = self.to_dict()
        del state["class_name"]
        return {"__dict__": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["__dict__"])  # LlamaIndex's would go on without a model where this one fails

    @model_validator(mode="before")
    @classmethod
    def _no_cache(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("embeddings_cache") is not None:
            raise ValueError(
                "embeddings_cache is refused: LlamaIndex keys it by the bare text alone, so a query and a passage, two "
                "tasks or two models would share one entry (llama_index PR 23181). Cache outside, with role, task and "
                "fingerprint in the key"
            )
        return data

    @classmethod
    def class_name(cls) -> str:
        return "TaskEmbedding"

    @property
    def task(self) -> Task:
        return Task(self.task_name, self.instruction)

    def get_query_embeddings(self, queries: Sequence[str], task: Task | str | None = None) -> list[list[float]]:
        """Embeddings of many queries in few forward passes, for ``task`` or the default one."""
        return self._encoder.encode_queries(queries, self.task if task is None else _task(task)).tolist()

    async def aget_query_embeddings(self, queries: Sequence[str], task: Task | str | None = None) -> list[list[float]]:
        return await asyncio.to_thread(self.get_query_embeddings, queries, task)

    def query_bundle(self, query: str, task: Task | str | None = None) -> QueryBundle:
        """The query embedded for ``task``: retrievers search with the embedding they find in the bundle."""
        return QueryBundle(query_str=query, embedding=self.get_query_embeddings([query], task)[0])

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """In an IngestionPipeline: embed the nodes' text alone. LlamaIndex would put the metadata in front
        of it, which training never saw. (VectorStoreIndex does so by itself: give it :func:`bare` nodes.)"""
        texts = [node.get_content(metadata_mode=MetadataMode.NONE) for node in nodes]
        for node, embedding in zip(nodes, self.get_text_embedding_batch(texts, **kwargs), strict=True):
            node.embedding = embedding
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        return await asyncio.to_thread(self.__call__, nodes, **kwargs)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.get_query_embeddings([query])[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._encoder.encode_passages(texts).tolist()

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


def bare(nodes: Sequence[BaseNode]) -> Sequence[BaseNode]:
    """The same nodes, their metadata kept but left out of what is embedded."""
    for node in nodes:
        node.excluded_embed_metadata_keys = list(node.metadata)
    return nodes


def _task(task: Task | str) -> Task:
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise ValueError(
            f"unknown task {task!r}: use one of {', '.join(TASKS)}, or Task(name, instruction) for your own"
        )
    return TASKS[task]
