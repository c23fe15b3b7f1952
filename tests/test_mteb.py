"""mteb as the harness, on local tasks: the protocol, the numbers, the files, and what a killed run leaves."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import HashEncoder
from test_evaluate import data, write_set  # noqa: F401  (the first is a fixture)

pytest.importorskip("mteb", reason="the extra 'evaluate' is not installed")

import pytrec_eval
from mteb._evaluators.retrieval_metrics import calculate_retrieval_scores
from mteb.types import PromptType
from typer.testing import CliRunner

from ragkit import TASKS, Task, metrics
from ragkit.sparse import SCHEME
from trainer import harness, mteb_tasks
from trainer.cli import app
from trainer.evaluate import CachedEncoder
from trainer.mteb_models import EncoderModel, Rules

TASK = TASKS["question-answering"]
HERE = Path(__file__).parent


class Reads(HashEncoder):
    """Keeps what it was given to read, prompts included."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[tuple[str, str]] = []

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        self.read += [("unit", task.prompt(query)) for query in queries]
        return super().encode_queries(queries, task)

    def encode_states(self, queries: Sequence[str], task: Task) -> np.ndarray:
        self.read += [("states", task.prompt(query)) for query in queries]
        return 3 * super().encode_queries(queries, task)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        self.read += [("bare", text) for text in passages]
        return super().encode_passages(passages)


