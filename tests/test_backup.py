"""A corpus as one file, and back: the same answers to the bit, damage told, and a kill that costs nothing. The
embedded engine is the real one; the server is fake_qdrant.py, which proves what is sent and no more."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SCRIPTS, HashEncoder
from fake_qdrant import serving
from test_store import PASSAGES, passage
from typer.testing import CliRunner

from ragkit import archive
from ragkit.archive import (
    BLOCK,
    BackupError,
    Manifest,
    check_archive,
    extract_archive,
    read_manifest,
    taken,
    write_archive,
)
from ragkit.backup import backup, restore
from ragkit.cli import app
from ragkit.reindex import generations_of, prune, reindex, roll_back
from ragkit.retrieve import Retriever
from ragkit.store import CorpusInUse, CorpusNotFound, Store, StoreError, open_store

pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")

ROOT = Path(__file__).parent.parent
OLD, NEW = HashEncoder("old"), HashEncoder("new")
KILLS = 30 if os.environ.get("RAGKIT_PROVE") else 2
MANY = [passage(n, f"{text} {n} {n % 3}", lang) for n, (lang, text) in enumerate(sorted(SCRIPTS.items()) * 10)]


def fill(location: str | Path, encoder: HashEncoder = OLD) -> None:
    with open_store(location, "town", encoder) as store:
        store.upsert(MANY, encoder.encode_passages([p.text for p in MANY]))
        store.optimize()


def answers(location: str | Path, encoder: HashEncoder = OLD) -> list[Any]:
    """Hits, scores to the bit, payloads, and what the collection says of itself."""
    with open_store(location, "town", encoder, create=False) as store:
        retriever = Retriever(store, encoder)
        found: list[Any] = [store.count(), store.client.get_collection(store.collection).config.metadata]
        for text in SCRIPTS.values():
            for mode in ("hybrid", "dense", "sparse"):
                found.append([(hit.passage, hit.score) for hit in retriever.search(f"{text} 7 1", mode=mode, k=20)])
        return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and a backup of it: not to be changed."""
    base = tmp_path_factory.mktemp("made")
    fill(base / "store")
    return base / "store", Path(backup(base / "store", "town", base / "town.tar.gz").file)


def test_what_comes_back_answers_the_same_to_the_bit(made: tuple[Path, Path], tmp_path: Path):
    store, file = made
    before = answers(store)
    kept = restore(file, tmp_path / "new", "town")
    assert (kept.points, kept.fingerprint) == (len(MANY), OLD.fingerprint)
    assert answers(tmp_path / "new") == before
    with open_store(tmp_path / "new", "town", OLD) as opened:  # and it can be written to
        opened.upsert([passage(999, "later", "en")], OLD.encode_passages(["later"]))
        opened.delete([MANY[0].id])
        opened.optimize()
    with open_store(tmp_path / "new", "town", OLD) as opened:
        assert opened.count() == len(MANY)
        assert opened.passages([passage(999, "later", "en").id, MANY[0].id]) == [passage(999, "later", "en")]

    with pytest.raises(StoreError, match=r"there is a corpus 'town'.*--replace"):
        restore(file, tmp_path / "new", "town")
    restore(file, tmp_path / "new", "town", replace_existing=True)
    assert answers(tmp_path / "new") == before
    [folder] = tmp_path.glob("new/town--*")
    assert len(list(folder.glob("shard*"))) == 1  # the one before is gone
    with pytest.raises(StoreError, match=r"of the corpus 'town', not 'city'.*--corpus town"):
        restore(file, tmp_path / "new", "city")
    with pytest.raises(StoreError, match=r"of the embedded engine.*Give a folder"):
        restore(file, "http://127.0.0.1:1", "town")


