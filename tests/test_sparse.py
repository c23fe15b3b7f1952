"""BM25 vectors: every language, the same vector every time, and nothing that crashes."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from ragkit.sparse import SparseVector, coverage, sparse_passage, sparse_query, well_formed

# language, a passage, a question that shares its inflected words with it, and one about something else
SAMPLES = [
    ("am", "ቤተ መጻሕፍቱ ሰኞ ተዘግቷል", "ቤተ መጻሕፍት መቼ ይዘጋል", "ውሃ ማሞቂያ ተበላሸ"),
    ("ar", "تفتح المكتبة أبوابها يوم الاثنين", "متى تفتح مكتبة المدينة", "تعطل سخان الماء"),
    ("bn", "গ্রন্থাগারটি সোমবার খোলে", "গ্রন্থাগার কবে খোলে", "পানির হিটার নষ্ট"),
    ("de", "Die Stadtbibliothek öffnet montags", "Wann öffnet die Bibliothek", "Der Boiler tropft"),
    ("en", "The libraries open on Mondays", "when does the library open", "a broken boiler"),
    ("es", "Las bibliotecas abren los lunes", "cuándo abre la biblioteca", "un calentador roto"),
    ("fa", "کتابخانه‌ها دوشنبه باز می‌شوند", "کتابخانه کی باز می‌شود", "آبگرمکن خراب است"),
    ("fi", "Kirjastot avataan maanantaisin", "milloin kirjasto avautuu", "rikkinäinen lämmitin"),
    ("fr", "Les bibliothèques ouvrent le lundi", "quand ouvre la bibliothèque", "un chauffe-eau cassé"),
    ("he", "הספרייה נפתחת ביום שני", "מתי נפתחות הספריות", "הדוד מקולקל"),
    ("hi", "पुस्तकालय सोमवार को खुलता है", "पुस्तकालयों के खुलने का समय", "गीज़र खराब"),
    ("id", "Perpustakaan dibuka hari Senin", "kapan perpustakaannya buka", "pemanas air rusak"),
    ("ja", "図書館は月曜日に開館します", "図書館はいつ開館するか", "給湯器が壊れた"),
    ("ko", "도서관은 월요일에 문을 엽니다", "도서관이 언제 여나요", "보일러 고장"),
    ("pt", "As bibliotecas abrem às segundas", "quando abre a biblioteca", "aquecedor avariado"),
    ("ru", "Библиотеки открываются в понедельник", "когда открывается библиотека", "сломанный бойлер"),
    ("sv", "Biblioteken öppnar på måndagar", "när öppnar biblioteket", "en trasig panna"),
    ("sw", "Maktaba hufunguliwa Jumatatu", "maktaba inafunguliwa lini", "hita ya maji imeharibika"),
    ("te", "గ్రంథాలయం సోమవారం తెరుస్తారు", "గ్రంథాలయాన్ని ఎప్పుడు తెరుస్తారు", "హీటర్ పాడైంది"),
    ("th", "ห้องสมุดเปิดวันจันทร์", "ห้องสมุดเปิดเมื่อไร", "เครื่องทำน้ำอุ่นเสีย"),
    ("tr", "Kütüphaneler pazartesi günü açılır", "kütüphane ne zaman açılıyor", "bozuk kombi"),
    ("vi", "Thư viện mở cửa vào thứ Hai", "khi nào thư viện mở cửa", "bình nước nóng hỏng"),
    ("zh", "图书馆星期一开放", "图书馆什么时候开放", "热水器坏了"),
    ("zh-Hant", "圖書館星期一開放", "圖書館什麼時候開放", "熱水器壞了"),
    ("und", "Bibliotheca aperitur", "quando bibliothecae aperiuntur", "caldarium fractum"),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "passage", "query", "other"), SAMPLES, ids=[s[0] for s in SAMPLES])
def test_inflected_words_are_found_in_every_language(lang: str, passage: str, query: str, other: str) -> None:
    stored = sparse_passage(passage, lang)
    assert coverage(sparse_query(query, lang), stored) > 2 * coverage(sparse_query(other, lang), stored)
    assert coverage(sparse_query(passage, lang), stored) == pytest.approx(1.0)


def test_indices_are_sorted_unique_and_of_32_bits() -> None:
    vector = sparse_passage("Wien, Wien, nur du allein", "de")
    assert list(vector.indices) == sorted(set(vector.indices))
    assert len(vector.values) == len(vector.indices)
    assert 0 <= vector.indices[0] <= vector.indices[-1] < 2**32


def test_a_query_weighs_words_over_grams_and_ignores_repetition() -> None:
    once = sparse_query("Wien", "de")
    assert sorted(once.values) == pytest.approx([0.7, 0.7, 0.7, 1.0])  # ^wie wien ien$ and the word itself
    assert sparse_query("Wien Wien WIEN", "de") == once


@pytest.mark.parametrize("times", [1, 3])
def test_a_repeated_word_saturates_as_bm25_says(times: int) -> None:
    k1, b, average = 1.2, 0.75, 100  # Robertson & Zaragoza 2009, with the engine's k1 and b
    expected = times * (k1 + 1) / (times + k1 * (1 - b + b * times / average))
    [word] = [i for i, v in zip(*_parts(sparse_query("Wien", "de")), strict=True) if v == 1.0]
    passage = dict(zip(*_parts(sparse_passage("Wien " * times, "de")), strict=True))
    assert passage[word] == pytest.approx(expected, rel=1e-6)


def _parts(vector: SparseVector) -> tuple[tuple[int, ...], tuple[float, ...]]:
    return vector.indices, vector.values


def test_stop_words_of_the_language_are_not_words() -> None:
    assert 1.0 not in sparse_query("der die das", "de").values
    assert sparse_query("der die das", "xx").values.count(1.0) == 3  # a language without a list


def test_script_variants_and_regions_use_the_language_s_stop_words() -> None:
    assert sparse_query("the timetable", "en-GB") == sparse_query("the timetable", "en")


@pytest.mark.parametrize("text", ["", " ", "\n\t", "😀👩‍👩‍👧", "\ud800", "…—!?"])
def test_texts_without_words_have_no_terms(text: str) -> None:
    assert sparse_query(text, "en") == SparseVector((), ())
    assert sparse_passage(text, "en") == SparseVector((), ())


def test_lone_surrogates_do_not_disturb_their_neighbours() -> None:
    assert sparse_query("Fähre \ud800 Lindau \udfff", "de") == sparse_query("Fähre  Lindau", "de")
    assert well_formed("a\ud800b") == "a\ufffdb"
    assert well_formed("\ud83d\ude00 ሰላም") == "😀 ሰላም"  # a pair is a character


def test_width_case_and_soft_hyphens_make_no_difference_to_grams() -> None:
    assert coverage(sparse_query("ＡＢＣＤ１２", "en"), sparse_passage("abcd12", "en")) >= 0.7
    assert coverage(sparse_query("Donau\u00addampf", "de"), sparse_passage("Donaudampf", "de")) >= 0.7


@pytest.mark.parametrize("lang", ["tr", "az", "kk", "en", "und"])
@pytest.mark.parametrize(
    ("small", "capital"),
    [("ısı", "Isı"), ("ışık hızı", "IŞIK HIZI"), ("ırmak", "Irmak"), ("istanbul", "İstanbul"), ("iğne", "İĞNE"),
     ("i\u0307zmir", "I\u0307ZMİR"), ("berlin", "Berlin")],
)  # fmt: skip
def test_capitals_of_both_kinds_of_i_match_in_every_language(lang: str, small: str, capital: str) -> None:
    for query, passage in ((small, capital), (capital, small)):
        assert coverage(sparse_query(query, lang), sparse_passage(passage, lang)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("lang", "written", "typed"),
    [
        ("ar", "أحمد إلى آخر", "احمد الى اخر"),
        ("ar", "كِتَابٌ مُفِيدٌ", "كتاب مفيد"),
        ("ar", "على المستشفى", "علي المستشفي"),
        ("ar", "العـــراق", "العراق"),
        ("fa", "کتاب فارسی", "كتاب فارسي"),
        ("vi", unicodedata.normalize("NFD", "Thư viện mở cửa"), "Thư viện mở cửa"),
        ("fr", unicodedata.normalize("NFD", "éléphant"), "éléphant"),
    ],
)
def test_what_is_written_two_ways_is_one(lang: str, written: str, typed: str) -> None:
    assert sparse_query(written, lang) == sparse_query(typed, lang)
    assert sparse_passage(written, lang) == sparse_passage(typed, lang)


@pytest.mark.parametrize(("lang", "shapes", "typed"), [("ar", "ﺃﺣﻤﺪ", "احمد"), ("fa", "ﻓﺎﺭﺳﯽ", "فارسی")])
def test_letters_as_pdfs_have_them_are_letters(lang: str, shapes: str, typed: str) -> None:
    assert coverage(sparse_query(typed, lang), sparse_passage(shapes, lang)) == pytest.approx(1.0)


def test_accents_tell_words_apart() -> None:
    assert coverage(sparse_query("bán", "vi"), sparse_passage("bàn", "vi")) < 0.5


def test_stop_words_with_a_dotless_i_stay_stop_words() -> None:
    for lang, text in (("tr", "aslında bazı mı nasıl NASIL"), ("az", "altı arasında artıq haqqında qırx xanım yalnız")):
        assert 1.0 not in sparse_query(text, lang).values


def test_names_and_numbers_match_across_languages() -> None:
    assert coverage(
        sparse_query("BR-218 Lindau", "en"), sparse_passage("รถไฟ BR-218 ไป Lindau", "th")
    ) == pytest.approx(1)


def test_coverage_is_the_share_of_the_query_s_weight() -> None:
    query = SparseVector((1, 2, 3), (1.0, 0.5, 0.5))
    assert coverage(query, SparseVector((2, 9), (7.0, 7.0))) == pytest.approx(0.25)
    assert coverage(query, SparseVector((), ())) == 0.0
    assert coverage(SparseVector((), ()), query) == 0.0


def test_without_the_engine_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from ragkit import sparse

    monkeypatch.setitem(sys.modules, "qdrant_edge", None)  # what a missing package looks like to import
    sparse._words.cache_clear()
    with pytest.raises(RuntimeError, match="install qdrant-edge-py"):
        sparse_query("hello", "en")
