r"""BM25 vectors in every language, made in process by the embedded engine's own Bm25 encoder.

The vectors hold the term-frequency side of BM25; the engine multiplies IDF in (``Modifier.IDF``). The
same function serves embedded, local and server stores, so the same text has the same vector everywhere.
A text yields two kinds of terms. *Words*, without the language's stop words where the engine has a list.
And *grams*, pieces of four letters (two where a letter is a syllable or an ideograph) with the word's
ends marked: they find inflected and compounded words in any language with no stemmer, no dictionary and
no agreement about the language, which a stem needs. Mean ndcg@10 on 29 sets in 24 languages:

    words at white space          0.646     the engine's default tokenizer: 0.001 in Japanese
    words, multilingual           0.827
      without stop words          0.833
      and Snowball stems          0.846     10 of the 24 languages have a stemmer
      or grams instead of stems   0.891     Korean 0.61 -> 0.90, Telugu 0.81 -> 0.92, Russian 0.85 -> 0.91
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import regex

if TYPE_CHECKING:
    from qdrant_edge import Bm25

SCHEME = "words+grams-3"  # kept with a collection: vectors of another scheme do not match these

_STOP_WORDS = {
    "ar": "Arabic", "az": "Azerbaijani", "bn": "Bengali", "ca": "Catalan", "da": "Danish", "de": "German",
    "el": "Greek", "en": "English", "es": "Spanish", "eu": "Basque", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "kk": "Kazakh",
    "nb": "Norwegian", "ne": "Nepali", "nl": "Dutch", "nn": "Norwegian", "no": "Norwegian", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sl": "Slovene", "sv": "Swedish", "tg": "Tajik", "tr": "Turkish",
    "zh": "Chinese",
}  # fmt: skip

# Those of the engine's lists that have a dotless i, as _folded leaves them.
_FOLDED = {
    "az": {"alti", "arasinda", "artiq", "bunlarin", "haqqinda", "i", "olmadi", "qirx", "xanim", "yalniz"},
    "tr": {"aslinda", "bazi", "mi", "nasil"},
}

# Average length of a passage, for BM25's length normalisation. One constant for all languages, in the
# middle of the dev sets' averages (50 to 270 words, 220 to 870 grams): half of it costs 0.006 of the mean
# ndcg@10, twice of it 0.001.
_WORDS = 100
_GRAMS = 400
_GRAM_WEIGHT = 0.7  # of a query's gram beside its word: a word has several, and they overlap

_DENSE = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Ethiopic}々ー"  # a letter is a syllable or more
_RUN = regex.compile(rf"(?V1)(?P<dense>[{_DENSE}]+)|[[\p{{L}}\p{{N}}\p{{M}}]--[{_DENSE}]]+")
_VOWEL_SIGNS = regex.compile("[\u064b-\u0652\u0670\u0640]")  # of Arabic script, and tatweel
_SHAPES = regex.compile("[\ufb50-\ufdff\ufe70-\ufefc]+")  # of Arabic letters, as PDFs have them
_ARABIC = str.maketrans("أإآٱىکی", "اااايكي")
_JOINERS = regex.compile("[\u00ad\u200d]")  # soft hyphen, zero-width joiner: inside a word, not its end


@dataclass(frozen=True, slots=True)
class SparseVector:
    """``indices`` are hashes of terms, sorted; one value each."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


def sparse_passage(text: str, lang: str) -> SparseVector:
    """Term-frequency weights of a passage in language ``lang`` (BCP-47; ``und`` and any other work too)."""
    text = _folded(well_formed(text))
    words, grams = _words(lang).embed_document(text), _grams().embed_document(_cut(text))
    return _merge((words.indices, words.values), (grams.indices, grams.values))


def sparse_query(text: str, lang: str) -> SparseVector:
    """A query's terms: 1 for each word, less for each gram."""
    text = _folded(well_formed(text))
    words, grams = _words(lang).embed_query(text), _grams().embed_query(_cut(text))
    return _merge((words.indices, words.values), (grams.indices, [_GRAM_WEIGHT] * len(grams.indices)))


def coverage(query: SparseVector, passage: SparseVector) -> float:
    """The share of the query's weight whose terms the passage has, 0 to 1."""
    has = set(passage.indices)
    total = sum(query.values)
    return sum(v for i, v in zip(query.indices, query.values, strict=True) if i in has) / total if total else 0.0


def well_formed(text: str) -> str:
    """``text`` with lone surrogates (of broken JSON or file names) replaced by U+FFFD: UTF-8 has no place for them."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _folded(text: str) -> str:
    """``text`` in NFC, with what is written two ways written one way.

    One small i: Turkish ``ı`` and ``İ`` have the capital and the small letter of other languages' i, and lower-casing
    that knows no language parts ``ısı`` from ``Isı`` and leaves a dot (U+0307) of ``İ``. One alef, kaf and yeh, no
    shapes and no vowel signs: ``أحمد`` is typed ``احمد``, and Persian has ``ک ی`` or, from Arabic keyboards, ``ك ي``.
    Accents of Latin letters stay, which tell words apart: without them Vietnamese loses more than it gains
    (EXPERIMENTS.md).
    """
    text = _SHAPES.sub(lambda run: unicodedata.normalize("NFKC", run.group()), unicodedata.normalize("NFC", text))
    for other in ("ı", "İ", "i\u0307"):
        text = text.replace(other, "i")
    return _VOWEL_SIGNS.sub("", text).translate(_ARABIC)


def _cut(text: str) -> str:
    """The grams of ``text``, with spaces between: ``Wien`` -> ``^wie wien ien$``, each behind a ``#`` that
    keeps it from hashing as a word."""
    grams: list[str] = []
    for run in _RUN.finditer(_JOINERS.sub("", unicodedata.normalize("NFKC", text).lower())):
        size = 2 if run.lastgroup else 4
        marked = f"^{run.group()}$"
        grams += ["#" + marked[i : i + size] for i in range(max(1, len(marked) - size + 1))]
    return " ".join(grams)


@lru_cache
def _words(lang: str) -> Bm25:
    edge = _engine()
    base = lang.partition("-")[0]
    name = _STOP_WORDS.get(base)
    return edge.Bm25(
        edge.Bm25Config(
            tokenizer=edge.TokenizerType.Multilingual,  # segments Chinese, Japanese and Thai
            stopwords=edge.StopwordsSet(
                languages={getattr(edge.Language, name)} if name else set(), custom=_FOLDED.get(base, set())
            ),
            stemmer=edge.DisabledStemmer(),
            avg_len=_WORDS,
        )
    )


@lru_cache
def _grams() -> Bm25:
    edge = _engine()
    return edge.Bm25(
        edge.Bm25Config(
            tokenizer=edge.TokenizerType.Whitespace,
            stopwords=edge.StopwordsSet(languages=set(), custom=set()),
            stemmer=edge.DisabledStemmer(),
            avg_len=_GRAMS,
        )
    )


def _engine() -> Any:
    try:
        import qdrant_edge
    except ImportError as error:
        raise RuntimeError(
            f"BM25 vectors are made by the embedded engine, which is not available here ({error}): "
            "install qdrant-edge-py on a platform it has a wheel for"
        ) from error
    return qdrant_edge


def _merge(*parts: tuple[Sequence[int], Sequence[float]]) -> SparseVector:
    terms: dict[int, float] = {}
    for indices, values in parts:
        for index, value in zip(indices, values, strict=True):
            terms[index] = terms.get(index, 0.0) + value
    indices = sorted(terms)
    return SparseVector(tuple(indices), tuple(terms[i] for i in indices))
