"""Overlap of training data with evaluation sets, counted from both sides."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from test_contamination import PASSAGES
from typer.testing import CliRunner

from trainer.cli import app
from trainer.data import read_records
from trainer.overlap import report, table

QUESTION = "When does the last tram go?"


def lines(file: Path, records: list[dict[str, object]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), "utf-8")
    return file


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    folder = tmp_path / "sets"
    for lang, text in PASSAGES.items():
        lines(folder / "ferry" / lang / "corpus.jsonl", [{"_id": lang, "title": "", "text": text}])
        lines(folder / "ferry" / lang / "queries.jsonl", [{"_id": "q", "text": QUESTION}])
    lines(folder / "pairs" / "en.jsonl", [{"s1": "Nothing of this was seen", "s2": "in any record at all", "score": 1}])
    return folder


@pytest.mark.parametrize("lang", PASSAGES)
def test_a_run_inside_a_longer_text_is_found_in_every_script(sets: Path, tmp_path: Path, lang: str):
    text = PASSAGES[lang]
    cut = text[: int(len(text) * 0.95)]
    data = lines(tmp_path / "train.jsonl", [{"query": "x", "pos": f"... {cut} ..."}, {"query": "x", "pos": text[:12]}])
    found = report([data], [sets])
    assert found.records == [("train.jsonl", 1, [f"ferry/{lang}"])]
    counts = found.training["train.jsonl"]
    assert (counts.total, counts.exact, counts.run, counts.either) == (2, 0, 1, 1)
    assert found.sets[f"ferry/{lang}"].run == 1 and found.sets[f"ferry/{lang}"].total == 2


def test_exact_texts_but_for_case_and_width_in_any_field(sets: Path, tmp_path: Path):
    records = [
        {"query": "WHEN does  the last tram go?", "negatives": []},
        {"query": "other", "negatives": ["a", "Ｎothing of this was seen"]},
        {"_id": QUESTION, "query": "an id is no text"},
        {"query": "last tram", "positive": "too short to say anything"},
    ]
    found = report([lines(tmp_path / "train.jsonl", records)], [sets])
    assert [(line, len(names)) for _, line, names in found.records] == [(1, len(PASSAGES)), (2, 1)]
    assert found.training["train.jsonl"].exact == 2
    assert (found.sets["pairs/en"].exact, found.sets["pairs/en"].total) == (1, 2)
    assert "| pairs/en | 2 | 1 | 0 | 1 | 50.00 % |" in table(found)


def test_a_short_passage_is_found_with_its_title_and_without(tmp_path: Path):
    """Too short for a run of 13 words."""
    records = [
        {"_id": "1", "title": "Addis Ababa", "text": "It is the capital of Ethiopia."},
        {"_id": "2", "title": "አዲስ አበባ", "text": "የኢትዮጵያ ዋና ከተማ እና ትልቋ ከተማ ናት።"},
    ]
    lines(tmp_path / "sets" / "capitals" / "en" / "corpus.jsonl", records)
    texts = [text for r in records for text in (r["text"], f"{r['title']} {r['text']}")]
    found = report([lines(tmp_path / "train.jsonl", [{"positive": t} for t in texts])], [tmp_path / "sets"])
    assert (found.training["train.jsonl"].exact, found.training["train.jsonl"].run) == (4, 0)
    assert (found.sets["capitals/en"].exact, found.sets["capitals/en"].total) == (2, 2)


def test_what_stands_beside_the_texts_of_examples_is_no_text(tmp_path: Path):
    beside = {
        "instruction": "ለጥያቄው መልስ የሚሰጡ አንቀጾችን ፈልግ እና አምጣ።", "generator": "a model of the other team",
        "page": "The old town of Harar",
        "task": "Given a question, find what answers it", "query_language": "The Chinese that is written in Hong Kong",
    }  # fmt: skip
    evaluation = {"query": "渡轮什么时候从旧码头出发？", "positive": "渡轮每天早上七点从旧码头出发。", **beside}
    lines(tmp_path / "sets" / "own" / "zh.jsonl", [evaluation])
    training = {"query": "आख़िरी ट्राम कब जाती है?", "positive": "आख़िरी ट्राम आधी रात को जाती है।", **beside}
    found = report([lines(tmp_path / "train.jsonl", [training, evaluation])], [tmp_path / "sets"])
    assert found.records == [("train.jsonl", 2, ["own/zh"])]
    assert found.sets["own/zh"].total == 2


def test_passages_within_a_record_are_compared_too(sets: Path, tmp_path: Path):
    """As Tevatron's files have them, which the paper's recipe reads."""
    texts = list(PASSAGES.values())
    own = {"docid": "1", "title": "Ferry", "text": texts[0]}
    slots = {"slots": {"clarity": texts[0]}}
    half = " ".join(texts[1].split()[:4]), " ".join(texts[1].split()[4:])
    records = [
        {"query": "x", "positive_passages": [own], "negative_passages": []},
        {"query": "x", "positive_passages": [{"docid": "2", "title": half[0], "text": half[1]}]},
        {
            "query": "x",
            "positive_passages": [{"docid": "3", "title": "Ferry", "text": "is not known to any set"}],
            **slots,
        },
    ]
    data = lines(tmp_path / "train.jsonl", records)
    found = report([data], [sets], tmp_path / "clean")
    assert [line for _, line, _ in found.records] == [1, 2]
    assert [r["positive_passages"] for r in read_records(tmp_path / "clean" / "train.jsonl")] == [
        records[2]["positive_passages"]
    ]


def test_sets_named_by_their_own_folders(sets: Path, tmp_path: Path):
    data = lines(tmp_path / "train.jsonl", [{"query": QUESTION}])
    found = report([data], [sets / "ferry" / "en", sets / "ferry" / "th" / "queries.jsonl"])
    assert {name: counts.total for name, counts in found.sets.items()} == {"ferry/en": 2, "ferry/th": 1}
    lines(tmp_path / "sets" / "tram" / "en" / "queries.jsonl", [{"_id": "q", "text": QUESTION}])
    with pytest.raises(ValueError, match="two evaluation sets are called en: give their common folder"):
        report([data], [sets / "ferry", sets / "tram"])


def test_files_of_one_name_are_refused_before_one_is_written(sets: Path, tmp_path: Path):
    for folder in ("a", "b"):
        lines(tmp_path / "train" / folder / "qa.jsonl", [{"query": f"What is asked in {folder}?"}])
    clean = tmp_path / "clean"
    with pytest.raises(ValueError, match=r"two training files are called qa.jsonl: give their common folder"):
        report([tmp_path / "train" / "a", tmp_path / "train" / "b" / "qa.jsonl"], [sets], clean)
    assert not clean.exists()
    assert set(report([tmp_path / "train"], [sets], clean).training) == {"a/qa.jsonl", "b/qa.jsonl"}
    assert (clean / "a" / "qa.jsonl").read_text("utf-8") != (clean / "b" / "qa.jsonl").read_text("utf-8")


@pytest.mark.parametrize("name", ["qa.jsonl", "qa.jsonl.gz"])
def test_a_lone_surrogate_is_kept_and_can_be_read_again(sets: Path, tmp_path: Path, name: str):
    records = [{"query": "ܫܠܡܐ \ud800 🙂", "pos": "ሰላም"}, {"query": "ทะเลอยู่ไหน", "pos": "b"}]
    file = tmp_path / name
    text = "".join(json.dumps(r) + "\n" for r in records).encode()
    file.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    assert report([file], [sets], tmp_path / "clean").records == []
    assert [f.name for f in (tmp_path / "clean").iterdir()] == [name]
    assert list(read_records(tmp_path / "clean" / name)) == records


def test_the_command_reports_and_cleans(sets: Path, tmp_path: Path):
    folder = tmp_path / "train"
    folder.mkdir()
    records = [{"query": QUESTION, "pos": "a"}, {"query": "How do I get to the sea?", "pos": "b"}]
    with gzip.open(folder / "qa.en.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(r) + "\n" for r in records)
    out, clean = tmp_path / "o.json", tmp_path / "clean"
    command = ["contamination", str(folder), "--against", str(sets), "--out", str(out), "--clean", str(clean)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "| qa.en.jsonl.gz | 2 | 1 | 0 | 1 | 50.00 % |" in done.output
    assert json.loads(out.read_text("utf-8"))["records"][0][:2] == ["qa.en.jsonl.gz", 1]
    with gzip.open(clean / "qa.en.jsonl.gz", "rt", encoding="utf-8") as file:
        assert [json.loads(line) for line in file] == records[1:]
    assert report([clean], [sets]).records == []
    assert CliRunner().invoke(app, ["contamination", str(tmp_path / "no"), "--against", str(sets)]).exit_code == 1
