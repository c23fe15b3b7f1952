"""Embedded into a folder, loaded from it: the corpus that ingestion would have made, through kills and repetitions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import SCRIPTS, HashEncoder, no_room_once
from fake_qdrant import serving
from pyarrow import parquet
from test_kill_ingest import points
from typer.testing import CliRunner

from ragkit.bulk import EmbedReport, embed
from ragkit.cli import app
from ragkit.cluster import LOADING
from ragkit.ingest import IngestError, ingest
from ragkit.load import load
from ragkit.retrieve import Retriever
from ragkit.settings import QdrantSettings
from ragkit.shards import Folder, Manifest, PlanWriter, ShardError
from ragkit.store import FingerprintMismatch, Store, StoreError, open_store

ROOT = Path(__file__).parent.parent


def run(source: Path, out: Path, load_encoder: Any = HashEncoder, **options: Any) -> EmbedReport:
    given: dict[str, Any] = {"corpus": "town", "passage_tokens": 100, "shard_passages": 10} | options
    return embed([source], out, load_encoder, **given)


def manifest_of(out: Path) -> Manifest:
    manifest = Manifest.read(out)
    assert manifest is not None
    return manifest


def rows(out: Path) -> dict[str, tuple[Any, list[float]]]:
    """Passage and embedding by id; fails where an id is there twice."""
    folder = Folder(out, manifest_of(out))
    found: dict[str, tuple[Any, list[float]]] = {}
    for n in range(len(folder.manifest.shards)):
        for passages, embeddings in folder.batches(n):
            for passage, row in zip(passages, embeddings, strict=True):
                assert passage.id not in found
                found[passage.id] = passage, row.tolist()
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every script, as JSONL with metadata and as plain text."""
    folder = tmp_path_factory.mktemp("source")
    for lang, text in SCRIPTS.items():
        metadata = {"_id": "", "title": text, "date": "2026-01-31", "metadata": {"author": text, "years": [1, 2]}}
        lines = [metadata | {"_id": f"{lang}{n}", "text": f"{text} {n}. " * 40} for n in range(6)]
        (folder / f"{lang}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (folder / f"{lang}.txt").write_text(f"{text} Ω", "utf-8")
    return folder


def test_loaded_is_what_ingestion_would_have_stored(source: Path, tmp_path: Path):
    report = run(source, tmp_path / "vectors")
    assert report.embedded == report.passages > 7 * 7 and report.skipped == ()
    loaded = load(tmp_path / "vectors", tmp_path / "loaded", "town")
    assert (loaded.written, loaded.stored, loaded.removed) == (report.passages, report.passages, 0)
    assert loaded.compared == report.passages  # fewer than the sample, so all were read back
    encoder = HashEncoder()
    with open_store(tmp_path / "ingested", "town", encoder) as store:
        ingest([source], store, encoder, passage_tokens=100)
    assert points(tmp_path / "loaded") == points(tmp_path / "ingested")  # payloads and vectors, dense and sparse

    with open_store(tmp_path / "loaded", "town", encoder) as store:  # and ingestion finds nothing left to do
        again = ingest([source], store, encoder, passage_tokens=100)
        assert (again.added, again.changed, again.removed, again.passages) == (0, 0, 0, 0)
        for lang, text in SCRIPTS.items():
            [hit] = Retriever(store, encoder).search(text, lang=lang if lang != "emoji" else None, k=1)
            assert text in hit.passage.text


def test_again_is_no_work(source: Path, tmp_path: Path):
    out = tmp_path / "vectors"
    run(source, out)
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")}
    assert run(source, out).embedded == 0
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.parquet")} == before
    assert sorted(p.name for p in out.iterdir() if not p.suffix) == [".lock"]  # no plan is left, nothing half written
    load(out, tmp_path / "store", "town")
    stored = points(tmp_path / "store")
    assert load(out, tmp_path / "store", "town").written == 0
    assert points(tmp_path / "store") == stored


def test_the_shards_are_plain_parquet_with_fixed_size_lists(source: Path, tmp_path: Path):
    run(source, tmp_path)
    manifest = manifest_of(tmp_path)
    table = parquet.read_table(tmp_path / "00000.parquet")
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 64)
    assert table.num_rows == 10 == manifest.shards[0][0]
    texts = table.column("text").to_pylist()
    expected = HashEncoder().encode_passages(texts)
    np.testing.assert_array_equal(np.array(table.column("embedding").to_pylist(), np.float32), expected)
    assert sum(n for n, _ in manifest.shards) == manifest.passages
    assert all(n == 10 for n, _ in manifest.shards[:-1])


