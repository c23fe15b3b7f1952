"""Sources, ratios, batches, and the plan that keeps them."""

from __future__ import annotations

import dataclasses
import gzip
import json
import random
import tempfile
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

from ragkit import TASKS
from trainer.config import RECIPES, TrainConfig
from trainer.data import Source, TrainingExample, digest, draw, numbered_records, read_texts
from trainer.plan import Batch, Plan, batch_texts, homogeneous_batches, plan_of
from trainer.plan import make_plan as make
from trainer.public import PUBLIC_SETS


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(lines)
    else:
        path.write_text(lines, "utf-8")


def make_plan(sources: list[Source], data: Path, *, batch_size: int, seed: int, **kwargs: Any) -> Plan:
    """A plan in a folder of its own."""
    return make(sources, data, Path(tempfile.mkdtemp()) / "plan", batch_size=batch_size, seed=seed, **kwargs)


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
    assert len(plan) == 13
    for batch in plan:
        assert len({e.instruction for e in batch.examples}) == 1
        assert len({"ሀ" <= e.query[0] <= "፿" for e in batch.examples}) == 1  # Amharic is never mixed with Thai


def test_the_seed_decides_everything(data: Path):
    sources = [Source("qa", "qa/*.jsonl.gz", ["question-answering", "web-search"], ratio=0.5)]
    one, same, other = (list(make_plan(sources, data, batch_size=4, seed=s)) for s in (1, 1, 2))
    assert one == same
    assert one != other
    assert {e.instruction for b in one for e in b.examples} == {
        TASKS[t].instruction for t in ("question-answering", "web-search")
    }


def test_what_is_not_used_is_counted(data: Path):
    plan = make_plan([Source("bitext", "bitext.jsonl", "bitext", ratio=0.75)], data, batch_size=4, seed=1)
    assert plan.drawn == {"bitext.jsonl": 8}
    counts = {reason: count for reason, count in plan.dropped.items() if count}
    assert counts == {"beyond the ratio": 3, "would not fill a batch": 1}
    bad = [{"query": " ", "positive": "p"}, {"query": "same", "positive": "same"}, {"query": "ช", "positive": "ซ"}]
    write(data / "bad.jsonl", bad)
    plan = make_plan([Source("examples", "bad.jsonl", "sts")], data, batch_size=1, seed=1)
    assert plan.dropped["blank query or positive"] == 1 and plan.dropped["positive equals query"] == 1


def test_a_positive_stands_twice_only_where_nothing_else_is_left():
    examples = [TrainingExample(f"q{n}", f"p{n // 3}") for n in range(30)]  # three questions a paragraph
    random.Random(0).shuffle(examples)
    batches, left = homogeneous_batches(examples, 5)
    assert len(batches) == 6 and left == 0
    assert sorted(e.query for b in batches for e in b) == sorted(e.query for e in examples)
    for batch in batches[:4]:
        texts = [t for e in batch for t in (e.query, e.positive)]
        assert len(set(texts)) == len(texts) == 10
    labels = [TrainingExample(f"q{n}", "positive" if n % 2 else "negative") for n in range(9)]
    batches, left = homogeneous_batches(labels, 4)
    assert [len(b) for b in batches] == [4, 4] and left == 1


def assert_no_false_negative(plan: Plan, passage_of: Callable[[TrainingExample], object]) -> int:
    """How many pairs of a batch are of one passage: each must be masked."""
    pairs = 0
    for batch in plan:
        masked = batch_texts(batch).excluded
        for (i, a), (j, b) in permutations(enumerate(batch.examples), 2):
            if passage_of(a) == passage_of(b):
                pairs += 1
                assert masked[i, j], (a.query, b.positive)
    return pairs


