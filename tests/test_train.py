"""Training on a tiny Mistral: what is trained is what is served, and a run that was cut off goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import SCRIPTS, write_pairs
from peft import set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import TrainingArguments

from ragkit import TASKS, Task
from ragkit.encoder import LocalEncoder, ModelInfo, plain_ids, tokenize
from ragkit.forward import embed
from ragkit.sparse import well_formed
from trainer import checkpoints
from trainer.config import RECIPES, TrainConfig, recipe_path, same_run
from trainer.data import Source, TrainingExample
from trainer.embedder import deal, deal_alike, embed_rows
from trainer.lock import locked
from trainer.loop import EmbedTrainer, Metrics, Tally, collate, whole_weights
from trainer.loss import distil, info_nce
from trainer.plan import Batch, Plan, batch_texts
from trainer.teacher import Teacher, first_tokens
from trainer.train import _arguments, build, train

WORDS = [f"{word} {n}" for n, word in enumerate([*SCRIPTS.values(), "alpha", "beta", "gamma", "delta", "iota"] * 4)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data"), WORDS)


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
        precision="fp32",  # what is compared here is compared to the fifth digit
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
    assert proof["examples"] == {"pairs.jsonl": 48} and not any(proof["dropped"].values())
    assert (run / "config.yaml").exists() and (run / "model" / "ragkit.json").exists()


def test_lora_is_on_every_linear_layer(run: Path):
    names = {
        name.split(".lora_")[0].rsplit(".", 1)[-1] for name in load_file(run / "model" / "adapter_model.safetensors")
    }
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all(t.any() for n, t in load_file(run / "model" / "adapter_model.safetensors").items() if "lora_B" in n)


def test_a_checkpoint_is_the_adapter_alone(run: Path):
    """Others' LoRA checkpoints came to 27 GB, or without the keys that load (gritlm issue 46)."""
    for folder in (run / "checkpoints").iterdir():
        assert not [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*")]
        saved = load_file(folder / "adapter_model.safetensors")
        assert saved and all("lora_" in name for name in saved)


def test_weight_decay_reaches_the_optimiser(config: TrainConfig, data: Path, tmp_path: Path):
    """It was parsed and dropped in a public re-implementation."""
    train(dataclasses.replace(config, max_steps=2, weight_decay=0.123), data, tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "checkpoint-2" / "optimizer.pt", weights_only=True)
    assert {group["weight_decay"] for group in state["param_groups"] if group["params"]} == {0.123}


def test_training_and_serving_give_the_same_vectors_and_loss(run: Path, config: TrainConfig):
    """The unmerged model in the trainer's own step, against the merged one behind encode_*."""
    from peft import PeftModel

    base = LocalEncoder.load(config.base, dtype=torch.float32, trainable=True)
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
    trainer.chunk_tokens = trainer.keep_tokens = 64
    trainer.shares_prompts, trainer.teacher = True, None
    batch = [TrainingExample(a, b, task.instruction) for a, b in zip(queries, passages, strict=True)]
    trained, _ = build(config)
    set_peft_model_state_dict(trained, load_file(run / "model" / "adapter_model.safetensors"))
    alone = float(info_nce(torch.tensor(q), torch.tensor(p)))
    with torch.no_grad():
        loss = trainer.compute_loss(trained.eval(), {"batch": Batch("s", batch)})
    assert float(loss) == pytest.approx(alone, abs=1e-3)

    trainer.teacher = Teacher(LocalEncoder.load(config.base))  # with temperatures of its own
    knobs = {"teacher_weight": 0.5, "teacher_temperature": 0.03, "taught_temperature": 0.2}
    trainer.config = dataclasses.replace(trainer.config, **knobs)
    with torch.no_grad():
        loss = trainer.compute_loss(trained, {"batch": Batch("s", batch)})
    taught = trainer.teacher.encoder.encode_queries(queries, task) @ trainer.teacher.encoder.encode_passages(passages).T
    beside = distil(
        torch.tensor(q), torch.tensor(p), torch.tensor(taught), temperature=0.2, teacher_temperature=0.03
    )  # fmt: skip
    assert float(loss) == pytest.approx(alone + 0.5 * float(beside), abs=1e-3)


def gradients(
    config: TrainConfig,
    rows: list[list[int]],
    chunk_tokens: int,
    keep_tokens: int,
    alike: list[list[int]] = [],  # noqa: B006
) -> torch.Tensor:
    torch.manual_seed(0)
    model, _ = build(config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.train()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):  # not backward, as in Trainer
        vectors = embed_rows(model, rows, chunk_tokens, keep_tokens, alike)
    loss = info_nce(vectors[:6], vectors[6:], temperature=0.02)
    loss.backward()
    return torch.cat([loss.detach()[None], *(p.grad.flatten() for p in model.parameters() if p.grad is not None)])


@pytest.mark.parametrize("layers", [False, True])
def test_chunks_and_recomputing_change_no_gradient(config: TrainConfig, layers: bool):
    """Chunks of one row, of about three, and of all; kept or recomputed; layer by layer too."""
    config = dataclasses.replace(config, gradient_checkpointing=layers)
    rows = tokenize(LocalEncoder.load(config.base).tokenizer, WORDS[:12], 32).ids
    whole = gradients(config, rows, 1 << 20, 0)
    assert whole[1:].abs().max() > 0
    for chunk_tokens, keep_tokens in [(1, 0), (40, 1 << 20), (40, 60), (40, 0)]:
        other = gradients(config, rows, chunk_tokens, keep_tokens)
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-3)


