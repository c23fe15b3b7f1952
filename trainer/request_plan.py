"""What will be asked: a function of the config, the seed and the request's number, and of nothing else.

Stage ``tasks`` (the brainstorms) needs no more; stage ``examples`` takes the tasks that were collected
as well, and stage ``questions`` passages that are there already, each in its turn. So a plan is never
stored: any machine makes its share of it (``shard``), a resumed run makes it again and skips what is
answered, and memory does not grow with the number of requests.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ragkit.endpoint import Endpoint
from ragkit.sparse import well_formed
from trainer import prompts
from trainer.config import read_yaml, typed
from trainer.languages import language, language_shares
from trainer.prompts import Message
from trainer.slots import ASYMMETRIC, KIND_WEIGHTS, KINDS, QUESTION, SETTINGS, Slots, draw_slots

STAGES = ("tasks", "examples", "questions")
EXAMPLES_A_TASK = 2.1  # the paper's: 319,000 asymmetric examples, about 150,000 instructions


@dataclass(frozen=True)
class SynthesisConfig:
    """A run of ``trainer synthesise``. Money is in the currency of the endpoints' prices."""

    endpoints: Sequence[Endpoint]  # each takes its share of the requests
    seed: int = 1
    setting: str = "weighted"  # the authors' later weights, likely this paper's too; or "paper": every value evenly
    kinds: Mapping[str, float] = field(default_factory=lambda: dict(KIND_WEIGHTS))  # kind -> relative weight
    languages: Mapping[str, float] = field(default_factory=dict)  # name -> share; the rest as published
    # Share of short-long, and of questions about passages whose language is known, in which query and document are of
    # two languages; as it was written, since a plan's fingerprint has it.
    cross_lingual: int | float = 0.0
    budget_tokens: int = 0  # of prompts and answers, all runs in the folder together; 0: no bound
    budget_money: float = 0.0

    def __post_init__(self) -> None:
        labels = [e.label for e in self.endpoints]
        if not labels or len(set(labels)) < len(labels):
            raise ValueError(f"endpoints are named {labels}: give at least one, each with a name of its own")
        if self.setting not in SETTINGS:
            raise ValueError(f"setting {self.setting!r} is not known: use {' or '.join(SETTINGS)}")
        unknown = set(self.kinds) - set(KINDS)
        if unknown or not sum(self.kinds.values()) > 0 or min(self.kinds.values()) < 0:
            raise ValueError(f"kinds are {dict(self.kinds)}: give weights of 0 or more to {', '.join(KINDS)}")
        if not 0 <= self.cross_lingual <= 1:
            raise ValueError(f"cross_lingual is {self.cross_lingual}: it is a share, from 0 to 1")
        if min(self.budget_tokens, self.budget_money) < 0:
            raise ValueError(f"budgets are {self.budget_tokens} and {self.budget_money}: give 0 (no bound) or more")
        unpriced = [e.label for e in self.endpoints if e.price_in is None or e.price_out is None]
        if self.budget_money and unpriced:
            raise ValueError(
                f"budget_money is {self.budget_money}, and what {', '.join(unpriced)} costs is not known: set price_in "
                "and price_out of each endpoint in --config (0 for a server of one's own), or give budget_tokens"
            )
        language_shares(self.languages)

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> SynthesisConfig:
        """From a config file's mapping. Raises ValueError that names what is unknown or of another type."""
        given = raw.get("endpoints", [])
        if not isinstance(given, list) or not all(isinstance(endpoint, dict) for endpoint in given):
            raise ValueError(f"endpoints of the config is a {type(given).__name__}: write a list of {{model: ...}}")
        told = [{key: value for key, value in endpoint.items() if value is not None} for endpoint in given]
        made = [Endpoint(**typed(Endpoint, e, f"endpoint {n} of the config")) for n, e in enumerate(told, 1)]
        return cls(**typed(cls, {**raw, "endpoints": made}, "the config"))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Request:
    id: str  # stage, seed, number, and a hash of what is asked
    stage: str
    number: int
    kind: str
    slots: Slots  # the task among them
    messages: list[Message]
    endpoint: str  # its label

    @property
    def schema(self) -> dict[str, Any]:
        return prompts.schema("tasks" if self.stage == "tasks" else self.kind)


@dataclass(frozen=True, slots=True)
class Passage:
    text: str
    language: str = ""  # its name; "": not known


