"""What a server would be sent, read by the client's own models; and the same layouts in the embedded engine,
which carries them out. No Qdrant server was at hand: see README."""

from __future__ import annotations

import logging
import subprocess
import uuid
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from conftest import HashEncoder
from fake_qdrant import serving
from pydantic import SecretStr
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from ragkit import filters, qdrant
from ragkit.settings import QdrantSettings, Settings
from ragkit.sparse import sparse_query
from ragkit.store import StoreError, open_store
from ragkit.types import Passage

SECRET = "s3cr3t-ቁልፍ-never-shown".encode("ascii", "ignore").decode()
CLUSTER = QdrantSettings(
    shards=6, replicas=2, write_consistency=2, quantization="turbo", bits=2, oversampling=3.0, ef=200,
    vectors_on_disk=True, graph_on_disk=True, sparse_on_disk=True, m=32, ef_construct=256, strict=True,
    index="author, year:integer",
)  # fmt: skip


def passages(count: int) -> list[Passage]:
    return [Passage(str(uuid.UUID(int=n)), f"boat {n}", "en", "d", "/d", n, "h", count) for n in range(count)]


def test_a_cluster_s_layout_reaches_the_server_whole(encoder: HashEncoder) -> None:
    with serving() as (fake, url), open_store(url, "town", encoder, qdrant_settings=CLUSTER, tenant="ሀ") as store:
        made = fake.created[store.collection]
        assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (6, 2, 2)
        assert made.on_disk_payload is True
        vectors: Any = made.vectors
        dense = vectors["dense"]
        assert (dense.size, dense.distance, dense.on_disk) == (64, models.Distance.COSINE, True)
        graph = models.HnswConfigDiff(m=0, payload_m=32, ef_construct=256, on_disk=True)  # a graph for each tenant
        assert dense.hnsw_config == graph
        assert dense.quantization_config == models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(bits=models.TurboQuantBitSize.BITS2, always_ram=True)
        )
        assert made.sparse_vectors["sparse"].index.on_disk is True
        assert made.metadata["tenants"] is True
        strict = made.strict_mode_config
        assert (strict.enabled, strict.unindexed_filtering_retrieve, strict.search_max_oversampling) == (True, False, 4)
        assert set(fake.indexed) == {
            "tenant", "lang", "path", "document", "doc_id", "ordinal", "date", "author", "year"
        }  # fmt: skip
        assert fake.indexed["tenant"].is_tenant and fake.indexed["lang"].prefix
        assert fake.indexed["year"] == models.PayloadSchemaType.INTEGER


def test_a_hybrid_search_is_one_request_fused_by_the_server(encoder: HashEncoder) -> None:
    with serving() as (fake, url), open_store(url, "town", encoder, qdrant_settings=CLUSTER) as store:
        store.upsert(passages(3), encoder.encode_passages(["boat"] * 3))
        row = encoder.encode_passages(["boat"])[0]
        store.search(dense=row, sparse=sparse_query("boat", "en"), k=2, lang="en", sparse_lang="en", weights=(1, 2))
        [body] = fake.bodies("/points/query")
        asked = models.QueryRequest(**body)
        assert asked.query == models.RrfQuery(rrf=models.Rrf(k=60, weights=[1, 2]))
        dense, sparse = asked.prefetch
        assert dense.params == models.SearchParams(
            hnsw_ef=200, quantization=models.QuantizationSearchParams(rescore=True, oversampling=3.0)
        )
        assert isinstance(sparse.params.idf, models.IdfCorpusParams)
        assert dense.filter == sparse.filter and "lang" in str(dense.filter)
        store.search(dense=row, exact=True)
        params = models.QueryRequest(**fake.bodies("/points/query")[-1]).params
        assert params.exact and params.quantization.ignore