def test_chunks_are_recomputed_in_mixed_precision(config: TrainConfig):
    """Each chunk casts the adapter's weights for itself: what it recomputes must find the casts of its first time."""
    config = dataclasses.replace(config, precision="bf16")
    rows = tokenize(LocalEncoder.load(config.base).tokenizer, WORDS[:12], 32).ids
    whole = gradients(config, rows, 1 << 20, 0)
    for chunk_tokens, keep_tokens in [(1, 0), (40, 1 << 20), (40, 60)]:
        other = gradients(config, rows, chunk_tokens, keep_tokens)
        assert torch.cosine_similarity(other[1:], whole[1:], dim=0) > 0.99


def test_rows_of_many_lengths_are_recomputed_in_mixed_precision(config: TrainConfig):
    """What a pass keeps for its next layer is gone by the time that its first chunks are recomputed."""
    config = dataclasses.replace(config, precision="bf16")
    rows = [[1, *range(10, 10 + length), 2] for length in (3, 3, *range(4, 14))]
    whole = gradients(config, rows, 1 << 20, 0)
    assert torch.cosine_similarity(gradients(config, rows, 1, 1 << 20)[1:], whole[1:], dim=0) > 0.99


def test_prompts_computed_once_change_no_gradient(config: TrainConfig, monkeypatch: pytest.MonkeyPatch):
    """Six prompts of two tasks and six passages: the same loss and gradient, in chunks and recomputed."""
    monkeypatch.setattr("trainer.embedder.ALIKE", 2)
    prompts = [Task("t", f"Find what {n % 2} says").prompt(word) for n, word in enumerate(WORDS[:6])]
    rows = tokenize(LocalEncoder.load(config.base).tokenizer, [*prompts, *WORDS[6:12]], 48).ids
    alike = [[0, 2, 4], [1, 3, 5]]
    whole = gradients(config, rows, 1 << 20, 0)
    for chunk_tokens, keep_tokens in [(1, 0), (40, 1 << 20), (40, 60), (1 << 20, 0)]:
        other = gradients(config, rows, chunk_tokens, keep_tokens, alike=alike)
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-3)
    for parts, shared in deal_alike(rows, alike, 64, 2):
        found = {tuple(rows[i][:shared]) for part in parts for i in part}
        assert len(found) == 1
        assert (shared > 8) == (parts[0][0] < 6)
    assert {i for parts, _ in deal_alike(rows, alike, 64, 2) for part in parts for i in part} == set(range(12))
    assert next(iter(deal_alike([[1, 2, 3], [1, 2, 3]], [[0, 1]], 64, 1)))[1] == 2  # the last state is the embedding


