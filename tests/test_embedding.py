"""TaskEmbedding inside LlamaIndex: prompts on queries only, per-call tasks, async, serialisation."""

from __future__ import annotations

import asyncio
import json
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore

from ragkit import TASKS, Task
from ragkit.embedding import TaskEmbedding, bare


class Recorder(HashEncoder):
    """What reached the encoder, and in which thread."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, list[str], threading.Thread]] = []

    def encode_queries(self, queries: Any, task: Task) -> np.ndarray:
        self.calls.append((task.name, list(queries), threading.current_thread()))
        return super().encode_queries(queries, task)

    def encode_passages(self, passages: Any) -> np.ndarray:
        self.calls.append(("", list(passages), threading.current_thread()))
        return super().encode_passages(passages)


def test_queries_have_a_task_and_passages_none():
    recorder = Recorder()
    embedding = TaskEmbedding(encoder=recorder, task="fact-checking")
    embedding.get_query_embedding("q")
    embedding.get_query_embeddings(["a", "b"], task="web-search")
    embedding.get_text_embedding_batch(list(SCRIPTS.values()))
    assert [(task, texts) for task, texts, _ in recorder.calls] == [
        ("fact-checking", ["q"]),
        ("web-search", ["a", "b"]),
        ("", list(SCRIPTS.values())),
    ]


def test_async_does_not_run_on_the_loop():
    recorder = Recorder()
    embedding = TaskEmbedding(encoder=recorder)

    async def all_of_them() -> None:
        await embedding.aget_query_embedding("q")
        await embedding.aget_query_embeddings(["q"])
        await embedding.aget_text_embedding("t")
        await embedding.aget_text_embedding_batch(["t", "u"])

    asyncio.run(all_of_them())
    assert len(recorder.calls) == 4
    assert all(thread is not threading.main_thread() for *_, thread in recorder.calls)


def test_what_the_embedding_depends_on_is_public_and_survives_a_round_trip():
    embedding = TaskEmbedding(encoder=HashEncoder(), task=Task("own", "Find the rule"))
    data = json.loads(json.dumps(embedding.to_dict()))
    assert data["class_name"] == "TaskEmbedding"
    assert data["template"] == "Instruct: {instruction}\nQuery: {query}"
    assert data["instruction"] == "Find the rule"
    assert data["fingerprint"] == HashEncoder().fingerprint
    again = TaskEmbedding.from_dict(data, encoder=HashEncoder())
    assert again.task == embedding.task
    with pytest.raises(ValueError, match="has fingerprint"):
        TaskEmbedding.from_dict(data, encoder=HashEncoder("another model"))


def test_two_tasks_do_not_share_a_pipeline_cache_entry():
    one, two = (TaskEmbedding(encoder=HashEncoder(), task=t) for t in ("web-search", "fact-checking"))
    assert str(one.to_dict()) != str(two.to_dict())


def test_the_cache_of_llamaindex_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="a query and a passage, two tasks or two models would share one entry"):
        TaskEmbedding(encoder=HashEncoder(), embeddings_cache=SimpleKVStore())


def test_unknown_and_blank_tasks_are_refused():
    with pytest.raises(ValueError, match="unknown task 'websearch'"):
        TaskEmbedding(encoder=HashEncoder(), task="websearch")
    with pytest.raises(ValueError, match="blank instruction"):
        TaskEmbedding(encoder=HashEncoder(), instruction="  ")


def test_a_plain_vector_store_index():
    recorder = Recorder()
    embedding = TaskEmbedding(encoder=recorder, task="web-search")
    nodes = [TextNode(text=text, metadata={"lang": lang}) for lang, text in SCRIPTS.items()]
    index = VectorStoreIndex(list(bare(nodes)), embed_model=embedding)
    assert [texts for task, texts, _ in recorder.calls if not task] == [
        list(SCRIPTS.values())
    ]  # no metadata, no prompt
    retriever = index.as_retriever(similarity_top_k=1)
    for lang, text in SCRIPTS.items():
        assert retriever.retrieve(text)[0].metadata["lang"] == lang
    recorder.calls.clear()
    [hit] = retriever.retrieve(embedding.query_bundle(SCRIPTS["am"], TASKS["fact-checking"]))
    assert hit.metadata["lang"] == "am"
    assert [task for task, *_ in recorder.calls] == ["fact-checking"]  # embedded once, for the task of the call


def test_an_ingestion_pipeline_embeds_text_without_metadata():
    recorder = Recorder()
    node = TextNode(text="body", metadata={"title": "head"})
    [out] = IngestionPipeline(transformations=[TaskEmbedding(encoder=recorder)]).run(nodes=[node])
    assert recorder.calls[0][1] == ["body"]
    assert out.embedding == HashEncoder().encode_passages(["body"])[0].tolist()


def test_an_embedding_goes_to_another_process_by_its_name_alone(mistral_folder: Path):
    named = TaskEmbedding(model_name=str(mistral_folder), task="fact-checking", embed_batch_size=7)
    again = pickle.loads(pickle.dumps(named))
    assert again.to_dict() == named.to_dict() and again.task == TASKS["fact-checking"]
    assert again.get_query_embedding("ሰላም") == named.get_query_embedding("ሰላም")
    with pytest.raises(TypeError, match="give it model_name="):
        pickle.dumps(TaskEmbedding(encoder=HashEncoder()))


def test_a_task_is_not_changed_by_half():
    embedding = TaskEmbedding(encoder=HashEncoder())
    with pytest.raises(ValueError, match="frozen"):
        embedding.task_name = "fact-checking"
