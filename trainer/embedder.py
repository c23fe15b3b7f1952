"""The model under training, and the rows of one step dealt to chunks and devices.

A step embeds thousands of texts, more than memory holds at once. They run in chunks of like length, and a
chunk is a checkpoint (torch.utils.checkpoint, non-reentrant): its activations are dropped and recomputed in
the one ordinary backward. Gradients and memory are those of GradCache (arXiv 2101.06983), without its second
pass, so DDP, DeepSpeed and FSDP see a plain step: one forward of :class:`Embedder`, one backward.

Over several devices every chunk is dealt evenly: as many rows for each, of like length. So all devices run
the same number of forward passes, which ZeRO-3 and FSDP must have (a pass gathers weights from all), none
waits for another, and the batch is the same for any number of devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, PeftModelForFeatureExtraction
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragkit.encoder import batches, embed
from trainer.memory import give_back


@dataclass(frozen=True, slots=True)
class Chunk:
    """Token rows of one forward pass on this device. A plain list would be walked, number by number, by the
    input hooks of DDP and DeepSpeed."""

    rows: list[list[int]]
    keep: bool  # activations stay in memory, else they are recomputed


class Embedder(PeftModelForFeatureExtraction):
    """A causal decoder with LoRA whose forward takes the chunks of a step and returns unit embeddings (N, D).

    Still a PEFT model in every other way, so that Trainer saves and loads the adapter alone.
    """

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:  # type: ignore[override]
        return torch.cat([self._chunk(chunk) for chunk in chunks])

    def _chunk(self, chunk: Chunk) -> Tensor:
        if chunk.keep or not torch.is_grad_enabled():
            return embed(self.base_model, chunk.rows)
        return checkpoint(_embed_again, self.base_model, chunk.rows, use_reentrant=False)  # type: ignore[return-value]


def _embed_again(model: nn.Module, rows: list[list[int]]) -> Tensor:
    """What a dropped chunk runs, forward and once more backward."""
    if not torch.cuda.is_available():
        give_back()
    return embed(model, rows)


def lora(model: nn.Module, *, rank: int, alpha: int, dropout: float) -> Embedder:
    """``model`` with a fresh LoRA, in float32, on every linear layer: seven kinds in Mistral and Gemma."""
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules="all-linear",
        bias="none",
        task_type="FEATURE_EXTRACTION",
    )
    return Embedder(model, config, autocast_adapter_dtype=True)


def deal(lengths: Sequence[int], chunk_tokens: int, devices: int) -> Iterator[list[list[int]]]:
    """Positions of rows for every chunk and device, longest first; at most ``chunk_tokens`` tokens, pads
    included, for each device (one row always goes). All devices get equally many: where the last rows do not
    go round, a device repeats one."""
    for taken in batches(lengths, chunk_tokens, devices):
        missing = -len(taken) % devices
        taken += taken[-1:] * missing
        yield [taken[device::devices] for device in range(devices)]


def kept_chunks(sizes: Sequence[int], keep_tokens: int) -> int:
    """How many chunks at the end keep their activations: the last one, and those before it whose tokens, pads
    included, come to at most ``keep_tokens`` with it."""
    totals = accumulate(reversed(sizes))
    return sum(n == 0 or total <= keep_tokens for n, total in enumerate(totals))


def embed_rows(model: nn.Module, rows: Sequence[list[int]], chunk_tokens: int, keep_tokens: int = 0) -> Tensor:
    """Unit embeddings (N, D) of all rows, in order, on every device; each embeds its share.

    ``model`` is an Embedder, wrapped or not. Activations of a device's last ``keep_tokens`` tokens, and in any
    case of its last chunk, stay in memory until backward, which starts with them; all others are recomputed.
    So the peak is that of the larger of one chunk and ``keep_tokens``, whatever the batch. Backward gives each
    device the gradient of its own rows times the number of devices, which DDP, ZeRO and FSDP divide by: the
    loss must be that of the whole batch, the same on each.
    """
    devices, own = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    dealt = list(deal([len(row) for row in rows], chunk_tokens, devices))
    sizes = [len(parts[0]) * len(rows[parts[0][0]]) for parts in dealt]  # the same on every device: all recompute alike
    dropped = len(dealt) - kept_chunks(sizes, keep_tokens)
    vectors = model([Chunk([rows[i] for i in parts[own]], keep=n >= dropped) for n, parts in enumerate(dealt)])
    if devices > 1:
        vectors = _Gather.apply(vectors)
    order = [i for device in range(devices) for parts in dealt for i in parts[device]]
    place = {position: n for n, position in enumerate(order)}
    return vectors[torch.tensor([place[i] for i in range(len(rows))], device=vectors.device)]


class _Gather(torch.autograd.Function):
    """The rows of all devices, one after another. Every device computes the same loss of them, so the gradient
    of its rows is complete where it stands: no exchange backward, only the factor that averaging takes away."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:  # type: ignore[override]
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The trainable tensors by name, whole, on the CPU; a collective call where weights are sharded.

    A sharded parameter looks empty on its device: read without gathering, it would be saved as such.
    """
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if any(hasattr(p, "ds_id") for p in trainable.values()):  # ZeRO-3
        import deepspeed  # type: ignore[import-not-found]

        with deepspeed.zero.GatheredParameters(list(trainable.values())):
            return {name: p.detach().cpu().clone() for name, p in trainable.items()}
    whole = {name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in trainable.items()}  # type: ignore[operator]  # FSDP2
    return {name: p.detach().cpu().clone() for name, p in whole.items()}
