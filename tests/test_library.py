"""The app's corpus: opened when it can be, changed by a child process while it is searched."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import SCRIPTS, HashEncoder
from fake_qdrant import serving

from apps.library import Library, NotReady, Step, _steps
from apps.pages.languages import Survey, Surveys
from apps.remember import Remembering
from apps.uploads import brought_in
from ragkit.archive import copied, taken
from ragkit.client import RemoteError
from ragkit.encoder import LocalEncoder
from ragkit.generations import SUPERSEDING
from ragkit.ingest import ingest
from ragkit.owner import FolderLock
from ragkit.rerank import RerankError
from ragkit.settings import AppSettings, RerankSettings, Settings
from ragkit.store import Store, open_store
from ragkit.task import DEFAULT_TASK, TASKS, Task


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return scripts(tmp_path / "files")


def scripts(folder: Path) -> Path:
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / f"{name}.txt").write_text(f"{text}\n{text}", "utf-8")
    return folder


@pytest.fixture
def settings(tmp_path: Path, mistral_folder: Path) -> Settings:
    return Settings(model=str(mistral_folder), store=str(tmp_path / "store"), _env_file=None)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, mistral_folder: Path) -> Path:
    """A store that holds SCRIPTS, ingested in this process: each child costs its imports."""
    folder = tmp_path_factory.mktemp("filled")
    encoder = LocalEncoder.load(mistral_folder)
    with open_store(folder / "store", "town", encoder) as store:
        ingest([scripts(folder / "files")], store, encoder)
    return folder


@pytest.fixture
def library(filled: Path, settings: Settings) -> Iterator[Library]:
    """Over a copy of it."""
    shutil.copytree(filled / "store", settings.store, copy_function=copied)
    library = Library(settings, "town", alone=True)
    yield library
    library.close()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[Library]:
    """SCRIPTS by an encoder without weights."""
    settings = Settings(model="hash", store=str(tmp_path / "store"), _env_file=None)
    encoder = HashEncoder()
    with open_store(settings.store, "town", encoder) as store:
        ingest([scripts(tmp_path / "files")], store, encoder)
    library = Library(settings, "town")
    library._encoder = Remembering(encoder)
    yield library
    library.close()


@pytest.fixture
def more(tmp_path: Path) -> Path:
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "more.txt").write_text("more")
    return folder


def last(steps: list[Step]) -> dict:
    assert steps[-1].report is not None
    return steps[-1].report


def upload(library: Library, *files: Path) -> dict:
    with brought_in([(file, file.name) for file in files], library.uploads, 10**6, 10**7) as arrival:
        return last(list(library.upload(arrival)))


def test_a_reranker_that_cannot_be_loaded_is_told(settings: Settings, files: Path):
    list(Library(settings, "town").ingest([files]))
    library = Library(settings.model_copy(update={"rerank": RerankSettings(url="localhost:8080/rerank")}), "town")
    with pytest.raises(NotReady, match="the reranker cannot be loaded") as caught, library.lease():
        pass
    assert caught.value.trouble == "reranker"


def test_its_life(settings: Settings, files: Path, monkeypatch: pytest.MonkeyPatch):
    library = Library(settings, "town")
    with pytest.raises(NotReady) as none, library.lease():
        pass
    assert none.value.trouble == "empty"

    report = last(list(library.ingest([files])))
    assert (report["added"], report["skipped"]) == (len(SCRIPTS), [])
    status = library.status()
    assert status.passages == len(SCRIPTS) and status.bytes and {"ar", "hi", "th", "am"} <= status.languages.keys()
    entries = library.documents()
    assert {entry.document for entry in entries} == {f"{name}.txt" for name in SCRIPTS}
    assert [e.document for e in library.documents("AM.T")] == ["am.txt"]
    passage, around = library.around(entries[0].first)
    assert passage.id == entries[0].first and [p.id for p in around] == [passage.id]

    with library.lease() as retriever, monkeypatch.context() as counted:
        asked = list[int]()
        read = retriever.store.passages
        counted.setattr(Store, "passages", lambda _, ids: asked.append(len(ids)) or read(ids))
        library.documents("nowhere")
    assert asked == [len(SCRIPTS)]  # one request, however many documents

    (files / "am.txt").write_text(SCRIPTS["ar"], "utf-8")
    (files / "ja.txt").unlink()
    report = last(list(library.ingest([files])))
    assert (report["changed"], report["removed"], report["unchanged"]) == (1, 1, len(SCRIPTS) - 2)
    assert library.status().passages == len(SCRIPTS) - 1

    [chinese] = library.documents("zh.txt")
    assert library.remove([(chinese.path, chinese.document)]) == 1
    assert library.documents("zh.txt") == []
    with pytest.raises(KeyError):
        library.around(chinese.first)
    assert sorted(p.name for p in library.root.iterdir() if p.name.startswith(".")) == []
    library.close()


def test_uploaded_files_go_with_their_documents(settings: Settings, tmp_path: Path, more: Path):
    library = Library(settings, "town")
    two, other = tmp_path / "two.jsonl", tmp_path / "other.txt"
    two.write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    other.write_text("other")
    upload(library, two, other)
    first, *_ = library.documents("two.jsonl")
    assert first.uploaded
    assert library.remove([(first.path, first.document)]) == 2
    assert [e.document for e in library.documents()] == ["other.txt"]
    assert [p.name for p in library.uploads.iterdir()] == ["other.txt"]
    (library.uploads / "other.txt").unlink()  # lost with its container: nobody removed it
    report = upload(library, more / "more.txt")
    assert (report["added"], report["removed"]) == (1, 0)
    assert {e.document for e in library.documents()} == {"other.txt", "more.txt"}
    library.close()


def test_a_file_goes_only_where_nothing_of_it_was_read(settings: Settings, tmp_path: Path, monkeypatch):
    library = Library(settings, "town")
    library.uploads.mkdir(parents=True)
    (library.uploads / "scan.pdf").write_bytes(b"%PDF- before")
    records, scan = tmp_path / "records.jsonl", tmp_path / "scan.pdf"
    records.write_text("{}\n")
    scan.write_bytes(b"%PDF- after")
    asked: list[list[Path]] = []
    reports = [
        [("records.jsonl", "line 2: not valid JSON", True), ("scan.pdf", "document 'scan.pdf' has no text", False)],
        [],
    ]

    def ingest(paths: list[Path]) -> Iterator[Step]:
        asked.append(paths)
        left = reports[len(asked) - 1]
        skipped = [{"path": str(library.uploads / name), "reason": why, "part": part} for name, why, part in left]
        yield Step(1)
        yield Step(0, report={"added": 1, "removed": len(left) // 2, "skipped": skipped})

    monkeypatch.setattr(library, "ingest", ingest)
    report = upload(library, records, scan)
    assert asked == [[library.uploads / "records.jsonl", library.uploads / "scan.pdf"], [library.uploads / "scan.pdf"]]
    assert (report["added"], report["removed"], len(report["skipped"])) == (2, 1, 2)
    kept = {path.name: path.read_bytes() for path in library.uploads.iterdir()}
    assert kept == {"records.jsonl": b"{}\n", "scan.pdf": b"%PDF- before"}


def test_it_is_searched_while_it_changes(library: Library, more: Path):
    failures: list[BaseException] = []
    done = threading.Event()
    searches = 0

    def visitor() -> None:
        nonlocal searches
        while not done.is_set():
            try:
                found = library.search_by("", SCRIPTS["hi"], None, "hybrid")
                assert found.hits
                searches += 1
            except BaseException as error:
                failures.append(error)
                return

    visitors = [threading.Thread(target=visitor) for _ in range(3)]
    for one in visitors:
        one.start()
    assert last(list(library.ingest([more])))["added"] == 1
    done.set()
    for one in visitors:
        one.join(30)
    assert failures == [] and searches > 10
    assert library.status().passages == len(SCRIPTS) + 1


def test_a_stopped_change_changes_nothing(library: Library, more: Path):
    steps = library.ingest([more])
    next(steps)
    with pytest.raises(NotReady) as busy:
        next(library.ingest([more]))
    assert busy.value.trouble == "busy"
    steps.close()
    assert library.status().passages == len(SCRIPTS)
    assert last(list(library.ingest([more])))["added"] == 1  # and the next one is free to begin


def added_here(library: Library, text: str) -> Callable[..., Iterator[Step]]:
    """What the child does, in this process: a file more, by the library's own encoder."""

    def steps(command: Sequence[str]) -> Iterator[Step]:
        store, corpus, _, path = command[4:]
        Path(path).write_text(text, "utf-8")
        with open_store(store, corpus, library.encoder()) as opened:
            yield Step(1, report=asdict(ingest([path], opened, library.encoder())))

    return steps


