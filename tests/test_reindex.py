"""Another embedder for a stored corpus: nothing lost, nothing mixed, nothing interrupted."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from fake_qdrant import serving
from qdrant_client import models
from test_store import PASSAGES, passage
from typer.testing import CliRunner

from ragkit.around import Around
from ragkit.cli import app
from ragkit.doctor import check_store
from ragkit.generations import SUPERSEDING
from ragkit.ingest import ingest
from ragkit.live import LiveRetriever
from ragkit.reindex import _drop_absent, beside, open_current, prune, reindex, roll_back
from ragkit.retrieve import Retriever
from ragkit.settings import QdrantSettings
from ragkit.store import (
    CorpusInUse,
    CorpusNotFound,
    EarlierWords,
    FingerprintMismatch,
    Store,
    StoreError,
    open_store,
)  # fmt: skip

OLD, NEW = HashEncoder("old"), HashEncoder("new")


@pytest.fixture(params=["embedded", "rest"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "rest":
        with serving() as (_, url):
            yield url
        return
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    yield str(tmp_path / "store")


def fill(location: str, tenant: str | None = None, texts: Sequence[str] = ()) -> None:
    passages = [passage(n, text, "en") for n, text in enumerate(texts)] if texts else PASSAGES
    with open_store(location, "town", OLD, tenant=tenant) as store:
        store.upsert(passages, OLD.encode_passages([p.text for p in passages]))


def content(store: Store) -> dict[str, tuple[object, list[float]]]:
    """Payload and embedding of each point, whoever's."""
    found, _ = store._whole.scroll(store.collection, limit=10_000, with_payload=True, with_vectors=["dense"])
    return {str(r.id): (r.payload, [round(x, 5) for x in r.vector["dense"]]) for r in found}


def test_every_passage_is_there_in_the_new_model_and_the_old_one_is_refused(location: str):
    fill(location)
    report = reindex(location, "town", NEW)
    assert (report.passages, report.embedded, report.dropped) == (len(PASSAGES), len(PASSAGES), 0)
    assert report.previous == OLD.fingerprint
    with open_store(location, "town", NEW) as store:
        assert store.passages([p.id for p in PASSAGES]) == PASSAGES
        expected = NEW.encode_passages([p.text for p in PASSAGES])
        found = content(store)
        for p, row in zip(PASSAGES, expected, strict=True):
            np.testing.assert_allclose(found[p.id][1], row / np.linalg.norm(row), atol=1e-4)
        hits = Retriever(store, NEW).search(PASSAGES[0].text, mode="sparse", k=1)
        assert hits[0].passage == PASSAGES[0]  # BM25 came along
    with pytest.raises(FingerprintMismatch, match=f"embedded by encoder {NEW.fingerprint}.*reindex --corpus town"):
        open_store(location, "town", OLD)
    again = reindex(location, "town", NEW)
    assert (again.passages, again.embedded) == (len(PASSAGES), 0)


def test_embeddings_that_are_no_numbers_do_not_become_the_corpus(location: str):
    class Overflowing(Around):
        def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
            return np.full((len(passages), self.dimension), np.nan, np.float32)

    fill(location)
    with pytest.raises(ValueError, match="not finite: check the encoder's precision"):
        reindex(location, "town", Overflowing(NEW))
    with open_store(location, "town", OLD) as store:
        assert store.count() == len(PASSAGES)


def test_rolling_back_and_forth(location: str):
    fill(location)
    with pytest.raises(StoreError, match="no generation before"):
        roll_back(location, "town")
    reindex(location, "town", NEW)
    assert roll_back(location, "town") == OLD.fingerprint
    with open_store(location, "town", OLD) as store:
        assert store.count() == len(PASSAGES)
        store.upsert([passage(99, "new since", "en")], OLD.encode_passages(["new since"]))
        store.delete([PASSAGES[0].id])
    with pytest.raises(FingerprintMismatch):
        open_store(location, "town", NEW)
    forth = reindex(location, "town", NEW)
    assert (forth.embedded, forth.dropped, forth.passages) == (1, 1, len(PASSAGES))
    with pytest.raises(CorpusNotFound, match="has a current generation"):
        roll_back(location, "village")


