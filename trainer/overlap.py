"""How much of training data stands in evaluation sets, told from both sides, and the data without it.

``contamination.py`` answers yes or no for a text, for the writer of examples. Here all of it is counted: which
training records hold a text of an evaluation set exactly, or share a run of 13 words with one, and which share of
each set was seen. Texts of fewer than four words say nothing, and are left out. Every string of a record is
compared, whatever its field, so a set may be in BEIR's layout or pairs.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trainer.answers import dump
from trainer.contamination import QUERY, runs
from trainer.data import numbered_records, read_records
from trainer.words import count_words, normalise

NOT_TEXT = {
    "_id", "id", "lang", "source", "license", "kind", "slots", "url", "query_id", "corpus_id", "positive_id",
    "negative_ids", "digest", "page", "request", "generator", "instruction", "task", "query_language",
    "document_language",
}  # fmt: skip


@dataclass
class Counts:
    total: int = 0  # records of a training file, or texts of an evaluation set
    exact: int = 0  # that hold, or are, a text of the other side
    run: int = 0  # that share a run of 13 words with one; mostly the exact are among them
    either: int = 0


@dataclass(frozen=True, slots=True)
class Overlap:
    """``records`` names those of the training data: file and line, and the sets they stand in."""

    training: dict[str, Counts]  # file -> its records
    sets: dict[str, Counts]  # evaluation set -> its texts
    records: list[tuple[str, int, list[str]]] = field(repr=False)


class Index:
    """Every text of the evaluation sets by hash: whole, with its title and without, and each run of it. Eight and four
    bytes a run. ``texts``: set, title ("" where there is none) and text."""

    def __init__(self, texts: Iterable[tuple[str, str, str]]) -> None:
        self.sets: list[str] = []  # of each text
        whole: list[tuple[int, int]] = []
        pieces: list[np.ndarray] = []
        owners: list[np.ndarray] = []
        for number, (name, title, text) in enumerate(texts):
            self.sets.append(name)
            titled = f"{title} {text}" if title else text
            whole += [(key, number) for key in {_hash(text), _hash(titled)}]
            hashes = np.fromiter(runs(titled), np.uint64)
            pieces.append(hashes)
            owners.append(np.full(len(hashes), number, np.int32))
        self._exact: dict[int, list[int]] = {}
        for key, number in whole:
            self._exact.setdefault(key, []).append(number)
        hashes = np.concatenate(pieces) if pieces else np.empty(0, np.uint64)
        order = np.argsort(hashes, kind="stable")
        self._runs = hashes[order]
        self._owners = np.concatenate(owners)[order] if owners else np.empty(0, np.int32)

    def exact(self, text: str) -> set[int]:
        """Numbers of the texts that say the same, but for case, width and white space."""
        return set(self._exact.get(_hash(text), ()))

    def run(self, text: str) -> set[int]:
        """Numbers of the texts that share a run with this one."""
        asked = np.unique(np.fromiter(runs(text), np.uint64))
        first, last = np.searchsorted(self._runs, asked), np.searchsorted(self._runs, asked, side="right")
        return {int(n) for a, b in zip(first, last, strict=True) if a < b for n in self._owners[a:b]}


def report(training: Sequence[Path], sets: Sequence[Path], clean: Path | None = None) -> Overlap:
    """Compare files of training records with evaluation sets; with ``clean``, write the files to that folder without
    the records that overlap. Raises ValueError where there is nothing to compare, or two files have one name."""
    files = list(_files(training))
    if twice := [name for name, count in Counter(name for name, _ in files).items() if count > 1]:
        raise ValueError(f"two training files are called {twice[0]}: give their common folder")
    index = Index(_texts_of_sets(sets))
    if not index.sets:
        raise ValueError(f"no text below {', '.join(map(str, sets))}: are these evaluation sets of JSONL files?")
    seen: dict[str, tuple[set[int], set[int]]] = {name: (set(), set()) for name in dict.fromkeys(index.sets)}
    by_file: dict[str, Counts] = {}
    found: list[tuple[str, int, list[str]]] = []
    for name, file in files:
        counts = by_file[name] = Counts()
        kept: list[Mapping[str, Any]] = []
        for line, record in numbered_records(file):
            texts = list(_strings(record))
            exact = set[int]().union(*(index.exact(t) for t in texts))
            run = set[int]().union(*(index.run(t) for t in texts))
            for numbers, which in ((exact, 0), (run, 1)):
                for number in numbers:
                    seen[index.sets[number]][which].add(number)
            counts.total += 1
            counts.exact += bool(exact)
            counts.run += bool(run)
            counts.either += bool(exact | run)
            if exact | run:
                found.append((name, line, sorted({index.sets[n] for n in exact | run})))
            elif clean:
                kept.append(record)
        if clean:
            _write_records(kept, clean / name)
    totals = {name: index.sets.count(name) for name in seen}
    sides = {name: Counts(totals[name], len(e), len(r), len(e | r)) for name, (e, r) in seen.items()}
    return Overlap(by_file, sides, found)


def table(overlap: Overlap) -> str:
    lines: list[str] = []
    for title, side in (("training records", overlap.training), ("evaluation texts", overlap.sets)):
        lines += [f"| {title} | all | exact | run of 13 words | either | share |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {name} | {c.total} | {c.exact} | {c.run} | {c.either} | {100 * c.either / max(1, c.total):.2f} % |"
            for name, c in side.items()
        ]
    return "\n".join(lines)


def write(overlap: Overlap, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(asdict(overlap), indent=1, ensure_ascii=False) + "\n", "utf-8")


def _files(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Name below its folder, and path, of each JSONL file. Raises ValueError where there is none."""
    for folder in folders:
        files = [folder] if folder.is_file() else sorted(folder.rglob("*.jsonl*"))
        if not files:
            raise ValueError(f"no JSONL file below {folder}")
        yield from ((file.name if folder.is_file() else file.relative_to(folder).as_posix(), file) for file in files)


