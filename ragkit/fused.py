"""A decoder's layers as a CPU computes them fastest, for a model that will only be read.

Three things cost a pass on a CPU time that no arithmetic needs. A matrix product lays its weights out anew at every
call, which a short text notices most: here that is done once (oneDNN's own layout, as torch.compile's frozen graphs
use it). A gated MLP writes its activation and the gated product to memory: here both are the last step of the
products they follow. A norm is seven calls: here it is one. What each gained is in benchmarks/RESULTS.md.

Nothing is known by a class's name. Each new layer is tried beside the one that it would stand for, on made-up states,
and takes its place only where both say the same to the digit that the precision holds; else the layer stays.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, silu

# What oneDNN calls an activation: (name, algorithm), beside the function that it computes.
ACTIVATIONS = {
    ("gelu", "tanh"): lambda x: gelu(x, approximate="tanh"),
    ("gelu", "none"): gelu,
    ("swish", ""): silu,
}
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2**-6}  # of the largest number of a layer's output


class _LaidOut(nn.Module):
    """Its weights are no parameters any more. A model saved without them would load again, with random ones."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        raise RuntimeError(
            "this model's layers are laid out for a CPU and cannot be saved: load it with "
            "LocalEncoder.load(..., trainable=True)"
        )


class PackedLinear(_LaidOut):
    """``linear``, its weights in oneDNN's layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), None)
        self.bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, states: Tensor, activation: tuple[str, str] = ("none", "")) -> Tensor:
        name, algorithm = activation
        return torch.ops.mkldnn._linear_pointwise(states, self.packed, self.bias, name, [], algorithm)

    def times(self, states: Tensor, gate: Tensor) -> Tensor:
        """The product, each number of it multiplied by that of ``gate``."""
        return torch.ops.mkldnn._linear_pointwise(states, gate, self.packed, self.bias, "mul")


class GatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))`` in three calls."""

    def __init__(self, mlp: Any, activation: tuple[str, str]) -> None:
        super().__init__()
        self.gate, self.up, self.down = map(PackedLinear, (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
        self.activation = activation

    def forward(self, states: Tensor) -> Tensor:
        return self.down(self.up.times(states, self.gate(states, self.activation)))


class RMSNorm(_LaidOut):
    """States over their root mean square, times ``gain``, all in float32; returned in the states' own precision."""

    gain: Tensor  # (D,)

    def __init__(self, gain: Tensor, eps: float) -> None:
        super().__init__()
        self.register_buffer("gain", gain, persistent=False)
        self.eps = eps

    def forward(self, states: Tensor) -> Tensor:
        return torch.rms_norm(states.float(), self.gain.shape, self.gain, self.eps).to(states.dtype)


@torch.no_grad()
def fuse(model: nn.Module) -> None:
    """Replace in place what can be replaced of ``model``, on a CPU and in one precision. It cannot be trained after."""
    model.requires_grad_(False)
    if _packs(next(model.parameters()).dtype):
        exchange(model, _gated)
        exchange(model, lambda layer: PackedLinear(layer) if type(layer) is nn.Linear else None)
    exchange(model, _norm)


def exchange(model: nn.Module, better: Callable[[Any], nn.Module | None]) -> None:
    """Put in the place of every layer what ``better`` makes of it; None: it stays."""
    for name, layer in list(model.named_modules()):
        if (made := better(layer)) is not None:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, made)


def _packs(dtype: torch.dtype) -> bool:
    """Whether this build of PyTorch and this processor multiply packed weights of ``dtype``, tried out: the operation
    is one that PyTorch keeps for its compiler, and may change."""
    if dtype not in TOLERANCE or not torch.backends.mkldnn.is_available():
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    layer: Any
    layer, states = nn.utils.skip_init(nn.Linear, 32, 8, dtype=dtype), made_up(32, dtype)
    layer.weight.copy_(states)
    layer.bias.copy_(states[:, 0])
    try:
        packed = PackedLinear(layer)
        gated = packed.times(states, packed(states, ("gelu", "tanh")))
    except (AttributeError, RuntimeError, TypeError):
        return False
    product = linear(states.float(), layer.weight.float(), layer.bias.float())
    return same(gated, gelu(product, approximate="tanh") * product)


def _gated(mlp: Any) -> GatedMLP | None:
    if (activation := gated_activation(mlp)) is None:
        return None
    fused, states = GatedMLP(mlp, activation), made_up(mlp.up_proj.in_features, mlp.up_proj.weight.dtype)
    return fused if same(fused(states), mlp(states)) else None


def gated_activation(mlp: Any) -> tuple[str, str] | None:
    """Which of :data:`ACTIVATIONS` a gated MLP of plain linear layers computes; None for any other layer."""
    parts = [getattr(mlp, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if any(type(part) is not nn.Linear for part in parts) or not hasattr(mlp, "act_fn"):
        return None
    line = torch.linspace(-8, 8, 1001)
    known = (name for name, function in ACTIVATIONS.items() if torch.allclose(mlp.act_fn(line), function(line), 1e-5))
    return next(known, None)


def _norm(layer: Any) -> RMSNorm | None:
    return None if (found := norm_gain(layer)) is None else RMSNorm(*found)


@torch.no_grad()
def norm_gain(layer: Any) -> tuple[Tensor, float] | None:
    """The gain (D,) in float32 and the epsilon of an RMS norm; None for any other layer."""
    weights = dict(layer.named_parameters())
    eps = getattr(layer, "eps", getattr(layer, "variance_epsilon", None))
    if eps is None or list(weights) != ["weight"] or weights["weight"].dim() != 1 or list(layer.children()):
        return None
    exact = deepcopy(layer).float()  # gains of 60 and 61 look alike in bfloat16
    weight = exact.weight.detach()
    states = made_up(len(weight), weight.dtype) + 1  # not about zero: a norm that takes the mean away is another one
    for gain in (weight, 1 + weight):  # Gemma keeps what is added to one
        if same(RMSNorm(gain, eps)(states), exact(states)):
            return gain, eps
    return None


def made_up(width: int, dtype: torch.dtype) -> Tensor:
    """States (8, width), the same each time and without a draw from anyone's generator."""
    return torch.randn(8, width, generator=torch.Generator().manual_seed(0)).to(dtype)


def same(found: Tensor, expected: Tensor) -> bool:
    """Equal to the digit that their precision holds."""
    if found.shape != expected.shape:
        return False
    away = (found.float() - expected.float()).abs().max()
    return bool(away <= TOLERANCE[found.dtype] * expected.float().abs().max())
