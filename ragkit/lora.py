"""A LoRA adapter merged into its base without peft: W + B·A·(alpha / r), in float32 (arXiv 2106.09685, section 4.1).

That is all of merging for the adapters that are trained here, and peft takes over a second to import, wrap every layer
and take it off again. The sums are peft's own, in its order, so the weights are the same to the bit. An adapter that
holds anything else (DoRA, biases, whole modules, ranks by layer, starts other than zero) is not plain: peft merges it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

_PREFIX, _A, _B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
# Fields of adapter_config.json that tell how it was trained and where it is put: which layers, the file says itself.
_TOLD = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type",
}  # fmt: skip


@torch.no_grad()
def merge_plain(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> bool:
    """Merge the adapter of ``folder`` into ``model`` in float32, whatever its weights are stored in, and leave what was
    merged in ``dtype``; False, and nothing done, where the adapter is not plain."""
    config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    file = folder / "adapter_model.safetensors"
    if not _is_plain(config) or not file.exists():
        return False
    weights = load_file(file)
    layers: dict[str, Any] = dict(model.named_modules())
    pairs = {key.removeprefix(_PREFIX).removesuffix(_A): key for key in weights if key.endswith(_A)}
    if len(weights) != 2 * len(pairs) or not all(isinstance(layers.get(name), nn.Linear) for name in pairs):
        return False
    scale = config["lora_alpha"] / config["r"]
    for name, key in pairs.items():
        down, up = weights[key].float(), weights[key.removesuffix(_A) + _B].float()  # (r, D_in), (D_out, r)
        layers[name].weight = nn.Parameter((layers[name].weight.float() + up @ down * scale).to(dtype))
    return True


def _is_plain(config: dict[str, Any]) -> bool:
    """Whatever else is set, in this version of peft or a later one, changes what the weights mean."""
    started = config.get("init_lora_weights", True) in (True, False, "gaussian")  # others change the base too
    return config.get("peft_type") == "LORA" and started and not any(
        value for name, value in config.items() if name not in _TOLD and value != "none"  # bias: none
    )  # fmt: skip
