"""Hard negatives: what is found, what is refused, and that training reads it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from typer.testing import CliRunner

from ragkit.around import Around
from ragkit.task import Task
from trainer.cli import app
from trainer.config import TrainConfig
from trainer.data import Source, TrainingExample, digest, draw
from trainer.mine import MineConfig, mine, mine_recipe


def unit(*rows: float) -> np.ndarray:
    """Unit vectors in the plane whose cosines to the first axis are ``rows``."""
    return np.array([[c, np.sqrt(1 - c * c)] for c in rows], np.float32)


POOL = [("answer", "1"), ("near", "2"), ("hard", "3"), ("middling", "4"), ("easy", "5")]
COSINES = (0.9, 0.88, 0.8, 0.5, 0.1)


def found(config: MineConfig, **example: object) -> tuple[set[str], int]:
    one = TrainingExample("q", "answer", positive_id="1", **example)  # type: ignore[arg-type]
    mined = list(mine([one], unit(1.0), unit(0.9), POOL, unit(*COSINES), config))
    assert len(mined) == 1 and len(set(mined[0].negatives)) == len(mined[0].negatives)
    return set(mined[0].negatives), mined[0].refused


def test_neither_the_positive_nor_what_comes_near_it_is_a_negative():
    assert found(MineConfig()) == ({"hard", "middling", "easy"}, 1)  # 0.88 is above 0.95 * 0.9
    assert found(MineConfig(share=1.0)) == ({"near", "hard", "middling", "easy"}, 0)
    assert found(MineConfig(share=0.5)) == ({"easy"}, 3)


def test_ranks_and_counts():
    assert found(MineConfig(negatives=1, depth=2, share=1.0)) in [({"near"}, 0), ({"hard"}, 0)]
    assert found(MineConfig(skip=1, depth=2, share=1.0)) == ({"hard"}, 0)
    assert found(MineConfig(depth=2)) == ({"hard"}, 1)


def test_known_answers_are_left_out_and_take_no_rank():
    assert found(MineConfig(depth=1, share=1.0), known=("near",)) == ({"hard"}, 0)
    assert found(MineConfig(depth=1, share=1.0), known=("2", "3")) == ({"middling"}, 0)  # by id
    assert found(MineConfig(depth=1, share=1.0), negatives=("near",)) == ({"hard"}, 0)  # has it already


@pytest.mark.parametrize("bad", [{"negatives": 0}, {"skip": 5, "depth": 5}, {"share": 0.0}, {"share": 1.1}])
def test_senseless_knobs_are_refused(bad: dict[str, float]):
    with pytest.raises(ValueError, match=r"at least one negative|above 0 and at most 1"):
        MineConfig(**bad)  # type: ignore[arg-type]


def test_a_recipe_is_mined_and_trained_on(tmp_path: Path, encoder: HashEncoder):
    words = list(SCRIPTS.values())
    records = [{"query": f"{w} {n}", "positive": f"{w} {n} !"} for w in words for n in range(3)]
    records.append({"query": f"{words[0]} 0", "positive": f"{words[0]} 0 again"})  # another answer of the first query
    (tmp_path / "qa").mkdir()
    (tmp_path / "qa" / "e.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    (tmp_path / "more.jsonl").write_text(json.dumps({"title": words[0], "text": "0 from elsewhere"}), "utf-8")
    config = TrainConfig([Source("examples", "qa/*.jsonl", "sts")])
    knobs = MineConfig(negatives=3, depth=10, share=1.0)
    said: list[str] = []
    (file,) = mine_recipe(config, tmp_path, tmp_path / "m", encoder, knobs, tmp_path / "more.jsonl", said.append)
    assert "negatives mined" in said[0] and f"{len(records)} examples" in said[0]
    (drawn,) = draw(Source("examples", "m/*.jsonl"), tmp_path, hard_negatives=9, seed=0)
    assert {(e.query, e.positive) for e in drawn.examples} == {(r["query"], r["positive"]) for r in records}
    answers: dict[str, set[str]] = {}
    for r in records:
        answers.setdefault(r["query"], set()).add(r["positive"])
    for e in drawn.examples:
        assert e.negatives and e.instruction == "Retrieve semantically similar text."
        assert not answers[e.query] & set(e.negatives)
    assert any(f"{words[0]} 0 from elsewhere" in e.negatives for e in drawn.examples)

    before = file.read_bytes()
    mine_recipe(config, tmp_path, tmp_path / "m", encoder, knobs, report=said.append)
    assert "is there already" in said[-1] and file.read_bytes() == before


def test_a_paragraph_with_its_title_is_not_mined_for_the_one_without(tmp_path: Path, encoder: HashEncoder):
    words = list(SCRIPTS.values())
    records = [{"query": f"{w} {n}", "title": "ርዕስ", "pos": f"{w} !"} for w in words for n in range(6)]
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    corpus = [{"title": "another", "text": f"{w} !"} for w in words]
    (tmp_path / "more.jsonl").write_text("".join(json.dumps(r) + "\n" for r in corpus), "utf-8")
    config = TrainConfig([Source("qa", "qa.jsonl", "web-search")])
    knobs = MineConfig(negatives=50, share=1.0)
    mine_recipe(config, tmp_path, tmp_path / "m", encoder, knobs, tmp_path / "more.jsonl")
    (drawn,) = draw(Source("examples", "m/*.jsonl"), tmp_path, hard_negatives=50, seed=0)
    assert len({e.positive for e in drawn.examples}) > len(words)  # some both ways
    for e in drawn.examples:
        assert e.positive_id == digest(e.positive.removeprefix("ርዕስ ")) and e.page == "ርዕስ"
        assert len(e.negative_ids) == len(e.negatives) > 0 and e.positive_id not in e.negative_ids


def test_half_a_character_stops_no_mining(tmp_path: Path, encoder: HashEncoder):
    records = [{"query": f"{w} ?", "positive": f"{w} \ud83d"} for w in SCRIPTS.values()]
    (tmp_path / "e.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    config = TrainConfig([Source("examples", "e.jsonl", "sts")])
    (file,) = mine_recipe(config, tmp_path, tmp_path / "m", encoder, MineConfig(share=1.0))
    (drawn,) = draw(Source("examples", f"m/{file.name}"), tmp_path, hard_negatives=9, seed=0)
    assert {(e.query, e.positive) for e in drawn.examples} == {(r["query"], r["positive"]) for r in records}
    assert any(text.endswith(" \ud83d") for e in drawn.examples for text in e.negatives)


def test_every_source_has_a_file_that_a_recipe_can_name(tmp_path: Path, encoder: HashEncoder):
    words = list(SCRIPTS.values())
    for lang in ("te", "fi"):
        records = [{"query": f"{w} {lang}", "positive": f"{w} !", "negatives": [], "lang": lang} for w in words]
        (tmp_path / f"e.{lang}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    both = Source("examples", ["e.*.jsonl", "e.fi.jsonl"], "sts", together=True)
    sources = [both, *(replace(both, where={"lang": lang}, in_batch=False) for lang in ("te", "fi"))]
    said: list[str] = []

    def run(*sources: Source) -> list[Path]:
        return mine_recipe(TrainConfig([*sources]), tmp_path, tmp_path / "m", encoder, MineConfig(), report=said.append)

    files = run(*sources)
    assert len(set(files)) == 3 and not any("is there already" in line for line in said)
    for source, file in zip(sources, files, strict=True):
        (drawn,) = draw(Source("examples", f"m/{file.name}"), tmp_path, hard_negatives=9, seed=0)
        langs = source.where.values() or ("te", "fi")
        assert {e.query for e in drawn.examples} == {f"{w} {lang}" for w in words for lang in langs}
        assert all(e.negatives for e in drawn.examples)
    assert not any(set("*?[] ") & set(file.name) for file in files)
    assert run(*sources) == files and all("is there already" in line for line in said[3:])
    assert run(sources[0], sources[2])[1] not in files  # another source in the second's place


def test_the_command_says_what_is_wrong(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("sources: []\n")
    done = CliRunner().invoke(
        app, ["mine", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--out", str(tmp_path / "o"), "--share", "2"]
    )
    assert done.exit_code == 1 and "share is 2.0" in done.output


def test_an_answer_by_another_name_is_no_negative(tmp_path: Path, encoder: HashEncoder):
    """A corpus has it with its title, and under its own id; the examples have it bare, or by its digest."""
    (tmp_path / "e.jsonl").write_text(
        json.dumps({"query": "who repairs lamps", "positive": "The office repairs lamps.", "positive_id": 42}) + "\n"
        + json.dumps({"query": "when do lamps burn", "positive": "At night.", "known": ["43"]}) + "\n"
    )  # fmt: skip
    corpus = [
        {"_id": 42, "title": "Lamps", "text": "The office repairs lamps."},
        {"_id": 43, "title": "Lamps", "text": "They burn at night."},
        {"_id": 44, "title": "Lamps", "text": "They are green."},
        {"_id": 45, "title": "Lamps", "text": "They burn at night."},  # again, under another id
    ]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)))
    config = TrainConfig([Source("examples", "e.jsonl", "question-answering")])
    knobs = MineConfig(negatives=9, depth=9, share=1.0)
    wide = Anything(encoder)
    (file,) = mine_recipe(config, tmp_path, tmp_path / "m", wide, knobs, tmp_path / "corpus.jsonl")
    found = {r["query"]: set(r["negatives"]) for r in map(json.loads, file.read_text("utf-8").splitlines())}
    assert found["who repairs lamps"] == {"At night.", "Lamps They burn at night.", "Lamps They are green."}
    assert found["when do lamps burn"] == {
        "The office repairs lamps.", "Lamps The office repairs lamps.", "Lamps They are green."
    }  # fmt: skip
    ids = {t: i for r in map(json.loads, file.read_text("utf-8").splitlines())
           for t, i in zip(r["negatives"], r["negative_ids"], strict=True)}  # fmt: skip
    assert ids["Lamps The office repairs lamps."] == "42"  # as the other example calls it


class Anything(Around):
    """Takes every passage for as near as the next: the guards alone decide."""

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return np.eye(1, self.dimension, dtype=np.float32).repeat(len(queries), 0)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return np.eye(1, self.dimension, dtype=np.float32).repeat(len(passages), 0)


def test_ids_that_are_numbers_are_ids(tmp_path: Path, encoder: HashEncoder):
    records = [{"query": "q", "positive": f"p{n}", "positive_id": n} for n in range(3)]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, records)))
    (file,) = mine_recipe(
        TrainConfig([Source("examples", "e.jsonl", "sts")]), tmp_path, tmp_path / "m", encoder, MineConfig()
    )
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert {r["positive_id"] for r in kept} == {"0", "1", "2"}
    assert not any(r.get("negatives") for r in kept)  # each is an answer of the one query
