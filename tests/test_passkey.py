"""The passkey test on encoders whose right answer is obvious, and on a tiny Mistral; RoPE base and window; resume."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ragkit.context import Context
from ragkit.encoder import LocalEncoder
from ragkit.task import Task
from trainer.cli import app
from trainer.passkey import QUESTION, TASK, PasskeyConfig, correct, haystack, is_run, passkey, people, read
from trainer.passkey_report import passkey_table

SMALL = PasskeyConfig(candidates=10, queries=5)
NAMED = re.compile(QUESTION.replace("?", r"\?").replace("{name}", "(.+)"))


class NameReader:
    """Texts are about the person whose name they state; a word is a token. ``sight``: words that are read, from the
    end, as a model with a short window reads them."""

    dimension, max_length, fingerprint, truncated = 20, 4096, "name-reader", 0

    def __init__(self, names: Sequence[str], sight: int = 100_000) -> None:
        self.names, self.sight = names, sight
        self.passages = 0

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) for text in texts]

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self._embed(queries)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        self.passages += len(passages)
        return self._embed([" ".join(text.split()[-self.sight :]) for text in passages])

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([[float(name in text) for name in self.names] for text in texts], np.float32)


def names_at(length: int, config: PasskeyConfig = SMALL) -> list[str]:
    return people(config.names, config.candidates, random.Random(f"{config.seed} {length}"))


@pytest.mark.parametrize("names", ["latin", "world"])
def test_texts_have_their_length_one_person_and_no_order(names: str):
    config = PasskeyConfig(candidates=60, queries=30, names=names)
    asked_for = names_at(128, config)
    reader = NameReader(asked_for)
    hay = haystack(128, config, reader.count_tokens)
    assert hay == haystack(128, config, reader.count_tokens)
    assert {len(text.split()) <= 126 and len(text.split()) > 126 - 10 for text in hay.texts} == {True}
    assert (reader.encode_passages(hay.texts).sum(axis=1) == 1).all() or names == "world"
    places = [text.index("The pass key of") / len(text) for text in hay.texts]
    assert min(places) < 0.2 and max(places) > 0.6 and len(set(hay.texts)) == 60
    assert len(set(hay.answers)) == 30
    for question, answer in zip(hay.asked, hay.answers, strict=True):
        [name] = NAMED.findall(question)
        assert f"The pass key of {name} is" in hay.texts[answer]


def test_world_names_are_in_many_scripts():
    found = "".join(people("world", 300, random.Random(0)))
    for letter in ("ሰ", "ل", "श", "ส", "佐", "王", "김", "В", "Π", "A"):
        assert letter in found, letter


def test_a_text_too_short_for_its_statement():
    with pytest.raises(ValueError, match="no room for the statement"):
        haystack(12, SMALL, NameReader([]).count_tokens)
    with pytest.raises(ValueError, match="but there are 320 latin names"):
        haystack(64, PasskeyConfig(candidates=400), NameReader([]).count_tokens)
    with pytest.raises(ValueError, match="11 queries of 10 candidates"):
        PasskeyConfig(candidates=10, queries=11)


def test_a_tie_is_no_answer():
    found = np.array([[0.9, 0.1, 0.2], [0.5, 0.5, 0.1], [0.1, 0.2, 0.3]])
    assert correct(found, [0, 0, 0]) == 1
    assert correct(np.ones((4, 9)), [0, 1, 2, 3]) == 0


def test_who_reads_all_finds_all_and_who_reads_the_end_finds_some(tmp_path: Path):
    [run] = passkey(NameReader(names_at(256)), "all", [256], tmp_path / "all.json", SMALL)
    assert run["lengths"]["256"]["correct"] == 5
    hay = haystack(256, SMALL, NameReader([]).count_tokens)
    seen = sum(
        NAMED.findall(q)[0] in " ".join(hay.texts[a].split()[-60:]) for q, a in zip(hay.asked, hay.answers, strict=True)
    )
    [run] = passkey(NameReader(names_at(256), sight=60), "end", [256], tmp_path / "end.json", SMALL)
    assert run["lengths"]["256"]["correct"] == seen < 5
    table = passkey_table([read(tmp_path / "all.json"), read(tmp_path / "end.json")])
    assert table.cells[0][:3] == (100.0, 20.0 * seen, 100.0)


def test_lengths_that_are_done_are_not_done_again(tmp_path: Path):
    out = tmp_path / "run.json"
    reader = NameReader(names_at(64) + names_at(128))
    assert len(list(passkey(reader, "m", [64], out, SMALL))) == 1 and reader.passages == 10
    [_, run] = passkey(reader, "m", [128, 64], out, SMALL)
    assert reader.passages == 20 and list(run["lengths"]) == ["64", "128"]
    with pytest.raises(ValueError, match="other settings"):
        list(passkey(reader, "m", [64], out, PasskeyConfig(candidates=10, queries=4)))
    with pytest.raises(ValueError, match="other settings"):
        list(passkey(reader, "m", [64], out, SMALL, {"window": 5}))
    with pytest.raises(ValueError, match="reads 4096 tokens, not 5000"):
        list(passkey(reader, "m", [5000], tmp_path / "long.json", SMALL))
    out.write_text("[]")
    assert not is_run(out)
    with pytest.raises(ValueError, match="no file of trainer passkey"):
        list(passkey(reader, "m", [64], out, SMALL))


# ---- a real model ----


def test_base_and_window_change_a_mistral_and_its_fingerprint(mistral_folder: Path):
    plain = LocalEncoder.load(mistral_folder)
    text = ["The river runs slowly past the mill. " * 20]
    same = LocalEncoder.load(mistral_folder, context=Context(rope_base=10_000, window=4096))
    base = LocalEncoder.load(mistral_folder, context=Context(rope_base=100_000))
    near = LocalEncoder.load(mistral_folder, context=Context(window=16))
    np.testing.assert_allclose(plain.encode_passages(text), same.encode_passages(text), atol=1e-6)
    for other in (base, near):
        assert float((plain.encode_passages(text) @ other.encode_passages(text).T)[0, 0]) < 0.999
    assert len({e.fingerprint for e in (plain, same, base, near)}) == 4  # said, so told apart: no cache is shared


def test_a_window_hides_what_lies_before_it(mistral_folder: Path):
    """Two layers that look back 8 tokens cannot tell texts apart that differ 40 tokens earlier."""
    near = LocalEncoder.load(mistral_folder, context=Context(window=8), dtype=torch.float32)
    tail = " The cart stands in the yard." * 8
    one, two = near.encode_passages(["Ada" + tail, "Bob" + tail])
    np.testing.assert_allclose(one, two, atol=1e-5)
    far = LocalEncoder.load(mistral_folder, dtype=torch.float32)
    one, two = far.encode_passages(["Ada" + tail, "Bob" + tail])
    assert not np.allclose(one, two, atol=1e-5)


def test_gemma_has_two_bases():
    from transformers import Gemma3TextConfig, LlamaConfig, MistralConfig

    gemma = Gemma3TextConfig(num_hidden_layers=6)
    Context(rope_base=2e6, rope_local_base=5e4, window=128).apply(gemma)
    assert gemma.rope_parameters["full_attention"]["rope_theta"] == 2e6
    assert gemma.rope_parameters["sliding_attention"]["rope_theta"] == 5e4
    assert gemma.sliding_window == 128
    with pytest.raises(ValueError, match="one RoPE base for all layers"):
        Context(rope_local_base=5e4).apply(MistralConfig())
    with pytest.raises(ValueError, match="LlamaConfig has no sliding window"):
        Context(window=128).apply(LlamaConfig())
    with pytest.raises(ValueError, match="sees nothing"):
        Context(window=0).apply(MistralConfig())


def test_the_command_on_a_tiny_mistral(mistral_folder: Path, tmp_path: Path):
    arguments = ["passkey", "--model", str(mistral_folder), "--candidates", "8", "--queries", "4", "--names", "world",
                 "--cache", str(tmp_path / "c.sqlite"), "--rope-base", "1e5", "--window", "64"]  # fmt: skip
    out, plot = tmp_path / "run.json", tmp_path / "plot.png"
    done = CliRunner().invoke(app, [*arguments, "--lengths", "256,64", "--out", str(out), "--plot", str(plot)])
    assert done.exit_code == 0, done.output
    run = json.loads(out.read_text("utf-8"))
    assert list(run["lengths"]) == ["64", "256"] and run["settings"]["rope_base"] == 1e5
    assert all(size <= 256 for size in run["lengths"]["256"]["tokens"]) and run["lengths"]["256"]["tokens"][0] > 230
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert re.search(r"^64 tokens\t\d of 4$", done.stdout, re.M)
    for wrong, code in (("--names=klingon", 1), ("--lengths=many", 2), ("--rope-local-base=5", 1)):
        assert CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "x.json"), wrong]).exit_code == code


def test_a_killed_run_goes_on_where_it_was(mistral_folder: Path, tmp_path: Path):
    out, cache = tmp_path / "run.json", tmp_path / "c.sqlite"
    arguments = [sys.executable, "-m", "trainer", "passkey", "--model", str(mistral_folder), "--candidates", "12",
                 "--queries", "6", "--lengths", "64,4096", "--cache", str(cache), "--out", str(out)]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    limit = time.monotonic() + 120
    while not out.exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = json.loads(out.read_text("utf-8"))
    assert list(before["lengths"]) == ["64"], "it was done before it could be killed"
    encoder = LocalEncoder.load(mistral_folder, max_length=131_072)
    [_, after] = passkey(encoder, str(mistral_folder), [64, 128], out, PasskeyConfig(12, 6), {
        "rope_base": None, "rope_local_base": None, "window": None})  # fmt: skip
    assert after["lengths"]["64"] == before["lengths"]["64"] and "128" in after["lengths"]
    hay = haystack(128, PasskeyConfig(12, 6), encoder.count_tokens)
    again = correct(encoder.encode_queries(hay.asked, TASK) @ encoder.encode_passages(hay.texts).T, hay.answers)
    assert after["lengths"]["128"]["correct"] == again
