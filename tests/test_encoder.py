"""BOS ... EOS, truncation, pooling and identity, on the real Mistral-7B tokenizer and a tiny Mistral."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SCRIPTS
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoTokenizer

from ragkit import TASKS, Task, mini
from ragkit.encoder import LocalEncoder, ModelInfo, fast_dtype, tokenize, weights_digest
from ragkit.forward import batches, embed, pad, pool
from ragkit.lora import merge_plain

BOS, EOS = 1, 2
TASK = TASKS["question-answering"]


@pytest.fixture(scope="module")
def mistral(mistral_folder: Path) -> LocalEncoder:
    return LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, max_length=32)


@pytest.mark.parametrize("text", [*SCRIPTS.values(), "", " ", "x" * 100_000, "слово " * 2000, "\ud83d lone \udc00"])
def test_every_text_is_bos_words_eos(mistral: LocalEncoder, text: str):
    [row] = tokenize(mistral.tokenizer, [text], 32).ids
    assert row[0] == BOS and row[-1] == EOS
    assert BOS not in row[1:-1] and EOS not in row[1:-1]
    assert len(row) <= 32
    vector = mistral.encode_passages([text])
    assert vector.shape == (1, 64) and vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_truncation_keeps_the_first_words_and_eos(mistral: LocalEncoder):
    ours = tokenize(mistral.tokenizer, ["word " * 100], 16)
    assert ours.truncated == 1 and len(ours.ids[0]) == 16 and ours.ids[0][-1] == EOS
    assert ours.ids[0][1:-1] == mistral.tokenizer("word " * 100, add_special_tokens=False)["input_ids"][:14]


def test_special_tokens_inside_a_text_are_text(mistral: LocalEncoder):
    [row] = tokenize(mistral.tokenizer, ["end </s> of <s> text"], 64).ids
    assert row.count(EOS) == 1 and row.count(BOS) == 1
    assert "</s>" in mistral.tokenizer.decode(row[1:-1])


def test_truncation_is_counted_and_logged(mistral: LocalEncoder, caplog: pytest.LogCaptureFixture):
    before = mistral.truncated
    mistral.encode_passages(["short", "long " * 99, "longer " * 99])
    assert mistral.truncated - before == 2
    assert "2 of 3 passages cut to 32 tokens" in caplog.text


def test_a_text_alone_and_in_a_batch_of_longer_ones_is_the_same(mistral: LocalEncoder):
    texts = ["a", "three short words", *SCRIPTS.values(), "much longer " * 10]
    together = mistral.encode_passages(texts)
    alone = np.concatenate([mistral.encode_passages([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_order_is_kept_across_batches(mistral: LocalEncoder):
    texts = [f"{'w ' * (n % 7)}{n}" for n in range(40)]
    whole = mistral.encode_passages(texts)
    mistral.token_budget, budget = 20, mistral.token_budget
    np.testing.assert_allclose(mistral.encode_passages(texts), whole, atol=1e-5)
    mistral.token_budget = budget


def test_queries_are_prompted_and_passages_bare(mistral: LocalEncoder):
    query = "who founded it?"
    same = mistral.encode_passages([TASK.prompt(query)])
    np.testing.assert_allclose(mistral.encode_queries([query], TASK), same, atol=1e-6)
    other = mistral.encode_queries([query], Task("o", "Classify"))
    assert not np.allclose(other, same, atol=1e-2)


QUERIES = [
    "who founded it?",
    "من أسسها؟",
    "इसे किसने बनाया?",
    "ใครก่อตั้ง",
    "谁创立了它？",
    "誰が作った",
    "ማን መሠረተው?",
    "🙂 🏔️",
    "a",
    "",
]


def test_prompts_of_a_task_go_on_from_what_they_have_in_common(mistral: LocalEncoder, monkeypatch: pytest.MonkeyPatch):
    """Computed once, the same embeddings to rounding, whatever the query makes of the prompt's last token."""
    whole = mistral.encode_rows(mistral.tokenize([TASK.prompt(query) for query in QUERIES]).ids)
    reads: list[int] = []

    def counted(model: Any, rows: Any, **knobs: Any) -> torch.Tensor:
        reads.extend(len(row) - len(knobs["head"].ids if knobs["head"] else ()) for row in rows)
        return embed(model, rows, **knobs)

    monkeypatch.setattr("ragkit.encoder.embed", counted)
    monkeypatch.setattr(mistral, "_heads", {})
    np.testing.assert_allclose(mistral.encode_queries(QUERIES, TASK), whole, atol=1e-6)
    np.testing.assert_allclose(mistral.encode_queries(QUERIES[2:3], TASK), whole[2:3], atol=1e-6)
    head = next(iter(mistral._heads.values())).ids
    assert len(head) > 5
    assert max(reads) <= 32 - len(head)  # 32: the encoder here reads no more
    passages = mistral.encode_passages(["bare", *(TASK.prompt(query) for query in QUERIES)])  # by its ids, not its role
    np.testing.assert_allclose(passages[1:], whole, atol=1e-6)