def test_every_filter_a_server_is_asked_for_has_an_index(encoder: HashEncoder) -> None:
    """Strict mode would refuse the others. Every request of a day's work is looked through."""
    from ragkit.retrieve import Retriever, expand
    from ragkit.types import Where

    with serving() as (fake, url), open_store(url, "town", encoder, qdrant_settings=CLUSTER, tenant="ሀ") as store:
        store.upsert(passages(3), encoder.encode_passages(["boat"] * 3))
        where = Where("/d", "2026-01-01", "2026-12-31", {"author": "ada", "year": 2026})
        for mode in ("dense", "sparse", "hybrid"):
            Retriever(store, encoder).search("the boat", mode=mode, where=where, lang="en")
        expand(store, store.search(dense=encoder.encode_passages(["boat"])[0]), 1)
        list(store.states("/d"))
        store.documents(["d"])
        store.languages()
        store.vector_store.delete("/d#d")
        store.delete([str(uuid.UUID(int=1))])
        used: set[str] = set()

        def look(part: Any) -> None:
            if isinstance(part, dict):
                if "key" in part:
                    used.add(part["key"])
                for inner in part.values():
                    look(inner)
            elif isinstance(part, list):
                for inner in part:
                    look(inner)

        for _, path, body, _ in fake.seen:
            if "/points" in path or "/facet" in path:
                look(body)
        assert used == {"tenant", "lang", "path", "document", "doc_id", "ordinal", "date", "author", "year"}
        assert used <= set(fake.indexed)


def test_the_key_is_sent_and_never_shown(
    encoder: HashEncoder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    keyed = QdrantSettings(api_key=SecretStr(SECRET))
    shown = [repr(keyed), str(keyed)]
    monkeypatch.setenv("RAGKIT_QDRANT_API_KEY", SECRET)
    monkeypatch.setenv("RAGKIT_RERANK_API_KEY", SECRET)
    shown += [repr(Settings()), str(Settings().model_dump()), Settings().model_dump_json()]
    monkeypatch.setenv("RAGKIT_QDRANT_BITS", "3")
    with pytest.raises(ValueError, match=r"1, 1.5, 2, 4 and 8") as wrong:
        Settings()
    shown.append(str(wrong.value))
    with warnings.catch_warnings(record=True) as said, serving() as (fake, url):
        warnings.simplefilter("always")
        with open_store(url, "town", encoder, qdrant_settings=keyed) as store:
            shown += [repr(store), str(vars(store)), str(store.vector_store.to_dict())]
        assert all(headers.get("api-key") == SECRET for _, _, _, headers in fake.seen)
        assert any("insecure connection" in str(w.message) for w in said)  # a key in clear is told
        fake.answer = None  # type: ignore[assignment]  # every request fails from here
        with pytest.raises(StoreError, match=r" refused \(") as refused:
            open_store(url, "town", encoder, qdrant_settings=keyed)
        shown.append(str(refused.value))
    with pytest.raises(StoreError) as absent:
        open_store("http://127.0.0.1:9", "town", encoder, qdrant_settings=keyed)
    shown += [str(absent.value), caplog.text, *(str(w.message) for w in said)]
    assert not [text for text in shown if SECRET in text]


def test_whatever_a_server_does_not_do_is_told_in_a_line(encoder: HashEncoder) -> None:
    with serving() as (fake, url), open_store(url, "town", encoder) as store:
        fake.answer = None  # type: ignore[assignment]  # as with a key that may only read
        for refused in (
            lambda: store.upsert(passages(1), encoder.encode_passages(["boat"])),
            lambda: store.delete([str(uuid.UUID(int=0))]),
            lambda: list(store.states()),
            lambda: store.search(dense=encoder.encode_passages(["boat"])[0]),
        ):
            with pytest.raises(StoreError, match=r"refused \(.*400.*\)$") as told:
                refused()
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("command", ["generations", "generations --prune", "reindex --rollback", "promote a", "backup"])
def test_a_command_without_its_server_says_so(command: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from ragkit.cli import app

    out = ["--out", str(tmp_path)] if command == "backup" else []
    done = CliRunner().invoke(app, [*command.split(), *out, "--corpus", "town", "--store", "http://127.0.0.1:9"])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit)
    assert done.stderr.startswith("ragkit: the Qdrant server at http://127.0.0.1:9 cannot be asked")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    files = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-out", files[0], "-keyout", files[1]]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl here to make a certificate with")
    return files


def test_tls_is_checked_against_your_own_authority(certificate: tuple[str, str], encoder: HashEncoder) -> None:
    with serving(*certificate) as (fake, url):
        with pytest.raises(StoreError, match=r"(?i)certificate"):
            open_store(url, "town", encoder)
        assert fake.seen == []
        trusting = QdrantSettings(ca=certificate[0], api_key=SecretStr(SECRET))
        with open_store(url, "town", encoder, qdrant_settings=trusting) as store:
            store.upsert(passages(2), encoder.encode_passages(["boat"] * 2))
            assert store.count() == 2


