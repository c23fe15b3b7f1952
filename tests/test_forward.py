"""Our attention beside transformers' own, on tiny random models of every architecture that it is used for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ragkit import forward
from ragkit.forward import ATTENTION, CAUSAL, Head, causal_attention, embed, register

register()

ROWS = [[1, 5, 6, 7, 2], [1, 2], [1, *range(10, 60), 2], [1, 9, 2]]


@pytest.fixture(autouse=True, params=["sdpa", "folded"])
def products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of the products that attention may be made of, to the fifth digit: in float32 the second is taken by none
    but these tests. Blocks of eight queries, for seams."""
    monkeypatch.setattr(forward, "_folds", lambda query, dropout: request.param == "folded")
    monkeypatch.setattr(forward, "FOLDED_QUERIES", 8)


def tiny(architecture: str, attention: str, window: int = 4096, **knobs: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    windowed: dict[str, Any] = {"sliding_window": window}
    if architecture.startswith("qwen"):
        windowed |= {"use_sliding_window": True, "max_window_layers": 1}
    config = AutoConfig.for_model(
        architecture, vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=7,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, pad_token_id=0,
        **({} if architecture == "llama" else windowed), **knobs,
    )  # fmt: skip  # seven layers: of six of Gemma's, one sees everything
    return AutoModel.from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("window", [4096, 16, 7])
@pytest.mark.parametrize("architecture", sorted(CAUSAL))
def test_every_architecture_computes_what_transformers_computes(architecture: str, window: int):
    ours, theirs = (tiny(architecture, attention, window) for attention in (ATTENTION, "sdpa"))
    expected = embed(theirs, ROWS)
    torch.testing.assert_close(embed(ours, ROWS), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(ours, ROWS, packed=True), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(theirs, ROWS, packed=True), expected, atol=1e-5, rtol=1e-4)
    if window < 50 and architecture != "llama":  # or the window would be tested by nothing
        assert not torch.allclose(expected, embed(tiny(architecture, "sdpa"), ROWS), atol=1e-3)


@pytest.mark.parametrize("window", [4096, 7])
@pytest.mark.parametrize("architecture", sorted(CAUSAL))
def test_rows_that_go_on_from_a_head_are_those_computed_in_whole(architecture: str, window: int):
    model = tiny(architecture, ATTENTION, window)
    shared = [1, 20, 21, 22, 23, 24, 25, 26, 27, 28]
    rows = [[*shared, *row[1:]] for row in ROWS]
    head = Head(tuple(shared))
    head.compute(model)
    assert len(head.states) == 7
    torch.testing.assert_close(embed(model, rows, head=head), embed(model, rows), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embed(model, rows[1:2], head=head), embed(model, rows[1:2]), atol=1e-5, rtol=1e-4)


def test_gradients_are_transformers_own():
    found = []
    for attention in (ATTENTION, "sdpa"):
        model = tiny("gemma3_text", attention, 16)
        embed(model, ROWS)[:, 0].sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == len(found[1]) > 50
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_a_mask_is_refused():
    states = torch.zeros(1, 2, 3, 4)
    with pytest.raises(ValueError, match="reads no mask"):
        causal_attention(torch.nn.Identity(), states, states, states, torch.ones(1, 1, 3, 3))
