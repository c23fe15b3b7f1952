"""Qdrant's REST interface over the client's local mode, on a local port: what QdrantClient would send to a
server is read back into the client's own models, recorded, and carried out. It proves that requests have the
shape the interface documents and mean what they should; it is no server and proves nothing of one."""

from __future__ import annotations

import email
import hashlib
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any
from urllib.parse import parse_qs

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models
from qdrant_client.http.models import QueryResponse

LAYOUT = ("vectors", "sparse_vectors", "metadata")  # what the local mode can carry out of a creation


class FakeQdrant:
    def __init__(self) -> None:
        self.local = QdrantClient(":memory:")
        self.seen: list[tuple[str, str, Any, dict[str, str]]] = []  # method, path, body, headers
        self.created: dict[str, models.CreateCollection] = {}
        self.indexed: dict[str, Any] = {}
        self.asked: list[tuple[str, dict[str, list[str]]]] = []  # path, query
        self.has: dict[str, set[str]] = {}  # indexed fields of each collection
        self.peers = 1
        self.keys: dict[str, list[Any]] = {}  # of each collection's shards
        self.shards_as: dict[Any, str] = {}  # key -> state, where it is not Active
        self.threshold: dict[str, Any] = {}  # indexing_threshold of each collection
        self.snapshots: dict[str, dict[str, bytes]] = {}  # of each collection: name -> what it holds

    def bodies(self, path: str) -> list[Any]:
        """Of every request so far to a path that ends so."""
        return [body for _, p, body, _ in self.seen if p.endswith(path)]

    def answer(self, method: str, path: str, body: Any) -> Any:
        if path == "/":
            return {"title": "recorder", "version": version("qdrant-client")}
        if path == "/readyz":
            return "all shards are ready"
        if path == "/collections":
            return self.local.get_collections()
        if path == "/aliases":
            return self.local.get_aliases()
        if path == "/collections/aliases":
            return self.local.update_collection_aliases(models.ChangeAliasesOperation(**body).actions)
        if path == "/cluster":
            return self.cluster()
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert found, path
        name, rest = found[1], found[2] or ""
        local: Any = self.local
        match method, rest:
            case "GET", "/exists":
                return {"exists": local.collection_exists(name)}
            case "GET", "":
                info = local.get_collection(name)
                made = self.created[name]
                told = {"vectors", "shard_number", "replication_factor", "write_consistency_factor", "sharding_method"}
                for field in told:
                    if (value := getattr(made, field)) is not None:
                        setattr(info.config.params, field, value)
                info.config.metadata = made.metadata
                keyword = models.PayloadIndexInfo(data_type=models.PayloadSchemaType.KEYWORD, points=0)
                info.payload_schema = dict.fromkeys(self.has.get(name, ()), keyword)
                info.config.optimizer_config.indexing_threshold = self.threshold.get(name, 10_000)
                return info
            case "PATCH", "":
                self.update(name, models.UpdateCollection(**body))
                return True
            case "DELETE", "":
                self.has.pop(name, None)
                return local.delete_collection(name)
            case "PUT", "":
                made = self.created[name] = models.CreateCollection(**body)
                kept: Any = made.sparse_vectors
                return local.create_collection(
                    name, vectors_config=made.vectors, sparse_vectors_config=kept, metadata=made.metadata
                )
            case "PUT", "/shards":
                key = models.CreateShardingKey(**body)
                self.keys.setdefault(name, []).append(key.shard_key)
                if key.initial_state:
                    self.shards_as[key.shard_key] = str(key.initial_state)
                return True
            case "GET", "/shards":
                return {"shard_keys": [{"key": key} for key in self.keys.get(name, [])]}
            case "POST", "/cluster":
                moved = models.ReplicatePointsOperation(**body).replicate_points
                self.shards_as.pop(moved.to_shard_key, None)  # the copy is there at once: it is Active
                return True
            case "GET", "/cluster":
                shards = [
                    {"shard_id": n, "shard_key": key, "points_count": 0, "state": self.shards_as.get(key, "Active")}
                    for n, key in enumerate(self.keys.get(name, []))
                ]
                return {"peer_id": 1, "shard_count": len(shards), "local_shards": shards, "remote_shards": [],
                        "shard_transfers": []}  # fmt: skip
            case "POST", "/snapshots":
                kept = self.snapshots.setdefault(name, {})
                described = f"{name}-{len(kept)}.snapshot"
                kept[described] = self.packed(name)
                return {"name": described, "size": len(kept[described]), "creation_time": "2026-01-01T00:00:00",
                        "checksum": hashlib.sha256(kept[described]).hexdigest()}  # fmt: skip
            case "POST", "/snapshots/upload":
                assert body["checksum"] == [hashlib.sha256(body["file"]).hexdigest()], "checksum mismatch"
                self.unpack(name, body["file"])
                return True
            case "GET", snapshot if snapshot.startswith("/snapshots/"):
                return self.snapshots[name][snapshot.removeprefix("/snapshots/")]
            case "DELETE", snapshot if snapshot.startswith("/snapshots/"):
                del self.snapshots[name][snapshot.removeprefix("/snapshots/")]
                return True
            case "PUT", "/index":
                index = models.CreateFieldIndex(**body)
                self.indexed[index.field_name] = index.field_schema
                self.has.setdefault(name, set()).add(index.field_name)
                return DONE
            case "PUT", "/points":
                points = models.PointsList(**body)
                local.upsert(name, points.points, update_filter=points.update_filter)
                return DONE
            case "POST", "/points":
                ask = models.PointRequest(**body)
                return local.retrieve(name, ask.ids, with_payload=ask.with_payload, with_vectors=ask.with_vector)
            case "POST", "/points/delete":
                local.delete(name, TypeAdapter(models.PointsSelector).validate_python(body))
                return DONE
            case "POST", "/points/scroll":
                ask = models.ScrollRequest(**body)
                records, offset = local.scroll(
                    name, ask.filter, limit=ask.limit, offset=ask.offset, with_payload=ask.with_payload,
                    with_vectors=ask.with_vector,
                )  # fmt: skip
                return {"points": records, "next_page_offset": offset}
            case "POST", "/points/count":
                ask = models.CountRequest(**body)
                return local.count(name, ask.filter, exact=ask.exact)
            case "POST", "/facet":
                ask = models.FacetRequest(**body)
                return local.facet(name, ask.key, facet_filter=ask.filter, limit=ask.limit, exact=ask.exact)
            case "POST", "/points/query":
                return self.query(name, models.QueryRequest(**body))
            case "POST", "/points/query/batch":
                return [self.query(name, one) for one in models.QueryRequestBatch(**body).searches]
        raise AssertionError(f"{method} {path} is not recorded")

    def cluster(self) -> Any:
        if self.peers == 1:
            return {"status": "disabled"}
        peers = {str(n): {"uri": f"http://node-{n}:6335"} for n in range(1, self.peers + 1)}
        raft = {"term": 1, "commit": 1, "pending_operations": 0, "leader": 1, "role": "Leader", "is_voter": True}
        thread = {"consensus_thread_status": "working", "last_update": "2026-01-01T00:00:00Z"}
        return {"status": "enabled", "peer_id": 1, "peers": peers, "raft_info": raft,
                "consensus_thread_status": thread, "message_send_failures": {}}  # fmt: skip

    def update(self, name: str, asked: models.UpdateCollection) -> None:
        made: Any = self.created[name]
        for vector, diff in (asked.vectors or {}).items():
            if diff.hnsw_config:
                given = diff.hnsw_config.model_dump(exclude_none=True)
                made.vectors[vector].hnsw_config = made.vectors[vector].hnsw_config.model_copy(update=given)
        merged = (made.metadata or {}) | (asked.metadata or {})
        made.metadata = {key: value for key, value in merged.items() if value is not None}
        if asked.optimizers_config and asked.optimizers_config.indexing_threshold is not None:
            self.threshold[name] = asked.optimizers_config.indexing_threshold

    def packed(self, name: str) -> bytes:
        """A snapshot: how it was made, its points."""
        points, _ = self.local.scroll(name, limit=100_000, with_payload=True, with_vectors=True)
        made = self.created[name].model_dump(mode="json", exclude_none=True)
        return json.dumps({"made": made, "points": [point.model_dump(mode="json") for point in points]}).encode()

    def unpack(self, name: str, snapshot: bytes) -> None:
        content = json.loads(snapshot)
        if self.local.collection_exists(name):
            self.local.delete_collection(name)
        self.answer("PUT", f"/collections/{name}", content["made"])
        points = [models.PointStruct(id=p["id"], vector=p["vector"], payload=p["payload"]) for p in content["points"]]
        if points:
            self.local.upsert(name, points)

    def query(self, name: str, ask: models.QueryRequest) -> QueryResponse:
        legs: Any = ask.prefetch
        return self.local.query_points(
            name, query=ask.query, using=ask.using, prefetch=[_exact(leg) for leg in legs] if legs else None,
            query_filter=ask.filter, search_params=_idf_alone(ask.params), limit=ask.limit or 10,
            with_payload=True if ask.with_payload is None else ask.with_payload, with_vectors=ask.with_vector or False,
        )  # fmt: skip