def test_rolling_back_where_a_model_is_used_a_second_time(location: str):
    third = HashEncoder("third")
    fill(location)
    for encoder in (NEW, third, NEW):
        reindex(location, "town", encoder)
    assert roll_back(location, "town") == third.fingerprint
    assert roll_back(location, "town") == NEW.fingerprint
    reindex(location, "town", OLD)  # the first one: it was made when there was none before it
    assert roll_back(location, "town") == NEW.fingerprint


def test_tenants_come_along_and_stay_apart(location: str):
    fill(location, "anna", ["the ferry of Anna"])
    with open_store(location, "town", OLD, tenant="ben") as store:
        bens = replace(passage(7, "the ferry of Ben", "en"), id="00000000-0000-4000-8000-000000000007")
        store.upsert([bens], OLD.encode_passages([bens.text]))
    reindex(location, "town", NEW)
    for tenant, text in [("anna", "the ferry of Anna"), ("ben", "the ferry of Ben")]:
        with open_store(location, "town", NEW, tenant=tenant) as store:
            assert [h.passage.text for h in Retriever(store, NEW).search("ferry", k=5)] == [text]


class Tired(HashEncoder):
    """Fails from the second call on."""

    calls = 0

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        self.calls += 1
        if self.calls > 1:
            raise MemoryError("tired")
        return super().encode_passages(passages)


def test_a_run_that_was_cut_off_goes_on_and_the_old_model_serves_until_then(location: str, monkeypatch):
    monkeypatch.setattr("ragkit.store.UPSERT", 4)
    fill(location)
    with pytest.raises(MemoryError):
        reindex(location, "town", Tired("new"))
    with open_store(location, "town", OLD) as store:
        assert store.count() == len(PASSAGES)
    with pytest.raises(FingerprintMismatch):  # half filled, and nobody's yet
        open_store(location, "town", NEW)
    report = reindex(location, "town", NEW)
    assert (report.passages, report.embedded) == (len(PASSAGES), len(PASSAGES) - 4)


class Meddling(HashEncoder):
    """While it embeds, somebody writes to the corpus."""

    store: Store
    done = False

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        if not self.done:
            self.done = True
            late = passage(50, "written meanwhile", "en")
            self.store.upsert([late], OLD.encode_passages([late.text]))
            self.store.delete([PASSAGES[0].id, PASSAGES[5].id])
            changed = replace(PASSAGES[3], title="another title")
            self.store.upsert([changed], OLD.encode_passages([changed.text]))
        return super().encode_passages(passages)


def test_what_is_written_meanwhile_is_not_lost(location: str):
    fill(location)
    with open_store(location, "town", OLD) as store:
        encoder = Meddling("new")
        encoder.store = store
        reindex(location, "town", encoder, current=store)
        expected = {i: payload for i, (payload, _) in content(store).items()}
    with open_store(location, "town", NEW) as store:
        assert {i: payload for i, (payload, _) in content(store).items()} == expected
        assert store.passages([PASSAGES[3].id])[0].title == "another title"


class Overtaken(HashEncoder):
    """While it embeds, somebody else reindexes the corpus."""

    store: Store
    done = False

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        if not self.done:
            self.done = True
            reindex(self.store.location, "town", NEW, current=self.store)
        return super().encode_passages(passages)


