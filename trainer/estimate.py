"""What a run will do and take, before it is paid for: examples, steps, tokens, parameters, memory, time.

Nothing is loaded but the base's configuration and tokenizer. Parameters are counted on a model without
storage (the meta device); bytes of activations are those that autograd saves when one chunk passes through
it, counted tensor by tensor; operations follow from the linear layers that the step really runs. Only the
rate of a device is taken from outside. Estimates leave out PyTorch's own context and fragmentation, and
what a CPU's own layers (layers.py) need not keep.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModel, AutoTokenizer

from ragkit.encoder import base_source, tokenize
from ragkit.operations import attention as attention_operations
from trainer.config import TrainConfig
from trainer.embedder import MULTIPLE, Embedder, deal, kept_chunks, lora, padded
from trainer.plan import Plan, batch_texts, plan_of

SAMPLE = 200  # batches whose lengths are counted; the rest is taken to be like them


def meta_model(config: TrainConfig) -> Embedder:
    """The base of ``config`` with its LoRA, on the meta device: shapes without storage."""
    with torch.device("meta"):
        made = AutoModel.from_config(
            AutoConfig.from_pretrained(base_source(config.base)), attn_implementation="counted"
        )
        return lora(made, rank=config.lora_rank, alpha=config.lora_alpha, dropout=config.lora_dropout)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a model in training. Bytes and operations a token hold for short texts; attention adds to both."""

    parameters: int  # of the base
    trainable: int  # of the LoRA
    linear: int  # parameters of the linear layers, LoRA included: what a token is multiplied with
    saved: int  # bytes a token that autograd keeps for backward
    saved_by_layers: int  # the same where every layer is recomputed: its input alone
    hidden: int  # size of the embedding
    layers: int


def cost(model: Embedder, element: int) -> Cost:
    """Count on a meta model; ``element`` is the bytes of a number in the forward pass (2 or 4)."""
    parts = dict(model.named_parameters())
    trainable = sum(p.numel() for p in parts.values() if p.requires_grad)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    linear = sum(m.weight.numel() for m in layers)
    settings: Any = model.config
    return Cost(
        parameters=sum(p.numel() for p in parts.values()) - trainable,
        trainable=trainable,
        linear=linear,
        saved=_saved_bytes(model) * element // 4,
        saved_by_layers=settings.num_hidden_layers * settings.hidden_size * element,
        hidden=int(settings.hidden_size),
        layers=int(settings.num_hidden_layers),
    )


