"""The corpus that the app has open: who searches it, what it holds, and how it changes while it is searched.

It opens at the first question, and again after whatever kept it shut has gone: a model that was not there, a
Qdrant that had stopped. What changes much runs in a child process (build.py), which parses and embeds while
questions are answered here. A server is written to directly. A folder of the embedded engine belongs to this
process, so the child works on a copy of it: the old one is closed and the new one opened between two searches,
and what a crash leaves half done in that moment is put right at the next opening. One change at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from apps.explain import Found, search
from apps.remember import Remembering
from apps.uploads import Arrival
from ragkit.archive import copied, require_room, taken
from ragkit.client import RemoteError, is_url, masked
from ragkit.files import stored_path
from ragkit.live import LiveRetriever
from ragkit.owner import CorpusInUse, NoRoom
from ragkit.progress import Bar
from ragkit.reindex import admit_writers, beside
from ragkit.rerank import Reranker, RerankError, load_reranker
from ragkit.retrieve import Mode, Retriever
from ragkit.settings import Settings
from ragkit.store import CorpusNotFound, EarlierWords, FingerprintMismatch, PassageState, Store, StoreError, open_store
from ragkit.task import Task
from ragkit.types import Passage

PATIENCE = 5  # seconds that searches wait for a change to take over, before they go on and it is tried again

Trouble = Literal[
    "empty",
    "model",
    "server",
    "owner",
    "mismatch",
    "words",
    "store",
    "busy",
    "read_only",
    "tenants",
    "unnamed",
    "reranker",
]


class NotReady(RuntimeError):
    """The corpus cannot be used now; ``trouble`` says which kind of help is needed. Visitors are shown it."""

    def __init__(self, trouble: Trouble, told: str) -> None:
        super().__init__(masked(told))
        self.trouble: Trouble = trouble


@dataclass(frozen=True, slots=True)
class Entry:
    """A document of the corpus."""

    path: str
    document: str
    title: str
    lang: str
    passages: int
    first: str  # id of its first passage
    uploaded: bool  # came in through the app


@dataclass(frozen=True, slots=True)
class Status:
    """What the corpus holds and where."""

    corpus: str
    location: str  # without a user and password
    model: str
    fingerprint: str
    passages: int
    languages: dict[str, int]  # passages by language, most first
    bytes: int | None  # on this machine's disk; None where a server keeps it


@dataclass(frozen=True, slots=True)
class Step:
    """Of a change under way: documents (ingestion) or passages (re-indexing) that are done."""

    done: int
    embedded: int = 0
    report: dict[str, Any] | None = None  # of the last step


class Library:
    """``corpus`` at the place, and by the model, that ``settings`` name. Safe to share among threads.

    Visitors may embed it anew by a model that its operator named: ``settings.model`` or ``rival``. Where the operator
    is ``alone`` with it, by any that can be loaded here; not by another URL, which would get the operator's key.
    """

    def __init__(self, settings: Settings, corpus: str, *, rival: str = "", alone: bool = False) -> None:
        self.settings = settings
        self.named: list[str] = list(dict.fromkeys(filter(None, [settings.model, rival])))
        self.alone = alone
        self.corpus = corpus
        self.location = settings.store
        self.model = settings.model
        self.served = is_url(self.location)
        self.root = Path(self.location).expanduser().resolve()
        self.uploads, self._uploaded = self._folders()
        self._live: LiveRetriever | None = None
        self._encoder: Remembering | None = None
        self._opening = threading.Lock()
        self._changing = threading.Lock()
        self._comparing = threading.Lock()
        self._taking = threading.Event()  # set: whoever embeds for a comparison gives way
        self._rival: LiveRetriever | None = None
        self._rival_encoder: Remembering | None = None

    def _folders(self) -> tuple[Path, Path]:
        """Where uploads go, and where all that the app ever took lies: once, files of all stores of a folder lay
        together. A tenant, or a store that is not the usual one, has a folder of its own in there."""
        usual = Path(Settings.model_fields["store"].default)
        named, tenant = self.settings.app.uploads, self.settings.tenant
        base = Path(named) if named else (usual if self.served else self.root).parent / "uploads" / self.corpus
        base = base.expanduser().resolve()
        if tenant is None and (named or self.root == usual.expanduser().resolve()):
            return base, base
        place = masked(self.location).rstrip("/") if self.served else str(self.root)
        own = base / hashlib.sha256(f"{place}\0{tenant or ''}".encode()).hexdigest()[:16]
        return own, base if tenant is None else own

    # ------------------------------------------------------------------ searching

    @contextmanager
    def lease(self) -> Iterator[Retriever]:
        """The corpus, open while the block runs. Raises NotReady, also where a server fails in the block: the store's,
        the embedder's or the reranker's."""
        while True:
            live = self._live or self._opened()
            with live.lease() as retriever:
                if live is self._live:  # else a change failed while this waited, and the store is closed
                    try:
                        yield retriever
                    except (StoreError, RemoteError, RerankError) as error:
                        raise self._not_ready(error) from error
                    return

    def _opened(self) -> LiveRetriever:
        with self._opening:
            if self._live is None:
                self._live = LiveRetriever(self._retriever(self.encoder()))
            return self._live

    def encoder(self) -> Remembering:
        """Raises NotReady."""
        if self._encoder is None:
            self._encoder = Remembering(self._load(self.model))
        return self._encoder

    def _load(self, model: str) -> Any:
        from ragkit.commands import encoder_of

        try:
            return encoder_of(model, self.settings)
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise NotReady("model", f"the model {model!r} cannot be loaded: {error}") from error

    def _retriever(self, encoder: Remembering, *, create: bool = False) -> Retriever:
        if not self.served:
            self._put_right()
        reranker = self._reranker
        store = self._store(encoder, create=create)
        if not (self.served or self._changing.locked()):  # the corpus is ours, and so is what a killed change left
            shutil.rmtree(self._building, ignore_errors=True)
        return Retriever(store, encoder, reranker=reranker, rerank_depth=self.settings.rerank.depth)

    @cached_property
    def _reranker(self) -> Reranker | None:
        try:
            return load_reranker(self.settings.rerank)  # once: searches wait while a change takes over
        except (OSError, ValueError, ImportError, RuntimeError) as error:
            raise NotReady("reranker", f"the reranker cannot be loaded: {error}") from error

    def _store(self, encoder: Remembering, *, create: bool) -> Store:
        try:
            return open_store(
                self.location,
                self.corpus,
                encoder,
                tenant=self.settings.tenant,
                qdrant_settings=self.settings.qdrant,
                create=create,
            )
        except (StoreError, ValueError) as error:
            raise self._not_ready(error) from error

    def _not_ready(self, error: Exception) -> NotReady:
        match error:
            case CorpusNotFound():
                return NotReady("empty", str(error))
            case EarlierWords():
                return NotReady("words", str(error))
            case FingerprintMismatch():
                return NotReady("mismatch", str(error))
            case CorpusInUse():
                return NotReady("owner", str(error))
            case RemoteError():
                return NotReady("model", str(error))
            case RerankError():
                return NotReady("reranker", str(error))
        return NotReady("server" if self.served else "store", str(error))

    # ------------------------------------------------------------------ comparing

    def rival(self, model: str) -> Iterator[Step]:
        """Bring the generation of another embedder up to the corpus, beside the current one, so that
        :meth:`search_by` can ask it. Raises NotReady, also where a change takes over meanwhile: what is embedded is
        kept, and the next call goes on."""
        steps: queue.SimpleQueue[Step | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def work() -> None:  # it may outlive its caller by a batch, and reads the store till then
            try:
                with self._comparing, self.lease() as retriever:
                    if self._rival is None or self._rival_behind(retriever.store):
                        self._open_rival(model, retriever.store, _Reported(steps, (self._taking, left)))
                steps.put(None)
            except BaseException as error:
                steps.put(error)

        threading.Thread(target=work, daemon=True).start()
        try:
            while (step := steps.get()) is not None:
                if isinstance(step, BaseException):
                    raise step if isinstance(step, NotReady) else NotReady("store", str(step)) from step
                yield step
        finally:
            left.set()

    def _rival_behind(self, store: Store) -> bool:
        assert self._rival is not None
        with self._rival.lease() as rival:
            return rival.store.count() != store.count()

    def _open_rival(self, model: str, store: Store, bar: Bar) -> None:
        self._close_rival()
        encoder = self._rival_encoder or Remembering(self._load(model))
        self._rival_encoder = encoder
        opened, _, _ = beside(store, encoder, progress=bar)
        mine = opened if self.settings.tenant is None else opened.for_tenant(self.settings.tenant)
        self._rival = LiveRetriever(Retriever(mine, encoder))

    def _close_rival(self) -> None:
        """Once no comparison asks it any more."""

        def closed(rival: Retriever) -> Retriever:
            rival.store.close()
            return rival

        live, self._rival = self._rival, None
        if live is not None:
            live.replace(closed)

    def search_by(self, model: str, question: str, task: Task | None, mode: Mode, k: int = 10) -> Found:
        """By the corpus's embedder, or by the rival of that name."""
        with self.lease() as retriever:
            if not model:
                return search(retriever, question, task=task, mode=mode, k=k)
            live = self._rival
            if live is not None:
                with live.lease() as rival:
                    if live is self._rival:  # else it was closed while this waited
                        return search(rival, question, task=task, mode=mode, k=k)
            raise NotReady("busy", f"no generation by {model!r} is open to compare with")

    # ------------------------------------------------------------------ reading

    def status(self) -> Status:
        with self.lease() as retriever:
            store = retriever.store
            return Status(
                self.corpus,
                masked(self.location),
                self.model,
                store.fingerprint,
                store.count(),
                store.languages(),
                None if self.served else taken(self._folder(store)),
            )

    def documents(self, text: str = "", most: int = 50) -> list[Entry]:
        """The first ``most`` documents of the corpus in whose path, id or title ``text`` stands."""
        with self.lease() as retriever:
            return list(islice(self._entries(retriever.store, text.casefold()), most))

    def _entries(self, store: Store, text: str) -> Iterator[Entry]:
        seen: set[tuple[str, str]] = set()
        states = store.states()
        while some := list(islice(states, 256)):  # a request for each document would be too many
            fresh: dict[tuple[str, str], PassageState] = {}
            for state in some:
                if (key := (state.path, state.document)) not in seen:
                    fresh.setdefault(key, state)
            seen |= fresh.keys()
            passages = {passage.id: passage for passage in store.passages([state.id for state in fresh.values()])}
            for key, state in fresh.items():
                first = passages.get(state.id)
                if first is not None and any(text in part.casefold() for part in (*key, first.title)):
                    uploaded = Path(state.path).is_relative_to(self._uploaded)
                    yield Entry(*key, first.title, first.lang, state.document_passages, state.id, uploaded)

    def around(self, passage: str, window: int = 40) -> tuple[Passage, list[Passage]]:
        """A passage and its document's passages around it. Raises KeyError where it is not stored any more."""
        with self.lease() as retriever:
            found = retriever.store.passages([passage])
            if not found:
                raise KeyError(passage)
            return found[0], retriever.store.neighbours(found[0], window)

    # ------------------------------------------------------------------ changing

    def remove(self, keys: Sequence[tuple[str, str]]) -> int:
        """Remove these documents, each (path, document). An uploaded file goes whole, and all documents that came out
        of it. How many passages went. Raises NotReady."""
        with self._change(), self.lease() as retriever:
            store = retriever.store
            for path in {path for path, _ in keys if Path(path).is_relative_to(self._uploaded)}:
                Path(path).unlink(missing_ok=True)
                keys = [*keys, *((state.path, state.document) for state in store.states(path))]
            ids = [state.id for state in store.states_of(sorted(set(keys)))]
            store.delete(ids)
            store.refuse_superseded()
            return len(ids)

    def upload(self, arrival: Arrival) -> Iterator[Step]:
        """Ingest what arrived, and nothing else of the folder: a file that is missing there was not removed by anybody.
        Of a file of which nothing can be read, the version before comes back, and is read again; of all, where this is
        stopped or fails. As :meth:`ingest`."""
        report: dict[str, Any] = {"skipped": []}
        before: list[Path] = []
        try:
            for step in self.ingest(arrival.paths):
                if step.report is None:
                    yield step
                else:
                    report = step.report
            nothing = [Path(one["path"]).name for one in report["skipped"] if not one["part"]]
            before += [arrival.folder / name for name in nothing if arrival.unreadable(name)]
            if before:
                with suppress(NotReady):  # another change came first: what was read now stays
                    *_, last = self.ingest(before)
                    for name, value in (last.report or {}).items():  # counts, and a list
                        report[name] += value
            yield Step(0, report=report)
        except BaseException:
            if self.served:  # what was written there stays, but the files do not
                self._follow([*before, *arrival.withdrawn()])
            raise

    def _follow(self, paths: Sequence[Path]) -> None:
        """Let the store say of each path what its file says now, in a thread, once no other change is under way: nobody
        waits who has stopped an upload."""
        there, gone = [path for path in paths if path.exists()], [path for path in paths if not path.exists()]

        def work() -> None:
            with suppress(NotReady):  # the server is gone, for example: the next upload of these mends it
                with self._change(wait=True), self.lease() as retriever:
                    for path in gone:
                        if not path.exists():  # else it has come in anew
                            retriever.store.delete([state.id for state in retriever.store.states(stored_path(path))])
                if there:
                    for _ in self._build("ingest", self.model, there, wait=True):
                        pass

        threading.Thread(target=work, daemon=True).start()

    def ingest(self, paths: Sequence[Path]) -> Iterator[Step]:
        """Bring the corpus up to date with ``paths``, in a child process. Closing the iterator stops it. Raises
        NotReady."""
        yield from self._build("ingest", self.model, paths)

    def reindex(self, model: str) -> Iterator[Step]:
        """Embed the corpus anew by ``model``, in a child process, and search by it from then on. Raises NotReady, also
        where that model is not a visitor's to choose, or the corpus not one tenant's to change."""
        if self.settings.tenant is not None:
            raise NotReady("tenants", f"corpus {self.corpus!r} is shared by tenants: its operator alone reindexes it")
        if model not in self.named and (not self.alone or is_url(model)):
            raise NotReady("unnamed", f"model {model!r}: this app re-indexes by {', '.join(map(repr, self.named))}")
        yield from self._build("reindex", model, ())

    @contextmanager
    def _change(self, *, wait: bool = False) -> Iterator[None]:
        if self.settings.app.read_only:
            raise NotReady("read_only", "this app only reads (RAGKIT_APP_READ_ONLY)")
        if not self._changing.acquire(blocking=wait):
            raise NotReady("busy", "another change of the corpus is under way")
        try:
            yield
        finally:
            self._changing.release()

    def _build(self, what: str, model: str, paths: Sequence[Path], *, wait: bool = False) -> Iterator[Step]:
        with self._change(wait=wait):
            place = Path(self.location) if self.served else self._copy()
            command = [sys.executable, "-m", "apps.build", what, str(self.location if self.served else place)]
            command += [self.corpus, model, *(str(path) for path in paths)]
            last = Step(0)
            try:
                shown = last
                for last in _steps(command):
                    if last.report is None:
                        yield (shown := last)
                encoder = self.encoder() if model == self.model else Remembering(self._load(model))
                while not self._taken_over(place, model, encoder):
                    yield shown
                    time.sleep(PATIENCE / 5)  # who waited to search goes first
            finally:
                if not self.served:
                    shutil.rmtree(place, ignore_errors=True)
                elif what == "reindex" and last.report is None:  # stopped, perhaps where it refuses writers
                    with suppress(StoreError):
                        admit_writers(self.location, self.corpus, self.settings.qdrant)
            yield last

    def _copy(self) -> Path:
        """A folder beside the corpus that holds a copy of it, if it exists; writers are kept out by the caller. Raises
        NotReady where it exists and is not ours to open, or the disk has no room for another."""
        current = ""
        try:
            with self.lease() as retriever:
                current = retriever.store.collection
        except NotReady as error:
            if error.trouble != "empty":
                raise
        place = self._building
        shutil.rmtree(place, ignore_errors=True)
        try:
            place.mkdir(parents=True)
            if current:
                require_room(self.root, taken(self.root / current))
                leave = shutil.ignore_patterns("lock", "owner.json")
                shutil.copytree(self.root / current, place / current, ignore=leave, copy_function=copied)
        except (NoRoom, OSError) as error:
            shutil.rmtree(place, ignore_errors=True)
            raise NotReady("store", f"the corpus cannot be changed: {error}") from error
        return place

    def _taken_over(self, place: Path, model: str, encoder: Remembering) -> bool:
        """Search what the child has made, by ``model``, from now on; or not yet, where something holds the store for
        seconds. To be asked again: searches go on meanwhile."""

        def exchange(old: Retriever | None) -> Retriever:
            try:
                if old is not None:
                    old.store.close()
                if not self.served:
                    self._exchange(place)
                self._encoder, self.model = encoder, model
                return self._retriever(encoder)
            except BaseException:
                self._live = None  # the next lease opens again
                raise

        self._taking.set()
        try:
            with self._comparing:  # its generation may be the one that takes over
                self._close_rival()
            if self._live is None:
                with self._opening:
                    self._live = LiveRetriever(exchange(None))
            else:
                self._live.replace(exchange, timeout=PATIENCE)
        except TimeoutError:
            return False
        finally:
            self._taking.clear()
        return True

    def _exchange(self, place: Path) -> None:
        old = self.root / f".old-{self.corpus}"
        shutil.rmtree(old, ignore_errors=True)
        old.mkdir()
        for made in [*place.glob(f"{self.corpus}--*"), *place.glob(f"{self.corpus}.json")]:
            present = self.root / made.name
            if present.exists():
                present.rename(old / made.name)
            made.rename(present)
        shutil.rmtree(old)

    def _put_right(self) -> None:
        """After a crash between two renames: what has no successor comes back."""
        old = self.root / f".old-{self.corpus}"
        for left in old.glob("*"):
            if not (self.root / left.name).exists():
                left.rename(self.root / left.name)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def _building(self) -> Path:
        """Where the child works, in a folder of the embedded engine."""
        return self.root / f".building-{self.corpus}"

    def _folder(self, store: Store) -> Path:
        return self.root / store.collection

    def close(self) -> None:
        self._close_rival()
        if self._live is not None:
            with self._live.lease() as retriever:
                retriever.store.close()
            self._live = None


class _Reported:
    """A bar whose movements are put into a queue, until an event says that somebody else needs the store."""

    def __init__(self, steps: queue.SimpleQueue[Any], stops: Sequence[threading.Event]) -> None:
        self._steps, self._stops, self._done = steps, stops, 0

    def update(self, n: int = 1) -> None:
        self._done += n
        self._steps.put(Step(self._done))
        if any(stop.is_set() for stop in self._stops):
            raise NotReady("busy", "a change of the corpus takes over: what is embedded for the comparison is kept")

    def set_postfix(self, **numbers: Any) -> None: ...


def _steps(command: Sequence[str]) -> Iterator[Step]:
    """What the child says, a JSON object a line; it is killed where nobody listens any more."""
    root = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would stop it once it is full
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert child.stdout is not None
            for line in child.stdout:
                said = json.loads(line)
                if "error" in said:
                    raise NotReady("store", said["error"])
                yield Step(**said)
            if child.wait():
                errors.seek(max(0, errors.seek(0, os.SEEK_END) - 1000))
                told = errors.read().decode("utf-8", "replace")[-500:]
                raise NotReady("store", f"the child process ended with {child.returncode}: {told}")
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
