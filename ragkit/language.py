"""Which language is this text in? A BCP-47 code, or ``"und"`` when the text does not tell.

Two steps. The script decides wherever it can: Thai, Amharic, Khmer, Lao, Korean, Japanese (kana) and
twenty more are read off the letters, with no model. For scripts that many languages share (Latin,
Cyrillic, Arabic, Devanagari, Bengali) py3langid's naive Bayes picks among that script's languages and
says ``und`` below a threshold, as for a name alone. The model loads at the first such text.

Why py3langid: on 29 sets of real questions (200 each, 21 languages; whole, and cut to 3 words), behind
the same script step and with no threshold, it is right on 98.5 % and 93.7 %, loads in 0.6 s and holds
115 MB. lingua 2.1 is right on 97.0 % and 91.0 %, with 7.5 s and 1.2 GB; its low-accuracy mode, with
0.4 s and 90 MB, on 92.0 % and 77.2 %. With the threshold: 97.9 % and 90.3 %, and `und` on 0.8 and 6.1 %.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

import regex

from ragkit.types import UNDETERMINED

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

# Scripts that stand for one language here. Ethiopic is Amharic, Hebrew is Hebrew: the model knows no
# Tigrinya and no Yiddish. Han without kana is Chinese, in either form.
_SOLE = {
    "Armenian": "hy", "Ethiopic": "am", "Georgian": "ka", "Greek": "el", "Gujarati": "gu", "Gurmukhi": "pa",
    "Han": "zh", "Hangul": "ko", "Hebrew": "he", "Hiragana": "ja", "Katakana": "ja", "Kannada": "kn",
    "Khmer": "km", "Lao": "lo", "Malayalam": "ml", "Myanmar": "my", "Oriya": "or", "Sinhala": "si",
    "Tamil": "ta", "Telugu": "te", "Thaana": "dv", "Thai": "th", "Tibetan": "bo",
}  # fmt: skip

# Scripts that several languages share, and which of the model's labels are written in them. Dialects
# and tiny languages that the model confuses with their big neighbours (arz and ary with ar, wuu with
# zh, bs with hr, an and ext with es) are left out: they cost Arabic queries 10 points.
_SHARED = {
    "Arabic": "ar fa ps ug ur",
    "Bengali": "as bn",
    "Cyrillic": "ba be bg kk ky mk mn ru sr tg tt uk",
    "Devanagari": "hi mr ne sa",
    "Latin": "af az ca cs cy da de en eo es et eu fi fo fr fy ga gd gl ha hr hu id ig is it ku lb lg lt lv mg ms "
    "mt nl nn no nso oc pl pt ro rw sk sl sn so sq st sv sw tk tl tr uz vi xh yo zu",
}
_LABELS = {script: frozenset(labels.split()) for script, labels in _SHARED.items()}

# Latin words stand inside every other script (product names, commands), hardly the reverse, and an
# ideograph says as much as several letters: "iPhone 15 电池" is Chinese.
_WEIGHT = {"Latin": 1, "Han": 4, "Hiragana": 4, "Katakana": 4, "Hangul": 3}
_RUN = regex.compile(  # digits have a script too, and say nothing
    "|".join(rf"(?P<{script}>[\p{{Script={script}}}--\p{{N}}]+)" for script in (*_SOLE, *_SHARED)), regex.VERSION1
)

_SAMPLE = 4000  # characters: more does not change the answer
_CONFIDENT = 0.3  # of the script's probability. Cut to 2 words, 5.4 % come out wrong instead of 13.2 %

# BCP-47 writes two letters where ISO 639-1 has them. With the codes of 639-3 and 639-2 that mean the same, and of a
# language that 639-3 divides, the standard one: cmn of zh, arb of ar.
_ISO_639 = (
    "aa aar, ab abk, ae ave, af afr, ak aka, am amh, an arg, ar ara arb, as asm, av ava, ay aym ayr, az aze azj, "
    "ba bak, be bel, bg bul, bh bih, bi bis, bm bam, bn ben, bo bod tib, br bre, bs bos, ca cat, ce che, ch cha, "
    "co cos, cr cre, cs ces cze, cu chu, cv chv, cy cym wel, da dan, de deu ger, dv div, dz dzo, ee ewe, "
    "el ell gre, en eng, eo epo, es spa, et est ekk, eu eus baq, fa fas per pes, ff ful, fi fin, fj fij, fo fao, "
    "fr fra fre, fy fry, ga gle, gd gla, gl glg, gn grn gug, gu guj, gv glv, ha hau, he heb, hi hin, ho hmo, "
    "hr hrv, ht hat, hu hun, hy hye arm, hz her, ia ina, id ind, ie ile, ig ibo, ii iii, ik ipk, io ido, "
    "is isl ice, it ita, iu iku, ja jpn, jv jav, ka kat geo, kg kon, ki kik, kj kua, kk kaz, kl kal, km khm, "
    "kn kan, ko kor, kr kau, ks kas, ku kur kmr, kv kom, kw cor, ky kir, la lat, lb ltz, lg lug, li lim, ln lin, "
    "lo lao, lt lit, lu lub, lv lav lvs, mg mlg plt, mh mah, mi mri mao, mk mkd mac, ml mal, mn mon khk, mr mar, "
    "ms msa may zsm, mt mlt, my mya bur, na nau, nb nob, nd nde, ne nep npi, ng ndo, nl nld dut, nn nno, no nor, "
    "nr nbl, nv nav, ny nya, oc oci, oj oji, om orm gaz, or ori ory, os oss, pa pan, pi pli, pl pol, ps pus pbt, "
    "pt por, qu que, rm roh, rn run, ro ron rum mol, ru rus, rw kin, sa san, sc srd, sd snd, se sme, sg sag, "
    "si sin, sk slk slo, sl slv, sm smo, sn sna, so som, sq sqi alb als, sr srp, ss ssw, st sot, su sun, sv swe, "
    "sw swa swh, ta tam, te tel, tg tgk, th tha, ti tir, tk tuk, tl tgl, tn tsn, to ton, tr tur, ts tso, tt tat, "
    "tw twi, ty tah, ug uig, uk ukr, ur urd, uz uzb uzn, ve ven, vi vie, vo vol, wa wln, wo wol, xh xho, "
    "yi yid ydd, yo yor, za zha, zh zho chi cmn, zu zul"
)
_SHORTER = {longer: two for two, *others in map(str.split, _ISO_639.split(", ")) for longer in others}
_LEGACY = {"in": "id", "iw": "he", "ji": "yi", "mo": "ro", "no": "nb"}  # BCP-47 preferred values; no -> nb
_TAG = regex.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]{1,8})*(?:[.@].*)?")

_lock = threading.Lock()
_identifier: LanguageIdentifier | None = None


def detect_language(text: str) -> str:
    """The BCP-47 code of ``text``'s main language, or ``"und"``. Never raises, whatever the text."""
    sample = text[:_SAMPLE]
    script = _main_script(sample)
    if script is None:
        return UNDETERMINED
    if script in _SOLE:
        return _SOLE[script]
    ranked = [(label, p) for label, p in identifier().rank(sample) if label in _LABELS[script]]
    label, probability = ranked[0]
    if probability < _CONFIDENT * sum(p for _, p in ranked):
        return UNDETERMINED
    return _LEGACY.get(str(label), str(label))