class Plan:
    """All requests of a stage, by number. Raises ValueError where the stage cannot be planned."""

    def __init__(
        self,
        config: SynthesisConfig,
        stage: str,
        tasks: Mapping[str, Sequence[str]] | None = None,
        passages: Sequence[Passage] = (),
    ) -> None:
        self.config, self.stage, self.tasks, self.passages = config, stage, tasks or {}, passages
        self.without_tasks: list[str] = []  # kinds that are wanted, and of which there is no task
        self.without_pair: list[str] = []  # and that take two languages, where one alone has a share
        weights = {kind: config.kinds.get(kind, 0.0) for kind in KINDS}
        shares = language_shares(config.languages)
        crossed = any(p.language in shares for p in passages) if stage == "questions" else weights["short-long"] > 0
        if len(shares) == 1 and config.cross_lingual and crossed:
            raise ValueError(
                f"cross_lingual is {config.cross_lingual}, which takes two languages, and {next(iter(shares))} alone "
                "has a share: give a second one, or cross_lingual 0"
            )
        if stage == "tasks":
            weights = {kind: weights[kind] for kind in ASYMMETRIC}
        elif stage == "examples":
            self.without_tasks = [k for k in ASYMMETRIC if weights[k] and not self.tasks.get(k)]
            self.without_pair = ["bitext"] if weights["bitext"] and len(shares) == 1 else []
            weights |= dict.fromkeys([*self.without_tasks, *self.without_pair], 0.0)
        elif stage == "questions":
            weights = {QUESTION: float(bool(passages))}
        else:
            raise ValueError(f"stage {stage!r} is not known: use {' or '.join(STAGES)}")
        if not any(weights.values()):
            raise ValueError(
                f"stage {stage!r} has nothing to ask: "
                + {
                    "tasks": "no kind with a weight takes tasks",
                    "examples": "bitext takes two languages, and one alone has a share"
                    if self.without_pair and not self.without_tasks
                    else "no kind with a weight has tasks (run stage 'tasks' first, or give --tasks FILE)",
                    "questions": "no passage is given (--passages FILE)",
                }[stage]
            )
        self._setting = SETTINGS[config.setting]
        self._kinds = _Draw({k: w for k, w in weights.items() if w > 0})
        self._endpoints = _Draw({e.label: e.share for e in config.endpoints if e.share > 0})
        self._languages = _Draw(shares)
        self._order = list(range(len(passages)))
        random.Random(f"{config.seed} passages").shuffle(self._order)

    def requests(
        self, count: int, *, shard: tuple[int, int] = (1, 1), endpoint: str = "", skip: bytearray | None = None
    ) -> Iterator[Request]:
        """Numbers 0 to ``count`` - 1: those of a shard (2, 8), of one endpoint, and not marked in ``skip``."""
        for number in range(shard[0] - 1, count, shard[1]):
            if skip is not None and number < len(skip) and skip[number]:
                continue
            if not endpoint or self.endpoint(number) == endpoint:
                yield self.request(number)

    def endpoint(self, number: int) -> str:
        return self._endpoints(random.Random(f"{self.config.seed} {self.stage} {number} endpoint"))

    def request(self, number: int) -> Request:
        rng = random.Random(f"{self.config.seed} {self.stage} {number}")
        if self.stage == "tasks":
            # The first ones go round, so that even a small run has tasks of every kind.
            kind = self._kinds.values[number] if number < len(self._kinds.values) else self._kinds(rng)
            slots: Slots = {}
            messages = prompts.brainstorm_messages(kind, self._setting, rng)
        elif self.stage == "questions":
            kind = QUESTION
            slots = self._question(self.passages[self._order[number % len(self._order)]], rng)
            messages = prompts.example_messages(kind, slots, self._setting, rng)
        else:
            kind = self._kinds(rng)
            slots = self._slots(kind, rng)
            messages = prompts.example_messages(kind, slots, self._setting, rng)
        digest = hashlib.sha256(json.dumps([kind, slots, messages], sort_keys=True).encode()).hexdigest()[:10]
        ident = f"{self.stage}-s{self.config.seed}-{number}-{digest}"
        return Request(ident, self.stage, number, kind, slots, messages, self.endpoint(number))

    def _slots(self, kind: str, rng: random.Random) -> Slots:
        slots = draw_slots(kind, self._setting, rng)
        if kind == "bitext":
            source = self._languages(rng)
            return {"src_lang": source, "tgt_lang": self._other(source, rng), **slots}
        slots = {"language": self._languages(rng), **slots}
        if kind == "short-long" and rng.random() < self.config.cross_lingual:
            # `language` is then the query's, so that its shares stay as they are.
            slots["query_language"] = slots["language"]
            slots["document_language"] = self._other(slots["language"], rng)
        if kind in ASYMMETRIC:
            slots["task"] = rng.choice(self.tasks[kind])
        return slots

    def _question(self, passage: Passage, rng: random.Random) -> Slots:
        asked = self._languages(rng)
        if asked == passage.language and rng.random() < self.config.cross_lingual:
            asked = self._other(asked, rng)
        length = draw_slots("short-long", self._setting, rng)["query_length"]
        slots = {"passage": passage.text, "query_language": asked, "query_length": length}
        return {**slots, "document_language": passage.language} if passage.language else slots

    def _other(self, language: str, rng: random.Random) -> str:
        while (other := self._languages(rng)) == language:
            pass
        return other

    @cached_property
    def fingerprint(self) -> str:
        """Of everything that decides what is asked, the prompts' wording included. Not of the endpoints: a run may
        go on with others."""
        decided = [self.config.seed, self.config.setting, self._kinds.values, self._kinds.sums]
        if self.stage != "tasks":
            given = self.tasks if self.stage == "examples" else [(p.text, p.language) for p in self.passages]
            decided += [given, self._languages.values, self._languages.sums, self.config.cross_lingual]
        digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
        for number in range(64):
            digest.update(self.request(number).id.encode())
        return digest.hexdigest()[:16]


