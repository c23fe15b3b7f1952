"""What corpora and tenants may be called: checked where a store opens them, and before work that is meant for one."""

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


def check_tenant(name: str) -> None:
    """Raises ValueError for one that is empty, longer than 256 characters, or no valid Unicode."""
    if not 0 < len(name) <= 256 or name != name.encode("utf-8", "replace").decode("utf-8"):
        raise ValueError(f"tenant {name[:300]!r}: give a name of 1 to 256 characters of valid Unicode")
