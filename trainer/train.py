"""The training loop: LoRA on a causal decoder, InfoNCE over task-homogeneous batches.

``transformers.Trainer`` runs the steps, so checkpoints, resuming and launchers (torchrun, accelerate,
DeepSpeed) are its own. What is ours is the step: texts are tokenised, embedded and pooled by
``ragkit.encoder``, the functions that serve, so a trained vector and a served one are the same. The
rows of a batch run in chunks of like length, which wastes no time on padding. Chunks beyond
``keep_tokens`` are checkpoints (torch.utils.checkpoint, non-reentrant): recomputed in the one ordinary
backward, they bound memory for any batch size.

A run folder holds config.yaml, versions and data counts (run.json), metrics.jsonl, checkpoints and, at
the end, model/: the adapter with its ragkit.json, which ``LocalEncoder.load`` reads.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ragkit.encoder import LocalEncoder, ModelInfo, batches, embed, fast_dtype, tokenize
from trainer.data import Source, TrainingExample, batch_texts, make_plan
from trainer.loss import in_batch_accuracy, info_nce


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A run. The defaults are the paper's (arXiv 2401.00368, appendix A) where it names a value."""

    sources: list[Source]
    base: str = "mini-base"  # what LocalEncoder.load takes, without an adapter of its own
    batch_size: int = 64  # pairs a step: more in-batch negatives, more memory (paper: 2048)
    max_query_tokens: int = 512  # prompt, BOS and EOS included
    max_passage_tokens: int = 512
    temperature: float = 0.02
    learning_rate: float = 1e-4
    warmup_steps: int = 100
    weight_decay: float = 0.1
    max_steps: int = -1  # -1: one pass over the plan
    lora_rank: int = 16
    lora_alpha: int = 32
    lora_dropout: float = 0.1
    chunk_tokens: int = 4096  # of one forward pass, pads included
    keep_tokens: int = (
        1 << 30
    )  # of a batch, whose activations stay in memory; the rest is recomputed. Mini takes 2 MB a token
    save_steps: int = 20
    seed: int = 1

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """From YAML. Raises ValueError that names unknown knobs."""
        raw: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
        unknown = set(raw) - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"{path} sets {', '.join(sorted(unknown))}, which trainer train does not know")
        return cls(**{**raw, "sources": [Source(**source) for source in raw["sources"]]})


@dataclass
class Tally:
    """Sums since the last logged line."""

    loss: float = 0.0
    accuracy: float = 0.0
    std: float = 0.0
    tokens: int = 0
    truncated: int = 0
    steps: int = 0
    since: float = field(default_factory=time.monotonic)


