"""The app's corpus: opened when it can be, changed by a child process while it is searched."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from conftest import SCRIPTS

from apps.library import Library, NotReady, Step
from ragkit.encoder import LocalEncoder
from ragkit.settings import AppSettings, Settings
from ragkit.store import open_store


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for name, text in SCRIPTS.items():
        (folder / f"{name}.txt").write_text(f"{text}\n{text}", "utf-8")
    return folder


@pytest.fixture
def settings(tmp_path: Path, mistral_folder: Path) -> Settings:
    return Settings(model=str(mistral_folder), store=str(tmp_path / "store"), _env_file=None)


def last(steps: list[Step]) -> dict:
    assert steps[-1].report is not None
    return steps[-1].report


def test_its_life(settings: Settings, files: Path):
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


def test_uploaded_files_go_with_their_documents(settings: Settings):
    library = Library(settings, "town")
    library.uploads.mkdir(parents=True)
    (library.uploads / "two.jsonl").write_text('{"_id": "1", "text": "one"}\n{"_id": "2", "text": "two"}\n')
    (library.uploads / "other.txt").write_text("other")
    list(library.ingest([library.uploads]))
    first, *_ = library.documents("two.jsonl")
    assert first.uploaded
    assert library.remove([(first.path, first.document)]) == 2
    assert [e.document for e in library.documents()] == ["other.txt"]
    assert [p.name for p in library.uploads.iterdir()] == ["other.txt"]
    report = last(list(library.ingest([library.uploads])))
    assert (report["unchanged"], report["added"], report["removed"]) == (1, 0, 0)
    library.close()


def test_it_is_searched_while_it_changes(settings: Settings, files: Path):
    library = Library(settings, "town")
    list(library.ingest([files]))
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

    visitors = [threading.Thread(target=visitor) for _ in range(4)]
    for one in visitors:
        one.start()
    for n in range(2):
        (files / f"new{n}.txt").write_text(f"new {n}")
        assert last(list(library.ingest([files])))["added"] == 1
    done.set()
    for one in visitors:
        one.join(30)
    assert failures == [] and searches > 10
    assert library.status().passages == len(SCRIPTS) + 2
    library.close()


def test_a_stopped_change_changes_nothing(settings: Settings, files: Path):
    library = Library(settings, "town")
    list(library.ingest([files]))
    (files / "more.txt").write_text("more")
    steps = library.ingest([files])
    next(steps)
    with pytest.raises(NotReady) as busy:
        next(library.ingest([files]))
    assert busy.value.trouble == "busy"
    steps.close()
    assert library.status().passages == len(SCRIPTS)
    assert last(list(library.ingest([files])))["added"] == 1  # and the next one is free to begin
    library.close()


@pytest.mark.parametrize("stage", ["old aside", "new in place"])
def test_a_crash_between_two_renames_loses_nothing(settings: Settings, files: Path, stage: str):
    library = Library(settings, "town")
    list(library.ingest([files]))
    library.close()
    [folder] = [p for p in library.root.iterdir() if p.name.startswith("town--")]
    aside = library.root / ".old-town"
    aside.mkdir()
    if stage == "old aside":
        folder.rename(aside / folder.name)
    else:
        (aside / folder.name).mkdir()
    again = Library(settings, "town")
    assert again.status().passages == len(SCRIPTS)
    assert not aside.exists()
    again.close()


def test_what_keeps_it_shut_is_named(settings: Settings, files: Path, tmp_path: Path):
    def trouble(library: Library) -> str:
        with pytest.raises(NotReady) as error, library.lease():
            pass
        assert str(error.value)
        return error.value.trouble

    assert trouble(Library(settings.model_copy(update={"model": str(tmp_path / "nowhere")}), "town")) == "model"
    assert trouble(Library(settings.model_copy(update={"store": "http://127.0.0.1:9"}), "town")) == "server"
    list(Library(settings, "town").ingest([files]))  # nobody closes it: the lock ends with the reference below
    encoder = LocalEncoder.load(settings.model, max_length=64)  # another meaning, so another fingerprint
    with pytest.raises(Exception, match="embedded by encoder"):
        open_store(settings.store, "town", encoder)
    shut = settings.model_copy(update={"app": AppSettings(read_only=True)})
    with pytest.raises(NotReady) as error:
        next(Library(shut, "town").ingest([files]))
    assert error.value.trouble == "read_only"


def test_it_opens_once_what_was_missing_is_there(settings: Settings, files: Path):
    library = Library(settings, "town")
    with pytest.raises(NotReady):
        library.status()
    encoder = LocalEncoder.load(settings.model)
    from ragkit.ingest import ingest

    with open_store(settings.store, "town", encoder) as store:
        for act in (library.status, lambda: next(library.ingest([files]))):
            with pytest.raises(NotReady) as error:
                act()
            assert error.value.trouble == "owner"
        ingest([files], store, encoder)
    assert library.status().passages == len(SCRIPTS)
    library.close()


def test_two_embedders_are_compared_over_one_corpus(settings: Settings, files: Path, tmp_path: Path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(settings.model, other)
    (other / "ragkit.json").write_text('{"max_length": 64}')
    library = Library(settings, "town")
    list(library.ingest([files]))
    with pytest.raises(NotReady):
        library.search_by(str(other), "x", None, "dense")
    assert list(library.rival(str(other)))  # steps
    assert list(library.rival(str(other))) == []  # up to date
    assert len(library.search_by(str(other), SCRIPTS["th"], None, "dense").hits) == len(SCRIPTS)
    assert library.status().passages == len(SCRIPTS)

    (files / "more.txt").write_text("more")
    first = library.status().fingerprint
    list(library.ingest([files]))
    list(library.rival(str(other)))
    assert len(library.search_by(str(other), "more", None, "dense").hits) == len(SCRIPTS) + 1  # the rival follows
    list(library.reindex(str(other)))  # and takes over
    assert library.status().fingerprint != first and library.status().passages == len(SCRIPTS) + 1
    library.close()


def test_another_model_takes_over(settings: Settings, files: Path, tmp_path: Path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(settings.model, other)
    (other / "ragkit.json").write_text('{"max_length": 64}')
    library = Library(settings, "town")
    list(library.ingest([files]))
    before = library.status().fingerprint
    assert last(list(library.reindex(str(other))))["embedded"] == len(SCRIPTS)
    status = library.status()
    assert status.fingerprint != before and status.passages == len(SCRIPTS) and status.model == str(other)
    library.close()
    again = Library(settings.model_copy(update={"model": str(other)}), "town")
    assert again.status().passages == len(SCRIPTS)
    again.close()
