"""A training run: a recipe and a data folder to a model folder, on one CPU, one GPU or many.

A run folder holds config.yaml, plan/ (its batches), run.json (versions and data counts), metrics.jsonl,
logs/ (TensorBoard), checkpoints/ and, at the end, model/: the adapter with its ragkit.json, which
``LocalEncoder.load`` reads. A run that was cut off goes on from its last whole checkpoint and ends like
one that was not. Under torchrun, accelerate or DeepSpeed every process calls :func:`train`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import transformers
from transformers import TrainingArguments

from ragkit.encoder import LocalEncoder, base_source, fast_dtype
from trainer import checkpoints
from trainer.config import TrainConfig
from trainer.embedder import Embedder, go_on_from, lora
from trainer.layers import lay_out
from trainer.lock import locked
from trainer.loop import EmbedTrainer, Metrics, Steps, collate
from trainer.plan import Plan, plan_of

log = logging.getLogger(__name__)

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def build(config: TrainConfig) -> tuple[Embedder, LocalEncoder]:
    """The base with a fresh LoRA on every linear layer, or with the weights of ``start``, and the encoder whose
    tokenizer it reads. Raises ValueError for a base that is an adapter, whose model could not be loaded."""
    if (Path(base_source(config.base)) / "adapter_config.json").exists():
        raise ValueError(
            f"base is {config.base!r}, which is an adapter: set start to it, and base to what it was trained on"
        )
    encoder = LocalEncoder.load(config.base, dtype=_dtype(config), trainable=True)
    model: Any = encoder.model
    if model.device.type == "cpu":
        lay_out(model, compile=config.compile)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    embedder = lora(model, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)
    embedder.peft_config["default"].base_model_name_or_path = config.base  # not this machine's cache
    if config.start:
        go_on_from(embedder, Path(base_source(config.start)))
    return embedder, encoder


def train(config: TrainConfig, data: Path, out: Path, *, report_to: Sequence[str] = ("tensorboard",)) -> Path:
    """Train and return the model folder. Raises ValueError where ``out`` holds a run of another configuration, or one
    that goes on at this moment."""
    # First: with ZeRO-3 the arguments decide that weights are sharded as they load, and they join the processes.
    arguments = _arguments(config, out, report_to)
    with locked(out) if arguments.should_save else contextlib.nullcontext(), _logging_to(out / "logs"):
        return _train(config, data, out, arguments)


@contextlib.contextmanager
def _logging_to(folder: Path) -> Iterator[None]:
    """TensorBoard, unless the environment names another folder. It is asked for its folder as the run begins."""
    if "TENSORBOARD_LOGGING_DIR" in os.environ:
        yield
        return
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    try:
        yield
    finally:
        del os.environ["TENSORBOARD_LOGGING_DIR"]


def _train(config: TrainConfig, data: Path, out: Path, arguments: TrainingArguments) -> Path:
    transformers.set_seed(config.seed)
    with arguments.main_process_first(local=True, desc="plan"):
        out.mkdir(parents=True, exist_ok=True)
        plan = plan_of(config, data, out)
        sets = _eval_sets(config, data)
    model, encoder = build(config)
    trainer = EmbedTrainer(
        config,
        encoder,
        model=model,
        args=arguments,
        train_dataset=Steps(plan, arguments.world_size),
        data_collator=collate,
    )
    metrics = Metrics(out / "metrics.jsonl", trainer, sets)
    trainer.add_callback(metrics)
    last = checkpoints.last_complete(out / "checkpoints")
    if arguments.should_save:
        _claim(config, out)
        checkpoints.sweep(out / "checkpoints")
        metrics.rewind(checkpoints.step_of(last) if last else 0)
        _record(out, plan, trainer)
    trainer.accelerator.wait_for_everyone()
    torch.manual_seed(config.seed + arguments.process_index)  # devices drop out different neurons
    folder = out / "model"
    if last and checkpoints.step_of(last) >= config.steps(len(plan)):
        if arguments.should_save:  # cut off between its last step and the end; Trainer would take one step more
            checkpoints.copy_model(last, folder)
        return folder
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.save_model(str(folder))
    return folder


def leave() -> None:
    """For a process that is about to end: not before the others are done, and with its threads and connections
    closed. Who ends earlier resets the connection on which another still reads its last gather (gloo)."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def _dtype(config: TrainConfig) -> torch.dtype:
    if config.precision == "auto":
        return fast_dtype("cuda" if torch.cuda.is_available() else "cpu")
    return PRECISIONS[config.precision]


def _arguments(config: TrainConfig, out: Path, report_to: Sequence[str]) -> TrainingArguments:
    dtype = _dtype(config)
    made = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        per_device_train_batch_size=1,  # one item is one batch of examples
        num_train_epochs=config.epochs,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        lr_scheduler_type="linear",
        bf16=dtype == torch.bfloat16,  # autocast; LoRA and the loss stay in float32
        fp16=dtype == torch.float16,
        deepspeed=config.deepspeed or None,
        use_cpu=_on_cpu(config),
        ddp_find_unused_parameters=False,
        save_steps=config.save_steps,
        save_total_limit=max(2, config.keep_checkpoints),  # Trainer deletes before the newest is sealed
        logging_strategy="no",  # Metrics logs
        report_to=list(report_to),
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=config.seed,
        train_sampling_strategy="sequential",  # the plan is shuffled already
    )
    if made.n_gpu > 1:  # Trainer would split a batch among them by DataParallel
        log.warning("one of %d GPUs is used: start it by torchrun --nproc_per_node %d for all", made.n_gpu, made.n_gpu)
        made._n_gpu = 1
    return made


def _on_cpu(config: TrainConfig) -> bool:
    """Must be said to Trainer, or each of several CPU processes takes itself for the only one. Under DeepSpeed and
    FSDP accelerate knows devices alone."""
    sharded = config.deepspeed or os.environ.get("ACCELERATE_USE_FSDP", "false") == "true"
    return not torch.cuda.is_available() and not sharded


def _claim(config: TrainConfig, out: Path) -> None:
    """A run folder belongs to one configuration, from the moment that the run can begin."""
    scratch = out / f".config.{os.getpid()}"
    scratch.write_text(config.yaml(), "utf-8")
    scratch.rename(out / "config.yaml")


def _eval_sets(config: TrainConfig, data: Path) -> list[Any]:
    if not (config.eval_data and config.eval_steps):
        return []
    from trainer.evaluate import read_sets

    return [s.sample(config.eval_queries, config.eval_passages) for s in read_sets(data / config.eval_data)]


def _record(out: Path, plan: Plan, trainer: EmbedTrainer) -> None:
    model: Any = trainer.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    run = {
        "trainable_parameters": sum(getattr(p, "ds_numel", p.numel()) for p in parameters),  # ZeRO-3 empties them
        "batches": len(plan),
        "examples": plan.drawn,
        "dropped": plan.dropped,
        "dtype": str(next(model.base_model.parameters()).dtype),
        "devices": trainer.args.world_size,
        "distributed": trainer.accelerator.distributed_type.value,  # NO, MULTI_GPU, DEEPSPEED, FSDP, ...
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate", "ragkit")
        },
    }
    (out / "run.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", "utf-8")
