"""A matplotlib figure as PNG, for light and for dark pages. Colours are Okabe and Ito's, told apart without red and
green. Needs matplotlib, of the extras report and plan."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import get_font_names

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#888888")
FONTS = ("DejaVu Sans", "Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Ethiopic",
         "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Emoji")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    ink: str
    paper: str
    grid: str


LIGHT, DARK = Look("#1b1f24", "#ffffff", "#d5d9de"), Look("#e6e9ee", "#15181c", "#3a4048")


def png(draw: Callable[[Look], Figure], look: Look) -> bytes:
    out = io.BytesIO()
    settings: Any = {
        "text.parse_math": False,  # a model may be called "$"
        "font.family": _fonts(),
        "font.size": 9,
        "text.color": look.ink,
        "axes.labelcolor": look.ink,
        "axes.edgecolor": look.grid,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
        "axes.facecolor": look.paper,
        "figure.facecolor": look.paper,
        "grid.color": look.grid,
        "legend.frameon": False,
    }
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a script without a font here is drawn as boxes
        draw(look).savefig(out, format="png", dpi=120)
    return out.getvalue()


@cache
def _fonts() -> list[str]:
    there = set(get_font_names())
    return [font for font in FONTS if font in there]
