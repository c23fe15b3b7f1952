"""The model under training, and the rows of one step dealt to chunks and devices.

A step embeds thousands of texts, more than memory holds at once. They run in chunks of like length, and a
chunk is a checkpoint (torch.utils.checkpoint, non-reentrant): its activations are dropped and recomputed in
the one ordinary backward. Gradients and memory are those of GradCache (arXiv 2101.06983), without its second
pass, so DDP, DeepSpeed and FSDP see a plain step: one forward of :class:`Embedder`, one backward.
Where memory allows, chunks keep their activations.

Over several devices every chunk is dealt evenly: as many rows for each, of like length. So all devices run
the same number of forward passes, which ZeRO-3 and FSDP must have (a pass gathers weights from all), none
waits for another, and the batch is the same for any number of devices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import (
    LoraConfig,
    PeftModelForFeatureExtraction,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ragkit.forward import batches, common, embed, padded
from trainer.layers import LoraLinear
from trainer.memory import give_back

MULTIPLE = 16  # of tokens, to which a chunk's rows are padded: fewer shapes, for each of which oneDNN makes new code
ALIKE = 8  # rows that begin alike, from which on they get chunks of their own


@dataclass(frozen=True, slots=True)
class Chunk:
    """Token rows of one forward pass on this device. A plain list would be walked, number by number, by the
    input hooks of DDP and DeepSpeed."""

    rows: list[list[int]]
    keep: bool  # activations until backward; else they are recomputed
    shared: int = 0  # tokens that all rows begin with: computed once


class Embedder(PeftModelForFeatureExtraction):
    """A causal decoder with LoRA whose forward takes the chunks of a step and returns unit embeddings (N, D).

    Still a PEFT model in every other way, so that Trainer saves and loads the adapter alone.
    """

    def forward(self, chunks: Sequence[Chunk]) -> Tensor:  # type: ignore[override]
        device = next(self.parameters()).device.type
        precision, mixed = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        # A cast that one chunk finds cached is one more operation where it is recomputed.
        with torch.autocast(device, precision, enabled=mixed, cache_enabled=False):
            return torch.cat([self._chunk(chunk) for chunk in chunks])

    def _chunk(self, chunk: Chunk) -> Tensor:
        if chunk.keep or not torch.is_grad_enabled():
            return embed(self.base_model, chunk.rows, shared=chunk.shared, multiple=MULTIPLE)
        return checkpoint(_embed_again, self.base_model, chunk, use_reentrant=False)  # type: ignore[return-value]


def _embed_again(model: nn.Module, chunk: Chunk) -> Tensor:
    """What a chunk that keeps nothing runs, forward and once more backward."""
    if not torch.cuda.is_available():
        give_back()
    return embed(model, chunk.rows, shared=chunk.shared, multiple=MULTIPLE)


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
    config._register_custom_module({nn.Linear: LoraLinear})
    return Embedder(model, config, autocast_adapter_dtype=True)


def go_on_from(embedder: Embedder, folder: Path) -> None:
    """Take the weights of the adapter in ``folder``. Raises ValueError where it does not fit: another base, another
    rank or alpha, other layers."""
    file = folder / "adapter_config.json"
    if not file.exists():
        raise ValueError(f"start is {str(folder)!r}, which is no adapter: it has no {file.name}")
    theirs: dict[str, Any] = json.loads(file.read_text("utf-8"))
    ours: Any = embedder.peft_config["default"]
    wanted = {"r": ours.r, "lora_alpha": ours.lora_alpha, "base_model_name_or_path": ours.base_model_name_or_path}
    if wrong := [
        f"{name} {theirs.get(name)!r}, not {value!r}" for name, value in wanted.items() if theirs.get(name) != value
    ]:
        raise ValueError(
            f"start is {str(folder)!r}, an adapter with {', '.join(wrong)}: set the run's knobs like its own"
        )
    state = load_file(folder / "adapter_model.safetensors")
    names = set(get_peft_model_state_dict(embedder))
    if state.keys() != names:
        raise ValueError(f"start is {str(folder)!r}, an adapter of other layers, such as {min(state.keys() ^ names)}")
    set_peft_model_state_dict(embedder, state)


def deal(lengths: Sequence[int], chunk_tokens: int, devices: int) -> Iterator[list[list[int]]]:
    """Positions of rows for every chunk and device, longest first; at most ``chunk_tokens`` tokens, pads
    included, for each device (one row always goes). All devices get equally many: where the last rows do not
    go round, a device repeats one."""
    for taken in batches([padded(length, MULTIPLE) for length in lengths], chunk_tokens, devices):
        missing = -len(taken) % devices
        taken += taken[-1:] * missing
        yield [taken[device::devices] for device in range(devices)]


def kept_chunks(sizes: Sequence[int], keep_tokens: int) -> int:
    """How many chunks at the end are not recomputed: the last one, and those before it whose tokens, pads included,
    come to at most ``keep_tokens`` with it."""
    totals = accumulate(reversed(sizes))
    return sum(n == 0 or total <= keep_tokens for n, total in enumerate(totals))


def deal_alike(
    rows: Sequence[Sequence[int]], alike: Sequence[Sequence[int]], chunk_tokens: int, devices: int
) -> Iterator[tuple[list[list[int]], int]]:
    """:func:`deal`, for each group of positions in ``alike`` apart, and for the rest: every chunk with the number of
    tokens that all rows of its group begin with, of which each row goes on by at least one. A small group goes with
    the rest: what its few rows share costs less than a pass of their own."""
    groups = [group for group in alike if len(group) >= ALIKE]
    grouped = {i for group in groups for i in group}
    rest = [i for i in range(len(rows)) if i not in grouped]
    for group in [*groups, rest]:
        shared = 0
        if group is not rest:
            shared = min(len(common([rows[i] for i in group])), min(len(rows[i]) for i in group) - 1)
        for parts in deal([len(rows[i]) - shared for i in group], chunk_tokens, devices):
            yield [[group[n] for n in part] for part in parts], shared


def embed_rows(
    model: nn.Module,
    rows: Sequence[list[int]],
    chunk_tokens: int,
    keep_tokens: int = 0,
    alike: Sequence[Sequence[int]] = (),
) -> Tensor:
    """Unit embeddings (N, D) of all rows, in order, on every device; each embeds its share.

    ``alike`` are positions of rows that begin with the same tokens, such as the prompts of a task: what they have in
    common is computed once a chunk, with its gradient (ragkit/forward.py; the model must attend by it).

    ``model`` is an Embedder, wrapped or not. A device's last chunk keeps its activations until backward, which
    starts with it, and so do those before it while they come to at most ``keep_tokens`` tokens. So the peak depends
    on one chunk and ``keep_tokens``, not on the batch. Backward gives each device the gradient of its
    own rows times the number of devices, which DDP, ZeRO and FSDP divide by: the loss must be that of the whole
    batch, the same on each.
    """
    devices, own = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    dealt = list(deal_alike(rows, alike, chunk_tokens, devices))
    sizes = [shared + len(parts[0]) * padded(len(rows[parts[0][0]]) - shared, MULTIPLE) for parts, shared in dealt]
    dropped = len(dealt) - kept_chunks(sizes, keep_tokens)
    vectors = model(
        [Chunk([rows[i] for i in parts[own]], n >= dropped, shared) for n, (parts, shared) in enumerate(dealt)]
    )
    if devices > 1:
        vectors = _Gather.apply(vectors)
    order = [i for device in range(devices) for parts, _ in dealt for i in parts[device]]
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
