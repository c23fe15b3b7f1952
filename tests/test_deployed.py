"""``ragkit evaluate``: known scores of a deployed corpus, and an exit code for CI."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from conftest import HashEncoder
from typer.testing import CliRunner

from ragkit import evaluate as ev
from ragkit.cli import app
from ragkit.ingest import ingest
from ragkit.retrieve import Retriever
from ragkit.settings import QdrantSettings
from ragkit.store import open_store
from ragkit.types import Where

TOWNS = ["Addis ሸገር", "Bangkok กรุงเทพ", "Delhi दिल्ली", "Cairo القاهرة", "Tokyo 東京", "Beijing 北京"]


def write_lines(file: Path, records: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Question n is answered by document n, but the last: it names another town's."""
    folder = tmp_path / "data"
    corpus = [
        {"_id": f"d{n}", "text": f"{t} is a town", "lang": "en", "date": f"2026-0{n + 1}-01"}
        for n, t in enumerate(TOWNS)
    ]
    write_lines(folder / "corpus" / "corpus.jsonl", corpus)
    write_lines(
        folder / "queries.jsonl",
        [{"_id": f"q{n}", "text": t, "lang": "am" if n == 0 else "en"} for n, t in enumerate([*TOWNS[:5], TOWNS[0]])],
    )
    judged = [(n, n) for n in range(5)] + [(5, 5)]
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n" + "".join(f"q{q}\td{d}\t1\n" for q, d in judged) + "q0\td3\t0\n", "utf-8"
    )
    return folder


def test_scores_of_what_is_deployed(data: Path, tmp_path: Path, encoder: HashEncoder) -> None:
    settings = QdrantSettings(quantization="scalar")
    with open_store(tmp_path / "store", "towns", encoder, tenant="ሀ", qdrant_settings=settings) as store:
        ingest([data / "corpus"], store, encoder)
        report = ev.evaluate(Retriever(store, encoder), ev.read_questions(data), mode="dense", batch=4)
        assert (report.questions, report.documents, report.missing) == (6, 6, ())
        assert set(report.languages) == {"am", "en"} and report.languages["am"]["mrr@10"] == 1
        assert report.scores["recall@100"] == 1 and report.scores[ev.ENGINE] == 1
        assert 5 / 6 < report.scores["ndcg@10"] < 1  # the last one is found, but not first
        sparse = ev.evaluate(Retriever(store, encoder), ev.read_questions(data), mode="sparse")
        assert sparse.scores["mrr@10"] == pytest.approx(5 / 6)  # by no word at all
        assert ev.ENGINE not in sparse.scores
        spring = Where(since="2026-01-01", until="2026-03-31")
        report = ev.evaluate(Retriever(store, encoder), ev.read_questions(data), mode="sparse", where=spring)
        assert report.scores["mrr@10"] == pytest.approx(3 / 6)
        with pytest.raises(ValueError, match="none of the 6 relevant documents"):
            ev.evaluate(Retriever(store.for_tenant("other"), encoder), ev.read_questions(data))


def test_what_was_never_ingested_lowers_the_score_and_is_named(data: Path, encoder: HashEncoder) -> None:
    with open_store(":memory:", "towns", encoder) as store:
        ingest([data / "corpus"], store, encoder)
        store.delete([s.id for s in store.states() if s.document == "d1"])
        report = ev.evaluate(Retriever(store, encoder), ev.read_questions(data), mode="sparse")
        assert report.missing == ("d1",)
        assert report.scores["recall@100"] == pytest.approx(4 / 6)


def test_a_document_ranks_where_its_best_passage_does(encoder: HashEncoder, tmp_path: Path) -> None:
    words = " ".join(f"ሀ{n}." for n in range(40))
    write_lines(
        tmp_path / "c" / "corpus.jsonl", [{"_id": "long", "text": words + " ferry"}, {"_id": "b", "text": "ferry now"}]
    )
    write_lines(tmp_path / "queries.jsonl", [{"_id": "q", "text": "ferry"}])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tb\t1\n", "utf-8")
    with open_store(":memory:", "town", encoder) as store:
        ingest([tmp_path / "c"], store, encoder, passage_tokens=4)
        assert store.count() > 5
        report = ev.evaluate(Retriever(store, encoder), ev.read_questions(tmp_path), mode="dense")
        assert report.scores["ndcg@10"] in (1, pytest.approx(1 / math.log2(3)))  # of two documents, first or second


