"""``ragkit doctor``: is what is served the model, and is what is stored the model's?

A server's (or an export's) vectors are held against the model's reference vectors. Where they differ, they
are held against what each known fault would make of the same texts (faults.py, or ``reference.json``
where the model itself is not at hand), and the fault that explains all of them is named. Then the corpus'
fingerprint, versions, disk and memory. Findings are data; the command prints them and exits with 1 if one failed.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import SecretStr

from ragkit import mini
from ragkit.extras import install
from ragkit.machine import check_room, check_versions
from ragkit.references import FILE, Reference, ReferenceFile, make_references, probes, read_reference_file
from ragkit.remote import RemoteEncoder, is_url, open_encoder
from ragkit.sparse import SCHEME
from ragkit.task import Task
from ragkit.types import Finding

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.settings import QdrantSettings

SAME = 0.98  # cosine; 8-bit weights reach 0.99 (tests/test_export.py). A milder fault is found by being nearer to it
UNIT = 0.01  # how far a length may be from 1
HEALTHY = "healthy"
MEANS = {  # what to do about a fault
    "EOS lost": "its tokenizer adds no EOS: export again (tokenizer.json writes it), or set add_eos_token in the GGUF",
    "BOS lost": "its tokenizer adds no BOS: export again (tokenizer.json writes it), or set add_bos_token in the GGUF",
    "BOS and EOS lost": "its tokenizer adds no special tokens: use the export's tokenizer.json",
    "EOS doubled": "an EOS is written into the text and another added by the tokenizer: send bare text",
    "BOS doubled": "a BOS is written into the text and another added by the tokenizer: send bare text",
    "prefix missing": "queries are embedded as passages: nobody writes 'Instruct: ...\\nQuery: ' before them",
    "prefix doubled": "client and server both write 'Instruct: ...\\nQuery: ' before queries: leave it to one",
    "prefix on passages": "passages get a prompt that is meant for queries: the server has a default prompt",
    "prefix without its last space": "the prompt is stripped before it is joined: it ends in 'Query: ' with a space",
    "line breaks lost": "a client writes spaces for line breaks, in prompts too (LlamaIndex's OpenAIEmbedding does)",
    "wrong pooling (mean)": "it averages tokens: set last-token pooling (1_Pooling; --pooling of TEI and llama.cpp)",
    "wrong pooling (first token)": "it takes the first token: set last-token pooling",
}


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of the healthy model. ``faults`` are unit rows of ``probes(references)``."""

    fingerprint: str
    max_length: int
    references: tuple[Reference, ...]
    faults: dict[str, np.ndarray]


Embed = Callable[[Sequence[str], Task | None], np.ndarray]  # bare texts -> rows as they come, (N, D)


def health(model: str | Path) -> Health:
    """Of a model folder with ``reference.json`` (no torch needed), else of a model that can be loaded here."""
    folder = mini.ADAPTER if str(model) == "mini" else Path(model)
    stored = read_reference_file(folder) if (folder / FILE).exists() else None
    if stored and stored.faults:
        return _health(stored)
    from ragkit.faults import fault_vectors, load_exactly

    encoder = load_exactly(model)
    texts = stored.texts if stored else tuple(make_references(encoder))
    fingerprint = stored.fingerprint if stored else encoder.fingerprint
    return Health(fingerprint, encoder.max_length, texts, fault_vectors(encoder, probes(texts)))


def _health(stored: ReferenceFile) -> Health:
    faults = {name: np.array(rows, np.float32) for name, rows in stored.faults.items()}
    return Health(stored.fingerprint, stored.max_length, stored.texts, faults)


