"""Local data as mteb's own task classes: what is measured on a folder is measured as the leaderboard measures.

    DIR/SET/LANG/{corpus.jsonl, queries.jsonl, qrels.tsv}   retrieval, in BEIR's layout
    DIR/SET/LANG.jsonl   {"s1", "s2", "score"}              similarity, scores from 0 to 5
    DIR/SET/XX-YY.jsonl  {"src", "tgt"}                     bitext: find each text's translation

A set is a task, its languages are the task's subsets. A task's revision is a hash of its data and of what its
queries ask, and a sample has its size in its name: scores of other data are never taken for these. Nothing is read
from the network.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTaskBitextMining, AbsTaskRetrieval, AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.languages.iso_mappings import _get_iso1_to_iso3, _get_iso3_to_default_script

from ragkit.sparse import well_formed
from ragkit.task import Task
from trainer.data import read_records
from trainer.evaluate import RetrievalSet, read_folders, refuse_absent
from trainer.scores import POOLED

SPLIT = "test"
Data = dict[str, Any]  # subset -> what mteb's task class holds of it


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of each set is taken, the same at every run; 0 is all. Fewer passages are easier to search."""

    queries: int = 0  # or pairs, of similarity and bitext
    passages: int = 0  # at most so many, the relevant kept

    @property
    def suffix(self) -> str:
        return f"-{self.queries}q" + (f"{self.passages}p" if self.passages else "") if self.queries else ""


class _Local:
    """What the three kinds share: data from a function, not from the hub."""

    dataset: Any
    data_loaded: bool

    def __init__(self, data: Callable[[], Data]) -> None:
        self._data = data
        super().__init__()

    @classmethod
    def of(cls, metadata: TaskMetadata, data: Callable[[], Data]) -> Any:
        """mteb keeps a task's metadata on its class (and drops an instance's own when it unloads the data), so every
        set is a class."""
        return type(cls.__name__, (cls,), {"metadata": metadata})(data)

    def load_data(self, *_: Any, **__: Any) -> None:
        if not self.data_loaded:
            self.dataset = {subset: {SPLIT: rows} for subset, rows in self._data().items()}
            self.data_loaded = True


class LocalRetrieval(_Local, AbsTaskRetrieval): ...


class LocalSTS(_Local, AbsTaskSTS): ...


class LocalBitext(_Local, AbsTaskBitextMining): ...


def local_tasks(
    folders: Sequence[Path], *, only: Sequence[str] = (), sample: Sample | None = None, task: Task, pool: bool = False
) -> list[Any]:
    """A task for each set below ``folders``; ``only`` those of these names. ``task`` is what retrieval queries ask.
    ``pool``: all retrieval sets as one, whose passages compete across sets and languages. Raises ValueError where
    a folder holds none, or two hold the same."""
    sample = sample or Sample()
    searched = [folder for folder in folders if any(folder.glob("*/*/corpus.jsonl"))]
    pairs: list[Path] = []
    for folder in folders:
        files = sorted(folder.glob("*/*.jsonl"))
        if not files and folder not in searched:
            raise ValueError(
                f"no SET/LANG/corpus.jsonl, no SET/LANG.jsonl below {folder}: is it the folder that holds the sets?"
            )
        pairs += files
    groups: dict[str, list[RetrievalSet]] = defaultdict(list)
    sets = read_folders(searched, only)
    for data in sets:
        if sample.queries:
            data = data.sample(sample.queries, sample.passages)
        groups["pool" if pool else data.name].append(data)
    found = [retrieval(name + sample.suffix, group, task, pool=pool) for name, group in groups.items()]
    by_set: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for file in pairs:
        if not only or file.parent.name in only:
            if file.stem in by_set[file.parent.name]:
                raise ValueError(f"{file.parent.name}/{file.name} stands in two folders: rename one")
            by_set[file.parent.name][file.stem] = _pairs(file, sample.queries)
    found += [_of_pairs(name + (f"-{sample.queries}q" if sample.queries else ""), s) for name, s in by_set.items()]
    refuse_absent(only, [*(data.name for data in sets), *by_set], f"set below {', '.join(map(str, folders))}")
    return found


