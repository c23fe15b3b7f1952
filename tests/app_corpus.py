"""What the app's tests need beside the app: a small corpus, and the command that indexes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "apps" / "corpus" / "mul"


def part_of_the_demo(folder: Path, languages: Mapping[str, int]) -> Path:
    """A folder with the demo's first documents in some languages, so many of each, and the questions they answer."""
    documents = [json.loads(line) for line in (DEMO / "corpus.jsonl").read_text("utf-8").splitlines()]
    of_each = [[d for d in documents if d["lang"] == lang][:most] for lang, most in languages.items()]
    kept = {d["_id"]: d for some in of_each for d in some}
    head, *judged = (DEMO / "qrels.tsv").read_text("utf-8").splitlines()
    judged = [line for line in judged if line.split("\t")[1] in kept]
    asked = {line.split("\t")[0] for line in judged}
    questions = [q for q in (DEMO / "queries.jsonl").read_text("utf-8").splitlines() if json.loads(q)["_id"] in asked]
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(d, ensure_ascii=False) for d in kept.values()]
    for name, content in (("corpus.jsonl", lines), ("queries.jsonl", questions), ("qrels.tsv", [head, *judged])):
        (folder / name).write_text("".join(f"{line}\n" for line in content), "utf-8")
    return folder


def ragkit(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("ragkit")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | variables, timeout=600)
