"""Qdrant's REST interface over the client's local mode, on a local port: what QdrantClient would send to a
server is read back into the client's own models, recorded, and carried out. It proves that requests have the
shape the interface documents and mean what they should; it is no server and proves nothing of one."""

from __future__ import annotations

import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

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
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert found, path
        name, rest = found[1], found[2] or ""
        local: Any = self.local
        match method, rest:
            case "GET", "/exists":
                return {"exists": local.collection_exists(name)}
            case "GET", "":
                info = local.get_collection(name)
                vectors: Any = self.created[name].vectors
                info.config.params.vectors = vectors
                return info
            case "PATCH", "":
                asked = models.UpdateCollection(**body)
                for vector, change in (asked.vectors or {}).items():
                    made: Any = self.created[name].vectors
                    made[vector].hnsw_config = made[vector].hnsw_config.model_copy(
                        update=change.hnsw_config.model_dump(exclude_none=True)
                    )
                return True
            case "DELETE", "":
                return local.delete_collection(name)
            case "PUT", "":
                made = self.created[name] = models.CreateCollection(**body)
                kept: Any = made.sparse_vectors
                return local.create_collection(
                    name, vectors_config=made.vectors, sparse_vectors_config=kept, metadata=made.metadata
                )
            case "PUT", "/index":
                index = models.CreateFieldIndex(**body)
                self.indexed[index.field_name] = index.field_schema
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
            body = json.loads(raw) if raw else None
            path = self.path.partition("?")[0]
            with lock:
                fake.seen.append((self.command, path, body, dict(self.headers)))
                try:
                    result = fake.answer(self.command, path, body)
                    status, reply = (
                        200,
                        result if path == "/" else {"result": _plain(result), "status": "ok", "time": 0},
                    )
                except Exception as error:
                    status, reply = 400, {"status": {"error": f"{type(error).__name__}: {error}"}, "time": 0}
            sent = json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
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
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield fake, f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        fake.local.close()