def test_a_writer_that_a_reindex_has_overtaken_says_so(location: str, tmp_path: Path):
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.txt").write_text("पुस्तकालय")
    encoder = Overtaken("old")
    with open_store(location, "town", encoder) as store:
        encoder.store = store
        with pytest.raises(FingerprintMismatch, match=f"switched to encoder {NEW.fingerprint}.*start it again"):
            ingest([root], store, encoder)
        (root / "b.txt").write_text("ห้องสมุด")
        with pytest.raises(FingerprintMismatch):
            ingest([root], store, encoder)
        assert store.count() == 1  # nothing more was written
    with open_store(location, "town", NEW) as store:
        ingest([root], store, NEW)
        assert store.count() == 2
    roll_back(location, "town")
    with open_store(location, "town", OLD) as store:
        ingest([root], store, OLD)
        assert store.count() == 2


def test_a_corpus_served_elsewhere_is_refused_by_name(tmp_path: Path):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    fill(str(tmp_path))
    with open_store(tmp_path, "town", OLD), pytest.raises(CorpusInUse, match="is open in process"):
        reindex(tmp_path, "town", NEW)


def test_the_models_of_old_are_not_needed_to_read(location: str):
    fill(location)
    with open_current(location, "town") as store:
        assert store.count() == len(PASSAGES)
        with pytest.raises(StoreError, match="is not loaded"):
            store.encoder.encode_passages(["x"])


def test_the_pointer_of_a_folder(tmp_path: Path):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    fill(str(tmp_path))
    assert not (tmp_path / "town.json").exists()
    reindex(tmp_path, "town", NEW)
    told = json.loads((tmp_path / "town.json").read_text())
    assert told == {"current": NEW.fingerprint, "previous": OLD.fingerprint}
    made = tmp_path / f"town--{NEW.fingerprint}" / "collection.json"  # where it stood before
    collection = json.loads(made.read_text())
    collection["metadata"] |= {"previous": told.pop("previous")}
    made.write_text(json.dumps(collection))
    (tmp_path / "town.json").write_text(json.dumps(told))
    assert roll_back(tmp_path, "town") == OLD.fingerprint
    (tmp_path / "town.json").write_text("{")
    with pytest.raises(StoreError, match="names the current generation"):
        open_store(tmp_path, "town", NEW)


def test_a_thousand_searches_during_a_reindex_and_its_swap(tmp_path: Path):
    """None fails, and none meets vectors of another model: the text that is asked is found with cosine 1 every
    time (it, or one whose words hash alike), which vectors of two models never have."""
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    texts = [f"{word} {n}" for n in range(60) for word in SCRIPTS.values()]
    fill(str(tmp_path), texts=texts)
    first = open_store(tmp_path, "town", OLD)
    live = LiveRetriever(Retriever(first, OLD))
    started, seen = threading.Semaphore(0), []

    def ask(n: int) -> None:
        text = texts[n % len(texts)]
        [hit] = live.search(text, mode="dense", k=1)
        assert hit.score == pytest.approx(1.0, abs=1e-4)
        with live.lease() as retriever:
            seen.append(retriever.encoder.fingerprint)
        started.release()

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, n) for n in range(500)]
        for _ in range(50):
            started.acquire()
        reindex(tmp_path, "town", NEW, current=first)
        second = open_store(tmp_path, "town", NEW)
        asked += [pool.submit(ask, n) for n in range(400)]
        former = live.swap(Retriever(second, NEW), timeout=60)
        former.store.close()
        asked += [pool.submit(ask, n) for n in range(100)]  # certainly after it
        for future in asked:
            future.result()
    assert len(seen) == 1000 and set(seen) == {OLD.fingerprint, NEW.fingerprint}
    second.close()


def test_a_swap_waits_for_searches_under_way(tmp_path: Path):
    with open_store(":memory:", "town", OLD) as a, open_store(":memory:", "town", NEW) as b:
        old, new = Retriever(a, OLD), Retriever(b, NEW)
        live = LiveRetriever(old)
        with live.lease() as mine:
            assert mine is old
            with pytest.raises(TimeoutError, match="1 searches still use"):
                live.swap(new, timeout=0.05)
            with live.lease() as other:
                assert other is new  # the swap stands
        assert live.swap(old, timeout=5) is new


