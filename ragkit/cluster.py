"""What a collection on a Qdrant cluster needs beside being written to and searched.

:func:`loading` keeps the graph from being built while much is written. A *tiered* collection, which tenants share,
is cut by the tenant's name: all of them lie in one shard (FALLBACK, on one node), until one that has grown is
promoted to a shard of its own, while it is read and written (Qdrant 1.16 or newer). Where shards lie, and how they
move when a node comes or goes, is Qdrant's own affair.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from qdrant_client import models

from ragkit.owner import StoreError
from ragkit.qdrant import DENSE
from ragkit.settings import QdrantSettings
from ragkit.tenant import FALLBACK, TENANT, shard_of

LOADING = "loading"  # in a collection's metadata: what its graph was, while it is off


@contextmanager
def loading(client: Any, collection: str) -> Iterator[None]:
    """No graph is built inside this block; afterwards, also after an error, it is built at once, by the server.

    Searches compare with every vector until then. Where the process is killed inside, the graph stays off: opening
    the corpus says so, and the next block that is left puts it right, since what it was stands in the metadata. The
    embedded engine builds its graph only when asked, so there it does nothing.
    """
    if not hasattr(client, "update_collection"):
        yield
        return
    info = client.get_collection(collection)
    graph, shared = info.config.params.vectors[DENSE].hnsw_config, info.config.hnsw_config
    was = (info.config.metadata or {}).get(LOADING) or {
        "m": shared.m if graph is None or graph.m is None else graph.m,
        "payload_m": shared.payload_m if graph is None or graph.payload_m is None else graph.payload_m,
    }

    def set_graph(m: int | None, payload_m: int | None, told: Any) -> None:
        diff = models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(m=m, payload_m=payload_m))
        client.update_collection(collection, vectors_config={DENSE: diff}, metadata={LOADING: told})

    set_graph(0, 0 if was["payload_m"] else None, was)
    try:
        yield
    finally:
        set_graph(was["m"], was["payload_m"], None)


def carried(settings: QdrantSettings, info: models.CollectionInfo) -> QdrantSettings:
    """The settings of a next generation: where they do not say how it lies on the cluster, as the present one does."""
    params = info.config.params
    tiers = settings.tiers or tiered(info)
    replicas = settings.replicas or params.replication_factor
    confirm = settings.write_consistency or params.write_consistency_factor
    return replace(
        settings,
        tiers=tiers,
        shards=None if tiers else settings.shards or params.shard_number,
        replicas=replicas,
        write_consistency=min(confirm, replicas) if confirm and replicas else confirm,
    )


# ---------------------------------------------------------------------- tiers


def tiered(info: models.CollectionInfo) -> bool:
    return getattr(info.config.params, "sharding_method", None) == models.ShardingMethod.CUSTOM


def shard_keys(client: Any, collection: str) -> list[int | str]:
    return [found.key for found in client.list_shard_keys(collection).shard_keys or []]


def make_shards(client: Any, collection: str, settings: QdrantSettings, tenants: Sequence[int | str] = ()) -> None:
    """Those of FALLBACK and ``tenants``, of a collection that holds nothing of theirs, which are not there yet."""
    there = shard_keys(client, collection)
    for key in (FALLBACK, *tenants):
        if key not in there:
            client.create_shard_key(collection, key, shards_number=1, replication_factor=settings.replicas)


def by_shard(records: Sequence[models.Record]) -> list[tuple[Any, list[models.Record]]]:
    """Records, whoever's, by the shard that they are to be written to."""
    found: dict[str, list[models.Record]] = {}
    for record in records:
        found.setdefault((record.payload or {})[TENANT], []).append(record)
    return [(shard_of(tenant), own) for tenant, own in found.items()]


def promote(client: Any, collection: str, tenant: str, *, timeout: float = 3600, poll: float = 1.0) -> int:
    """Give a tenant a shard of its own, and take their points out of the shared one; how many it holds.

    They are searched and written meanwhile: Qdrant sends them to the new shard once all is copied. One that was cut
    off goes on. It has one copy, whatever ``replicas`` says: Qdrant's `replicate_shard` makes more. Raises StoreError
    for a collection that is not tiered, and after ``timeout`` seconds, when it can be run again.
    """
    if not tiered(client.get_collection(collection)):
        raise StoreError(
            f"collection {collection!r} is not tiered, which is chosen when it is made: set RAGKIT_QDRANT_TIERS=1 and "
            "reindex by another model, or ingest under a new corpus name"
        )
    ours = models.Filter(must=[models.FieldCondition(key=TENANT, match=models.MatchValue(value=tenant))])

    def count(key: int | str) -> int:
        return client.count(collection, count_filter=ours, exact=True, shard_key_selector=key).count

    if tenant not in shard_keys(client, collection):
        partial = models.ReplicaState.PARTIAL  # so that nothing is sent there before all is copied
        client.create_shard_key(
            collection, tenant, shards_number=1, replication_factor=1, initial_state=partial
        )  # fmt: skip
    ends = time.monotonic() + timeout
    asked = False
    while (state := _state(client, collection, tenant)) != "Active":
        if state == "Partial" and not asked:  # new, or of a promotion that was cut off
            copy = models.ReplicatePoints(from_shard_key=FALLBACK, to_shard_key=tenant, filter=ours)
            client.cluster_collection_update(collection, models.ReplicatePointsOperation(replicate_points=copy))
            asked = True
        if time.monotonic() > ends:
            raise StoreError(
                f"the shard of {tenant!r} is {state} after {timeout:.0f} s: Qdrant goes on copying; run this again to "
                "take the points out of the shared shard"
            )
        time.sleep(poll)
    left = count(FALLBACK)
    if left:
        if not count(tenant):
            raise StoreError(
                f"the shard of {tenant!r} is in use but empty, the shared one holds {left} of their points, and none "
                f"is searched: was the key made by hand? Delete the shard key {tenant!r} and run this again"
            )
        client.delete(collection, points_selector=ours, shard_key_selector=FALLBACK, wait=True)
    return count(tenant)


def _state(client: Any, collection: str, key: str) -> str:
    """Of the shard of this key: Active where all its copies are, Copying while a transfer to it runs."""
    info = client.collection_cluster_info(collection)
    shards = [shard for shard in (*info.local_shards, *info.remote_shards) if shard.shard_key == key]
    states = {str(shard.state) for shard in shards}
    if states == {"Active"}:
        return "Active"
    numbers = {shard.shard_id for shard in shards}
    if any({move.shard_id, move.to_shard_id} & numbers for move in info.shard_transfers):
        return "Copying"
    return min(states - {"Active"}, default="Missing")