def retrieval(name: str, sets: Sequence[RetrievalSet], task: Task, *, pool: bool = False) -> Any:
    """Passages carry the language they are in and queries that of what answers them, for a store that filters."""
    subsets = {POOLED: sets} if pool else {data.lang: [data] for data in sets}

    def load() -> Data:
        return {subset: _search_data(group, pool) for subset, group in subsets.items()}

    languages = {
        subset: sorted({code for s in group for code in languages_of(s.lang)}) for subset, group in subsets.items()
    }
    content = [[s.name, s.lang, s.passages, s.queries, s.qrels] for s in sets]
    metadata = _metadata(name, "Retrieval", "ndcg_at_10", languages, content, prompt={"query": task.instruction})
    return LocalRetrieval.of(metadata, load)


def _search_data(sets: Sequence[RetrievalSet], pool: bool) -> dict[str, Any]:
    corpus: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    for data in sets:
        before = f"{data.name}/{data.lang}/" if pool else ""
        lang = data.passage_lang
        corpus += [{"id": before + i, "text": well_formed(text), "lang": lang} for i, text in data.passages.items()]
        queries += [{"id": before + q, "text": well_formed(data.queries[q]), "lang": lang} for q in data.qrels]
        qrels |= {before + q: {before + i: r for i, r in judged.items()} for q, judged in data.qrels.items()}
    return {
        "corpus": Dataset.from_list(corpus),
        "queries": Dataset.from_list(queries),
        "relevant_docs": qrels,
        "top_ranked": None,
    }


def _pairs(file: Path, most: int) -> list[dict[str, Any]]:
    records = list(read_records(file))
    if not most:
        return records
    order = sorted(records, key=lambda r: hashlib.sha256(json.dumps(r, sort_keys=True).encode()).digest())
    return order[:most]


def _of_pairs(name: str, subsets: dict[str, list[dict[str, Any]]]) -> Any:
    columns = {frozenset(record) for records in subsets.values() for record in records}
    languages = {subset: languages_of(subset) for subset in subsets}
    if columns == {frozenset(("s1", "s2", "score"))}:
        made, category, score, first, second = LocalSTS, "STS", "cosine_spearman", "s1", "s2"
    elif columns == {frozenset(("src", "tgt"))}:
        made, category, score, first, second = LocalBitext, "BitextMining", "f1", "src", "tgt"
    else:
        told = " and ".join(str(sorted(c)) for c in sorted(columns, key=sorted))
        raise ValueError(f"set {name!r} has records with {told}: use s1, s2, score (similarity) or src, tgt (bitext)")

    def load() -> Data:
        def rows(records: list[dict[str, Any]]) -> Dataset:
            texts = {
                column: [well_formed(r[key]) for r in records]
                for column, key in (("sentence1", first), ("sentence2", second))
            }
            return Dataset.from_dict(
                texts | ({"score": [float(r["score"]) for r in records]} if made is LocalSTS else {})
            )

        return {subset: rows(records) for subset, records in subsets.items()}

    return made.of(_metadata(name, category, score, languages, subsets), load)


def _metadata(
    name: str, category: str, score: str, languages: dict[str, list[str]], content: Any, **more: Any
) -> TaskMetadata:
    data = json.dumps([content, more], ensure_ascii=True, sort_keys=True).encode()  # another question, another score
    return TaskMetadata(
        dataset={"path": f"local/{name}", "revision": hashlib.sha256(data).hexdigest()[:16]},
        name=name,
        description=f"Local data: {', '.join(languages)}",
        type=category,  # type: ignore[arg-type]
        category="t2t",
        eval_splits=[SPLIT],
        eval_langs=languages,
        main_score=score,
        **more,
    )


def languages_of(subset: str) -> list[str]:
    """``xx-yy`` of a folder or file as mteb writes it: ``en-zh`` and ``eng-zho-TW`` name two languages, ``zh-Hant``
    one with its script. One that mteb does not know is ``und-Zyyy``."""
    parts: list[list[str]] = []
    for part in subset.replace("_", "-").split("-"):
        if part.islower() or not parts:
            parts.append([part])
        else:
            parts[-1].append(part)
    codes: list[str] = []
    for primary, *rest in parts:
        code = _get_iso1_to_iso3().get(primary, primary)
        script = next((r for r in rest if len(r) == 4), None)
        if script is None and code == "zho" and {"TW", "HK", "MO"} & set(rest):
            script = "Hant"
        script = script or _get_iso3_to_default_script().get(code)
        codes.append(f"{code}-{script}" if script else "und-Zyyy")
    return codes