def test_the_command(tmp_path: Path, mistral_folder: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path))
    monkeypatch.setenv("RAGKIT_MODEL", str(mistral_folder))
    fill(str(tmp_path))

    def run(*arguments: str) -> dict[str, object]:
        done = CliRunner().invoke(app, ["reindex", "--corpus", "town", "--json", *arguments])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout.splitlines()[-1])

    report = run()
    assert (report["passages"], report["previous"]) == (len(PASSAGES), OLD.fingerprint)
    found = CliRunner().invoke(app, ["search", PASSAGES[0].text, "--corpus", "town", "--json"])
    assert found.exit_code == 0 and json.loads(found.stdout)["hits"]
    assert run("--rollback") == {"current": OLD.fingerprint}
    failed = CliRunner().invoke(app, ["reindex", "--corpus", "village"])
    assert failed.exit_code == 1 and "no corpus 'village'" in failed.output


def test_on_a_server_no_write_of_ours_is_lost_between_the_last_pass_and_the_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.txt").write_text("чайка")
    with serving() as (_, url):
        fill(url)
        whole = Store.optimize
        refused: list[str] = []

        def late(store: Store) -> None:
            """The passes have ended; the new generation is not current."""
            whole(store)
            if store.encoder.fingerprint == NEW.fingerprint and not refused:
                refused.append("")
                with open_store(url, "town", OLD) as old:
                    old.upsert([passage(50, "written late", "en")], OLD.encode_passages(["written late"]))

        def at_last(old: Store, new: Store) -> int:
            dropped = _drop_absent(old, new)
            if refused:
                with (
                    open_store(url, "town", OLD) as store,
                    pytest.raises(StoreError, match="is being switched") as told,
                ):
                    ingest([root], store, OLD)
                refused.append(str(told.value))
            return dropped

        monkeypatch.setattr(Store, "optimize", late)
        monkeypatch.setattr("ragkit.reindex._drop_absent", at_last)
        report = reindex(url, "town", NEW)
        assert report.passages == len(PASSAGES) + 1 and "run it again when `ragkit reindex` is done" in refused[-1]
        monkeypatch.undo()
        roll_back(url, "town")
        with open_store(url, "town", OLD) as store:
            assert len(ingest([root], store, OLD).skipped) == 0  # nothing is refused any more


def test_a_reindex_that_was_killed_at_its_end_can_be_given_up(tmp_path: Path):
    with serving() as (_, url):
        fill(url)
        with open_store(url, "town", OLD) as store:
            store.client.update_collection(store.collection, metadata={SUPERSEDING: NEW.fingerprint})
            with pytest.raises(StoreError, match="generations --prune"):
                store.refuse_superseded()
            prune(url, "town")
            store.refuse_superseded()


def test_a_next_generation_is_quantised_as_the_present_one(location: str):
    """The variables may not be set in the shell that reindexes: eight times the memory would be a surprise."""
    settings = QdrantSettings(quantization="turbo", bits=2, vectors_on_disk=True)
    with open_store(location, "town", OLD, qdrant_settings=settings) as store:
        store.upsert(PASSAGES, OLD.encode_passages([p.text for p in PASSAGES]))
        before = store.client.get_collection(store.collection).config.params.vectors["dense"]
    reindex(location, "town", NEW)
    with open_store(location, "town", NEW) as store:
        after = store.client.get_collection(store.collection).config.params.vectors["dense"]
    assert (after.quantization_config, after.on_disk) == (before.quantization_config, True)
    assert "bits2" in str(after.quantization_config)


