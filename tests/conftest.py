"""Encoders for tests: small, offline, with obvious right answers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ragkit import Task

if TYPE_CHECKING:
    from ragkit.store import Store

SERVER = os.environ.get("RAGKIT_TEST_QDRANT_URL", "")

# One sentence in each of the scripts that toolkits forget.
SCRIPTS = {
    "ar": "أين يقع مكتب الميناء؟",
    "hi": "पुस्तकालय कब खुलता है?",
    "th": "ห้องสมุดเปิดกี่โมง",
    "zh": "图书馆几点开门？",
    "ja": "図書館は何時に開きますか。",
    "am": "ቤተ መጻሕፍቱ መቼ ይከፈታል?",
    "emoji": "🙂👩‍👩‍👧 🇪🇹",
}


def write_pairs(folder: Path, words: Sequence[str]) -> Path:
    """``pairs.jsonl``: a training example for each word, with a hard negative."""
    lines = [{"query": f"what is {w}", "positive": f"{w} is a thing", "negatives": [f"{w} was"]} for w in words]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder


class HashEncoder:
    """An Encoder whose embedding is a hashed bag of words: texts that share words are near.

    Not a mock of the model: a different, honest encoder with no weights, for tests of everything
    that only needs *an* encoder. Queries drop the prompt, as a trained model learns to.
    """

    dimension = 64
    max_length = 512
    truncated = 0

    def __init__(self, seed: str = "a") -> None:
        self.seed = seed
        self.fingerprint = hashlib.sha256(f"hash-{seed}".encode()).hexdigest()[:16]
        self.encoded = 0  # passages embedded so far: lets a test see that nothing was embedded twice

    def encode_queries(self, queries: Sequence[str], task: Task) -> np.ndarray:
        for query in queries:
            task.prompt(query)  # the same refusals as the real encoder
        return self._embed(queries)

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        self.encoded += len(passages)
        return self._embed(passages)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(text.split()) or len(text) for text in texts]

    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                digest = hashlib.sha256((self.seed + word).encode("utf-8", "replace")).digest()
                row[digest[0] % self.dimension] += 1.0 if digest[1] % 2 else -1.0
            norm = float(np.linalg.norm(row))
            row[:] = row / norm if norm else np.eye(1, self.dimension, dtype=np.float32)[0]
        return rows


def no_room_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first index finds no room on the disk; how many passages there were at each call."""
    from ragkit.store import Store, StoreError

    calls = list[int]()

    def optimize(store: Store) -> None:
        calls.append(store.count())
        if len(calls) == 1:
            raise StoreError("make room and run this again")

    monkeypatch.setattr(Store, "optimize", optimize)
    return calls


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


WITH_SERVER = pytest.mark.skipif(not SERVER, reason="RAGKIT_TEST_QDRANT_URL is not set")


@pytest.fixture(params=["memory", "embedded", "rest", pytest.param("server", marks=WITH_SERVER)])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each place a store can be in; "rest" is the interface alone, see fake_qdrant.py."""
    if request.param == "embedded":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    if request.param == "rest":
        from fake_qdrant import serving

        with serving() as (_, url):
            yield url
        return
    yield {"memory": ":memory:", "embedded": str(tmp_path / "store"), "server": SERVER}[request.param]


@contextmanager
def opened(location: str, encoder: HashEncoder, **options: Any) -> Iterator[Store]:
    """A corpus of its own, which a server is rid of afterwards."""
    from ragkit.store import open_store

    with open_store(location, f"test-{uuid.uuid4().hex[:8]}", encoder, **options) as store:
        try:
            yield store
        finally:
            if location == SERVER:
                store._whole.delete_collection(store.collection)


@pytest.fixture(scope="session")
def mistral_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Mistral with the real Mistral-7B-v0.1 tokenizer and tiny random weights, as e5-mistral ships it:
    `add_eos_token` is set, and the pad token is the EOS."""
    import mistral_common
    import torch
    from transformers import AutoTokenizer, MistralConfig, MistralModel

    raw = tmp_path_factory.mktemp("sentencepiece")
    shutil.copy(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1", raw / "tokenizer.model")
    settings = {
        "tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "</s>", "add_bos_token": True, "add_eos_token": True,
    }  # fmt: skip
    (raw / "tokenizer_config.json").write_text(json.dumps(settings))
    folder = tmp_path_factory.mktemp("mistral")
    tokenizer = AutoTokenizer.from_pretrained(raw)
    assert len(tokenizer) == 32_000  # loaded by vocab_file it would be all but empty, without a word
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=32_000, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=4096, pad_token_id=2, initializer_range=0.2,
    )  # fmt: skip
    MistralModel(config).save_pretrained(folder)
    return folder
