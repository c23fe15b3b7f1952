"""A decoder's layers as a CPU trains a LoRA on them fastest.

PyTorch keeps for backward what every single operation might need, and a CPU spends nearly as long writing and reading
that as multiplying. Where only a LoRA learns, three layers need less: its product keeps the states and their sixteen
numbers, a norm its states, a gated product its two factors. What each gained is in benchmarks/RESULTS.md.

What norms and gated products do number by number can be compiled too: one pass over memory where PyTorch's single
operations make a dozen.

As in ragkit/fused.py nothing is known by a class's name: a layer is tried beside the one that it would stand for,
forward and backward, and takes its place only where both say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn.functional import linear

from ragkit.fused import ACTIVATIONS, TOLERANCE, exchange, gated_activation, made_up, norm_gain, same

aten = torch.ops.aten

# The gradient of each of ragkit.fused.ACTIVATIONS: of its output's gradient and its states.
BACKWARD = {
    ("gelu", "tanh"): lambda gradient, states: aten.gelu_backward(gradient, states, approximate="tanh"),
    ("gelu", "none"): aten.gelu_backward,
    ("swish", ""): aten.silu_backward,
}


class LoraLinear(PeftLinear):
    """peft's layer, its plain case as one operation: ``W x + scaling * B A x`` of a frozen W."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs or not self._plain(x):
            return super().forward(x, *args, **kwargs)
        [name] = self.active_adapters
        base: Any = self.base_layer
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        return _LowRank.apply(x, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[return-value]

    def _plain(self, x: Tensor) -> bool:
        """Whether one LoRA, without dropout, is to be added to a frozen product on a CPU."""
        names = self.active_adapters
        if len(names) != 1 or names[0] not in self.lora_A or names[0] in self.lora_variant:
            return False
        weight: Any = self.base_layer.weight
        return (
            isinstance(self.lora_dropout[names[0]], nn.Identity)
            and not (self.disable_adapters or self.merged or weight.requires_grad)
            and x.dtype == weight.dtype
            and x.device.type == "cpu"
        )


class _LowRank(torch.autograd.Function):
    """Keeps the states (N, in) and their images under A (N, r)."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = states.reshape(-1, states.shape[-1])
        low = rows @ down.to(rows.dtype).T
        out = linear(rows, weight, bias).addmm_(low, (up * scaling).to(rows.dtype).T)
        ctx.save_for_backward(rows, low, weight, down, up)
        ctx.scaling = scaling
        return out.view(*states.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, low, weight, down, up = ctx.saved_tensors
        above = gradient.reshape(-1, gradient.shape[-1])
        narrow = above @ (up * ctx.scaling).to(rows.dtype)  # (N, r)
        to_down, to_up = narrow.T @ rows, above.T @ low
        to_states = None
        if ctx.needs_input_grad[0]:
            to_states = (above @ weight).addmm_(narrow, down.to(rows.dtype)).view(*gradient.shape[:-1], -1)
        return to_states, None, None, to_down.to(down.dtype), to_up.to(up.dtype) * ctx.scaling, None


@dataclass(frozen=True, slots=True)
class Elementwise:
    """What the layers below compute number by number, of rows (N, D), forward and backward."""

    gated: Callable[..., Tensor]
    gated_back: Callable[..., tuple[Tensor, Tensor]]
    norm: Callable[..., Tensor]
    norm_back: Callable[..., Tensor]


def _gate(gate: Tensor, up: Tensor, activation: tuple[str, str]) -> Tensor:
    return ACTIVATIONS[activation](gate).mul_(up)


def _gate_back(gradient: Tensor, gate: Tensor, up: Tensor, activation: tuple[str, str]) -> tuple[Tensor, Tensor]:
    return BACKWARD[activation](gradient * up, gate), ACTIVATIONS[activation](gate).mul_(gradient)


def _normed(states: Tensor, gain: Tensor, eps: float) -> Tensor:
    return torch.rms_norm(states.float(), gain.shape, gain, eps).to(states.dtype)


def _normed_back(gradient: Tensor, states: Tensor, gain: Tensor, eps: float) -> Tensor:
    exact = states.float()
    scale = exact.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    unit, above = exact.mul_(scale), gradient * gain
    along = (above * unit).mean(-1, keepdim=True)
    return above.addcmul_(unit, along, value=-1).mul_(scale).to(states.dtype)


PLAIN = Elementwise(_gate, _gate_back, _normed, _normed_back)


@cache
def compiled() -> Elementwise:
    """:data:`PLAIN`, each function compiled at its first call, for any number of rows. Needs a C++ compiler."""
    functions: tuple[Any, ...] = (_gate, _gate_back, _normed, _normed_back)
    return Elementwise(*(torch.compile(function, dynamic=True) for function in functions))


class GatedMLP(nn.Module):
    """``down(activation(gate(x)) * up(x))``, which keeps the two factors; its parts have their old names."""

    def __init__(self, mlp: Any, activation: tuple[str, str], by: Elementwise = PLAIN) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = mlp.gate_proj, mlp.up_proj, mlp.down_proj
        self.activation, self.by = activation, by

    def forward(self, states: Tensor) -> Tensor:
        return self.down_proj(_Gated.apply(self.gate_proj(states), self.up_proj(states), self.activation, self.by))


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, gate: Tensor, up: Tensor, activation: tuple[str, str], by: Elementwise
    ) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation, ctx.by = activation, by
        return by.gated(_rows(gate), _rows(up), activation).view(gate.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        gate, up = ctx.saved_tensors
        to_gate, to_up = ctx.by.gated_back(_rows(gradient), _rows(gate), _rows(up), ctx.activation)
        return to_gate.view(gate.shape), to_up.view(gate.shape), None, None


class RMSNorm(nn.Module):
    """States over their root mean square, times a frozen gain, in float32; returned in the states' own precision."""

    gain: Tensor  # (D,)

    def __init__(self, layer: Any, gain: Tensor, eps: float, by: Elementwise = PLAIN) -> None:
        super().__init__()
        self.weight = layer.weight  # the model's own, under its name, of which ``gain`` was made
        self.register_buffer("gain", gain, persistent=False)
        self.eps, self.by = eps, by

    def forward(self, states: Tensor) -> Tensor:
        return _Norm.apply(states, self.gain, self.eps, self.by)  # type: ignore[return-value]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, gain: Tensor, eps: float, by: Elementwise) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(states, gain)
        ctx.eps, ctx.by = eps, by
        return by.norm(_rows(states), gain, eps).view(states.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        states, gain = ctx.saved_tensors
        return ctx.by.norm_back(_rows(gradient), _rows(states), gain, ctx.eps).view(states.shape), None, None, None


def _rows(states: Tensor) -> Tensor:
    """(N, D) of any states (..., D), none of autograd's: what is compiled is compiled for each kind of tensor anew."""
    return states.reshape(-1, states.shape[-1]).data


def lay_out(model: nn.Module, *, compile: bool = False) -> None:
    """Replace in place what can be replaced of a frozen ``model``, on a CPU; its LoRA comes after. Raises ValueError
    where it is to ``compile`` and this machine cannot."""
    by = _compiled() if compile else PLAIN
    model.requires_grad_(False)
    exchange(model, partial(_gated, by=by))
    exchange(model, partial(_norm, by=by))


def _compiled() -> Elementwise:
    try:
        compiled().norm(made_up(8, torch.float32), torch.ones(8), 1e-6)
    except Exception as error:
        raise ValueError(
            "compile: true joins operations by torch.compile, which fails here: it needs a C++ compiler, such as g++ "
            f"(Debian: apt install g++), and a file system that runs programs. Or set compile: false. ({error})"
        ) from error
    return compiled()


def _gated(mlp: Any, by: Elementwise) -> GatedMLP | None:
    if (activation := gated_activation(mlp)) is None:
        return None
    return _tried(GatedMLP(mlp, activation, by), mlp, mlp.up_proj.in_features, mlp.up_proj.weight.dtype)


def _norm(layer: Any, by: Elementwise) -> RMSNorm | None:
    if (found := norm_gain(layer)) is None:
        return None
    return _tried(RMSNorm(layer, *found, by), layer, len(found[0]), torch.float32)


def _tried(layer: Any, old: Any, width: int, dtype: torch.dtype) -> Any:
    if dtype not in TOLERANCE:
        return None
    states = [made_up(width, dtype).requires_grad_() for _ in range(2)]
    out, expected = layer(states[0]), old(states[1])
    # not its sum: the gradient of a norm's output along itself is none
    weights = made_up(out.shape[-1], dtype).flip(0)
    gradient, wanted = (torch.autograd.grad(y, x, weights)[0] for y, x in zip((out, expected), states, strict=True))
    return layer if same(out, expected) and same(gradient, wanted) else None