class _Draw:
    """Weighted draws, with the sums made once."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self.values = list(weights)
        self.sums = list(itertools.accumulate(map(float, weights.values())))

    def __call__(self, rng: random.Random) -> str:
        return rng.choices(self.values, cum_weights=self.sums)[0]


def brainstorms_for(examples: int, kinds: Mapping[str, float]) -> int:
    """Brainstorm calls that so many examples of all kinds take, at the paper's 2.1 examples a task."""
    weights = {kind: kinds.get(kind, 0.0) for kind in KINDS}
    asked = [k for k in ASYMMETRIC if weights[k] > 0]
    share = sum(weights[k] for k in asked) / sum(weights.values())
    return max(len(asked), -(-int(examples * share) // int(EXAMPLES_A_TASK * prompts.TASKS_A_CALL)))


def read_tasks(lines: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """kind -> tasks, in the file's order, from records of a tasks file."""
    found: dict[str, list[str]] = {}
    for record in lines:
        if record.get("kind") not in ASYMMETRIC or not isinstance(record.get("task"), str):
            raise ValueError(f"a tasks file holds records of kind and task, got {str(record)[:200]}")
        found.setdefault(record["kind"], []).append(record["task"])
    return found


def read_passages(lines: Iterable[Mapping[str, Any]]) -> list[Passage]:
    """From records of BEIR's corpus.jsonl (``text``, perhaps ``title``), with the code of their language in ``lang``
    where it is known. Raises ValueError for a record without text."""
    passages = []
    for record in lines:
        text = well_formed(f"{record.get('title') or ''} {record.get('text') or ''}").strip()
        if not text:
            raise ValueError(f"a file of passages holds records with a text, got {str(record)[:200]}")
        passages.append(Passage(text, _named(str(record.get("lang") or ""))))
    return passages


def _named(code: str) -> str:
    """``"pt_BR"`` -> Portuguese; "" for a language that no prompt can name."""
    for known in (code, code.replace("_", "-"), code.replace("_", "-").partition("-")[0]):
        try:
            return language(known).name
        except ValueError:
            continue
    return ""


def parse_shard(text: str) -> tuple[int, int]:
    """``"2/8"`` -> (2, 8). Raises ValueError."""
    part, _, whole = text.partition("/")
    if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
        raise ValueError(f"shard {text!r} is not of the form 2/8, from 1/8 to 8/8")
    return int(part), int(whole)


def config_from(path: Path | None, **given: Any) -> SynthesisConfig:
    """A YAML file's config, or none, with what is ``given`` (and not None) in its place."""
    raw = (read_yaml(path.read_text("utf-8"), str(path)) or {}) if path else {}
    if not isinstance(raw, dict):
        raise ValueError(f"{path} is no config: write lines of `key: value`, with `endpoints` among them")
    return SynthesisConfig.read({**raw, **{k: v for k, v in given.items() if v is not None}})