def test_the_manifest_says_what_it_is_and_a_standard_tar_reads_the_file(made: tuple[Path, Path], tmp_path: Path):
    manifest = read_manifest(made[1])
    assert (manifest.corpus, manifest.fingerprint, manifest.points) == ("town", OLD.fingerprint, len(MANY))
    assert manifest.engine == "qdrant-edge 0.9.0" and manifest.collection["metadata"]["corpus"] == "town"
    with tarfile.open(made[1]) as tar:
        tar.extractall(tmp_path, filter="data")
    assert sum(1 for path in (tmp_path / "files").rglob("*") if path.is_file()) == len(manifest.files)


def written(out: Path, **files: Path) -> Manifest:
    """An archive of files that are no corpus'."""
    manifest = Manifest("embedded", "town", OLD.fingerprint, 0, "", "", "", {})
    return write_archive(out, lambda facts: replace(manifest, files=facts), files)


def test_a_file_of_8_gib_of_data_is_an_ordinary_member_and_gets_its_holes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(archive, "LARGE", 8 * BLOCK)  # and not 8 GiB
    content = random.Random(0).randbytes(8 * BLOCK) + bytes(32 * BLOCK) + b"end"
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "small").write_bytes(content[8 * BLOCK :])
    written(tmp_path / "a.tar.gz", large=tmp_path / "large", small=tmp_path / "small")
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        found = {member.name: (member.issparse(), member.size) for member in tar}
    assert found["files/large"] == (False, len(content)) and found["files/small"] == (True, len(content) - 8 * BLOCK)
    extract_archive(tmp_path / "a.tar.gz", tmp_path / "there")
    assert (tmp_path / "there" / "large").read_bytes() == content
    assert (tmp_path / "there" / "small").read_bytes() == content[8 * BLOCK :]
    assert taken(tmp_path / "there") < 16 * BLOCK


def test_two_at_once_into_one_folder_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a").write_bytes(b"a")

    def meanwhile(part: Path) -> Manifest:
        monkeypatch.setattr(archive, "check_archive", check_archive)
        written(tmp_path / "node2.tar.gz", other=tmp_path / "a")
        return check_archive(part)

    monkeypatch.setattr(archive, "check_archive", meanwhile)
    written(tmp_path / "node1.tar.gz", one=tmp_path / "a")
    found = {file.name: list(read_manifest(file).files) for file in tmp_path.glob("*.tar.gz")}
    assert found == {"node1.tar.gz": ["one"], "node2.tar.gz": ["other"]}


def test_a_corpus_in_use_and_one_that_is_not_there(tmp_path: Path):
    with open_store(tmp_path, "town", OLD), pytest.raises(CorpusInUse, match="open in process"):
        backup(tmp_path, "town", tmp_path / "town.tar.gz")
    with pytest.raises(CorpusNotFound, match="ingest documents first"):
        backup(tmp_path, "city", tmp_path / "city.tar.gz")
    assert not list(tmp_path.glob("*.tar.gz")) and not list(tmp_path.glob(".*part"))


def test_another_generation_is_put_beside_and_made_current(made: tuple[Path, Path], tmp_path: Path):
    shutil.copytree(made[0], tmp_path / "store")
    reindex(tmp_path / "store", "town", NEW)
    restore(made[1], tmp_path / "store", "town", replace_existing=True)
    assert answers(tmp_path / "store") == answers(made[0])
    listed = generations_of(tmp_path / "store", "town")
    assert [(one.fingerprint, one.current, one.whole) for one in listed] == [
        (OLD.fingerprint, True, True), (NEW.fingerprint, False, True)
    ]  # fmt: skip
    assert all(one.bytes and one.bytes > 100_000 for one in listed)


def test_a_broken_corpus_can_be_replaced(made: tuple[Path, Path], tmp_path: Path):
    shutil.copytree(made[0], tmp_path / "store")
    [folder] = tmp_path.glob("store/town--*")
    (folder / "shard" / "edge_config.json").write_text("{")
    with pytest.raises(StoreError, match=r"cannot read.*ragkit restore --replace"):
        answers(tmp_path / "store")
    restore(made[1], tmp_path / "store", "town", replace_existing=True)
    assert answers(tmp_path / "store") == answers(made[0])