def test_a_prompt_of_few_rows_gets_no_pass_of_its_own():
    """Where each query has its own instruction, a step of 80 would be 80 passes of one row."""
    rows = [[n, n, 1, 2] for n in range(40)] + [[99, 99, 99, n] for n in range(10)]
    dealt = list(deal_alike(rows, [[n] for n in range(40)] + [list(range(40, 50))], 16 * 25, 1))
    assert [(len(part), shared) for [part], shared in dealt] == [(10, 3), (25, 0), (15, 0)]


def test_recomputing_draws_the_same_dropout(config: TrainConfig):
    """With dropout, a chunk must drop the same neurons when it is recomputed: kept and recomputed are equal
    to the last bit, chunk for chunk."""
    config = dataclasses.replace(config, lora_dropout=0.3)
    rows = tokenize(LocalEncoder.load(config.base).tokenizer, WORDS[:12], 32).ids
    for chunk_tokens in (1, 40, 1 << 20):
        kept = gradients(config, rows, chunk_tokens, 1 << 20)
        assert torch.equal(kept, gradients(config, rows, chunk_tokens, 0))
    assert not torch.equal(kept, gradients(dataclasses.replace(config, lora_dropout=0.0), rows, 1 << 20, 0))


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
@pytest.mark.parametrize("chunk_tokens", [1, 64, 1000, 1 << 20])
def test_rows_are_dealt_evenly(devices: int, chunk_tokens: int):
    lengths = [3 + 7 * n % 61 for n in range(50)]
    chunks = list(deal(lengths, chunk_tokens, devices))
    assert {i for parts in chunks for part in parts for i in part} == set(range(50))
    for parts in chunks:
        assert len(parts) == devices and len({len(part) for part in parts}) == 1
        for part in parts:
            assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= chunk_tokens
    repeated = sum(len(part) for parts in chunks for part in parts) - 50
    assert repeated < devices * max(1, sum(len(parts[0]) == 1 for parts in chunks)) if devices > 1 else repeated == 0


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(
    config: TrainConfig, data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finish = Metrics.on_step_end

    def die(self: Metrics, args: object, state: object, control: object, **kwargs: object) -> None:
        finish(self, args, state, control, **kwargs)
        if state.global_step == 5:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "on_step_end", die)
    with pytest.raises(KeyboardInterrupt):
        train(config, data, tmp_path)
    monkeypatch.setattr(Metrics, "on_step_end", finish)
    train(config, data, tmp_path)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]  # from the checkpoint of step 4: its step 5 replaces the one that was lost
    whole, resumed = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (run, tmp_path))
    for name in whole:
        torch.testing.assert_close(resumed[name], whole[name])


def test_a_run_goes_on_from_an_adapter(config: TrainConfig, run: Path):
    start = run / "model"
    model, encoder = build(dataclasses.replace(config, start=str(start)))
    rows = tokenize(encoder.tokenizer, WORDS, 32).ids
    with torch.no_grad():
        found = embed(model.base_model, rows).numpy()
    served = LocalEncoder.load(start, dtype=torch.float32)
    np.testing.assert_allclose(found, served.encode_rows(rows), atol=1e-5)
    assert any(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="an adapter with r 16, not 8"):
        build(dataclasses.replace(config, start=str(start), lora_rank=8))
    with pytest.raises(ValueError, match="no adapter"):
        build(dataclasses.replace(config, start=config.base))


