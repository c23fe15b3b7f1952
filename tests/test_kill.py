"""``kill -9`` at random moments of a run, then the same command again: the run that was never killed.

Two kills here, twenty with RAGKIT_PROVE=1 (``make prove``).
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS
from safetensors.torch import load_file

from trainer.checkpoints import is_complete, last_complete, step_of
from trainer.config import TrainConfig
from trainer.data import Source

ROOT = Path(__file__).parent.parent
KILLS = 20 if os.environ.get("RAGKIT_PROVE") else 2
STEPS = 24


@pytest.fixture(scope="module")
def command(mistral_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("data")
    words = [f"{word} {n}" for n in range(30) for word in SCRIPTS.values()]
    lines = [{"query": f"what is {w}", "positive": f"{w} is a thing"} for w in words]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    config = TrainConfig(
        [Source("examples", "pairs.jsonl", "question-answering")],
        base=str(mistral_folder), batch_size=8, max_steps=STEPS, warmup_steps=2, learning_rate=5e-3, save_steps=1,
        lora_dropout=0.2, chunk_tokens=128, precision="fp32",
    )  # fmt: skip
    (folder / "recipe.yaml").write_text(config.yaml(), "utf-8")
    return [sys.executable, str(ROOT / "tests" / "launched.py"), str(folder / "recipe.yaml"), str(folder)]


def start(command: list[str], out: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen([*command, str(out), "adamw_torch"], env=environment, stdout=quiet, stderr=quiet)


@pytest.fixture(scope="module")
def whole(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run that was never killed, and the seconds its steps took."""
    out = tmp_path_factory.mktemp("whole") / "run"
    process = start(command, out)
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    began = time.monotonic()
    assert process.wait(120) == 0
    return out, time.monotonic() - began


@pytest.mark.parametrize("n", range(KILLS))
def test_kill_and_go_on(command: list[str], whole: tuple[Path, float], tmp_path: Path, n: int):
    run, seconds = whole
    out = tmp_path / "run"
    process = start(command, out)
    while not (out / "metrics.jsonl").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(random.Random(n).random() * seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    steps = len((out / "metrics.jsonl").read_bytes().splitlines())
    last = last_complete(out / "checkpoints")
    assert steps - (step_of(last) if last else 0) <= 2  # the last step's checkpoint, and a step after it
    torn = [c for c in (out / "checkpoints").glob("checkpoint-*") if not is_complete(c)]
    print(f"killed after {steps} steps, last checkpoint {last and last.name}, half-written {[c.name for c in torn]}")

    again = start(command, out)
    assert again.wait(120) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines] == [line["loss"] for line in expected]  # same data, same dropout
    a, b = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (run, out))
    for name in a:
        torch.testing.assert_close(b[name], a[name], atol=1e-6, rtol=1e-5)
