"""One forward pass: rows of token ids in, embeddings out, with as little beside the matrix products as can be.

Rows are padded on the right and pooled by their lengths, never by ``ids != pad`` (e5-mistral pads with its EOS).
Under causal attention no real position then sees a pad, so no mask is needed and PyTorch takes its causal kernel.
Three things that transformers' own attention would spend a mask of T x T on are done without one: a sliding window
is walked in blocks, rows that lie end to end are taken one by one, and a head that many rows begin with (every query
of a task begins with the same instruction) is computed once: its keys and values are put before each row's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ATTENTION = "ragkit_causal"  # the name of `causal_attention` in a transformers configuration
FOLDED_QUERIES = 128  # of a row, compared at once with all keys that they see: their scores stay in the cache

# Architectures whose layers look back at everything, or at a window that they tell their attention; each is tested
# against transformers' own (tests/test_forward.py). What else a layer does with a mask would be lost: it keeps SDPA.
CAUSAL = frozenset({"gemma3_text", "llama", "mistral", "qwen2", "qwen3"})


@dataclass(eq=False, slots=True)
class Head:
    """The first tokens of many rows, and once computed each layer's keys and values of them, (1, heads, P, d)."""

    ids: tuple[int, ...]
    states: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def begins(self, row: Sequence[int]) -> bool:
        """Whether ``row`` goes on from here: at least one more token, for the last one's state is the embedding."""
        return len(row) > len(self.ids) and tuple(row[: len(self.ids)]) == self.ids

    def compute(self, model: nn.Module) -> None:
        """One forward pass over ``ids``; the model must attend by :func:`causal_attention`."""
        tokens = torch.tensor([self.ids], device=next(model.parameters()).device)
        states: list[tuple[Tensor, Tensor]] = []
        model(input_ids=tokens, use_cache=False, keep=states)
        self.states = states


def pad(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu", multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Right-padded ids (B, T), T a ``multiple``, and lengths (B,). Pads are zeros: no row ever reads them."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), padded(int(lengths.max()), multiple), dtype=torch.long)
    for target, row in zip(ids, rows, strict=True):
        target[: len(row)] = torch.tensor(row)
    return ids.to(device), lengths.to(device)


def padded(length: int, multiple: int) -> int:
    """The length (T) to which :func:`pad` brings rows whose longest has ``length`` tokens."""
    return -(-length // multiple) * multiple


def pool(hidden: Tensor, lengths: Tensor, *, unit: bool = True) -> Tensor:
    """Rows (B, D) in float32 from the last layer's states (B, T, D): each row's last token, its EOS."""
    last = hidden[torch.arange(len(lengths), device=hidden.device), lengths - 1].float()
    return nn.functional.normalize(last, dim=-1) if unit else last


def embed(
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    *,
    head: Head | None = None,
    shared: int = 0,
    packed: bool | None = None,
    multiple: int = 1,
    unit: bool = True,
) -> Tensor:
    """Embeddings (B, D) of token rows, in one forward pass; differentiable. Of length one, or with ``unit=False`` as
    the last layer leaves them.

    ``rows`` all begin with the tokens of ``head``, whose states are taken from it, or have their first ``shared``
    tokens in common, which are computed once (both under :func:`causal_attention` only).
    ``packed`` rows lie end to end without pads, kept apart by their bounds: by default under FlashAttention 2, which
    has a kernel for it; others are padded to a ``multiple`` of tokens. Models must be causal: ``LocalEncoder``
    refuses others.
    """
    config: Any = model.config
    device = next(model.parameters()).device
    if config._attn_implementation == "flash_attention_2" if packed is None else packed:
        return _embed_packed(model, rows, device, unit)
    if shared:
        head = Head(tuple(rows[0][:shared]))
        head.compute(model)
    if head is None:
        ids, lengths = pad(rows, device, multiple)
        return pool(model(input_ids=ids, use_cache=False).last_hidden_state, lengths, unit=unit)
    start = len(head.ids)
    ids, lengths = pad([row[start:] for row in rows], device, multiple)
    positions = torch.arange(start, start + ids.shape[1], device=device)[None]
    hidden = model(input_ids=ids, position_ids=positions, head=head.states, use_cache=False).last_hidden_state
    return pool(hidden, lengths, unit=unit)


def _embed_packed(model: nn.Module, rows: Sequence[Sequence[int]], device: torch.device, unit: bool) -> Tensor:
    lengths = torch.tensor([len(row) for row in rows], device=device)
    ids = torch.tensor([i for row in rows for i in row], device=device)[None]  # (1, tokens)
    positions = torch.cat([torch.arange(len(row), device=device) for row in rows])[None]
    ends = lengths.cumsum(0)
    bounds = nn.functional.pad(ends, (1, 0)).int()
    longest = max(len(row) for row in rows)
    hidden = model(
        input_ids=ids,
        position_ids=positions,
        cu_seq_lens_q=bounds,  # given, so that attention need not find them, layer by layer
        cu_seq_lens_k=bounds,
        max_length_q=longest,
        max_length_k=longest,
        use_cache=False,
    ).last_hidden_state
    return pool(hidden.transpose(0, 1)[ends - 1], torch.ones_like(lengths), unit=unit)


def common(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """The tokens that all rows begin with."""
    equal = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*rows, strict=False))
    return tuple(first for first, *_ in equal)


