"""Training on a tiny Mistral: what is trained is what is served, and a run that was cut off goes on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from safetensors.torch import load_file

from ragkit import TASKS, Task
from ragkit.encoder import LocalEncoder, embed, tokenize
from trainer.data import Source, TrainingExample
from trainer.loss import info_nce
from trainer.train import EmbedTrainer, MetricsFile, Tally, TrainConfig, build, embed_chunked, train

WORDS = [f"{word} {n}" for n, word in enumerate([*SCRIPTS.values(), "alpha", "beta", "gamma", "delta", "iota"] * 4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = [{"query": f"what is {w}", "positive": f"{w} is a thing", "negatives": [f"{w} was"]} for w in WORDS]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


@pytest.fixture(scope="module")
def config(mistral_folder: Path) -> TrainConfig:
    return TrainConfig(
        sources=[Source("examples", "pairs.jsonl", "question-answering")],
        base=str(mistral_folder),
        batch_size=8,
        max_query_tokens=48,
        max_passage_tokens=32,
        learning_rate=5e-3,
        warmup_steps=1,
        lora_dropout=0.0,
        save_steps=2,
        chunk_tokens=64,
    )


@pytest.fixture(scope="module")
def run(config: TrainConfig, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    train(config, data, out)
    return out


def test_a_run_learns_and_keeps_its_proof(run: Path):
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 2, 3, 4, 5, 6]
    assert metrics[-1]["loss"] < metrics[0]["loss"]
    assert set(metrics[0]) >= {"loss", "accuracy", "embedding_std", "tokens_per_second", "truncated"}
    proof = json.loads((run / "run.json").read_text())
    assert proof["examples"] == {"pairs.jsonl": 48} and proof["dropped"] == {
        "beyond the ratio": 0,
        "would not fill a batch": 0,
    }
    assert (run / "config.yaml").exists() and (run / "model" / "ragkit.json").exists()


def test_lora_is_on_every_linear_layer(run: Path):
    names = {
        name.split(".lora_")[0].rsplit(".", 1)[-1] for name in load_file(run / "model" / "adapter_model.safetensors")
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(t.any() for n, t in load_file(run / "model" / "adapter_model.safetensors").items() if "lora_B" in n)


def test_training_and_serving_give_the_same_vectors_and_loss(run: Path, config: TrainConfig):
    """The unmerged model in the trainer's own step, against the merged one behind encode_*."""
    from peft import PeftModel

    base = LocalEncoder.load(config.base, dtype=torch.float32)
    model = PeftModel.from_pretrained(base.model, str(run / "model")).eval()
    served = LocalEncoder.load(run / "model", dtype=torch.float32)
    task = TASKS["question-answering"]
    queries, passages = list(SCRIPTS.values()), [f"{w} </s> is" for w in SCRIPTS.values()]
    with torch.no_grad():
        q = embed(model, tokenize(base.tokenizer, [task.prompt(t) for t in queries], 512).ids).numpy()
        p = embed(model, tokenize(base.tokenizer, passages, 512).ids).numpy()
    np.testing.assert_allclose(served.encode_queries(queries, task), q, atol=1e-5)
    np.testing.assert_allclose(served.encode_passages(passages), p, atol=1e-5)

    trainer = object.__new__(EmbedTrainer)  # the step alone, without Trainer's set-up
    trainer.config = dataclasses.replace(config, max_query_tokens=512, max_passage_tokens=512)
    trainer.tokenizer, trainer.tally = base.tokenizer, Tally()
    batch = [TrainingExample(a, b, task.instruction) for a, b in zip(queries, passages, strict=True)]
    with torch.no_grad():
        loss = trainer.compute_loss(model, {"batch": batch})
    assert float(loss) == pytest.approx(float(info_nce(torch.tensor(q), torch.tensor(p))), abs=1e-3)


def test_chunks_and_recomputing_change_no_gradient(config: TrainConfig):
    rows = tokenize(LocalEncoder.load(config.base).tokenizer, WORDS[:12], 32).ids
    gradients = []
    for chunk_tokens, keep_tokens in [(1 << 20, 1 << 20), (40, 1 << 20), (40, 60), (40, 0)]:
        torch.manual_seed(0)
        model, _ = build(config)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        vectors = embed_chunked(model, rows, chunk_tokens, keep_tokens)
        info_nce(vectors[:6], vectors[6:]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert gradients[0].abs().max() > 0
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], atol=1e-5, rtol=1e-3)


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(
    config: TrainConfig, data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finish = MetricsFile.on_step_end

    def die(self: MetricsFile, args: object, state: object, control: object, **kwargs: object) -> None:
        finish(self, args, state, control, **kwargs)
        if state.global_step == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(MetricsFile, "on_step_end", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path)
    monkeypatch.setattr(MetricsFile, "on_step_end", finish)
    train(config, data, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 5, 6]  # from the checkpoint of step 4
    whole, resumed = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (run, tmp_path))
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name])


def test_a_run_folder_belongs_to_one_configuration(config: TrainConfig, data: Path, run: Path):
    with pytest.raises(ValueError, match="another configuration"):
        train(dataclasses.replace(config, seed=2), data, run)


def test_unknown_knobs_are_named(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("learningrate: 1\nsources: []\n")
    with pytest.raises(ValueError, match="sets learningrate, which trainer train does not know"):
        TrainConfig.read(tmp_path / "r.yaml")


def test_the_prompt_is_the_tasks():
    """Training formats nothing itself: a source's instruction becomes a Task, and that one the prompt."""
    from trainer.data import batch_texts

    [prompt] = batch_texts([TrainingExample("q", "p", "Do this")]).queries
    assert prompt == Task("x", "Do this").prompt("q")