@pytest.mark.parametrize("by_page", [False, True])
def test_a_paragraph_with_its_title_is_no_negative_of_the_one_without(tmp_path: Path, by_page: bool):
    records = [{"query": f"ጥያቄ {n}", "title": f"ርዕስ {n // 20}", "pos": f"መልስ {n // 4}"} for n in range(80)]
    write(tmp_path / "qa.jsonl", records)
    of = {r["query"]: r["pos"] for r in records}
    source = Source("qa", "qa.jsonl", "web-search", by_page=by_page)
    plan = make_plan([source], tmp_path, batch_size=8, seed=1)
    examples = [e for batch in plan for e in batch.examples]
    assert len(examples) == 80 and len({e.positive for e in examples}) > 20  # some paragraphs both ways
    assert assert_no_false_negative(plan, lambda e: of[e.query]) < 80
    assert sum(len({of[e.query] for e in b.examples}) == 8 for b in plan) >= 5  # kept apart while there are others
    assert assert_no_false_negative(make_plan([source], tmp_path, batch_size=40, seed=1), lambda e: of[e.query]) > 0


def test_two_languages_of_a_page_are_no_negatives_of_each_other(data: Path):
    pages = Source("pages", "docs/*.jsonl", "web-search")
    assert assert_no_false_negative(make_plan([pages], data, batch_size=8, seed=1), lambda e: e.positive[-1]) == 0
    assert assert_no_false_negative(make_plan([pages], data, batch_size=12, seed=1), lambda e: e.positive[-1]) > 0


def test_pages_pair_two_languages_of_the_same_page(data: Path):
    plan = make_plan([Source("pages", "docs/*.jsonl", "web-search")], data, batch_size=8, seed=1)
    examples = [e for b in plan for e in b.examples]
    assert len(examples) == 24
    for e in examples:
        assert e.query[:2] != e.positive[:2]
        assert e.query.split()[1].removeprefix("t") == e.positive.split()[-1]
    assert any(len({e.positive[:2] for e in b.examples}) == 3 for b in plan)  # languages mix


def test_files_together_mix_their_languages(data: Path):
    apart = make_plan([Source("qa", "qa/*.gz", "web-search")], data, batch_size=8, seed=1)
    assert all(len({e.query[:2] for e in b.examples}) == 1 for b in apart)
    files = sorted(f"qa/{file.name}" for file in (data / "qa").glob("*.gz"))
    assert len(files) == 2
    for path, name in (("qa/*.gz", "qa/*.gz"), (files, f"{files[0]} and 1 more"), (["qa/*.gz", files[0]], None)):
        mixed = make_plan([Source("qa", path, "web-search", together=True)], data, batch_size=8, seed=1)
        assert sum(len(b.examples) for b in mixed) == 40
        assert all(len({e.query[:2] for e in b.examples}) == 2 for b in mixed)
        assert mixed.drawn == {name or "qa/*.gz and 1 more": 40}  # a file named twice is read once


def test_parts_of_a_page_share_a_batch(tmp_path: Path):
    records = [{"query": f"q{n}", "title": f"page {n % 4}", "pos": f"part {n}"} for n in range(32)]
    write(tmp_path / "qa.jsonl", records)

    def pages(**knobs: Any) -> list[set[str]]:
        plan = make_plan([Source("qa", "qa.jsonl", "web-search", **knobs)], tmp_path, batch_size=8, seed=1)
        return [{e.page for e in batch.examples} for batch in plan]

    assert sorted(map(sorted, pages(by_page=True))) == [["page 0"], ["page 1"], ["page 2"], ["page 3"]]
    assert all(len(batch) > 1 for batch in pages())
    assert len(set().union(*pages(by_page=True, ratio=0.5))) == 2  # whole pages are drawn, not a bit of each


def test_a_share_of_pages_is_drawn_whatever_their_size(tmp_path: Path):
    """Pages stood in the order of their first examples, large ones first, and what has no page last: cut off first."""
    large = [{"query": f"q{n}", "title": "large", "pos": f"part {n}"} for n in range(200)]
    alone = [{"query": f"a{n}", "pos": f"alone {n}"} for n in range(200)]
    write(tmp_path / "qa.jsonl", [*large, *alone])
    first = []
    for seed in range(20):
        source = Source("qa", "qa.jsonl", "web-search", by_page=True, ratio=0.2)
        [drawn] = draw(source, tmp_path, hard_negatives=0, seed=seed)
        first.append(sum(e.page == "" for e in drawn.examples))
    assert sum(n == 80 for n in first) > 10  # the one large page is seldom among the first 80 of 201


