"""What the LLM is asked: the templates of the six kinds (arXiv 2401.00368, tables 8 to 13), in our own words.

The four asymmetric kinds take two steps. A brainstorm asks for about twenty tasks; then, in a new
conversation, one task is given out and one example comes back. The two symmetric kinds need no task.
A question about a passage (not the paper's) takes the passage in place of a task.
What fills the templates is drawn in :mod:`trainer.slots`; all order here is drawn from the caller's
``Random``.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.slots import PAPER, QUESTION, SETTINGS, SYMMETRIC, Setting, Slots

TASKS_A_CALL = 20  # about

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class Brainstorm:
    """How tasks of one kind are asked for. ``seeds`` show the form; one prompt shows ``shown`` of them."""

    what: str
    guidelines: tuple[str, ...]
    seeds: tuple[str, ...] = ()
    shown: int = 0


BRAINSTORMS = {
    "short-long": Brainstorm(
        "text retrieval tasks, in which somebody types a short query and wants long documents",
        (
            "State in each task what a query looks like and which documents count as found.",
            "Keep each task wide: many different queries must fit it, so name no single subject matter in detail.",
            "Let the tasks differ in domain, in the kind of searcher and in what makes a document relevant.",
        ),
        (
            "Given a gardener's description of a sick plant, retrieve guides on what ails it and how to treat it.",
            "Given the wording of an error message, retrieve forum threads in which the cause was found.",
            "Given a rumour about food or health, retrieve studies that confirm or disprove it.",
            "Given a traveller's question about crossing a border, retrieve the official rule that settles it.",
            "Given the name of a custom or feast, retrieve accounts of where and how it is kept.",
            "Given a legal question from daily life, retrieve court decisions on comparable cases.",
            "Given a sentence that says what a program should do, retrieve the documentation of functions that do it.",
        ),
        2,
    ),
    "long-short": Brainstorm(
        "text classification tasks, in which a text is read and one label out of several is given",
        (
            "Range over many domains, text types and kinds of judgement.",
            "Leave out the worn ones: overall sentiment, subject, genre, spam, urgency and the text's language.",
        ),
    ),
    "short-short": Brainstorm(
        "text matching tasks in which both sides are very short: a phrase, or one or two sentences",
        ("Say what stands on either side, and what makes the two belong together.",),
        (
            "Match a proverb with its meaning said plainly.",
            "Match the name of an instrument or tool with the work it is made for.",
            "Match a headline with another headline about the same event.",
            "Match a scientist or artist with what they are known for.",
        ),
        3,
    ),
    "long-long": Brainstorm(
        "text matching tasks in which both sides are long documents",
        ("Say what stands on either side, and what makes the two belong together.",),
        (
            "Given a letter of complaint, find replies that settle the same kind of complaint.",
            "Given a review of a work, find reviews that reach the contrary verdict.",
            "Given the plan of a study, find reports of studies that put the same question.",
        ),
        2,
    ),
}

# The keys of each kind's answer, in the order asked for, and what the prompt says of each.
FIELDS = {
    "tasks": {"tasks": f"a list of about {TASKS_A_CALL} strings, each one task in one sentence"},
    "short-long": {
        "user_query": "the query that a user types for this task",
        "positive_document": "a document that serves the query",
        "hard_negative_document": "a document that looks as if it would, and serves it less",
    },
    "long-short": {
        "input_text": "the text to be classified",
        "label": "the label that is right for it",
        "misleading_label": "another label of the same task that is less right",
    },
    "short-short": {"input": "the left side of the task", "positive_document": "the right side that matches it"},
    "long-long": {"input": "the left side of the task", "positive_document": "the right side that matches it"},
    "sts": {"S1": "the first {unit}", "S2": "a {unit} close to S1", "S3": "a {unit} farther from S1"},
    "bitext": {
        "S1": "a {unit} in {src_lang}",
        "S2": "its good translation into {tgt_lang}",
        "S3": "its poor translation into {tgt_lang}",
    },
    QUESTION: {"user_query": "the question"},
}

# The difficulty line stands apart, since half of the prompts of `weighted` leave it out.
_LEVEL = "Schooling that it takes to understand the {texts}: {difficulty}."
_GUIDELINES = {
    "short-long": (
        "The query is {query_type}, has {query_length}, is {clarity} to a reader, and may be about any topic.",
        "The documents are written on their own, as if nobody had seen the query: they do not repeat it, and the "
        "positive one may also speak of other things.",
        "Each document is at least {num_words} words long.",
        "The hard negative says something useful for the query, but less than the positive one, and less fully.",
        "The query is in {query_language}; both documents are in {document_language}.",
        "No document says why it is relevant or not.",
    ),
    "long-short": (
        "The input text has {num_words} words and its own way of putting things.",
        "The misleading label could be an answer to the task, but fits this text less than the right one.",
        "All values are in {language}.",
        "Neither label stands as a word in the input text.",
        "The input text is {clarity} to a reader.",
    ),
    "short-short": (
        "All values are in {language}.",
        "Both texts are very short, a phrase or at most two sentences, and share few words.",
        "Each text can be read without the other.",
    ),
    "long-long": (
        "All values are in {language}.",
        "Both texts are long, at least 300 words each, and share few words.",
        "Each text can be read without the other.",
    ),
    "sts": (
        "All three are in {language}, share some words with one another, and may be about any topic, in any length "
        "that a {unit} can have.",
        "On a scale from 1 (nothing in common) to 5 (the same meaning), S1 and S2 stand at {high_score}.",
        "On the same scale, S1 and S3 stand at {low_score}.",
    ),
    "bitext": (
        "S2 and S3 share some words; S1 may be about any topic, in any length that a {unit} can have.",
        "On a scale from 1 (useless) to 5 (perfect), the translation S2 stands at {high_score} and S3 at {low_score}.",
        "S3 is fluent and free of grammatical mistakes; it is poor because words or numbers are wrong, or because "
        "it leaves something out or adds something.",
    ),
    QUESTION: (
        "The question is in {query_language}, as its speakers would type it, whatever language the passage is in.",
        "Whoever asks has not seen the passage: the question names its subject and can be read alone.",
        "The passage answers the question, and hardly any other passage would.",
        "The question has {query_length} and repeats no phrase of the passage; names are spelt as {query_language} "
        "spells them.",
    ),
}
_TEXTS = {"short-long": "query and the documents", "long-short": "input text", "sts": "texts", "bitext": "S1"}


def brainstorm_messages(kind: str, setting: Setting, rng: random.Random) -> list[Message]:
    """The first step: ask for about twenty tasks of an asymmetric kind."""
    ask = BRAINSTORMS[kind]
    seeds = list(ask.seeds)
    if setting.shuffle:
        rng.shuffle(seeds)
    lines = [f"Think up about {TASKS_A_CALL} {ask.what}. They must be of use in practice.", ""]
    if seeds:
        lines += [
            "Some tasks of this form, to show it (do not repeat them):",
            *(f"- {s}" for s in seeds[: ask.shown]),
            "",
        ]
    rules = [*ask.guidelines, "Write each task as one English sentence. Be inventive."]
    return _messages([*lines, *_rules(rules, setting, rng), "", _form("tasks", {})])


def example_messages(kind: str, slots: Slots, setting: Setting, rng: random.Random) -> list[Message]:
    """The second step, or the only one of a symmetric kind: ask for one example."""
    said = {"query_language": slots.get("language"), "document_language": slots.get("language"), **slots}
    rules = [line.format_map(said) for line in _GUIDELINES[kind]]
    if "difficulty" in slots:
        rules.append(_LEVEL.format(difficulty=slots["difficulty"], texts=_TEXTS[kind]))
    if kind == "sts":
        opening = ["Write three texts, each a {unit}, that are close to one another in meaning to different degrees."]
    elif kind == "bitext":
        opening = ["Write a {unit} in {src_lang} and translate it into {tgt_lang} twice, once well and once poorly."]
    elif kind == QUESTION:
        opening = ["Here is a passage:", "", slots["passage"], "", "Write one question that it answers."]
    else:
        opening = ["Here is a task:", "", slots["task"], "", "Write one example for it."]
    head = [opening[0].format_map(said), *opening[1:]] if kind in SYMMETRIC else opening
    return _messages([*head, "", *_rules(rules, setting, rng), "", _form(kind, said)])


def example_text(kind: str, slots: Slots) -> str:
    """All that :func:`example_messages` says for these slots, in no particular order: for telling an echo."""
    blank = dict.fromkeys(
        (*PAPER.get(kind, ()), "language", "src_lang", "tgt_lang", "task", "query_length", "passage"), ""
    )  # records of others may lack some
    return example_messages(kind, {**blank, **slots}, SETTINGS["paper"], random.Random(0))[0]["content"]


def brainstorm_text(kind: str) -> str:
    """All that a brainstorm of this kind may say, every seed example included."""
    return "\n".join(
        [*BRAINSTORMS[kind].seeds, brainstorm_messages(kind, SETTINGS["paper"], random.Random(0))[0]["content"]]
    )


def schema(kind: str) -> dict[str, Any]:
    """The JSON schema of an answer, in the form that strict structured output wants."""
    strings: dict[str, Any] = {"type": "string"}
    properties = (
        {"tasks": {"type": "array", "items": strings}} if kind == "tasks" else dict.fromkeys(FIELDS[kind], strings)
    )
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _rules(rules: Sequence[str], setting: Setting, rng: random.Random) -> list[str]:
    rules = list(rules)
    if setting.shuffle:
        rng.shuffle(rules)
    return ["Keep to these guidelines:", *(f"- {rule}" for rule in rules)]


def _form(kind: str, said: Mapping[str, Any]) -> str:
    keys = "; ".join(f'"{name}": {what.format_map(said)}' for name, what in FIELDS[kind].items())
    return f"Answer with one JSON object and nothing around it. Its keys: {keys}."


def _messages(lines: Sequence[str]) -> list[Message]:
    return [{"role": "user", "content": "\n".join(lines)}]
