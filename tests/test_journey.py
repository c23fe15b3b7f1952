"""The whole line with the shipped model: ingest documents in many languages, ask in another."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import torch

from ragkit import TASKS
from ragkit.answer import extractive_answer
from ragkit.encoder import LocalEncoder
from ragkit.ingest import ingest
from ragkit.mini import base_folder
from ragkit.retrieve import Retriever
from ragkit.store import open_store

CORPUS = Path(__file__).parent.parent / "apps" / "corpus" / "mul"
TASK = TASKS["question-answering"]


@pytest.fixture(scope="module")
def mini() -> LocalEncoder:
    return LocalEncoder.load("mini")


def test_two_processes_share_one_unpacking(mini: LocalEncoder):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        folders = pool.map(base_folder, [None, None])
    assert folders[0] == folders[1] and (folders[0] / "model.safetensors").exists()


def test_mini_reads_special_tokens_as_text(mini: LocalEncoder):
    from ragkit.encoder import tokenize

    [row] = tokenize(mini.tokenizer, ["a <eos> b <bos> c <pad>"], 64).ids
    assert row[0] == 2 and row[-1] == 1 and not {0, 1, 2} & set(row[1:-1])


def test_mini_is_independent_of_its_batch():
    texts = ["ደህና", "a much longer text about the tram that stops at the harbour " * 5, "สวัสดี"]
    exact = LocalEncoder.load("mini", dtype=torch.float32)  # bfloat16 rounds each shape in its own way
    together = exact.encode_passages(texts)
    alone = np.concatenate([exact.encode_passages([t]) for t in texts])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_a_question_finds_its_answer_in_another_language(mini: LocalEncoder, tmp_path: Path):
    """Twenty passages of the demo corpus in ten languages; questions whose answers are in another one."""
    records = [json.loads(line) for line in (CORPUS / "corpus.jsonl").read_text("utf-8").splitlines()]
    by_lang: dict[str, list[dict[str, str]]] = {}
    for record in records:
        by_lang.setdefault(record["lang"], []).append(record)
    chosen = [r for lang in ("ar", "hi", "th", "zh", "ja", "sw", "de", "en", "fr", "ru") for r in by_lang[lang][:2]]
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in chosen), "utf-8")
    ids = {r["_id"] for r in chosen}
    questions = {
        r["_id"]: r["text"] for r in map(json.loads, (CORPUS / "queries.jsonl").read_text("utf-8").splitlines())
    }
    judged = [line.split("\t") for line in (CORPUS / "qrels.tsv").read_text("utf-8").splitlines()[1:]]
    asked = [(questions[q], d) for q, d, _ in judged if d in ids]
    assert len(asked) >= 15

    with open_store(tmp_path / "store", "town", mini) as store:
        report = ingest([file], store, mini)
        assert (report.added, report.skipped) == (20, ())
        assert ingest([file], store, mini).passages == 0
        retriever = Retriever(store, mini)
        found = retriever.search_batch([q for q, _ in asked], task=TASK, k=5)
        right = sum(d in {h.passage.document for h in hits} for (_, d), hits in zip(asked, found, strict=True))
        assert right / len(asked) >= 0.8  # by chance 0.25
        answer = extractive_answer(asked[0][0], found[0], mini, TASK)
        assert answer.citations[0].quote in answer.citations[0].hit.passage.text