def diagnose(embed: Embed, healthy: Health, *, where: str, truncates: bool = True) -> Finding:
    """Hold what ``embed`` returns against the model's references; name the likely cause where it differs."""
    texts = [text for text in healthy.references if truncates or not text.truncated]
    found = _rows(embed, texts)
    ours = np.array([text.embedding for text in texts], np.float32)
    check = f"vectors of {where}"
    if found.shape != ours.shape:
        told = f"{found.shape[1]} dimensions, the model has {ours.shape[1]}: another model is served"
        return Finding(check, "failed", told)
    norms = np.linalg.norm(found, axis=1)
    cosines = (found * ours).sum(axis=1) / np.maximum(norms, 1e-30)
    lowest = float(cosines.min())
    measured = f"lowest cosine {lowest:.4f} over {len(texts)} texts"
    chosen = probes(texts)
    at = [texts.index(probe) for probe in chosen]
    fault, closeness = explain(found[at], healthy.faults)
    lengths = f"vectors of length {norms.min():.3g} to {norms.max():.3g}, not 1: normalise them"
    scaled = bool(abs(norms - 1).max() > UNIT)
    if fault not in ("", HEALTHY):
        text = f"{measured}; as if with {fault} (cosine {closeness:.4f}): {MEANS.get(fault, 'unknown to this version')}"
        return Finding(check, "failed", f"{text}; and {lengths}" if scaled else text, fault)
    if not lowest >= SAME:
        short = [text for text, cosine in zip(texts, cosines, strict=True) if text.script == "long" and cosine < SAME]
        if short and min(c for text, c in zip(texts, cosines, strict=True) if text.script != "long") >= SAME:
            told = f"{measured}; long texts alone: it reads other than the first {healthy.max_length} tokens"
            return Finding(check, "failed", told, "long texts cut otherwise")
        worst = texts[int(np.argmin(cosines))]
        told = f"{measured} (the {worst.role} in {worst.script}); no known fault explains it: other weights?"
        return Finding(check, "failed", told)
    if scaled:
        return Finding(check, "failed", f"right directions, {lengths}", "missing normalisation")
    return Finding(check, "ok", measured)


def explain(rows: np.ndarray, faults: dict[str, np.ndarray]) -> tuple[str, float]:
    """The fault whose vectors are nearest to ``rows`` (P, D) in the worst of them, and that cosine; "" where none
    comes near. A fault must beat health by more than rounding does."""
    units = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    scores = {name: float((units * ill).sum(axis=1).min()) for name, ill in faults.items()}
    if not scores:
        return "", 0.0
    best = max(scores, key=lambda name: scores[name])
    if best != HEALTHY and 1 - scores[best] > (1 - scores.get(HEALTHY, -1.0)) / 4:
        best = HEALTHY  # as near to both: quantised weights of a model that hardly feels the fault
    return (best, scores[best]) if scores[best] >= SAME else ("", scores[best])


def _rows(embed: Embed, texts: Sequence[Reference]) -> np.ndarray:
    """Rows of ``texts`` in their order, asked for task by task."""
    rows: list[Any] = [None] * len(texts)
    for task in dict.fromkeys(text.task for text in texts):
        at = [n for n, text in enumerate(texts) if text.task == task]
        for n, row in zip(at, embed([texts[n].text for n in at], texts[at[0]].asked), strict=True):
            rows[n] = row
    return np.stack(rows)


# ---------------------------------------------------------------------- what is looked at


def check_server(
    url: str, healthy: Health, *, folder: str | Path | None, api_key: SecretStr | None = None, model: str = ""
) -> Iterator[Finding]:
    with RemoteEncoder(url, api_key=api_key, model=model, folder=folder, verify=False) as remote:
        server = remote.server
        yield Finding("server", "ok", f"{remote.url} speaks as {server.kind}, model {server.model}")
        if server.max_length and server.max_length < healthy.max_length:
            told = f"reads {server.max_length} tokens, the model {healthy.max_length}: raise its longest input"
            yield Finding("longest input", "failed", told, "long texts cut otherwise")
        if server.kind == "ragkit" and server.fingerprint != healthy.fingerprint:
            told = (
                f"the server's is {server.fingerprint}, the model's {healthy.fingerprint}: its collections are others"
            )
            yield Finding("fingerprint", "warning", told)
        yield diagnose(remote.embed_raw, healthy, where=remote.url)


def check_export(folder: Path, healthy: Health) -> Iterator[Finding]:
    """Each format in ``folder``, read by its own program as a stranger would; those that are not installed are told."""
    from ragkit.runtimes import RUNTIMES, ExportMismatch

    dimension = len(healthy.references[0].embedding)
    files = {"adapter": "adapter/adapter_config.json", "safetensors": "config.json", "onnx": "onnx/model.onnx"}
    files |= {"gguf": "model.gguf", "sentence-transformers": "modules.json"}
    formats = 0
    for name, runtime in RUNTIMES.items():
        if not (folder / files[name]).exists() or (name == "safetensors" and not list(folder.glob("*.safetensors"))):
            continue
        formats += 1
        try:
            version = importlib.metadata.version(runtime.package)
            load = runtime.load(folder / runtime.folder)
        except (importlib.metadata.PackageNotFoundError, ImportError):
            told = f"{runtime.package} is not installed: {install('export')}"
            yield Finding(f"vectors of {name}", "warning", told)
            continue
        except (ExportMismatch, OSError, ValueError, RuntimeError) as error:
            yield Finding(f"vectors of {name}", "failed", f"{runtime.package} cannot read it: {error}")
            continue

        def embed(texts: Sequence[str], task: Task | None, load: Any = load) -> np.ndarray:
            asked = [Reference(text, task.name if task else "", "", (0.0,) * dimension) for text in texts]
            return load(asked, 4)

        where = f"{name} in {runtime.package} {version}"
        yield diagnose(embed, healthy, where=where, truncates=runtime.truncates)
    if not formats:
        there = "there is none of an export's formats" if folder.is_dir() else "there is no such folder"
        advice = "give a folder of `trainer export`, or a server's URL, with its http://"
        yield Finding("vectors", "failed", f"{str(folder)!r} was not compared: {there}. {advice}")


