"""The six kinds of examples, their shares, and the slots of their prompts (arXiv 2401.00368, tables 8 to 13).

The slots and their values are the paper's, so data made here can be compared with what others made. Two
settings: ``paper`` draws every value evenly and keeps the guidelines in order; ``weighted`` draws as the
authors' later code does (SPEED, method reference 1.6), shuffles the guidelines and says the difficulty in
half of the prompts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ASYMMETRIC = ("short-long", "long-short", "short-short", "long-long")
SYMMETRIC = ("sts", "bitext")
KINDS = (*ASYMMETRIC, *SYMMETRIC)
QUESTION = "question"  # about a passage that is there already: none of the paper's, and of a stage of its own

# Figure 2 of the paper (v3): thousands of examples of each kind.
KIND_WEIGHTS = {"short-long": 167, "long-short": 122, "sts": 99, "bitext": 89, "long-long": 17, "short-short": 13}

Slots = dict[str, Any]
Values = Mapping[Any, float]  # value -> weight


@dataclass(frozen=True, slots=True)
class Setting:
    slots: Mapping[str, Mapping[str, Values]]  # kind -> slot -> value -> weight
    shuffle: bool  # the guidelines' and seed examples' order
    difficulty: float  # share of the prompts that say the difficulty


def _even(*values: Any) -> Values:
    return dict.fromkeys(values, 1.0)


_CLARITY = ("clear", "understandable with some effort", "ambiguous")
_LEVELS = _even("high school", "college", "PhD")
_PAIR = {"high_score": _even(4, 4.5, 5), "difficulty": _even("elementary school", "high school", "college")}
_UNITS = ("sentence", "phrase", "passage")
_INPUT_WORDS = ("less than 10", "at least 10", "at least 50", "at least 100", "at least 200")

PAPER: dict[str, dict[str, Values]] = {
    "short-long": {
        "query_type": _even("extremely long-tail", "long-tail", "common"),
        "query_length": _even("less than 5 words", "5 to 15 words", "at least 10 words"),
        "clarity": _even(*_CLARITY),
        "difficulty": _LEVELS,
        "num_words": _even(50, 100, 200, 300, 400, 500),
    },
    "long-short": {"num_words": _even(*_INPUT_WORDS), "clarity": _even(*_CLARITY), "difficulty": _LEVELS},
    "short-short": {},
    "long-long": {},
    "sts": {"unit": _even(*_UNITS), "low_score": _even(2.5, 3, 3.5), **_PAIR},
    "bitext": {"unit": _even(*_UNITS), "low_score": _even(1.5, 2, 2.5), **_PAIR},
}
_CLEARER = dict(zip(_CLARITY, (0.6, 0.2, 0.2), strict=True))
_SENTENCES = dict(zip(_UNITS, (0.9, 0.05, 0.05), strict=True))
_WEIGHTED = {
    **PAPER,
    "short-long": {
        **PAPER["short-long"],
        "query_type": {"extremely long-tail": 0.4, "long-tail": 0.5, "common": 0.1},
        "query_length": {"less than 5 words": 0.4, "5 to 15 words": 0.4, "at least 10 words": 0.2},
        "clarity": _CLEARER,
    },
    "long-short": {
        **PAPER["long-short"],
        "num_words": dict(zip(_INPUT_WORDS, (0.1, 0.3, 0.2, 0.2, 0.2), strict=True)),
        "clarity": _CLEARER,
    },
    "sts": {**PAPER["sts"], "unit": _SENTENCES},
    # The later code has no bitext; a translation unit is a sentence as often as one of STS is.
    "bitext": {**PAPER["bitext"], "unit": _SENTENCES},
}
SETTINGS = {"paper": Setting(PAPER, False, 1.0), "weighted": Setting(_WEIGHTED, True, 0.5)}


def draw_slots(kind: str, setting: Setting, rng: random.Random) -> Slots:
    """A value for each of the kind's slots; ``difficulty`` is missing where the prompt is not to say it."""
    slots = {name: rng.choices(list(values), list(values.values()))[0] for name, values in setting.slots[kind].items()}
    if "difficulty" in slots and rng.random() >= setting.difficulty:
        del slots["difficulty"]
    return slots
