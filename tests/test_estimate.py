"""What a run will take, counted before it starts."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import MistralConfig
from typer.testing import CliRunner

from ragkit.encoder import LocalEncoder
from trainer.cli import app
from trainer.config import RECIPES, TrainConfig
from trainer.data import Source
from trainer.embedder import embed_rows
from trainer.estimate import cost, estimate, meta_model
from trainer.layers import LoraLinear
from trainer.train import build


@pytest.fixture(scope="module")
def seven_billion(mistral_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mistral-7B-v0.1 without its weights: transformers' default configuration is that model's."""
    folder = tmp_path_factory.mktemp("7b")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(mistral_folder / name, folder)
    MistralConfig().save_pretrained(folder)
    return folder


def test_the_paper_trains_41943040_parameters(seven_billion: Path):
    recipe = TrainConfig.read(RECIPES / "paper.yaml", [f"base={seven_billion}"])
    counted = cost(meta_model(recipe), 2)
    assert counted.trainable == 41_943_040
    assert counted.parameters == 7_241_732_096 - 32_000 * 4096  # the language model's head is not loaded
    model = meta_model(recipe)
    kinds = {name.split(".")[-4] for name, p in model.named_parameters() if p.requires_grad}
    assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    lora = model.peft_config["default"]
    assert (lora.r, lora.lora_alpha, lora.lora_dropout, lora.bias) == (16, 32, 0.1, "none")


def test_the_papers_recipe_is_the_papers():
    r = TrainConfig.read(RECIPES / "paper.yaml")
    assert (r.base, r.batch_size, r.hard_negatives, r.epochs) == ("mistralai/Mistral-7B-v0.1", 2048, 1, 1)
    assert (r.learning_rate, r.warmup_steps, r.weight_decay, r.temperature) == (1e-4, 100, 0.1, 0.02)
    assert (r.max_query_tokens, r.max_passage_tokens, r.gradient_checkpointing) == (512, 512, True)
    assert json.loads(Path(r.deepspeed).read_text())["zero_optimization"]["stage"] == 3
    from trainer.public import PUBLIC_SETS

    assert {p for s in r.sources if s.kind == "public" for p in s.path} == set(PUBLIC_SETS)
    assert all(s.in_batch and s.ratio is None for s in r.sources)


@pytest.fixture
def general_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that any device has. A CPU's own keep less, and add in place, which PyTorch counts as no operation."""
    monkeypatch.setattr("trainer.train.lay_out", lambda model, **_: None)
    monkeypatch.setattr(LoraLinear, "_plain", lambda self, x: False)


@pytest.mark.usefixtures("general_layers")
def test_operations_are_those_that_pytorch_counts(mistral_folder: Path):
    """The estimate against PyTorch's own count of a real step, in the ways of recomputing."""
    lengths = [20] * 4 + [12] * 4
    rows = [[1, *range(5, 3 + n), 2] for n in lengths]
    for layers, keep in [(False, 1 << 20), (False, 0), (True, 0)]:
        config = TrainConfig(
            [], base=str(mistral_folder), precision="fp32", chunk_tokens=40, keep_tokens=keep, lora_dropout=0.0,
            gradient_checkpointing=layers,
        )  # fmt: skip
        model, _ = build(config)
        model.train()
        with FlopCounterMode(display=False) as counter:
            embed_rows(model, rows, config.chunk_tokens, config.keep_tokens).sum().backward()
        expected = estimate(config, cost(meta_model(config), 4), [lengths], devices=1, flops=1.0, element=4)
        assert expected.flops == pytest.approx(counter.get_total_flops(), rel=0.1)


@pytest.mark.usefixtures("general_layers")
def test_activations_are_those_that_autograd_saves(mistral_folder: Path):
    config = TrainConfig([], base=str(mistral_folder), precision="fp32", lora_dropout=0.0)
    model = LocalEncoder.load(config.base, dtype=torch.float32, trainable=True)
    saved: dict[int, int] = {}
    kept = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    trained, _ = build(config)
    own = {p.untyped_storage().data_ptr() for p in trained.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(save, lambda t: t):
        trained.base_model(input_ids=torch.ones(1, 64, dtype=torch.long), use_cache=False)
    real = sum(size for where, size in saved.items() if where not in own) / 64
    assert model.dimension and cost(meta_model(config), 4).saved == pytest.approx(real, rel=0.1)


def test_more_devices_take_less_each(seven_billion: Path):
    recipe = TrainConfig.read(RECIPES / "paper.yaml", [f"base={seven_billion}"])
    counted = cost(meta_model(recipe), 2)
    batch = [[128] * 6144]
    one, many = (estimate(recipe, counted, batch, devices=n, flops=1e14, element=2) for n in (1, 32))
    assert one.seconds / 64 < many.seconds <= one.seconds / 32  # a smaller share of the rows is recomputed
    assert many.weights < one.weights / 8


def test_dry_run(mistral_folder: Path, tmp_path: Path):
    (tmp_path / "e.jsonl").write_text(
        "".join(json.dumps({"query": f"ถาม {n}", "positive": f"ตอบ {n}"}) + "\n" for n in range(10)), "utf-8"
    )
    config = TrainConfig([Source("examples", "e.jsonl", "sts")], base=str(mistral_folder), batch_size=4)
    (tmp_path / "r.yaml").write_text(config.yaml(), "utf-8")
    done = CliRunner().invoke(
        app, ["train", str(tmp_path / "r.yaml"), "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--dry-run"]
    )
    assert done.exit_code == 0, done.output
    assert "8 in 2 batches of 4" in done.output and '"would not fill a batch": 2' in done.output
    assert re.search(r"trainable\n.*GB a device", done.output)
    assert (tmp_path / "run" / "plan" / "index.json").exists()  # the run will not draw it again
    assert not (tmp_path / "run" / "model").exists()
