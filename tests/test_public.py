"""The public sets, read through ``datasets`` itself from small files in each repository's layout and schema."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.config import RECIPES, TrainConfig
from trainer.data import Source, TrainingExample, draw
from trainer.plan import homogeneous_batches
from trainer.public import HUB, PUBLIC_SETS, groups, read_public

WIKIPEDIA = (
    "Given a question, retrieve Wikipedia passages that answer the question",
    "Retrieve Wikipedia passages that answer the question",
)
CHINESE = ("Given a Chinese search query, retrieve web passages that answer the question",)
TABLE_14 = {  # letter for letter, with the ratio
    "eli5": (0.1, ("Provided a user question, retrieve the highest voted answers on Reddit ELI5 forum",)),
    "hotpotqa": (1, ("Given a multi-hop question, retrieve documents that can help answer the question",)),
    "fever": (1, ("Given a claim, retrieve documents that support or refute the claim",)),
    "miracl": (1, WIKIPEDIA),
    "mr-tydi": (1, WIKIPEDIA),
    "nq": (1, WIKIPEDIA),
    "squad": (1, WIKIPEDIA),
    "triviaqa": (1, WIKIPEDIA),
    "nli": (
        1,
        (
            "Given a premise, retrieve a hypothesis that is entailed by the premise",
            "Retrieve semantically similar text",
        ),
    ),
    "msmarco-passage": (0.5, ("Given a web search query, retrieve relevant passages that answer the query",)),
    "msmarco-document": (0.2, ("Given a web search query, retrieve relevant documents that answer the query",)),
    "quora": (
        0.1,
        (
            "Given a question, retrieve questions that are semantically equivalent to the given question",
            "Find questions that have the same meaning as the input question",
        ),
    ),
    "dureader": (1, CHINESE),
    "t2ranking": (0.5, CHINESE),
}


def passage(docid: str, title: str | None, text: str) -> dict[str, Any]:
    return {"docid": docid, "title": title, "text": text}


def tevatron(query: str, *positives: dict[str, Any], **more: Any) -> dict[str, Any]:
    negatives = [passage("7#1", "Nile", "A river. 🐊"), passage("8#2", "", "No title.")]
    return {"query_id": "1", "query": query, "positive_passages": positives, "negative_passages": negatives, **more}


def e5data(query: str, pos: list[str], neg: list[str]) -> dict[str, Any]:
    rest = {"category": "retrieval", "type": "", "prompt": "x", "pos_scores": [0.5], "neg_scores": [0.1]}
    return {"query": query, "pos": pos, "neg": neg, **rest}


# What each repository holds: a file of its train split, and a record in its own schema.
SAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "eli5": (
        "cfli/bge-e5data/data/eli5-00000-of-00007.parquet",
        e5data("Why is the sky blue? 🌌", ["Air scatters."], ["It is not."]),
    ),
    "hotpotqa": (
        "BeastyZ/E5-R/hotpot_qa/train-00000-of-00001.parquet",
        {"query": "Who?", "positive": ["First hop", "Second hop"], "negative": ["Elsewhere"]},
    ),
    "fever": (
        "BeastyZ/E5-R/fever/train-00000-of-00002.parquet",
        {"query": "Łódź is a city.", "positive": ["Łódź …"], "negative": []},
    ),
    "miracl/ar": (
        "cfli/bge-e5data/data/miracl_ar-00000-of-00001.parquet",
        e5data("ما هي عاصمة مصر؟", ["القاهرة", "عاصمة مصر هي القاهرة"], ["بغداد"]),
    ),
    "miracl/th": (
        "cfli/bge-e5data/data/miracl_th-00000-of-00002.parquet",
        e5data("เมืองหลวงของไทยคือ", ["กรุงเทพมหานคร"], ["เชียงใหม่"]),
    ),
    "miracl/zh": ("cfli/bge-e5data/data/miracl_zh-00000-of-00001.parquet", e5data("中国的首都", ["北京"], ["上海"])),
    "mr-tydi/arabic": (
        "castorini/mr-tydi/mrtydi-v1.1-arabic/train.jsonl.gz",
        tevatron("متى؟", passage("1#0", "فيزياء", "نظرية الحقل")),
    ),
    "mr-tydi/thai": (
        "castorini/mr-tydi/mrtydi-v1.1-thai/train.jsonl.gz",
        tevatron("ใคร", passage("1#0", "ฟิสิกส์", "ทฤษฎี"), passage("2#0", None, "อีกอัน")),
    ),
    "nq": (
        "Tevatron/wikipedia-nq/nq-train.jsonl.gz",
        tevatron("who won", passage("9", "Cup", "They won."), answers=["they"]),
    ),
    "squad": (
        "Tevatron/wikipedia-squad/squad-train.jsonl.gz",
        tevatron("Beyoncé?", passage("9", "Beyoncé", "Yes."), answers=["yes"]),
    ),
    "triviaqa": (
        "Tevatron/wikipedia-trivia/trivia-train.jsonl.gz",
        tevatron("Which?", passage("9", "Æ", "That."), answers=[]),
    ),
    "nli": (
        "princeton-nlp/datasets-for-simcse/nli_for_simcse.csv",
        {"sent0": 'He said, "hi".', "sent1": "None", "hard_neg": "Line one\nline two"},
    ),
    "msmarco-passage": (
        "Tevatron/msmarco-passage/train.jsonl.gz",
        tevatron("cost of tea", passage("4", "-", "Ten €.")),
    ),
    "msmarco-document": (
        "cfli/bge-e5data/data/msmarco_document-00000-of-00163.parquet",
        e5data("cost of tea", ["A page. " * 9], ["x"]),
    ),
    "quora": (
        "sentence-transformers/quora-duplicates/triplet/train-00000-of-00001.parquet",
        {"anchor": "How do I start? 🚀", "positive": "How to begin?", "negative": "How do I stop?"},
    ),
    "dureader": ("cfli/bge-e5data/data/dureader-00000-of-00003.parquet", e5data("怎么学中文", ["多读书"], ["少读书"])),
    "t2ranking": (
        "cfli/bge-e5data/data/t2ranking-00000-of-00004.parquet",
        e5data("蓝牙耳机 🎧 怎么连接", ["打开蓝牙"], ["关闭蓝牙"]),
    ),
}


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, list(records[0]))
            table.writeheader()
            table.writerows(records)
    else:
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)


def read(path: str, root: Path, seed: int = 0) -> list[TrainingExample]:
    [(name, stream)] = groups(path, str(root))
    assert name == path
    return list(stream(random.Random(seed)))


def as_texts(value: Any) -> list[tuple[str, str]]:
    """Passages of a sample, spelt out apart from the code under test."""
    if isinstance(value, str):
        return [(value, "")]
    return [(f"{v['title'] or ''} {v['text']}".strip(), v["docid"]) if isinstance(v, dict) else (v, "") for v in value]


def test_the_table_is_the_papers():
    assert {n: (s.ratio, s.instructions) for n, s in PUBLIC_SETS.items()} == TABLE_14
    for s in PUBLIC_SETS.values():
        assert s.licence and "https://" in s.documented
        assert s.repo.count("/") == 1 and len(s.revision) in (0, 40)
        assert ("{}" in s.files) == (len(s.configs) > 1)
    assert {path.partition("/")[0] for path in SAMPLES} == set(PUBLIC_SETS)
    assert [len(PUBLIC_SETS[n].configs) for n in ("miracl", "mr-tydi")] == [16, 11]


@pytest.mark.parametrize("path", SAMPLES)
def test_each_set_in_its_own_schema(tmp_path: Path, path: str):
    file, record = SAMPLES[path]
    write(tmp_path / file, [record] * 3)
    s = PUBLIC_SETS[path.partition("/")[0]]
    query, positive, negative = (record[f] for f in s.fields)
    positives, negatives = as_texts(positive), as_texts(negative)
    examples = read(path, tmp_path)
    assert len(examples) == 3
    for e in examples:
        assert e.query == query and e.instruction in s.instructions
        assert (e.positive, e.positive_id) in positives
        assert e.negatives == tuple(text for text, _ in negatives)
        assert e.negative_ids == tuple(i for _, i in negatives if i)
        assert e.known == tuple(i or t for t, i in positives if t != e.positive)


@pytest.mark.parametrize("path", SAMPLES)
def test_a_changed_field_stops_with_the_sets_name(tmp_path: Path, path: str):
    file, record = SAMPLES[path]
    name = path.partition("/")[0]
    for field in PUBLIC_SETS[name].fields:
        changed = {f"new_{k}" if k == field else k: v for k, v in record.items()}
        write(tmp_path / file, [changed])
        with pytest.raises(ValueError, match=rf"'{name}' .*expected fields .*{field}.*the record has .*new_{field}"):
            read(path, tmp_path)


@pytest.mark.parametrize("path", [p for p in SAMPLES if PUBLIC_SETS[p.partition("/")[0]].passage])
def test_a_changed_passage_stops_too(tmp_path: Path, path: str):
    file, record = SAMPLES[path]
    negatives = [{"id": p["docid"], "title": p["title"], "text": p["text"]} for p in record["negative_passages"]]
    write(tmp_path / file, [record | {"negative_passages": negatives}])
    with pytest.raises(ValueError, match=r"negative_passages.docid.*the record has negative_passages.id.*pin revision"):
        read(path, tmp_path)
    write(tmp_path / file, [record | {"positive_passages": ["bare text"]}])
    with pytest.raises(ValueError, match=r"expected fields positive_passages.docid.*has positive_passages as str"):
        read(path, tmp_path)


def test_texts_that_became_records_stop(tmp_path: Path):
    file, record = SAMPLES["hotpotqa"]
    write(tmp_path / file, [record | {"negative": [{"text": "now a record"}]}])
    with pytest.raises(ValueError, match=r"expected fields negative as str, the record has negative.text"):
        read("hotpotqa", tmp_path)


def test_one_positive_is_drawn_and_both_instructions_come_by_the_seed(tmp_path: Path):
    file, record = SAMPLES["miracl/ar"]
    write(tmp_path / file, [record] * 40)
    one, same, other = (read("miracl/ar", tmp_path, seed) for seed in (1, 1, 2))
    assert one == same != other
    assert {e.positive for e in one} == set(record["pos"]) == {k for e in one for k in e.known}
    assert {e.instruction for e in one} == set(WIKIPEDIA)


def test_missing_values_are_blank_and_left_to_the_trainer(tmp_path: Path):
    file, record = SAMPLES["nq"]
    write(
        tmp_path / file,
        [record, record | {"positive_passages": []}, record | {"query": None, "negative_passages": None}],
    )
    whole, no_positive, no_query = read("nq", tmp_path)
    assert (whole.positive, no_positive.positive, no_positive.positive_id) == ("Cup They won.", "", "")
    assert (no_query.query, no_query.negatives, no_query.negative_ids) == ("", (), ())


def test_files_of_other_splits_and_languages_are_not_read(tmp_path: Path):
    for path in ("miracl/th", "miracl/zh"):
        write(tmp_path / SAMPLES[path][0], [SAMPLES[path][1]])
    file, record = SAMPLES["fever"]
    write(tmp_path / file, [record])
    write(tmp_path / file.replace("00000", "00001"), [record | {"query": "second shard"}])
    write(tmp_path / file.replace("train", "test"), [record | {"query": "test"}])
    assert [e.query for e in read("miracl/th", tmp_path)] == ["เมืองหลวงของไทยคือ"]
    assert [e.query for e in read("fever", tmp_path)] == ["Łódź is a city.", "second shard"]
    for path, wanted in (("miracl/sw", r"miracl_sw-\*.parquet"), ("squad", "squad-train.jsonl.gz")):
        with pytest.raises(FileNotFoundError, match=rf"cannot read .*{wanted} .*mend PUBLIC_SETS"):
            read(path, tmp_path)


def test_streams_are_lazy():
    asked: list[tuple[Any, ...]] = []

    def load(builder: str, **kwargs: Any) -> Iterator[dict[str, Any]]:
        asked.append((builder, kwargs))
        yield from [SAMPLES["quora"][1]] * 2
        raise OSError("the connection is gone")

    stream = read_public("quora", "", random.Random(0), load=load)
    assert asked == []
    assert len(list(islice(stream, 2))) == 2
    assert len(list(read_public("quora", "", random.Random(0), limit=2, load=load))) == 2
    with pytest.raises(OSError, match="connection"):
        next(stream)
    s = PUBLIC_SETS["quora"]
    file = f"{HUB}{s.repo}@{s.revision}/triplet/train-*.parquet"  # the pinned commit on the Hub
    assert asked[0] == ("parquet", {"data_files": {"train": file}, "split": "train", "streaming": True})


def test_groups_are_languages():
    assert [name for name, _ in groups("nq")] == ["nq"]
    assert [name for name, _ in groups("miracl")][:3] == ["miracl/ar", "miracl/bn", "miracl/en"]
    assert [name for name, _ in groups("mr-tydi/t*")] == ["mr-tydi/telugu", "mr-tydi/thai"]
    assert len(groups("mr-tydi/*")) == 11
    with pytest.raises(ValueError, match="unknown public set 'hotpot': use one of eli5, hotpotqa"):
        groups("hotpot")
    with pytest.raises(ValueError, match="'miracl' has no config 'de': it has ar, bn"):
        groups("miracl/de")


def test_languages_too_small_for_a_batch_share_one(tmp_path: Path):
    """MIRACL's training set has 868 queries in Korean, and the paper's batches 2,048."""
    for path in ("miracl/ar", "miracl/th", "miracl/zh"):
        file, record = SAMPLES[path]
        write(tmp_path / "hub" / file, [record | {"query": f"{record['query']} {n}"} for n in range(3)])
    source = Source("public", ["miracl/[atz][rh]"], together=True)
    [drawn] = draw(source, tmp_path, hard_negatives=1, seed=1)
    assert len(drawn.examples) == 9 and len(homogeneous_batches(drawn.examples, 4)[0]) >= 1
    apart = list(draw(replace(source, together=False), tmp_path, hard_negatives=1, seed=1))
    assert [len(d.examples) for d in apart] == [3, 3, 3]
    paper = TrainConfig.read(RECIPES / "paper.yaml")
    assert [s.patterns for s in paper.sources if s.together] == [["miracl", "mr-tydi"]]
