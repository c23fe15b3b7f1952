"""Evaluation on a small set with known answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from typer.testing import CliRunner

from ragkit import TASKS
from ragkit.around import ShortEncoder, principal_axes, read_axes, shorten, write_axes
from trainer import evaluate as e
from trainer.axes import fit_axes
from trainer.cli import app
from trainer.config import TrainConfig
from trainer.data import Source

TASK = TASKS["question-answering"]


def write_set(folder: Path, passages: list[str], queries: list[str], title: str | None = "") -> None:
    """Query n is answered by passage n."""
    folder.mkdir(parents=True)
    corpus = [{"_id": f"d{n}", "title": title, "text": text} for n, text in enumerate(passages)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(r) + "\n" for r in corpus), "utf-8")
    asked = [{"_id": f"q{n}", "text": text} for n, text in enumerate(queries)]
    (folder / "queries.jsonl").write_text("".join(json.dumps(r) + "\n" for r in asked), "utf-8")
    judged = [f"q{n}\td{n}\t1\n" for n in range(len(queries))]
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), "utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    towns = ["Addis Abeba ሸገር", "Bangkok กรุงเทพ", "Delhi दिल्ली", "القاهرة Cairo", "東京 Tokyo", "北京 Beijing"]
    write_set(tmp_path / "towns" / "en", [f"{t} is a town" for t in towns], towns)
    write_set(tmp_path / "towns" / "en-zh", [f"{t} is a town" for t in towns], towns[:2])
    write_set(
        tmp_path / "colours" / "zh-Hant", ["red 红", "blue 蓝"], ["blue 蓝"], title="色"
    )  # its answer is the other one: second
    return tmp_path


def test_sets_are_read_with_title_first(data: Path):
    colours, towns, cross = e.read_sets(data)
    assert (colours.name, colours.lang, colours.passages["d0"]) == ("colours", "zh-Hant", "色 red 红")
    assert [s.passage_lang for s in (colours, towns, cross)] == ["zh", "en", "zh"]
    assert towns.qrels["q3"] == {"d3": 1}


def test_a_null_title_is_no_word(tmp_path: Path):
    write_set(tmp_path / "towns" / "am", ["ሸገር"], ["ሸገር"], title=None)
    [towns] = e.read_sets(tmp_path)
    assert towns.passages == {"d0": "ሸገር"}


def test_folders_are_read_as_one_and_no_set_replaces_another(data: Path, tmp_path: Path):
    write_set(tmp_path / "more" / "towns" / "de", ["München"], ["München"])
    assert [f"{s.name}/{s.lang}" for s in e.read_folders([data, tmp_path / "more"], ["towns"])] == [
        "towns/en", "towns/en-zh", "towns/de",
    ]  # fmt: skip
    write_set(tmp_path / "other" / "towns" / "en", ["München"], ["München"])
    with pytest.raises(ValueError, match="towns/en stands in two folders"):
        e.read_folders([data, tmp_path / "other"])


def test_scores_and_means_per_set_first(data: Path):
    result = e.evaluate(list(e.read_sets(data)), HashEncoder(), TASK)
    assert result["towns"]["en"]["ndcg@10"] == 1
    assert result["towns"]["en-zh"]["ndcg@10"] == 1
    assert result["colours"]["zh-Hant"]["mrr@10"] == 0.5
    assert e.mean_over_sets(result)["mrr@10"] == 0.75  # over languages at once it would be 0.83


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_modes_agree_where_words_decide(data: Path, mode: e.Mode):
    [towns] = [s for s in e.read_sets(data) if s.lang == "en"]
    assert e.evaluate([towns], HashEncoder(), TASK, mode)["towns"]["en"]["mrr@10"] == 1


def test_the_cache_embeds_every_text_once_and_keeps_roles_apart(tmp_path: Path):
    inner = HashEncoder()
    cached = e.CachedEncoder(inner, tmp_path / "c.sqlite", chunk=2)
    texts = ["b b", "a", "b b", "ሰላም ๆ", "\ud800"]
    np.testing.assert_array_equal(cached.encode_passages(texts), HashEncoder().encode_passages(texts))
    assert inner.encoded == 4
    again = e.CachedEncoder(inner, tmp_path / "c.sqlite")
    np.testing.assert_array_equal(again.encode_passages(texts[::-1]), HashEncoder().encode_passages(texts[::-1]))
    assert inner.encoded == 4
    again.encode_queries(["a"], TASK)
    other = e.CachedEncoder(HashEncoder("b"), tmp_path / "c.sqlite")
    assert not np.array_equal(other.encode_passages(["a"]), again.encode_passages(["a"]))
    assert again.encode_passages([]).shape == (0, 64)


def test_fewer_dimensions_are_at_unit_length_and_go_by_another_name():
    whole, short = HashEncoder(), ShortEncoder(HashEncoder(), 16)
    texts = list(SCRIPTS.values())
    for rows, cut in [
        (whole.encode_passages(texts), short.encode_passages(texts)),
        (whole.encode_queries(texts, TASK), short.encode_queries(texts, TASK)),
    ]:
        assert cut.shape == (len(texts), 16)
        norms = np.linalg.norm(rows[:, :16], axis=1, keepdims=True)
        np.testing.assert_allclose(cut * norms, rows[:, :16], atol=1e-6)
    assert short.fingerprint != whole.fingerprint
    for wrong in (0, -1, 65):
        with pytest.raises(ValueError, match="an embedding has 64"):
            ShortEncoder(whole, wrong)


def test_along_its_axes_a_short_embedding_keeps_what_is_in_few_directions():
    dice = np.random.default_rng(1)
    rows = dice.standard_normal((200, 8)) @ dice.standard_normal((8, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    axes = principal_axes(rows)
    np.testing.assert_allclose(axes.T @ axes, np.eye(64), atol=1e-5)
    short = shorten(rows, 8, axes)
    np.testing.assert_allclose(short @ short.T, rows @ rows.T, atol=1e-5)
    assert np.abs(shorten(rows, 8) @ shorten(rows, 8).T - rows @ rows.T).max() > 0.1  # which the first numbers do not
    assert shorten(rows, 64, axes) is rows


def test_an_encoder_with_axes_is_shortened_along_them(tmp_path: Path):
    plain, with_axes = HashEncoder(), HashEncoder()
    texts = list(SCRIPTS.values())
    axes = principal_axes(plain.encode_passages([f"{text} {n}" for text in texts for n in range(20)]))
    write_axes(axes, tmp_path)
    with_axes.axes = read_axes(tmp_path, 64)  # type: ignore[attr-defined]
    assert with_axes.axes is not None and read_axes(tmp_path / "none", 64) is None
    cached = e.CachedEncoder(with_axes, tmp_path / "c.sqlite")
    short = ShortEncoder(cached, 16)
    np.testing.assert_allclose(
        short.encode_queries(texts, TASK), shorten(plain.encode_queries(texts, TASK), 16, with_axes.axes), atol=1e-6
    )
    assert len(short.fingerprint) == 16 and short.fingerprint != ShortEncoder(plain, 16).fingerprint
    with pytest.raises(ValueError, match=r"axes.npy has shape \(64, 64\), the model 32 dimensions"):
        read_axes(tmp_path, 32)


def test_axes_are_found_from_a_recipe_s_passages(tmp_path: Path):
    records = [{"query": f"{w} {n}?", "positive": f"{w} {n}"} for w in SCRIPTS.values() for n in range(12)]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    config = TrainConfig([Source("examples", "e.jsonl", "sts")])
    encoder = HashEncoder()
    axes = fit_axes(encoder, config, tmp_path)
    rows = encoder.encode_passages([r["positive"] for r in records])
    short = shorten(rows, 19, axes)  # the rank of these rows
    np.testing.assert_allclose(short @ short.T, rows @ rows.T, atol=1e-3)
    few = fit_axes(encoder, config, tmp_path, texts=10)
    np.testing.assert_allclose(few.T @ few, np.eye(64), atol=1e-5)

    labels = TrainConfig([replace(config.sources[0], in_batch=False)])  # their passages are passages too
    np.testing.assert_array_equal(fit_axes(encoder, labels, tmp_path), axes)
    nothing = TrainConfig([replace(config.sources[0], ratio=0.0)])
    with pytest.raises(ValueError, match="the recipe's sources give no passage"):
        fit_axes(encoder, nothing, tmp_path)


def test_samples_keep_what_is_relevant_and_are_always_the_same(data: Path):
    [towns] = [s for s in e.read_sets(data) if s.lang == "en"]
    small = towns.sample(2, 4)
    assert small == towns.sample(2, 4)
    assert len(small.queries) == 2 and len(small.passages) == 4
    assert all(p in small.passages for judged in small.qrels.values() for p in judged)
    assert len(towns.sample(3, 1).passages) == 3  # never fewer than the relevant ones


def test_qrels_that_name_what_is_not_there(data: Path):
    with (data / "towns" / "en" / "qrels.tsv").open("a") as file:
        file.write("q0\td99\t1\n")
    with pytest.raises(ValueError, match="judges 'q0', 'd99'"):
        list(e.read_sets(data))


def test_the_command_writes_sets_and_mean(data: Path, tmp_path: Path):
    out = tmp_path / "out" / "bm25.json"
    done = CliRunner().invoke(app, ["evaluate", "--mode", "sparse", "--data", str(data), "--out", str(out)])
    assert done.exit_code == 0, done.output
    written = json.loads(out.read_text("utf-8"))
    assert set(written) == {"towns", "colours", "mean"}
    assert set(written["towns"]["en"]) == set(written["mean"]) == {"ndcg@10", "recall@100", "mrr@10"}


@pytest.mark.parametrize(
    "option",
    [["--plan"], ["--pool"], ["--store", "dense"], ["--prompts", "e5"], ["--max-length", "64"],
     ["--unit-classification"], ["--rerank-prompted"]],
)  # fmt: skip
def test_what_is_mtebs_alone_is_refused_without_it(data: Path, tmp_path: Path, option: list[str]):
    arguments = ["evaluate", "--mode", "sparse", "--data", str(data), "--out", str(tmp_path / "o.json"), *option]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert done.exit_code == 2 and option[0] in done.output and "only with --harness mteb" in done.output
    assert not (tmp_path / "o.json").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--queries", "5", "--suite", "beir"], ["--pool", "--suite", "beir"], ["--passages", "5", "--data", "d"],
        ["--mode", "sparse", "--store", "dense", "--harness", "mteb", "--data", "d"],
        ["--prompts", "none", "--mode", "sparse", "--harness", "mteb", "--data", "d"],
        ["--rerank-prompted", "--store", "dense", "--harness", "mteb", "--data", "d"],
        ["--dimensions", "64", "--mode", "sparse", "--data", "d"], ["--task", "web-search", "--suite", "beir"],
    ],
)  # fmt: skip
def test_what_would_say_nothing_is_refused(tmp_path: Path, options: list[str]):
    done = CliRunner().invoke(app, ["evaluate", "--out", str(tmp_path / "o"), *options], env={"COLUMNS": "200"})
    assert done.exit_code == 2 and f"{options[0]}: says nothing beside" in done.output


@pytest.mark.parametrize(
    ("lang", "passages"),
    [("sw", "sw"), ("en-zh", "zh"), ("zh-Hant", "zh"), ("en-zh-Hant", "zh"), ("eng-zho-TW", "zh"), ("en-US", "en")],
)
def test_the_language_of_passages(lang: str, passages: str):
    assert e.RetrievalSet("s", lang, {}, {}, {}).passage_lang.partition("-")[0] == passages


@pytest.mark.parametrize(
    ("option", "code"), [(["--mode", "x"], 2), (["--task", "x"], 2), (["--task", "sts"], 2), (["--only", "none"], 1)]
)
def test_wrong_usage_and_failed_work(data: Path, tmp_path: Path, option: list[str], code: int):
    arguments = ["evaluate", "--mode", "sparse", "--data", str(data), "--out", str(tmp_path / "o.json"), *option]
    assert CliRunner().invoke(app, arguments).exit_code == code


def test_what_cannot_be_measured_is_named(tmp_path: Path, data: Path):
    folder = tmp_path / "dev" / "town" / "sw"
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": 1, "text": "kivuko"}\n')
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "wapi?", "title": "no part of it"}\n')
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t0\n")
    with pytest.raises(ValueError, match=r"sw.qrels.tsv calls no passage relevant"):
        list(e.read_sets(tmp_path / "dev"))
    (folder / "qrels.tsv").write_text("q\t1\t1\n")
    [found] = e.read_sets(tmp_path / "dev")
    assert (found.passages, found.queries) == ({"1": "kivuko"}, {"q": "wapi?"})
    assert found.sample(0, 0) == found
    (folder / "corpus.jsonl").write_text('{"id": "1", "text": "kivuko"}\n')
    with pytest.raises(ValueError, match=r"corpus.jsonl has a record without _id: 'kivuko'"):
        list(e.read_sets(tmp_path / "dev"))


@pytest.mark.parametrize("harness", ["own", "mteb"])
def test_a_set_that_is_not_there_is_named_though_others_are(data: Path, tmp_path: Path, harness: str):
    known = next(data.glob("*/*/corpus.jsonl")).parent.parent.name
    arguments = ["evaluate", "--mode", "sparse", "--harness", harness, "--data", data, "--out", tmp_path / "o"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--only", known, "--only", "typo"])
    assert done.exit_code == 1 and "is named typo" in done.output
