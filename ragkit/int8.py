"""A decoder's matrix products in 8 bits, where the processor multiplies small integers faster than floats.

Weights keep a step size for each output channel, states one for each token, found as they come. A few input channels
of a language model are a hundred times larger than the others and would take the steps from all: they are shrunk before
rounding and their weights grown as much, so that the product stays what it was (SmoothQuant, arXiv 2211.10438, alpha
0.5). How large channels get is seen on the project's own reference texts, in eight scripts. Everything between the
products stays in float32. The embeddings mean what they did (cosine 0.9975 to float32 for mini): the fingerprint
stays, and a store may hold both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ENGINES = {"x86", "fbgemm", "onednn"}  # PyTorch's kernels for processors with AVX2
STEPS = 63  # of a weight to either side: AVX2 adds two products in 16 bits, and 127 x 255 twice would overflow them


class Int8Linear(nn.Module):
    """``linear`` over states whose channels were seen to reach ``largest`` (in,)."""

    shrink: Tensor  # (in,)

    def __init__(self, linear: nn.Linear, largest: Tensor) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        grow = (largest.clamp_min(1e-5) / weight.abs().amax(dim=0).clamp_min(1e-5)).sqrt()
        self.register_buffer("shrink", 1 / grow, persistent=False)
        weight = weight * grow
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces another form of quantised tensors for later releases
            steps = weight.abs().amax(dim=1).double() / STEPS
            zeros = torch.zeros(len(weight), dtype=torch.long)
            self.packed = torch.ops.quantized.linear_prepack(
                torch.quantize_per_channel(weight, steps.clamp_min(1e-12), zeros, 0, torch.qint8),
                None,
            )

    def forward(self, states: Tensor) -> Tensor:
        states = states * self.shrink
        length = states.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)  # of each token
        return torch.ops.quantized.linear_dynamic(states / length, self.packed) * length


def quantize(model: nn.Module, calibrate: Callable[[], Any]) -> None:
    """Replace the linear layers of ``model`` (float32, on a CPU) in place. ``calibrate`` runs it over a few texts.

    Raises ValueError where this processor or the model has no such form.
    """
    if torch.backends.quantized.engine not in ENGINES:
        raise ValueError(
            f"int8 needs a processor with AVX2, and PyTorch has the engine {torch.backends.quantized.engine!r} here: "
            "load the model without precision"
        )
    linears = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    if biased := [name for name, layer in linears if layer.bias is not None]:
        raise ValueError(f"int8 is not for layers with a bias ({biased[0]}): load the model without precision")
    largest = {name: torch.zeros(layer.in_features) for name, layer in linears}

    def watch(name: str) -> Callable[..., None]:
        def seen(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            reached = inputs[0].detach().abs().flatten(0, -2).amax(dim=0)
            largest[name] = torch.maximum(largest[name], reached)

        return seen

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in linears]
    try:
        calibrate()
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in linears:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Int8Linear(layer, largest[name]))
