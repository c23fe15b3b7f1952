"""Hard negatives for examples that have none: passages a model ranks high and that are not the answer.

All positives and negatives of a source, and further passages where given, are the pool. For each query the
pool is ranked by a model, as in training (prompted query, bare passages). Of the first ranks some are drawn
at random: the very first are often answers that nobody marked. Two guards keep those out: texts and ids known
as the query's answers, and any passage whose cosine comes near the positive's own (the rule TopK-PercPos of
NV-Retriever, arXiv 2407.15831: at most 95 % of it). The result is a file of the trainer's own kind
``examples`` for each of the recipe's sources and each part of one that is batched apart, with negatives written
before left in place.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ragkit.encoder import Encoder
from ragkit.task import Task
from trainer.config import TrainConfig
from trainer.data import Drawn, Source, Text, TrainingExample, digest, draw, read_texts

ALL = 1 << 30  # hard negatives that an example may bring
QUERIES = 256  # ranked in one product


@dataclass(frozen=True, slots=True)
class MineConfig:
    """``skip`` and ``depth`` count ranks after known answers were left out."""

    negatives: int = 4  # mined for an example, at most
    skip: int = 0  # first ranks never taken: likelier to be unmarked answers
    depth: int = 100  # ranks drawn from: fewer are harder, more are safer
    share: float = 0.95  # of the positive's cosine; a passage above it may be an answer. 1: up to the positive
    seed: int = 1

    def __post_init__(self) -> None:
        if self.negatives < 1 or self.skip < 0 or self.depth <= self.skip:
            raise ValueError(
                f"negatives {self.negatives}, skip {self.skip}, depth {self.depth}: take at least one negative, from "
                "ranks between skip and a greater depth"
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share}: a part of the positive's cosine, above 0 and at most 1")


@dataclass(frozen=True, slots=True)
class Mined:
    """One example with the passages found for it."""

    example: TrainingExample
    negatives: tuple[str, ...]
    ids: tuple[str, ...]  # of these, "" where unknown
    refused: int  # of the ranks looked at, too near the positive


def mine(
    examples: Sequence[TrainingExample],
    queries: np.ndarray,
    positives: np.ndarray,
    pool: Sequence[tuple[str, ...]],
    passages: np.ndarray,
    config: MineConfig,
) -> Iterator[Mined]:
    """Negatives of ``examples`` out of ``pool``, which holds a text and an id ("" if unknown) for each passage, and
    what else it is called.

    ``queries`` and ``positives`` are unit embeddings (N, D), a row an example; ``passages`` (P, D), a row a text
    of the pool. Nothing depends on the order of the examples but the order of the results.
    """
    for start in range(0, len(examples), QUERIES):
        part = examples[start : start + QUERIES]
        scores = queries[start : start + QUERIES] @ passages.T
        own = np.einsum("nd,nd->n", queries[start : start + QUERIES], positives[start : start + QUERIES])
        for example, row, positive in zip(part, scores, own, strict=True):
            answers = {example.query, example.positive, example.positive_id, *example.known, *example.negatives} - {""}
            looked = min(len(pool), config.depth + len(answers))
            ranked = np.argpartition(-row, looked - 1)[:looked]
            ranked = ranked[np.lexsort((ranked, -row[ranked]))]
            others = [i for i in ranked if not answers & set(pool[i])][config.skip : config.depth]
            allowed = [i for i in others if row[i] <= config.share * positive]
            rng = random.Random(f"{config.seed} {example.query}")
            taken = sorted(rng.sample(range(len(allowed)), min(config.negatives, len(allowed))))
            chosen = [pool[allowed[n]] for n in taken]
            texts, ids = tuple(text for text, *_ in chosen), tuple(i for _, i, *_ in chosen)
            yield Mined(example, texts, ids, len(others) - len(allowed))


def mine_source(
    drawn: Drawn, encoder: Encoder, config: MineConfig, further: Sequence[Text] = ()
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Records of kind ``examples`` for one source, and counts by reason. ``further`` passages join the pool.
    One may be an answer under another name: without its title, by its digest, by its own id. Where the source's
    examples have such an id it is the one written, so that training knows the passage too."""
    answers: dict[str, set[str]] = {}
    for e in drawn.examples:
        answers.setdefault(e.query, set()).update((e.positive, e.positive_id, *e.known))
    examples = [
        replace(e, known=tuple(sorted(answers[e.query] - {e.positive, e.positive_id, ""}))) for e in drawn.examples
    ]
    used = {i for e in examples for i in (e.positive_id, *_ids(e), *e.known)}
    names_of: dict[str, list[str]] = {}  # text -> the id to write, and whatever else it is called
    for passage in further:
        names = [i for i in (digest(passage.text), passage.id) if i]
        called = names_of.setdefault(passage.whole, names[:1])
        called[0] = next((i for i in [called[0], *names] if i in used), called[0])
        called += [passage.text, *names]
    for e in examples:
        for text, i in ((e.positive, e.positive_id), *zip(e.negatives, _ids(e), strict=True)):
            called = names_of.setdefault(text, [i])
            called[0] = i or called[0]
            called.append(i)
    pool = [(text, *names) for text, names in names_of.items()]
    passages = encoder.encode_passages([text for text, *_ in pool])
    place = {text: n for n, (text, *_) in enumerate(pool)}
    queries = np.empty((len(examples), encoder.dimension), np.float32)
    for instruction in sorted({e.instruction for e in examples}):
        rows = [n for n, e in enumerate(examples) if e.instruction == instruction]
        queries[rows] = encoder.encode_queries([examples[n].query for n in rows], Task("mined", instruction))
    positives = passages[[place[e.positive] for e in examples]]
    records: list[dict[str, Any]] = []
    counts: Counter[str] = Counter(drawn.dropped)
    for found in mine(examples, queries, positives, pool, passages, config):
        e = found.example
        counts["passages too near the positive"] += found.refused
        counts["negatives mined"] += len(found.negatives)
        counts["examples with fewer than asked"] += len(found.negatives) < config.negatives
        texts, named = (*e.negatives, *found.negatives), (*_ids(e), *found.ids)
        records.append(replace(e, negatives=texts, negative_ids=named if any(named) else ()).record())
    return records, counts


