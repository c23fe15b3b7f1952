"""What a query is for, said in one sentence, and the only place that turns it into a prompt.

An instruction-tuned embedder reads ``Instruct: {instruction}\\nQuery: {query}`` on the query side and
bare text on the passage side, so one index serves every task (arXiv 2401.00368, section 3.2, equation
1). The prefix ends in a space: unilm ``e5/utils.py`` at 16da2f1 writes ``'Instruct: {}\\nQuery: '``.
Training, serving and evaluation all call :meth:`Task.prompt`; nothing else formats an instruction.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Task:
    """A named instruction.

    ``symmetric`` marks tasks that compare like with like (STS, bitext, clustering): there both sides
    carry the prompt at evaluation. A blank instruction or one with a line break is refused, since the
    model would read a prompt it was never trained on.
    """

    name: str
    instruction: str
    symmetric: bool = False

    def __post_init__(self) -> None:
        if not self.instruction.strip():
            raise ValueError(
                f"task {self.name!r} has a blank instruction: say in one sentence what to retrieve, "
                "for example 'Given a question, retrieve passages that answer the question'"
            )
        if self.instruction.splitlines() != [self.instruction]:  # one at its end counts, as YAML's `|` leaves it
            raise ValueError(
                f"task {self.name!r} has an instruction with a line break ({self.instruction!r}): "
                "the template gives it one line, so take the break out"
            )

    @property
    def prefix(self) -> str:
        """Everything before the query, trailing space included."""
        return f"Instruct: {self.instruction}\nQuery: "

    def prompt(self, query: str) -> str:
        """The exact text the model reads for ``query``. A query that already carries this task's
        prefix is refused: doubled prefixes are a silent loss of quality."""
        if query.startswith(self.prefix):
            raise ValueError(
                f"the query already starts with the prefix of task {self.name!r}: pass the bare query, "
                f"the prefix is added here (got {query[: len(self.prefix) + 20]!r})"
            )
        return self.prefix + query


# The sentences are the published ones, letter for letter ("a online banking" included): paper v3 tables
# 14 and 15, unilm e5/utils.py at 16da2f1. A model knows the sentence it was trained on.
_RETRIEVAL = {  # the query is prompted, passages are bare
    "web-search": "Given a web search query, retrieve relevant passages that answer the query",
    "question-answering": "Given a question, retrieve Wikipedia passages that answer the question",
    "multi-hop-qa": "Given a multi-hop question, retrieve documents that can help answer the question",
    "fact-checking": "Given a claim, retrieve documents that support or refute the claim",
    "scientific-fact-checking": "Given a scientific claim, retrieve documents that support or refute the claim",
    "counter-arguments": "Given a claim, find documents that refute the claim",
    "arguments": "Given a question, retrieve detailed and persuasive arguments that answer the question",
    "financial-qa": "Given a financial question, retrieve user replies that best answer the question",
    "medical-qa": "Given a question, retrieve relevant documents that best answer the question",
    "covid-qa": "Given a query on COVID-19, retrieve documents that answer the query",
    "entity-retrieval": "Given a query, retrieve relevant entity descriptions from DBPedia",
    "citation-prediction": "Given a scientific paper title, retrieve paper abstracts that are cited by the given paper",
    "forum-answers": "Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",
    "entailment": "Given a premise, retrieve a hypothesis that is entailed by the premise",
    "duplicate-questions": "Given a question, retrieve questions that are semantically equivalent to the given question",
}
_SYMMETRIC = {  # every text is prompted: similarity, then classification, then clustering
    "sts": "Retrieve semantically similar text.",
    "bitext": "Retrieve parallel sentences.",
    "summarization": "Given a news summary, retrieve other semantically similar summaries",
    "emotion-classification": "Classify the emotion expressed in the given Twitter message into one of the six emotions: anger, fear, joy, love, sadness, and surprise",
    "sentiment-classification": "Classify the sentiment of a given tweet as either positive, negative, or neutral",
    "review-classification": "Classify the given Amazon review into its appropriate rating category",
    "toxicity-classification": "Classify the given comments as either toxic or not toxic",
    "intent-classification": "Given a user utterance as query, find the user intents",
    "scenario-classification": "Given a user utterance as query, find the user scenarios",
    "banking-classification": "Given a online banking query, find the corresponding intents",
    "news-clustering": "Identify the topic or theme of the given news articles",
    "arxiv-clustering": "Identify the main and secondary category of Arxiv papers based on the titles and abstracts",
    "forum-clustering": "Identify the topic or theme of Reddit posts based on the titles and posts",
}
TASKS: dict[str, Task] = {
    **{name: Task(name, instruction) for name, instruction in _RETRIEVAL.items()},
    **{name: Task(name, instruction, symmetric=True) for name, instruction in _SYMMETRIC.items()},
}

DEFAULT_TASK = "web-search"
ANSWER_TASK = "question-answering"  # of `ragkit ask` and the app: a model's threshold for answers is chosen under it

# By name, as sentence-transformers saves them: encode_query takes "query", encode_document "document".
PROMPTS = {"query": TASKS[DEFAULT_TASK].prefix, "document": "", **{t.name: t.prefix for t in TASKS.values()}}
