"""The files of a model folder that other programs read: tokenizer, weights, prompts, pooling, ONNX graph.

Nothing here is measured; ``ragkit.runtimes`` reads all of it back.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn

from ragkit.encoder import LocalEncoder
from ragkit.task import PROMPTS


def write_tokenizer(encoder: LocalEncoder, folder: Path) -> None:
    """``tokenizer.json`` whose post-processor writes BOS and EOS by id, and a config that lets it.

    The post-processor holds in transformers 4 and 5, TEI, vLLM and tokenizers alike, and truncation
    makes room for what it adds. The class is the plain one: it reads the file as it stands, where a
    model's own class may build the post-processor anew.
    """
    tokenizer: Any = encoder.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} has no tokenizer.json, which every other runtime reads")
    bos, eos = tokenizer.bos_token, tokenizer.eos_token
    pair = [*([bos] if bos else []), "$A", eos]
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.post_processor = TemplateProcessing(
        single=pair,
        pair=[*pair, *(part.replace("$A", "$B") + ":1" for part in pair)],
        special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in {bos, eos} - {None}],
    )
    copy.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": encoder.max_length,
        "padding_side": "right",
        "truncation_side": "right",
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": tokenizer.unk_token,
        "pad_token": tokenizer.pad_token or eos,  # rows are pooled by their mask, so EOS may be the pad
        "add_bos_token": bos is not None,
        "add_eos_token": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", {k: v for k, v in settings.items() if v is not None})


def write_weights(model: nn.Module, folder: Path, dtype: torch.dtype) -> None:
    weights = {key: tensor.to(dtype).contiguous() for key, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)  # type: ignore[operator]
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes 0600, which a server under another user cannot read


def clean_config(encoder: LocalEncoder, dtype: str) -> Any:
    """The model's config with the dtype of the weights and the ids of the tokenizer, and no path of ours."""
    config: Any = encoder.model.config
    values = {k: v for k, v in config.to_dict().items() if k not in ("_name_or_path", "_model_name_or_path")}
    pad: Any = encoder.tokenizer.pad_token_id
    values |= {
        "dtype": dtype,
        "architectures": [type(encoder.model).__name__],
        "bos_token_id": encoder.tokenizer.bos_token_id,
        "eos_token_id": encoder.tokenizer.eos_token_id,
        "pad_token_id": encoder.tokenizer.eos_token_id if pad is None else pad,
    }
    return type(config).from_dict(values)


def write_sentence_transformers(encoder: LocalEncoder, folder: Path) -> None:
    """The layout in a superset of its dialects. sentence-transformers 6 writes the short pooling keys;
    TEI 1.9 does not start without the long ones and ``max_seq_length`` (ragkit reads neither)."""
    modules = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")
    write_json(
        folder / "modules.json",
        [
            {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{module}"}
            for n, (path, module) in enumerate(modules)
        ],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": encoder.max_length, "do_lower_case": False})
    modes = "cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"
    pooling = {
        "embedding_dimension": encoder.dimension,
        "pooling_mode": "lasttoken",
        "word_embedding_dimension": encoder.dimension,
        **{f"pooling_mode_{mode}": mode == "lasttoken" for mode in modes},
        "include_prompt": True,
    }
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", pooling)
    (folder / "2_Normalize").mkdir()
    write_json(folder / "2_Normalize" / "config.json", {})
    settings = {
        "__version__": {n: importlib.metadata.version(n) for n in ("sentence-transformers", "transformers", "torch")},
        "prompts": PROMPTS,
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
        "model_type": "SentenceTransformer",
    }
    write_json(folder / "config_sentence_transformers.json", settings)


class _Pooled(nn.Module):
    """``(input_ids, attention_mask)`` to every token's state and the unit embedding of the last real one."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        last = hidden[torch.arange(hidden.shape[0]), attention_mask.sum(dim=1) - 1]
        return hidden, nn.functional.normalize(last.float(), dim=-1)


def write_onnx(model: nn.Module, file: Path) -> None:
    """The graph in float32, weights beside it in one data file (a protobuf ends at 2 GB).

    Input: ``input_ids`` and ``attention_mask`` (B, T), padded on the right. Output: ``token_embeddings``
    (B, T, D) and ``sentence_embedding`` (B, D). The masks are part of the graph, sliding windows too.
    """
    file.parent.mkdir()
    ids = torch.full((2, 9), 3)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    decoder: Any = model
    ours = decoder.config._attn_implementation  # reads no mask, and the graph is to have one
    decoder.set_attn_implementation("sdpa")
    loud.setLevel(logging.ERROR)  # it warns of torchvision, which nothing here uses
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Pooled(model),
                (ids, mask),
                str(file),
                input_names=["input_ids", "attention_mask"],
                output_names=["token_embeddings", "sentence_embedding"],
                dynamic_shapes=(free, free),
                dynamo=True,
                external_data=True,
                verbose=False,
            )
    finally:
        loud.setLevel(level)
        decoder.set_attn_implementation(ours)


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
