"""Operations of a decoder's forward pass, counted: what embedding a text costs whatever it runs on.

A token is multiplied with every weight of the linear layers (a multiplication and an addition each); attention adds
products of queries with keys and of weights with values, half of them under a causal mask. Look-ups, norms and
activations are left out: they cost time, but are not what a device's peak counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a decoder. ``width`` is all heads together, which need not be the hidden size (Gemma)."""

    name: str
    parameters: float  # look-up table included: what a device must hold
    linear: float  # weights that a token is multiplied with
    layers: int  # 0 where only parameters are known: attention is then left out
    width: int
    dimension: int  # of the embedding; 0 where not known


MINI = Shape("mini", 268_042_240, 100_270_080, 18, 1024, 640)  # gemma-3-270m, as shape_of counts its config.json


def attention(layers: int, width: int, lengths: Iterable[int]) -> float:
    """Forward operations of causal attention over texts of these lengths (tokens)."""
    return 2.0 * layers * width * sum(length**2 for length in lengths)


def forward(shape: Shape, length: float) -> float:
    """Operations to embed one text of ``length`` tokens."""
    return 2.0 * shape.linear * length + 2.0 * shape.layers * shape.width * length**2


def shape_of(config: Mapping[str, Any], name: str) -> Shape:
    """Of a ``config.json`` of the llama family (Mistral, Qwen, Gemma: gated feed-forward, grouped heads)."""
    try:
        hidden, inner, layers, heads, words = (
            int(config[key])
            for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
        )
    except KeyError as error:
        raise ValueError(
            f"{name}: its configuration has no {error.args[0]!r}, so it is no decoder of the llama family; "
            "give --model-parameters"
        ) from error
    groups = int(config.get("num_key_value_heads") or heads)
    head = int(config.get("head_dim") or hidden // heads)
    layer = hidden * head * (2 * heads + 2 * groups) + 3 * hidden * inner
    return Shape(name, layers * layer + words * hidden, layers * layer, layers, heads * head, hidden)


def shape_of_model(model: str) -> Shape:
    """Of ``mini``, or of a model's folder."""
    if model in ("mini", "mini-base"):
        return MINI
    file = Path(model) / "config.json"
    if not file.exists():
        raise ValueError(
            f"model {model!r}: there is no {file}; give 'mini', a folder with config.json, or --model-parameters"
        )
    return shape_of(json.loads(file.read_text("utf-8")), Path(model).name)


def shape_of_size(parameters: float) -> Shape:
    """Of a model of which only the size is known: every parameter counts as a weight, so a bit too much."""
    return Shape(f"{parameters:.3g} parameters", parameters, parameters, 0, 0, 0)