DONE = {"operation_id": 1, "status": "completed"}


def _exact(leg: models.Prefetch) -> models.Prefetch:
    return leg.model_copy(update={"params": _idf_alone(leg.params)})


def _idf_alone(params: models.SearchParams | None) -> models.SearchParams | None:
    """The local mode is exact, and warns of parameters for anything else."""
    return models.SearchParams(idf=params.idf) if params and params.idf else None


def _plain(result: Any) -> Any:
    if isinstance(result, list):
        return [_plain(one) for one in result]
    if isinstance(result, dict):
        return {key: _plain(value) for key, value in result.items()}
    return result.model_dump(mode="json") if hasattr(result, "model_dump") else result


@contextmanager
def serving(certificate: str = "", key: str = "") -> Iterator[tuple[FakeQdrant, str]]:
    """The recorder and its URL; over TLS where a certificate is given."""
    fake = FakeQdrant()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            kind = self.headers.get("Content-Type") or ""
            body: Any
            if kind.startswith("multipart/"):
                [part] = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw).get_payload()
                body = parse_qs(query) | {"file": part.get_payload(decode=True)}  # type: ignore[union-attr]
            else:
                body = json.loads(raw) if raw else None
            with lock:
                if path != "/":  # which a thread of the client's asks for its version, at a time of its own
                    fake.seen.append((self.command, path, body, dict(self.headers)))
                fake.asked.append((path, parse_qs(query)))
                try:
                    result = fake.answer(self.command, path, body)
                    status, reply = (
                        200,
                        result if path == "/" else {"result": _plain(result), "status": "ok", "time": 0},
                    )
                except Exception as error:
                    status, reply = 400, {"status": {"error": f"{type(error).__name__}: {error}"}, "time": 0}
            snapshot = isinstance(reply, dict) and isinstance(reply.get("result"), bytes)
            sent = reply["result"] if snapshot else json.dumps(reply).encode()  # type: ignore[index]
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream" if snapshot else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = handle_any

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # seconds until it stops
    thread.start()
    try:
        yield fake, f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        fake.local.close()
