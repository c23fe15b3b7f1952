"""Checkpoints that are whole, and their mean.

A process can be killed while it writes a checkpoint. The list of its files, with their sizes, is written
last; a folder without one, or whose files do not match it, is not a checkpoint.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ragkit.encoder import MODEL_FILE, ModelInfo

MANIFEST = "complete.json"
WEIGHTS = "adapter_model.safetensors"
ADAPTER = "adapter_config.json"
SETTINGS = (ADAPTER, MODEL_FILE)


def seal(folder: Path) -> None:
    """Mark a checkpoint as complete."""
    sizes = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    scratch = folder / f"{MANIFEST}.new"
    scratch.write_text(json.dumps(sizes, indent=1), "utf-8")
    scratch.rename(folder / MANIFEST)


def is_complete(folder: Path) -> bool:
    manifest = folder / MANIFEST
    if not manifest.exists():
        return False
    sizes: dict[str, int] = json.loads(manifest.read_text("utf-8"))
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def last_complete(checkpoints: Path) -> Path | None:
    """The newest whole checkpoint, or None."""
    folders = sorted(checkpoints.glob("checkpoint-*"), key=step_of, reverse=True)
    return next((folder for folder in folders if is_complete(folder)), None)


def sweep(checkpoints: Path) -> None:
    """Delete what a killed process left half-written. Only while no other process writes there (lock.py)."""
    for folder in checkpoints.glob("checkpoint-*"):
        if not is_complete(folder):
            shutil.rmtree(folder)


def copy_model(checkpoint: Path, folder: Path) -> None:
    """The model folder of a checkpoint: what LocalEncoder reads of it. Settings that are there stay, with the threshold
    that somebody wrote into them."""
    folder.mkdir(exist_ok=True)
    for name in (WEIGHTS, *(name for name in SETTINGS if not (folder / name).exists())):
        shutil.copy(checkpoint / name, folder / f"{name}.new")
        (folder / f"{name}.new").replace(folder / name)  # whole, or not at all


def average(folders: Sequence[Path], out: Path) -> Path:
    """An adapter whose every tensor is the mean of the same tensor in ``folders``: checkpoints of one run,
    or models that went on from one another.

    The factors A and B are averaged, not their products: right for adapters of one descent, which lie close
    together, and of no meaning for adapters trained apart. What the mean refuses is not known before it is measured, so
    it has no threshold. Raises ValueError where they do not fit.
    """
    if len(folders) < 2:
        raise ValueError(f"got {len(folders)} checkpoint(s) to average: name at least two")
    states = [load_file(folder / WEIGHTS) for folder in folders]
    for folder, state in zip(folders, states, strict=True):
        if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in states[0].items()}:
            raise ValueError(f"{folder} and {folders[0]} hold adapters of different shapes: average those of one run")
    told_of = [ModelInfo.read(folder) for folder in folders]
    of_each = [{"base": told.base, **_scale(folder)} for folder, told in zip(folders, told_of, strict=True)]
    for folder, told in zip(folders, of_each, strict=True):
        if told != of_each[0]:
            raise ValueError(f"{folder} has {told}, {folders[0]} {of_each[0]}: average those of one run")
    out.mkdir(parents=True)
    mean = {name: torch.stack([s[name].float() for s in states]).mean(0).to(t.dtype) for name, t in states[0].items()}
    save_file(mean, out / WEIGHTS, {"format": "pt"})
    shutil.copy(folders[-1] / ADAPTER, out / ADAPTER)
    ModelInfo(told_of[0].base, max(told.max_length for told in told_of)).write(out)
    return out


def _scale(folder: Path) -> dict[str, Any]:
    """Of an adapter, what its tensors do not say: a mean of factors under unlike ones is the mean of nothing."""
    settings = json.loads((folder / ADAPTER).read_text("utf-8"))
    return {name: settings.get(name) or 0 for name in ("r", "lora_alpha", "use_rslora")}
