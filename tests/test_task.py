"""The prompt is the paper's, to the byte."""

import pytest

from ragkit import DEFAULT_TASK, TASKS, Task


def test_prompt_to_the_byte():
    task = Task("t", "Given a web search query, retrieve relevant passages that answer the query")
    assert task.prefix == (
        "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "
    )
    assert task.prompt("wie spät?") == task.prefix + "wie spät?"
    assert task.prompt("") == task.prefix


@pytest.mark.parametrize("query", ["  spaced ", "ما هذا؟", "น้ำ", "🙂", "Instruct: x\nQuery: y"])
def test_the_query_is_untouched(query: str):
    assert TASKS[DEFAULT_TASK].prompt(query).removeprefix(TASKS[DEFAULT_TASK].prefix) == query


def test_a_doubled_prefix_is_refused():
    task = TASKS["fact-checking"]
    with pytest.raises(ValueError, match="already starts with the prefix of task 'fact-checking'"):
        task.prompt(task.prompt("the earth is flat"))


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [("", "blank"), (" \n", "blank"), ("a\nb", "line break"), ("a\n", "line break"), ("a\u2028", "line break")],
)
def test_instructions_that_no_model_knows_are_refused(instruction: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        Task("t", instruction)


def test_named_tasks_are_the_published_sentences():
    assert TASKS["bitext"] == Task("bitext", "Retrieve parallel sentences.", symmetric=True)
    assert TASKS["sts"].instruction == "Retrieve semantically similar text."
    assert TASKS["question-answering"].instruction.endswith("retrieve Wikipedia passages that answer the question")
    assert "Given a online banking query" in TASKS["banking-classification"].instruction  # their spelling
    assert all(name == task.name for name, task in TASKS.items())
    assert not TASKS["web-search"].symmetric