def check_store(location: str, corpus: str, encoder: Encoder, settings: QdrantSettings | None = None) -> Finding:
    """Whether the corpus is embedded by this model; opened and closed, nothing is written."""
    from ragkit.reindex import open_current
    from ragkit.store import CorpusInUse, StoreError

    try:
        with open_current(location, corpus, settings) as store:
            count = store.count(everybody=True)
            if store.scheme != SCHEME:
                advice = f"`ragkit reindex --corpus {corpus}` makes them anew"
                return Finding("store", "failed", f"an earlier version made the words of {corpus!r}: {advice}")
            if store.fingerprint == encoder.fingerprint:
                return Finding(
                    "store", "ok", f"{corpus!r} holds {count} passages of this model ({encoder.fingerprint})"
                )
            return Finding(
                "store",
                "failed",
                f"{corpus!r} holds {count} passages of {store.fingerprint}, this model is {encoder.fingerprint}: load "
                f"that model, or `ragkit reindex --corpus {corpus}` with this one",
            )
    except CorpusInUse as error:
        return Finding("store", "warning", f"not looked at: {error}")
    except StoreError as error:
        return Finding("store", "failed", str(error))


def examine(
    target: str,
    *,
    model: str,
    folder: str = "",  # of the model, where ``model`` is a server
    name: str = "",  # of the model at the server
    api_key: SecretStr | None = None,
    dimensions: int | None = None,  # of the corpus' embeddings
    corpus: str = "",
    store: str = "",
    qdrant: QdrantSettings | None = None,  # how the store is reached
    rooms: Mapping[str, Path] | None = None,  # folders whose disk is looked at
) -> Iterator[Finding]:
    """Everything the command looks at, one finding after the other; what breaks becomes a finding.

    ``target`` is a server's URL or an export; "" looks at ``model`` itself.
    """
    if is_url(model):
        target, known = target or model, folder
    else:
        known = model
    if target and not is_url(target) and (Path(target) / FILE).exists():
        known = target  # an export carries its own proof

    def vectors() -> Iterator[Finding]:
        if not known:
            told = "the model's folder is not known: give --model, or RAGKIT_EMBEDDER_FOLDER"
            yield Finding("vectors", "warning", f"{target} was not compared: {told}")
            return
        healthy = health(known)
        yield Finding("model", "ok", f"{known}, fingerprint {healthy.fingerprint}")
        if is_url(target):
            own = Path(known) if (Path(known) / FILE).exists() else None
            yield from check_server(target, healthy, folder=own, api_key=api_key, model=name)
        elif target:
            yield from check_export(Path(target), healthy)
        else:
            encoder = open_encoder(known)
            yield diagnose(_bare(encoder), healthy, where=f"{known} here")

    def corpora() -> Iterator[Finding]:
        if corpus:
            encoder = open_encoder(model, api_key=api_key, model=name, folder=folder or None, dimensions=dimensions)
            yield check_store(store, corpus, encoder, qdrant)

    looks = {"vectors": vectors, "store": corpora, "versions": check_versions}
    looks["room"] = lambda: check_room(rooms or {}, weights_size(known or model))
    for look, findings in looks.items():
        try:
            yield from findings()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            yield Finding(look, "failed", f"{type(error).__name__}: {error}")


def _bare(encoder: Encoder) -> Embed:
    return lambda texts, task: encoder.encode_queries(texts, task) if task else encoder.encode_passages(texts)


def weights_size(model: str | Path) -> int:
    """Bytes of a model folder's weights; 0 where they are not here."""
    if is_url(model):
        return 0
    folder = mini.base_folder() if str(model) in ("mini", "mini-base") else Path(model)
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0