def test_an_adapter_is_no_base(config: TrainConfig, data: Path, tmp_path: Path):
    """Its merged weights were trained on, and the model that came of it named a base that it did not fit."""
    (tmp_path / "ተማሪ").mkdir()
    (tmp_path / "ተማሪ" / "adapter_config.json").write_text("{}")
    for base in ("mini", str(tmp_path / "ተማሪ")):
        with pytest.raises(ValueError, match=f"base is '{base}', which is an adapter: set start to it"):
            train(dataclasses.replace(config, base=base), data, tmp_path / "run")
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_a_half_written_checkpoint_is_not_taken(config: TrainConfig, data: Path, run: Path, tmp_path: Path):
    """Three ways to be cut off while writing, each at the newest checkpoint: the one before is taken."""
    whole = load_file(run / "model" / "adapter_model.safetensors")
    for n, harm in enumerate(
        [
            lambda c: (c / checkpoints.MANIFEST).unlink(),
            lambda c: (c / "optimizer.pt").write_bytes((c / "optimizer.pt").read_bytes()[:100]),
            lambda c: (c / "rng_state.pth").unlink(),
        ]
    ):
        cut = tmp_path / str(n)
        shutil.copytree(run, cut)
        shutil.rmtree(cut / "model")
        newest = cut / "checkpoints" / "checkpoint-6"
        harm(newest)
        with (cut / "metrics.jsonl").open("a") as file:
            file.write('{"step": 7, "lo')
        assert checkpoints.last_complete(cut / "checkpoints") == cut / "checkpoints" / "checkpoint-4"
        train(config, data, cut)
        steps = [json.loads(line)["step"] for line in (cut / "metrics.jsonl").read_text().splitlines()]
        assert steps == [1, 2, 3, 4, 5, 6]
        again = load_file(cut / "model" / "adapter_model.safetensors")
        for name in whole:
            torch.testing.assert_close(again[name], whole[name])
        assert checkpoints.is_complete(newest)