def test_half_a_character_stops_no_plan(tmp_path: Path):
    (tmp_path / "qa.jsonl").write_text('{"query": "ጥያቄ", "pos": "መልስ \\ud83d"}\n', "utf-8")
    [batch] = make_plan([Source("qa", "qa.jsonl", "sts")], tmp_path, batch_size=1, seed=1)
    assert batch.examples[0].positive == "መልስ \ud83d"


def test_a_null_title_is_no_word(tmp_path: Path):
    write(tmp_path / "qa.jsonl", [{"query": f"ጥያቄ {n}", "title": None, "pos": f"መልስ {n}"} for n in range(8)])
    pages = [{"_id": "1", "title": None, "desc": f"{lang} ርዕስ", "text": f"{lang} መልስ"} for lang in ("am", "ti")]
    write(tmp_path / "docs.jsonl", pages)
    sources = [Source("qa", "qa.jsonl", "sts", by_page=True), Source("pages", "docs.jsonl", "sts")]
    examples = [e for batch in make_plan(sources, tmp_path, batch_size=2, seed=1) for e in batch.examples]
    assert len(examples) == 10 and {e.page for e in examples} == {""}
    assert not any("None" in text for e in examples for text in (e.query, e.positive))


def test_questions_in_other_languages_find_the_paragraphs_they_ask_about(data: Path):
    asked = [{"digest": digest(f"ตอบ {n}"), "lang": "hi", "query": f"प्रश्न {n}"} for n in range(6)]
    write(data / "asked.jsonl", [*asked, {"digest": digest("ไม่มี"), "lang": "hi", "query": "कहाँ"}])
    plan = make_plan([Source("asked", ["qa/s.th.jsonl.gz", "asked.jsonl"], "web-search")], data, batch_size=6, seed=1)
    assert plan.drawn == {"qa/s.th.jsonl.gz and 1 more": 12}  # nothing of the paragraphs that nobody asks about
    pairs = {(e.query, e.positive) for b in plan for e in b.examples}
    assert pairs == {(f"{word} {n}", f"ตอบ {n}") for word in ("प्रश्न", "ถาม") for n in range(6)}


def test_only_what_people_found_alike_is_a_pair(tmp_path: Path):
    records = [{"s1": f"a{n}", "s2": f"b{n}", "score": score} for n, score in enumerate([5, 4.0, 3.9, "4.5", 0])]
    write(tmp_path / "sts.jsonl", records)
    plan = make_plan([Source("similar", "sts.jsonl", "sts")], tmp_path, batch_size=3, seed=1)
    assert {(e.query, e.positive) for e in plan[0].examples} == {("a0", "b0"), ("a1", "b1"), ("a3", "b3")}


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
    assert {e for b in plan for e in b.examples} == {
        TrainingExample("q", "p", "T", ("n",)),
        TrainingExample("x", "l", "C", ("m",)),
        TrainingExample("i", "d", "S"),
        TrainingExample("a", "b", "Retrieve semantically similar text.", ("c",)),
        TrainingExample("u", "v", "Retrieve parallel sentences.", ("w",)),
    }
    only = make_plan([Source("synthetic", "s.jsonl", where={"kind": "sts"})], tmp_path, batch_size=1, seed=1)
    assert [e.query for b in only for e in b.examples] == ["a"]


def test_a_source_that_gives_nothing_is_named(data: Path, caplog: pytest.LogCaptureFixture):
    for lang, count in (("te", 6), ("fi", 3)):
        records = [{"query": f"{lang} {n}", "positive": f"{n}", "lang": lang} for n in range(count)]
        write(data / "p" / f"{lang}.jsonl", records)
    few = Source("examples", "p/*.jsonl", "sts", where={"lang": "te"})
    plan = make_plan([few, Source("bitext", "bitext.jsonl", "bitext")], data, batch_size=6, seed=1)
    assert plan.drawn == {"p/fi.jsonl": 0, "p/te.jsonl": 6, "bitext.jsonl": 12}
    assert plan.dropped["not what where asks for"] == 3
    assert caplog.messages == ["source p/fi.jsonl: 0 examples, fewer than batch_size 6: none is used"]
    with pytest.raises(ValueError, match=r"no record where \{'lang': 'am'\}: in its records lang is 'fi', 'te'"):
        make_plan([dataclasses.replace(few, where={"lang": "am"})], data, batch_size=2, seed=1)


