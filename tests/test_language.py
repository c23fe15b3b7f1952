"""Languages by script and by model, down to two words, and never a crash."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from ragkit.language import detect_language, normalise_language

SENTENCES = {
    "am": "የከተማው ቤተ መጻሕፍት ጠዋት ሁለት ሰዓት ይከፈታል።",
    "ar": "تفتح المكتبة أبوابها في الساعة الثامنة صباحا.",
    "bn": "গ্রন্থাগার সকাল আটটায় খোলে।",
    "cs": "Knihovna se otevírá v osm hodin ráno.",
    "de": "Die Bibliothek öffnet um acht Uhr morgens.",
    "el": "Η βιβλιοθήκη ανοίγει στις οκτώ το πρωί.",
    "en": "The library opens at eight in the morning.",
    "es": "La biblioteca abre a las ocho de la mañana.",
    "fa": "کتابخانه ساعت هشت صبح باز می‌شود و ورود رایگان است.",
    "fi": "Kirjasto avataan aamulla kello kahdeksan.",
    "fr": "La bibliothèque ouvre à huit heures du matin.",
    "he": "הספרייה נפתחת בשמונה בבוקר.",
    "hi": "पुस्तकालय सुबह आठ बजे खुलता है।",
    "hy": "Գրադարանը բացվում է առավոտյան ժամը ութին։",
    "ja": "図書館は午前八時に開きます。",
    "ka": "ბიბლიოთეკა დილის რვა საათზე იღება.",
    "km": "បណ្ណាល័យបើកនៅម៉ោងប្រាំបីព្រឹក។",
    "kn": "ಗ್ರಂಥಾಲಯವು ಬೆಳಿಗ್ಗೆ ಎಂಟಕ್ಕೆ ತೆರೆಯುತ್ತದೆ.",
    "ko": "도서관은 아침 여덟 시에 문을 엽니다.",
    "lo": "ຫໍສະໝຸດເປີດແປດໂມງເຊົ້າ",
    "ml": "ലൈബ്രറി രാവിലെ എട്ടിന് തുറക്കും.",
    "my": "စာကြည့်တိုက်သည် မနက်ရှစ်နာရီတွင် ဖွင့်သည်။",
    "nb": "Biblioteket åpner klokken åtte om morgenen, og det er gratis for alle.",
    "nn": "Biblioteket opnar klokka åtte om morgonen, og det er ikkje dyrt for nokon.",
    "or": "ପାଠାଗାର ସକାଳ ଆଠଟାରେ ଖୋଲେ।",
    "pt": "A biblioteca abre às oito horas da manhã e não fecha ao meio-dia.",
    "ru": "Библиотека открывается в восемь часов утра.",
    "si": "පුස්තකාලය උදේ අටට විවෘත වේ.",
    "sv": "Biblioteket öppnar klockan åtta på morgonen.",
    "sw": "Maktaba hufunguliwa saa mbili asubuhi kila siku.",
    "ta": "நூலகம் காலை எட்டு மணிக்கு திறக்கிறது.",
    "te": "గ్రంథాలయం ఉదయం ఎనిమిది గంటలకు తెరుచుకుంటుంది.",
    "th": "ห้องสมุดเปิดเวลาแปดโมงเช้า",
    "tr": "Kütüphane sabah saat sekizde açılır.",
    "uk": "Бібліотека відчиняється о восьмій годині ранку.",
    "vi": "Thư viện mở cửa lúc tám giờ sáng.",
    "zh": "圖書館早上八點開門。",
}


@pytest.mark.parametrize(("lang", "text"), SENTENCES.items())
def test_sentences(lang: str, text: str) -> None:
    assert detect_language(text) == lang


@pytest.mark.parametrize(
    ("text", "lang"),
    [
        ("weather tomorrow", "en"),
        ("ቢል ክሊንተን", "am"),
        ("图书馆", "zh"),
        ("ひらがな", "ja"),
        ("東京タワーの高さ", "ja"),
        ("iPhone 15 电池", "zh"),
        ("GNOME ใช้งานอย่างไร", "th"),
        ("كيف حالك", "ar"),
        ("Wie spät ist es?", "de"),
    ],
)
def test_short_queries(text: str, lang: str) -> None:
    assert detect_language(text) == lang


@pytest.mark.parametrize(
    "text",
    ["", " \n", "😀👨‍👩‍👧", "2026-11-25", "१२३", "\ud800", "!?。", "𓀀𓀁", "\x00", "Angela Merkel", "Barack Obama", "OK"],
)
def test_no_language_is_undetermined(text: str) -> None:
    assert detect_language(text) == "und"


def test_odd_texts_do_not_matter() -> None:
    assert detect_language("The library\ud800 opens at eight in the \udfffmorning. 😀") == "en"
    assert detect_language("पुस्तकालय सुबह आठ बजे खुलता है। " * 100_000) == "hi"


def test_threads_agree_on_a_cold_start() -> None:
    script = (
        "from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from ragkit.language import detect_language as detect\n"
        "print(set(Pool(8).map(detect, ['Die Bibliothek öffnet um acht Uhr morgens.'] * 32)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "{'de'}"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detect_language, SENTENCES.values())) == list(SENTENCES)


def test_scripts_of_one_language_need_no_model() -> None:
    script = (
        "import sys; from ragkit.language import detect_language as detect\n"
        "print(detect('ሰላም ነው'), detect('สวัสดี'), detect('图书馆'), 'py3langid' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["am", "th", "zh", "False"]


@pytest.mark.parametrize(
    ("tag", "lang"),
    [
        ("zh_CN", "zh"),
        ("zh-Hant-TW", "zh"),
        ("pt_BR.UTF-8", "pt"),
        ("sr@latin", "sr"),
        ("EN", "en"),
        ("no", "nb"),
        ("iw", "he"),
        ("eng", "en"),
        ("amh", "am"),
        ("GER", "de"),
        ("eng-Latn", "en"),
        ("arb-Arab", "ar"),
        ("cmn-Hans", "zh"),
        ("swh", "sw"),
        ("nor", "nb"),
        ("nso", "nso"),
        ("yue", "yue"),
        ("und", None),
        ("", None),
        ("English", None),
        ("e", None),
        ("zh CN", None),
        (None, None),
        (7, None),
    ],
)
def test_normalise_language(tag: object, lang: str | None) -> None:
    assert normalise_language(tag) == lang