def test_the_last_tasks_are_kept_computed(mistral: LocalEncoder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mistral, "_heads", {})
    for n in range(20):
        mistral.encode_queries(["x"], Task("t", f"{n:02} sentences"))
    assert len(mistral._heads) == 16
    kept = dict(mistral._heads)
    mistral.encode_queries(["x"], Task("t", "19 sentences"))
    assert mistral._heads == kept


def test_states_are_the_embeddings_before_their_length_is_made_one(mistral: LocalEncoder):
    queries = ["who founded it?", "ማን መሠረተው?", "谁创立了它？"]
    states = mistral.encode_states(queries, TASK)
    lengths = np.linalg.norm(states, axis=1, keepdims=True)
    assert (abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(states / lengths, mistral.encode_queries(queries, TASK), atol=1e-6)
    rows = mistral.tokenize([TASK.prompt(query) for query in queries]).ids
    packed = embed(mistral.model, rows, packed=True, unit=False).detach().numpy()
    np.testing.assert_allclose(packed, states, atol=1e-4)


def test_no_texts(mistral: LocalEncoder):
    assert mistral.encode_passages([]).shape == (0, 64)
    assert mistral.encode_queries([], TASK).shape == (0, 64)
    assert mistral.count_tokens([]) == []


def test_one_string_is_not_a_list(mistral: LocalEncoder):
    with pytest.raises(TypeError, match="wrap it in a list"):
        mistral.encode_passages("oops")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="queries must be a list of texts"):
        mistral.encode_queries("oops", TASKS["web-search"])  # type: ignore[arg-type]


def test_pooling_takes_the_last_real_token_though_pad_is_eos():
    """Hidden state = position: the right answer is the length minus one."""
    hidden = torch.arange(5.0).repeat(3, 1)[..., None] * torch.tensor([0.0, 1.0]) + torch.tensor([1.0, 0.0])
    lengths = torch.tensor([1, 3, 5])
    expected = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 2.0], [1.0, 4.0]]))
    assert torch.equal(pool(hidden, lengths), expected)


def test_pads_do_not_matter(mistral: LocalEncoder, monkeypatch: pytest.MonkeyPatch):
    rows = tokenize(mistral.tokenizer, ["short", "a good deal longer than that"], 32).ids
    expected = embed(mistral.model, rows)

    def padded_with_eos(rows: Any, device: Any, multiple: int) -> tuple[torch.Tensor, torch.Tensor]:
        ids, lengths = pad(rows, device, multiple)
        for row, length in zip(ids, lengths, strict=True):
            row[length:] = EOS
        return ids, lengths

    monkeypatch.setattr("ragkit.forward.pad", padded_with_eos)
    assert torch.equal(embed(mistral.model, rows), expected)
    assert pad(rows, multiple=16)[0].shape[1] % 16 == 0
    torch.testing.assert_close(embed(mistral.model, rows, multiple=16), expected)


