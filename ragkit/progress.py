"""How far a long work is: a bar on standard error, nothing, or whatever the caller shows it with."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm


class Bar(Protocol):
    """The part of tqdm that is used here."""

    def update(self, n: int = 1) -> Any: ...

    def set_postfix(self, **numbers: Any) -> Any: ...


@contextmanager
def shown(progress: bool | Bar, what: str, unit: str, total: int | None = None) -> Iterator[Bar]:
    """True: a bar on standard error. False: none. A Bar: that one."""
    if not isinstance(progress, bool):
        yield progress
        return
    with tqdm(desc=what, unit=f" {unit}", total=total, file=sys.stderr, disable=not progress) as bar:
        yield bar
