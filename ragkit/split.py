"""Text -> sentences -> passages sized in the encoder's own tokens. Pure: text in, text out.

sentencex finds sentence ends in some 250 languages (abbreviations, danda, the Ethiopic, Arabic, Urdu
and CJK stops). What it does not know is added here: Khmer and Tibetan stops, and Thai and Lao, which
have no stop at all and end a thought with a space. Line breaks end a sentence too, unless the next
line goes on in lower case, as hard-wrapped prose does.

Passages are slices of the text, edges trimmed: nothing but white space is lost, nothing is repeated.
Whole sentences are packed up to the limit; among the places that fill at least half of it, a passage
ends where a paragraph does, and never right after a heading. A sentence over the limit is cut at white
space or a CJK comma, else between grapheme clusters, never inside one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import regex
from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]  (Rust, no stubs)

from ragkit.types import UNDETERMINED

CountTokens = Callable[[Sequence[str]], list[int]]

SPLIT_VERSION = 3  # part of every document's hash: raise it when the same text would make other passages

_GRAPHEME = regex.compile(r"\X")
_JOINS = regex.compile(r"[\p{GCB=Extend}\p{GCB=SpacingMark}\u200d]")  # belongs to the character before it
_SURROGATE = regex.compile(r"[\ud800-\udfff]")
_LINE_END = regex.compile(r"\n\s*\n\s*|\n[^\S\n]*(?!\s|\p{Ll})|\u2029\s*")
_STOP = regex.compile(r"[\u17d4\u17d5\u0f0d\u0f0e]+\s*")  # Khmer and Tibetan; sentencex 1.0.32 lacks them
_SPACE = regex.compile(r"(?<=[\p{Thai}\p{Lao}])\s+(?=[\p{Thai}\p{Lao}])")
_NO_STOP = regex.compile(r"\p{Thai}\.\s*\Z")  # an abbreviation: Thai ends no sentence with a full stop
_THOUGHT = 40  # characters of Thai or Lao: a shorter stretch (a date, half a name) joins the next one
_HEADING = 80  # characters, at most
_ENDED = regex.compile(r"[\p{STerm}\p{Po}][\p{Pe}\p{Pf}\p{Pi}\"']*\s*\Z")
# White space, and the commas, colons and semicolons of scripts that do without it.
_CUT_AFTER = regex.compile(r"[\s\u3001\uff0c\uff1b\uff1a\u060c\u061b\u1363\u1364\u104a]")

# How good a place is for a passage to end. Never after a heading, if there is any choice.
_AFTER_HEADING, _IN_SENTENCE, _SENTENCE, _PARAGRAPH = range(4)


class _Span(NamedTuple):
    start: int  # characters into the text
    end: int
    tokens: int
    bond: int  # what the end of this span is, as above


def split_sentences(text: str, lang: str = UNDETERMINED) -> list[str]:
    """The sentences of ``text`` in order, edges trimmed, none empty."""
    return [sentence for start, end, _ in _sentences(text, lang) if (sentence := text[start:end].strip())]


def split_passages(text: str, lang: str, count_tokens: CountTokens, max_tokens: int) -> list[str]:
    """Passages of at most ``max_tokens`` tokens, as ``count_tokens`` counts them.

    A single grapheme cluster that exceeds the limit by itself is left whole. ``count_tokens`` is
    called once with all sentences, once with all passages, and once more per round of cutting.
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}: give the tokens a passage may hold")
    if not text.strip():
        return []
    spans = _fit(text, _sentences(text, lang), count_tokens, max_tokens)
    done: dict[int, list[_Span]] = {}  # by the start of the passage
    groups = _pack(spans, max_tokens)
    while groups:
        # A joined text may count more tokens than its parts: what does not fit is halved.
        counts = count_tokens([_slice(text, group) for group in groups])
        halves: list[list[_Span]] = []
        for group, count in zip(groups, counts, strict=True):
            if count <= max_tokens or len(group) == 1:
                done[group[0].start] = group
            else:
                cut = _middle(group)
                halves += [group[:cut], group[cut:]]
        groups = halves
    return [_slice(text, done[start]) for start in sorted(done)]


def _slice(text: str, group: Sequence[_Span]) -> str:
    return text[group[0].start : group[-1].end].strip()


