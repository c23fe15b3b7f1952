"""Every format of a tiny Mistral read back by its own program, and broken ones caught.

The expected vectors are LocalEncoder's. A tampered file stands for a bug of the writer: each test of
that kind breaks one thing in a verified export and asks that the check names it.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from exporting import no_eos
from gguf import GGUFReader
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from typer.testing import CliRunner

from ragkit import DEFAULT_TASK, TASKS
from ragkit.around import write_axes
from ragkit.encoder import LocalEncoder, ModelInfo, tokenize
from ragkit.references import LAYOUT, TEXTS, Reference, make_references
from ragkit.runtimes import Check, ExportMismatch, check
from trainer import gguf_writer, layout
from trainer.cli import app
from trainer.export import ExportConfig, export
from trainer.gguf_writer import interleave, vocabulary, write_gguf

BOS, EOS = 1, 2
MAX_LENGTH = 128  # Amharic is three tokens a letter here: less would cut its query
ALL = ("adapter", "safetensors", "sentence-transformers", "onnx", "gguf")


@pytest.fixture(scope="module")
def run(mistral_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: a LoRA adapter, not zero, over the tiny Mistral, with config, counts and scores."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    base = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, trainable=True)
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules="all-linear", task_type="FEATURE_EXTRACTION", init_lora_weights=False)
    model = get_peft_model(base.model, lora)  # type: ignore[arg-type]
    model.save_pretrained(folder / "model")
    ModelInfo(str(mistral_folder), MAX_LENGTH, 0.5).write(folder / "model")
    write_axes(np.eye(64)[::-1], folder / "model")
    (folder / "config.yaml").write_text("base: tiny-base\ntemperature: 0.02\n")
    facts = {"examples": {"qa/faquad.pt": 640}, "versions": {"torch": "9.9"}, "trainable_parameters": 12345}
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "scores.json").write_text(json.dumps({"set": {}, "mean": {"ndcg@10": 0.6125}}))
    return folder


@pytest.fixture(scope="module")
def encoder(run: Path) -> LocalEncoder:
    return LocalEncoder.load(run / "model", device="cpu", dtype=torch.float32, trainable=True)


@pytest.fixture(scope="module")
def references(encoder: LocalEncoder) -> list[Reference]:
    return list(make_references(encoder))


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Check]]:
    """All formats, verified; the GGUF in float32, so that 0.999 leaves no room for an error."""
    out = tmp_path_factory.mktemp("out") / "tiny"
    checks = export(str(run / "model"), out, ExportConfig(gguf="f32"))
    return out, {c.format: c for c in checks}


@pytest.fixture
def broken(exported: tuple[Path, dict[str, Check]], tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return shutil.copytree(exported[0], tmp_path / "broken")


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_every_format_agrees_in_eight_scripts_queries_and_passages(exported: tuple[Path, dict[str, Check]]):
    checks = exported[1]
    assert tuple(checks) == ALL
    for format in ALL:
        for role in ("query", "passage"):
            assert checks[format].lowest(role) > (0.999 if format == "gguf" else 0.99999)
            assert set(TEXTS) <= {s for r, s in checks[format].cosines if r == role}
        assert ("passage", "long") in checks[format].cosines
    assert "cosine >= " in str(checks["onnx"]) and "Amharic" in str(checks["onnx"])


def test_the_folder_is_one_model_for_all(exported: tuple[Path, dict[str, Check]], encoder: LocalEncoder):
    out = exported[0]
    assert ModelInfo.read(out) == ModelInfo("", MAX_LENGTH, 0.5)
    merged, adapter = LocalEncoder.load(out), LocalEncoder.load(out / "adapter")
    assert adapter.fingerprint == encoder.fingerprint != merged.fingerprint
    assert merged.dimension == 64 and merged.answer_threshold == 0.5
    for model in (merged, adapter, encoder):
        np.testing.assert_array_equal(model.axes, np.eye(64)[::-1])
    for name in ("onnx/model.onnx", "onnx/model.onnx.data", "model.gguf", "config.json", "README.md"):
        assert (out / name).stat().st_size > 0
    assert not [file for file in out.parent.iterdir() if file.name.startswith(".")]  # nothing left of the work
    written = [out / name for name in ("config.json", "tokenizer_config.json", "README.md", "reference.json")]
    assert not any(str(out.parent) in file.read_text("utf-8") for file in written)  # no path of this machine


def test_reference_file_holds_what_we_serve(exported: tuple[Path, dict[str, Check]], encoder: LocalEncoder):
    file = json.loads((exported[0] / "reference.json").read_text("utf-8"))
    assert file["fingerprint"] == encoder.fingerprint and file["max_length"] == MAX_LENGTH
    for row in file["texts"]:
        task = TASKS.get(row["task"])
        ours = encoder.encode_queries([row["text"]], task) if task else encoder.encode_passages([row["text"]])
        assert (row["role"] == "query") == bool(task)
        np.testing.assert_allclose([row["embedding"]], ours, atol=1e-6)
    long = [row for row in file["texts"] if row["script"] == "long"]
    room = MAX_LENGTH - 2
    fits, cut = (encoder.count_tokens([row["text"]])[0] for row in long)
    assert room - 3 <= fits <= room < cut and [row["truncated"] for row in long] == [False, True]


def test_tokenizer_json_writes_bos_and_eos_on_its_own(exported: tuple[Path, dict[str, Check]], encoder: LocalEncoder):
    tokenizer = Tokenizer.from_file(str(exported[0] / "tokenizer.json"))
    texts = [text for pair in TEXTS.values() for text in pair] + [LAYOUT, "", "word " * 500]
    tokenizer.enable_truncation(MAX_LENGTH)
    ours = tokenize(encoder.tokenizer, texts, MAX_LENGTH).ids
    assert [row.ids for row in tokenizer.encode_batch(texts)] == ours  # truncated ones too
    pair = tokenizer.encode("a", "b")
    assert pair.ids.count(BOS) == pair.ids.count(EOS) == 2 and pair.ids[-1] == EOS
    assert pair.type_ids == [0] * 3 + [1] * 3


def test_plain_transformers_keeps_the_eos(exported: tuple[Path, dict[str, Check]]):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported[0])
    batch = tokenizer(["short", "long " * 199], truncation=True, padding=True)
    first, second = batch["input_ids"]
    assert second[0] == BOS and second[-1] == EOS and len(second) == MAX_LENGTH
    length = sum(batch["attention_mask"][0])
    assert first[0] == BOS and first[length - 1] == EOS and batch["attention_mask"][0][-1] == 0  # padded right
    assert set(batch) == {"input_ids", "attention_mask"} and tokenizer.pad_token_id == EOS


def test_what_text_embeddings_inference_requires_is_there(exported: tuple[Path, dict[str, Check]]):
    """Keys without a default in TEI 1.9.3, router/src/lib.rs and backends/ort/src/lib.rs."""
    out = exported[0]
    pooling = json.loads((out / "1_Pooling" / "config.json").read_text())
    assert pooling["pooling_mode_cls_token"] is False and pooling["pooling_mode_mean_tokens"] is False
    assert pooling["pooling_mode_lasttoken"] is True and pooling["pooling_mode"] == "lasttoken"
    assert json.loads((out / "sentence_bert_config.json").read_text())["max_seq_length"] == MAX_LENGTH
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "mistral" and config["architectures"] == ["MistralModel"]
    assert {"hidden_size", "num_hidden_layers", "pad_token_id", "eos_token_id"} <= set(config)
    prompts = json.loads((out / "config_sentence_transformers.json").read_text("utf-8"))["prompts"]
    assert prompts["query"] == TASKS[DEFAULT_TASK].prefix and prompts["document"] == ""
    assert {name: prompts[name] for name in TASKS} == {name: task.prefix for name, task in TASKS.items()}
    types = [module["type"] for module in json.loads((out / "modules.json").read_text())]
    assert types == [f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")]


def test_plain_llama_index_with_the_instruction_of_the_card(
    exported: tuple[Path, dict[str, Check]], encoder: LocalEncoder
):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    prefix = TASKS[DEFAULT_TASK].prefix
    assert f"query_instruction={json.dumps(prefix)}" in (exported[0] / "README.md").read_text("utf-8")
    theirs = HuggingFaceEmbedding(model_name=str(exported[0]), query_instruction=prefix, device="cpu")
    without = HuggingFaceEmbedding(model_name=str(exported[0]), device="cpu")
    for query, passage in TEXTS.values():
        ours = encoder.encode_queries([query], TASKS[DEFAULT_TASK])
        assert cosines(np.array([theirs.get_query_embedding(query)]), ours) > 0.9999
        assert cosines(np.array([theirs.get_text_embedding(passage)]), encoder.encode_passages([passage])) > 0.9999
        assert cosines(np.array([without.get_query_embedding(query)]), ours) < 0.99  # the trap the card warns of


def test_the_card_says_what_was_checked_and_no_more(exported: tuple[Path, dict[str, Check]]):
    card = (exported[0] / "README.md").read_text("utf-8")
    assert card.startswith("# tiny\n")
    for check_ in exported[1].values():
        [row] = [line for line in card.splitlines() if line.startswith(f"| {check_.format} | {check_.runtime} | ")]
        shown = [float(cell) for cell in row.split("|")[3:5]]
        measured = [check_.lowest("query"), check_.lowest("passage")]
        assert all(0 <= m - s < 1.1e-5 for m, s in zip(measured, shown, strict=True))  # never rounded up
    assert "vLLM and TEI were not run" in card
    assert "temperature: 0.02" in card and "| qa/faquad.pt | 640 |" in card and "12,345" in card
    assert "| scores | ndcg@10 | 0.6125 |" in card
    assert all(task.instruction in card for task in TASKS.values())
    assert f"--embeddings -c {MAX_LENGTH + 1}" in card


# ---- broken exports


def mean_pooling(folder: Path) -> None:
    edit(folder / "1_Pooling" / "config.json", pooling_mode="mean", pooling_mode_mean_tokens=True)
    edit(folder / "1_Pooling" / "config.json", pooling_mode_lasttoken=False)


def no_normalize(folder: Path) -> None:
    file = folder / "modules.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:2]))


def short(folder: Path) -> None:
    edit(folder / "sentence_bert_config.json", max_seq_length=16)


@pytest.mark.parametrize(
    ("format", "damage", "named"),
    [
        ("sentence-transformers", mean_pooling, "cosine"),
        ("sentence-transformers", no_eos, "cosine"),
        ("sentence-transformers", no_normalize, "length"),
        ("sentence-transformers", short, "cosine"),
        ("onnx", no_eos, "cosine"),
    ],
)
def test_a_broken_file_is_caught(broken: Path, references: list[Reference], format: str, damage: Any, named: str):
    check(format, broken, references, 0.999)
    damage(broken)
    with pytest.raises(ExportMismatch, match=f"{format} .*{named}"):
        check(format, broken, references, 0.999)


@pytest.mark.parametrize("name", ["query", "document", "bitext"])
def test_a_changed_prompt_is_caught(broken: Path, references: list[Reference], name: str):
    file = broken / "config_sentence_transformers.json"
    prompts = json.loads(file.read_text("utf-8"))["prompts"]
    edit(file, prompts={**prompts, name: prompts[name].rstrip() + "!"})
    with pytest.raises(ExportMismatch, match=f"prompt '{name}'"):
        check("sentence-transformers", broken, references, 0.999)


def test_a_lost_mask_is_caught_in_onnx(broken: Path, references: list[Reference], encoder: LocalEncoder):
    """A graph that pools the last column is right for every text alone, and wrong in a batch."""

    class LastColumn(layout._Pooled):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
            return hidden, torch.nn.functional.normalize(hidden[:, -1], dim=-1)

    shutil.rmtree(broken / "onnx")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "_Pooled", LastColumn)
        layout.write_onnx(encoder.model, broken / "onnx" / "model.onnx")
    with pytest.raises(ExportMismatch, match="onnx"):
        check("onnx", broken, references, 0.999)


def test_onnx_keeps_sliding_windows(mistral_folder: Path, tmp_path: Path):
    """Texts of 128 tokens under windows of 16, which are wider than the input that the graph is traced with."""
    base = tmp_path / "window"
    shutil.copytree(mistral_folder, base)
    edit(base / "config.json", sliding_window=16)
    ModelInfo("", MAX_LENGTH).write(base)
    narrow = LocalEncoder.load(base)
    [long] = [r.text for r in make_references(narrow) if r.script == "long" and not r.truncated]
    wide = LocalEncoder.load(mistral_folder, max_length=MAX_LENGTH).encode_passages([long])
    assert cosines(narrow.encode_passages([long]), wide) < 0.99  # a graph without windows would not pass
    export(str(base), tmp_path / "out", ExportConfig(("safetensors", "onnx")))
    with pytest.raises(ValueError, match=r"sliding window \(16\) below max_length \(128\)"):
        export(str(base), tmp_path / "out2", ExportConfig(("gguf",)))
    assert not (tmp_path / "out2").exists()


# ---- GGUF


@pytest.mark.parametrize("lost", ["pooling", "eos", "permutation", "gamma"])
def test_what_the_writer_could_forget_is_caught_and_leaves_nothing(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
):
    if lost == "permutation":
        monkeypatch.setattr(gguf_writer, "interleave", lambda array, heads: array)
    elif lost == "gamma":
        monkeypatch.setattr(
            gguf_writer, "convert", lambda key, array, config: array + 1 if "norm.weight" in key else array
        )
    else:
        real = gguf.GGUFWriter.add_key_value

        def forgetful(self: Any, key: str, value: Any, *types: Any) -> None:
            if lost == "eos" and key.endswith("add_eos_token"):
                value = False
            if lost == "pooling" and key.endswith("pooling_type"):
                value = int(gguf.PoolingType.MEAN)
            real(self, key, value, *types)

        monkeypatch.setattr(gguf.GGUFWriter, "add_key_value", forgetful)
    with pytest.raises(ExportMismatch, match=r"gguf in xllamacpp has cosine .* below 0.999, for the (query|passage)"):
        export(str(run / "model"), tmp_path / "out", ExportConfig(("gguf",), gguf="f32"))
    assert not list(tmp_path.iterdir())


def test_interleave_undoes_the_halves():
    """Two heads of four rows: 0 1 | 2 3 become 0 2 1 3, as transformers' own loader would undo."""
    from transformers.modeling_gguf_pytorch_utils import LlamaTensorProcessor

    rows = np.arange(8.0)[:, None].repeat(3, 1)
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    undone = LlamaTensorProcessor()._reverse_permute_weights(interleave(rows, 2), 2)
    np.testing.assert_array_equal(undone, rows)


