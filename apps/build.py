"""The child process that changes a corpus: ``python -m apps.build ingest|reindex STORE CORPUS MODEL [PATH ...]``.

It writes a JSON object a line to standard output: how far it is, then its report, or what went wrong. Settings
other than these come from the environment, secrets among them, so that none is on the command line.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from ragkit.commands import encoder_of
from ragkit.settings import Settings

EVERY = 0.5  # seconds between two lines


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


class Bar:
    """What ingestion and re-indexing take for a progress bar."""

    def __init__(self) -> None:
        self.done = self.embedded = 0
        self._next = 0.0

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            say(done=self.done, embedded=self.embedded)

    def set_postfix(self, **numbers: Any) -> None:
        self.embedded = numbers.get("passages", self.embedded)


def run(what: str, store: str, corpus: str, model: str, paths: list[str]) -> dict[str, Any]:
    settings = Settings()
    encoder = encoder_of(model, settings)
    if what == "reindex":
        from ragkit.reindex import reindex

        return asdict(reindex(store, corpus, encoder, settings=settings.qdrant, progress=Bar()))
    from ragkit.ingest import ingest
    from ragkit.layout import readers_of
    from ragkit.store import open_store

    with open_store(store, corpus, encoder, tenant=settings.tenant, qdrant_settings=settings.qdrant) as opened:
        report = ingest(
            paths,
            opened,
            encoder,
            passage_tokens=settings.passage_tokens,
            limits=settings.limits,
            readers=readers_of(settings.parser),
            progress=Bar(),
        )
        return asdict(report)


def main() -> None:
    what, store, corpus, model, *paths = sys.argv[1:]
    try:
        report = run(what, store, corpus, model, paths)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        say(error=str(error))
        raise SystemExit(1) from error
    say(done=0, report=report)


if __name__ == "__main__":
    main()