def excluded(batch: Batch) -> set[tuple[int, int]]:
    return {(int(i), int(j)) for i, j in zip(*batch_texts(batch).excluded.nonzero(), strict=True)}


def test_a_batch_as_texts():
    batch = Batch("s", [TrainingExample("q1", "p1", "Find", ("n1", "p2")), TrainingExample("q2", "p2", "Find")])
    texts = batch_texts(batch)
    assert texts.queries == ["Instruct: Find\nQuery: q1", "Instruct: Find\nQuery: q2"]
    assert texts.passages == ["p1", "p2", "n1", "p2"]
    assert excluded(batch) == {(1, 3)}  # q1's hard negative is q2's positive


def test_what_answers_a_query_is_not_its_negative():
    def example(query: str, positive: str, **kwargs: Any) -> TrainingExample:
        return TrainingExample(query, positive, "Find", **kwargs)

    same_id = Batch(
        "s",
        [
            example("q1", "long form", positive_id="7"),
            example("q2", "7", negatives=("short form",), negative_ids=("7",)),
        ],
    )
    assert excluded(same_id) == {(0, 2)}  # another version of passage 7; a text that reads "7" is not it
    known = Batch(
        "s", [example("q1", "p1", known=("p2", "id9")), example("q2", "p2"), example("q3", "x", positive_id="id9")]
    )
    assert excluded(known) == {(0, 1), (0, 2)}
    label = Batch("s", [example("ดี", "บวก"), example("แย่", "ลบ"), example("เยี่ยม", "บวก")])
    assert excluded(label) == {(0, 2), (2, 0)}
    same_query = Batch("s", [example("q", "p1"), example("q", "p2"), example("r", "p3")])
    assert excluded(same_query) == {(0, 1), (1, 0)}


def test_without_in_batch_negatives_a_query_sees_its_own_alone():
    batch = Batch(
        "s",
        [TrainingExample("q1", "a", "C", ("b", "c")), TrainingExample("q2", "b", "C", ("a",))],
        in_batch=False,
    )
    free = {(i, j) for i in range(2) for j in range(5)} - excluded(batch)
    assert free == {(0, 0), (0, 2), (0, 3), (1, 1), (1, 4)}


def test_hard_negatives_are_drawn_and_checked(tmp_path: Path):
    record = {"query": "q", "positive": "p", "negatives": ["a", "b", "c", "p", " "]}
    write(tmp_path / "h.jsonl", [{**record, "query": f"q{n}", "positive": f"p{n}" if n else "p"} for n in range(20)])
    for count in (0, 2, 9):
        plan = make_plan([Source("examples", "h.jsonl", "sts")], tmp_path, batch_size=20, seed=3, hard_negatives=count)
        [batch] = plan
        for e in batch.examples:
            assert len(e.negatives) == min(count, 3 if e.positive == "p" else 4)
            assert e.positive not in e.negatives and " " not in e.negatives
        assert plan.dropped["hard negative blank or a positive"] == 21
    drawn = {
        e.negatives
        for e in make_plan([Source("examples", "h.jsonl", "sts")], tmp_path, batch_size=20, seed=3)[0].examples
    }
    assert len(drawn) > 2  # not always the first


def test_a_source_can_do_without_in_batch_negatives(tmp_path: Path):
    write(tmp_path / "c.jsonl", [{"query": f"q{n}", "positive": "p", "negatives": ["n"] * (n % 2)} for n in range(8)])
    plan = make_plan([Source("examples", "c.jsonl", "sts", in_batch=False)], tmp_path, batch_size=4, seed=1)
    assert [b.in_batch for b in plan] == [False] and plan.dropped["no negative, and none in the batch"] == 4


