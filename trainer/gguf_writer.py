"""A GGUF file that llama.cpp embeds with: weights, metadata and vocabulary in its own conventions.

Three things are lost without a word if they are not written: the pooling type (llama.cpp would take a
decoder's mean), ``add_eos_token`` (the last *word* would be pooled), and the order of the rows of a
Llama's query and key projections (llama.cpp rotates neighbouring pairs where transformers rotates
halves). Gemma's norms are stored as w - 1 by transformers and as w by llama.cpp.

llama.cpp's SentencePiece tokenizer knows scores, not merges. A BPE tokenizer of that family (Llama 2,
Mistral, Gemma) has one score per piece exactly when the merges that make a piece stand together in the
list and none of its splits is missing; :func:`vocabulary` checks that and refuses every other one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, TokenType
from torch import nn
from transformers import PreTrainedTokenizerBase

PRECISIONS = {
    "f32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "f16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
ARCHITECTURES = {
    "gemma3_text": gguf.MODEL_ARCH.GEMMA3,
    "llama": gguf.MODEL_ARCH.LLAMA,
    "mistral": gguf.MODEL_ARCH.LLAMA,  # llama.cpp's own converter writes Mistral so; it has no sliding window there
}

Fields = dict[str, tuple[Any, GGUFValueType]]  # metadata: key to value and type; a list is an array of that type

U32, F32, BOOL, STRING = GGUFValueType.UINT32, GGUFValueType.FLOAT32, GGUFValueType.BOOL, GGUFValueType.STRING


def write_gguf(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    file: Path,
    *,
    name: str,
    max_length: int,
    precision: str = "f16",
    base: Path | None = None,
) -> None:
    """Write ``model`` with last-token pooling, BOS and EOS. Matrices have ``precision``, norms float32.

    ``base`` is the GGUF file of the model's base: its metadata and vocabulary are taken over, instead
    of being made from config and tokenizer. Raises ValueError for what llama.cpp would compute otherwise.
    """
    config: Any = model.config
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"no GGUF for a model of type {config.model_type!r}: known are {', '.join(ARCHITECTURES)}; "
            "leave 'gguf' out of --formats"
        )
    kind, file_type = PRECISIONS[precision]
    arch = gguf.MODEL_ARCH_NAMES[ARCHITECTURES[config.model_type]]
    fields = base_fields(base) if base else {**model_fields(config, arch, max_length), **tokenizer_fields(tokenizer)}
    fields |= {
        "general.name": (name, STRING),
        "general.file_type": (int(file_type), U32),
        f"{arch}.pooling_type": (int(gguf.PoolingType.LAST), U32),
        "tokenizer.ggml.add_bos_token": (tokenizer.bos_token_id is not None, BOOL),
        "tokenizer.ggml.add_eos_token": (True, BOOL),
    }
    writer = GGUFWriter(file, arch)
    for key, (value, type_) in fields.items():
        if isinstance(value, list):
            writer.add_key_value(key, value, GGUFValueType.ARRAY, type_)
        else:
            writer.add_key_value(key, value, type_)
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        stem, suffix = f"model.{key}".rsplit(".", 1)
        target = names.get_name(stem)
        if target is None:
            raise ValueError(f"llama.cpp has no place for the weight {key} of {type(model).__name__}")
        array = convert(key, tensor.detach().float().cpu().numpy(), config)
        whole = array.ndim == 1 or (precision == "q8_0" and array.shape[-1] % 32)  # 32 weights share a scale
        to = GGMLQuantizationType.F32 if whole else kind
        data = gguf.quants.quantize(array, to)
        if to == GGMLQuantizationType.F16 and not np.isfinite(data).all():
            raise ValueError(f"the weight {key} has values beyond float16: use --gguf bf16")
        writer.add_tensor(f"{target}.{suffix}", data, raw_dtype=to)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def convert(key: str, array: np.ndarray, config: Any) -> np.ndarray:
    """A weight in llama.cpp's convention; the inverse of transformers' GGUF loader."""
    if config.model_type == "gemma3_text":
        return array + 1 if key.endswith("norm.weight") else array
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for projection, count in heads.items():
        if f".{projection}." in key:
            return interleave(array, count)
    return array


def interleave(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads * d, in) reordered within each head: 0, d/2, 1, d/2 + 1, ... The halves that
    transformers rotates against each other become the neighbours that llama.cpp rotates."""
    halves = array.reshape(heads, 2, -1, array.shape[-1])  # (heads, 2, d/2, in)
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(array.shape)


def base_fields(file: Path) -> Fields:
    """The metadata of a GGUF file, without what describes the file itself."""
    fields: Fields = {}
    for key, field in GGUFReader(file).fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            fields[key] = (field.contents(), field.types[-1])
    return fields


