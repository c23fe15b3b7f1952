"""Languages: which question finds which document, and whether meaning or language decides."""

from __future__ import annotations

from apps.desk import Desk


def build(desk: Desk) -> None: ...
