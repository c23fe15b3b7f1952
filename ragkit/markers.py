"""Citation markers in a model's answer: ``[2]`` as models write it in any script, checked as it streams.

Models write ``[1, 3]``, ``[1-3]``, ``【2】``, ``［２］`` or ``[٢]``. All become ``[1][3]``, and a number that
stands for no passage is taken out and counted, so that what is left can be trusted. Pure: text in, text out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import regex

_OPEN, _CLOSE = r"[\[【［〔]", r"[\]】］〕]"
_NUMBER = r"\s*\p{Nd}{1,4}\s*"
_MARKER = regex.compile(rf"{_OPEN}({_NUMBER}(?:[,،、，;–-]{_NUMBER})*){_CLOSE}")
_LONGEST = 40  # characters of a marker: what an opening bracket begins and does not close by then is text


@dataclass
class MarkerReader:
    """Feed it pieces of an answer about ``passages`` passages; it returns text that is safe to show."""

    passages: int
    invalid: int = 0  # numbers that stood for no passage
    text: str = ""  # all that was returned
    found: list[tuple[int, int]] = field(default_factory=list)  # (number, characters into text where it starts)
    _held: str = ""

    def feed(self, piece: str) -> str:
        """``piece`` and what was held back, without the beginning of a marker that may go on."""
        self._held += piece
        out = ""
        while True:
            match = _MARKER.search(self._held, partial=True)
            if match is None or (match.partial and len(self._held) - match.start() > _LONGEST):
                return out + self._take(len(self._held))
            out += self._take(match.start())
            if match.partial:
                return out
            inner = match.group(1)
            self._held = self._held[match.end() - match.start() :]
            out += self._marks(inner)

    def close(self) -> str:
        """What is left when the answer has ended."""
        return self._take(len(self._held))

    def _take(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self.text += piece
        return piece

    def _marks(self, inner: str) -> str:
        out = ""
        for number in _numbers(inner):
            if 1 <= number <= self.passages:
                self.found.append((number, len(self.text)))
                mark = f"[{number}]"
                out += mark
                self.text += mark
            else:
                self.invalid += 1
        return out


def _numbers(inner: str) -> list[int]:
    """``"1, 3-5"`` as 1, 3, 4, 5. A range that runs backwards or is long is its two ends."""
    numbers: list[int] = []
    for part in regex.split(r"[,،、，;]", inner):
        first, *rest = (int(n) for n in regex.split(r"[–-]", part))  # int() reads the digits of every script
        last = rest[-1] if rest else first
        numbers += range(first, last + 1) if first <= last < first + 10 else (first, last)
    return numbers
