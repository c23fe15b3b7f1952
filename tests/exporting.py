"""Exports of the tiny Mistral for tests, and one way to break them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ragkit.encoder import LocalEncoder
from trainer.export import ExportConfig, export


def exported(
    mistral_folder: Path, folders: pytest.TempPathFactory, *formats: str, max_length: int, **info: Any
) -> Path:
    """The tiny Mistral, reading ``max_length`` tokens, in ``formats``; ``info`` goes into its ragkit.json."""
    source = folders.mktemp("source") / "tiny"
    model = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, max_length=max_length, trainable=True)
    model.model.save_pretrained(source)  # type: ignore[operator]
    model.tokenizer.save_pretrained(source)
    (source / "ragkit.json").write_text(json.dumps({"max_length": max_length, **info}))
    out = folders.mktemp("export") / "tiny"
    export(str(source), out, ExportConfig(formats, gguf="f32"))
    return out


def no_eos(folder: Path) -> None:
    file = folder / "tokenizer.json"
    raw = json.loads(file.read_text("utf-8"))
    raw["post_processor"]["single"].pop()
    file.write_text(json.dumps(raw), "utf-8")
