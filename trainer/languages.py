"""The languages that examples are written in: name for the prompt, BCP-47 code, scripts, share.

The names are XLM-R's list of 100, 98 distinct: Burmese stands there once for each encoding of its
script, Chinese once for each form of its characters. (The paper counts 93, and does not say which.) The
shares are those of the paper's Figure 2: English 43.1 %, thirteen languages between 2.7 and 3.0 %, the
rest evenly. The paper gives no formula, so the figure is the formula. A run can weigh them anew, and name
any language of ``OTHERS``, which start at zero. A language written in several scripts lists them all:
Serbian is Serbian in Latin letters too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    name: str  # as the prompt says it
    code: str  # BCP-47; a romanised language carries its script: hi-Latn
    scripts: tuple[str, ...] = ("Latin",)  # Unicode script names it is written in

    @property
    def primary(self) -> str:
        return self.code.partition("-")[0]


# Name, code, scripts ("Latin" where none is said). Scripts are those in everyday use today.
_XLMR = """
Afrikaans af|Albanian sq|Amharic am Ethiopic|Arabic ar Arabic|Armenian hy Armenian|Assamese as Bengali
Azerbaijani az Latin Cyrillic Arabic|Basque eu|Belarusian be Cyrillic Latin|Bengali bn Bengali
Bengali_Romanized bn-Latn|Bosnian bs Latin Cyrillic|Breton br|Bulgarian bg Cyrillic|Burmese my Myanmar
Catalan ca|Chinese zh Han Bopomofo|Croatian hr|Czech cs|Danish da|Dutch nl|English en|Esperanto eo|Estonian et
Filipino tl|Finnish fi|French fr|Galician gl|Georgian ka Georgian|German de|Greek el Greek|Gujarati gu Gujarati
Hausa ha Latin Arabic|Hebrew he Hebrew|Hindi hi Devanagari|Hindi_Romanized hi-Latn|Hungarian hu|Icelandic is
Indonesian id|Irish ga|Italian it|Japanese ja Han Hiragana Katakana|Javanese jv Latin Javanese|Kannada kn Kannada
Kazakh kk Cyrillic Latin Arabic|Khmer km Khmer|Korean ko Hangul|Kurdish ku Latin Arabic Cyrillic
Kyrgyz ky Cyrillic Latin Arabic|Lao lo Lao|Latin la|Latvian lv|Lithuanian lt|Macedonian mk Cyrillic|Malagasy mg
Malay ms Latin Arabic|Malayalam ml Malayalam|Marathi mr Devanagari|Mongolian mn Cyrillic Mongolian
Nepali ne Devanagari|Norwegian no|Oriya or Oriya|Oromo om Latin Ethiopic|Pashto ps Arabic|Persian fa Arabic
Polish pl|Portuguese pt|Punjabi pa Gurmukhi Arabic|Romanian ro Latin Cyrillic|Russian ru Cyrillic
Sanskrit sa Devanagari Latin|Scottish_Gaelic gd|Serbian sr Cyrillic Latin|Sindhi sd Arabic Devanagari
Sinhala si Sinhala|Slovak sk|Slovenian sl|Somali so|Spanish es|Sundanese su Latin Sundanese|Swahili sw|Swedish sv
Tamil ta Tamil|Tamil_Romanized ta-Latn|Telugu te Telugu|Telugu_Romanized te-Latn|Thai th Thai|Turkish tr
Ukrainian uk Cyrillic|Urdu ur Arabic|Urdu_Romanized ur-Latn|Uyghur ug Arabic Cyrillic Latin
Uzbek uz Latin Cyrillic|Vietnamese vi|Welsh cy|Western_Frisian fy|Xhosa xh|Yiddish yi Hebrew
"""
_OTHERS = """
Asturian ast|Bashkir ba Cyrillic|Cebuano ceb|Chichewa ny|Chinese_(Simplified) zh-Hans Han
Chinese_(Traditional) zh-Hant Han Bopomofo|Corsican co|Dhivehi dv Thaana|Dzongkha dz Tibetan|Faroese fo|Guarani gn
Haitian_Creole ht|Hawaiian haw|Igbo ig|Kinyarwanda rw|Lingala ln|Luganda lg|Luxembourgish lb|Maltese mt|Maori mi
Norwegian_Bokmål nb|Norwegian_Nynorsk nn|Occitan oc|Quechua qu|Samoan sm|Shona sn|Southern_Sotho st
Tajik tg Cyrillic|Tatar tt Cyrillic Latin|Tibetan bo Tibetan|Tigrinya ti Ethiopic|Tswana tn|Turkmen tk Latin Cyrillic
Wolof wo|Yoruba yo|Zulu zu
"""


def _read(table: str) -> dict[str, Language]:
    found: dict[str, Language] = {}
    for entry in table.replace("\n", "|").strip("|").split("|"):
        name, code, *scripts = entry.split()
        found[name.replace("_", " ")] = Language(name.replace("_", " "), code, tuple(scripts) or ("Latin",))
    return found


XLMR = _read(_XLMR)
OTHERS = _read(_OTHERS)
LANGUAGES: dict[str, Language] = {**XLMR, **OTHERS}

# Figure 2 of the paper (v3), per cent. The other 84 share 19.8 evenly.
PUBLISHED = {
    "English": 43.1, "Polish": 3.0, "Japanese": 2.9, "Italian": 2.9, "Russian": 2.9, "Indonesian": 2.9, "German": 2.9,
    "Persian": 2.9, "Spanish": 2.8, "Chinese": 2.8, "French": 2.8, "Portuguese": 2.8, "Dutch": 2.8, "Arabic": 2.7,
}  # fmt: skip


def language_shares(overrides: Mapping[str, float] | None = None) -> dict[str, float]:
    """Name -> share, summing to 1. ``overrides`` are shares as well (0.05 is 5 %); what they leave is
    divided among the rest in the published proportions, and 0 takes a language out. Where they sum to 1
    or more, they alone are the list. Raises ValueError for an unknown name or a negative share."""
    rest = (100 - sum(PUBLISHED.values())) / (len(XLMR) - len(PUBLISHED))
    shares = {name: PUBLISHED.get(name, rest) / 100 for name in XLMR}
    overrides = overrides or {}
    for name, share in overrides.items():
        if name not in LANGUAGES:
            raise ValueError(f"language {name!r} is not known: use a name of trainer.languages.LANGUAGES")
        if share < 0:
            raise ValueError(f"language {name!r} has the share {share}: give 0 or more")
    given = sum(overrides.values())
    others = {name: share for name, share in shares.items() if name not in overrides}
    scale = max(0.0, 1 - given) / sum(others.values()) if others else 0.0
    merged = {name: share * scale for name, share in others.items()} | dict(overrides)
    total = sum(merged.values())
    if total <= 0:
        raise ValueError("no language has a share above 0: give at least one")
    return {name: share / total for name, share in merged.items() if share > 0}


def language(name_or_code: str) -> Language:
    """By the prompt's name or by code. Raises ValueError for neither."""
    if name_or_code in LANGUAGES:
        return LANGUAGES[name_or_code]
    for known in LANGUAGES.values():
        if known.code == name_or_code:
            return known
    raise ValueError(f"language {name_or_code!r} is not known: use a name of trainer.languages.LANGUAGES")
