"""A model folder made into files for other programs, each read back before anybody sees it.

One folder serves most readers: merged safetensors, a tokenizer whose own post-processor writes BOS and
EOS, the sentence-transformers layout in the words that old and new readers know, ``ragkit.json``, and
``reference.json``: texts with the vectors that any correct server returns for them. The adapter
(``adapter/``), ``onnx/model.onnx`` and ``model.gguf`` stand inside it.

Everything is compared with ``LocalEncoder`` in float32 (``ragkit.runtimes``). The files are written in
a folder beside the target and renamed at the very end, so a folder that exists has been verified.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ragkit import mini
from ragkit.around import write_axes
from ragkit.encoder import LocalEncoder, ModelInfo
from ragkit.faults import fault_vectors
from ragkit.references import FILE, Reference, make_references, probes, write_reference_file
from ragkit.runtimes import RUNTIMES, Check, check
from trainer.gguf_writer import PRECISIONS, write_gguf
from trainer.layout import clean_config, write_onnx, write_sentence_transformers, write_tokenizer, write_weights
from trainer.model_card import Facts, model_card, read_scores, run_folder

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MERGED = """\
The weights in this folder are those of the base, modified: the adapter is merged into them. What follows was
written for the adapter alone.

"""


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What to write. The formats left empty are all that the model has."""

    formats: tuple[str, ...] = ()  # of RUNTIMES
    dtype: str = "float32"  # of the merged safetensors; half of it halves the file and costs cosine
    gguf: str = "f16"  # of PRECISIONS: f32, f16, bf16, or q8_0 for half of f16's size
    scores: tuple[Path, ...] = ()  # JSON files of `trainer evaluate`, shown in the model card

    def __post_init__(self) -> None:
        for knob, value, known in [
            *(("--formats", name, RUNTIMES) for name in self.formats),
            ("--dtype", self.dtype, DTYPES),
            ("--gguf", self.gguf, PRECISIONS),
        ]:
            if value not in known:
                raise ValueError(f"{knob} takes {', '.join(known)}, got {value!r}")

    def threshold(self, format: str) -> float:
        """The cosine below which a format is refused: 0.99 where weights or states are rounded hard."""
        rounded = {
            "gguf": self.gguf == "q8_0",
            "safetensors": self.dtype != "float32",
            "sentence-transformers": self.dtype != "float32",
        }
        return 0.99 if rounded.get(format) else 0.999


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model comes from: its folder and, where that holds an adapter, the adapter's base."""

    name: str
    folder: Path | None  # None for a Hub id
    base: str  # "" for full weights
    packaged: bool  # made of mini's base: its GGUF file is at hand, and its terms bind

    @classmethod
    def of(cls, name: str) -> Source:
        folder = mini.ADAPTER if name == "mini" else mini.base_folder() if name == "mini-base" else Path(name)
        if not folder.is_dir():
            return cls(name, None, "", packaged=False)
        title = (run_folder(folder) or folder.resolve()).name
        config = folder / "adapter_config.json"
        if not config.exists():
            return cls(title, folder, "", packaged=name == "mini-base")
        base = ModelInfo.read(folder).base or json.loads(config.read_text("utf-8"))["base_model_name_or_path"]
        return cls(title, folder, base, packaged=base == "mini-base")


