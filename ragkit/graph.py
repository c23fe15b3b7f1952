"""The HNSW graph of a collection on a server, put off while much is written.

A server builds it as points come in, again and again as segments merge. Qdrant's own advice for a bulk upload is
to set ``m`` to 0 and to set it back afterwards, when it is built once; meanwhile every search compares with all
points. (The other way, ``indexing_threshold`` 0, keeps the vectors of a large upload in memory.)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from qdrant_client import models

from ragkit.qdrant import DENSE, layout
from ragkit.settings import QdrantSettings

log = logging.getLogger(__name__)


@contextmanager
def put_off(client: Any, collection: str, settings: QdrantSettings, *, tenants: bool, keep: bool) -> Iterator[None]:
    """No graph inside, the collection's own one afterwards, also after an exception; ``keep`` leaves one that is there.
    A process that is killed leaves the collection without; the next one sets it back, then as ``settings`` say, since
    what it was is not known."""
    config: Any = client.get_collection(collection).config.params.vectors
    before = config[DENSE].hnsw_config
    if keep and before is not None and (before.m or before.payload_m):
        yield
        return
    if before is None or not (before.m or before.payload_m):
        wanted: Any = layout(config[DENSE].size, settings, server=True, tenants=tenants)["vectors_config"]
        before = wanted[DENSE].hnsw_config
    _set(client, collection, m=0, payload_m=0 if before.payload_m else None)
    try:
        yield
    finally:
        try:
            _set(client, collection, m=before.m, payload_m=before.payload_m)
        except Exception:
            log.error(
                "%s is left without its HNSW graph (m is 0, not %s), so searches compare with every point: run "
                "`ragkit load` again, which sets it back", collection, before.m,
            )  # fmt: skip
            raise


def _set(client: Any, collection: str, *, m: int | None, payload_m: int | None) -> None:
    change = models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(m=m, payload_m=payload_m))
    client.update_collection(collection, vectors_config={DENSE: change})
