"""Can a long text be found by one sentence in it? The personalised passkey test of arXiv 2401.00368, section 5.2.

For each length, 100 texts of nothing but filler, of which each states somewhere the pass key of another person; 50
questions ask for the key of one of them, and the right text must come first, alone. Filler, sentences and names are
this project's own words, so scores are like the paper's, not the same. Lengths are tokens of the model, BOS and EOS
included. A length that is done is in the file; the rest goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

log = logging.getLogger(__name__)

TASK = Task("passkey", "Given a question about a person's pass key, retrieve the text that states it")
QUESTION = "Which pass key does {name} have?"
STATEMENT = "The pass key of {name} is {key}. Keep it in mind: {key} belongs to {name}."
FILLER = (
    "The river runs slowly past the mill.",
    "A cart stands in the yard.",
    "Someone has left the gate open.",
    "Rain is expected towards the evening.",
    "The bread cools by the window.",
    "A path leads through the field and back.",
)
LONGEST = 131_072  # tokens: room that an encoder is loaded with, so that its fingerprint is that of every length
KIND = "passkey"

Run = dict[str, Any]  # what the file holds: test, model, settings, lengths

# Given names and family names of one script: every pair is a name.
LATIN = (
    "Ada Bruno Clara Dmitri Edda Farid Greta Hugo Ines Jonas Karla Lars Mira Nadia Oskar Petra Quentin Rosa Simon Thea",
    "Abara Brandt Castillo Dahl Eriksen Fontana Garrick Holm Ivanov Jansen Keller Lindqvist Moreau Novak Okafor Petrov",
)
SCRIPTS = (
    LATIN,
    ("Анна Борис Вера Глеб Дарья Егор", "Черных Белых Долгих Живаго"),
    ("ليلى سامي نور كريم هدى طارق", "الحداد النجار الخياط البستاني"),
    ("अनिता राजेश मीरा विजय कमला सुनील", "शर्मा वर्मा गुप्ता जोशी"),
    ("สมชาย มาลี ปรีชา อรุณ ดวงใจ วิชัย", "ทองดี แสงจันทร์ ศรีสุข บุญมา"),
    ("ሰላም አበበ ሄለን ዳዊት ሣራ ዮናስ", "በቀለ ተስፋዬ ገብሬ ወልዴ"),
    ("Άρης Νίκος Γιώργος Πέτρος", "Παππάς Γεωργίου Νικολάου"),
)
JOINED = (  # family name first, without a space
    ("明 芳 伟 静 磊 娜", "王 李 张 刘"),
    ("さくら 健太 美咲 大輔", "佐藤 鈴木 高橋 田中"),
    ("민준 서연 지훈 하은", "김 이 박 최"),
)


@dataclass(frozen=True, slots=True)
class PasskeyConfig:
    candidates: int = 100  # texts of a length
    queries: int = 50  # of them that are asked for
    names: str = "latin"  # or "world": names in ten scripts
    seed: int = 0

    def __post_init__(self) -> None:
        if self.names not in ("latin", "world"):
            raise ValueError(f"names {self.names!r} are none of latin, world")
        if not 1 <= self.queries <= self.candidates or self.candidates < 2:
            raise ValueError(f"{self.queries} queries of {self.candidates} candidates: each asks for another of them")


@dataclass(frozen=True, slots=True)
class Haystack:
    """Texts of one length; ``asked[n]`` is answered by ``texts[answers[n]]``."""

    texts: tuple[str, ...]
    asked: tuple[str, ...]
    answers: tuple[int, ...]


def people(names: str, count: int, chance: random.Random) -> list[str]:
    """Names, no two the same."""
    pool = [f"{first} {last}" for given, family in (SCRIPTS if names == "world" else [LATIN])
            for first in given.split() for last in family.split()]  # fmt: skip
    if names == "world":
        pool += [last + first for given, family in JOINED for first in given.split() for last in family.split()]
    if count > len(pool):
        raise ValueError(f"{count} candidates, but there are {len(pool)} {names} names: ask for fewer")
    return chance.sample(pool, count)


def haystack(length: int, config: PasskeyConfig, count_tokens: Callable[[Sequence[str]], list[int]]) -> Haystack:
    """Texts of at most ``length`` tokens, BOS and EOS included, and as near to it as whole sentences come.

    Raises ValueError where a length has no room for the statement.
    """
    chance = random.Random(f"{config.seed} {length}")
    names = people(config.names, config.candidates, chance)
    statements = [STATEMENT.format(name=name, key=chance.randrange(10_000, 100_000)) for name in names]
    room = length - 2
    # What a sentence adds where it stands among others, rather than what it is alone.
    alone, *pairs = count_tokens([FILLER[-1], *(f"{FILLER[-1]} {sentence}" for sentence in FILLER)])
    costs = [pair - alone for pair in pairs]
    texts: list[str] = []
    for statement, size in zip(statements, count_tokens(statements), strict=True):
        if size > room:
            raise ValueError(f"a text of {length} tokens has no room for the statement, which has {size}")
        filler: list[str] = []
        while (size := size + costs[len(filler) % len(FILLER)]) <= room:
            filler.append(FILLER[len(filler) % len(FILLER)])
        share = chance.random()  # where the statement stands, from start to end

        def text(filler: list[str], share: float = share, statement: str = statement) -> str:
            at = round(share * len(filler))
            return " ".join([*filler[:at], statement, *filler[at:]])

        while count_tokens([text(filler)])[0] > room:
            filler.pop()
        texts.append(text(filler))
    answers = tuple(chance.sample(range(config.candidates), config.queries))
    return Haystack(tuple(texts), tuple(QUESTION.format(name=names[n]) for n in answers), answers)


def correct(found: np.ndarray, answers: Sequence[int]) -> int:
    """``found``: (queries, texts) similarities. A right text that shares the first place is not found."""
    right = found[np.arange(len(answers)), answers]
    others = found.copy()
    others[np.arange(len(answers)), answers] = -np.inf
    return int((right > others.max(axis=1)).sum())


def passkey(
    encoder: Encoder,
    model: str,
    lengths: Sequence[int],
    out: Path,
    config: PasskeyConfig = PasskeyConfig(),
    context: dict[str, Any] | None = None,
) -> Iterator[Run]:
    """Do the lengths that ``out`` does not have, shortest first; keep and yield the run as each is done.

    Raises ValueError where ``out`` is of another model or other knobs, or a length is longer than the encoder reads.
    """
    words = hashlib.sha256(
        json.dumps([TASK.prefix, QUESTION, STATEMENT, FILLER, SCRIPTS, JOINED]).encode()
    ).hexdigest()[:16]
    settings = {**asdict(config), **(context or {}), "fingerprint": encoder.fingerprint}
    settings["words"] = hashlib.sha256(words.encode()).hexdigest()[:16]
    run: Run = {"test": KIND, "model": model, "settings": settings, "lengths": {}}
    if out.exists():
        before = read(out)
        if before.get("settings") != settings:
            raise ValueError(f"{out} holds a run of other settings: give another --out")
        run["lengths"] = before["lengths"]
    if max(lengths, default=0) > encoder.max_length:
        raise ValueError(f"the encoder reads {encoder.max_length} tokens, not {max(lengths)}: load it with more")
    for length in sorted(set(lengths)):
        if str(length) in run["lengths"]:
            yield run
            continue
        begun = time.monotonic()
        hay = haystack(length, config, encoder.count_tokens)
        sizes = [size + 2 for size in encoder.count_tokens(hay.texts)]
        found = encoder.encode_queries(hay.asked, TASK) @ encoder.encode_passages(hay.texts).T
        hits = correct(found, hay.answers)
        run["lengths"][str(length)] = {
            "correct": hits,
            "queries": config.queries,
            "tokens": [min(sizes), max(sizes)],
            "seconds": round(time.monotonic() - begun, 1),  # of this call: less where embeddings were kept
        }
        run["lengths"] = dict(sorted(run["lengths"].items(), key=lambda item: int(item[0])))
        _keep(run, out)
        log.info("%d tokens: %d of %d", length, hits, config.queries)
        yield run


def _keep(run: Run, out: Path) -> None:
    """Whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(out.name + ".part")
    part.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n", "utf-8")
    os.replace(part, out)  # noqa: PTH105


def is_run(file: Path) -> bool:
    """Whether a file is one of this test's."""
    try:
        data = json.loads(file.read_text("utf-8")) if file.is_file() else None
    except ValueError:
        return False
    return isinstance(data, dict) and data.get("test") == KIND


def read(file: Path) -> Run:
    if not is_run(file):
        raise ValueError(f"{file} is no file of trainer passkey")
    return json.loads(file.read_text("utf-8"))
