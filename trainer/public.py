"""The public training sets of e5-mistral (arXiv 2401.00368 v3, table 14) as streams of examples.

A set is a row of PUBLIC_SETS: where its train split lies on the Hub, which fields hold the query, its positives
and its hard negatives, and the paper's instructions and ratio. One function reads them all, since a positive or
negative is a text, a list of texts or a list of passage records in every repository chosen. Files are named and
read directly, never by a repository's script: ``datasets`` 4.0 dropped scripts, and Tevatron's sets and Mr. TyDi
are script repositories with plain JSONL inside. Streams are lazy. Fields are checked at every record, so a set
that changed upstream stops with its name. Ratios, blank texts and batches are the affair of ``trainer.data``.

No Hub was in reach when the table was written. "Seen" in a comment means in a stored copy of the Hub page or of
public code; the rest says "not verified here". A commit is pinned where its full hash was seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ragkit.task import TASKS
from trainer.data import Record, Stream, TrainingExample

HUB = "hf://datasets/"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSet:
    """One row of the table, as its repository stores it."""

    repo: str  # on the Hub, owner/name
    revision: str = ""  # a commit; "" follows the main branch
    files: str  # those of the train split alone; {} stands for the config
    configs: tuple[str, ...] = ("",)  # languages; each is batched apart, unless together
    fields: tuple[str, str, str]  # of the query, the positive or positives, the hard negative or negatives
    passage: tuple[str, ...] = ()  # fields of a passage record; () where passages are bare texts
    documented: str  # where fields and files are described
    instructions: tuple[str, ...]  # one is drawn for each example
    ratio: float = 1.0  # share of the set that the paper drew
    licence: str  # as the set's owner states it


# "Public data identical to e5-mistral", says FlagEmbedding's README of bge-en-icl. Seen in the card at this commit:
# the fields, and every split used here but miracl_en; as files, eli5-* and msmarco_document-* in data/.
_E5DATA_COMMIT = "7a949e8f7db86ef52ce4b2d65cfde1a633f4ca75"
_e5data = partial(
    PublicSet,
    repo="cfli/bge-e5data",
    revision=_E5DATA_COMMIT,
    fields=("query", "pos", "neg"),
    documented=f"https://huggingface.co/datasets/cfli/bge-e5data/blob/{_E5DATA_COMMIT}/README.md",
)
# Another reproduction. Seen: fields in the card, folders in the tree, hotpot_qa/train-00000-of-00001 in commit 1aef443.
_e5r = partial(
    PublicSet,
    repo="BeastyZ/E5-R",
    revision="c8e383c1fef995c6626ff4c4000abaa896278044",
    fields=("query", "positive", "negative"),
    documented="https://huggingface.co/datasets/BeastyZ/E5-R/blob/main/README.md",
)
# Tevatron's form, with ids. Seen: the form in its docs, and each file used here in its repository's tree. The fields
# of the nq, squad and trivia files are taken from those docs: their own scripts are not verified here.
_tevatron = partial(
    PublicSet,
    fields=("query", "positive_passages", "negative_passages"),
    passage=("docid", "title", "text"),
    documented="https://github.com/texttron/tevatron, docs on datasets, 'Relevancy Judged Dataset'",
)

# Table 14 gives MIRACL, Mr. TyDi, NQ, SQuAD and TriviaQA one row with two sentences: either is drawn for each.
_WIKIPEDIA = (TASKS["question-answering"].instruction, "Retrieve Wikipedia passages that answer the question")
_CHINESE = ("Given a Chinese search query, retrieve web passages that answer the question",)
_MSMARCO = "non-commercial research purposes only (https://microsoft.github.io/msmarco/Datasets)"  # seen

PUBLIC_SETS: dict[str, PublicSet] = {
    "eli5": _e5data(
        files="data/eli5-*.parquet",
        instructions=(TASKS["forum-answers"].instruction,),
        ratio=0.1,
        licence="not stated (the card of eli5 says unknown, and defunct by Reddit's terms)",  # seen
    ),
    "hotpotqa": _e5r(
        files="hotpot_qa/train-*.parquet",
        instructions=(TASKS["multi-hop-qa"].instruction,),
        licence="CC BY-SA 4.0 (card of hotpotqa/hotpot_qa)",  # seen
    ),
    "fever": _e5r(
        files="fever/train-*.parquet",
        instructions=(TASKS["fact-checking"].instruction,),
        licence="CC BY-SA 3.0 for the text of Wikipedia (fever.ai; not verified here)",
    ),
    # The owner's miracl/miracl holds topics and judgements alone, to be joined with a corpus in another repository.
    "miracl": _e5data(
        files="data/miracl_{}-*.parquet",
        configs=("ar", "bn", "en", "es", "fa", "fi", "fr", "hi", "id", "ja", "ko", "ru", "sw", "te", "th", "zh"),
        instructions=_WIKIPEDIA,
        licence="Apache-2.0 (card of miracl/miracl)",  # seen
    ),
    # Seen: fields, languages and paths, in the card and the script; "combined" repeats them all and is left out.
    "mr-tydi": _tevatron(
        repo="castorini/mr-tydi",
        revision="f1bb6e8db022ef33688e72eb352264e5cb16f057",
        files="mrtydi-v1.1-{}/train.jsonl.gz",
        configs=tuple(
            "arabic bengali english finnish indonesian japanese korean russian swahili telugu thai".split()  # noqa: SIM905
        ),
        documented="https://huggingface.co/datasets/castorini/mr-tydi",
        instructions=_WIKIPEDIA,
        licence="Apache-2.0 (card of castorini/mr-tydi)",  # seen
    ),
    "nq": _tevatron(
        repo="Tevatron/wikipedia-nq",
        revision="37a7d5bb286c76f1b406d76a7434e8eeb4385203",
        files="nq-train.jsonl.gz",
        instructions=_WIKIPEDIA,
        licence="CC BY-SA 3.0 (card of natural_questions)",  # seen
    ),
    "squad": _tevatron(
        repo="Tevatron/wikipedia-squad",
        files="squad-train.jsonl.gz",
        instructions=_WIKIPEDIA,
        licence="CC BY-SA 4.0 (card of rajpurkar/squad_v2; SQuAD 1.1's own not verified here)",
    ),
    "triviaqa": _tevatron(
        repo="Tevatron/wikipedia-trivia",
        files="trivia-train.jsonl.gz",
        instructions=_WIKIPEDIA,
        licence="not stated (the card of mandarjoshi/trivia_qa says unknown)",  # seen
    ),
    # Seen: the file in SimCSE's repository, its columns in a loader of this very file.
    "nli": PublicSet(
        repo="princeton-nlp/datasets-for-simcse",
        revision="d26e1d744391846ad4cb4104e22a54f3e9a17913",
        files="nli_for_simcse.csv",
        fields=("sent0", "sent1", "hard_neg"),  # premise, entailment, contradiction
        documented="https://huggingface.co/datasets/alexwww94/datasets-for-simcse/blob/main/datasets-for-simcse.py",
        instructions=(TASKS["entailment"].instruction, "Retrieve semantically similar text"),  # no full stop there
        licence="CC BY-SA 4.0 (card of SNLI); CC BY 3.0, CC BY-SA 3.0, MIT and other (card of multi_nli)",  # seen
    ),
    "msmarco-passage": _tevatron(
        repo="Tevatron/msmarco-passage",
        revision="128e2068aee46bd12d4180394fa2705d54e10075",  # seen: the commit that gives passages their title
        files="train.jsonl.gz",
        instructions=(TASKS["web-search"].instruction,),
        ratio=0.5,
        licence=_MSMARCO,
    ),
    "msmarco-document": _e5data(
        files="data/msmarco_document-*.parquet",
        instructions=("Given a web search query, retrieve relevant documents that answer the query",),
        ratio=0.2,
        licence=_MSMARCO,
    ),
    # Seen: fields, and triplet/train-00000-of-00001.parquet, in the card and its commits.
    "quora": PublicSet(
        repo="sentence-transformers/quora-duplicates",
        revision="451a4850bd141edb44ade1b5828c259abd762cdb",
        files="triplet/train-*.parquet",
        fields=("anchor", "positive", "negative"),
        documented="https://huggingface.co/datasets/sentence-transformers/quora-duplicates/blob/main/README.md",
        instructions=(
            TASKS["duplicate-questions"].instruction,
            "Find questions that have the same meaning as the input question",
        ),
        ratio=0.1,
        licence="not stated (Quora's terms of service apply; not verified here)",
    ),
    "dureader": _e5data(
        files="data/dureader-*.parquet",
        instructions=_CHINESE,
        licence="Apache-2.0 (card of PaddlePaddle/dureader_robust, one part of DuReader)",  # seen
    ),
    "t2ranking": _e5data(
        files="data/t2ranking-*.parquet",
        instructions=_CHINESE,
        ratio=0.5,
        licence="Apache-2.0 (card of THUIR/T2Ranking)",  # seen
    ),
}

# pandas takes the words "None", "NA" and "null" for missing values unless told not to; they are sentences too.
_BUILDERS: dict[str, dict[str, Any]] = {"parquet": {}, "json": {}, "csv": {"keep_default_na": False}}


def groups(path: str, root: str = HUB) -> list[tuple[str, Stream]]:
    """The streams of a set that are batched apart, each with a name: one a language, or one in all.

    ``path`` is a set's name, or a name and a pattern of its configs ("miracl/th", "mr-tydi/*"). A stream is called
    with a random.Random, and its examples carry an instruction. The caller draws ``PUBLIC_SETS[name].ratio`` of
    them. ``root`` may be a folder of copies of the repositories. Raises ValueError for an unknown set or config.
    """
    name, _, pattern = path.partition("/")
    if name not in PUBLIC_SETS:
        raise ValueError(f"unknown public set {name!r}: use one of {', '.join(PUBLIC_SETS)}")
    configs = [c for c in PUBLIC_SETS[name].configs if fnmatchcase(c, pattern or "*")]
    if not configs:
        have = ", ".join(PUBLIC_SETS[name].configs) or f"none, so write {name}"
        raise ValueError(f"public set {name!r} has no config {pattern!r}: it has {have}")
    return [(f"{name}/{c}".rstrip("/"), partial(read_public, name, c, root=root)) for c in configs]


def mirrored(path: str, root: Path) -> list[Path]:
    """Files that the streams of :func:`groups` read in ``root``, a folder of copies. Raises ValueError as it does."""
    found: list[Path] = []
    for group, _ in groups(path):
        name, _, config = group.partition("/")
        found += sorted(root.glob(f"{PUBLIC_SETS[name].repo}/{PUBLIC_SETS[name].files.format(config)}"))
    return found


def read_public(
    name: str,
    config: str,
    rng: random.Random,
    *,
    limit: int | None = None,
    root: str = HUB,
    load: Callable[..., Iterable[Record]] | None = None,
) -> Iterator[TrainingExample]:
    """Examples of a set, one a record, in the order of its files, at most ``limit``; the first come before the rest
    is fetched. ``load`` stands for ``datasets.load_dataset``. Raises ValueError where a record is not as the table
    says, and FileNotFoundError where the repository lacks the files."""
    if load is None:
        from datasets import load_dataset as load  # of the extra "train"

    s = PUBLIC_SETS[name]
    at = f"@{s.revision}" if s.revision and root == HUB else ""
    files = f"{root.rstrip('/')}/{s.repo}{at}/{s.files.format(config)}"
    builder = files.removesuffix(".gz").rpartition(".")[2].replace("jsonl", "json")
    try:
        records = load(builder, data_files={"train": files}, split="train", streaming=True, **_BUILDERS[builder])
    except (FileNotFoundError, ValueError) as error:  # datasets 5.2 raises the second where a wildcard finds nothing
        raise FileNotFoundError(
            f"public set {name!r}: cannot read {files} ({error}); if it moved, pin revision or mend PUBLIC_SETS"
        ) from error
    for record in islice(records, limit):
        yield _example(name, record, rng)


def _example(name: str, record: Record, rng: random.Random) -> TrainingExample:
    """One of the positives, drawn, since HotpotQA's two are of equal worth; the others are known. All hard
    negatives: the trainer samples. A record without a positive gives a blank one, which trainer.data counts."""
    s = PUBLIC_SETS[name]
    query, positive, negative = s.fields
    _require(name, s.fields, record)
    _require(name, (), record[query] or "", query)
    positives = _passages(name, positive, record[positive]) or [("", "")]
    negatives = _passages(name, negative, record[negative])
    text, passage_id = positives.pop(rng.randrange(len(positives)))
    ids = tuple(i for _, i in negatives)
    return TrainingExample(
        query=record[query] or "",
        positive=text,
        instruction=rng.choice(s.instructions),
        negatives=tuple(t for t, _ in negatives),
        positive_id=passage_id,
        negative_ids=ids if all(ids) else (),
        known=tuple(i or t for t, i in positives),
    )


def _passages(name: str, field: str, value: Any) -> list[tuple[str, str]]:
    """(text, id) of each passage in a field; the id is "" where there is none."""
    fields, found = PUBLIC_SETS[name].passage, []
    for passage in value if isinstance(value, list) else [] if value is None else [value]:
        _require(name, fields, passage, field)
        if fields:
            text = f"{passage['title'] or ''} {passage['text'] or ''}".strip()
            found.append((text, str(passage["docid"] or "")))
        else:
            found.append((passage, ""))
    return found


def _require(name: str, fields: tuple[str, ...], value: Any, within: str = "") -> None:
    """Raises ValueError unless ``value`` is a record with ``fields``, or a text where none are asked for."""
    if isinstance(value, dict if fields else str) and set(fields) <= set(value):
        return
    dotted = f"{within}." if within else ""
    expected = [dotted + f for f in fields] or [f"{within} as str"]
    seen = [dotted + f for f in value] if isinstance(value, dict) else [f"{within} as {type(value).__name__}"]
    raise ValueError(
        f"public set {name!r} ({PUBLIC_SETS[name].repo}): expected fields {', '.join(expected)}, the record has "
        f"{', '.join(seen)}; the data set has changed: pin revision or mend PUBLIC_SETS"
    )
