"""Every task of every suite has an instruction, the paper's 56 have the paper's, and the right texts carry it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_evaluate import write_set

pytest.importorskip("mteb", reason="the extra 'evaluate' is not installed")

from mteb.types import PromptType

from ragkit import TASKS
from trainer.instructions import PAPER, instruction_of, is_bare
from trainer.mteb_tasks import local_tasks
from trainer.suites import MIRACL_LANGUAGES, SUITES, suite


def metadata(name: str = "Own", category: str = "Retrieval", prompt: Any = None, subtypes: Any = None) -> Any:
    dataset = {"path": f"mteb/{name}"}
    return SimpleNamespace(name=name, type=category, prompt=prompt, task_subtypes=subtypes, dataset=dataset)


def parts(tasks: list[Any]) -> list[Any]:
    return [part for task in tasks for part in getattr(task.metadata, "tasks", None) or [task]]


@pytest.mark.parametrize(("name", "count"), [(n, c) for n, c in zip(SUITES, (56, 131, 15, 1, 1), strict=True)])
def test_every_task_of_a_suite_has_an_instruction(name: str, count: int):
    tasks = suite(name)
    assert len(tasks) == count
    for part in [*tasks, *parts(tasks)]:
        assert instruction_of(part.metadata).task.instruction


def test_a_category_without_a_sentence_is_named():
    image = SimpleNamespace(metadata=metadata("Flags", "ImageClustering"))
    with pytest.raises(ValueError, match="'Flags' is of category 'ImageClustering'"):
        instruction_of(image.metadata)


def test_the_56_have_the_papers_sentences_and_mteb_agrees():
    tasks = parts(suite("mteb-eng-v1"))
    assert len(tasks) == 56 - 1 + 12  # CQADupstack is twelve
    assert {instruction_of(task.metadata).source for task in tasks} == {"paper"}
    told = 0
    for task in tasks:
        prompt = task.metadata.prompt
        prompt = prompt.get("query") if isinstance(prompt, dict) else prompt
        if prompt:
            told += 1
            assert instruction_of(task.metadata).task.instruction == prompt
    assert told >= 44  # mteb keeps the same sentences on its own: a slip of ours would show
    assert set(PAPER) <= {task.metadata.name for task in tasks}


def test_where_an_instruction_comes_from():
    assert instruction_of(metadata("NQ")).task.instruction == TASKS["question-answering"].instruction
    assert instruction_of(metadata("MIRACLRetrievalHardNegatives")).source == "paper"
    assert instruction_of(metadata(category="STS", prompt="Compare")).task == TASKS["sts"]  # the authors' comes first
    own = instruction_of(metadata(prompt={"query": "Find\n  the answer"}))
    assert (own.source, own.task.instruction, own.task.symmetric) == ("mteb", "Find the answer", False)
    rule = instruction_of(metadata(category="Classification", subtypes=["Topic classification"]))
    assert (rule.source, rule.task.instruction) == ("rule", "Classify the topic of the given text")
    assert rule.task.symmetric
    other = instruction_of(metadata(subtypes=["Topic classification"]))  # says nothing about a search
    assert other.task.instruction == TASKS["web-search"].instruction


@pytest.mark.parametrize("name", ["NQ", "miracl", "miracl-40q", "ታሪክ"])
def test_a_folder_asks_what_it_is_told_to_whatever_its_name(tmp_path: Path, name: str):
    write_set(tmp_path / name / "am", ["ሐረር ከተማ ናት"], ["ሐረር"])
    [task] = local_tasks([tmp_path], task=TASKS["web-search"])
    assert instruction_of(task.metadata).task.instruction == TASKS["web-search"].instruction


@pytest.mark.parametrize("category", ["STS", "Classification", "Clustering", "PairClassification", "BitextMining"])
@pytest.mark.parametrize("side", [None, PromptType.query, PromptType.document])
def test_symmetric_tasks_are_prompted_on_every_side(category: str, side: PromptType | None):
    assert not is_bare(metadata(category=category), side)


def test_passages_of_retrieval_are_bare_and_those_of_reranking_as_asked():
    assert is_bare(metadata(), PromptType.document) and not is_bare(metadata(), PromptType.query)
    reranking = metadata(category="Reranking")
    assert is_bare(reranking, PromptType.document)
    assert not is_bare(reranking, PromptType.document, rerank_prompted=True)
    assert is_bare(metadata(), PromptType.document, rerank_prompted=True)


def test_suites_take_the_splits_and_languages_of_the_paper():
    splits = {task.metadata.name: list(task.eval_splits) for task in suite("mteb-eng-v1")}
    assert splits.pop("MSMARCO") == ["dev"] and set(map(tuple, splits.values())) == {("test",)}
    [miracl], [mldr] = suite("miracl"), suite("mldr")
    assert (list(miracl.hf_subsets), list(miracl.eval_splits)) == (list(MIRACL_LANGUAGES), ["dev"])
    assert (len(mldr.hf_subsets), list(mldr.eval_splits)) == (13, ["test"])
    with pytest.raises(ValueError, match="'mteb' is none of mteb-eng-v1"):
        suite("mteb")
