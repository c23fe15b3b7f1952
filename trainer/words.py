"""Words in any script: how many, and as units for n-grams.

Scripts that put spaces between words are counted by words; those that do not, by characters and how
many of them a word has on average. The averages are of the kind of text that is asked for here; being
off by a third does no harm, since they only tell a text that is far too short from one that is not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

import regex

# Letters and marks a word, by script. Khmer and Burmese stack marks, so a syllable is 3 to 5 of them.
CHARS_PER_WORD = {
    "Han": 1.7, "Hiragana": 2.2, "Katakana": 2.2, "Thai": 4.0, "Lao": 4.0, "Khmer": 5.0, "Myanmar": 6.0,
    "Tibetan": 5.0, "Javanese": 5.0,
}  # fmt: skip

_CHARS = {script: rf"\p{{Script={script}}}" for script in CHARS_PER_WORD}
_CHARS["Katakana"] += "\u30fc\uff70\uff9e\uff9f"  # marks of long vowels and voice, which are Hiragana's too: no script
_UNSPACED = "|".join(rf"(?P<{script}>[{chars}]+)" for script, chars in _CHARS.items())
_NONE = "".join(_CHARS.values())
_SPACED = rf"[[\p{{L}}\p{{M}}\p{{N}}]--[{_NONE}]]+"
_PIECE = regex.compile(rf"{_UNSPACED}|(?P<word>{_SPACED}(?:['’ʼ‑-]{_SPACED})*)", regex.VERSION1)
_LETTERS = regex.compile(r"[\p{L}\p{M}]+")
_WORD_PART = regex.compile(r"[\p{L}\p{M}\p{N}]")


def normalise(text: str) -> str:
    """For comparing: NFKC, case folded, white space as one space, no space at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def count_words(text: str) -> float:
    """Words, or for scripts without spaces about as many as a translation would have."""
    total = 0.0
    for piece in _PIECE.finditer(text):
        script = piece.lastgroup or "word"  # a match always has its group's name
        total += 1 if script == "word" else len(piece.group()) / CHARS_PER_WORD[script]
    return total


def letters(text: str) -> str:
    """Letters and marks alone."""
    return "".join(_LETTERS.findall(text))


def units(text: str) -> Iterator[tuple[str, float]]:
    """Normalised words, or single characters of unspaced scripts, each with the share of a word that it is."""
    for piece in _PIECE.finditer(normalise(text)):
        script = piece.lastgroup or "word"
        if script == "word":
            yield piece.group(), 1.0
        else:
            share = 1 / CHARS_PER_WORD[script]
            yield from ((character, share) for character in piece.group())


def stands_in(needle: str, text: str) -> bool:
    """Whether ``needle`` stands in ``text`` as words of its own: no letter, mark or digit touches it, save where a
    script without spaces leaves no other way. "art" does not stand in "party", but "体育" in "他喜欢体育运动"."""
    needle, text = normalise(needle), normalise(text)
    if not needle:
        return False
    start = text.find(needle)
    while start >= 0:
        end = start + len(needle)
        if _is_edge(text, start) and _is_edge(text, end):
            return True
        start = text.find(needle, start + 1)
    return False


def _is_edge(text: str, position: int) -> bool:
    if not 0 < position < len(text):
        return True
    before, after = text[position - 1], text[position]
    if unicodedata.category(after).startswith("M"):  # in the middle of a syllable, whatever the script
        return False
    if not (_WORD_PART.match(before) and _WORD_PART.match(after)):
        return True
    return _unspaced(before) or _unspaced(after)


def _unspaced(character: str) -> bool:
    piece = _PIECE.match(character)
    return piece is not None and piece.lastgroup != "word"
