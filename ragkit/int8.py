"""A decoder's matrix products in 8 bits, where the processor multiplies small integers faster than floats.

Weights keep a step size for each output channel, states one for each token, found as they come. A few input channels
of a language model are a hundred times larger than the others and would take the steps from all: they are shrunk before
rounding and their weights grown as much, so that the product stays what it was (SmoothQuant, arXiv 2211.10438, alpha
0.5). How large channels get is seen on the project's own reference texts, in eight scripts. What lies between the
products has the precision that the model is cast to afterwards. The embeddings mean what they did (cosine 0.998 to
float32 for mini): the fingerprint stays, and a store may hold both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ENGINES = {"x86", "fbgemm", "onednn"}  # PyTorch's kernels for processors with AVX2
# Steps of a weight to either side. AVX2 adds two products in 16 bits: with 63 none overflows, with 127 two large ones
# do, and rounding is finer. Which is better depends on the weights, so each layer takes what errs least.
STEPS = (63, 100, 127)


class Int8Linear(nn.Module):
    """``linear`` over states such as ``seen`` (N, in), with weights of ``steps`` to either side."""

    def __init__(self, linear: nn.Linear, seen: Tensor, steps: int) -> None:
        super().__init__()
        weight = linear.weight.detach().float()  # (out, in)
        largest = seen.abs().amax(dim=0).clamp_min(1e-5)
        grow = (largest / weight.abs().amax(dim=0).clamp_min(1e-5)).sqrt()
        self.shrink = 1 / grow  # (in,); no buffer: it stays in float32 when the model is cast
        weight = weight * grow
        sizes = weight.abs().amax(dim=1).double().clamp_min(1e-12) / steps
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch announces another form of quantised tensors for later releases
            rounded = torch.quantize_per_channel(
                weight, sizes, torch.zeros(len(weight), dtype=torch.long), 0, torch.qint8
            )
            self.packed = torch.ops.quantized.linear_prepack(rounded, None)

    @classmethod
    @torch.no_grad()
    def best(cls, linear: nn.Linear, seen: Tensor) -> Int8Linear:
        """Of all numbers of steps that which errs least on ``seen``."""
        exact = linear(seen)
        layers = [cls(linear, seen, steps) for steps in STEPS]
        return min(layers, key=lambda layer: float((layer(seen) - exact).square().sum()))

    def forward(self, states: Tensor) -> Tensor:
        shrunk = states * self.shrink  # in float32, whatever the states are in
        length = shrunk.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)  # of each token
        product = torch.ops.quantized.linear_dynamic(shrunk / length, self.packed) * length
        return product.to(states.dtype)


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
    seen: dict[nn.Module, list[Tensor]] = {layer: [] for _, layer in linears}

    def see(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[layer].append(inputs[0].flatten(0, -2))

    hooks = [layer.register_forward_pre_hook(see) for _, layer in linears]
    try:
        calibrate()
    finally:
        for hook in hooks:
            hook.remove()
    for name, layer in linears:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, Int8Linear.best(layer, torch.cat(seen.pop(layer))))