def batches(lengths: Sequence[int], token_budget: int, devices: int = 1) -> Iterator[list[int]]:
    """Positions grouped longest first, so that rows of like length share a batch of at most
    ``token_budget`` tokens for each of ``devices``, pads included (one row each always goes)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    start = 0
    while start < len(order):
        size = devices * max(1, token_budget // max(1, lengths[order[start]]))
        yield order[start : start + size]
        start += size


def causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    head: list[tuple[Tensor, Tensor]] | None = None,
    keep: list[tuple[Tensor, Tensor]] | None = None,
    cu_seq_lens_q: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of queries (B, H, T, d) over keys and values (B, G, T, d) at and before them; returns (B, T, H, d).

    Transformers calls it by :data:`ATTENTION`, layer by layer. ``head`` and ``keep`` hold a pair for each layer: what
    lies before every row, and where this row's own are to be left. Raises ValueError for a mask: none is needed here,
    and one that came anyway would mean something that this function does not do.
    """
    if attention_mask is not None:
        raise ValueError("causal_attention reads no mask: right padding needs none; choose attn_implementation='sdpa'")
    if keep is not None:
        keep.append((key, value))
    options = {"dropout_p": dropout, "scale": scaling, "enable_gqa": query.shape[1] != key.shape[1]}
    if head is not None:
        before = [state.expand(len(key), -1, -1, -1) for state in head[module.layer_idx]]  # type: ignore[index]
        key, value = (torch.cat([old, new], dim=2) for old, new in zip(before, (key, value), strict=True))
    if cu_seq_lens_q is not None:
        bounds = cu_seq_lens_q.tolist()
        parts = [slice(a, b) for a, b in pairwise(bounds)]
        rows = [_back(query[:, :, p], key[:, :, p], value[:, :, p], sliding_window, options) for p in parts]
        out = torch.cat(rows, dim=2)
    else:
        out = _back(query, key, value, sliding_window, options)
    return out.transpose(1, 2).contiguous(), None


def _back(query: Tensor, key: Tensor, value: Tensor, window: int | None, options: dict[str, Any]) -> Tensor:
    """The last T of S keys belong to the T queries. A query sees itself and what is before it, or of that the last
    ``window``. A block of queries is compared with the keys that it sees alone, so long rows cost T x window."""
    length, before = query.shape[2], key.shape[2] - query.shape[2]
    window = min(window or key.shape[2], key.shape[2])
    folds = _folds(query, options["dropout_p"])
    if not folds and not before and window == length:
        return scaled_dot_product_attention(query, key, value, is_causal=length > 1, **options)
    blocks, size = [], FOLDED_QUERIES if folds else window
    for start in range(0, length, size):
        end = min(start + size, length)
        first = max(0, before + start - window + 1)  # the farthest that the block's first query sees
        seen = query[:, :, start:end], key[:, :, first : before + end], value[:, :, first : before + end]
        shape = end - start, before + start - first, window
        if folds:
            # kept for the next layer, but not where layers are recomputed: those must see the same operations again
            made = _bias if torch.is_inference_mode_enabled() else _bias.__wrapped__
            bias = made(*shape, query.shape[1] // key.shape[1], query.dtype)
            blocks.append(_folded(*seen, bias, options["scale"]))
        else:
            mask = _band(*shape, query.device)
            blocks.append(scaled_dot_product_attention(*seen, attn_mask=mask, **options))
    return torch.cat(blocks, dim=2) if len(blocks) > 1 else blocks[0]


def _folds(query: Tensor, dropout: float) -> bool:
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not dropout


def _folded(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scale: float | None) -> Tensor:
    """Two matrix products, in which the heads that share keys are one: as fast in bfloat16 on a CPU as its others,
    where PyTorch's own attention there takes 3.5 times as long (benchmarks/RESULTS.md)."""
    rows, heads, length, width = query.shape
    groups = rows * key.shape[1]
    keys, values = key.reshape(groups, -1, width), value.reshape(groups, -1, width)
    scores = torch.baddbmm(
        bias, query.reshape(groups, -1, width), keys.transpose(1, 2), alpha=width**-0.5 if scale is None else scale
    )
    return torch.bmm(scores.softmax(dim=-1), values).view(rows, heads, length, width)


@lru_cache(maxsize=8)
def _bias(queries: int, before: int, window: int, heads: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of ``heads`` that share keys: (heads * queries, before + queries), 0 where
    :func:`_band` is true and -inf elsewhere."""
    band = _band(queries, before, window, torch.device("cpu"))
    return torch.zeros(band.shape, dtype=dtype).masked_fill_(~band, -torch.inf).repeat(heads, 1)


def _band(queries: int, before: int, window: int, device: torch.device) -> Tensor:
    """(queries, before + queries), true where the key is at or before the query and less than ``window`` away."""
    away = torch.arange(queries, device=device)[:, None] + before - torch.arange(before + queries, device=device)
    return (away >= 0) & (away < window)


def register() -> None:
    """Make :data:`ATTENTION` known to transformers, which is imported here and not before."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, causal_attention)  # type: ignore[arg-type]
