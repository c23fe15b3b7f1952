"""RemoteEncoder: the encoder over HTTP, with the same prompts and the same vectors.

``ragkit serve`` is told role and instruction and writes the prompt itself. vLLM, TEI and llama.cpp know
neither, so the prompt is written here (Task.prompt), and a text that is too long is cut here: the three
disagree on whether they cut, refuse, or cut at the other end. A server that is not ours cannot say what
its vectors mean; the model's folder can (``reference.json``), and the server is held against it at once.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from pydantic import SecretStr

from ragkit.around import ShortEncoder, fingerprint
from ragkit.client import Client, RemoteConfig, RemoteError, is_url
from ragkit.dialects import count_tokens, introduce, parts, pieces
from ragkit.references import ReferenceFile, probes, read_reference_file
from ragkit.sparse import well_formed
from ragkit.task import Task

if TYPE_CHECKING:
    from ragkit.encoder import Encoder

__all__ = ["RemoteConfig", "RemoteEncoder", "RemoteError", "is_url", "open_encoder"]

log = logging.getLogger(__name__)

SAME = 0.98  # cosine to a reference above which vectors are taken for the model's: 8-bit weights pass, faults do not


class RemoteEncoder:
    """An :class:`~ragkit.encoder.Encoder` at ``url`` (``http://HOST:PORT``, with or without ``/v1``).

    ``folder`` is the served model's folder, an export. It gives what a foreign server cannot: fingerprint,
    longest input, its own tokenizer, and reference vectors, against which the server is checked (``verify``).
    Without it, a foreign server's fingerprint is made of its model's name: other weights under the same
    name go unseen. Raises :class:`RemoteError` where the server cannot be reached or is not the model,
    ValueError for a URL or a key that cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: SecretStr | None = None,
        model: str = "",
        folder: str | Path | None = None,
        verify: bool = True,
        config: RemoteConfig | None = None,
    ) -> None:
        self._client = Client(url, api_key, config)
        self._pool = ThreadPoolExecutor(self._client.config.concurrency, thread_name_prefix="remote")
        self._lock = threading.Lock()
        self.url = self._client.url
        self.truncated = 0
        self._tokenizer: Any = None
        try:
            self.server = introduce(self._client, model)
            reference = read_reference_file(Path(folder)) if folder else None
            self.dimension = self.server.dimension or int(self.embed_raw(["."], None).shape[1])
            self.max_length = self._longest(reference)
            self.answer_threshold = self.server.answer_threshold
            if folder and self.server.kind != "ragkit":
                self._read_folder(Path(folder))
            self.fingerprint = self._identity(reference)
            if reference and verify:
                self._verify(reference)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"RemoteEncoder({self.url!r}, model={self.server.model!r}, kind={self.server.kind!r})"

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        """Embeddings (N, D) of ``task.prompt(query)``: float32, unit rows, in the order given."""
        return _unit(self.embed_raw(queries, task))

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        """Embeddings (N, D) of the bare passages: float32, unit rows, in the order given."""
        return _unit(self.embed_raw(passages, None))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without BOS and EOS: by the folder's tokenizer, else by the server."""
        clean = [well_formed(text) for text in texts]
        if self._tokenizer is not None:
            return [len(row) for row in self._tokenizer.encode_batch(clean, add_special_tokens=False)]
        return count_tokens(self._client, self.server, clean, self._pool)

    def embed_raw(self, texts: Sequence[str], task: Task | None) -> np.ndarray:
        """Rows (N, D) as the server gives them, in the order of ``texts``: queries with a task, else passages."""
        if isinstance(texts, str):
            raise TypeError(f"texts must be a list, got one string ({texts[:40]!r}): wrap it in a list")
        if not len(texts):
            return np.empty((0, self.dimension), np.float32)
        prompts = [task.prompt(text) if task else text for text in texts]  # refuses a doubled prefix in any dialect
        body: dict[str, Any] = {"model": self.server.model, "encoding_format": "float"}
        if self.server.kind == "ragkit":
            body |= {"encoding_format": "base64", "input_type": "query" if task else "document"}
            body |= {"instruction": task.instruction} if task else {}
            room = self.server.room
            sent = [pieces(well_formed(text), room)[0] for text in texts]  # of what is cut, the model would read none
        else:
            sent = self._cut([well_formed(prompt) for prompt in prompts])
        rows = self._pool.map(lambda part: self._embed(part, body), self._parts(sent))
        return np.concatenate(list(rows))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ asking

    def _parts(self, texts: Sequence[str]) -> Iterator[list[str]]:
        config = self._client.config
        most = min(config.batch_texts, self.server.max_texts or config.batch_texts)
        return parts(texts, most, min(config.batch_bytes, self.server.room or config.batch_bytes))

    def _embed(self, texts: list[str], body: dict[str, Any]) -> np.ndarray:
        try:
            answer = self._client.post("/v1/embeddings", {**body, "input": texts})
        except RemoteError as error:
            half = len(texts) // 2
            if error.status != 413 or not half:  # of another limit than it tells: tokens a request
                raise
            return np.concatenate([self._embed(part, body) for part in (texts[:half], texts[half:])])
        try:
            told = answer.get("fingerprint", "")
            if self.server.fingerprint and told != self.server.fingerprint:
                raise RemoteError(
                    f"{self.url} now serves model {told}, it was {self.server.fingerprint}: their vectors cannot be "
                    "mixed. Connect anew"
                )
            rows = sorted(answer["data"], key=lambda row: row["index"])
            if [row["index"] for row in rows] != list(range(len(texts))):
                raise RemoteError(
                    f"{self.url} answered {len(rows)} embeddings for {len(texts)} texts, or other indices"
                )
            out = np.array([_floats(row["embedding"]) for row in rows], np.float32)
            cut = int(answer.get("truncated", 0))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RemoteError(
                f"{self.url}/v1/embeddings answered in a shape that is not OpenAI's ({type(error).__name__}: {error})"
            ) from error
        if out.ndim != 2 or not np.isfinite(out).all():
            raise RemoteError(f"{self.url} answered embeddings that are not finite rows: check the server's precision")
        if cut:
            self._count_cut(cut, len(texts))
        return out

    def _count_cut(self, cut: int, texts: int) -> None:
        with self._lock:
            self.truncated += cut
        log.warning("%d of %d texts cut to %d tokens", cut, texts, self.max_length)

    def _cut(self, prompts: list[str]) -> list[str]:
        """What fits of each text. A token is at least a byte, so most texts need no counting."""
        length = getattr(self, "max_length", 0)  # not known yet while the dimension is asked for
        room = length - 2  # BOS and EOS
        long = [n for n, prompt in enumerate(prompts) if length and len(prompt.encode()) + 1 > room]
        counts = self.count_tokens([prompts[n] for n in long])
        over = [n for n, count in zip(long, counts, strict=True) if count > room]
        for n in over:
            prompts[n] = self._prefix(prompts[n], room)
        if over:
            self._count_cut(len(over), len(prompts))
        return prompts

    def _prefix(self, text: str, room: int) -> str:
        """As much of ``text``, which has more, as has ``room`` tokens at most."""
        if self._tokenizer is not None:
            spans = self._tokenizer.encode(text, add_special_tokens=False).offsets
            return text[: min(spans[room - 1][1], spans[room][0])]  # a character may be several tokens
        low, high = 1, len(text)  # characters; the first always fits
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.count_tokens([text[:middle]])[0] <= room else (low, middle - 1)
        return text[:low]

    # ------------------------------------------------------------------ knowing

    def _longest(self, reference: ReferenceFile | None) -> int:
        if self.server.kind == "ragkit":
            return self.server.max_length
        found = reference.max_length if reference else self.server.max_length
        if not found:
            raise RemoteError(f"{self.url} does not say how long a text may be: give the model's folder")
        if self.server.max_length and found > self.server.max_length:
            raise RemoteError(
                f"{self.url} reads {self.server.max_length} tokens, the model {found}: start the server with a longer "
                "context"
            )
        return found

    def _read_folder(self, folder: Path) -> None:
        info = folder / "ragkit.json"
        if info.exists():
            self.answer_threshold = float(json.loads(info.read_text("utf-8")).get("answer_threshold", 0.0))
        if (folder / "tokenizer.json").exists():
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self._tokenizer.encode_special_tokens = True  # '</s>' inside a text stays text, as in training

    def _identity(self, reference: ReferenceFile | None) -> str:
        if self.server.kind == "ragkit":
            if reference and reference.fingerprint != self.server.fingerprint:
                log.warning(
                    "%s serves fingerprint %s, the folder's is %s",
                    self.url,
                    self.server.fingerprint,
                    reference.fingerprint,
                )
            return self.server.fingerprint
        if reference:
            return reference.fingerprint
        meaning = ["remote", self.server.model, self.dimension, self.max_length]
        return fingerprint(*meaning)

    def _verify(self, reference: ReferenceFile) -> None:
        """A query and a passage: a server that is set up wrongly fails one or both."""
        for text in probes(reference.texts)[1::2]:
            found = _unit(self.embed_raw([text.text], text.asked))[0]
            if found.shape != (reference.dimension,):
                raise RemoteError(
                    f"{self.url} has {found.size} dimensions, the model in the folder {reference.dimension}"
                )
            cosine = float(found @ np.array(text.embedding, np.float32))
            if not cosine >= SAME:
                raise RemoteError(
                    f"{self.url} does not return the model's vectors (cosine {cosine:.3f} for a {text.role}): "
                    f"'ragkit doctor {self.url} --model FOLDER' names the likely cause"
                )


def open_encoder(
    name: str | Path,
    *,
    api_key: SecretStr | None = None,
    model: str = "",
    folder: str | Path | None = None,
    int8: bool = False,
    dimensions: int | None = None,
) -> Encoder:
    """What ``--model`` and ``model_name`` name: a server's URL, or whatever LocalEncoder.load takes. A URL needs no
    torch. ``api_key``, ``model`` (its name there) and ``folder`` are for a URL alone, ``int8`` and ``dimensions`` (of
    the embeddings, see :func:`ragkit.around.shorten`) for a model here. Raises ValueError where the model has fewer."""
    if is_url(name):
        if dimensions:
            raise ValueError(f"dimensions is {dimensions} and the model is a server's, {name}: load a model here")
        return RemoteEncoder(str(name), api_key=api_key, model=model, folder=folder)
    from ragkit.encoder import LocalEncoder

    encoder = LocalEncoder.load(name, int8=int8)
    return ShortEncoder(encoder, dimensions) if dimensions else encoder


def _floats(embedding: Any) -> Any:
    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding


def _unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not norms.all():
        raise RemoteError("an embedding of zeros: check the server's pooling and precision")
    return rows / norms
