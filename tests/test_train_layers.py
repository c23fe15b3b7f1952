"""The layers that a CPU trains a LoRA on, beside transformers' and peft's."""

from __future__ import annotations

import shutil
from copy import deepcopy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear as PeftLinear
from test_fused import PRECISIONS, ROWS, Centred, OddMLP, kinds, tiny
from torch import nn

from ragkit.forward import CAUSAL
from trainer.embedder import Embedder, embed_rows, lora
from trainer.layers import GatedMLP, LoraLinear, RMSNorm, lay_out


def tame(architecture: str, **knobs: Any) -> Any:
    """:func:`tiny` with gains below one: attention that larger ones saturate has no gradient but noise."""
    model = tiny(architecture, **knobs)
    for weight in model.parameters():
        if weight.dim() == 1:
            nn.init.uniform_(weight, 0, 1)
    return model


def adapted(model: Any, *, ours: bool, dropout: float = 0.0) -> Embedder:
    """With a LoRA that says something; ``ours`` or peft's."""
    torch.manual_seed(0)
    embedder = lora(model, rank=4, alpha=8, dropout=dropout).train()
    for name, parameter in embedder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    for layer in embedder.modules():
        if isinstance(layer, LoraLinear) and not ours:
            layer.__class__ = PeftLinear  # type: ignore[assignment]
    return embedder


def gradients(embedder: Embedder, chunk_tokens: int = 1 << 20) -> dict[str, torch.Tensor]:
    """Of the LoRA, by its names as they are saved; and the loss."""
    dtype = embedder.base_model.embed_tokens.weight.dtype  # type: ignore[union-attr]
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        vectors = embed_rows(embedder, ROWS, chunk_tokens)
    loss = (vectors[:2] @ vectors[2:].T).exp().sum()
    loss.backward()
    made = {name: p.grad for name, p in embedder.named_parameters() if p.grad is not None}
    return made | {"loss": loss.detach()}


def whole(made: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([made[name].flatten().float() for name in sorted(made)])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("architecture", sorted(CAUSAL))
def test_every_architecture_learns_what_it_learnt(architecture: str, dtype: torch.dtype):
    plain = tame(architecture)
    plain.to(dtype)
    laid_out, copy = deepcopy(plain), deepcopy(plain)
    lay_out(laid_out)
    model, expected = adapted(laid_out, ours=True), adapted(plain, ours=False)
    assert {LoraLinear, GatedMLP, RMSNorm} < kinds(model)
    assert not {PeftLinear, type(plain.norm), type(plain.layers[0].mlp)} & kinds(model)
    assert model.state_dict().keys() == expected.state_dict().keys()
    ours, theirs = gradients(model), gradients(expected)
    assert ours.keys() == theirs.keys()
    if dtype == torch.float32:
        for name in ours:
            largest = float(theirs[name].abs().max())
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-4 * largest, rtol=1e-3)
    else:  # both round; against the exact gradient neither is nearer
        exact = whole(gradients(adapted(copy.float(), ours=False)))
        near, wanted = (torch.cosine_similarity(whole(g), exact, dim=0) for g in (ours, theirs))
        assert 1 - near < 2 * (1 - wanted) + 0.005, (near, wanted)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_what_is_compiled_learns_the_same(dtype: torch.dtype):
    """Of chunks of several shapes, one of a single row; compiled once and not for each."""
    plain = tame("gemma3_text")
    plain.to(dtype)
    joined = deepcopy(plain)
    lay_out(plain)
    lay_out(joined, compile=True)
    assert {GatedMLP, RMSNorm} < kinds(joined)
    ours, theirs = (whole(gradients(adapted(model, ours=True), 12)) for model in (joined, plain))
    assert torch.cosine_similarity(ours, theirs, dim=0) > (0.99999 if dtype == torch.float32 else 0.99)
    assert torch.norm(ours) == pytest.approx(float(torch.norm(theirs)), rel=0.02)


def test_a_machine_that_cannot_compile_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch):
    def fails() -> None:
        raise RuntimeError("no working C++ compiler")

    monkeypatch.setattr("trainer.layers.compiled", fails)
    with pytest.raises(ValueError, match=r"needs a C\+\+ compiler.*compile: false.*no working"):
        lay_out(tame("gemma3_text"), compile=True)


@pytest.mark.parametrize("activation", ["gelu", "silu", "gelu_pytorch_tanh", "relu"])
def test_an_activation_is_known_by_what_it_computes(activation: str):
    plain = tame("gemma3_text", hidden_activation=activation)
    laid_out = deepcopy(plain)
    lay_out(laid_out)
    assert (GatedMLP in kinds(laid_out)) == (activation != "relu")
    ours, theirs = (gradients(adapted(model, ours=same)) for model, same in ((laid_out, True), (plain, False)))
    torch.testing.assert_close(whole(ours), whole(theirs), atol=1e-5, rtol=1e-3)


def test_a_layer_that_only_looks_alike_stays():
    model = nn.Sequential(Centred(), nn.LayerNorm(8), OddMLP())
    lay_out(model)
    assert [type(layer) for layer in model] == [Centred, nn.LayerNorm, OddMLP]


@pytest.mark.parametrize("bias", [True, False])
def test_a_product_with_its_lora_is_pefts_to_the_last_case(bias: bool):
    """Behind a bias, with dropout, switched off, of two adapters, and merged."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = {}
            self.first, self.second = nn.Linear(6, 5, bias=bias), nn.Linear(5, 3, bias=bias)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x))

    torch.manual_seed(0)
    base = One()
    states = torch.randn(2, 3, 6)
    made = []
    for ours in (True, False):
        found = []
        for dropout in (0.0, 0.5):
            config = LoraConfig(r=2, lora_alpha=6, lora_dropout=dropout, target_modules=["first", "second"])
            if ours:
                config._register_custom_module({nn.Linear: LoraLinear})
            torch.manual_seed(1)
            model: Any = get_peft_model(deepcopy(base), config)
            model.add_adapter("other", config)
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    nn.init.normal_(parameter)
            assert (LoraLinear in kinds(model)) == ours
            for active in ("default", "other"):
                model.set_adapter(active)
                torch.manual_seed(2)
                out = model(states)
                out.square().sum().backward()
                found += [out, *(p.grad for n, p in model.named_parameters() if f".{active}." in n)]
            with model.disable_adapter():
                found.append(model(states))
            model.base_model.set_adapter(["default", "other"])
            found.append(model.eval()(states))
            model.merge_adapter()
            found.append(model(states))
        made.append(found)
    for own, expected in zip(*made, strict=True):
        torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-4)