@pytest.mark.parametrize("damage", ["cut", "gone", "other"])
def test_what_is_not_whole_is_embedded_again_and_only_that(source: Path, tmp_path: Path, damage: str):
    run(source, tmp_path)
    whole = rows(tmp_path)
    file = tmp_path / "00002.parquet"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes((tmp_path / "00001.parquet").read_bytes())
    with pytest.raises(ShardError, match=r"1 of \d+ shards are not in .* \(2\): run the same"):
        load(tmp_path, tmp_path / "store", "town")
    assert run(source, tmp_path).embedded == 10
    assert rows(tmp_path) == whole


def test_a_flipped_bit_is_found_before_it_is_loaded(source: Path, tmp_path: Path):
    run(source, tmp_path)
    file = tmp_path / "00001.parquet"
    whole, folder = file.read_bytes(), Folder(tmp_path, manifest_of(tmp_path))
    written = [(passages, embeddings.tolist()) for passages, embeddings in folder.batches(1)]
    found: list[bytes] = []
    for place in range(0, len(whole), 41):  # the pages, the headers between them, the footer
        data = bytearray(whole)
        data[place] ^= 1
        file.write_bytes(data)
        try:
            assert [(passages, embeddings.tolist()) for passages, embeddings in folder.batches(1)] == written
        except ShardError as error:
            assert "00001.parquet" in str(error) and "run `ragkit embed` again" in str(error)
            found.append(bytes(data))
    assert len(found) > len(whole) / 41 / 4  # the others change nothing that is read: statistics, the names of writers
    file.write_bytes(found[0])  # early in the file: the footer says that all is well
    with pytest.raises(ShardError, match=r"00001.parquet .*delete it and run `ragkit embed` again"):
        load(tmp_path, tmp_path / "store", "town")


