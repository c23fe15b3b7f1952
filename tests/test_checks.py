"""Parsing, validation and checks: what is broken is out, whatever its language, and what is good is in."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.checks import (
    COLUMNS,
    check_answer,
    check_fields,
    check_record,
    check_tasks,
    field_languages,
    repeats_itself,
)
from trainer.data import RECIPES, read_records
from trainer.identify import wrong_language
from trainer.languages import LANGUAGES, language
from trainer.parse import Rejected, parse_example, parse_json, parse_tasks
from trainer.prompts import FIELDS
from trainer.refusals import is_refusal
from trainer.slots import ASYMMETRIC, KINDS, QUESTION
from trainer.words import count_words, normalise, stands_in

FULL = os.environ.get("RAGKIT_PROVE") == "1"
# 768 real answers of a language model to requests with the paper's slots (see trainer/checks.py).
FILE = Path(__file__).parent / "synthetic.jsonl.gz"


def records() -> Iterator[dict[str, Any]]:
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


RECORDS = list(records())
OF_KIND = {kind: [r for r in RECORDS if r["kind"] == kind] for kind in KINDS}


def slots_of(record: dict[str, Any]) -> dict[str, Any]:
    return {**record["slots"], **({"task": record["task"]} if "task" in record else {})}


def fields_of(record: dict[str, Any]) -> dict[str, str]:
    return {name: record[name] for name in FIELDS[record["kind"]]}


def reason(kind: str, slots: dict[str, Any], text: str) -> str | None:
    try:
        check_answer(kind, slots, text)
    except Rejected as why:
        return why.reason
    return None


# --- the 768 real answers ---------------------------------------------------------------------------------------------


def test_real_answers_are_accepted_in_every_kind_and_language():
    asked: Counter[tuple[str, str]] = Counter()
    accepted: Counter[tuple[str, str]] = Counter()
    rejected: list[str] = []
    for record in RECORDS:
        keys = [("kind", record["kind"])]
        keys += [("language", name) for name in {name for _, name in field_languages(record["kind"], slots_of(record))}]
        asked.update(keys)
        try:
            check_record(record)
        except Rejected as why:
            rejected.append(f"{record['id']} {why}")
        else:
            accepted.update(keys)
    for key in sorted(asked):
        print(f"{key[0]:8} {key[1]:12} {accepted[key]:4} of {asked[key]:4}")
    assert rejected == []
    assert len(RECORDS) == 768 and len([k for k in asked if k[0] == "language"]) == 47


def test_real_questions_are_accepted_in_every_language():
    slots = {"passage": "ወንዙ 1,450 ኪሎ ሜትር ይፈሳል።", "query_length": "5 to 15 words"}

    def refusal(name: str, query: str, **said: str) -> str | None:
        return reason(QUESTION, {**slots, "query_language": name, **said}, json.dumps({"user_query": query}))

    asked = list(read_records(RECIPES / "across" / "questions.jsonl.gz"))
    refused = [r["query"] for r in asked if refusal(language(r["lang"]).name, r["query"])]
    assert len(asked) == 8114 and len({r["lang"] for r in asked}) == 25
    assert [query.partition(" ")[0] for query in refused] == ["Libros"]  # the name of a Spanish book, and no more
    german = "Wie lang ist der Fluss, und wohin fließt er am Ende?"
    assert refusal("Hindi", german) == "wrong language"
    assert refusal("German", german, passage=f"{german} Ins Meer.") == "echoes the prompt"
    assert refusal("German", "fließt er am Ende", passage="Er fließt er am Ende.") == "query copied into the positive"


def test_real_answers_in_another_language_than_asked_for_are_out():
    """Every short-long answer, asked for in each of eight other languages: the checks have teeth."""
    others = ["English", "Spanish", "Swahili", "Russian", "Hindi", "Arabic", "Thai", "Chinese"]
    through: list[str] = []
    tried = 0
    for record in OF_KIND["short-long"][:: 1 if FULL else 6]:
        spoken = record["slots"].get("document_language", record["slots"]["language"])
        for other in others:
            if other != spoken:
                tried += 1
                if not wrong_language(record["positive_document"], language(other)):
                    through.append(f"{record['id']} {spoken} for {other}")
    print(f"{tried} documents, {len(through)} pass for another language: {through}")
    assert through == []


@pytest.mark.parametrize(
    ("kind", "damage", "expected"),
    [
        ("short-long", lambda f: f | {"hard_negative_document": f" {f['positive_document']}\n"}, "identical pair"),
        ("short-long", lambda f: f | {"positive_document": f"{f['positive_document']} {f['user_query']}."}, "query copied into the positive"),
        ("short-long", lambda f: f | {"positive_document": f["positive_document"][:20]}, "wrong length"),
        ("short-long", lambda f: f | {"user_query": f["positive_document"] + f["hard_negative_document"]}, "wrong length"),
        ("long-short", lambda f: f | {"input_text": f"{f['input_text']} ({f['label']})"}, "label in the input"),
        ("long-short", lambda f: f | {"misleading_label": f["label"]}, "identical pair"),
        ("sts", lambda f: f | {"S2": f["S1"]}, "identical pair"),
        ("bitext", lambda f: f | {"S3": f["S2"] + " "}, "identical pair"),
        ("sts", lambda f: f | {"S1": "S1", "S2": "the sentence S2"}, "echoes the prompt"),
        ("long-long", lambda f: f | {"positive_document": (f["positive_document"][:60] + " ") * 20}, "repeats itself"),
    ],
)  # fmt: skip
def test_damage_to_real_answers_is_seen_in_every_language(kind: str, damage: Any, expected: str):
    for record in OF_KIND[kind][:: 1 if FULL else 5]:
        if "copied" in expected and count_words(record["user_query"]) < 3:
            continue  # a name of two words may stand anywhere
        if expected == "wrong length" and "at least" in str(record["slots"].get("query_length")):
            continue  # no query is too long for that
        if "query_language" in record["slots"]:
            continue  # a document's text would be in the wrong language for a query, and the reverse
        found = reason(kind, slots_of(record), json.dumps(damage(fields_of(record))))
        assert found == expected, record["id"]


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"a": 1}', ' {"a": 1}\n', '```json\n{"a": 1}\n```', '```\n{"a": 1}\n```\n'])
def test_json_alone_or_fenced(text: str):
    assert parse_json(text) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "", "Here it is: {}", "{} and more", "{'a': 1}", '{"a": 1', '{"a": 1,}', "[1] [2]", '{"a": NaN}', '{"a": Infinity}',
        '{"a": 1, "a": 2}', '{"a": "line\nbreak"}', "__import__('os').system('true')", "[" * 100_000, "1" * 10_000,
        "```json\n{}\n``` done", "﻿{}", "None", "True", "{1: 2}", '"a" "b"',
    ],
    ids=range(20),
)  # fmt: skip
def test_what_is_not_json_alone_is_out(text: str):
    with pytest.raises(Rejected, match="not JSON"):
        parse_json(text)


GOOD = {"S1": "a b", "S2": "a c", "S3": "b c"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (GOOD, None),
        ({**GOOD, "S4": "d"}, "wrong fields"),
        ({"S1": "a", "S2": "b"}, "wrong fields"),
        ({**GOOD, "S1": 3}, "wrong fields"),
        ({**GOOD, "S1": None}, "wrong fields"),
        ({**GOOD, "S1": ["a"]}, "wrong fields"),
        ({**GOOD, "S1": " \u3000 "}, "empty field"),
        ({**GOOD, "S1": "a\ud800"}, "broken characters"),
        ({**GOOD, "S1": "caf\ufffd"}, "broken characters"),
        ({**GOOD, "S1": "a\u0000b"}, "broken characters"),
        ([GOOD], "wrong fields"),
        ("S1", "wrong fields"),
        (None, "wrong fields"),
    ],
)
def test_fields_are_exact(value: Any, expected: str | None):
    try:
        assert parse_example("sts", json.dumps(value)) == value
    except Rejected as why:
        assert why.reason == expected
    else:
        assert expected is None


def test_tasks_come_as_a_list_alone_or_under_their_key():
    assert parse_tasks('["a", "b"]') == parse_tasks('{"tasks": ["a", "b"]}') == ["a", "b"]
    for text in ('{"task": ["a"]}', '"a"', '{"tasks": "a"}', '{"tasks": [], "more": 1}'):
        with pytest.raises(Rejected, match="wrong fields"):
            parse_tasks(text)


def test_each_task_is_judged_on_its_own():
    seed = "Match a proverb with its meaning said plainly."
    text = json.dumps(
        ["Given a plant,\nfind its care guide.", "", 3, "plants", seed, "word " * 60, "ሰነድ ፈልግ በጥያቄ መሠረት"]
    )
    found = [(task, why and why.reason) for task, why in check_tasks("short-short", text)]
    assert found == [
        ("Given a plant, find its care guide.", None),
        ("", "empty field"),
        ("3", "wrong fields"),
        ("plants", "wrong length"),
        (seed, "echoes the prompt"),
        (("word " * 60).strip(), "repeats itself"),
        ("ሰነድ ፈልግ በጥያቄ መሠረት", None),
    ]


# --- hypothesis: whatever comes ---------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def malformed(draw: st.DrawFn) -> tuple[str, str]:
    """A kind, and something near to an answer of it: real text cut, spliced, retyped, rekeyed, or noise."""
    kind = draw(st.sampled_from(KINDS))
    record = draw(st.sampled_from(OF_KIND[kind]))
    fields: dict[str, Any] = fields_of(record)
    name = draw(st.sampled_from(list(fields)))
    how = draw(st.sampled_from(["cut", "insert", "value", "drop", "add", "rekey", "noise", "json", "wrap", "bytes"]))
    text = json.dumps(fields, ensure_ascii=draw(st.booleans()))
    if how == "cut":
        return kind, text[: draw(st.integers(0, len(text) - 1))]
    if how == "insert":
        at = draw(st.integers(0, len(text)))
        return kind, text[:at] + draw(st.text(min_size=1, max_size=5)) + text[at:]
    if how == "value":
        return kind, json.dumps(fields | {name: draw(json_values)})
    if how == "drop":
        return kind, json.dumps({key: value for key, value in fields.items() if key != name})
    if how == "add":
        return kind, json.dumps(fields | {draw(st.text(max_size=5)): draw(json_values)})
    if how == "rekey":
        return kind, text.replace(f'"{name}"', json.dumps(draw(st.text(max_size=6))), 1)
    if how == "noise":
        return kind, draw(st.text())
    if how == "json":
        return kind, json.dumps(draw(json_values))
    if how == "wrap":
        return kind, draw(
            st.sampled_from(["```json\n{}", "{}```", "Sure! {}", "[{}]", '"{}"', "({})", "{}{}"])
        ).replace("{}", text)
    raw = bytearray(text.encode())
    raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return kind, raw.decode("utf-8", draw(st.sampled_from(["replace", "surrogateescape", "ignore"])))


@settings(
    max_examples=10_000 if FULL else 400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(malformed(), st.integers(0, 10_000))
def test_nothing_malformed_is_accepted_and_nothing_but_rejected_is_raised(case: tuple[str, str], number: int):
    kind, text = case
    slots = slots_of(OF_KIND[kind][number % len(OF_KIND[kind])])
    try:
        fields = check_answer(kind, slots, text)
    except Rejected:
        return
    assert list(fields) == list(FIELDS[kind])  # what passes is JSON of exactly the kind's shape
    bare = text.strip().removeprefix("```json\n").removeprefix("```").removesuffix("```")
    value = json.loads(bare)
    assert set(value) == set(FIELDS[kind])
    for name, field in fields.items():
        assert isinstance(value[name], str) and field == value[name].strip() != ""
        field.encode()  # no lone surrogate


@settings(max_examples=2_000 if FULL else 100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text() | json_values.map(json.dumps) | st.lists(st.text()).map(json.dumps), st.sampled_from(ASYMMETRIC))
def test_brainstorms_whatever_comes(text: str, kind: str):
    try:
        checked = list(check_tasks(kind, text))
    except Rejected:
        return
    for task, why in checked:
        if why is None:
            assert task.strip() == task and "\n" not in task and task


@settings(max_examples=3_000 if FULL else 200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(), st.sampled_from(list(LANGUAGES)), st.text(max_size=8))
def test_text_functions_take_any_text(text: str, name: str, needle: str):
    wrong_language(text, language(name))
    is_refusal(text)
    repeats_itself(text)
    assert count_words(text) >= 0
    stands_in(needle, text)
    assert normalise(normalise(text)) == normalise(text)


# --- languages --------------------------------------------------------------------------------------------------------

SAMPLES = {  # mixed-script languages and close pairs: a good text in each must pass
    "Hindi Romanized": "Kal subah mujhe dilli jaana hai, kya aap bata sakte hain ki sabse jaldi kaun si train milegi?",
    "Urdu Romanized": "Mujhe yeh kitaab bohat pasand aayi lekin iska aakhri hissa samajh mein nahin aaya, aap batayein.",
    "Tamil Romanized": "Naan naalaikku kaalaila oorukku poren, angu mazhai peyyuma endru theriyavillai, neenga sollunga.",
    "Serbian": "Biblioteka se otvara u osam sati ujutru, a zatvara se tek kasno uveče, osim nedeljom i praznicima.",
    "Croatian": "Knjižnica se otvara u osam sati ujutro, a zatvara se tek kasno navečer, osim nedjeljom i blagdanima.",
    "Bosnian": "Biblioteka se otvara u osam sati ujutro, a zatvara se tek kasno navečer, osim nedjeljom i praznicima.",
    "Kurdish": "Pirtûkxane saet di heştan de vedibe û êvarê dereng tê girtin, ji bilî rojên înê û betlaneyan.",
    "Uzbek": "Kutubxona ertalab soat sakkizda ochiladi va kechqurun kech yopiladi, yakshanba kunlari bundan mustasno.",
    "Azerbaijani": "Kitabxana səhər saat səkkizdə açılır və axşam gec bağlanır, bazar günləri və bayramlar istisna olmaqla.",
    "Kazakh": "Кітапхана таңғы сағат сегізде ашылады және кешке дейін жұмыс істейді, тек жексенбі күндері жабық.",
    "Norwegian": "Biblioteket åpner klokka åtte om morgenen og stenger sent på kvelden, bortsett fra søndager og helligdager.",
    "Danish": "Biblioteket åbner klokken otte om morgenen og lukker sent om aftenen, undtagen søndage og helligdage.",
    "Indonesian": "Perpustakaan dibuka pukul delapan pagi dan ditutup larut malam, kecuali hari Minggu dan hari libur.",
    "Malay": "Perpustakaan dibuka pada pukul lapan pagi dan ditutup lewat malam, kecuali hari Ahad dan cuti umum.",
    "Xhosa": "Ithala leencwadi livulwa ngentsimbi yesibhozo kusasa kwaye livalwa ebusuku, ngaphandle kweeCawa.",
    "Zulu": "Umtapo wolwazi uvulwa ngehora lesishiyagalombili ekuseni futhi uvalwa ebusuku, ngaphandle kwamaSonto.",
    "Persian": "کتابخانه ساعت هشت صبح باز می‌شود و دیروقت شب بسته می‌شود، به جز روزهای جمعه و تعطیلات رسمی.",
    "Pashto": "کتابتون د سهار په اتو بجو پرانیستل کیږي او د شپې ناوخته تړل کیږي، پرته له جمعې او رخصتیو.",
    "Sindhi": "لائبريري صبح جو اٺين وڳي کلندي آهي ۽ رات جو دير سان بند ٿيندي آهي، سواءِ آچر ۽ موڪلن جي.",
    "Uyghur": "كۈتۈپخانا ئەتىگەن سائەت سەككىزدە ئېچىلىدۇ ۋە كەچتە تاقىلىدۇ، يەكشەنبە كۈنلىرى بۇنىڭ سىرتىدا.",
    "Chinese": "图书馆早上八点开门，晚上很晚才关门，星期天和节假日除外。如果要借书，请带上身份证和借书卡。",
    "Chinese (Traditional)": "圖書館早上八點開門，晚上很晚才關門，星期天和節假日除外。如果要借書，請帶上身分證。",
    "Japanese": "図書館は朝八時に開き、日曜日と祝日を除いて夜遅くまで開いています。",
    "Yiddish": "די ביבליאָטעק עפֿנט זיך אַכט אַ זייגער אין דער פֿרי און ווערט פֿאַרמאַכט שפּעט בײַ נאַכט.",
    "Tigrinya": "ቤተ መጻሕፍቲ ንግሆ ሰዓት ሸሞንተ ይኽፈት ምሸት ድማ ይዕጾ፡ ሰንበትን በዓላትን ግና ዕጹው እዩ።",
    "Lao": "ຫໍສະໝຸດເປີດແປດໂມງເຊົ້າ ແລະປິດຕອນກາງຄືນ ຍົກເວັ້ນວັນອາທິດ",
    "Burmese": "စာကြည့်တိုက်ကို နံနက်ရှစ်နာရီတွင်ဖွင့်ပြီး တနင်္ဂနွေနေ့မှလွဲ၍ ညနက်မှပိတ်သည်။",
    "Oromo": "Manni kitaabaa ganama sa'aatii lamatti banama, galgala immoo cufama, guyyaa dilbataa malee hojjeta.",
    "Western Frisian": "De biblioteek giet moarns om acht oere iepen en slút jûns let, útsein op snein en op feestdagen.",
    "Latin": "Bibliotheca hora octava matutina aperitur et sero vespere clauditur, praeter dies Solis et ferias.",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_mixed_scripts_and_close_pairs_pass(name: str):
    assert wrong_language(SAMPLES[name], language(name)) is None


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (SAMPLES["Indonesian"], "English"), (SAMPLES["Zulu"], "Swahili"), (SAMPLES["Croatian"], "Polish"),
        ("The library opens at eight in the morning and closes late at night.", "Hindi Romanized"),
        ("The library opens at eight in the morning and closes late at night.", "Zulu"),
        (SAMPLES["Chinese"], "Japanese"), (SAMPLES["Japanese"], "Chinese"), (2 * SAMPLES["Persian"], "Uyghur"),
        (SAMPLES["Kazakh"], "Ukrainian"), ("図書館", "Korean"),
        ("Kal subah mujhe dilli jaana hai, kya aap bata sakte hain?", "Hindi"),
    ],
)  # fmt: skip
def test_plainly_another_language_is_seen(text: str, asked: str):
    assert wrong_language(text, language(asked)) is not None


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("HIV", "Thai"), ("iPhone 15 Pro", "Japanese"), ("🙂👩‍👩‍👧", "Amharic"), ("42 km", "Hindi"), ("2024-05-01", "Zulu"),
        ("COVID-19 变种", "Chinese"), ("push respins non-fast-forward", "Romanian"), ("ok", "Khmer"),
        ("https://example.org/a?b=c", "Arabic"), ("Wi-Fi", "Tamil"),
    ],
)  # fmt: skip
def test_short_texts_names_and_signs_are_let_pass(text: str, asked: str):
    assert wrong_language(text, language(asked)) is None


def test_labels_in_another_language_are_seen_together():
    slots = {"language": "Amharic", "num_words": "at least 10", "clarity": "clear", "task": "Classify it."}
    fields = {
        "input_text": "ቤተ መጻሕፍቱ " * 3 + "ዛሬ ጠዋት ተከፍቶ ነበር ግን አሁን ተዘግቷል ምክንያቱም ሰራተኞቹ ሄደዋል",
        "label": "a very late arrival",
        "misleading_label": "an early departure",
    }
    with pytest.raises(Rejected, match="wrong language"):
        check_fields("long-short", slots, fields)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't assist with that request.", "As an AI language model, I cannot write this.",
        "Lo siento, pero como modelo de lenguaje no puedo escribir eso.", "Als KI-Sprachmodell kann ich das nicht.",
        "En tant que modèle de langage, je ne peux pas.", "Как языковая модель, я не могу этого сделать.",
        "作为一个人工智能语言模型，我无法完成。", "申し訳ありませんが、AIとしてお答えできません。", "AI 언어 모델로서 답변할 수 없습니다.",
        "كنموذج لغوي، لا أستطيع كتابة ذلك.", "एक एआई भाषा मॉडल के रूप में मैं यह नहीं लिख सकता।", "ในฐานะโมเดลภาษา ฉันไม่สามารถเขียนได้",
        "Kama modeli ya lugha, siwezi kuandika hili.", "እንደ ቋንቋ ሞዴል ይህን መጻፍ አልችልም።", "ஒரு மொழி மாதிரியாக என்னால் எழுத முடியாது.",
        "Là một mô hình ngôn ngữ, tôi không thể viết.", "Sebagai model bahasa, saya tidak bisa menulisnya.",
        "Bir yapay zeka dil modeli olarak bunu yazamam.", "כמודל שפה איני יכול לכתוב זאת.", "A matsayina na samfurin harshe ba zan iya ba.",
    ],
)  # fmt: skip
def test_refusals_in_many_languages(text: str):
    assert is_refusal(text)
    assert reason("sts", {"language": "English", "unit": "sentence"}, text) == "refusal"  # and no JSON


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot come to the dinner on Friday.", "Lo siento, pero no puedo ir a la cena.",
        "As an aid worker she could not stay.", "対応できません。", "Es tut mir leid, ich kann nicht.",
    ],
)  # fmt: skip
def test_apologies_of_people_are_no_refusals(text: str):
    assert not is_refusal(text)


def test_a_refusal_deep_in_a_text_is_its_subject():
    assert not is_refusal(
        "A column about chatbots and manners in the office. " * 5 + "As an AI language model, it said."
    )


# --- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("The library opens at eight o'clock.", 6, 6), ("图书馆早上八点开门，晚上很晚才关门。", 7, 12),
        ("図書館は朝八時に開きます。", 4, 8), ("ห้องสมุดเปิดแปดโมงเช้า", 4, 7), ("ቤተ መጻሕፍቱ መቼ ይከፈታል?", 4, 4),
        ("पुस्तकालय कब खुलता है?", 4, 4), ("🙂👩‍👩‍👧", 0, 0), ("片道80キロの乗車券で途中下車はできる?", 7, 13),
        ("コンピューターサーバー", 4, 6), ("ｺﾝﾋﾟｭｰﾀｰ", 3, 4), ("らーめん", 1, 2),
    ],
)  # fmt: skip
def test_words_are_counted_in_every_script(text: str, least: int, most: int):
    assert least <= count_words(text) <= most


@pytest.mark.parametrize(
    ("needle", "text", "expected"),
    [
        ("art", "a party tonight", False), ("Art", "modern art.", True), ("体育", "他喜欢体育运动", True),
        ("กีฬา", "ข่าวกีฬาวันนี้", True), ("ग", "गुण", False), ("ስፖርት", "ስፖርት ዜና", True), ("ስፖርት", "የስፖርት ዜና", False),
        ("ΟΔΟΣ", "η οδός είναι", False), ("STRASSE", "die Straße", True), ("", "x", False), ("c++", "in C++ code", True),
        ("スポーツ", "今日のスポーツニュース", True), ("рок", "урок", False),
    ],
)  # fmt: skip
def test_labels_are_found_as_words(needle: str, text: str, expected: bool):
    assert stands_in(needle, text) is expected


def test_columns_name_fields():
    for kind, columns in COLUMNS.items():
        found = {columns.query, columns.positive, columns.negative} - {None}
        assert found - set(FIELDS[kind]) == ({"passage"} if kind == QUESTION else set())
