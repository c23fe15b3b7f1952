"""Training: ours beside sentence-transformers' trainer, and memory against the size of the batch.

    python benchmarks/training.py speed  [--batch 64] [--steps 3] [--data FILE.jsonl] [--precision bf16]
    python benchmarks/training.py memory [--batches 64 256 1024]

``speed`` trains the same LoRA on the same weights (``mini-base``), texts, batch and dtype; each trainer runs
in a process of its own, in turn, and the first step, which warms up, is not counted. The peer is
CachedMultipleNegativesRankingLoss (GradCache), by default (mini-batches of 32) and with mini-batches of
as many tokens as our chunks. Tokens are the real ones, pads left out, the same for both. ``memory`` takes one
step at each size of batch in chunks of 16 rows. Prints a markdown table; nothing is kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ragkit.task import TASKS
from trainer.memory import hold_kernels, hold_memory, peak_memory_gb

TASK = TASKS["question-answering"]
CHUNK_TOKENS = 1024
LORA: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}


def made_up(count: int, words: int) -> list[dict[str, str]]:
    """Pairs of random words: what they say does not matter to speed."""
    rng = random.Random(0)
    vocabulary = ["harbour", "river", "lamp", "bridge", "market", "school", "doctor", "bread", "letter", "window"]

    def text(n: int) -> str:
        return " ".join(rng.choice(vocabulary) for _ in range(n))

    return [
        {"query": f"{n} {text(words // 4)}", "positive": f"{n} {text(rng.randint(words // 3, words))}"}
        for n in range(count)
    ]


def read(file: Path, count: int) -> list[dict[str, str]]:
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    return [{"query": r["query"], "positive": r.get("positive") or r["pos"]} for r in rows[:count]]


def ours(
    pairs: list[dict[str, str]], batch: int, precision: str, keep_tokens: int, compile: bool = False
) -> dict[str, float]:
    from trainer.config import TrainConfig
    from trainer.data import Source
    from trainer.train import train

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs), "utf-8")
        config = TrainConfig(
            [Source("examples", "pairs.jsonl", TASK.name)],
            batch_size=batch, warmup_steps=1, lora_dropout=0.0, precision=precision, save_steps=1000,
            max_query_tokens=256, max_passage_tokens=256, chunk_tokens=CHUNK_TOKENS, keep_tokens=keep_tokens,
            compile=compile,
        )  # fmt: skip
        out = Path(folder) / "run"
        train(config, Path(folder), out, report_to=[])
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][1:]
    tokens = sum(line["tokens"] for line in lines)
    return {
        "tokens_per_second": tokens / sum(line["tokens"] / line["tokens_per_second"] for line in lines),
        "tokens": tokens,
    }


def theirs(pairs: list[dict[str, str]], batch: int, precision: str, mini_batch_tokens: int | None) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import TrainerCallback

    from ragkit.encoder import base_source

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    transformer = Transformer(base_source("mini-base"), max_seq_length=256, model_kwargs={"dtype": dtype})
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    model = SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu")
    model.add_adapter(LoraConfig(**LORA, task_type="FEATURE_EXTRACTION"))
    loss = losses.CachedMultipleNegativesRankingLoss(model, scale=50.0, mini_batch_num_tokens=mini_batch_tokens)
    prompted = [{"query": TASK.prompt(p["query"]), "positive": p["positive"]} for p in pairs]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            marks.append(time.monotonic())

    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, num_train_epochs=1, learning_rate=1e-4,
            warmup_steps=1, weight_decay=0.1, report_to="none", save_strategy="no", logging_strategy="no", use_cpu=True,
            bf16=precision == "bf16",
            train_sampling_strategy="sequential",
        )  # fmt: skip
        trainer = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(prompted), loss=loss, callbacks=[Clock()]
        )
        trainer.train()
    texts = [text for p in prompted[batch:] for text in p.values()]
    tokenizer: Any = transformer.tokenizer
    tokens = sum(min(256, len(row)) for row in tokenizer(texts)["input_ids"])
    return {"tokens_per_second": tokens / (marks[-1] - marks[0]), "tokens": tokens}


RUNS: dict[str, Callable[[list[dict[str, str]], int, str], dict[str, float]]] = {
    "ragkit, all but one chunk recomputed": partial(ours, keep_tokens=0),
    "ragkit, 16,000 tokens kept": partial(ours, keep_tokens=16_000),
    "ragkit, all kept": partial(ours, keep_tokens=1 << 20),
    "ragkit, all kept, compiled": partial(ours, keep_tokens=1 << 20, compile=True),
    "sentence-transformers, default": partial(theirs, mini_batch_tokens=None),
    "sentence-transformers, mini-batches of 1,024 tokens": partial(theirs, mini_batch_tokens=CHUNK_TOKENS),
}


def alone(name: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One run in a process of its own, so that its peak of memory is its own."""
    command = [
        sys.executable,
        __file__,
        "one",
        "--name",
        name,
        "--batch",
        str(arguments.batch),
        "--steps",
        str(arguments.steps),
        "--precision",
        arguments.precision,
    ]
    if arguments.data:
        command += ["--data", str(arguments.data)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def one_step(batch: int) -> dict[str, float]:
    """The peak of one step of ``batch`` pairs of 16 tokens a text at most, in chunks of 16 rows."""
    import torch

    from trainer.config import TrainConfig
    from trainer.embedder import embed_rows
    from trainer.loss import info_nce
    from trainer.train import build

    model, _ = build(dataclasses.replace(TrainConfig([]), precision="fp32"))
    model.train()
    rng = random.Random(0)
    rows = [[2, *(rng.randrange(1000, 200_000) for _ in range(14)), 1] for _ in range(2 * batch)]
    before = peak_memory_gb()
    vectors = embed_rows(model, rows, chunk_tokens=16 * 16)
    loss = info_nce(vectors[:batch], vectors[batch:])
    loss.backward()
    assert torch.isfinite(loss)
    return {"batch": batch, "model_gb": before, "peak_gb": peak_memory_gb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "one", "step"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--name")
    arguments = parser.parse_args()
    if arguments.what == "one":
        count = arguments.batch * arguments.steps
        pairs = read(arguments.data, count) if arguments.data else made_up(count, 96)
        hold_kernels()  # for all of them, as hold_memory
        hold_memory()
        told = RUNS[arguments.name](pairs, arguments.batch, arguments.precision)
        print(json.dumps(told | {"peak_gb": peak_memory_gb()}))
    elif arguments.what == "step":
        print(json.dumps(one_step(arguments.batch)))
    elif arguments.what == "memory":
        print("| batch | peak, GB | of which the loaded model |\n|---|---|---|")
        for batch in arguments.batches:
            done = subprocess.run(
                [sys.executable, __file__, "step", "--batch", str(batch)], capture_output=True, text=True, check=True
            )
            result = json.loads(done.stdout.strip().splitlines()[-1])
            print(f"| {batch} | {result['peak_gb']:.2f} | {result['model_gb']:.2f} |", flush=True)
    else:
        print("| trainer | tokens/s | peak, GB | tokens |\n|---|---|---|---|")
        for name in RUNS:
            r = alone(name, arguments)
            print(f"| {name} | {r['tokens_per_second']:.1f} | {r['peak_gb']:.2f} | {r['tokens']:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
