"""Which of a corpus's collections is the current one: a pointer that is swapped atomically.

On a server the pointer is Qdrant's alias ``<corpus>``, which other programs can search by too; in a folder of
the embedded engine it is the file ``<corpus>.json``, which is not needed where there is one generation alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

from qdrant_client import models

from ragkit.owner import StoreError, write_json


class Generations(Protocol):
    """A generation is named by its encoder's fingerprint."""

    def current(self, corpus: str) -> str | None: ...

    def make_current(self, corpus: str, fingerprint: str) -> None: ...

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None: ...  # of its collection, if it exists


class Server:
    def __init__(self, client: Any) -> None:
        self._client = client

    def current(self, corpus: str) -> str | None:
        for alias in self._client.get_aliases().aliases:
            if alias.alias_name == corpus and alias.collection_name.startswith(f"{corpus}--"):
                return alias.collection_name.removeprefix(f"{corpus}--")
        return None

    def make_current(self, corpus: str, fingerprint: str) -> None:
        operations: list[Any] = []
        if self.current(corpus) is not None:
            operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=corpus)))
        made = models.CreateAlias(collection_name=f"{corpus}--{fingerprint}", alias_name=corpus)
        operations.append(models.CreateAliasOperation(create_alias=made))
        self._client.update_collection_aliases(change_aliases_operations=operations)  # all at once

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None:
        name = f"{corpus}--{fingerprint}"
        if not self._client.collection_exists(name):
            return None
        return self._client.get_collection(name).config.metadata or {}


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def current(self, corpus: str) -> str | None:
        file = self._root / f"{corpus}.json"
        try:
            return str(json.loads(file.read_text("utf-8"))["current"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f'{file} cannot be read ({error}): it names the current generation of the corpus. Write {{"current": '
                f'"FINGERPRINT"}} into it, as in the name of the folder {corpus}--FINGERPRINT beside it'
            ) from error
        only = [folder.parent.name for folder in self._root.glob(f"{corpus}--*/collection.json")]
        return only[0].removeprefix(f"{corpus}--") if len(only) == 1 else None

    def make_current(self, corpus: str, fingerprint: str) -> None:
        write_json(self._root / f"{corpus}.json", {"current": fingerprint})

    def metadata(self, corpus: str, fingerprint: str) -> dict[str, Any] | None:
        try:
            text = (self._root / f"{corpus}--{fingerprint}" / "collection.json").read_text("utf-8")
        except FileNotFoundError:
            return None
        return json.loads(text)["metadata"]