def test_thresholds() -> None:
    scores = {"ndcg@10": 0.5, "recall@100": 0.9}
    assert ev.regressions(scores, {"ndcg@10": 0.5}, {"ndcg@10": 0.505, "mrr@10": 1.0}, 0.01) == []
    assert ev.regressions(scores, {"ndcg@10": 0.51}, {}, 0) == ["ndcg@10 is 0.5000, below 0.5100"]
    assert ev.regressions(scores, {}, {"recall@100": 0.92}, 0.01) == [
        "recall@100 is 0.9000, 0.0200 below the 0.9200 it was"
    ]
    assert ev.regressions(scores, {"mrr@10": 0.0}, {}, 0) == ["mrr@10 was not measured"]
    assert ev.regressions({"ndcg@10": math.nan}, {"ndcg@10": 0.1}, {}, 0) != []
    assert ev.parse_limits(["ndcg@10=0.5", "engine_recall@10=1"]) == {"ndcg@10": 0.5, "engine_recall@10": 1}
    for wrong in ("ndcg@10", "ndcg@10=high", "ndcg=0.5"):
        with pytest.raises(ValueError, match=r"METRIC=NUMBER|is none of"):
            ev.parse_limits([wrong])


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("qrels.tsv", "q0\td0\n", "line 1: 'q0.*is not query, document and relevance"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq0\td0\thigh\n", "line 2"),
        ("qrels.tsv", "q99\td0\t1\n", "judges 'q99'"),
        ("queries.jsonl", '{"_id": "q0"}\n', "line 1: no record with _id and text"),
        ("queries.jsonl", "nothing\n", "line 1: no record"),
    ],
)
def test_files_that_are_not_in_the_layout(data: Path, file: str, text: str, said: str) -> None:
    (data / file).write_text(text, "utf-8")
    with pytest.raises(ValueError, match=said):
        ev.read_questions(data)


def test_the_command_and_its_exit_codes(
    data: Path, tmp_path: Path, mistral_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAGKIT_MODEL", str(mistral_folder))
    monkeypatch.setenv("RAGKIT_QDRANT_QUANTIZATION", "turbo")

    def run(*arguments: object, code: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(app, [*map(str, arguments), "--corpus", "towns", "--tenant", "ሀ", "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout.splitlines()[-1]) if code in (0, 3) else {"said": done.output}

    run("ingest", data / "corpus")
    first = tmp_path / "first.json"
    scored = run("evaluate", data, "--mode", "sparse", "--out", first, "--min", "mrr@10=0.8")
    assert scored["scores"]["mrr@10"] == pytest.approx(5 / 6)
    assert json.loads(first.read_text("utf-8")) == scored and scored["worse"] == []
    assert ev.ENGINE in run("evaluate", data, "--mode", "dense")["scores"]

    again = ("evaluate", data, "--mode", "sparse", "--baseline", first)
    assert run(*again)["worse"] == []
    (data / "corpus" / "corpus.jsonl").write_text('{"_id": "d0", "text": "Addis ሸገር", "metadata": {"n": 1}}\n', "utf-8")
    run("ingest", data / "corpus")
    worse = run(*again, code=3)
    assert any("mrr@10 is 0.1667" in line for line in worse["worse"]) and len(worse["missing"]) == 5
    assert run(*again, "--tolerance", "0.9")["worse"] == []
    run("evaluate", data, "--mode", "sparse", "--min", "mrr@10=0.9", code=3)

    assert "METRIC=NUMBER" in run("evaluate", data, "--min", "mrr@10", code=2)["said"]
    assert "no scores of an earlier run" in run("evaluate", data, "--baseline", data / "queries.jsonl", code=1)["said"]
    (data / "qrels.tsv").unlink()
    assert "no qrels.tsv" in run("evaluate", data, code=1)["said"]

    found = run("search", "Addis", "--where", "n=1", "--source", data / "corpus", "--diversity", "0.2")["hits"]
    assert [(h["document"], h["metadata"]) for h in found] == [("d0", {"n": 1})]
    assert run("search", "Addis", "--where", "n=2", "--mode", "dense")["hits"] == []
    assert run("search", "Addis", "--since", "2026-01-01")["hits"] == []  # it has no date
    for option in (["--where", "n"], ["--where", 'n={"a": 1}'], ["--since", "May"], ["--diversity", "2"]):
        run("search", "Addis", *option, code=2)
    other = CliRunner().invoke(app, ["search", "Addis", "--corpus", "towns"])
    assert other.exit_code == 1 and "shared by tenants" in other.stderr