def test_a_plan_is_kept_and_read_by_the_step(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    sources = [Source("qa", "qa/*.jsonl.gz", "question-answering")]
    folder = tmp_path / "run" / "plan"
    plan = make(sources, data, folder, batch_size=4, seed=1)
    with monkeypatch.context() as patched:
        patched.setattr("trainer.plan.draw", None)  # not drawn again
        again = make(sources, data, folder, batch_size=4, seed=1)
    assert list(again) == list(plan) and again[3] == plan[3]
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["plan"]  # nothing half-made beside it
    with pytest.raises(ValueError, match="no source fills a batch of 64"):
        make_plan(sources, data, batch_size=64, seed=1)


def test_a_plan_of_other_knobs_or_files_is_drawn_anew(data: Path, tmp_path: Path):
    config = TrainConfig([Source("bitext", "bitext.jsonl", "bitext")], batch_size=4)
    assert len(plan_of(config, data, tmp_path / "run")) == 3
    other = dataclasses.replace(config, batch_size=6)
    assert [len(batch.examples) for batch in plan_of(other, data, tmp_path / "run")] == [6, 6]
    write(data / "bitext.jsonl", [{"src": f"ஒன்று {n}", "tgt": f"واحد {n}"} for n in range(18)])
    assert len(plan_of(other, data, tmp_path / "run")) == 3
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["plan"]

    (tmp_path / "run" / "config.yaml").write_text(other.yaml(), "utf-8")  # a run has begun
    write(data / "bitext.jsonl", [{"src": "ஒன்று", "tgt": "واحد"}])
    assert len(plan_of(other, data, tmp_path / "run")) == 3
    with pytest.raises(ValueError, match=r"run of another configuration \(batch_size differ\)"):
        plan_of(config, data, tmp_path / "run")


def test_a_plan_of_another_mirror_or_table_is_drawn_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = TrainConfig([Source("public", "nli")], batch_size=2)
    file = tmp_path / "data" / "hub" / "princeton-nlp" / "datasets-for-simcse" / "nli_for_simcse.csv"
    file.parent.mkdir(parents=True)

    def drawn() -> set[tuple[str, str]]:
        plan = plan_of(config, tmp_path / "data", tmp_path / "run")
        return {(e.query, e.positive) for batch in plan for e in batch.examples}

    for word in ("ጥያቄ", "คำถาม"):
        file.write_text("sent0,sent1,hard_neg\n" + "".join(f"{word} {n},对 {n},错 {n}\n" for n in range(4)), "utf-8")
        assert drawn() == {(f"{word} {n}", f"对 {n}") for n in range(4)}
    nli = PUBLIC_SETS["nli"]
    monkeypatch.setitem(PUBLIC_SETS, "nli", dataclasses.replace(nli, fields=("sent0", "hard_neg", "sent1")))
    assert drawn() == {(f"คำถาม {n}", f"错 {n}") for n in range(4)}


def test_public_sets_are_sources(tmp_path: Path):
    """Offline, from a mirror: DATA/hub/OWNER/NAME."""
    rows = "".join(f"premise {n},follows {n},contradicts {n}\n" for n in range(8))
    file = tmp_path / "hub" / "princeton-nlp" / "datasets-for-simcse" / "nli_for_simcse.csv"
    file.parent.mkdir(parents=True)
    file.write_text(f"sent0,sent1,hard_neg\n{rows}", "utf-8")
    plan = make_plan([Source("public", "nli")], tmp_path, batch_size=4, seed=1)
    assert plan.drawn == {"nli": 8}
    for e in (e for b in plan for e in b.examples):
        assert e.positive == e.query.replace("premise", "follows")
        assert e.negatives == (e.query.replace("premise", "contradicts"),)
        assert e.instruction.startswith(("Given a premise", "Retrieve semantically similar text"))
    half = make_plan([Source("public", "nli", ratio=0.5)], tmp_path, batch_size=4, seed=1)
    assert half.drawn == {"nli": 4}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Source("qa", "nothing*.jsonl", "sts"), r"'nothing\*.jsonl' matches no file"),
        (Source("question", "bitext.jsonl", "sts"), "unknown kind 'question': use one of examples, qa"),
        (Source("qa", "bitext.jsonl", "sts"), "record without the field 'query'"),
        (Source("qa", "/data/qa.jsonl", "sts"), "'/data/qa.jsonl' is an absolute path: write it from the data folder"),
        (Source("public", "hotpot"), "unknown public set 'hotpot'"),
        (Source("public", "nli", where={"lang": "en"}), "'nli' is public, and has its own way with where"),
        (Source("public", "nli", "sts", together=True), "its own way with instruction: leave that out"),
    ],
)
def test_errors_say_what_to_do(data: Path, source: Source, message: str):
    with pytest.raises(ValueError, match=message):
        make_plan([source], data, batch_size=2, seed=1)