def lines(file: Path, records: Sequence[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    folder = tmp_path / "pairs"
    same = ["የወደብ ቢሮ", "海港办事处", "ท่าเรือ เก่า", "🙂 boat"]
    lines(folder / "near" / "am.jsonl", [{"s1": s, "s2": s, "score": 5} for s in same]
          + [{"s1": a, "s2": b, "score": 0} for a, b in pairwise(same)])  # fmt: skip
    lines(folder / "two" / "en-ja.jsonl", [{"src": f"text {s}", "tgt": f"本文 {s}"} for s in "abc"])
    lines(folder / "two" / "eng-zho-TW.jsonl", [{"src": f"text {s}", "tgt": f"本文 {s}"} for s in "abc"])
    return folder


# ------------------------------------------------------------------ the protocol


def test_retrieval_prompts_queries_and_leaves_passages_bare(data: Path, tmp_path: Path):  # noqa: F811
    encoder = Reads()
    tasks = mteb_tasks.local_tasks([data], only=["colours"], task=TASK)
    assert not harness.run(EncoderModel(encoder, "ragkit/reads"), tasks, tmp_path / "out").failed
    assert sorted(encoder.read) == [("bare", "色 blue 蓝"), ("bare", "色 red 红"), ("unit", TASK.prompt("blue 蓝"))]


def test_symmetric_tasks_prompt_every_text(pairs: Path, tmp_path: Path):
    encoder = Reads()
    tasks = mteb_tasks.local_tasks([pairs], task=TASK)
    done = harness.run(EncoderModel(encoder, "ragkit/reads"), tasks, tmp_path / "out")
    found = {r.task_name: r.get_score() for r in done.results}
    assert found["two"] == 1 and found["near"] > 0.9
    prefixes = {TASKS["sts"].prefix, TASKS["bitext"].prefix}
    assert {kind for kind, _ in encoder.read} == {"unit"}
    assert all(any(text.startswith(prefix) for prefix in prefixes) for _, text in encoder.read)


def of(category: str, name: str = "Own") -> Any:
    return SimpleNamespace(name=name, type=category, prompt=None, task_subtypes=None, dataset={"path": "mteb/own"})


@pytest.mark.parametrize(
    ("category", "side", "rules", "kind"),
    [
        ("Classification", None, Rules(), "states"),
        ("Classification", None, Rules(unit_classification=True), "unit"),
        ("Clustering", None, Rules(), "unit"),
        ("Reranking", PromptType.document, Rules(), "bare"),
        ("Reranking", PromptType.document, Rules(rerank_prompted=True), "unit"),
        ("Reranking", PromptType.query, Rules(), "unit"),
    ],
)
def test_length_is_kept_for_classification_alone(category: str, side: Any, rules: Rules, kind: str):
    encoder = Reads()
    model = EncoderModel(encoder, "ragkit/reads", rules=rules)
    where: dict[str, Any] = {"task_metadata": of(category), "hf_split": "test", "hf_subset": "x", "prompt_type": side}
    rows = model.encode([{"text": ["a b"]}, {"text": ["c"]}], **where)
    assert [k for k, _ in encoder.read] == [kind, kind]
    assert np.linalg.norm(rows, axis=1) == pytest.approx(3 if kind == "states" else 1)


def test_a_cache_keeps_states_apart_and_cannot_give_what_the_encoder_cannot(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    kept = CachedEncoder(Reads(), tmp_path / "c.sqlite")
    for _ in range(2):
        assert np.linalg.norm(kept.encode_states(["a"], TASK)) == pytest.approx(3)
        assert np.linalg.norm(kept.encode_queries(["a"], TASK)) == pytest.approx(1)
    assert EncoderModel(kept, "ragkit/x").has_states
    without = EncoderModel(CachedEncoder(HashEncoder(), tmp_path / "d.sqlite"), "ragkit/x")
    where: dict[str, Any] = {"task_metadata": of("Classification"), "hf_split": "test", "hf_subset": "x"}
    assert np.linalg.norm(without.encode([{"text": ["a"]}], **where)) == pytest.approx(1)
    assert "gives unit rows alone" in caplog.text


def test_a_server_is_evaluated_as_the_encoder_it_serves(data: Path, mistral_folder: Path, tmp_path: Path):  # noqa: F811
    pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")
    from serving import serving_model

    from ragkit.encoder import LocalEncoder
    from trainer.peers import open_model

    mistral = LocalEncoder.load(mistral_folder)

    def result(model: EncoderModel) -> float:
        tasks = mteb_tasks.local_tasks([data], only=["towns"], task=TASK)
        return harness.run(model, tasks, tmp_path / "out").results[0].get_score()

    with serving_model(mistral) as url:
        name, remote, instructions = open_model(url)
        served, local = EncoderModel(remote, name), EncoderModel(mistral, "ragkit/tiny")
        assert (name, instructions) == ("remote/tiny", True)
        assert result(served) == result(local)
    assert served.mteb_model_meta.revision == local.mteb_model_meta.revision
    assert (served.has_states, local.has_states) == (False, True)  # what it sends has length one already
    assert local.mteb_model_meta.n_parameters == mistral.n_parameters == 2_122_048


def test_the_model_says_what_it_is_and_departures_stand_in_its_name():
    meta = EncoderModel(HashEncoder(), "ragkit/hash", rules=Rules(True, True)).mteb_model_meta
    assert meta.name == "ragkit/hash+unit+rerank-prompted"
    assert (meta.revision, meta.embed_dim, meta.max_tokens) == (HashEncoder().fingerprint, 64, 512)
    assert meta.use_instructions and meta.n_parameters is None and meta.training_datasets is None


# ------------------------------------------------------------------ the numbers


def tied_run(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Judgements and a run whose scores take four values, so that nearly every rank is tied."""
    rng = random.Random(seed)
    documents = [f"d{n}" for n in range(150)]
    qrels = {f"q{n}": {d: rng.choice([0, 1, 2]) for d in rng.sample(documents, 9)} | {"d1": 1} for n in range(20)}
    run = {q: {d: rng.randrange(4) / 4 for d in rng.sample(documents, rng.choice([3, 9, 150]))} for q in qrels}
    return qrels, run


@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_mtebs_and_pytrec_evals_ties_included(seed: int):
    qrels, run = tied_run(seed)
    ours = metrics.per_query(qrels, run)
    theirs = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100"}).evaluate(run)
    by_mteb = calculate_retrieval_scores(run, qrels, [10, 100])
    for query, scores in ours.items():
        for found in (theirs[query], by_mteb.all_scores[query]):
            assert scores["ndcg@10"] == pytest.approx(found["ndcg_cut_10"], abs=1e-6)
            assert scores["recall@100"] == pytest.approx(found["recall_100"], abs=1e-6)
    mean = metrics.mean(qrels, run)
    assert mean["mrr@10"] == pytest.approx(by_mteb.mrr["MRR@10"], abs=1e-6)
    assert mean["ndcg@10"] == pytest.approx(by_mteb.ndcg["NDCG@10"], abs=6e-6)  # mteb rounds its means to 5 digits


def by_hand(qrels: dict[str, int], run: dict[str, float]) -> tuple[float, float]:
    """ndcg@10 and mrr@10 of one query, by mteb."""
    scores = calculate_retrieval_scores({"q": run}, {"q": qrels}, [10])
    return scores.all_scores["q"]["ndcg_cut_10"], scores.mrr["MRR@10"]


@pytest.mark.parametrize(
    ("qrels", "run", "ndcg", "mrr"),
    [
        ({"b": 1}, {"a": 0.5, "b": 0.5}, 1.0, 1.0),  # a tie: the greater id leads, as in trec_eval
        ({"a": 1}, {"a": 0.5, "b": 0.5}, 1 / np.log2(3), 0.5),
        ({"a": 2, "b": 1}, {"b": 0.9, "a": 0.1}, (1 + 2 / np.log2(3)) / (2 + 1 / np.log2(3)), 1.0),  # grades
        ({"a": 1, "b": 1, "c": 1}, {"b": 0.9}, 1 / (1 + 1 / np.log2(3) + 0.5), 1.0),  # fewer than k were found
        ({"a": 1}, {}, 0.0, 0.0),  # nothing was found
        ({"a": 1}, {f"x{n:02}": 1.0 - n / 20 for n in range(10)} | {"a": 0.1}, 0.0, 0.0),  # found at rank 11
    ],
)
def test_cases_worked_by_hand(qrels: dict[str, int], run: dict[str, float], ndcg: float, mrr: float):
    assert by_hand(qrels, run) == pytest.approx((ndcg, mrr), abs=1e-6)
    ours = metrics.per_query({"q": qrels}, {"q": run})["q"]
    assert (ours["ndcg@10"], ours["mrr@10"]) == pytest.approx((ndcg, mrr), abs=1e-6)


def test_a_query_without_a_relevant_passage_is_0_for_mteb_and_left_out_here():
    assert by_hand({"a": 0}, {"a": 1.0}) == (0, 0)
    assert metrics.per_query({"q": {"a": 0}}, {"q": {"a": 1.0}}) == {}


# ------------------------------------------------------------------ the files


def folder(out: Path, name: str = "hash") -> Path:
    return out / "results" / f"ragkit__{name}" / HashEncoder().fingerprint


def test_results_are_mtebs_with_every_querys_scores_beside(data: Path, tmp_path: Path):  # noqa: F811
    tasks = mteb_tasks.local_tasks([data], task=TASK)
    done = harness.run(EncoderModel(HashEncoder(), "ragkit/hash"), tasks, tmp_path / "out")
    files = folder(tmp_path / "out")
    for result in done.results:
        queries = json.loads((files / f"{result.task_name}.perquery.json").read_text("utf-8"))
        entries = json.loads((files / f"{result.task_name}.json").read_text("utf-8"))["scores"]["test"]
        assert set(queries) == {entry["hf_subset"] for entry in entries}
        for entry in entries:
            for metric, name in (("ndcg@10", "ndcg_at_10"), ("recall@100", "recall_at_100"), ("mrr@10", "mrr_at_10")):
                mean = np.mean([scores[metric] for scores in queries[entry["hf_subset"]].values()])
                assert mean == pytest.approx(entry[name], abs=6e-6)
    assert "towns  " in harness.table(done.results) and "100.00  of 2 subset(s)" in harness.table(done.results)


def test_results_of_other_data_are_set_aside(data: Path, tmp_path: Path):  # noqa: F811
    def run(task: Task = TASK) -> int:
        encoder = HashEncoder()
        tasks = mteb_tasks.local_tasks([data], only=["colours"], task=task)
        harness.run(EncoderModel(encoder, "ragkit/hash"), tasks, tmp_path / "out")
        return encoder.encoded

    assert (run(), run()) == (2, 0)
    with (data / "colours" / "zh-Hant" / "corpus.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"_id": "d9", "title": "", "text": "green 绿"}) + "\n")
    assert (run(), run()) == (3, 0)
    assert len(list(folder(tmp_path / "out").glob("colours.*json.*"))) == 2
    results = folder(tmp_path / "out") / "colours.json"
    results.write_text(results.read_text("utf-8")[:99], "utf-8")  # as a kill while mteb writes leaves it
    assert (run(), run()) == (3, 0)
    assert run(TASKS["fact-checking"]) == 3  # another question to the same passages


def test_a_task_records_for_one_model_at_a_time(data: Path, tmp_path: Path):  # noqa: F811
    tasks = mteb_tasks.local_tasks([data], only=["colours"], task=TASK)
    harness.run(EncoderModel(HashEncoder(), "ragkit/hash"), tasks, tmp_path / "out")
    first = folder(tmp_path / "out") / "colours.perquery.json"
    written = first.stat().st_mtime_ns
    harness.run(EncoderModel(HashEncoder(), "ragkit/again"), tasks, tmp_path / "out")
    assert first.stat().st_mtime_ns == written
    assert (folder(tmp_path / "out", "again") / first.name).exists()


def test_a_task_that_fails_is_told_and_the_others_are_done(data: Path, tmp_path: Path):  # noqa: F811
    class Fails(HashEncoder):
        def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
            if "blue 蓝" in queries:
                raise OSError("out of reach")
            return super().encode_queries(queries, task)

    tasks = mteb_tasks.local_tasks([data], task=TASK)
    done = harness.run(EncoderModel(Fails(), "ragkit/hash"), tasks, tmp_path / "out")
    assert done.failed == {"colours": "OSError: out of reach"}
    assert [result.task_name for result in done.results] == ["towns"]


def test_a_lone_surrogate_does_not_cost_a_set(tmp_path: Path):
    write_set(tmp_path / "half" / "am", ["ሰላም \ud800 ዓለም", "大海", "ทะเล"], ["ሰላም \ud800", "大海 \udc00"])
    (tmp_path / "near").mkdir()
    records = [{"s1": f"{s} \ud800", "s2": s, "score": n} for n, s in enumerate(("ወደብ", "海港", "ท่าเรือ"))]
    (tmp_path / "near" / "am.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    tasks = mteb_tasks.local_tasks([tmp_path], task=TASK)
    done = harness.run(EncoderModel(HashEncoder(), "ragkit/hash"), tasks, tmp_path / "out")
    assert done.failed == {} and {r.task_name for r in done.results} == {"half", "near"}


def test_a_killed_evaluation_goes_on_where_it_was(data: Path, tmp_path: Path):  # noqa: F811
    out, ready = tmp_path / "out", tmp_path / "ready"
    hang_at = 2 + 6 + 6  # colours, then towns in English; in its last subset
    command = [sys.executable, str(HERE / "mteb_once.py"), str(data), str(out), str(hang_at), str(ready)]
    process = subprocess.Popen(command, cwd=HERE.parent, stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while not ready.exists():
            assert process.poll() is None and time.monotonic() - began < 300
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    colours = folder(out) / "colours.json"
    written, queries = colours.stat().st_mtime_ns, folder(out) / "towns.perquery.json"
    assert set(json.loads(queries.read_text("utf-8"))) == {"en"}

    encoder = HashEncoder()
    done = harness.run(EncoderModel(encoder, "ragkit/hash"), mteb_tasks.local_tasks([data], task=TASK), out)
    assert encoder.encoded == 6  # the subset it was killed in, and nothing else
    assert colours.stat().st_mtime_ns == written
    assert [r.get_score() for r in done.results] == [pytest.approx(0.63093, abs=1e-5), 1.0]
    assert set(json.loads(queries.read_text("utf-8"))) == {"en", "en-zh"}


# ------------------------------------------------------------------ the data


@pytest.mark.parametrize(
    ("subset", "languages"),
    [
        ("de", ["deu-Latn"]), ("zh-Hant", ["zho-Hant"]), ("en-zh", ["eng-Latn", "zho-Hans"]), ("am", ["amh-Ethi"]),
        ("eng-zho-TW", ["eng-Latn", "zho-Hant"]), ("pt_BR", ["por-Latn"]), ("eng-arb", ["eng-Latn", "arb-Arab"]),
        ("th-hi", ["tha-Thai", "hin-Deva"]), ("ja", ["jpn-Jpan"]), ("xx", ["und-Zyyy"]),
    ],
)  # fmt: skip
def test_languages_as_mteb_writes_them(subset: str, languages: list[str]):
    assert mteb_tasks.languages_of(subset) == languages


def test_a_sample_has_its_size_in_its_name(data: Path, pairs: Path):  # noqa: F811
    sample = mteb_tasks.Sample(2, 4)
    names = [t.metadata.name for t in mteb_tasks.local_tasks([data, pairs], sample=sample, task=TASK)]
    assert names == ["colours-2q4p", "towns-2q4p", "near-2q", "two-2q"]
    [towns] = mteb_tasks.local_tasks([data], only=["towns"], sample=sample, task=TASK)
    towns.load_data()
    assert [len(towns.dataset["en"]["test"][part]) for part in ("corpus", "queries", "relevant_docs")] == [4, 2, 2]


def test_a_pool_is_all_sets_as_one(data: Path):  # noqa: F811
    [pool] = mteb_tasks.local_tasks([data], task=TASK, pool=True)
    pool.load_data()
    all_ = pool.dataset["all"]["test"]
    assert (len(all_["corpus"]), len(all_["queries"])) == (14, 9)
    assert all_["relevant_docs"]["towns/en-zh/q1"] == {"towns/en-zh/d1": 1}
    assert set(all_["corpus"]["lang"]) == {"en", "zh"}


def test_two_folders_are_one_collection(data: Path, pairs: Path, tmp_path: Path):  # noqa: F811
    write_set(tmp_path / "more" / "towns" / "de", ["München"], ["München"])
    folders = [data, tmp_path / "more"]
    towns, colours = sorted(mteb_tasks.local_tasks(folders, task=TASK), key=lambda t: -len(t.metadata.eval_langs))
    assert set(towns.metadata.eval_langs) == {"en", "en-zh", "de"} and colours.metadata.name == "colours"
    [pool] = mteb_tasks.local_tasks(folders, task=TASK, pool=True)
    pool.load_data()
    assert len(pool.dataset["all"]["test"]["corpus"]) == 15
    with pytest.raises(ValueError, match=r"am.jsonl stands in two folders"):
        mteb_tasks.local_tasks([pairs, pairs], task=TASK)


def test_folders_without_data_and_records_of_no_kind(tmp_path: Path):
    with pytest.raises(ValueError, match="is it the folder that holds the sets"):
        mteb_tasks.local_tasks([tmp_path], task=TASK)
    lines(tmp_path / "odd" / "en.jsonl", [{"text": "a"}])
    with pytest.raises(ValueError, match=r"'odd' has records with \['text'\]"):
        mteb_tasks.local_tasks([tmp_path], task=TASK)


# ------------------------------------------------------------------ the command


def test_the_command(data: Path, tmp_path: Path):  # noqa: F811
    def call(*arguments: str) -> Any:
        common = ["evaluate", "--out", str(tmp_path / "out"), "--mode", "sparse", "--harness", "mteb"]
        return CliRunner().invoke(app, [*common, *arguments])

    done = call("--data", str(data))
    assert done.exit_code == 0, done.output
    assert done.output.startswith("ragkit/bm25\ncolours")
    assert (tmp_path / "out" / "results" / "ragkit__bm25" / SCHEME / "towns.perquery.json").exists()
    assert "question, retrieve Wikipedia passages" in call("--data", str(data), "--plan").output
    planned = call("--suite", "beir", "--plan", "--only", "CQADupstackRetrieval").output.splitlines()
    assert len(planned) == 12 and all(" paper  Given a question, retrieve detailed" in line for line in planned)
    assert call("--data", str(data), "--suite", "beir").exit_code == 2
    assert call("--suite", "none").exit_code == 1
    assert call("--data", str(data), "--only", "none").exit_code == 1
    assert "dense-x" in call("--data", str(data), "--mode", "dense", "--store", "dense-x").output
