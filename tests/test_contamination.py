"""Shared runs of words with an evaluation set, and near duplicates, in scripts with spaces and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.contamination import Evaluation, runs
from trainer.dedup import NearlySeen, Seen

PASSAGES = {
    "en": "The ferry to the island leaves at seven from the old pier and comes back before dark each day.",
    "am": "ወደ ደሴቱ የሚሄደው ጀልባ ከአሮጌው ወደብ ጠዋት በሁለት ሰዓት ይነሳል እና ከእሁድ በስተቀር በየቀኑ ከመጨለሙ በፊት ይመለሳል ተብሏል",
    "hi": "द्वीप जाने वाली नाव पुराने घाट से सुबह सात बजे चलती है और रविवार को छोड़कर हर दिन अँधेरा होने से पहले लौट आती है",
    "ar": "تغادر العبّارة إلى الجزيرة في السابعة من الرصيف القديم وتعود قبل حلول الظلام في كل يوم ما عدا يوم الأحد",
    "zh": "开往岛上的渡轮早上七点从旧码头出发，除星期天以外每天都在天黑以前返回，乘客须提前半小时到达码头。",
    "ja": "島へ渡るフェリーは午前七時に古い桟橋を出て、日曜日を除く毎日、暗くなる前に戻ってくることになっています。",
    "th": "เรือข้ามฟากไปเกาะออกจากท่าเรือเก่าเวลาเจ็ดโมงเช้าและกลับมาก่อนค่ำทุกวัน ต้องมาก่อนครึ่งชั่วโมง",
    "km": "សាឡាងទៅកោះចេញពីផែចាស់នៅម៉ោងប្រាំពីរព្រឹក ហើយត្រឡប់មកវិញមុនងងឹតរៀងរាល់ថ្ងៃ លើកលែងតែថ្ងៃអាទិត្យ",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for lang, text in PASSAGES.items():
        place = tmp_path / "set" / lang
        place.mkdir(parents=True)
        (place / "corpus.jsonl").write_text(json.dumps({"_id": lang, "title": "", "text": text}) + "\n", "utf-8")
        (place / "queries.jsonl").write_text(
            json.dumps({"_id": "q", "text": "When does the last tram go?"}) + "\n", "utf-8"
        )
    return tmp_path


@pytest.mark.parametrize("lang", PASSAGES)
def test_a_shared_run_is_found_and_a_short_one_is_not(folder: Path, lang: str):
    sets, text = Evaluation([folder]), PASSAGES[lang]
    assert sets.shares(text) and sets.shares(f"Quoted: {text.upper()}!")
    assert sets.shares(text[len(text) // 10 :])  # from the middle of a word
    cut = len(text) // 3
    assert not sets.shares(text[:cut]) and not sets.shares(text[-cut:])  # a third is shorter than 13 words


def test_a_query_is_compared_whole(folder: Path):
    sets = Evaluation([folder])
    assert sets.shares("when does the last tram go")
    assert not sets.shares("When does the last tram go home?")
    assert not sets.shares("")


def test_beir_s_own_layout_and_gzip(tmp_path: Path):
    import gzip

    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "1", "title": "Ferry", "text": PASSAGES["en"]}) + "\n")
    assert Evaluation([tmp_path]).shares(PASSAGES["en"])
    with pytest.raises(ValueError, match="is it an evaluation set in BEIR's layout"):
        Evaluation([tmp_path / "nothing"])


@given(st.text(), st.text())
@settings(max_examples=200, deadline=None, derandomize=True)
def test_runs_of_a_text_are_in_a_text_that_holds_it(text: str, more: str):
    assert set(runs(f"{text} | ")) <= set(runs(f"{text} | {more}"))


@pytest.mark.parametrize("lang", PASSAGES)
def test_a_text_with_a_word_changed_is_nearly_the_same(lang: str):
    text = PASSAGES[lang]
    others = [other for key, other in PASSAGES.items() if key != lang]
    near = NearlySeen(0.7)
    for number, other in enumerate(others):
        assert near.add(f"other {number}", other) is None
    assert near.add("first", text) is None
    assert near.add("second", text[:-4] + "…") == "first"


def test_exactly_the_same():
    seen = Seen()
    assert not seen.add("a", "b") and seen.add("a", "b")
    assert not seen.add("A", "b") and not seen.add("\ud800")
