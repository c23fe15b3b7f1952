"""An export read back by the programs that will read it, and held against the vectors we serve.

Each runtime loads its format from the folder as a stranger would: by what the files say, with no
setting of ours, so that a pooling, an EOS or a prompt that the files lack is missed here and not in
production. Every text is embedded alone and in batches of 3 and 7, which mix lengths.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ragkit.encoder import LocalEncoder, ModelInfo
from ragkit.references import Reference
from ragkit.task import DEFAULT_TASK, PROMPTS


@dataclass(frozen=True, slots=True)
class Check:
    """How one runtime agrees with ours. Cosines are the lowest of each (role, script)."""

    format: str
    runtime: str  # name and version
    cosines: dict[tuple[str, str], float]

    def lowest(self, role: str) -> float:
        return min(cosine for (r, _), cosine in self.cosines.items() if r == role)

    def __str__(self) -> str:
        scripts = {script: min(c for (_, s), c in self.cosines.items() if s == script) for _, script in self.cosines}
        each = " ".join(f"{script} {cosine:.6f}" for script, cosine in scripts.items())
        return (
            f"{self.format} in {self.runtime}: cosine >= {self.lowest('query'):.6f} for queries, "
            f"{self.lowest('passage'):.6f} for passages ({each})"
        )


class ExportMismatch(ValueError):
    """A runtime does not return our vectors."""


Embed = Callable[[Sequence[Reference], int], np.ndarray]  # texts and batch size -> (N, D)


def local(folder: Path) -> Embed:
    encoder = LocalEncoder.load(folder, device="cpu", dtype=torch.float32)

    def embed(texts: Sequence[Reference], batch_size: int) -> np.ndarray:
        parts = [
            encoder.encode_passages([text.prompt for text in texts[n : n + batch_size]])
            for n in range(0, len(texts), batch_size)
        ]
        return np.concatenate(parts)

    return embed


def sentence_transformers(folder: Path) -> Embed:
    """Queries go in bare, with the name of the task: the prompts are the folder's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the module paths that older readers need are deprecated in 6
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    for name, prompt in PROMPTS.items():
        if model.prompts.get(name) != prompt:
            raise ExportMismatch(
                f"sentence-transformers reads the prompt {name!r} as {model.prompts.get(name)!r}, ours is {prompt!r}"
            )

    def embed(texts: Sequence[Reference], batch_size: int) -> np.ndarray:
        out = np.empty((len(texts), len(texts[0].embedding)), np.float32)
        for task in {text.task for text in texts}:
            rows = [n for n, text in enumerate(texts) if text.task == task]
            words = [texts[n].text for n in rows]
            if not task:
                out[rows] = model.encode_document(words, batch_size=batch_size)
            elif task == DEFAULT_TASK:
                out[rows] = model.encode_query(words, batch_size=batch_size)
            else:
                out[rows] = model.encode(words, prompt_name=task, batch_size=batch_size)
        return out

    return embed


def onnxruntime(folder: Path) -> Embed:
    """The graph, and the ids that tokenizer.json makes on its own."""
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(ModelInfo.read(folder).max_length)
    tokenizer.enable_padding()
    session = InferenceSession(str(folder / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])

    def embed(texts: Sequence[Reference], batch_size: int) -> np.ndarray:
        parts = []
        for start in range(0, len(texts), batch_size):
            rows = tokenizer.encode_batch([text.prompt for text in texts[start : start + batch_size]])
            feed = {
                "input_ids": np.array([row.ids for row in rows], np.int64),
                "attention_mask": np.array([row.attention_mask for row in rows], np.int64),
            }
            parts.append(np.asarray(session.run(["sentence_embedding"], feed)[0]))
        return np.concatenate(parts)

    return embed


def llama_cpp(folder: Path) -> Embed:
    """llama.cpp's server, by its in-process calls; it listens on a free port of 127.0.0.1 until freed.

    Pooling, BOS and EOS are the file's own; the context is only made wide enough.
    """
    xllamacpp: Any = import_module("xllamacpp")  # compiled, without types
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.embedding = True
    parameters.n_ctx = ModelInfo.read(folder).max_length + 1  # the server refuses a text that fills the context
    parameters.verbosity = 0
    parameters.warmup = False
    server = xllamacpp.Server(parameters)

    def embed(texts: Sequence[Reference], batch_size: int) -> np.ndarray:
        rows: list[list[float]] = []
        for start in range(0, len(texts), batch_size):
            answer = server.handle_embeddings({"input": [text.prompt for text in texts[start : start + batch_size]]})
            if "data" not in answer:
                raise ExportMismatch(f"llama.cpp refuses to embed {texts[start].text[:40]!r}: {answer}")
            rows += [item["embedding"] for item in sorted(answer["data"], key=lambda item: item["index"])]
        return np.array(rows, np.float32)

    return embed


@dataclass(frozen=True, slots=True)
class Runtime:
    package: str
    load: Callable[[Path], Embed]
    folder: str = ""  # below the export
    truncates: bool = True  # else it refuses a text that is too long


RUNTIMES = {
    "adapter": Runtime("peft", local, folder="adapter"),
    "safetensors": Runtime("transformers", local),
    "sentence-transformers": Runtime("sentence-transformers", sentence_transformers),
    "onnx": Runtime("onnxruntime", onnxruntime),
    "gguf": Runtime("xllamacpp", llama_cpp, truncates=False),
}


def check(format: str, folder: Path, references: Sequence[Reference], threshold: float) -> Check:
    """Load ``format`` from ``folder`` and embed the references.

    Raises ExportMismatch, with the format, the text and the cosine, where one is below ``threshold``.
    """
    runtime = RUNTIMES[format]
    texts = [text for text in references if runtime.truncates or not text.truncated]
    ours = np.array([text.embedding for text in texts], np.float32)
    embed = runtime.load(folder / runtime.folder)
    cosines, lengths = np.full(len(texts), np.inf), np.ones(len(texts))
    for batch_size in (1, 3, 7):
        theirs = embed(texts, batch_size)
        norms = np.linalg.norm(theirs, axis=1)
        cosines = np.minimum(cosines, (theirs * ours).sum(axis=1) / norms)  # a vector of NaN stays NaN
        lengths = np.where(abs(norms - 1) > abs(lengths - 1), norms, lengths)
    worst, longest = int(np.argmin(cosines)), int(np.argmax(abs(lengths - 1)))
    if not cosines[worst] >= threshold:  # so that NaN fails, too
        raise ExportMismatch(
            f"{format} in {runtime.package} has cosine {cosines[worst]:.4f} to ours, below {threshold}, for the "
            f"{texts[worst].role} {texts[worst].text[:60]!r} ({texts[worst].script}): nothing was exported"
        )
    if abs(lengths[longest] - 1) > 0.01:
        raise ExportMismatch(
            f"{format} in {runtime.package} returns a vector of length {lengths[longest]:.3f}, not 1, for the "
            f"{texts[longest].role} {texts[longest].text[:60]!r}: nothing was exported"
        )
    lowest: dict[tuple[str, str], float] = {}
    for text, cosine in zip(texts, cosines.tolist(), strict=True):
        key = (text.role, text.script)
        lowest[key] = min(lowest.get(key, 1.0), cosine)
    version = importlib.metadata.version(runtime.package)
    return Check(format, f"{runtime.package} {version}", lowest)