# ---------------------------------------------------------------------- damage


def repacked(file: Path, target: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The archive with its small files changed, well-formed again."""
    with tarfile.open(file) as tar:
        kept = {m.name: tar.extractfile(m).read() for m in tar if m.name == "manifest.json" or m.size < 1000}  # type: ignore[union-attr]
    manifest = json.loads(kept["manifest.json"])
    manifest["files"] = {name: facts for name, facts in manifest["files"].items() if f"files/{name}" in kept}
    kept["manifest.json"] = json.dumps(manifest).encode()
    change(kept)
    with tarfile.open(target, "w:gz") as tar:
        for name, content in kept.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target


def swap_one(kept: dict[str, bytes]) -> None:
    name = next(name for name in kept if name.endswith("segment.json"))
    kept[name] = kept[name][:-1] + b"?"


def drop_one(kept: dict[str, bytes]) -> None:
    del kept[next(name for name in kept if name.startswith("files/"))]


def climb(kept: dict[str, bytes]) -> None:
    kept["../../evil"] = b"x"


def root(kept: dict[str, bytes]) -> None:
    kept["files/../../evil"] = b"x"


def stranger(kept: dict[str, bytes]) -> None:
    kept["files/evil"] = b"x"


def future(kept: dict[str, bytes]) -> None:
    kept["manifest.json"] = json.dumps({**json.loads(kept["manifest.json"]), "format": 2}).encode()


def silent(kept: dict[str, bytes]) -> None:
    kept["manifest.json"] = b'{"format": 1'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (swap_one, "is not what was written"),
        (drop_one, "1 files are missing"),
        (climb, "hostile or damaged.*outside"),
        (root, "hostile or damaged.*outside"),
        (stranger, "'files/evil' is not in its manifest"),
        (future, "format 2.*install that version"),
        (silent, "manifest cannot be read"),
    ],
)
def test_a_changed_backup_is_refused(made: tuple[Path, Path], tmp_path: Path, change: Any, told: str):
    file = repacked(made[1], tmp_path / "changed.tar.gz", change)
    (tmp_path / "store").mkdir()
    with pytest.raises(BackupError, match=told):
        restore(file, tmp_path / "store", "town")
    assert not list((tmp_path / "store").glob("*--*")) and not (tmp_path / "evil").exists()


def test_a_fingerprint_that_leads_out_is_refused_before_anything_is_touched(made: tuple[Path, Path], tmp_path: Path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter").touch()

    def elsewhere(kept: dict[str, bytes]) -> None:
        told = json.loads(kept["manifest.json"])
        kept["manifest.json"] = json.dumps(told | {"fingerprint": "x/../../home"}).encode()

    file = repacked(made[1], tmp_path / "changed.tar.gz", elsewhere)
    with pytest.raises(BackupError, match=r"hostile: 'x/../../home' is no fingerprint"):
        restore(file, tmp_path / "store", "town")
    assert (tmp_path / "home" / "letter").exists() and not (tmp_path / "store").exists()
    with pytest.raises(StoreError, match=r"corpus name '../town'"):
        restore(made[1], tmp_path / "store", "../town")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a//evil", "..\\evil", "C:evil", "D:/evil"])
def test_a_file_whose_name_leads_out_is_refused_before_anything_is_touched(
    made: tuple[Path, Path], tmp_path: Path, name: str
):
    def climb_by_name(kept: dict[str, bytes]) -> None:
        told = json.loads(kept["manifest.json"])
        told["files"][name] = (1, hashlib.sha256(b"x").hexdigest())
        kept["manifest.json"] = json.dumps(told).encode()
        kept[f"files/{name}"] = b"x"

    file = repacked(made[1], tmp_path / "changed.tar.gz", climb_by_name)
    with pytest.raises(BackupError, match="hostile: a file in it is called"):
        restore(file, tmp_path / "store", "town")
    assert not (tmp_path / "store").exists()


def test_a_restore_that_fails_removes_no_folder_that_was_there(made: tuple[Path, Path], tmp_path: Path):
    folder = tmp_path / "store" / f"town--{OLD.fingerprint}"
    folder.mkdir(parents=True)
    (folder / "note").touch()
    with pytest.raises(BackupError, match="is not what was written"):
        restore(repacked(made[1], tmp_path / "changed.tar.gz", swap_one), tmp_path / "store", "town")
    assert (folder / "note").exists() and not list(folder.glob("shard*"))


def test_damage_of_every_kind_is_told_and_changes_nothing(made: tuple[Path, Path], tmp_path: Path):
    whole, dice = made[1].read_bytes(), random.Random(7)
    file = tmp_path / "damaged.tar.gz"
    for share in (0, 0.001, 0.3, 0.9):
        file.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BackupError, match=r"cut off|no backup"):
            check_archive(file)
    file.write_bytes(whole[:-5])  # within gzip's own sum
    with pytest.raises(BackupError, match="cut off"):
        check_archive(file)
    plain = gzip.decompress(whole)
    for _ in range(10):
        at = dice.randrange(200, len(whole) - 8)
        file.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << dice.randrange(8))]) + whole[at + 1 :])
        with contextlib.suppress(gzip.BadGzipFile, zlib.error, EOFError):
            if gzip.decompress(file.read_bytes()) == plain:  # another reference to the same zeros
                continue
        with pytest.raises(BackupError, match=r"cut off, damaged|is not what was written|manifest|missing"):
            check_archive(file)
    for other in (b"\x1f\x8b", b"PK\x03\x04 a zip", gzip.compress(b"no tar")):
        file.write_bytes(other)
        with pytest.raises(BackupError, match=r"no backup"):
            restore(file, tmp_path / "store", "town")
    shutil.copytree(made[0], tmp_path / "store")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BackupError, match=r"cut off.*copy the file again.*earlier backup"):
        restore(file, tmp_path / "store", "town", replace_existing=True)
    assert answers(tmp_path / "store") == answers(made[0])
    [folder] = tmp_path.glob("store/town--*")
    assert [path.name for path in folder.glob("shard*")] == ["shard"]


# ---------------------------------------------------------------------- kills

RUN = "import sys; from ragkit.cli import main; sys.argv[0] = 'ragkit'; print('go', flush=True); main()"


def start(*arguments: object) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(process: subprocess.Popen[bytes], there: Callable[[], object], extra: float) -> bool:
    """Kill it ``extra`` seconds after ``there`` is true; whether it was still running."""
    while process.poll() is None and not there():
        time.sleep(0.001)
    time.sleep(extra)
    process.send_signal(signal.SIGKILL)
    return process.wait(60) == -signal.SIGKILL


def test_a_killed_backup_leaves_no_file_of_that_name_or_the_one_before(made: tuple[Path, Path], tmp_path: Path):
    shutil.copytree(made[0], tmp_path / "store")
    out, dice = tmp_path / "town.tar.gz", random.Random(1)
    killed = 0
    for n in range(KILLS):
        process = start("backup", "--store", tmp_path / "store", "--corpus", "town", "--out", out)
        killed += wait_for(process, (tmp_path / ".town.tar.gz.part").exists, dice.random() * 0.4)
        if n == 0:
            assert killed and not out.exists()
        if out.exists():
            check_archive(out)
    assert killed
    backup(tmp_path / "store", "town", out)
    check_archive(out)
    assert answers(tmp_path / "store") == answers(made[0])
    assert not (tmp_path / ".town.tar.gz.part").exists()


def test_a_killed_restore_leaves_the_corpus_before_or_the_backup_whole(made: tuple[Path, Path], tmp_path: Path):
    store, dice = tmp_path / "store", random.Random(2)
    with open_store(store, "town", OLD) as opened:
        opened.upsert(PASSAGES, OLD.encode_passages([p.text for p in PASSAGES]))
    before, after = answers(store), answers(made[0])
    [folder] = store.glob("town--*")
    killed = 0
    for _ in range(KILLS):
        process = start("restore", made[1], "--store", store, "--corpus", "town", "--replace")
        killed += wait_for(process, lambda: len(list(folder.glob("shard*"))) > 1, dice.random() * 0.6)
        found = answers(store)
        assert found in (before, after)
        assert len(list(folder.glob("shard*"))) == 1  # opening it swept
    assert killed
    restore(made[1], store, "town", replace_existing=True)
    assert answers(store) == after


# ---------------------------------------------------------------------- generations


def test_generations_are_listed_and_pruned(location: str):
    fill(location)
    reindex(location, "town", NEW)
    assert [one.current for one in generations_of(location, "town")] == [True, False]
    if location.startswith("http"):
        assert [one.passages for one in generations_of(location, "town")] == [len(MANY)] * 2
    assert [one.fingerprint for one in prune(location, "town")] == [OLD.fingerprint]
    assert [one.fingerprint for one in generations_of(location, "town")] == [NEW.fingerprint]
    assert prune(location, "town") == []
    with open_store(location, "town", NEW, create=False) as store:
        assert store.count() == len(MANY)
    with pytest.raises(StoreError, match="is gone"):
        roll_back(location, "town")


def test_pruning_keeps_out_of_a_generation_that_is_being_filled(tmp_path: Path):
    fill(tmp_path)
    with open_store(tmp_path, "town", NEW, generation=True), pytest.raises(CorpusInUse):
        prune(tmp_path, "town")
    listed = generations_of(tmp_path, "town")  # a second one that is opened does not become current by that
    assert [(one.fingerprint, one.current) for one in listed] == [(OLD.fingerprint, True), (NEW.fingerprint, False)]
    (tmp_path / f"town--{NEW.fingerprint}" / "collection.json").unlink()  # as a killed creation leaves it
    assert not generations_of(tmp_path, "town")[1].whole
    prune(tmp_path, "town")
    assert [one.current for one in generations_of(tmp_path, "town")] == [True]
    with pytest.raises(CorpusNotFound):
        prune(tmp_path, "city")


@pytest.fixture(params=["embedded", "rest"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "rest":
        with serving() as (_, url):
            yield url
    else:
        yield str(tmp_path / "store")


def test_the_commands(made: tuple[Path, Path], tmp_path: Path):
    run, place = CliRunner().invoke, str(tmp_path / "store")
    done = run(app, ["restore", str(made[1]), "--corpus", "town", "--store", place])
    assert done.exit_code == 0 and f"{len(MANY)} passages of {OLD.fingerprint}" in done.stdout
    done = run(app, ["restore", str(made[1]), "--corpus", "town", "--store", place])
    assert done.exit_code == 1 and "--replace" in done.stderr
    done = run(app, ["backup", "--corpus", "town", "--store", place, "--out", str(tmp_path), "--json"])
    kept = json.loads(done.stdout.splitlines()[-1])
    assert re.fullmatch(r"town-\d{8}T\d{6}Z\.tar\.gz", Path(kept["file"]).name) and kept["points"] == len(MANY)
    assert check_archive(Path(kept["file"])).points == len(MANY)
    done = run(app, ["backup", "--corpus", "town", "--store", place, "--out", f"{tmp_path}/kept/"])  # not there yet
    assert done.exit_code == 0 and [file.name[:5] for file in (tmp_path / "kept").iterdir()] == ["town-"]
    done = run(app, ["generations", "--corpus", "town", "--store", place])
    assert done.exit_code == 0 and re.fullmatch(rf"{OLD.fingerprint}  [\d.]+ MB  current\n", done.stdout)
    done = run(app, ["generations", "--corpus", "town", "--store", place, "--prune", "--json"])
    assert json.loads(done.stdout) == {"removed": []}


# ---------------------------------------------------------------------- a server


def all_points(store: Store) -> dict[str, Any]:
    records, _ = store.client.scroll(store.collection, limit=1000, with_payload=True, with_vectors=True)
    return {str(r.id): (r.payload, [round(x, 5) for x in r.vector["dense"]]) for r in records}


def test_a_server_s_snapshot_is_fetched_removed_and_uploaded(tmp_path: Path):
    with serving() as (fake, url), serving() as (other, elsewhere):
        fill(url)
        kept = backup(url, "town", tmp_path)
        assert fake.snapshots == {f"town--{OLD.fingerprint}": {}}  # it does not stay on the server's disk
        manifest = read_manifest(Path(kept.file))
        assert (manifest.kind, manifest.points, list(manifest.files)) == ("server", len(MANY), ["collection.snapshot"])
        restore(kept.file, elsewhere, "town")
        [upload] = other.bodies("/snapshots/upload")
        assert upload["priority"] == ["snapshot"] and upload["wait"] == ["true"]
        assert upload["checksum"] == [manifest.files["collection.snapshot"][1]]
        with open_store(url, "town", OLD) as there, open_store(elsewhere, "town", OLD, create=False) as here:
            assert all_points(there) == all_points(here)  # and the alias is there, else it would not open
        with pytest.raises(StoreError, match="--replace"):
            restore(kept.file, elsewhere, "town")
        with open_store(elsewhere, "town", OLD) as here:
            here.delete([MANY[0].id])
        restore(kept.file, elsewhere, "town", replace_existing=True)
        with open_store(elsewhere, "town", OLD) as here:
            assert here.count() == len(MANY)
        with pytest.raises(StoreError, match=r"of the server engine.*URL of a Qdrant server"):
            restore(kept.file, tmp_path / "folder", "town")


def test_a_snapshot_that_does_not_arrive_whole_is_no_backup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with serving() as (fake, url):
        fill(url)
        packed = fake.answer

        def cut(method: str, path: str, body: Any) -> Any:
            found = packed(method, path, body)
            return found[:-10] if isinstance(found, bytes) else found

        monkeypatch.setattr(fake, "answer", cut)
        with pytest.raises(StoreError, match=r"did not arrive whole.*no backup was written"):
            backup(url, "town", tmp_path / "town.tar.gz")
        assert not list(tmp_path.iterdir()) and fake.snapshots == {f"town--{OLD.fingerprint}": {}}


def test_on_a_cluster_each_node_is_its_own_backup(tmp_path: Path):
    with serving() as (fake, url), serving() as (_, single):
        fill(url)
        fake.peers = 3
        done = CliRunner().invoke(app, ["backup", "--corpus", "town", "--store", url, "--out", str(tmp_path / "b")])
        assert done.exit_code == 0 and "node 1 of 3 alone" in done.stdout and "each other node" in done.stdout
        with pytest.raises(StoreError, match=r"made of a cluster \(node 1 of 3\).*goes back to where it came from"):
            restore(tmp_path / "b", single, "town")
        assert restore(tmp_path / "b", url, "town", replace_existing=True).node == "node 1 of 3"
        assert re.fullmatch(r"town-\d{8}T\d{6}Z-node-1\.tar\.gz", Path(backup(url, "town", tmp_path).file).name)


def test_a_key_is_sent_and_never_written(tmp_path: Path):
    from pydantic import SecretStr

    from ragkit.settings import QdrantSettings

    with serving() as (fake, url):
        fill(url)
        settings = QdrantSettings(api_key=SecretStr("open-sesame"))
        kept = backup(url, "town", tmp_path / "town.tar.gz", settings)
        restore(kept.file, url, "town", replace_existing=True, settings=settings)
        sent = [headers.get("api-key") for _, path, _, headers in fake.seen if "/snapshots" in path]
        assert len(sent) == 4 and set(sent) == {"open-sesame"}
        assert b"open-sesame" not in gzip.decompress(Path(kept.file).read_bytes())


def test_room_is_looked_for_first(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StoreError, match=r"MB are needed.*make room and run this again"):
        restore(made[1], tmp_path / "store", "town")
    assert not (tmp_path / "store").exists()
    assert np.isfinite(read_manifest(made[1]).disk)
