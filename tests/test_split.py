"""Sentence ends of many scripts; passages that lose nothing, keep the limit and cut no grapheme."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from ragkit.split import split_passages, split_sentences


def characters(texts: Sequence[str]) -> list[int]:
    return [len(text) for text in texts]


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def visible(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(
    ("lang", "text", "sentences"),
    [
        ("am", "ሰላም ነው። እንዴት ነህ? ደህና ነኝ፧ አዎ", ["ሰላም ነው።", "እንዴት ነህ?", "ደህና ነኝ፧", "አዎ"]),
        ("ar", "مرحبا بك. كيف حالك؟ أنا بخير!", ["مرحبا بك.", "كيف حالك؟", "أنا بخير!"]),
        ("bo", "བོད་ཡིག། གཉིས་པ།", ["བོད་ཡིག།", "གཉིས་པ།"]),
        ("en", "Dr. Smith paid $3.50. He left at 5 p.m. today.", ["Dr. Smith paid $3.50.", "He left at 5 p.m. today."]),
        ("hi", "यह एक वाक्य है। क्या यह दूसरा है? हाँ।", ["यह एक वाक्य है।", "क्या यह दूसरा है?", "हाँ।"]),
        ("ja", "これは文です。次は？はい！終わり", ["これは文です。", "次は？", "はい！", "終わり"]),
        ("km", "នេះជាប្រយោគ។ នេះជាប្រយោគទីពីរ។ បាទ៕ ទេ", ["នេះជាប្រយោគ។", "នេះជាប្រយោគទីពីរ។", "បាទ៕", "ទេ"]),
        ("my", "ဒါဟာ ဝါကျ ဖြစ်တယ်။ နောက်တစ်ခု။", ["ဒါဟာ ဝါကျ ဖြစ်တယ်။", "နောက်တစ်ခု။"]),
        ("ur", "یہ ایک جملہ ہے۔ کیا یہ دوسرا ہے؟ ہاں", ["یہ ایک جملہ ہے۔", "کیا یہ دوسرا ہے؟", "ہاں"]),
        (
            "zh",
            "你好。今天天气很好！你要去哪里？“我去。”他说。",
            ["你好。", "今天天气很好！", "你要去哪里？", "“我去。”", "他说。"],
        ),
        (
            "th",  # no stop: a space after a thought of some length, not the one inside a name or a date
            "สมชาย ใจดี ทำงานที่ห้องสมุดประชาชนกรุงเทพมหานคร วันนี้อากาศดีมากเลย",
            ["สมชาย ใจดี ทำงานที่ห้องสมุดประชาชนกรุงเทพมหานคร", "วันนี้อากาศดีมากเลย"],
        ),
        ("th", "เกิดเมื่อปี พ.ศ. 2476 ที่กรุงเทพฯ", ["เกิดเมื่อปี พ.ศ. 2476 ที่กรุงเทพฯ"]),
        ("und", "One 😀. Two 👨‍👩‍👧! 三。四", ["One 😀.", "Two 👨‍👩‍👧!", "三。", "四"]),
        ("en", "A heading\nA line that\ngoes on. Next", ["A heading", "A line that\ngoes on.", "Next"]),
        ("en", " \n ", []),
        ("en", "a\ud800b. Then.", ["a\ud800b.", "Then."]),
    ],
)
def test_sentences(lang: str, text: str, sentences: list[str]) -> None:
    assert split_sentences(text, lang) == sentences


def test_whole_sentences_are_packed() -> None:
    text = "One two. Three four. Five six seven. Eight."
    assert split_passages(text, "en", words, 4) == ["One two. Three four.", "Five six seven. Eight."]
    assert split_passages(text, "en", words, 100) == [text]


def test_a_passage_ends_with_its_paragraph_once_half_full() -> None:
    text = "One two three. Four five six.\n\nSeven eight. Nine ten."
    assert split_passages(text, "en", words, 8) == ["One two three. Four five six.", "Seven eight. Nine ten."]
    text = "One.\n\nTwo three four. Five six seven. Eight."  # a break at a fifth is too early
    assert split_passages(text, "en", words, 5) == ["One.\n\nTwo three four.", "Five six seven. Eight."]


def test_a_heading_stays_with_what_it_heads() -> None:
    text = "One two three four.\n\nOpening hours\n\nFive six seven. Eight."
    assert split_passages(text, "en", words, 7) == ["One two three four.", "Opening hours\n\nFive six seven. Eight."]


def test_blank_lines_are_no_sentences() -> None:
    def dear(texts: Sequence[str]) -> list[int]:  # white space costs too, as in no tokenizer
        return [len(text.split()) + text.count("\n\n") for text in texts]

    text = "One two three four.\n\nFive six seven eight.\n\nNine."
    assert all(passage for passage in split_passages(text, "en", dear, 4))
    text = "One two three four five.\n\nOpening hours\n\nSix seven eight nine ten eleven twelve."
    assert split_passages(text, "en", words, 9) == ["One two three four five.", text[text.index("Opening") :]]


def test_long_sentences_are_cut_at_white_space_then_between_graphemes() -> None:
    assert split_passages("aaa bbb ccc ddd", "en", characters, 8) == ["aaa bbb", "ccc ddd"]
    assert split_passages("天" * 25, "zh", characters, 10) == ["天" * 8, "天" * 8, "天" * 8 + "天"]
    assert split_passages("天天天，地地地地地", "zh", characters, 6) == ["天天天，", "地地地地地"]
    assert split_passages("ก็ที่น้ำ", "th", characters, 3) == ["ก็", "ที่", "น้ำ"]
    assert split_passages("👨‍👩‍👧👨‍👩‍👧", "und", characters, 2) == [
        "👨‍👩‍👧",
        "👨‍👩‍👧",
    ]  # too long, and one grapheme each


def test_few_calls_count_all_tokens() -> None:
    calls: list[int] = []

    def counting(texts: Sequence[str]) -> list[int]:
        calls.append(len(texts))
        return words(texts)

    passages = split_passages("One two three. " * 300, "en", counting, 30)
    assert (len(passages), calls) == (30, [300, 30])


def test_a_joined_text_that_counts_more_is_split_again() -> None:
    def joined_costs_one(texts: Sequence[str]) -> list[int]:  # one token more per space
        return [len(text.split()) + text.count(" ") for text in texts]

    passages = split_passages("One. Two. Three. Four.", "en", joined_costs_one, 4)
    assert passages == ["One. Two.", "Three. Four."]
    assert max(joined_costs_one(passages)) <= 4


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_tokens must be at least 1, got 0"):
        split_passages("text", "en", words, 0)


_TRICKY = st.sampled_from(' \n\n.。።।?!"”)\u0301\u200d👨👩🏽ก็าaA1,،。\r\t\u2029\x1c\u17d4\u0f0d\ud800')
_TEXT = st.text(st.one_of(_TRICKY, st.characters()), max_size=60)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(_TEXT, st.sampled_from(["en", "th", "zh", "hi", "am", "und", "km", "qqq"]), st.integers(1, 25))
def test_nothing_is_lost(text: str, lang: str, limit: int) -> None:
    assert visible("".join(split_sentences(text, lang))) == visible(text)
    passages = split_passages(text, lang, characters, limit)
    assert visible("".join(passages)) == visible(text)
    ends = {match.end() for match in regex.finditer(r"\X", text)}
    position = 0
    for passage in passages:
        assert passage.strip()
        assert len(passage) <= limit or regex.fullmatch(r"\X", passage)
        position = text.index(passage, position) + len(passage)
        assert position in ends or text[position].isspace()
