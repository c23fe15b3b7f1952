"""Is this text in the language that was asked for? Script first, then two identifiers, 191 languages together.

The question is easier than "which language is this?", and is put so that the answer errs on the side of
the writer: a text is turned down when its script is none of the language's, or when every identifier
that knows the language is sure of another one that is not a near relative. A short text proves little,
a product name or an acronym less, so below ``SHORT`` letters only the script counts, and there only for
texts of several words.

Identifiers: CLD2 (pycld2: 163 languages, Apache 2.0, 10 MB) and py3langid (139), which the house has
anyway. On the 1,994 fields of 20 or more characters in tests/synthetic.jsonl.gz, 47 languages,
CLD2's first label is right on 97.9 %, py3langid behind the house's script step on 98.0 %, fastText's
lid.176 on 89.1 % (it knows no Hausa, no Zulu, no Xhosa), HeLI-OTS (heliport, GPL) on 94.0 %.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import regex

from trainer.languages import LANGUAGES, Language

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

SHORT = 30  # letters, an ideograph counting as three: below it identifiers guess
_POSSIBLE = 0.02  # py3langid's probability below which a language is ruled out
_SAMPLE = 4000  # characters
_DENSE = {"Han", "Hiragana", "Katakana", "Hangul", "Ethiopic"}  # a letter is a syllable or a word

_SCRIPTS = sorted({script for known in LANGUAGES.values() for script in known.scripts})
_RUN = regex.compile("|".join(rf"(?P<{s}>[\p{{Script={s}}}--\p{{N}}]+)" for s in _SCRIPTS), regex.VERSION1)
# What is in no language: addresses, code, placeholders, and words with digits or signs inside.
_NOISE = regex.compile(
    r"https?://[!-~]+|[!-~]+@[!-~]+|`[^`]*`|\{[^{}]*\}|<[^<>]*>|[\w.:/\\=-]*[\d_/\\=][\w.:/\\=-]*", regex.ASCII
)

# Twins: written so much alike that either is let pass for the other at any length. A good Zulu text turned
# down costs more than a Xhosa one let through.
_TWINS = (
    "no nb nn da", "hr bs sr cnr", "id ms", "zh zh-Hans zh-Hant yue wuu", "fa ps prs", "ur pnb", "ku ckb kmr sdh",
    "xh zu ss nr", "ru rue", "rw rn", "tn st nso", "he yi", "ro mo", "ar arz ary", "bh hi mai", "es ast an ext",
    "uz uzs", "dz bo",
)  # fmt: skip
# Cousins: told apart in a paragraph, not in a sentence.
_COUSINS = (
    "no nb nn da sv", "hr bs sr cnr sl mk", "bg mk sr ru", "ru uk be bg", "id ms jv su", "cs sk", "jv su", "tg fa",
    "hi mr ne sa bh mai gom", "es ca gl pt it", "oc ca", "it la co", "ro it", "af nl fy", "de nl lb", "ga gd",
    "tr az tk crh uz", "kk ky tt ba uz", "mn ky kk", "ug uz kk ar", "ur fa ps sd ar ku", "am ti om", "fi et",
    "lv lt", "eo ia ie es", "bn as", "so om aa", "mg ms id", "sw rw rn", "tl ceb war bcl",
)  # fmt: skip
PARAGRAPH = 120  # letters from which cousins are told apart


def _kin(groups: tuple[str, ...]) -> dict[str, frozenset[str]]:
    kin: dict[str, set[str]] = {}
    for group in groups:
        for code in group.split():
            kin.setdefault(code, {code}).update(group.split())
    return {code: frozenset(codes) for code, codes in kin.items()}


_TWINS_OF, _COUSINS_OF = _kin(_TWINS), _kin(_COUSINS)

_CODES = {"iw": "he", "jw": "jv", "mo": "ro", "nb": "no", "fil": "tl", "zh-Hant": "zh"}  # the identifiers' own ways


def wrong_language(text: str, asked: Language) -> str | None:
    """None where ``text`` can pass for ``asked``; otherwise what it is instead: a script or a language code."""
    bare = _NOISE.sub(" ", text[:_SAMPLE])
    scripts = _scripts(bare)
    if not scripts:
        return None  # digits, signs, emoji: every language's
    main = max(scripts, key=scripts.__getitem__)
    weight = scripts[main]
    if main not in asked.scripts:
        if main == "Latin" and weight < PARAGRAPH and 4 * sum(scripts[s] for s in asked.scripts) >= weight:
            return None  # a question about a book or a game of a long foreign name
        # "HIV", "iPhone" or "COVID" may stand alone in any language; a phrase may not.
        return main if len(bare.split()) > 2 or weight >= SHORT or main != "Latin" else None
    if weight < SHORT or not _is_shared(main):
        return None
    if asked.code.endswith("-Latn"):  # no identifier knows romanised Hindi: only a sure English is out
        mine = (_cld2_knows() | _py3langid_knows()) - {"en"}
    else:
        mine = frozenset({asked.primary}) | _TWINS_OF.get(asked.primary, frozenset())
        if weight < PARAGRAPH:
            mine |= _COUSINS_OF.get(asked.primary, frozenset())
    first = _cld2(bare, mine)
    if first == "":
        return None
    second = _py3langid(bare, mine)  # ten times slower, and seldom needed
    return None if second == "" else first or second


def _scripts(text: str) -> Counter[str]:
    """Letters of each script, an ideograph or a syllable sign counting as three."""
    found: Counter[str] = Counter()
    for run in _RUN.finditer(text):
        script = run.lastgroup or ""  # a match always has its group's name
        found[script] += len(run.group()) * (3 if script in _DENSE else 1)
    kana = found["Hiragana"] + found["Katakana"]
    if kana:  # Japanese writes both; the kana tell it from Chinese
        found["Hiragana"] += found.pop("Han", 0) + found.pop("Katakana", 0)
    return +found


@cache
def _is_shared(script: str) -> bool:
    """Whether an identifier is needed to tell the script's languages apart."""
    return script == "Han" or sum(script in known.scripts for known in LANGUAGES.values()) > 1