def _texts_of_sets(folders: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """SET/LANG, title and text of each text: of a folder SET/LANG/ in BEIR's layout, or of a file SET/LANG.jsonl.
    Raises ValueError where sets below two of the folders have one name."""
    known: dict[str, Path] = {}  # label -> the folder it was met below
    for folder in folders:
        home = (folder.parent if folder.is_file() else folder).resolve()
        for name, file in _files([folder]):
            place = Path(name)
            beir = place.name.split(".")[0] in ("corpus", "queries")
            label = place.parent.as_posix() if beir else place.as_posix().split(".jsonl")[0]
            if label == ".":  # the folder is itself SET/LANG
                label = "/".join(home.parts[-2:])
            if known.setdefault(label, home) != home:
                raise ValueError(f"two evaluation sets are called {label}: give their common folder")
            for record in read_records(file):
                title = (beir and record.get("title")) or ""
                yield from (
                    (label, title, text) for key, text in record.items() if _is_text(key, text) and key != "title"
                )


def _strings(record: Mapping[str, Any]) -> Iterator[str]:
    """Texts at any depth; of a passage within also its title and text as one, as they are read."""
    for key, value in record.items():
        if key in NOT_TEXT:
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, Mapping):
                parts = [item[part] for part in ("title", "text") if isinstance(item.get(part), str) and item[part]]
                yield from _strings({"both": " ".join(parts) if len(parts) > 1 else "", **item})
            elif _is_text(key, item):
                yield item


def _is_text(key: str, value: Any) -> bool:
    return key not in NOT_TEXT and isinstance(value, str) and count_words(value) >= QUERY


def _hash(text: str) -> int:
    return hash(normalise(text))  # within one process alone, so Python's own does


def _write_records(records: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(file.name + ".new")
    with gzip.open(fresh, "wb") if file.suffix == ".gz" else fresh.open("wb") as lines:
        for record in records:
            lines.write(dump(record))
    fresh.replace(file)