def test_a_change_that_searches_hold_up_takes_over_later(light: Library, more: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apps.library._steps", added_here(light, "በኋላ"))
    monkeypatch.setattr("apps.library.PATIENCE", 0.05)
    with light.lease() as held:  # by a visitor, for longer than a change has patience
        steps = light.ingest([more / "more.txt"])
        assert [next(steps), next(steps)] == [Step(0), Step(0)]
        assert light.status().passages == held.store.count() == len(SCRIPTS)  # searched as before
    assert last(list(steps))["added"] == 1
    assert light.status().passages == len(SCRIPTS) + 1


def test_the_reranker_is_loaded_once(light: Library, more: Path, monkeypatch: pytest.MonkeyPatch):
    class Longest:
        def scores(self, query: str, texts: Sequence[str]) -> list[float]:
            return [float(len(text)) for text in texts]

    loaded: list[Longest] = []
    monkeypatch.setattr("apps.library.load_reranker", lambda _: loaded.append(Longest()) or loaded[-1])
    monkeypatch.setattr("apps.library._steps", added_here(light, "更多"))
    for _ in range(2):
        list(light.ingest([more / "more.txt"]))
        with light.lease() as retriever:
            assert retriever.reranker is loaded[0]
    assert len(loaded) == 1


def test_a_comparison_that_embeds_gives_way_to_a_change(light: Library, more: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("apps.library._steps", added_here(light, "अभी"))
    begun, goes_on = threading.Event(), threading.Event()

    class Slow(HashEncoder):
        def encode_passages(self, passages: Sequence[str]) -> Any:
            begun.set()
            assert goes_on.wait(60)
            return super().encode_passages(passages)

    light._rival_encoder = Remembering(Slow("b"))
    wrong: list[str] = []

    def compare() -> None:
        try:
            list(light.rival("b"))
        except NotReady as error:
            wrong.append(error.trouble)

    comparing = threading.Thread(target=compare, daemon=True)
    comparing.start()
    assert begun.wait(60)
    taking = light._taking
    let = threading.Thread(target=lambda: (taking.wait(60), goes_on.set()), daemon=True)
    let.start()
    assert last(list(light.ingest([more / "more.txt"])))["added"] == 1
    comparing.join(60)
    assert wrong == ["busy"]
    list(light.rival("b"))
    assert len(light.search_by("b", SCRIPTS["hi"], None, "dense", k=50).hits) == len(SCRIPTS) + 1


def test_a_rival_stays_open_while_it_is_asked(light: Library, more: Path, monkeypatch: pytest.MonkeyPatch):
    asked, answer = threading.Event(), threading.Event()

    class Waits(HashEncoder):
        def encode_queries(self, queries: Sequence[str], task: Task) -> Any:
            asked.set()
            assert answer.wait(60)
            return super().encode_queries(queries, task)

    monkeypatch.setattr("apps.library._steps", added_here(light, "다른"))
    monkeypatch.setattr("apps.library.PATIENCE", 0.05)
    light._rival_encoder = Remembering(Waits("b"))
    list(light.rival("b"))
    with ThreadPoolExecutor() as pool:
        comparing = pool.submit(light.search_by, "b", SCRIPTS["am"], TASKS[DEFAULT_TASK], "dense")
        assert asked.wait(60)
        changing = pool.submit(lambda: list(light.ingest([more / "more.txt"])))
        while light._rival is not None and not changing.done():
            time.sleep(0.02)
        answer.set()
        assert len(comparing.result(60).hits) == len(SCRIPTS)
        assert last(changing.result(60))["added"] == 1
    with pytest.raises(NotReady) as closed:
        light.search_by("b", SCRIPTS["am"], None, "dense")
    assert closed.value.trouble == "busy"


def test_a_survey_gives_the_corpus_back_between_its_batches(light: Library, tmp_path: Path):
    (tmp_path / "queries.jsonl").write_text(
        "".join(json.dumps({"_id": name, "text": text}) + "\n" for name, text in SCRIPTS.items()), "utf-8"
    )
    judged = "".join(f"{name}\t{name}.txt\t1\n" for name in SCRIPTS)
    (tmp_path / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    desk: Any = SimpleNamespace(library=light, questions=tmp_path)
    steps = Surveys(desk).bring_up()
    assert next(steps) == 0
    light._live.replace(lambda retriever: retriever, timeout=1)  # type: ignore[union-attr]
    *_, found = steps
    assert isinstance(found, Survey) and found.state[1] == len(SCRIPTS)


def test_a_take_over_that_fails_is_opened_again(library: Library, monkeypatch: pytest.MonkeyPatch):
    waiting = threading.Thread(target=lambda: found.append(library.status().passages))
    found: list[int] = []

    def gone(*_: object) -> None:
        waiting.start()  # it waits for the exchange, and must not get what is closed by now
        waiting.join(0.2)
        raise NotReady("server", "gone")

    library.status()
    with monkeypatch.context() as failing, pytest.raises(NotReady, match="gone"):
        failing.setattr(library, "_retriever", gone)
        library._taken_over(library.root / "made", library.model, library.encoder())
    waiting.join(30)
    assert found == [library.status().passages] == [len(SCRIPTS)]


def test_what_another_app_is_building_stays(library: Library):
    building = library.root / ".building-town"
    building.mkdir()
    [folder] = library.root.glob("town--*")
    lock = FolderLock(folder)
    with pytest.raises(NotReady) as error:
        library.status()
    assert error.value.trouble == "owner" and building.exists()
    lock.release()
    assert library.status().passages == len(SCRIPTS) and not building.exists()  # what a killed one left


@pytest.mark.parametrize("stage", ["old aside", "new in place"])
def test_a_crash_between_two_renames_loses_nothing(library: Library, stage: str):
    [folder] = [p for p in library.root.iterdir() if p.name.startswith("town--")]
    aside = library.root / ".old-town"
    aside.mkdir()
    if stage == "old aside":
        folder.rename(aside / folder.name)
    else:
        (aside / folder.name).mkdir()
    assert library.status().passages == len(SCRIPTS)
    assert not aside.exists()


def test_what_keeps_it_shut_is_named(settings: Settings, filled: Path, files: Path, tmp_path: Path):
    def trouble(library: Library) -> str:
        with pytest.raises(NotReady) as error, library.lease():
            pass
        assert str(error.value)
        return error.value.trouble

    assert trouble(Library(settings.model_copy(update={"model": str(tmp_path / "nowhere")}), "town")) == "model"
    assert trouble(Library(settings.model_copy(update={"store": "http://127.0.0.1:9"}), "town")) == "server"
    (tmp_path / "shorter").mkdir()
    for file in Path(settings.model).iterdir():
        shutil.copy(file, tmp_path / "shorter")
    (tmp_path / "shorter" / "ragkit.json").write_text('{"max_length": 64}')  # another meaning, so another fingerprint
    shutil.copytree(filled / "store", settings.store)
    assert trouble(Library(settings.model_copy(update={"model": str(tmp_path / "shorter")}), "town")) == "mismatch"
    shut = settings.model_copy(update={"app": AppSettings(read_only=True)})
    with pytest.raises(NotReady) as error:
        next(Library(shut, "town").ingest([files]))
    assert error.value.trouble == "read_only"


def test_it_opens_once_what_was_missing_is_there(settings: Settings, files: Path):
    library = Library(settings, "town")
    with pytest.raises(NotReady):
        library.status()
    encoder = LocalEncoder.load(settings.model)
    with open_store(settings.store, "town", encoder) as store:
        for act in (library.status, lambda: next(library.ingest([files]))):
            with pytest.raises(NotReady) as error:
                act()
            assert error.value.trouble == "owner"
        ingest([files], store, encoder)
    assert library.status().passages == len(SCRIPTS)
    library.close()


@pytest.fixture
def shorter(tmp_path: Path, settings: Settings) -> str:
    """The same weights read less: another embedder, by its fingerprint."""
    shutil.copytree(settings.model, tmp_path / "other")
    (tmp_path / "other" / "ragkit.json").write_text('{"max_length": 64}')
    return str(tmp_path / "other")


def test_two_embedders_are_compared_over_one_corpus_and_the_other_takes_over(
    library: Library, more: Path, shorter: str
):
    with pytest.raises(NotReady):
        library.search_by(shorter, "x", None, "dense")
    assert list(library.rival(shorter))  # steps
    assert list(library.rival(shorter)) == []  # up to date
    assert len(library.search_by(shorter, SCRIPTS["th"], None, "dense").hits) == len(SCRIPTS)
    first = library.status()
    assert first.passages == len(SCRIPTS)

    list(library.ingest([more]))
    list(library.rival(shorter))
    assert len(library.search_by(shorter, "more", None, "dense").hits) == len(SCRIPTS) + 1  # the rival follows

    assert last(list(library.reindex(shorter)))["embedded"] == len(SCRIPTS) + 1
    now = library.status()
    assert now.fingerprint != first.fingerprint and now.passages == len(SCRIPTS) + 1 and now.model == shorter
    library.close()
    again = Library(library.settings.model_copy(update={"model": shorter}), "town")
    assert again.status().passages == len(SCRIPTS) + 1
    again.close()


@pytest.mark.parametrize(
    ("model", "options", "trouble"),
    [
        ("http://attacker.example", {}, "unnamed"),
        ("http://attacker.example", {"alone": True}, "unnamed"),  # the operator's key would go there
        ("/etc/模型", {}, "unnamed"),
        ("/etc/模型", {"alone": True}, ""),
        ("http://127.0.0.1:9/ours", {}, ""),
        ("mini-base", {"rival": "mini-base"}, ""),
        ("mini-base", {"rival": "mini-base", "tenant": "bo", "alone": True}, "tenants"),
    ],
)
def test_a_visitor_spends_no_secret_and_touches_no_other_tenant(
    model: str, options: dict, trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tenant = options.pop("tenant", None)
    settings = Settings(model="http://127.0.0.1:9/ours", store=str(tmp_path), tenant=tenant, _env_file=None)
    library = Library(settings, "town", **options)
    begun: list[str] = []
    monkeypatch.setattr(library, "_build", lambda what, model, paths: begun.append(model) or [])
    if not trouble:
        assert list(library.reindex(model)) == [] and begun == [model]
        return
    with pytest.raises(NotReady) as refused:
        list(library.reindex(model))
    assert (refused.value.trouble, begun) == (trouble, [])


def test_a_password_in_the_stores_url_is_shown_to_nobody(encoder: HashEncoder, tmp_path: Path):
    with serving() as (_, url):
        with open_store(url, "town", encoder) as store:
            ingest([scripts(tmp_path / "files")], store, encoder)
        secret = url.replace("http://", "http://ana:p%40ss:密@")
        library = Library(Settings(model="hash", store=secret, _env_file=None), "town")
        library._encoder = Remembering(encoder)
        assert library.status().location == url
        library.close()
        other = Library(library.settings, "nothing")
        other._encoder = library._encoder
        with pytest.raises(NotReady) as empty:
            other.status()
    assert empty.value.trouble == "empty" and url in str(empty.value) and "ana" not in str(empty.value)


def test_uploads_of_tenants_and_stores_lie_apart(tmp_path: Path):
    def uploads(store: str, tenant: str | None = None, named: str = "") -> Path:
        app = AppSettings(uploads=named)
        return Library(Settings(store=store, tenant=tenant, app=app, _env_file=None), "shared").uploads

    one, other, usual = str(tmp_path / "one"), str(tmp_path / "other"), Settings.model_fields["store"].default
    named = str(tmp_path / "named")
    places = [("http://q:6333", None), (usual, None), *((p, t) for p in (one, other) for t in (None, "ada", "ቦ"))]
    found = [uploads(*place) for place in places]
    assert len(set(found)) == len(found) and found == [uploads(*place) for place in places]
    assert uploads("http://q:6333/") == uploads("http://ana:secret@q:6333") == found[0]
    assert uploads(usual) == Path(usual).resolve().parent / "uploads" / "shared"
    assert uploads(one, named=named) == tmp_path / "named"
    assert uploads(one, "ada", named) != uploads(one, "ቦ", named)


def test_what_was_uploaded_before_stores_lay_apart_still_goes_with_its_document(light: Library):
    before = light.uploads.parent / "前.txt"
    before.parent.mkdir(parents=True)
    before.write_text("以前的文件", "utf-8")
    encoder = light.encoder()
    with open_store(light.location, "town", encoder) as store:
        ingest([before], store, encoder)
    [entry] = light.documents("前.txt")
    assert entry.uploaded and light.remove([(entry.path, entry.document)]) == 1
    assert not before.exists()


def test_a_child_that_warns_much_goes_on(monkeypatch: pytest.MonkeyPatch):
    children: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def started(*args: Any, **options: Any) -> subprocess.Popen[str]:
        children.append(popen(*args, **options))
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", started)
    warns = "import sys; sys.stderr.buffer.write('तपाईं '.encode() * 20_000); sys.stderr.flush(); print('{\"done\": 1}')"
    found: list[Step] = []
    reading = threading.Thread(target=lambda: found.extend(_steps([sys.executable, "-c", warns])), daemon=True)
    reading.start()
    reading.join(60)
    for child in children:
        child.kill()
    assert found == [Step(1)]
    with pytest.raises(NotReady, match=r"ended with 3: .*तपाईं $"):
        list(_steps([sys.executable, "-c", f"{warns.partition('print')[0]}sys.exit(3)"]))


def test_a_stopped_upload_leaves_a_server_as_its_files_are(
    encoder: HashEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def here(command: Sequence[str]) -> Iterator[Step]:
        store, corpus, _, *paths = command[4:]
        with open_store(store, corpus, encoder) as opened:
            report = ingest(paths, opened, encoder)
        yield Step(1)  # its passages are written
        yield Step(1, report=asdict(report))

    def texts(library: Library) -> list[str]:
        try:
            return sorted(library.around(entry.first)[0].text for entry in library.documents())
        except KeyError:  # one went between the two
            return []

    monkeypatch.setattr("apps.library._steps", here)
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "第一版"), (new, "第二版")):
        folder.mkdir()
        (folder / "合同.txt").write_text(text, "utf-8")
    (new / "ใหม่.txt").write_text("ใหม่", "utf-8")
    with serving() as (_, url):
        app = AppSettings(uploads=str(tmp_path / "kept"))
        library = Library(Settings(model="hash", store=url, app=app, _env_file=None), "town")
        library._encoder = Remembering(encoder)
        upload(library, old / "合同.txt")
        given = [(file, file.name) for file in new.iterdir()]
        with pytest.raises(RuntimeError, match="stopped"), brought_in(given, library.uploads, 10**6, 10**7) as arrival:
            steps = library.upload(arrival)
            next(steps)
            with open_store(url, "town", encoder) as store:
                assert store.count() == 2
            steps.close()
            raise RuntimeError("stopped")
        deadline = time.monotonic() + 120
        while texts(library) != ["第一版"] and time.monotonic() < deadline:
            time.sleep(0.2)
        assert texts(library) == ["第一版"]
        assert [file.read_text("utf-8") for file in library.uploads.iterdir()] == ["第一版"]
        library.close()


def test_a_server_that_stops_after_it_was_opened_is_named(encoder: HashEncoder, tmp_path: Path):
    with serving() as (_, url):
        with open_store(url, "town", encoder) as store:
            ingest([scripts(tmp_path / "files")], store, encoder)
        library = Library(Settings(model="hash", store=url, _env_file=None), "town")
        library._encoder = Remembering(encoder)
        assert library.status().passages == len(SCRIPTS)
    with pytest.raises(NotReady) as stopped:
        library.status()
    assert stopped.value.trouble == "server"
    library.close()


@pytest.mark.parametrize(("error", "trouble"), [(RemoteError("消失"), "model"), (RerankError("消失"), "reranker")])
def test_a_model_that_stops_after_it_was_opened_is_named(error: Exception, trouble: str, light: Library):
    with pytest.raises(NotReady, match="消失") as stopped, light.lease():
        raise error
    assert stopped.value.trouble == trouble


def test_a_copy_takes_no_more_disk_and_a_full_one_is_told(
    library: Library, more: Path, monkeypatch: pytest.MonkeyPatch
):
    """A store's files are mostly holes: 5.5 MB of 210 for the demo's corpus."""
    there = library.status().bytes
    assert there is not None
    place = library._copy()
    [copy] = [folder for folder in place.iterdir() if folder.is_dir()]
    assert taken(copy) <= there < sum(f.stat().st_size for f in copy.rglob("*") if f.is_file())
    full = shutil.disk_usage(place)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(NotReady, match=r"the corpus cannot be changed: .*make room") as told:
        list(library.ingest([more]))
    assert told.value.trouble == "store" and not place.exists()
    assert library.status().passages == len(SCRIPTS)


def test_a_reindex_stopped_at_its_end_refuses_no_writer(
    encoder: HashEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The child is killed, so it cannot say that it is over."""

    def killed(command: Sequence[str]) -> Iterator[Step]:
        with open_store(command[4], command[5], encoder) as store:
            store.client.update_collection(store.collection, metadata={SUPERSEDING: "f" * 16})
        yield Step(1)
        raise AssertionError("it was not stopped")

    monkeypatch.setattr("apps.library._steps", killed)
    with serving() as (_, url):
        with open_store(url, "town", encoder) as store:
            ingest([scripts(tmp_path / "files")], store, encoder)
        library = Library(Settings(model="hash", store=url, _env_file=None), "town", alone=True)
        library._encoder = Remembering(encoder)
        entry = library.documents()[0]
        steps = library.reindex("other")
        next(steps)
        with pytest.raises(NotReady, match="is being switched"), library.lease() as retriever:
            retriever.store.refuse_superseded()
        steps.close()
        assert library.remove([(entry.path, entry.document)]) == 1
        library.close()
