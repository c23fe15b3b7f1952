"""The app's words, in twelve languages, and which of them a visitor gets.

``messages/<language>.json`` holds them by name, with ``{gaps}`` for values; a test holds the twelve to the same
names and gaps. Names of languages, numbers and shares are Babel's (Unicode CLDR). A visitor gets what the
address says (``?lang=ar``), else what was chosen before (a cookie), else the first language of the browser that
is one of ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from babel import Locale, UnknownLocaleError
from babel.numbers import format_decimal, format_percent

FOLDER = Path(__file__).parent / "messages"
LANGUAGES = {  # as their speakers write them
    "en": "English",
    "de": "Deutsch",
    "es": "Español",
    "fr": "Français",
    "ar": "العربية",
    "he": "עברית",
    "fa": "فارسی",
    "ur": "اردو",
    "hi": "हिन्दी",
    "zh": "中文",
    "ja": "日本語",
    "am": "አማርኛ",
}
RIGHT_TO_LEFT = frozenset({"ar", "he", "fa", "ur"})
COOKIE = "ragkit-language"


@cache
def messages(language: str) -> dict[str, str]:
    return json.loads((FOLDER / f"{language}.json").read_text("utf-8"))


class Words:
    """What the app says in one language; any other code gets English."""

    def __init__(self, language: str) -> None:
        self.language = language if language in LANGUAGES else "en"
        self.direction = "rtl" if self.language in RIGHT_TO_LEFT else "ltr"
        self._said = messages(self.language)
        self._locale = Locale.parse(self.language)

    def __call__(self, name: str, **values: object) -> str:
        """The message ``name``, its gaps filled; numbers as the language writes them."""
        return self._said[name].format(**{gap: self._shown(value) for gap, value in values.items()})

    def _shown(self, value: object) -> object:
        return self.number(value) if isinstance(value, int | float) else value

    def number(self, value: float, digits: int = 0) -> str:
        pattern = "#,##0" + ("." + "0" * digits if digits else "")
        return format_decimal(value, pattern, locale=self._locale)

    def share(self, value: float) -> str:
        """0.5 as a percentage."""
        return format_percent(value, "#,##0%", locale=self._locale)

    def name_of(self, language: str) -> str:
        """A language's name in this one; its code where CLDR knows none."""
        if (known := self._locale.languages.get(language)) is not None:  # "und" too
            return known
        try:
            return Locale.parse(language.replace("-", "_")).get_display_name(self._locale) or language
        except (UnknownLocaleError, ValueError):
            return language


def negotiate(asked: str | None, remembered: str | None, accepted: str) -> str:
    """The visitor's language: of the address, of the cookie, or of ``accepted``, an Accept-Language header."""
    for code in (asked, remembered, *_by_quality(accepted)):
        short = (code or "").partition("-")[0].lower()
        short = {"iw": "he"}.get(short, short)  # an old code that some browsers still send
        if short in LANGUAGES:
            return short
    return "en"


def _by_quality(header: str) -> list[str]:
    wanted: list[tuple[float, str]] = []
    for part in header.split(","):
        code, _, parameters = part.strip().partition(";")
        name, _, value = parameters.strip().partition("=")
        try:
            quality = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            quality = 0.0
        if code and quality > 0:
            wanted.append((-quality, code))
    return [code for _, code in sorted(wanted, key=lambda pair: pair[0])]


def translations() -> Mapping[str, Mapping[str, str]]:
    """All of them, for the labels that the browser translates."""
    return {language: messages(language) for language in LANGUAGES}