class EmbedTrainer(Trainer):
    """``Trainer`` whose item is a whole batch of examples and whose loss is InfoNCE over it."""

    def __init__(self, config: TrainConfig, tokenizer: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.tokenizer = tokenizer
        self.tally = Tally()
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        texts = batch_texts(inputs["batch"])
        queries = tokenize(self.tokenizer, texts.queries, self.config.max_query_tokens)
        passages = tokenize(self.tokenizer, texts.passages, self.config.max_passage_tokens)
        rows = queries.ids + passages.ids
        vectors = embed_chunked(model, rows, self.config.chunk_tokens, self.config.keep_tokens)
        q, p = vectors[: len(queries.ids)], vectors[len(queries.ids) :]
        excluded = torch.zeros(len(q), len(p), dtype=torch.bool, device=q.device)
        for i, j in texts.excluded:
            excluded[i, j] = True
        loss = info_nce(q, p, temperature=self.config.temperature, excluded=excluded)
        tally = self.tally
        tally.loss += loss.item()
        tally.accuracy += in_batch_accuracy(q.detach(), p.detach())
        tally.std += float(p.detach().std(dim=0).mean()) * p.shape[1] ** 0.5  # 1 when spread evenly, 0 when collapsed
        tally.tokens += sum(map(len, rows))
        tally.truncated += queries.truncated + passages.truncated
        tally.steps += 1
        return loss

    def floating_point_ops(self, inputs: Any) -> int:
        return 0  # Trainer would count a language model's


def embed_chunked(model: nn.Module, rows: list[list[int]], chunk_tokens: int, keep_tokens: int) -> Tensor:
    """Unit embeddings (N, D) of rows, in order, from chunks of like length; gradients as of one pass."""
    order: list[int] = []
    parts: list[Tensor] = []
    held = 0  # tokens, pads included
    for chunk in batches([len(row) for row in rows], chunk_tokens):
        chosen = [rows[i] for i in chunk]
        held += len(chosen) * len(chosen[0])
        parts.append(
            embed(model, chosen) if held <= keep_tokens else checkpoint(embed, model, chosen, use_reentrant=False)
        )
        order += chunk
    return torch.cat(parts)[torch.tensor(order).argsort()]


class MetricsFile(TrainerCallback):
    """A line of metrics.jsonl for every step."""

    def __init__(self, path: Path, trainer: EmbedTrainer) -> None:
        self.path, self.trainer = path, trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        tally, now = self.trainer.tally, time.monotonic()
        n = tally.steps
        scheduler: Any = self.trainer.lr_scheduler
        line = {
            "step": state.global_step,
            "loss": round(tally.loss / n, 4),
            "accuracy": round(tally.accuracy / n, 4),
            "embedding_std": round(tally.std / n, 4),
            "learning_rate": scheduler.get_last_lr()[0],
            "tokens": tally.tokens,
            "truncated": tally.truncated,
            "tokens_per_second": round(tally.tokens / (now - tally.since), 1),
        }
        self.trainer.tally = Tally()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def build(config: TrainConfig) -> tuple[nn.Module, LocalEncoder]:
    """The base with a fresh LoRA on every linear layer (peft), and the encoder whose tokenizer it reads.

    Weights are bfloat16 where the processor is fast at it, else float32; LoRA weights are float32.
    """
    encoder = LocalEncoder.load(config.base, dtype=fast_dtype("cuda" if torch.cuda.is_available() else "cpu"))
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules="all-linear",
        task_type="FEATURE_EXTRACTION",
    )
    model = get_peft_model(encoder.model, lora, autocast_adapter_dtype=True)  # type: ignore[arg-type]
    return model, encoder


def train(config: TrainConfig, data: Path, out: Path) -> Path:
    """Train and return the model folder. A run that was cut off goes on from its last checkpoint."""
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    saved = yaml.safe_dump(dataclasses.asdict(config), sort_keys=False, allow_unicode=True)
    file = out / "config.yaml"
    if file.exists() and file.read_text("utf-8") != saved:
        raise ValueError(f"{out} holds a run of another configuration: give a new --out, or delete the folder")
    file.write_text(saved, "utf-8")
    plan = make_plan(config.sources, data, batch_size=config.batch_size, seed=config.seed)
    model, encoder = build(config)
    run = {
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "batches": len(plan.batches),
        "examples": plan.drawn,
        "dropped": dict(plan.dropped),
        "dtype": str(next(model.parameters()).dtype),
        "versions": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "peft", "accelerate", "ragkit")
        },
    }
    (out / "run.json").write_text(json.dumps(run, indent=2, ensure_ascii=False) + "\n", "utf-8")
    arguments = TrainingArguments(
        output_dir=str(out / "checkpoints"),
        per_device_train_batch_size=1,  # one item is one batch of examples
        num_train_epochs=1,
        max_steps=config.max_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        lr_scheduler_type="linear",
        save_steps=config.save_steps,
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        seed=config.seed,
        train_sampling_strategy="sequential",  # the plan is shuffled already
    )
    trainer = EmbedTrainer(
        config, encoder.tokenizer, model=model, args=arguments, train_dataset=plan.batches, data_collator=_as_batch
    )
    trainer.add_callback(MetricsFile(out / "metrics.jsonl", trainer))
    checkpoints = out / "checkpoints"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(checkpoints)) if checkpoints.exists() else None)
    folder = out / "model"
    model.peft_config["default"].base_model_name_or_path = config.base  # type: ignore[operator]  # not this machine's cache
    model.save_pretrained(folder)  # type: ignore[operator]
    ModelInfo(base=config.base, max_length=encoder.max_length).write(folder)
    return folder


def _as_batch(items: list[list[TrainingExample]]) -> dict[str, Any]:
    return {"batch": items[0]}