def test_a_damaged_plan_is_not_embedded(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Killed after the plan was made; then a bit of it flips."""
    run(source, tmp_path / "whole")
    monkeypatch.setattr(Folder, "drop_plan", lambda folder: None)
    out = tmp_path / "out"
    run(source, out)
    file, folder = out / "plan" / "00001.parquet", Folder(out, manifest_of(out))
    whole, planned = file.read_bytes(), folder.planned(1)
    found = 0
    for place in range(0, len(whole), 41):
        data = bytearray(whole)
        data[place] ^= 1
        file.write_bytes(data)
        try:
            assert folder.planned(1).equals(planned)
        except ShardError as error:
            assert f"delete {file.parent} and run `ragkit embed` again" in str(error)
            found += 1
    assert found > len(whole) / 41 / 4
    (out / "00001.parquet").unlink()
    with pytest.raises(ShardError, match="no plan of shard 99"):
        folder.planned(99)
    shutil.rmtree(file.parent)  # as the message says
    monkeypatch.undo()
    assert run(source, out).embedded == 10
    assert rows(out) == rows(tmp_path / "whole")


def test_two_runs_with_different_settings_do_not_share_a_folder(source: Path, tmp_path: Path):
    out = tmp_path / "vectors"
    run(source, out)
    for options, told in (
        ({"corpus": "other"}, "corpus was 'town', is 'other'"),
        ({"passage_tokens": 50}, "passage_tokens was 100, is 50"),
        ({"shard_passages": 7}, "shard_passages was 10, is 7"),
        ({"tenant": "ana"}, "tenant was None, is 'ana'"),
        ({"load_encoder": lambda: HashEncoder("b")}, "fingerprint was"),
    ):
        with pytest.raises(ShardError, match=f"begun with other settings: {told}"):
            run(source, out, **options)
    with pytest.raises(ShardError, match="sources was"):
        run(source / "ar.txt", out)
    with pytest.raises(ShardError, match="lies in the source"):
        run(tmp_path, out)
    with pytest.raises(IngestError, match="cannot read"):
        run(tmp_path / "nowhere", out)


@pytest.mark.parametrize("name", ["plan/notes.txt", "a.parquet", "mail.tmp", "plan.txt", "رسالة.txt"])
def test_a_folder_with_anything_of_somebody_else_s_is_refused_and_left_alone(source: Path, tmp_path: Path, name: str):
    file = tmp_path / "home" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ShardError, match=rf"holds '{name.partition('/')[0]}', which is not this command's"):
        run(source, tmp_path / "home")
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["plan", "plan.tmp"])
def test_sources_are_not_deleted_as_a_plan(tmp_path: Path, name: str):
    source = tmp_path / name / "notes"
    source.mkdir(parents=True)
    (source / "a.txt").write_text("mine")
    with pytest.raises(ShardError, match="lies where --out"):
        run(source, tmp_path)
    assert (source / "a.txt").read_text() == "mine"


def test_only_its_own_half_written_files_are_removed(source: Path, tmp_path: Path):
    run(source, tmp_path)
    (tmp_path / f"00000.parquet.{'0' * 32}.tmp").touch()
    (tmp_path / "mail.tmp").touch()
    (tmp_path / "notes.parquet.old.tmp").touch()
    run(source, tmp_path)
    assert sorted(p.name for p in tmp_path.glob("*.tmp")) == ["mail.tmp", "notes.parquet.old.tmp"]


@pytest.mark.parametrize(("kind", "step"), [(PlanWriter, "publish"), (Folder, "clear")])
def test_a_first_run_that_is_cut_off_at_its_plan_goes_on(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, step: str
):
    def cut(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PlanWriter, "discard", lambda writer: None)  # as a kill, which cleans nothing up
    monkeypatch.setattr(kind, step, cut)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path)
    monkeypatch.undo()
    report = run(source, tmp_path)
    assert report.embedded == report.passages


def test_what_no_store_could_hold_is_refused_before_anything_is_embedded(tmp_path: Path):
    for options, told in (({"corpus": "town--hall"}, "corpus name"), ({"tenant": ""}, "1 to 256"),
                          ({"tenant": "ሀ" * 257}, "1 to 256"), ({"tenant": "\ud800"}, "valid Unicode")):  # fmt: skip
        with pytest.raises((StoreError, ValueError), match=told):
            run(tmp_path / "nowhere", tmp_path / "vectors", **options)
    assert not (tmp_path / "vectors").exists()


def test_changed_sources_are_refused_and_touched_ones_are_not(tmp_path: Path):
    source, out = tmp_path / "source", tmp_path / "vectors"
    source.mkdir()
    (source / "a.txt").write_text("one")
    run(source, out)
    os.utime(source / "a.txt", (0, 0))
    assert run(source, out).embedded == 0
    (source / "a.txt").write_text("two")
    with pytest.raises(ShardError, match=r"say something else than when .* was begun"):
        run(source, out)
    assert [p.text for p, _ in rows(out).values()] == ["one"]


def test_a_second_run_at_once_is_refused(source: Path, tmp_path: Path):
    class Second(HashEncoder):
        def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
            with pytest.raises(ShardError, match="another run writes"):
                run(source, tmp_path)
            return super().encode_passages(passages)

    run(source, tmp_path, Second)


def test_parquet_arrow_and_jsonl_of_the_same_records_make_the_same_documents(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    records = [
        {"id": f"{lang}-{n}", "title": lang, "text": f"{text} {n}", "metadata": {"author": text}, "other": n}
        for lang, text in SCRIPTS.items() for n in range(3)
    ]  # fmt: skip
    table = pa.Table.from_pylist(records)
    (tmp_path / "parquet").mkdir()
    parquet.write_table(table, tmp_path / "parquet" / "a.parquet")
    dataset = datasets.Dataset.from_list(records)
    dataset.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "cache-1.arrow").write_bytes(b"what the library keeps for itself")
    (tmp_path / "jsonl").mkdir()
    lines = [json.dumps({**{k: v for k, v in r.items() if k != "id"}, "_id": r["id"]}) + "\n" for r in records]
    (tmp_path / "jsonl" / "corpus.jsonl").write_text("".join(lines))
    found = []
    for kind in ("parquet", "saved", "jsonl"):
        report = run(tmp_path / kind, tmp_path / f"{kind}-out")
        assert report.documents == len(records)
        passages = [p for p, _ in rows(tmp_path / f"{kind}-out").values()]
        found.append({(p.document, p.text, p.title, p.lang, p.metadata["author"]) for p in passages})
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_table_without_the_columns_is_skipped_by_name(tmp_path: Path, kind: str):
    (tmp_path / "in").mkdir()
    table = pa.table({"body": ["x"], "id": ["1"]})
    if kind == "parquet":
        parquet.write_table(table, tmp_path / "in" / "a.parquet")
    else:
        with pa.OSFile(str(tmp_path / "in" / "a.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
            out.write_table(table)
    [skipped, *_] = run(tmp_path / "in", tmp_path / "out").skipped
    assert "has the columns body, id: `text` and `id`" in skipped.reason


def test_killed_and_run_again(source: Path, tmp_path: Path):
    run(source, tmp_path / "whole")
    expected = rows(tmp_path / "whole")
    out = tmp_path / "vectors"
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tests" / "embed_once.py"), str(source), str(out)]
    process = subprocess.Popen(command, env=environment)
    while len(list(out.glob("*.parquet"))) < 3:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    kept = len(list(out.glob("*.parquet")))
    again = run(source, out)
    assert again.embedded == len(expected) - 10 * kept
    assert rows(out) == expected


# ------------------------------------------------------------------ loading


def test_another_encoder_s_corpus_refuses_them_without_a_model(source: Path, tmp_path: Path):
    run(source, tmp_path / "vectors")
    with open_store(tmp_path / "store", "town", HashEncoder("other")):
        pass
    with pytest.raises(FingerprintMismatch, match="embedded by encoder"):
        load(tmp_path / "vectors", tmp_path / "store", "town")
    with pytest.raises(ShardError, match="was embedded for the corpus 'town'"):
        load(tmp_path / "vectors", tmp_path / "store", "city")
    with pytest.raises(ShardError, match="holds no manifest"):
        load(tmp_path, tmp_path / "store", "town")


def test_a_load_that_was_cut_off_goes_on(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run(source, tmp_path / "vectors")
    load(tmp_path / "vectors", tmp_path / "whole", "town")
    calls, upsert = [], Store.upsert

    def twice(self: Store, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise StoreError("the power went")
        upsert(self, *arguments)

    monkeypatch.setattr(Store, "upsert", twice)
    with pytest.raises(StoreError, match="the power went"):
        load(tmp_path / "vectors", tmp_path / "store", "town")
    monkeypatch.undo()
    report = load(tmp_path / "vectors", tmp_path / "store", "town")
    assert report.written == report.passages - 20
    assert points(tmp_path / "store") == points(tmp_path / "whole")


def test_an_index_that_was_not_built_is_built_by_the_next_load(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run(source, tmp_path / "vectors")
    calls = no_room_once(monkeypatch)
    with pytest.raises(StoreError, match="make room"):
        load(tmp_path / "vectors", tmp_path / "store", "town")
    report = load(tmp_path / "vectors", tmp_path / "store", "town")
    assert report.written == 0 and calls == [report.stored] * 2


def test_changed_documents_are_brought_up_to_date_and_others_left_alone(tmp_path: Path):
    source, encoder = tmp_path / "source", HashEncoder()
    source.mkdir()
    (source / "changed.txt").write_text("before " * 300)
    (source / "other.txt").write_text("other")
    with open_store(tmp_path / "store", "town", encoder) as store:
        ingest([source], store, encoder, passage_tokens=100)
    (source / "other.txt").unlink()
    (source / "changed.txt").write_text("after " * 200)
    run(source, tmp_path / "vectors")
    report = load(tmp_path / "vectors", tmp_path / "store", "town")
    assert (report.written, report.removed, report.stored) == (2, 3, 3)
    with open_store(tmp_path / "store", "town", encoder) as store:
        assert sorted({p.text.split()[0] for p in store.sample(10)[0]}) == ["after", "other"]


def graph_of(body: Any) -> tuple[int, int | None]:
    told = body["vectors"]["dense"]["hnsw_config"]
    return told["m"], told.get("payload_m")


@pytest.mark.parametrize("tenant", [None, "ana"])
def test_a_server_builds_its_graph_afterwards(source: Path, tmp_path: Path, tenant: str | None):
    run(source, tmp_path, tenant=tenant)
    with serving() as (fake, url):
        report = load(tmp_path, url, "town", settings=QdrantSettings(m=24))
        assert report.stored == report.compared == report.passages
        changes = [graph_of(body) for method, _, body, _ in fake.seen if method == "PATCH"]
        assert changes == ([(0, None), (24, None)] if tenant is None else [(0, 0), (0, 24)])
        order = [m for m, path, _, _ in fake.seen if m == "PATCH" or (m == "PUT" and path.endswith("/points"))]
        assert order[0] == order[-1] == "PATCH" and "PUT" in order
        fake.seen.clear()
        assert load(tmp_path, url, "town").written == 0  # what is there is served: its graph is not touched
        assert not [1 for method, *_ in fake.seen if method == "PATCH"]


def test_one_tenant_s_load_leaves_the_graph_of_all_tenants_alone(source: Path, tmp_path: Path):
    run(source, tmp_path / "ana", tenant="ana")
    run(source / "am.jsonl", tmp_path / "ሀ", tenant="ሀ")
    with serving() as (fake, url):
        load(tmp_path / "ana", url, "town")
        fake.seen.clear()
        assert load(tmp_path / "ሀ", url, "town").written > 0
        assert not [1 for method, *_ in fake.seen if method == "PATCH"]


def test_the_graph_is_set_back_after_an_error_and_after_a_kill(source: Path, tmp_path: Path):
    run(source, tmp_path)
    manifest = manifest_of(tmp_path)
    with serving() as (fake, url):
        name = f"town--{manifest.fingerprint}"
        put = fake.answer

        def full(method: str, path: str, body: Any) -> Any:
            assert not (method == "PUT" and path.endswith("/points")), "no room"
            return put(method, path, body)

        fake.answer = full  # ty: ignore
        with pytest.raises(Exception, match="no room"):
            load(tmp_path, url, "town")
        fake.answer = put
        vectors: Any = fake.created[name].vectors
        assert vectors["dense"].hnsw_config.m == 16
        assert load(tmp_path, url, "town").written == manifest.passages
        vectors["dense"].hnsw_config.m = 0  # as a killed load leaves it
        fake.created[name].metadata = {**(fake.created[name].metadata or {}), LOADING: {"m": 16, "payload_m": None}}
        assert load(tmp_path, url, "town").written == 0
        assert fake.created[name].vectors["dense"].hnsw_config.m == 16  # type: ignore[index]


# ------------------------------------------------------------------ commands


def test_the_commands(source: Path, tmp_path: Path, mistral_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAGKIT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("RAGKIT_MODEL", str(mistral_folder))

    def called(*arguments: object, code: int = 0) -> Any:
        done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout.splitlines()[-1]) if code == 0 else done.output

    out = tmp_path / "የተከተተ 1"
    first = called("embed", source / "am.txt", source / "th.txt", "--corpus", "town", "--out", out)
    assert (first["documents"], first["passages"], first["skipped"]) == (2, 2, 0)
    loaded = called("load", out, "--corpus", "town")
    assert (loaded["written"], loaded["compared"]) == (2, 2)
    hits = called("search", SCRIPTS["am"], "--corpus", "town")["hits"]
    assert hits[0]["document"] == "am.txt" and hits[0]["text"] == f"{SCRIPTS['am']} Ω"
    assert "--engine ray" in called("embed", source, "--corpus", "a", "--out", out, "--workers", 2, code=2)
    assert "none of local, ray" in called("embed", source, "--corpus", "a", "--out", out, "--engine", "dask", code=2)
    assert "other settings" in called("embed", source, "--corpus", "a", "--out", out, code=1)
    again = ["embed", source / "am.txt", source / "th.txt", "--corpus", "town", "--out", out]
    done = CliRunner().invoke(app, [*map(str, again)])
    assert done.stdout.endswith(f"next: ragkit load '{out}' --corpus town\n")
