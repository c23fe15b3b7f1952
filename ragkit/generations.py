"""Which of a corpus's collections is the current one: a pointer that is swapped atomically.

On a server the pointer is Qdrant's alias ``<corpus>``, which other programs can search by too; in a folder of
the embedded engine it is the file ``<corpus>.json``, which is not needed where there is one generation alone. The
others stay, to go back to, until somebody removes them. Which was current before, each swap writes down: in that file,
or in the metadata of the collection that becomes current.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from qdrant_client import models

from ragkit.archive import taken
from ragkit.owner import FolderLock, StoreError, write_json

SUPERSEDING = "superseding"  # in a collection's metadata: the generation that is about to become current in its place


@dataclass(frozen=True, slots=True)
class Generation:
    """One of a corpus's collections: what it takes."""

    fingerprint: str
    current: bool
    whole: bool  # False where its creation was cut off: it cannot be opened
    passages: int | None = None  # told by a server
    bytes: int | None = None  # on disk, told of a folder


class Generations(Protocol):
    """A generation is named by its encoder's fingerprint."""

    def current(self, corpus: str) -> str | None: ...

    def make_current(self, corpus: str, fingerprint: str) -> None: ...

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None:
        """Of its collection, if that exists; ``previous`` in the current one's is the generation that was before it."""
        ...

    def all(self, corpus: str) -> list[Generation]: ...  # the current one first

    def remove(self, corpus: str, fingerprint: str) -> None: ...

    def admit_writers(self, corpus: str, fingerprint: str) -> None: ...  # whom a reindex that was cut off still refuses


class Server:
    def __init__(self, client: Any) -> None:
        self._client = client

    def current(self, corpus: str) -> str | None:
        """Raises StoreError where the name is somebody else's: an alias of theirs would be taken over, and beside a
        collection of theirs none can be made."""
        other = f"is none of ragkit's: choose another name for the corpus than {corpus!r}"
        for alias in self._client.get_aliases().aliases:
            if alias.alias_name == corpus:
                if not alias.collection_name.startswith(f"{corpus}--"):
                    raise StoreError(
                        f"alias {corpus!r} on this server stands for {alias.collection_name!r}, which {other}"
                    )
                return alias.collection_name.removeprefix(f"{corpus}--")
        if self._client.collection_exists(corpus):
            raise StoreError(f"collection {corpus!r} on this server {other}")
        return None

    def make_current(self, corpus: str, fingerprint: str) -> None:
        operations: list[Any] = []
        before = self.current(corpus)
        if before == fingerprint:
            return
        self.admit_writers(corpus, fingerprint)  # it may have been superseded itself
        if before is not None:
            self._client.update_collection(f"{corpus}--{fingerprint}", metadata={"previous": before})
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=corpus)))
        made = models.CreateAlias(collection_name=f"{corpus}--{fingerprint}", alias_name=corpus)
        operations.append(models.CreateAliasOperation(create_alias=made))
        self._client.update_collection_aliases(change_aliases_operations=operations)  # all at once

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None:
        name = f"{corpus}--{fingerprint}"
        if not self._client.collection_exists(name):
            return None
        return self._client.get_collection(name).config.metadata or {}

    def all(self, corpus: str) -> list[Generation]:
        current = self.current(corpus)
        names = [c.name for c in self._client.get_collections().collections if c.name.startswith(f"{corpus}--")]
        found = [
            Generation(fp, fp == current, True, passages=self._client.count(f"{corpus}--{fp}", exact=True).count)
            for fp in (name.removeprefix(f"{corpus}--") for name in names)
        ]
        return _current_first(found)

    def remove(self, corpus: str, fingerprint: str) -> None:
        self._client.delete_collection(f"{corpus}--{fingerprint}")

    def admit_writers(self, corpus: str, fingerprint: str) -> None:
        if (self.metadata(corpus, fingerprint) or {}).get(SUPERSEDING):
            self._client.update_collection(f"{corpus}--{fingerprint}", metadata={SUPERSEDING: None})


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def current(self, corpus: str) -> str | None:
        if current := self._pointer(corpus)[0]:
            return current
        only = [folder.parent.name for folder in self._root.glob(f"{corpus}--*/collection.json")]
        return only[0].removeprefix(f"{corpus}--") if len(only) == 1 else None

    def _pointer(self, corpus: str) -> tuple[str | None, str | None]:
        """The current generation and the one before, where they are written down."""
        file = self._root / f"{corpus}.json"
        try:
            told = json.loads(file.read_text("utf-8"))
            return str(told["current"]), told.get("previous")
        except FileNotFoundError:
            return None, None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f'{file} cannot be read ({error}): it names the current generation of the corpus. Write {{"current": '
                f'"FINGERPRINT"}} into it, as in the name of the folder {corpus}--FINGERPRINT beside it'
            ) from error

    def make_current(self, corpus: str, fingerprint: str) -> None:
        before = self.current(corpus)
        previous = before if before != fingerprint else self._pointer(corpus)[1]
        told = {"current": fingerprint} | ({"previous": previous} if previous else {})
        write_json(self._root / f"{corpus}.json", told)

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None:
        try:
            text = (self._root / f"{corpus}--{fingerprint}" / "collection.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        current, previous = self._pointer(corpus)
        swapped = {"previous": previous} if previous and fingerprint == current else {}
        return json.loads(text)["metadata"] | swapped

    def all(self, corpus: str) -> list[Generation]:
        current = self.current(corpus)
        found = []
        for folder in self._root.glob(f"{corpus}--*"):
            if folder.is_dir():
                fp, whole = folder.name.removeprefix(f"{corpus}--"), (folder / "collection.json").exists()
                found.append(Generation(fp, fp == current, whole, bytes=taken(folder)))
        return _current_first(found)

    def remove(self, corpus: str, fingerprint: str) -> None:
        """Raises CorpusInUse where a process has it open."""
        folder = self._root / f"{corpus}--{fingerprint}"
        lock = FolderLock(folder)
        try:
            (folder / "collection.json").unlink(missing_ok=True)  # first: what remains is an unfinished folder
            for shard in folder.glob("shard*"):
                shutil.rmtree(shard)
        finally:
            lock.release()
        shutil.rmtree(folder)

    def admit_writers(self, corpus: str, fingerprint: str) -> None:
        """Its owner alone writes to a folder: nobody is refused."""


def _current_first(found: list[Generation]) -> list[Generation]:
    return sorted(found, key=lambda generation: (not generation.current, generation.fingerprint))
