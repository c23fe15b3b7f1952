"""One ingestion with the tests' encoder, as a process that can be killed: FOLDER STORE."""

from __future__ import annotations

import sys

from conftest import HashEncoder

from ragkit.ingest import ingest
from ragkit.store import open_store

if __name__ == "__main__":
    folder, place = sys.argv[1:]
    encoder = HashEncoder()
    with open_store(place, "town", encoder) as store:
        report = ingest([folder], store, encoder, passage_tokens=100, batch=64)
    assert report.skipped == (), report.skipped