def test_a_name_that_is_somebody_elses_is_left_alone():
    """Qdrant would let the alias be taken over; its former target is written down nowhere."""
    with serving() as (fake, url):
        client = fake.local
        client.create_collection("llama_docs", vectors_config={})
        alias = models.CreateAlias(collection_name="llama_docs", alias_name="work")
        client.update_collection_aliases([models.CreateAliasOperation(create_alias=alias)])
        with pytest.raises(
            StoreError, match=r"alias 'work' on this server stands for 'llama_docs'.*choose another name"
        ):
            open_store(url, "work", OLD)
        with pytest.raises(StoreError, match="collection 'llama_docs' on this server is none of ragkit's"):
            open_store(url, "llama_docs", OLD)
        assert [c.name for c in client.get_collections().collections] == ["llama_docs"]
        assert client.get_aliases().aliases[0].collection_name == "llama_docs"


def test_a_reindex_beside_another_leaves_its_writers_refused(location: str):
    """The app's comparison page brings a generation up while a reindex ends; and what is current no more stays so."""
    fill(location)
    with open_store(location, "town", OLD) as store:
        if hasattr(store.client, "update_collection"):
            store.client.update_collection(store.collection, metadata={SUPERSEDING: NEW.fingerprint})
            beside(store, NEW)[0].close()
            with pytest.raises(StoreError, match="is being switched"):
                store.refuse_superseded()
        reindex(location, "town", NEW, current=store)
        with pytest.raises(FingerprintMismatch, match="was switched to encoder"):
            beside(store, HashEncoder("third"))
    with open_store(location, "town", NEW) as store:
        store.refuse_superseded()


@pytest.mark.parametrize("model", ["old", "new"])
def test_words_of_an_earlier_version_are_made_anew(location: str, model: str, monkeypatch: pytest.MonkeyPatch):
    """Its BM25 vectors do not match this version's questions; with the model it has, nothing is embedded for that."""
    passages = [passage(0, "وصل أحمد إلى المكتبة", "ar"), passage(1, "الميناء مغلق اليوم", "ar")]
    with monkeypatch.context() as earlier:
        earlier.setattr("ragkit.sparse._folded", lambda text: text)
        with open_store(location, "town", OLD, scheme="words+grams-2") as store:
            store.upsert(passages, OLD.encode_passages([p.text for p in passages]))
            before = content(store)
    with pytest.raises(FingerprintMismatch, match="reindex --corpus town` makes its words anew, and embeds nothing"):
        open_store(location, "town", OLD)
    report = reindex(location, "town", HashEncoder(model))
    assert (report.passages, report.embedded) == (2, 0 if model == "old" else 2)
    with open_store(location, "town", HashEncoder(model)) as store:
        assert model == "new" or content(store) == before
        found = Retriever(store, store.encoder).search("احمد", mode="sparse")
        assert [hit.passage.text for hit in found] == ["وصل أحمد إلى المكتبة"]


def test_a_generation_that_an_earlier_version_left_is_renewed_too(location: str):
    """Reindexed under that version and not pruned: the way back, and one that was cut off, go through it."""
    passages = [passage(0, "وصل أحمد إلى المكتبة", "ar")]
    with open_store(location, "town", OLD, scheme="words+grams-2") as store:
        store.upsert(passages, OLD.encode_passages([p.text for p in passages]))
        left = open_store(location, "town", NEW, generation=True, scheme="words+grams-2")
        with left:
            left.upsert(passages, NEW.encode_passages([p.text for p in passages]))
    assert check_store(location, "town", OLD).status == "failed"
    assert reindex(location, "town", NEW).embedded == 0
    with open_store(location, "town", NEW) as store:
        assert [hit.passage.id for hit in Retriever(store, NEW).search("احمد", mode="sparse")] == [passages[0].id]
    assert roll_back(location, "town") == OLD.fingerprint
    with pytest.raises(EarlierWords):
        open_store(location, "town", OLD)
    reindex(location, "town", OLD)
    with open_store(location, "town", OLD) as store:
        assert store.count() == 1
    assert check_store(location, "town", OLD).status == "ok"