def _sentences(text: str, lang: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, bond) of each sentence; together they cover the text, white space included."""
    safe = _SURROGATE.sub("\ufffd", text)  # sentencex is Rust and takes no lone surrogates; same length
    for start, end in _between(safe, 0, len(text), (match.end() for match in _LINE_END.finditer(safe))):
        if not safe[start:end].strip():
            continue
        line = safe[start:end]
        heading = end < len(text) and len(line) <= _HEADING and not _ENDED.search(line)
        last = _AFTER_HEADING if heading else _PARAGRAPH
        full = len(line.rstrip())  # the white space behind is no sentence of its own
        stops = (start + offset for offset in _stops(line, lang) if offset < full)
        for left, right in _between(safe, start, end, stops):
            yield left, right, last if right == end else _SENTENCE


def _stops(line: str, lang: str) -> Iterator[int]:
    """Offsets in ``line`` at which a sentence ends."""
    offset = 0
    for sentence in segment(lang if lang != UNDETERMINED else "en", line):
        begin = 0
        for match in sorted([*_STOP.finditer(sentence), *_SPACE.finditer(sentence)], key=lambda match: match.end()):
            if match.re is _STOP or match.start() - begin >= _THOUGHT:
                begin = match.end()
                yield offset + begin
        offset += len(sentence)
        if not _NO_STOP.search(sentence):
            yield offset


def _between(text: str, start: int, end: int, cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """``start`` to ``end`` in stretches, cut where asked but not before a combining mark."""
    return pairwise([start, *(cut for cut in cuts if start < cut < end and not _JOINS.match(text, cut)), end])


def _fit(
    text: str, sentences: Iterable[tuple[int, int, int]], count_tokens: CountTokens, max_tokens: int
) -> list[_Span]:
    """Count every sentence; cut those over the limit until all pieces fit or cannot be cut."""
    pieces = list(sentences)
    spans: list[_Span] = []
    while pieces:
        # Line breaks are tokens in the joined text, a space belongs to the word after it.
        counts = count_tokens([text[start:end].strip(" ") for start, end, _ in pieces])
        over: list[tuple[int, int, int]] = []
        for (start, end, bond), tokens in zip(pieces, counts, strict=True):
            parts = _cut(text, start, end, -(-tokens // max_tokens)) if tokens > max_tokens else []
            if len(parts) > 1:
                over += [
                    (left, right, bond if right == end else _IN_SENTENCE)
                    for left, right in parts
                    if text[left:right].strip()
                ]
            else:
                spans.append(_Span(start, end, tokens, bond))
        pieces = over
    return sorted(spans)


def _cut(text: str, start: int, end: int, parts: int) -> list[tuple[int, int]]:
    """At least ``parts`` stretches, cut at white space, or between graphemes where there is none.

    Stretches may come out short (a word before a long run): packing joins them again.
    """
    clusters = [match.end() for match in _GRAPHEME.finditer(text, start, end)]
    size = max(1, len(clusters) // parts)
    cuts: list[int] = []
    done = 0  # clusters before the last cut
    while len(clusters) - done > size:
        spaces = (at for at in range(done + size, done, -1) if _CUT_AFTER.match(text, clusters[at - 1] - 1))
        done = next(spaces, done + size)
        cuts.append(clusters[done - 1])
    return list(_between(text, start, end, cuts))


def _pack(spans: Sequence[_Span], max_tokens: int) -> list[list[_Span]]:
    groups: list[list[_Span]] = []
    rest, total = list[_Span](), 0
    for span in spans:
        while rest and total + span.tokens > max_tokens:
            cut = _best_end(rest, max_tokens // 2)
            groups.append(rest[:cut])
            rest = rest[cut:]
            total = sum(kept.tokens for kept in rest)
        rest.append(span)
        total += span.tokens
    return [*groups, rest] if rest else groups


def _best_end(group: Sequence[_Span], at_least: int) -> int:
    """How many spans of ``group`` the next passage takes: the best bond, then the fullest passage."""
    best, best_bond, total = len(group), -1, 0
    for index, span in enumerate(group, 1):
        total += span.tokens
        if (total >= at_least or index == len(group)) and span.bond >= best_bond:
            best, best_bond = index, span.bond
    if best_bond == _AFTER_HEADING:  # only headings fill half: end before them, if anything stands there
        return next((index for index in range(best, 0, -1) if group[index - 1].bond != _AFTER_HEADING), best)
    return best


def _middle(group: Sequence[_Span]) -> int:
    """How many spans the first half of ``group`` takes: the best bond, then the nearest to the middle."""
    filled = list(accumulate(span.tokens for span in group))
    return max(range(1, len(group)), key=lambda cut: (group[cut - 1].bond, -abs(2 * filled[cut - 1] - filled[-1])))