def test_grpc_carries_the_key_and_the_same_collection() -> None:
    """A real gRPC server, that notes what is asked and answers "unimplemented" to all of it."""
    from concurrent.futures import ThreadPoolExecutor

    calls: list[tuple[str, dict[str, Any]]] = []

    class Note(grpc.GenericRpcHandler):
        def service(self, handler_call_details: Any) -> None:
            calls.append((handler_call_details.method, dict(handler_call_details.invocation_metadata)))

    server = grpc.server(ThreadPoolExecutor(2), handlers=[Note()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with serving() as (_, url):
            over = QdrantSettings(grpc=True, grpc_port=port, api_key=SecretStr(SECRET))
            with pytest.raises(StoreError, match=r" refused \(") as refused:
                open_store(url, "town", HashEncoder(), qdrant_settings=over)
        assert SECRET not in str(refused.value)
    finally:
        server.stop(None)
    assert calls[0][0] == "/qdrant.Collections/List"
    assert calls[0][1]["api-key"] == SECRET


def test_layouts_and_searches_translate_to_grpc() -> None:
    """The client turns them into protocol buffers, and back without loss."""
    from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

    for kind in ("scalar", "binary", "turbo"):
        settings = QdrantSettings(quantization=kind, ef=77)
        vectors = qdrant.layout(8, settings, server=True, tenants=True)["vectors_config"]["dense"]
        back = GrpcToRest.convert_vector_params(RestToGrpc.convert_vector_params(vectors))
        if kind == "scalar":  # the quantile travels in single precision
            back.quantization_config.scalar.quantile = round(back.quantization_config.scalar.quantile, 6)
        assert back == vectors
        params = qdrant.search_params(settings, quantized=True)
        assert params is not None
        there = RestToGrpc.convert_search_params(params)
        assert (there.hnsw_ef, there.quantization.oversampling) == (77, 2.0)


# ---------------------------------------------------------------------- the embedded engine carries it out


@pytest.mark.parametrize("kind", ["none", "scalar", "binary", "turbo"])
@pytest.mark.parametrize("tenant", [None, "ሀ"])
def test_the_embedded_engine_quantises_and_rescores(tmp_path: Path, kind: Any, tenant: str | None) -> None:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    encoder, rng = HashEncoder(), np.random.default_rng(0)
    rows = rng.normal(size=(1200, 64)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    settings = QdrantSettings(
        quantization=kind, oversampling=4.0, vectors_on_disk=True, graph_on_disk=True, sparse_on_disk=True, m=8
    )
    with open_store(tmp_path, "town", encoder, tenant=tenant, qdrant_settings=settings) as store:
        store.upsert(passages(1200), rows)
        store.optimize()
    with open_store(tmp_path, "town", encoder, tenant=tenant, qdrant_settings=settings, create=False) as store:
        assert store._quantized == (kind != "none")
        recall = []
        for row in rows[:30]:
            truth = {str(uuid.UUID(int=int(n))) for n in np.argsort(-(rows @ row))[:10]}
            exact = {h.passage.id for h in store.search(dense=row, k=10, exact=True)}
            assert exact == truth
            found = store.search(dense=row, k=10)
            assert found[0].score == pytest.approx(1, abs=1e-5)  # rescored by the originals
            recall.append(len(truth & {h.passage.id for h in found}) / 10)
    assert np.mean(recall) > (0.4 if kind == "binary" else 0.9)  # one bit a value, of random rows


def test_an_existing_corpus_keeps_its_quantization_and_says_so(
    tmp_path: Path, encoder: HashEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    open_store(tmp_path, "town", encoder).close()
    with open_store(tmp_path, "town", encoder, qdrant_settings=QdrantSettings(quantization="scalar")) as store:
        assert not store._quantized
    assert "keeps the quantization it was made with, none, not scalar" in caplog.text


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"quantization": "ternary"}, "use none, scalar, binary or turbo"),
        ({"bits": 3}, "1, 1.5, 2, 4 and 8"),
        ({"oversampling": 0.5}, "use 1 or more"),
        ({"replicas": 1, "write_consistency": 2}, "only 1 replicas"),
    ],
)
def test_knobs_that_cannot_be_are_refused(knobs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        QdrantSettings(**knobs)


def test_what_a_place_cannot_honour_is_refused(tmp_path: Path, encoder: HashEncoder) -> None:
    with pytest.raises(ValueError, match=r"shards, strict: not in a store at .*URL of a Qdrant server"):
        open_store(tmp_path, "town", encoder, qdrant_settings=QdrantSettings(shards=2, strict=True))
    with pytest.raises(ValueError, match="quantization: not in a store at :memory:"):
        open_store(":memory:", "town", encoder, qdrant_settings=QdrantSettings(quantization="scalar"))
    with pytest.raises(ValueError, match="FIELD:TYPE with one of keyword"):
        qdrant.indexes(QdrantSettings(index="year:year"), tenants=False)
    with pytest.raises(ValueError, match="'lang' is indexed anyway"):
        qdrant.indexes(QdrantSettings(index="lang"), tenants=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["embedded", "rest"])
def test_indexes_of_any_name_are_those_that_filters_ask_for(place: str, encoder: HashEncoder, tmp_path: Path) -> None:
    settings = QdrantSettings(index="ग्रन्थ, ผู้เขียน, größe:integer, a.b")
    if place == "embedded":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge has no wheel here")
    with serving() as (fake, url):
        at = url if place == "rest" else str(tmp_path)
        for _ in range(2):  # made, and opened again
            with open_store(at, "town", encoder, qdrant_settings=settings) as store:
                made = len(fake.bodies("/index"))
                told = store.client.get_collection(store.collection).payload_schema
                assert len(told) == 10  # six of ragkit's own
                asked = {filters.value_is(name, 1).key for name in ("ग्रन्थ", "ผู้เขียน", "a.b")}
                assert asked <= set(told)
        assert made == (10 if place == "rest" else 0)


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "QDRANT_QUANTIZATION": "turbo", "QDRANT_BITS": "1.5", "QDRANT_VECTORS_ON_DISK": "1", "QDRANT_GRPC": "true",
        "RERANK_URL": "http://localhost/rerank", "RERANK_STYLE": "tei", "PASSAGE_TOKENS": "99", "TENANT": "ሀ",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"RAGKIT_{name}", value)
    settings = Settings()
    assert (settings.qdrant.quantization, settings.qdrant.bits, settings.qdrant.grpc) == ("turbo", 1.5, True)
    assert settings.qdrant.vectors_on_disk
    assert (settings.rerank.url, settings.rerank.style, settings.rerank.depth) == ("http://localhost/rerank", "tei", 50)
    assert (settings.passage_tokens, settings.tenant) == (99, "ሀ")
    for blank in ("", " \t"):
        monkeypatch.setenv("RAGKIT_TENANT", blank)
        assert Settings().tenant is None


