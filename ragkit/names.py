"""What a corpus may be called: a name that becomes a folder and a collection wherever it is kept."""

from __future__ import annotations

import re

from ragkit.owner import StoreError

_CORPUS = re.compile(r"[A-Za-z0-9](?:[._-]?[A-Za-z0-9])*")  # no "--": it ends the corpus in a collection's name


def check_corpus(name: str) -> None:
    """Raises StoreError."""
    if len(name) > 64 or not _CORPUS.fullmatch(name):
        raise StoreError(
            f"corpus name {name!r}: it names a folder and a collection, so use up to 64 ASCII letters and digits "
            "with single '.', '_' or '-' between them, for example 'town-handbook'"
        )