def test_batches_cover_everything_within_the_budget():
    lengths = [5, 1, 9, 3, 3, 12, 2]
    groups = list(batches(lengths, 12))
    assert sorted(i for group in groups for i in group) == list(range(7))
    assert all(len(g) == 1 or len(g) * max(lengths[i] for i in g) <= 12 for g in groups)
    assert list(batches([50], 12)) == [[0]]


def test_fingerprint_is_meaning_not_precision(mistral: LocalEncoder, mistral_folder: Path, tmp_path: Path):
    def load(folder: Path = mistral_folder, **kwargs: Any) -> str:
        return LocalEncoder.load(folder, device="cpu", **{"max_length": 32, **kwargs}).fingerprint

    assert load() == mistral.fingerprint == load(dtype=torch.bfloat16)
    assert len(load()) == 16
    assert load(max_length=64) != mistral.fingerprint
    other = shutil.copytree(mistral_folder, tmp_path / "other")
    weights = bytearray((other / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (other / "model.safetensors").write_bytes(weights)
    assert load(other) != mistral.fingerprint


def test_model_info_is_read_and_a_folder_without_weights_is_refused(tmp_path: Path):
    ModelInfo(base="mini-base", max_length=77).write(tmp_path)
    assert ModelInfo.read(tmp_path) == ModelInfo(base="mini-base", max_length=77)
    with pytest.raises(OSError, match="no weights"):
        weights_digest(tmp_path)
    with pytest.raises(OSError):
        LocalEncoder.load(tmp_path / "nothing-here")


def test_what_cannot_be_pooled_is_refused(mistral: LocalEncoder):
    model = SimpleNamespace(config=SimpleNamespace(is_causal=False), eval=lambda: None)
    with pytest.raises(ValueError, match="causal decoder"):
        LocalEncoder(model, mistral.tokenizer, weights_hash="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no room"):
        tokenize(mistral.tokenizer, ["x"], 2)


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch):
    for amx, avx, expected in [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ]:
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda avx=avx: avx)
        assert fast_dtype("cpu") is expected


# --- adapters and tokenizers, read the short way


@pytest.mark.parametrize("knobs", [{}, {"use_dora": True}, {"use_rslora": True}, {"rank_pattern": {"q_proj": 2}}])
def test_an_adapter_is_merged_as_peft_merges_it(mistral_folder: Path, tmp_path: Path, knobs: dict[str, Any]):
    base = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, trainable=True).model
    lora = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights=False, **knobs)
    wrapped: Any = get_peft_model(base, lora)  # type: ignore[arg-type]
    wrapped.half().save_pretrained(tmp_path)  # float16, as `mini` ships
    ModelInfo(base=str(mistral_folder)).write(tmp_path)
    ours = LocalEncoder.load(tmp_path, device="cpu", dtype=torch.float32, trainable=True).model.state_dict()

    bare: Any = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, trainable=True).model
    before = {name: weight.clone() for name, weight in bare.state_dict().items()}
    assert merge_plain(bare, tmp_path) == (not knobs)  # else peft did it, and nothing was touched
    assert all(torch.equal(weight, before[name]) for name, weight in bare.state_dict().items()) == bool(knobs)
    untouched: Any = LocalEncoder.load(mistral_folder, device="cpu", dtype=torch.float32, trainable=True).model
    theirs = PeftModel.from_pretrained(untouched, str(tmp_path)).merge_and_unload().state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not all(torch.equal(ours[name], before[name]) for name in before)


def test_the_tokenizer_of_mini_is_the_one_transformers_builds():
    folder = mini.base_folder()
    ours, theirs = mini.tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    texts = [
        *SCRIPTS.values(),
        "end </s> of <eos> <bos> text",
        " two  spaces\t\n\n tab",
        "<start_of_turn>",
        "ﬁ①e\u0301 ＡＢ",
    ]
    assert mini.is_base(folder) and tokenize(ours, texts, 64) == tokenize(theirs, texts, 64)
    assert ours.special_tokens_map == theirs.special_tokens_map and len(ours) == len(theirs)
    assert ours.decode(tokenize(ours, texts, 64).ids[0]) == theirs.decode(tokenize(ours, texts, 64).ids[0])