def _cld2(text: str, mine: frozenset[str]) -> str | None:
    """The language it is sure of, ``""`` where that may be one of ``mine``, None where it cannot say."""
    import pycld2

    if not mine & _cld2_knows():
        return None
    try:
        reliable, _, details = pycld2.detect(text.encode("utf-8", "replace"), bestEffort=True)
    except pycld2.error:  # it refuses a few control characters and unassigned letters
        return None
    labels = {_CODES.get(code, code): share for _, code, share, _ in details if code != "un"}
    if not labels:
        return None
    # A second language with a fifth of the text is enough: documents quote.
    possible = not reliable or any(label in mine and share >= 20 for label, share in labels.items())
    return "" if possible else max(labels, key=labels.__getitem__)


def _py3langid(text: str, mine: frozenset[str]) -> str | None:
    """As :func:`_cld2`."""
    if not mine & _py3langid_knows():
        return None
    shares: dict[str, float] = {}
    for label, probability in _model().rank(text):
        code = _CODES.get(str(label), str(label))
        shares[code] = shares.get(code, 0.0) + float(probability)
    possible = sum(shares.get(code, 0.0) for code in mine) >= _POSSIBLE
    return "" if possible else max(shares, key=shares.__getitem__)


@cache
def _cld2_knows() -> frozenset[str]:
    import pycld2

    codes: dict[str, str] = dict(pycld2.LANGUAGES)
    known = {codes[name] for name in pycld2.DETECTED_LANGUAGES}
    return frozenset(_CODES.get(code, code) for code in known)


@cache
def _py3langid_knows() -> frozenset[str]:
    found: set[str] = set()
    for label, _ in _model().rank("a"):
        name = str(label)
        found.add(_CODES.get(name, name))
    return frozenset(found)


@cache
def _model() -> LanguageIdentifier:
    """All of its languages; ragkit.language's holds those that it can tell apart in a query."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