@pytest.mark.parametrize(("precision", "least"), [("f16", 0.9999), ("bf16", 0.999), ("q8_0", 0.99)])
def test_precisions(encoder: LocalEncoder, references: list[Reference], tmp_path: Path, precision: str, least: float):
    ModelInfo("", MAX_LENGTH).write(tmp_path)
    write_gguf(
        encoder.model, encoder.tokenizer, tmp_path / "model.gguf", name="t", max_length=MAX_LENGTH, precision=precision
    )
    check("gguf", tmp_path, references, least)
    reader = GGUFReader(tmp_path / "model.gguf")
    kinds = {t.name: t.tensor_type.name for t in reader.tensors}
    assert kinds["output_norm.weight"] == "F32" and kinds["blk.0.attn_q.weight"] == precision.upper()
    assert reader.fields["llama.pooling_type"].contents() == 3
    assert reader.fields["tokenizer.ggml.add_eos_token"].contents() is True
    assert reader.fields["tokenizer.ggml.add_bos_token"].contents() is True


def small_tokenizer(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json of seven pieces: a, b, c, ab, bc, abc, and the space."""
    model = {
        "type": "BPE",
        "byte_fallback": True,
        "vocab": {"<unk>": 0, "a": 1, "b": 2, "c": 3, "ab": 4, "bc": 5, "abc": 6},
        "merges": [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]],
    }
    return {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "added_tokens": [{"id": 0, "content": "<unk>", "special": True}, {"id": 7, "content": "▁▁", "special": False}],
        "model": {**model, **changes.pop("model", {})},
        **changes,
    }


def test_vocabulary_of_merges_has_scores_in_their_order():
    words = vocabulary(small_tokenizer())
    assert words.tokens == ["<unk>", "a", "b", "c", "ab", "bc", "abc", "  "]
    assert words.scores[4] > words.scores[5] > words.scores[6] > words.scores[1] == words.scores[0]
    unknown, normal, user = gguf.TokenType.UNKNOWN, gguf.TokenType.NORMAL, gguf.TokenType.USER_DEFINED
    assert words.types == [unknown, *[normal] * 6, user]
    assert not words.space_prefix
    assert vocabulary(
        small_tokenizer(normalizer=None, pre_tokenizer={"type": "Metaspace", "prepend_scheme": "first", "split": False})
    ).space_prefix


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": {"type": "Unigram"}}, "SentencePiece family"),
        ({"model": {"byte_fallback": False}}, "SentencePiece family"),  # GPT-2, Llama 3, Qwen: bytes as letters
        ({"model": {"merges": [["a", "b"], ["b", "c"], ["ab", "c"]]}}, "not merged though 'abc' is a piece"),
        ({"model": {"merges": [["a", "b"], ["ab", "c"], ["b", "c"], ["a", "bc"]]}}, "two places"),
        ({"normalizer": {"type": "NFKC"}}, "prepares texts"),
        ({"pre_tokenizer": {"type": "ByteLevel"}}, "prepares texts"),
    ],
)
def test_a_tokenizer_that_llama_cpp_cannot_follow_is_refused(changes: dict[str, Any], reason: str):
    with pytest.raises(ValueError, match=f"(?s){reason}.*Leave"):
        vocabulary(small_tokenizer(**changes))


def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(encoder: LocalEncoder, tmp_path: Path):
    def write(**changes: Any) -> None:
        config = encoder.model.config  # type: ignore[union-attr]
        before = {key: getattr(config, key) for key in changes}  # type: ignore[arg-type]
        try:
            for key, value in changes.items():
                setattr(config, key, value)
            write_gguf(encoder.model, encoder.tokenizer, tmp_path / "x.gguf", name="x", max_length=MAX_LENGTH)
        finally:
            for key, value in before.items():
                setattr(config, key, value)

    with pytest.raises(ValueError, match="scaled rotary"):
        write(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4})
    with pytest.raises(ValueError, match="activation gelu"):
        write(hidden_act="gelu")
    with pytest.raises(ValueError, match="no GGUF for a model of type 'qwen3'"):
        write(model_type="qwen3")


# ---- refusals


def test_a_target_with_files_is_refused_and_untouched(run: Path, tmp_path: Path):
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not empty"):
        export(str(run / "model"), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["keep.txt"]


def test_what_cannot_be_exported_is_refused_before_the_work(mistral_folder: Path, tmp_path: Path):
    start = time.monotonic()
    with pytest.raises(ValueError, match="no adapter"):
        export(str(mistral_folder), tmp_path / "out", ExportConfig(("adapter",)))
    with pytest.raises(ValueError, match=r"--formats takes adapter, safetensors.* got 'awq'"):
        ExportConfig(("awq",))
    with pytest.raises(ValueError, match="--gguf takes f32"):
        ExportConfig(gguf="q4")
    scores = tmp_path / "x.json"
    scores.write_text("[]")
    with pytest.raises(ValueError, match="no score file"):
        export(str(mistral_folder), tmp_path / "out", ExportConfig(scores=(scores,)))
    assert time.monotonic() - start < 5 and not (tmp_path / "out").exists()


def test_vectors_of_nan_are_no_match(broken: Path, references: list[Reference], monkeypatch: pytest.MonkeyPatch):
    """Gemma in float16 overflows to NaN, and NaN is below no threshold."""
    from ragkit import runtimes

    def nan(folder: Path) -> runtimes.Embed:
        return lambda texts, batch_size: np.full((len(texts), 64), np.nan, np.float32)

    monkeypatch.setitem(runtimes.RUNTIMES, "onnx", runtimes.Runtime("onnxruntime", nan))
    with pytest.raises(ExportMismatch, match="nan"):
        check("onnx", broken, references, 0.999)


def test_the_command(run: Path, tmp_path: Path):
    command = ["export", str(run / "model"), "--formats", "safetensors", "--dtype", "bfloat16", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "safetensors in transformers" in done.output and "Thai 0.99" in done.output
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    again = CliRunner().invoke(app, [*command, str(tmp_path / "out")])
    assert again.exit_code == 1 and "not empty" in again.output


# ---- the real model, minutes long: RAGKIT_PROVE=1


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Check]]]:
    if not os.environ.get("RAGKIT_PROVE"):
        pytest.skip("exports mini in every format, minutes and 4 GB of disk: set RAGKIT_PROVE=1")
    out = tmp_path_factory.mktemp("mini") / "mini"
    yield out, {c.format: c for c in export("mini", out)}
    shutil.rmtree(out)


def test_mini_in_every_program(mini: tuple[Path, dict[str, Check]]):
    out, checks = mini
    assert tuple(checks) == ALL
    for check_ in checks.values():
        assert min(check_.lowest("query"), check_.lowest("passage")) >= 0.999
    assert "Gemma" in (out / "NOTICE").read_text() and (out / "GEMMA_TERMS.html").stat().st_size > 100_000


def test_mini_in_plain_llama_index(mini: tuple[Path, dict[str, Check]]):
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    ours = LocalEncoder.load("mini", dtype=torch.float32)
    task = TASKS[DEFAULT_TASK]
    theirs = HuggingFaceEmbedding(model_name=str(mini[0]), query_instruction=task.prefix, device="cpu")
    queries, passages = zip(*TEXTS.values(), strict=True)
    got = np.array([theirs.get_query_embedding(query) for query in queries])
    assert cosines(got, ours.encode_queries(queries, task)).min() >= 0.999
    got = np.array([theirs.get_text_embedding(passage) for passage in passages])
    assert cosines(got, ours.encode_passages(passages)).min() >= 0.999


def test_the_vocabulary_made_from_mini_is_the_base_files(mini: tuple[Path, dict[str, Check]]):
    """Two ways to one vocabulary: llama.cpp's converter from SentencePiece, and ours from merges.

    Runs of spaces are pieces here and user-defined tokens there: transformers' GGUF loader makes them so.
    """
    made = vocabulary(json.loads((mini[0] / "tokenizer.json").read_text("utf-8")))
    fields = GGUFReader(mini[0] / "model.gguf").fields
    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    assert [token.replace("▁", " ") for token in made.tokens] == [token.replace("▁", " ") for token in tokens]
    normal, byte = gguf.TokenType.NORMAL, gguf.TokenType.BYTE
    assert [n for n, kind in enumerate(types) if kind == byte] == [
        n for n, kind in enumerate(made.types) if kind == byte
    ]
    both = [n for n, pair in enumerate(zip(types, made.types, strict=True)) if pair == (normal, normal)]
    least = min(made.scores)
    merged = [n for n in both if made.scores[n] > least]  # the others are single letters: nothing joins to them
    assert len(merged) > 230_000
    assert sorted(merged, key=lambda n: -made.scores[n]) == sorted(merged, key=lambda n: -scores[n])
