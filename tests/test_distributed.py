"""Two processes on one machine (gloo) train what one process trains, and go on from where they were cut off:
DDP, ZeRO-3 and FSDP2."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import SCRIPTS, write_pairs
from safetensors.torch import load_file

from trainer.config import TrainConfig
from trainer.data import Source

ROOT = Path(__file__).parent.parent
WORDS = [f"{word} {n}" for n, word in enumerate([*SCRIPTS.values(), "alpha", "beta", "gamma"] * 5)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data"), WORDS)


@pytest.fixture(scope="module")
def config(mistral_folder: Path) -> TrainConfig:
    return TrainConfig(
        sources=[Source("examples", "pairs.jsonl", "question-answering")],
        base=str(mistral_folder),
        batch_size=9,  # 27 rows: not even
        max_query_tokens=48,
        max_passage_tokens=32,
        learning_rate=1e-2,
        warmup_steps=1,
        weight_decay=0.0,
        max_grad_norm=1e9,
        lora_dropout=0.0,
        save_steps=2,
        chunk_tokens=64,
        keep_tokens=100,
        keep_checkpoints=3,
        precision="fp32",
    )


def launch(
    config: TrainConfig, data: Path, out: Path, *launcher: str, optimiser: str = "sgd", **variables: str
) -> Path:
    recipe = out.parent / f"{out.name}.yaml"
    recipe.write_text(config.yaml(), "utf-8")
    command = [
        sys.executable,
        *launcher,
        str(ROOT / "tests" / "launched.py"),
        str(recipe),
        str(data),
        str(out),
        optimiser,
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"} | variables
    # The first run under ZeRO-3 compiles DeepSpeed's shared-memory transport: minutes where the machine is busy.
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr[-20_000:]  # what the first to fail said stands far up
    return out


TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


@pytest.fixture(scope="module")
def alone(config: TrainConfig, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launch(config, data, tmp_path_factory.mktemp("one") / "run")


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(one: Path, other: Path, distributed: str) -> None:
    proof = json.loads((other / "run.json").read_text())
    assert (proof["devices"], proof["distributed"]) == (2, distributed)
    assert proof["trainable_parameters"] == json.loads((one / "run.json").read_text())["trainable_parameters"] > 0
    assert len(losses(one)) == 5
    assert losses(other) == pytest.approx(losses(one), abs=2e-4)
    a, b = (load_file(run / "model" / "adapter_model.safetensors") for run in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(b[name], a[name], atol=1e-5, rtol=1e-3)
    assert all(t.any() for n, t in b.items() if "lora_B" in n)  # ZeRO-3 once left them all zero, in other hands


FSDP2 = {  # what `accelerate launch --use_fsdp --fsdp_version 2` sets
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "MistralDecoderLayer",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
}
ZERO3 = {"deepspeed": str(ROOT / "trainer" / "recipes" / "zero3.json")}
WAYS = {  # knobs of the recipe, variables of the launch, what accelerate calls it
    "ddp": ({}, {}, "MULTI_CPU"),
    "zero3": (ZERO3, {"SHARDED": "1"}, "DEEPSPEED"),
    "fsdp2": ({}, {"SHARDED": "1"} | FSDP2, "FSDP"),
}


PROVE = bool(os.environ.get("RAGKIT_PROVE"))  # else without ZeRO-3, whose first launch compiles for minutes


@pytest.mark.parametrize("way", WAYS if PROVE else ["ddp", "fsdp2"])
def test_two_processes_train_what_one_does(way: str, config: TrainConfig, data: Path, alone: Path, tmp_path: Path):
    knobs, variables, name = WAYS[way]
    config = dataclasses.replace(config, **knobs)
    assert_same_run(alone, launch(config, data, tmp_path / "run", *TWO, **variables), name)


@pytest.mark.parametrize("way", WAYS if PROVE else ["ddp"])
def test_a_run_cut_off_goes_on(way: str, config: TrainConfig, data: Path, tmp_path: Path):
    """With Adam and dropout, so that the optimiser's state and the random numbers must come back too."""
    knobs, variables, _ = WAYS[way]
    config = dataclasses.replace(config, lora_dropout=0.2, **knobs)
    whole = launch(config, data, tmp_path / "run", *TWO, optimiser="adamw_torch", **variables)
    shutil.copytree(whole, tmp_path / "cut")
    cut = tmp_path / "cut"
    for later in ("model", "checkpoints/checkpoint-4", "checkpoints/checkpoint-5"):
        shutil.rmtree(cut / later)
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["checkpoint-2"]
    launch(config, data, cut, *TWO, optimiser="adamw_torch", **variables)
    assert losses(cut) == losses(whole)
    a, b = (load_file(run / "model" / "adapter_model.safetensors") for run in (whole, cut))
    assert all(torch.equal(a[name], b[name]) for name in a)
