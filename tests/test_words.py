from __future__ import annotations

import re
import string

import pytest

from apps.words import LANGUAGES, RIGHT_TO_LEFT, Words, messages, negotiate

ENGLISH = messages("en")


def gaps(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_says_all_of_it(language: str):
    said = messages(language)
    assert said.keys() == ENGLISH.keys()
    assert {name for name in said if gaps(said[name]) != gaps(ENGLISH[name])} == set()
    assert all(text.strip() == text and text for text in said.values())


@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "en"])
def test_it_is_said_in_that_language(language: str):
    """Names and commands stay; a message of two words or more does not."""
    same = [name for name, text in messages(language).items() if text == ENGLISH[name] and " " in text]
    assert same == []


@pytest.mark.parametrize(
    ("language", "script"),
    [("ar", "Arabic"), ("he", "Hebrew"), ("fa", "Arabic"), ("ur", "Arabic"), ("hi", "Devanagari"), ("am", "Ethiopic"),
     ("ja", "Hiragana"), ("zh", "Han")],
)  # fmt: skip
def test_in_its_own_script(language: str, script: str):
    import regex

    plain = [re.sub(r"\{\w+\}", "", text) for text in messages(language).values()]
    own = sum(bool(regex.search(rf"\p{{{script}}}", text)) for text in plain)
    assert own >= (0.5 if script == "Hiragana" else 0.93) * len(plain)


def test_numbers_and_names_are_the_languages_own():
    assert Words("de")("hit.rank", value=1234) != Words("en")("hit.rank", value=1234)
    assert "1.234" in Words("de")("hit.rank", value=1234)
    assert Words("fr").name_of("am") == "amharique"
    assert Words("en").name_of("zh-Hant") == "Chinese (Traditional)"
    assert Words("en").name_of("x-none") == "x-none"
    assert Words("en").name_of("und") == "Unknown language"
    assert {code for code in LANGUAGES if Words(code).direction == "rtl"} == RIGHT_TO_LEFT


def test_what_no_language_is_gets_english():
    assert Words("tlh").language == "en"


@pytest.mark.parametrize(
    ("asked", "cookie", "header", "expected"),
    [
        ("ar", "de", "fr", "ar"),
        (None, "de", "fr", "de"),
        ("tlh", None, "fr-CH, en;q=0.9", "fr"),
        (None, None, "tlh, am;q=0.4, hi-IN;q=0.8", "hi"),
        (None, None, "en;q=0, ur;q=0.1", "ur"),
        (None, None, "iw-IL", "he"),
        (None, None, "de;q=oops, zh-Hans-CN", "zh"),
        (None, None, "", "en"),
    ],
)
def test_a_visitors_language(asked: str | None, cookie: str | None, header: str, expected: str):
    assert negotiate(asked, cookie, header) == expected