def model_fields(config: Any, arch: str, max_length: int) -> Fields:
    """Metadata from a transformers config. Raises ValueError where llama.cpp would compute another model."""
    gemma = arch == "gemma3"
    rope = config.rope_parameters
    full, sliding = (rope["full_attention"], rope["sliding_attention"]) if gemma else (rope, rope)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    for wrong, what in [
        (full["rope_type"] != "default" or sliding["rope_type"] != "default", f"scaled rotary positions ({rope})"),
        (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False), "biases"),
        (not gemma and config.hidden_act != "silu", f"the activation {getattr(config, 'hidden_act', '')}"),
        (not gemma and window and max_length > window, f"a sliding window ({window}) below max_length ({max_length})"),
        (gemma and config.query_pre_attn_scalar != head, "a query_pre_attn_scalar other than head_dim"),
        (gemma and config.layer_types != _gemma_layers(config.num_hidden_layers), "another order of sliding layers"),
    ]:
        if wrong:
            raise ValueError(f"this model has {what}, which the GGUF of a {arch} cannot say: leave 'gguf' out")
    fields: Fields = {
        "context_length": (config.max_position_embeddings, U32),
        "embedding_length": (config.hidden_size, U32),
        "block_count": (config.num_hidden_layers, U32),
        "feed_forward_length": (config.intermediate_size, U32),
        "attention.head_count": (config.num_attention_heads, U32),
        "attention.head_count_kv": (config.num_key_value_heads, U32),
        "attention.layer_norm_rms_epsilon": (config.rms_norm_eps, F32),
        "attention.key_length": (head, U32),
        "attention.value_length": (head, U32),
        "rope.freq_base": (full["rope_theta"], F32),
        "rope.dimension_count": (head, U32),
        "vocab_size": (config.vocab_size, U32),
    }
    if gemma:
        fields["attention.sliding_window"] = (window, U32)
        fields["rope.freq_base_swa"] = (sliding["rope_theta"], F32)
    return {f"{arch}.{key}": value for key, value in fields.items()}


def _gemma_layers(count: int) -> list[str]:
    return ["full_attention" if n % 6 == 5 else "sliding_attention" for n in range(count)]  # fixed in llama.cpp


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What llama.cpp's SentencePiece tokenizer needs: one entry per id."""

    tokens: list[str]
    scores: list[float]  # of two neighbours, those that join to the highest score are joined first
    types: list[int]
    space_prefix: bool  # a text is read as if it began with a space


def tokenizer_fields(tokenizer: PreTrainedTokenizerBase) -> Fields:
    """Metadata of the tokenizer. Raises ValueError where llama.cpp would cut texts otherwise."""
    words = vocabulary(json.loads(tokenizer.backend_tokenizer.to_str()))  # type: ignore[attr-defined]
    fields: Fields = {
        "model": ("llama", STRING),
        "pre": ("default", STRING),
        "tokens": (words.tokens, STRING),
        "scores": (words.scores, F32),
        "token_type": (words.types, GGUFValueType.INT32),
        "add_space_prefix": (words.space_prefix, BOOL),
    }
    for name, key in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")]:
        if (number := getattr(tokenizer, f"{name}_token_id")) is not None:
            fields[f"{key}_token_id"] = (number, U32)
    return {f"tokenizer.ggml.{key}": value for key, value in fields.items()}


def vocabulary(tokenizer: dict[str, Any]) -> Vocabulary:
    """The vocabulary of a parsed ``tokenizer.json``.

    Raises ValueError unless a SentencePiece tokenizer with one score per piece cuts texts the same way.
    """
    model = tokenizer["model"]
    if model["type"] != "BPE" or not model.get("byte_fallback") or model.get("ignore_merges"):
        raise _unfaithful(f"its model is {model['type']} without byte fallback, not of the SentencePiece family")
    prefix = _space_prefix(tokenizer)
    ids: dict[str, int] = model["vocab"]
    merges = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    rank: dict[str, int] = {}
    last = ""
    for left, right in merges:
        piece = left + right
        if piece != last and piece in rank:
            raise _unfaithful(f"the merges that make {piece!r} stand at two places: it has no single score")
        rank.setdefault(piece, len(rank))
        last = piece
    pairs = set(merges)
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    size = max([*ids.values(), *added]) + 1
    tokens, types = [f"[UNUSED{n}]" for n in range(size)], [int(TokenType.UNUSED)] * size
    scores = [-float(len(rank))] * size
    for piece, number in ids.items():
        tokens[number] = piece
        if len(piece) == 6 and piece.startswith("<0x"):
            types[number] = int(TokenType.BYTE)
        elif number not in added:
            types[number] = int(TokenType.NORMAL)
            scores[number] = -float(rank.get(piece, len(rank)))
            for cut in range(1, len(piece)):
                left, right = piece[:cut], piece[cut:]
                if left in ids and right in ids and (left, right) not in pairs:
                    raise _unfaithful(f"{left!r} and {right!r} are not merged though {piece!r} is a piece")
    for number, token in added.items():
        control = token["special"]
        tokens[number] = token["content"] if control else token["content"].replace("▁", " ")
        types[number] = int(TokenType.CONTROL if control else TokenType.USER_DEFINED)
    if (unknown := ids.get(model.get("unk_token") or "<unk>")) is not None:
        types[unknown] = int(TokenType.UNKNOWN)
    return Vocabulary(tokens, scores, types, prefix)


def _space_prefix(tokenizer: dict[str, Any]) -> bool:
    """Whether a text is read with a space before it. Raises ValueError for any other treatment of text."""
    normalizer, pre = tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")
    steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    seen = [(step["type"], step.get("prepend") or step.get("content")) for step in steps if step]
    replace, prepend = ("Replace", "▁"), ("Prepend", "▁")
    if pre and pre["type"] == "Metaspace" and not pre.get("split") and not seen:
        return pre["prepend_scheme"] != "never"
    # Gemma's Split at " " finds none after the replacement.
    if not pre or (pre["type"] == "Split" and pre["pattern"] == {"String": " "}):
        if seen == [replace]:
            return False
        if seen == [prepend, replace]:
            return True
    raise _unfaithful(f"it prepares texts with {json.dumps(normalizer)[:80]} and {json.dumps(pre)[:80]}")


def _unfaithful(reason: str) -> ValueError:
    return ValueError(f"llama.cpp would not cut texts as this tokenizer does: {reason}. Leave 'gguf' out of --formats")
