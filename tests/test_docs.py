"""What the pages that people read point at is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(page for part in ("docs", "ragkit", "trainer", "apps", "benchmarks") for page in (ROOT / part).rglob("*.md")),
]


def test_every_link_within_the_repository_leads_somewhere():
    links = [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if not target.startswith(("http:", "https:", "mailto:"))
    ]
    assert len(links) > 20
    assert [
        f"{page.relative_to(ROOT)}: {target}" for page, target in links if not (page.parent / target).exists()
    ] == []
