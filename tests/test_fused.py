"""Layers laid out for a CPU beside the ones that transformers made."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ragkit import fused
from ragkit.encoder import LocalEncoder
from ragkit.forward import CAUSAL, embed
from ragkit.fused import GatedMLP, PackedLinear, RMSNorm, fuse

ROWS = [[1, 5, 6, 7, 2], [1, 2], [1, *range(10, 60), 2], [1, 9, 2]]
BF16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
PRECISIONS = [torch.float32, torch.bfloat16] if BF16 else [torch.float32]


def tiny(architecture: str, **knobs: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, pad_token_id=0, **knobs,
    )  # fmt: skip
    model = AutoModel.from_config(config, attn_implementation="sdpa").eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 1:  # gains and biases, which start as ones and zeros; Gemma's grow to 60
            nn.init.uniform_(weight, 0, 60 if architecture == "gemma3_text" and "norm" in name else 1)
    return model


def kinds(model: nn.Module) -> set[type]:
    return {type(layer) for layer in model.modules()}


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("architecture", sorted(CAUSAL))
def test_every_architecture_says_what_it_said(architecture: str, dtype: torch.dtype):
    plain: Any = tiny(architecture)
    plain.to(dtype)
    laid_out: Any = deepcopy(plain)
    before = torch.random.get_rng_state()
    fuse(laid_out)
    assert torch.equal(torch.random.get_rng_state(), before)  # a caller's draws are the caller's
    assert {PackedLinear, GatedMLP, RMSNorm} < kinds(laid_out)
    assert not {nn.Linear, type(plain.norm), type(plain.layers[0].mlp)} & kinds(laid_out)
    with torch.inference_mode():
        ours, theirs = embed(laid_out, ROWS), embed(plain, ROWS)
    near = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(ours, theirs, atol=near, rtol=near)


@pytest.mark.parametrize("activation", ["gelu", "silu", "gelu_pytorch_tanh", "relu", "quick_gelu"])
def test_an_activation_is_known_by_what_it_computes(activation: str):
    plain = tiny("gemma3_text", hidden_activation=activation)
    laid_out: Any = deepcopy(plain)
    fuse(laid_out)
    assert (GatedMLP in kinds(laid_out)) == (activation not in ("relu", "quick_gelu"))
    assert nn.Linear not in kinds(laid_out)  # where the whole cannot be, its products still are
    with torch.inference_mode():
        torch.testing.assert_close(embed(laid_out, ROWS), embed(plain, ROWS), atol=1e-5, rtol=1e-4)


class Centred(nn.Module):
    """Has a norm's weight and eps, and takes the mean away first."""

    def __init__(self) -> None:
        super().__init__()
        self.eps, self.weight = 1e-6, nn.Parameter(torch.ones(8))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return nn.functional.layer_norm(states, (8,), self.weight, None, self.eps)


class OddMLP(nn.Module):
    """Has a gated MLP's parts, and adds where that multiplies."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
        self.act_fn = nn.SiLU()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(states)) + self.up_proj(states))


def test_a_layer_that_only_looks_alike_stays():
    model = nn.Sequential(Centred(), nn.LayerNorm(8), OddMLP(), nn.Bilinear(8, 8, 8))
    fuse(model)
    assert [type(layer) for layer in model] == [Centred, nn.LayerNorm, OddMLP, nn.Bilinear]


def test_where_pytorch_has_no_such_product_linear_layers_stay(monkeypatch: pytest.MonkeyPatch):
    model: Any = tiny("gemma3_text")
    broken = SimpleNamespace(_reorder_linear_weight=lambda *_: None, _linear_pointwise=lambda *_: torch.zeros(8, 16))
    for mkldnn in (SimpleNamespace(), broken):  # an operation that is gone, and one that computes something else
        monkeypatch.setattr(fused.torch.ops, "mkldnn", mkldnn)
        fuse(model)
        assert {nn.Linear, RMSNorm} < kinds(model)
        assert not {PackedLinear, GatedMLP} & kinds(model)


def test_a_trainable_model_keeps_its_parameters_and_another_is_not_saved(mistral_folder: Path, tmp_path: Path):
    kept, laid_out = (LocalEncoder.load(mistral_folder, device="cpu", trainable=t) for t in (True, False))
    names = {name for name, _ in kept.model.named_parameters()}  # type: ignore[union-attr]
    assert "layers.0.mlp.up_proj.weight" in names
    assert {name for name, _ in laid_out.model.named_parameters()} == {"embed_tokens.weight"}  # type: ignore[union-attr]
    assert kept.n_parameters == laid_out.n_parameters
    for save in (laid_out.model.state_dict, lambda: laid_out.model.save_pretrained(tmp_path)):  # type: ignore[union-attr]
        with pytest.raises(RuntimeError, match=r"cannot be saved: load it with .*trainable=True"):
            save()
    assert kept.fingerprint == laid_out.fingerprint
