"""What the pages that people read point at is there."""

from __future__ import annotations

import re
import tomllib
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


def test_every_extra_that_a_message_names_can_be_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    sources = "".join(
        path.read_text("utf-8") for part in ("ragkit", "trainer", "apps") for path in (ROOT / part).rglob("*.py")
    )
    named = set(re.findall(r"install\([\"'](\w+)[\"']\)", sources))
    assert len(named) > 10
    assert named <= extras.keys()
    assert sources.count("pip install -e") == 1  # the hint has one home
