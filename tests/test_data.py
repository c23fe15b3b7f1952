"""Sources, ratios and batches."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkit import TASKS
from trainer.cli import RECIPES
from trainer.data import Source, TrainingExample, batch_texts, homogeneous_batches, make_plan


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(lines)
    else:
        path.write_text(lines, "utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(
        tmp_path / "qa" / "s.am.jsonl.gz", [{"query": f"ጥያቄ {n}", "title": "ርዕስ", "pos": f"መልስ {n}"} for n in range(20)]
    )
    write(tmp_path / "qa" / "s.th.jsonl.gz", [{"query": f"ถาม {n}", "title": "", "pos": f"ตอบ {n}"} for n in range(20)])
    write(tmp_path / "bitext.jsonl", [{"src": f"one {n}", "tgt": f"واحد {n}"} for n in range(12)])
    for lang in ("en", "hi", "ja"):
        pages = [{"_id": f"p{n}", "title": f"{lang} t{n}", "desc": "d", "text": f"{lang} body {n}"} for n in range(8)]
        write(tmp_path / "docs" / f"help.{lang}.jsonl", pages)
    return tmp_path


def test_batches_are_of_one_source_and_file(data: Path):
    sources = [Source("qa", "qa/*.jsonl.gz", "question-answering"), Source("bitext", "bitext.jsonl", "bitext")]
    plan = make_plan(sources, data, batch_size=4, seed=1)
    assert plan.drawn == {"qa/s.am.jsonl.gz": 20, "qa/s.th.jsonl.gz": 20, "bitext.jsonl": 12}
    assert len(plan.batches) == 13
    for batch in plan.batches:
        assert len({e.instruction for e in batch}) == 1
        assert len({"ሀ" <= e.query[0] <= "፿" for e in batch}) == 1  # Amharic is never mixed with Thai


def test_the_seed_decides_everything(data: Path):
    sources = [Source("qa", "qa/*.jsonl.gz", ["question-answering", "web-search"], ratio=0.5)]
    one, same, other = (make_plan(sources, data, batch_size=4, seed=s).batches for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert {e.instruction for b in one for e in b} == {
        TASKS[t].instruction for t in ("question-answering", "web-search")
    }


def test_what_is_not_used_is_counted(data: Path):
    plan = make_plan([Source("bitext", "bitext.jsonl", "bitext", ratio=0.75)], data, batch_size=4, seed=1)
    assert plan.drawn == {"bitext.jsonl": 8}
    assert plan.dropped == {"beyond the ratio": 3, "would not fill a batch": 1}
    write(data / "bad.jsonl", [{"query": " ", "positive": "p"}, {"query": "same", "positive": "same"}])
    plan = make_plan([Source("examples", "bad.jsonl", "sts")], data, batch_size=1, seed=1)
    assert plan.dropped["blank query or positive"] == 1 and plan.dropped["positive equals query"] == 1


def test_a_positive_never_stands_twice_in_a_batch():
    examples = [TrainingExample(f"q{n}", f"p{n // 3}") for n in range(30)]  # three questions a paragraph
    random.Random(0).shuffle(examples)
    batches, left = homogeneous_batches(examples, 5)
    assert sum(map(len, batches)) + left == 30 and left <= 5
    for batch in batches:
        texts = [t for e in batch for t in (e.query, e.positive)]
        assert len(set(texts)) == len(texts) == 10


def test_pages_pair_two_languages_of_the_same_page(data: Path):
    plan = make_plan([Source("pages", "docs/*.jsonl", "web-search")], data, batch_size=8, seed=1)
    examples = [e for b in plan.batches for e in b]
    assert len(examples) == 24
    for e in examples:
        assert e.query[:2] != e.positive[:2]
        assert e.query.split()[1].removeprefix("t") == e.positive.split()[-1]
    assert any(len({e.positive[:2] for e in b}) == 3 for b in plan.batches)  # languages mix


def test_synthetic_kinds_and_where(tmp_path: Path):
    records = [
        {"kind": "short-long", "task": "T", "user_query": "q", "positive_document": "p", "hard_negative_document": "n"},
        {"kind": "long-short", "task": "C", "input_text": "x", "label": "l", "misleading_label": "m"},
        {"kind": "short-short", "task": "S", "input": "i", "positive_document": "d"},
        {"kind": "sts", "S1": "a", "S2": "b", "S3": "c"},
        {"kind": "bitext", "S1": "u", "S2": "v", "S3": "w"},
    ]
    write(tmp_path / "s.jsonl", records)
    plan = make_plan([Source("synthetic", "s.jsonl")], tmp_path, batch_size=1, seed=1)
    assert {e for b in plan.batches for e in b} == {
        TrainingExample("q", "p", "T", ("n",)),
        TrainingExample("x", "l", "C", ("m",)),
        TrainingExample("i", "d", "S"),
        TrainingExample("a", "b", "Retrieve semantically similar text.", ("c",)),
        TrainingExample("u", "v", "Retrieve parallel sentences.", ("w",)),
    }
    only = make_plan([Source("synthetic", "s.jsonl", where={"kind": "sts"})], tmp_path, batch_size=1, seed=1)
    assert [e.query for b in only.batches for e in b] == ["a"]


def test_a_batch_as_texts():
    batch = [TrainingExample("q1", "p1", "Find", ("n1", "p2")), TrainingExample("q2", "p2", "Find")]
    texts = batch_texts(batch)
    assert texts.queries == ["Instruct: Find\nQuery: q1", "Instruct: Find\nQuery: q2"]
    assert texts.passages == ["p1", "p2", "n1", "p2"]
    assert texts.excluded == [(1, 3)]  # q1's hard negative is q2's positive


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("qa", "nothing*.jsonl", "sts"), r"'nothing\*.jsonl' matches no file"),
        (Source("question", "bitext.jsonl", "sts"), "unknown kind 'question': use one of examples, qa"),
        (Source("qa", "bitext.jsonl", "sts"), "record without the field 'query'"),
    ],
)
def test_errors_say_what_to_do(data: Path, source: Source, message: str):
    with pytest.raises(ValueError, match=message):
        make_plan([source], data, batch_size=2, seed=1)


def test_a_broken_line_is_named(data: Path):
    (data / "broken.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": \n', "utf-8")
    with pytest.raises(ValueError, match=r"broken.jsonl, line 2: not JSON"):
        make_plan([Source("examples", "broken.jsonl", "sts")], data, batch_size=1, seed=1)


def test_shipped_recipes_are_readable():
    from trainer.train import TrainConfig

    for path in RECIPES.glob("*.yaml"):
        config = TrainConfig.read(path)
        assert config.sources and yaml.safe_load(path.read_text("utf-8"))