def _saved_bytes(model: Embedder, tokens: int = 64) -> int:
    """Bytes a token, in float32, that autograd saves of one pass, weights and repeats left out."""
    own = {p.untyped_storage()._cdata for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}  # kept alive, so that no storage's address is used twice

    def save(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in own:
            seen[tensor.untyped_storage()._cdata] = tensor
        return tensor

    model.train()
    ids = torch.zeros(1, tokens, dtype=torch.long, device="meta")
    with torch.device("meta"), torch.autograd.graph.saved_tensors_hooks(save, lambda t: t):
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return sum(t.untyped_storage().nbytes() for t in seen.values()) // tokens


class _Flash(torch.autograd.Function):
    """What flash attention keeps for backward: its inputs and its output. On the meta device PyTorch would take
    the form that keeps the whole (T, T) matrix."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:  # type: ignore[override]
        out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        ctx.save_for_backward(query, key, value, out)
        return out


def _flash(_: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return _Flash.apply(query, key, value), None  # (B, heads, T, d) to (B, T, heads, d)


AttentionInterface.register("counted", _flash)
AttentionMaskInterface.register("counted", lambda *args, **kwargs: None)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one step on one device."""

    tokens: float  # mean, pads included
    flops: float
    seconds: float
    weights: float  # bytes: base, LoRA, its gradients and Adam's two moments
    activations: float  # bytes at the peak

    @property
    def bytes(self) -> float:
        return self.weights + self.activations


def estimate(
    config: TrainConfig, cost: Cost, batches: Sequence[Sequence[int]], *, devices: int, flops: float, element: int
) -> Estimate:
    """For batches given as token lengths of their rows."""
    sharded = devices if config.deepspeed else 1
    tokens, operations, peak = 0.0, 0.0, 0.0
    recomputed_layers = config.gradient_checkpointing
    for lengths in batches:
        dealt = [parts[0] for parts in deal(lengths, config.chunk_tokens, devices)]
        chunks = [len(part) * padded(lengths[part[0]], MULTIPLE) for part in dealt]
        here, kept = sum(chunks), sum(chunks[-kept_chunks(chunks, config.keep_tokens) :])
        if recomputed_layers:
            held = max(kept, *chunks) * cost.saved_by_layers + max(chunks) * cost.saved / cost.layers
        else:
            held = (kept - chunks[-1] + max(chunks)) * cost.saved
        peak = max(peak, held + 4 * len(lengths) * cost.hidden * 4)
        # Forward 2 a parameter and token; backward 2 again, through frozen weights to what lies below them, their own
        # gradients not being needed; recomputed once for a dropped chunk and once for layer checkpoints.
        passes = 2 * here + (here - kept) + (here if recomputed_layers else 0)
        attention = attention_operations(cost.layers, cost.hidden, lengths) / devices
        operations += 2 * passes * cost.linear + attention * passes / here
        tokens += here
    weights = cost.parameters * element / sharded + cost.trainable * (4 + 4 + 8) / sharded
    if config.deepspeed:
        weights += 2 * cost.parameters / cost.layers * element  # two layers gathered
    count = len(batches)
    return Estimate(tokens / count, operations / count, operations / count / flops, weights, peak)


def dry_run(config: TrainConfig, data: Path, out: Path, *, devices: int, flops: float) -> str:
    """Draw the plan into ``out``, where the run will find it, and describe the run."""
    plan = plan_of(config, data, out)
    tokenizer = AutoTokenizer.from_pretrained(base_source(config.base))
    steps = config.steps(len(plan))
    sample = _lengths(config, plan, tokenizer)
    element = 4 if config.precision == "fp32" else 2
    model = cost(meta_model(config), element)
    step = estimate(config, model, sample, devices=devices, flops=flops, element=element)
    read = sum(map(sum, sample)) / len(sample)
    lines = [
        f"examples    {sum(plan.drawn.values()):,} in {len(plan):,} batches of {config.batch_size:,}",
        *(f"            {count:>9,}  {name}" for name, count in plan.drawn.items()),
        f"not used    {json.dumps({k: v for k, v in plan.dropped.items() if v})}",
        f"steps       {steps:,}",
        f"tokens      {read:,.0f} a step, {read * steps:,.0f} in all (of {len(sample)} sampled batches)",
        f"parameters  {model.parameters:,} in the base, {model.trainable:,} trainable",
        f"memory      {step.bytes / 1e9:,.1f} GB a device: {step.weights / 1e9:,.1f} weights and optimiser"
        f"{', sharded' if config.deepspeed and devices > 1 else ''}, {step.activations / 1e9:,.1f} activations",
        f"operations  {step.flops:.3g} a step and device",
        f"time        {step.seconds:,.1f} s a step, {step.seconds * steps / 3600:,.1f} h in all, on {devices} "
        f"device(s) of {flops:.3g} operations a second, exchange between them left out",
    ]
    return "\n".join(lines)


def _lengths(config: TrainConfig, plan: Plan, tokenizer: Any) -> list[list[int]]:
    """Token counts of the rows of up to SAMPLE batches, spread over the plan."""
    chosen = random.Random(config.seed).sample(range(len(plan)), min(SAMPLE, len(plan)))
    rows: list[list[int]] = []
    for step in sorted(chosen):
        texts = batch_texts(plan[step])
        queries = tokenize(tokenizer, texts.queries, config.max_query_tokens).ids
        passages = tokenize(tokenizer, texts.passages, config.max_passage_tokens).ids
        rows.append([len(row) for row in [*queries, *passages]])
    return rows
