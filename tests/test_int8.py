from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ragkit.encoder import LocalEncoder
from ragkit.int8 import Int8Linear, quantize
from ragkit.references import TEXTS
from ragkit.task import Task

TASK = Task("web-search", "Given a web search query, retrieve relevant passages that answer the query")


def test_a_product_keeps_its_small_channels_beside_large_ones():
    """One channel two hundred times the others: rounded by one step for all, the others would be lost."""
    torch.manual_seed(0)
    linear = nn.Linear(64, 32, bias=False)
    states = torch.randn(3, 5, 64)
    states[..., 7] *= 200
    states[0] *= 1000  # a long token beside short ones
    with torch.no_grad():
        linear.weight[:, 7] /= 200
        expected, found = linear(states), Int8Linear.best(linear, states.flatten(0, 1))(states)
    assert found.shape == expected.shape
    cosines = nn.functional.cosine_similarity(found, expected, dim=-1)
    assert cosines.min() > 0.999
    assert not torch.equal(found, expected)


def test_embeddings_stay_near_in_every_script(mistral_folder: Path):
    exact, rounded = (LocalEncoder.load(mistral_folder, int8=int8) for int8 in (False, True))
    passages, queries = [p for _, p in TEXTS.values()], [q for q, _ in TEXTS.values()]
    assert not [layer for layer in rounded.model.modules() if isinstance(layer, nn.Linear)]
    for ours, theirs in [
        (rounded.encode_passages(passages), exact.encode_passages(passages)),
        (rounded.encode_queries(queries, TASK), exact.encode_queries(queries, TASK)),
    ]:
        np.testing.assert_allclose(np.linalg.norm(ours, axis=1), 1, atol=1e-5)
        assert (ours * theirs).sum(axis=1).min() > 0.99
        assert not np.allclose(ours, theirs, atol=1e-4)
    assert rounded.fingerprint == exact.fingerprint  # one store may hold both


def test_what_has_no_such_form_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="layers with a bias"):
        quantize(nn.Sequential(nn.Linear(2, 2)), lambda: None)
    monkeypatch.setattr("ragkit.int8.ENGINES", set())
    with pytest.raises(ValueError, match="AVX2"):
        quantize(nn.Sequential(nn.Linear(2, 2, bias=False)), lambda: None)