@pytest.mark.parametrize(
    ("query", "instruction", "message"),
    [("ጥያቄ", "", "blank instruction"), ("ጥያቄ", [], "blank instruction"), ("ጥያቄ", "Find\nit", "line break"),
     ("Instruct: Find it\nQuery: ጥያቄ", "Find it", "already starts with the prefix")],
)  # fmt: skip
def test_what_makes_no_prompt_is_refused_before_the_run(tmp_path: Path, query: str, instruction: Any, message: str):
    write(tmp_path / "e.jsonl", [{"query": query, "positive": "መልስ"}])
    with pytest.raises(ValueError, match=f"source 'e.jsonl', query .*{message}.*Set the source's instruction"):
        make_plan([Source("examples", "e.jsonl", instruction)], tmp_path, batch_size=1, seed=1)


@pytest.mark.parametrize("name", ["web_search", "Web-Search", ["sts", "bitexts"]])
def test_a_name_of_no_task_is_no_instruction(name: Any):
    with pytest.raises(ValueError, match=r"source 'ถาม.jsonl' has the instruction .*use one of web-search, "):
        Source("qa", "ถาม.jsonl", name)
    for sentence in (
        "检索能回答问题的段落",
        "ค้นหาข้อความที่ตอบคำถาม",
        "質問に答える文章を探す",
        "ጥያቄውን የሚመልስ አንቀጽ ፈልግ",
        "🔎",
    ):
        assert Source("qa", "ถาม.jsonl", [sentence, "sts"]).instructions == [sentence, "sts"]


@pytest.mark.parametrize("ratio", [3.0, -0.1, float("nan")])
def test_a_share_is_no_more_than_all(ratio: float):
    with pytest.raises(ValueError, match=r"source 'ถาม.jsonl' has the ratio .*: a share is from 0 to 1"):
        Source("qa", "ถาม.jsonl", "sts", ratio=ratio)


def test_a_broken_line_is_named(data: Path):
    (data / "broken.jsonl").write_text('{"query": "a", "positive": "b"}\n{"query": \n', "utf-8")
    with pytest.raises(ValueError, match=r"broken.jsonl, line 2: not JSON"):
        make_plan([Source("examples", "broken.jsonl", "sts")], data, batch_size=1, seed=1)
    (data / "broken.jsonl").write_text('{"query": "a", "positive": "b"}\n["ሀ", "ለ"]\n', "utf-8")
    with pytest.raises(ValueError, match=r'broken.jsonl, line 2: \["ሀ", "ለ"\] is no record'):
        make_plan([Source("examples", "broken.jsonl", "sts")], data, batch_size=1, seed=1)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        (
            "c.jsonl.gz",
            lambda raw: gzip.compress(raw)[:-900],
            r"after line \d+: cut off or damaged \(Compressed file ended",
        ),
        ("c.jsonl.gz", lambda raw: gzip.compress(raw)[:-8] + bytes(8), r"after line \d+: cut off or damaged \(CRC"),
        (
            "c.jsonl.gz",
            lambda raw: gzip.compress(raw)[:10] + b"\xff" * 99,
            r"after line 0: cut off or damaged \(Error -3",
        ),
        ("c.jsonl.gz", lambda raw: raw, r"after line 0: cut off or damaged \(Not a gzipped file"),
        ("c.jsonl", lambda raw: raw + '{"query": "où", "positive": "là"}'.encode("latin-1"), r"line 201: not UTF-8 \("),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, harm: Callable[[bytes], bytes], message: str):
    rng = random.Random(0)
    lines = [
        json.dumps({"query": f"ጥያቄ {rng.random()}", "positive": f"คำตอบ {n}"}, ensure_ascii=False) for n in range(200)
    ]
    (tmp_path / name).write_bytes(harm("".join(f"{line}\n" for line in lines).encode()))
    with pytest.raises(ValueError, match=f"{tmp_path / name}, {message}"):
        make_plan([Source("examples", name, "sts")], tmp_path, batch_size=1, seed=1)