def possible_languages(text: str) -> list[str]:
    """The languages that ``text`` may be in, the likelier first: what :func:`detect_language` says, but Han alone is
    Japanese at times (``東京 所在地``, a list of names)."""
    own = detect_language(text)
    return ["zh", "ja"] if own == "zh" else [own]


def normalise_language(tag: object) -> str | None:
    """The primary subtag of a language tag (``zh_CN``, ``zh-Hant`` -> ``zh``; ``pt_BR.UTF-8`` -> ``pt``;
    ``eng-Latn`` -> ``en``; ``no`` -> ``nb``), or None where ``tag`` names no language.

    Passages carry the primary subtag alone, since that is what a filter, a detector and a stemmer can
    agree on: nobody who filters by ``pt`` wants to miss the pages marked ``pt_BR``.
    """
    match = _TAG.fullmatch(tag.strip()) if isinstance(tag, str) else None
    if match is None:
        return None
    primary = str(match.group(1)).lower()
    primary = _SHORTER.get(primary, primary)
    return None if primary in {UNDETERMINED, "mul", "mis", "zxx"} else _LEGACY.get(primary, primary)


def asked_language(tag: str) -> str:
    """The language that a question may be narrowed to, as passages carry it. Raises ValueError for what is none."""
    language = normalise_language(tag)
    if language is None:
        raise ValueError(f"{tag!r} is no language code: use one such as 'sw' or 'zh'")
    return language


def _main_script(text: str) -> str | None:
    weights: Counter[str] = Counter()
    for run in _RUN.finditer(text):
        script = run.lastgroup or ""  # a match always has its group's name
        weights[script] += len(run.group()) * _WEIGHT.get(script, 2)
    # Japanese mixes kana and Han; Chinese that quotes a kana name stays Chinese.
    kana, han = weights.pop("Hiragana", 0) + weights.pop("Katakana", 0), weights.pop("Han", 0)
    if kana or han:
        weights["Hiragana" if kana * 10 > han else "Han"] = kana + han
    return max(weights, key=weights.__getitem__) if weights else None


def identifier() -> LanguageIdentifier:
    """One per process, loaded at the first call and read-only then, so that threads share it without a lock."""
    global _identifier
    if _identifier is None:
        with _lock:
            if _identifier is None:
                from py3langid.langid import MODEL_FILE, LanguageIdentifier

                loaded = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
                loaded.set_languages(sorted(frozenset[str]().union(*_LABELS.values())))
                _identifier = loaded
    return _identifier