@pytest.mark.parametrize(
    ("status", "told", "advice"),
    [
        (401, "Must provide an API key", r"cannot be asked .*: is the API key right"),
        (403, "Write access denied", r"cannot be asked .*: is the API key right, and may it write"),
        (400, 'Index required but not found for "author"', r"refused .*: name the field in RAGKIT_QDRANT_INDEX"),
        (503, "no healthy upstream", r"cannot be asked .*: is it running there"),
        (409, "Collection `town` already exists!", r"refused .*already exists.*\)$"),
    ],
)
def test_a_refusal_blames_what_is_to_blame(status: int, told: str, advice: str) -> None:
    error = UnexpectedResponse(status, told, told.encode(), httpx.Headers())

    def refuse() -> None:
        raise error

    server = qdrant._Server(SimpleNamespace(count=refuse), "http://127.0.0.1:6333")  # type: ignore[arg-type]
    with pytest.raises(StoreError, match=advice):
        server.count()


def test_a_key_with_the_line_break_of_echo_is_sent_without_it(encoder: HashEncoder) -> None:
    """As `echo key | base64` leaves it in a Kubernetes secret; another one is refused and not shown."""
    with serving() as (fake, url):
        open_store(url, "town", encoder, qdrant_settings=QdrantSettings(api_key=SecretStr(f"{SECRET}\n"))).close()
        assert {headers["api-key"] for *_, headers in fake.seen if "api-key" in headers} == {SECRET}
        with pytest.raises(ValueError, match="line breaks or letters that a header cannot carry") as told:
            open_store(url, "town", encoder, qdrant_settings=QdrantSettings(api_key=SecretStr(f"{SECRET}\nx")))
        assert SECRET not in str(told.value)