def test_a_run_killed_before_a_checkpoint_is_sealed_has_the_one_before(
    config: TrainConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    seal = checkpoints.seal

    def die(folder: Path) -> None:
        if folder.name == "checkpoint-4":
            raise KeyboardInterrupt
        seal(folder)

    monkeypatch.setattr(checkpoints, "seal", die)
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, keep_checkpoints=1), data, tmp_path)
    assert checkpoints.last_complete(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "checkpoint-2"


def test_a_finished_run_keeps_the_threshold_that_was_written_into_its_model(
    config: TrainConfig, data: Path, run: Path, tmp_path: Path
):
    again = shutil.copytree(run, tmp_path / "again")
    info = again / "model" / "ragkit.json"
    told = json.loads(info.read_text("utf-8")) | {"answer_threshold": 0.61}
    info.write_text(json.dumps(told), "utf-8")
    (again / "model" / checkpoints.WEIGHTS).unlink()  # the run was cut off before its end
    train(config, data, again, report_to=())
    assert json.loads(info.read_text("utf-8")) == told and (again / "model" / checkpoints.WEIGHTS).exists()


def test_a_model_reads_as_much_as_it_was_trained_on(config: TrainConfig, data: Path, tmp_path: Path):
    long = dataclasses.replace(config, max_passage_tokens=600, max_steps=1)
    model = train(long, data, tmp_path / "long", report_to=())
    assert ModelInfo.read(model).max_length == 600
    successor = dataclasses.replace(config, start=str(model), max_steps=1, seed=2)
    assert ModelInfo.read(train(successor, data, tmp_path / "next", report_to=())).max_length == 600


def test_no_batch_of_several_is_dropped():
    with pytest.raises(ValueError, match="too many values"):
        collate([None, None])  # type: ignore[list-item]


def test_one_gpu_of_several_is_used(config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class OnFour(TrainingArguments):
        def __post_init__(self) -> None:
            super().__post_init__()
            self._n_gpu = 4

    monkeypatch.setattr("trainer.train.TrainingArguments", OnFour)
    assert _arguments(config, tmp_path, ()).train_batch_size == 1  # Trainer's: one batch of ours a step


def test_a_teacher_s_weights_are_not_dealt_out():
    from transformers.integrations import deepspeed

    class Zero:
        def is_zero3(self) -> bool:
            return True

    zero = Zero()
    deepspeed.set_hf_deepspeed_config(zero)
    try:
        with whole_weights(SimpleNamespace(hf_deepspeed_config=zero)):
            assert not deepspeed.is_deepspeed_zero3_enabled()
        assert deepspeed.is_deepspeed_zero3_enabled()
    finally:
        deepspeed.unset_hf_deepspeed_config()


def test_checkpoints_average(run: Path, tmp_path: Path):
    folders = [run / "checkpoints" / f"checkpoint-{n}" for n in (4, 6)]
    out = checkpoints.average(folders, tmp_path / "mean")
    a, b, mean = (load_file(f / "adapter_model.safetensors") for f in (*folders, out))
    for name in mean:
        torch.testing.assert_close(mean[name], (a[name] + b[name]) / 2)
    assert LocalEncoder.load(out).encode_passages(["x"]).shape == (1, 64)
    with pytest.raises(ValueError, match="name at least two"):
        checkpoints.average(folders[:1], tmp_path / "one")
    other = shutil.copytree(folders[0], tmp_path / "other")
    settings = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 99}))
    with pytest.raises(ValueError, match=r"'lora_alpha': 99.*average those of one run"):
        checkpoints.average([folders[1], other], tmp_path / "none")
    (other / "adapter_config.json").write_text(json.dumps(settings))
    ModelInfo(base="another", max_length=64).write(other)
    with pytest.raises(ValueError, match=r"'base': 'another'.*average those of one run"):
        checkpoints.average([folders[1], other], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_mean_has_no_threshold_before_it_is_measured(run: Path, tmp_path: Path):
    measured = shutil.copytree(run / "model", tmp_path / "measured")
    dataclasses.replace(ModelInfo.read(measured), answer_threshold=0.7).write(measured)
    out = checkpoints.average([measured, run / "model"], tmp_path / "mean")
    assert ModelInfo.read(out) == ModelInfo.read(run / "model")


def test_out_of_memory_halves_the_chunk(
    config: TrainConfig, data: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A device with room for 100 tokens: the run ends like one that always had small chunks."""
    from trainer import embedder

    whole, sizes = embedder.embed, []

    def small(model: object, rows: list[list[int]], shared: int = 0, multiple: int = 1) -> torch.Tensor:
        size = len(rows) * (max(map(len, rows)) - shared)
        if size > 100:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(size)
        return whole(model, rows, shared=shared, multiple=multiple)  # type: ignore[arg-type]

    monkeypatch.setattr(embedder, "embed", small)
    train(dataclasses.replace(config, chunk_tokens=350, keep_tokens=100_000), data, tmp_path)
    assert max(sizes) > 64  # halved twice, to 87, and not again; before that, nothing was kept
    a, b = (load_file(folder / "model" / "adapter_model.safetensors") for folder in (run, tmp_path))
    for name in a:
        torch.testing.assert_close(b[name], a[name], atol=2e-4, rtol=1e-3)  # other chunks round otherwise
    monkeypatch.setattr(embedder, "embed", lambda *_, **__: small(None, [[0] * 101]))
    with pytest.raises(MemoryError, match="set keep_tokens: 0, then a smaller chunk_tokens"):
        train(config, data, tmp_path / "none")


def test_a_run_says_when_it_fails(config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    stand_in = SimpleNamespace(config=dataclasses.replace(config, batch_size=100))
    metrics = Metrics(tmp_path / "m.jsonl", stand_in)  # type: ignore[arg-type]
    for step in range(1, 40):
        metrics._watch({"accuracy": 0.01, "embedding_std": 0.5}, step, warmup=10)
    assert [r.message[:40] for r in caplog.records] == ["step 30: in-batch accuracy 0.010 over 20"]
    caplog.clear()
    resumed = Metrics(tmp_path / "m.jsonl", stand_in)  # type: ignore[arg-type]
    for step in range(100, 150):
        resumed._watch({"accuracy": 0.03, "embedding_std": 0.5}, step, warmup=10)
    assert not caplog.records  # the mean of one step and nineteen nothings would be 0.0015
    metrics._watch({"accuracy": 0.9, "embedding_std": 0.01}, 41, warmup=10)
    assert "collapsed to a point" in caplog.text


def test_a_word_where_much_of_the_texts_is_never_read(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """mini's first runs cut most of their passages, and only a number in metrics.jsonl told so."""
    knobs = SimpleNamespace(max_query_tokens=96, max_passage_tokens=128)
    metrics = Metrics(tmp_path / "m.jsonl", SimpleNamespace(config=knobs))  # type: ignore[arg-type]
    for _ in range(40):
        metrics._count(Tally(texts=160, truncated=60))
    assert caplog.text.count("38 % of the texts of 20 steps") == 1 and "max_passage_tokens 128" in caplog.text
    caplog.clear()
    metrics = Metrics(tmp_path / "m.jsonl", SimpleNamespace(config=knobs))  # type: ignore[arg-type]
    for _ in range(40):
        metrics._count(Tally(texts=160, truncated=30))
    assert not caplog.text


def test_a_loss_that_is_no_number_ends_the_run(
    config: TrainConfig, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from trainer import loop

    monkeypatch.setattr(loop, "matryoshka", lambda q, p, *args, **kwargs: q.sum() * float("nan"))
    with pytest.raises(FloatingPointError, match="the loss of step 1 is nan"):
        train(config, data, tmp_path)


def test_the_model_is_scored_as_it_trains(config: TrainConfig, data: Path, tmp_path: Path):
    folder = data / "dev" / "toy" / "am"
    folder.mkdir(parents=True)
    passages = [{"_id": f"p{n}", "title": "", "text": f"{w} is a thing"} for n, w in enumerate(WORDS[:20])]
    queries = [{"_id": f"q{n}", "text": f"what is {w}"} for n, w in enumerate(WORDS[:20])]
    for name, records in (("corpus", passages), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\tp{n}\t1\n" for n in range(20)))
    scored = dataclasses.replace(config, eval_data="dev", eval_steps=3, eval_queries=10, eval_passages=20)
    train(scored, data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "eval_ndcg@10" in line] == [3, 6]

    from trainer.evaluate import evaluate, mean_over_sets, read_sets

    [toy] = read_sets(data / "dev")
    served = LocalEncoder.load(tmp_path / "model", dtype=torch.float32)
    result = mean_over_sets(evaluate([toy.sample(10, 20)], served, TASKS["question-answering"]))
    assert lines[-1]["eval_ndcg@10"] == pytest.approx(result["ndcg@10"], abs=1e-3)


def test_matryoshka_and_masks_reach_the_loss(config: TrainConfig, data: Path, run: Path, tmp_path: Path):
    first = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["loss"]
    for n, knob in enumerate(
        [{"matryoshka": [16]}, {"false_negative_margin": 0.0}, {"hardness": 5.0}, {"temperature": 1.0}]
    ):
        train(dataclasses.replace(config, max_steps=1, **knob), data, tmp_path / str(n))
        other = json.loads((tmp_path / str(n) / "metrics.jsonl").read_text())["loss"]
        assert abs(other - first) > 0.01, knob


def test_a_teacher_is_heard_and_remembered(config: TrainConfig, data: Path, run: Path, tmp_path: Path):
    taught = dataclasses.replace(config, teacher=str(config.base), teacher_weight=0.5, max_steps=3)
    train(taught, data, tmp_path)
    alone, both = (
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()][:3]
        for folder in (run, tmp_path)
    )
    assert all(b > a + 0.1 for a, b in zip(alone, both, strict=True))
    assert (tmp_path / "teacher-0.sqlite").exists()
    encoder = LocalEncoder.load(config.base)
    cut = partial(first_tokens, encoder.tokenizer, count=config.max_passage_tokens - 2)
    teacher = Teacher.open(config.base, tmp_path / "teacher-0.sqlite", cut)
    teacher.encoder.inner = None  # type: ignore[attr-defined]  # what it said is kept: it is not asked again
    batch = next(iter(Plan(tmp_path / "plan")))
    texts = batch_texts(batch)
    cosines = teacher.cosines(batch, texts)
    assert cut(texts.passages) != texts.passages
    expected = encoder.encode_passages(texts.queries) @ encoder.encode_passages(cut(texts.passages)).T
    np.testing.assert_allclose(cosines.numpy(), expected, atol=1e-5)


def test_how_a_run_is_computed_may_change_on_the_way(config: TrainConfig, data: Path, run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "model")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "checkpoint-6")
    train(dataclasses.replace(config, chunk_tokens=1000, keep_tokens=500, save_steps=1), data, tmp_path / "run")
    assert "chunk_tokens: 1000" in (tmp_path / "run" / "config.yaml").read_text()
    kept = {folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {"checkpoint-5", "checkpoint-6"}  # saved at every step from the fourth on


def test_a_recipe_can_be_overridden(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("batch_size: 8\nsources: []\ndeepspeed: zero3.json\n")
    config = TrainConfig.read(tmp_path / "r.yaml", ["batch_size=128", "matryoshka=[256, 128]", "learning_rate=2e-4"])
    assert (config.batch_size, config.matryoshka, config.learning_rate) == (128, [256, 128], 2e-4)
    assert Path(config.deepspeed).name == "zero3.json" and Path(config.deepspeed).exists()
    assert TrainConfig.read(tmp_path / "r.yaml", ["deepspeed="]).deepspeed == ""
    for bad, message in [
        ("batch_size", "write key=value"),
        ("batch_size=0", "batch_size is 0: it must be above 0"),
        ("precision=half", "use auto, bf16, fp16 or fp32"),
        ("deepspeed=zero9.json", "which is not beside it"),
    ]:
        with pytest.raises(ValueError, match=message):
            TrainConfig.read(tmp_path / "r.yaml", [bad])


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("", "is no recipe: write lines of `key: value`"),
        ("just words", "is no recipe"),
        ("a: [", "r.yaml: not YAML"),
        ("batch_size: 8", "sources of .*r.yaml is None: write a list"),
        ("sources: {kind: qa, path: x}", "write a list of {kind"),
        ("sources: [{kind: qa, path: x}, {kind: qa, path: x, instuction: y}]", "source 2 of .* sets instuction, which"),
        ("sources: [{kind: qa}]", "source 1 of .* does not set path"),
        ("sources: [{kind: qa, path: x, ratio: much}]", "sets ratio to 'much': it must be float | None"),
        ("{sources: [], learning_rate: high}", "r.yaml sets learning_rate to 'high': it must be float"),
        ("{sources: [], batch_size: 8.5}", "sets batch_size to 8.5: it must be int"),
        ("{sources: [], eval_task: qa}", "eval_task is 'qa': use one of web-search, question-answering"),
        ("{sources: [], max_steps: 0}", "max_steps is 0: it must be above 0, or -1"),
        ("{sources: [], max_steps: -2}", "max_steps is -2"),
    ],
)
def test_mistakes_in_a_recipe_are_told(tmp_path: Path, recipe: str, message: str):
    (tmp_path / "r.yaml").write_text(recipe, "utf-8")
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        TrainConfig.read(tmp_path / "r.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini").mkdir()
    assert recipe_path("mini") == RECIPES / "mini.yaml"
    with pytest.raises(FileNotFoundError, match=r"my.yaml is neither a file nor a recipe that ships: those are mini"):
        recipe_path("my.yaml")


def test_a_run_goes_on_where_a_knob_has_come_since():
    config = TrainConfig([Source("qa", "qa.jsonl", "web-search")])
    saved = yaml.safe_load(config.yaml())
    del saved["hardness"], saved["sources"][0]["by_page"]
    older = yaml.safe_dump(saved)
    assert same_run(older, config.yaml()) == []
    assert same_run(older, dataclasses.replace(config, hardness=1.0, keep_tokens=5).yaml()) == ["hardness"]
    by_page = dataclasses.replace(config, sources=[dataclasses.replace(config.sources[0], by_page=True)])
    assert same_run(older, by_page.yaml()) == ["sources"]


def test_a_run_folder_belongs_to_one_configuration(config: TrainConfig, data: Path, run: Path):
    with pytest.raises(ValueError, match="another configuration"):
        train(dataclasses.replace(config, seed=2), data, run)


def test_a_run_that_cannot_begin_leaves_its_folder_to_the_next(config: TrainConfig, data: Path, tmp_path: Path):
    for wrong in ({"batch_size": 1000}, {"eval_data": "gone", "eval_steps": 1}, {"start": config.base}):
        with pytest.raises(ValueError, match=r"no source fills|no SET/LANG|no adapter"):
            train(dataclasses.replace(config, **wrong), data, tmp_path)
        assert not (tmp_path / "config.yaml").exists()


def test_a_run_folder_is_one_run_s_at_a_time(config: TrainConfig, data: Path, tmp_path: Path):
    """The second would sweep away the checkpoint that the first is writing."""
    half = tmp_path / "ሩጫ" / "checkpoints" / "checkpoint-2"
    half.mkdir(parents=True)
    with locked(tmp_path / "ሩጫ"), pytest.raises(ValueError, match=r"another run writes to .*ሩጫ: wait for it, or give"):
        train(config, data, tmp_path / "ሩጫ")
    assert half.exists()
    code = "import sys, os; from pathlib import Path; from trainer.lock import locked\n"
    code += "with locked(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "ሩጫ")]).returncode == -9
    with locked(tmp_path / "ሩጫ"):  # what a killed process held is free
        pass


def test_unknown_knobs_are_named(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("learningrate: 1\nsources: []\n")
    with pytest.raises(ValueError, match="sets learningrate, which is not known: use sources"):
        TrainConfig.read(tmp_path / "r.yaml")


def test_the_prompt_is_the_tasks():
    """Training formats nothing itself: a source's instruction becomes a Task, and that one the prompt."""
    [prompt] = batch_texts(Batch("s", [TrainingExample("q", "p", "Do this")])).queries
    assert prompt == Task("x", "Do this").prompt("q")


@pytest.mark.parametrize(
    "text", ["The ferry leaves at nine.", "フェリーは九時に出ます。", "ጀልባው በዘጠኝ ሰዓት ይወጣል", "🚢" * 9, "", "</s> \ud800"]
)
def test_a_teacher_reads_of_a_passage_what_the_student_reads(text: str, mistral_folder: Path):
    tokenizer = LocalEncoder.load(mistral_folder, device="cpu").tokenizer
    ids = plain_ids(tokenizer, [text])[0]
    for count in (1, 3, 1000):
        [cut] = first_tokens(tokenizer, [text], count)
        assert well_formed(text).startswith(cut)
        assert plain_ids(tokenizer, [cut])[0][:count] == ids[:count]  # the same beginning
        assert len(cut) <= len(text) and (count < len(ids) or cut == well_formed(text))
    assert first_tokens(SimpleNamespace(is_fast=False), [text], 1) == [text]


def test_where_a_deepspeed_file_lies_makes_no_other_run(tmp_path: Path):
    """A run begun by its recipe's path goes on under its name, or in a container."""
    here, there = (
        TrainConfig([], deepspeed=f"{folder}/zero3.json").yaml() for folder in ("trainer/recipes", "/app/recipes")
    )
    assert same_run(here, there) == []
    assert same_run(here, TrainConfig([], deepspeed="/app/recipes/zero2.json").yaml()) == ["deepspeed"]


def test_two_runs_of_a_process_log_into_their_own_folders(config: TrainConfig, data: Path, tmp_path: Path):
    for name in ("one", "two"):
        train(dataclasses.replace(config, max_steps=1), data, tmp_path / name)
        assert list((tmp_path / name / "logs").iterdir())
    assert "TENSORBOARD_LOGGING_DIR" not in os.environ


@pytest.mark.parametrize(
    ("knobs", "message"), [({"eval_queries": -1}, "0 is all"), ({"eval_task": "sts"}, "both sides")]
)
def test_an_evaluation_that_cannot_be_stops_no_run_in_the_middle(knobs: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        TrainConfig([], **knobs)