def export(name: str, out: Path, config: ExportConfig | None = None) -> list[Check]:
    """Write model ``name`` (what ``LocalEncoder.load`` takes) into the new folder ``out``.

    Returns how each format agrees with ours. Raises ExportMismatch, and leaves nothing, where one does
    not; ValueError for a target that is not empty or a model that a format cannot hold.
    """
    config = config or ExportConfig()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not empty: give another --out, or delete it")
    source = Source.of(name)
    formats = config.formats or tuple(f for f in RUNTIMES if f != "adapter" or source.base)
    if "adapter" in formats and not source.base:
        raise ValueError(f"{name} holds full weights, no adapter: leave 'adapter' out of --formats")
    scores = read_scores(config.scores, run_folder(source.folder))
    out.parent.mkdir(parents=True, exist_ok=True)
    with _quiet(), tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        references, facts = _write(name, folder, source, formats, config)
        checks: list[Check] = []
        for format in formats:
            start = time.monotonic()
            checks.append(check(format, folder, references, config.threshold(format)))
            log.info("%s verified in %.0f s", format, time.monotonic() - start)
        (folder / "README.md").write_text(model_card(facts, checks, scores), "utf-8")
        if out.exists():
            out.rmdir()
        folder.rename(out)
    return checks


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that an export calls for: a text too long to fit, a key for older readers."""
    loggers = [logging.getLogger(name) for name in ("ragkit.encoder", "sentence_transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write(
    name: str, folder: Path, source: Source, formats: Sequence[str], config: ExportConfig
) -> tuple[list[Reference], Facts]:
    """Every file but the card. The model is freed on return: each runtime loads its own."""
    encoder = LocalEncoder.load(name, device="cpu", dtype=torch.float32, trainable=True)
    references = list(make_references(encoder))
    faults = fault_vectors(encoder, probes(references))
    write_reference_file(folder / FILE, source.name, encoder, references, faults)
    write_tokenizer(encoder, folder)
    _describe(encoder, "", folder)
    if "adapter" in formats and source.folder:
        copy_adapter(source, encoder, folder / "adapter")
    copy_terms(source, folder)
    if {"safetensors", "sentence-transformers"} & set(formats):
        write_weights(encoder.model, folder, DTYPES[config.dtype])
    clean_config(encoder, config.dtype).save_pretrained(folder)
    if "sentence-transformers" in formats:
        write_sentence_transformers(encoder, folder)
    if "gguf" in formats:  # first of the slow ones: it refuses models and tokenizers
        log.info("writing model.gguf")
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            base = mini.assemble(Path(scratch)) if source.packaged else None
            write_gguf(
                encoder.model,
                encoder.tokenizer,
                folder / "model.gguf",
                name=source.name,
                max_length=encoder.max_length,
                precision=config.gguf,
                base=base,
            )
    if "onnx" in formats:
        log.info("writing onnx/model.onnx")
        write_onnx(encoder.model, folder / "onnx" / "model.onnx")
    facts = Facts(
        name=source.name,
        base=source.base,
        folder=source.folder,
        fingerprint=encoder.fingerprint,
        dimension=encoder.dimension,
        max_length=encoder.max_length,
        formats=tuple(formats),
        dtype=config.dtype,
        gguf=config.gguf,
    )
    return references, facts


def copy_adapter(source: Source, encoder: LocalEncoder, folder: Path) -> None:
    """The LoRA weights as peft wrote them, with a ragkit.json that names their base."""
    assert source.folder
    folder.mkdir()
    for pattern in ("adapter_config.json", "adapter_model.*", "NOTICE*", "LICENSE*", "README.md"):
        for file in source.folder.glob(pattern):
            shutil.copy(file, folder)
    _describe(encoder, source.base, folder)


def _describe(encoder: LocalEncoder, base: str, folder: Path) -> None:
    """What cannot be read off weights."""
    ModelInfo(base, encoder.max_length, encoder.answer_threshold).write(folder)
    if encoder.axes is not None:
        write_axes(encoder.axes, folder)


def copy_terms(source: Source, folder: Path) -> None:
    """Notices and licences that bind whoever gets the weights."""
    for pattern in ("NOTICE*", "LICENSE*"):
        for file in source.folder.glob(pattern) if source.folder else ():
            head = MERGED if source.base and file.name.startswith("NOTICE") else ""
            (folder / file.name).write_text(head + file.read_text("utf-8"), "utf-8")
    if source.packaged:
        (folder / "GEMMA_TERMS.html").write_bytes(mini.terms())