GOOD = {"query": "የኢትዮጵያ ዋና ከተማ?", "positive": "አዲስ አበባ"}


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("examples", {**GOOD, "negatives": "ናይሮቢ"}, "negatives is a text, 'ናይሮቢ': write a list of texts"),
        ("examples", {**GOOD, "known": "ሸገር"}, "known is a text"),
        ("examples", {**GOOD, "negatives": ["ናይሮቢ", None]}, "None stands where a text belongs"),
        ("examples", {**GOOD, "negatives": 7}, "'int' object is not iterable"),
        ("examples", {**GOOD, "negatives": ["ናይሮቢ"], "negative_ids": ["1", "2"]}, "negative_ids has 2 for 1 negatives"),
        ("examples", {**GOOD, "positive": ["አዲስ አበባ"]}, "stands where a text belongs"),
        ("qa", {"query": "ጥያቄ", "pos": None}, "has a record that cannot be read"),
        ("bitext", {"src": None, "tgt": "Tür"}, "None stands where a text belongs"),
        ("similar", {"s1": "ሀ", "s2": "ለ", "score": "many"}, "could not convert string to float: 'many'"),
    ],
)
def test_a_bad_record_is_told_with_its_source(tmp_path: Path, kind: str, record: dict[str, Any], message: str):
    good = {"query": "कौन", "positive": "वह", "pos": "वह", "src": "คน", "tgt": "人", "s1": "a", "s2": "b", "score": 5}
    write(tmp_path / "r.jsonl", [good, record])
    with pytest.raises(ValueError, match=message) as told:
        make_plan([Source(kind, "r.jsonl", "sts")], tmp_path, batch_size=1, seed=1)
    assert str(told.value).startswith(f"source 'r.jsonl' of kind '{kind}' has a record ")
    assert str(told.value).endswith(f": {record!r}")


def test_null_is_empty(tmp_path: Path):
    nothing = {"instruction": None, "negatives": None, "negative_ids": None, "known": None, "page": None}
    write(tmp_path / "e.jsonl", [{**GOOD, **nothing, "positive_id": None}, {"query": "ใคร", "positive": None}])
    plan = make_plan([Source("examples", "e.jsonl", "sts")], tmp_path, batch_size=1, seed=1)
    assert [e for b in plan for e in b.examples] == [TrainingExample(*GOOD.values(), TASKS["sts"].instruction)]
    assert plan.dropped["blank query or positive"] == 1


def test_shipped_recipes_are_readable():
    for path in RECIPES.glob("*.yaml"):
        config = TrainConfig.read(path)
        assert config.sources and yaml.safe_load(path.read_text("utf-8"))


def test_a_byte_order_mark_and_blank_lines_are_no_records(tmp_path: Path):
    """As editors and `echo >>` leave them; lines keep their numbers."""
    (tmp_path / "e.jsonl").write_bytes('\ufeff{"query": "ጥያቄ", "positive": "መልስ"}\n\n \r\n{"query": 1\n'.encode())
    records = numbered_records(tmp_path / "e.jsonl")
    assert next(records) == (1, {"query": "ጥያቄ", "positive": "መልስ"})
    with pytest.raises(ValueError, match=r"e.jsonl, line 4: not JSON"):
        next(records)


@pytest.mark.parametrize("record", [{"_id": "1"}, {"_id": "1", "text": None}, {"_id": "1", "title": 3, "text": "a"}])
def test_a_passage_without_a_text_is_named(tmp_path: Path, record: dict[str, Any]):
    (tmp_path / "corpus.jsonl").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"corpus.jsonl, line 1: .* has no text"):
        list(read_texts(tmp_path / "corpus.jsonl"))