def _ids(example: TrainingExample) -> tuple[str, ...]:
    return example.negative_ids or ("",) * len(example.negatives)


def mine_recipe(
    config: TrainConfig,
    data: Path,
    out: Path,
    encoder: Encoder,
    knobs: MineConfig,
    corpus: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """A file below ``out`` for each source of the recipe, with the examples that it draws, those without a negative
    too; files of the same source that are there already are left as they are. ``corpus`` is a JSONL file whose records
    have ``text`` and perhaps ``title`` and ``_id``."""
    further = list(read_texts(corpus)) if corpus else []
    files = []
    for number, source in enumerate(config.sources, 1):
        for drawn in draw(replace(source, in_batch=True), data, hard_negatives=ALL, seed=config.seed):
            file = out / _file_name(number, source, drawn.name, config.seed)
            files.append(file)
            if file.exists():
                report(f"{file}: is there already")
                continue
            records, counts = mine_source(drawn, encoder, knobs, further)
            file.parent.mkdir(parents=True, exist_ok=True)
            unfinished = file.with_suffix(".unfinished")
            # half a character as JSON has it, "\ud83d"
            with unfinished.open("w", encoding="utf-8", errors="backslashreplace") as lines:
                lines.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
            unfinished.replace(file)
            report(f"{file}: {len(records):,} examples; " + json.dumps({k: v for k, v in counts.items() if v}))
    return files


def _file_name(number: int, source: Source, name: str, seed: int) -> str:
    """That no other source has, and that a recipe can name: its place in this one, its path without wildcards, and a
    digest of what it draws."""
    plain = re.sub(r"[\s/\\*?\[\]]+", "-", re.sub(r"\.jsonl(\.gz)?", "", name)).strip("-")
    told = digest(json.dumps([asdict(source), name, seed], default=str))
    return f"{number:02}-{plain}-{told[:8]}.jsonl"
