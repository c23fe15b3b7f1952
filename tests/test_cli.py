"""What scripts rely on: one JSON document on the last line, counts, and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import SCRIPTS
from test_grounded import Model
from typer.testing import CliRunner

from ragkit.cli import app
from ragkit.retrieve import Retriever

ROOT = Path(__file__).parent.parent


@pytest.fixture
def world(mistral_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAGKIT_MODEL", str(mistral_folder))
    documents = tmp_path / "documents"
    documents.mkdir()
    for lang, text in SCRIPTS.items():
        (documents / f"{lang}.txt").write_text(text, "utf-8")
    (documents / "picture.png").write_bytes(b"\x89PNG")
    return documents


def run(*arguments: object) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert len(lines) == 1, "standard output holds more than the document"
    return json.loads(lines[-1])


def test_ingest_search_ask(world: Path, monkeypatch: pytest.MonkeyPatch):
    first = run("ingest", world, "--corpus", "town")
    assert (first["added"], first["unchanged"], first["removed"], first["skipped"]) == (7, 0, 0, 1)
    assert first["passages"] == 7
    assert run("ingest", world, "--corpus", "town")["unchanged"] == 7
    (world / "th.txt").unlink()
    again = run("ingest", world, "--corpus", "town")
    assert (again["added"], again["removed"], again["passages"]) == (0, 1, 0)

    hits = run("search", SCRIPTS["am"], "--corpus", "town", "--mode", "sparse")["hits"]
    assert set(hits[0]) >= {"rank", "id", "score", "lang", "document", "text"}
    assert (hits[0]["rank"], hits[0]["lang"], hits[0]["document"]) == (1, "am", "am.txt")
    assert hits[0]["text"] == SCRIPTS["am"]
    assert [
        h["lang"] for h in run("search", "x", "--corpus", "town", "--lang", "zh-CN", "--mode", "dense")["hits"]
    ] == ["zh"]
    assert len(run("search", "x", "--corpus", "town", "-k", 3, "--mode", "dense", "--task", "sts")["hits"]) == 3

    answer = run("ask", SCRIPTS["ja"], "--corpus", "town", "--instruction", "Find the opening hours")
    assert set(answer) == {"answer", "model", "citations", "hits"} and answer["model"] == ""
    [citation] = answer["citations"]
    assert answer["answer"] == f"{citation['quote']} [1]"
    tasks: list[str] = []
    whole = Retriever.search_batch

    def spied(self: Retriever, *arguments: Any, **asked: Any) -> Any:
        tasks.append(asked["task"].name)
        return whole(self, *arguments, **asked)

    monkeypatch.setattr(Retriever, "search_batch", spied)
    run("ask", SCRIPTS["ja"], "--corpus", "town")
    run("ask", SCRIPTS["ja"], "--corpus", "town", "--task", "web-search")
    run("search", SCRIPTS["ja"], "--corpus", "town")
    assert tasks == ["question-answering", "web-search", "web-search"]  # answer_threshold was chosen under the first
    assert citation["id"] in {h["id"] for h in answer["hits"]}


def test_ask_with_a_language_model(world: Path, monkeypatch: pytest.MonkeyPatch):
    model = Model()
    monkeypatch.setenv("RAGKIT_LLM_MODEL", "m")
    monkeypatch.setenv("RAGKIT_LLM_URL", model.endpoint.base_url)
    monkeypatch.setenv("RAGKIT_LLM_API_KEY", "sk-geheim")
    run("ingest", world, "--corpus", "town")
    model.pieces = ["開いて", "います [1", "][77]。"]
    answer = run("ask", SCRIPTS["ja"], "--corpus", "town")
    assert (answer["answer"], answer["model"]) == ("開いています [1]。", "m")
    assert answer["citations"][0]["id"] == answer["hits"][0]["id"]
    shown = CliRunner().invoke(app, ["ask", SCRIPTS["ja"], "--corpus", "town"]).stdout.splitlines()
    assert shown[0] == "開いています [1]。" and shown[1].startswith("[1] ")
    model.pieces = ["はい"]
    assert "nothing backs this answer" in CliRunner().invoke(app, ["ask", "x", "--corpus", "town"]).stdout
    model.pieces = ["NOT_STATED"]
    assert run("ask", "x", "--corpus", "town")["answer"] is None
    asked = len(model.seen)
    assert run("ask", SCRIPTS["ja"], "--corpus", "town", "--extractive")["model"] == "" and len(model.seen) == asked
    model.status = 401
    failed = CliRunner().invoke(app, ["ask", "x", "--corpus", "town"])
    assert failed.exit_code == 1 and "m answers 401" in failed.output and "--extractive" in failed.output
    assert "geheim" not in failed.output


def test_where_a_hit_stands(world: Path):
    (world / "en.md").write_text("# Library\n\n## Opening hours\n\nThe library opens at eight.")
    run("ingest", world, "--corpus", "town")
    [hit] = run("search", "library opens", "--corpus", "town", "--mode", "sparse")["hits"]
    assert (hit["document"], hit["page"], hit["heading"]) == ("en.md", 0, "Library")  # where the passage begins


def test_an_emptied_folder_asks_first(world: Path):
    run("ingest", world, "--corpus", "town")
    for path in world.iterdir():
        path.unlink()
    done = CliRunner().invoke(app, ["ingest", str(world), "--corpus", "town"])
    assert done.exit_code == 1 and "--allow-empty" in done.stderr
    assert run("ingest", world, "--corpus", "town", "--allow-empty")["removed"] == 7


def test_a_name_cannot_command_the_terminal(world: Path):
    (world / "a\n\x1b[2Jb.png").write_bytes(b"")
    done = CliRunner().invoke(app, ["ingest", str(world), "--corpus", "town"])
    assert "a\\n\\x1b[2Jb.png: no reader" in done.stderr and "\x1b[2J" not in done.stderr


def test_neither_a_document_nor_a_model_can_command_the_terminal(world: Path, monkeypatch: pytest.MonkeyPatch):
    clipboard, clear = "\x1b]52;c;cm0gLXJm\x07", "\x9b2J\x7f"
    for path in world.iterdir():
        path.unlink()
    for lang, text in SCRIPTS.items():
        halves = f"{text[:3]}{clipboard}{clear}{text[3:]}", f"{text[:3]}{clear}{text[3:]}"
        (world / f"{lang}.jsonl").write_text(json.dumps({"_id": lang, "text": "\u2028".join(halves)}) + "\n", "utf-8")
    run("ingest", world, "--corpus", "town")
    commands = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    for text in SCRIPTS.values():
        for command in ("search", "ask"):
            shown = CliRunner().invoke(app, [command, text, "--corpus", "town"]).stdout
            assert not commands.search(shown) and "x9b2J" in shown
    assert "\\x1b]52" in CliRunner().invoke(app, ["search", SCRIPTS["ar"], "--corpus", "town"]).stdout
    raw = CliRunner().invoke(app, ["search", SCRIPTS["am"], "--corpus", "town", "--json"]).stdout
    assert not commands.search(raw) and "\u2028" not in raw
    assert any("\x9b2J" in hit["text"] for hit in json.loads(raw)["hits"])

    model = Model()
    monkeypatch.setenv("RAGKIT_LLM_MODEL", "m")
    monkeypatch.setenv("RAGKIT_LLM_URL", model.endpoint.base_url)
    monkeypatch.setenv("RAGKIT_LLM_API_KEY", "sk-geheim")
    model.pieces = [f"開いて{clipboard}", "\r\x9b2Jいます\n\t [1", "]。"]
    shown = CliRunner().invoke(app, ["ask", SCRIPTS["ja"], "--corpus", "town"]).stdout
    assert not commands.search(shown) and "開いて\\x1b]52;c;cm0gLXJm\\x07\\r\\x9b2Jいます\n\t [1]。" in shown


def test_watch_goes_on_until_interrupted(world: Path):
    # A shell's background job ignores SIGINT, and so would its children: say what it means here.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from ragkit.cli import main; main()"
    command = [sys.executable, "-c", program, "ingest", str(world), "--corpus", "town", "--watch", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["added"] == 7
            (world / "new.txt").write_text("ህንጻው አዲስ ነው።", "utf-8")
            assert json.loads(process.stdout.readline())["added"] == 1
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "q", "--corpus", "c", "--mode", "fast"], "none of hybrid, dense, sparse"),
        (["search", "q", "--corpus", "c", "--task", "seek"], "'seek' is none of web-search"),
        (["search", "q", "--corpus", "c", "--task", "sts", "--instruction", "Find"], "not both"),
        (["search", "q", "--corpus", "c", "--lang", "klingonese"], "is no language code"),
        (["ask", "q", "--corpus", "c", "--instruction", " "], "blank instruction"),
        (["search", "q"], "corpus"),
        (["search", "q", "--corpus", "c", "-k", "0"], "-k"),
        (["ingest", "--corpus", "c"], "Missing argument"),
        (["fly"], "No such command"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], said: str):
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert said in done.output


@pytest.mark.parametrize("command", ["ingest .", "search q", "ask q", "reindex", "evaluate .", "serve", "doctor"])
def test_a_wrong_variable_is_exit_code_2(command: str):
    name, *rest = command.split()
    corpus = [] if name in ("serve", "doctor") else ["--corpus", "c"]
    done = CliRunner().invoke(app, [name, *rest, *corpus], env={"RAGKIT_QDRANT_BITS": "secret-3"})
    assert done.exit_code == 2, done.output
    assert "bits" in done.stderr and "secret-3" not in done.stderr and "Traceback" not in done.stderr


def test_serve_refuses_a_setting_that_it_cannot_honour():
    done = CliRunner().invoke(app, ["serve"], env={"RAGKIT_DIMENSIONS": "256"})
    assert done.exit_code == 1 and "RAGKIT_DIMENSIONS is 256" in done.stderr and "Traceback" not in done.stderr


def test_failed_work_is_exit_code_1(world: Path):
    runner = CliRunner()
    for arguments, said in [
        (["search", "q", "--corpus", "none"], "no corpus 'none'"),
        (["ingest", str(world / "missing"), "--corpus", "c"], "cannot read"),
        (["ingest", str(world), "--corpus", "../c"], "corpus name '../c'"),
        (["search", "q", "--corpus", "c", "--model", str(world / "no-model")], "ragkit:"),
    ]:
        done = runner.invoke(app, arguments)
        assert done.exit_code == 1
        assert said in done.stderr and done.stdout == ""
        assert "Traceback" not in done.stderr


def test_output_survives_a_terminal_that_knows_only_ascii(world: Path):
    run("ingest", world, "--corpus", "town")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    command = [
        sys.executable,
        "-c",
        "from ragkit.cli import main; main()",
        "search",
        SCRIPTS["am"],
        "--corpus",
        "town",
        "--mode",
        "sparse",
    ]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert SCRIPTS["am"] in done.stdout.decode("utf-8")
