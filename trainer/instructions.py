"""The instruction of every mteb task, and which of its texts carry it.

For the 56 sets of the paper's evaluation the sentences are the published ones (arXiv 2401.00368, table 15; unilm
e5/utils.py at 16da2f1): another sentence is another score. Any other task has the authors' sentence for its kind
where they have one (similarity, bitext, summaries), else mteb's own, else a rule for its category. Where a
sentence comes from is told with it, since a score is comparable only with those measured under the same one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ragkit.task import TASKS, Task

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

ASYMMETRIC = {"Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking"}

_KNOWN = {  # sets whose sentence a model also meets in training, under our name for the task
    "ArguAna": "counter-arguments",
    "Banking77Classification": "banking-classification",
    "AmazonReviewsClassification": "review-classification",
    "EmotionClassification": "emotion-classification",
    "MassiveIntentClassification": "intent-classification",
    "MassiveScenarioClassification": "scenario-classification",
    "ToxicConversationsClassification": "toxicity-classification",
    "TweetSentimentExtractionClassification": "sentiment-classification",
    "ArxivClusteringP2P": "arxiv-clustering",
    "RedditClusteringP2P": "forum-clustering",
    "TwentyNewsgroupsClustering": "news-clustering",
    "DBPedia": "entity-retrieval",
    "FEVER": "fact-checking",
    "FiQA2018": "financial-qa",
    "HotpotQA": "multi-hop-qa",
    "MSMARCO": "web-search",
    "NFCorpus": "medical-qa",
    "NQ": "question-answering",
    "QuoraRetrieval": "duplicate-questions",
    "SCIDOCS": "citation-prediction",
    "SciFact": "scientific-fact-checking",
    "Touche2020": "arguments",
    "TRECCOVID": "covid-qa",
}
_CATEGORY = "Identify the main category of {} papers based on the titles"
_THEME = "Identify the topic or theme of {} based on the "
_MTOP = "of the given utterance in task-oriented conversation"
_TWEETS = "Retrieve tweets that are semantically similar to the given tweet"
_OTHERS = {
    "AmazonCounterfactualClassification": "Classify a given Amazon customer review text as either counterfactual or "
    "not-counterfactual",
    "AmazonPolarityClassification": "Classify Amazon reviews into positive or negative sentiment",
    "ImdbClassification": "Classify the sentiment expressed in the given movie review text from the IMDB dataset",
    "MTOPDomainClassification": f"Classify the intent domain {_MTOP}",
    "MTOPIntentClassification": f"Classify the intent {_MTOP}",
    "ArxivClusteringS2S": "Identify the main and secondary category of Arxiv papers based on the titles",
    "BiorxivClusteringP2P": f"{_CATEGORY.format('Biorxiv')} and abstracts",
    "BiorxivClusteringS2S": _CATEGORY.format("Biorxiv"),
    "MedrxivClusteringP2P": f"{_CATEGORY.format('Medrxiv')} and abstracts",
    "MedrxivClusteringS2S": _CATEGORY.format("Medrxiv"),
    "RedditClustering": f"{_THEME.format('Reddit posts')}titles",
    "StackExchangeClustering": f"{_THEME.format('StackExchange posts')}titles",
    "StackExchangeClusteringP2P": f"{_THEME.format('StackExchange posts')}given paragraphs",
    "SprintDuplicateQuestions": "Retrieve duplicate questions from Sprint forum",
    "TwitterSemEval2015": _TWEETS,
    "TwitterURLCorpus": _TWEETS,
    "AskUbuntuDupQuestions": "Retrieve duplicate questions from AskUbuntu forum",
    "MindSmallReranking": "Retrieve relevant news articles based on user browsing history",
    "SciDocsRR": "Given a title of a scientific paper, retrieve the titles of other relevant papers",
    "StackOverflowDupQuestions": "Retrieve duplicate questions from StackOverflow forum",
    "ClimateFEVER": "Given a claim about climate change, retrieve documents that support or refute the claim",
}
_CQADUPSTACK = (
    "Given a question, retrieve detailed question descriptions from Stackexchange that are duplicates to the given "
    "question"
)
PAPER: dict[str, str] = {**{name: TASKS[task].instruction for name, task in _KNOWN.items()}, **_OTHERS}
_FAMILIES = {"cqadupstack": _CQADUPSTACK, "miracl": TASKS["question-answering"].instruction}  # by the name's beginning
_KINDS = {"STS": TASKS["sts"], "BitextMining": TASKS["bitext"], "Summarization": TASKS["summarization"]}

# What a category asks for in general, where neither the paper nor mteb has a sentence for the task.
_SUBTYPES = {
    "Sentiment/Hate speech": "Classify the sentiment expressed in the given text",
    "Topic classification": "Classify the topic of the given text",
    "Language identification": "Identify the language of the given text",
    "Emotion classification": "Classify the emotion expressed in the given text",
    "Textual Entailment": TASKS["entailment"].instruction,
    "Claim verification": TASKS["fact-checking"].instruction,
    "Question answering": TASKS["question-answering"].instruction,
}
_RULES = {
    "Retrieval": TASKS["web-search"].instruction,
    "InstructionRetrieval": TASKS["web-search"].instruction,
    "Reranking": TASKS["web-search"].instruction,
    "InstructionReranking": TASKS["web-search"].instruction,
    "PairClassification": TASKS["sts"].instruction,
    "Classification": "Classify the category of the given text",
    "MultilabelClassification": "Classify the given text into all categories that apply to it",
    "Clustering": "Identify the topic or theme of the given texts",
}
_FITTING = {  # which subtypes say something about a category: "Topic classification" of a retrieval task does not
    "Retrieval": {"Question answering", "Claim verification"},
    "Reranking": {"Question answering"},
    "PairClassification": {"Textual Entailment", "Claim verification"},
    "Classification": {
        "Sentiment/Hate speech",
        "Topic classification",
        "Language identification",
        "Emotion classification",
    },
}


@dataclass(frozen=True, slots=True)
class Instruction:
    task: Task
    source: Literal["paper", "mteb", "rule"]


def instruction_of(metadata: TaskMetadata) -> Instruction:
    """Raises ValueError for a category that no sentence is known for (images, sound)."""
    name, category = metadata.name, str(metadata.type)
    if category in _KINDS:
        return Instruction(_KINDS[category], "paper")
    symmetric = category not in ASYMMETRIC
    local = metadata.dataset["path"].startswith("local/")  # whose name is a folder's, and whose prompt was asked for
    family = [text for beginning, text in _FAMILIES.items() if name.lower().startswith(beginning)]
    if (name in PAPER or family) and not (local and metadata.prompt):
        return Instruction(Task(name, PAPER.get(name) or family[0], symmetric), "paper")
    prompt: Any = metadata.prompt
    if isinstance(prompt, dict):
        prompt = prompt.get("query")
    if prompt and prompt.strip():
        return Instruction(Task(name, " ".join(prompt.split()), symmetric), "mteb")
    if category not in _RULES:
        raise ValueError(
            f"mteb task {name!r} is of category {category!r}, for which no instruction is known: "
            f"the categories are {', '.join(sorted({*_KINDS, *_RULES}))}"
        )
    fitting = [s for s in metadata.task_subtypes or [] if s in _FITTING.get(category, ())]
    return Instruction(Task(name, _SUBTYPES[fitting[0]] if fitting else _RULES[category], symmetric), "rule")


def is_bare(metadata: TaskMetadata, prompt_type: Any, *, rerank_prompted: bool = False) -> bool:
    """Whether a text carries no prompt: the passages of retrieval and reranking. In every other category both sides
    carry it, whatever side mteb says they are on. ``rerank_prompted``: candidates of reranking carry it too, as in
    the authors' script; today's mteb leaves them bare."""
    if str(metadata.type) not in ASYMMETRIC or getattr(prompt_type, "value", prompt_type) != "document":
        return False
    return not (rerank_prompted and str(metadata.type) == "Reranking")
