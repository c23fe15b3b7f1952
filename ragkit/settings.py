"""Every setting of the command line, in one object read from ``RAGKIT_*`` variables (and ``.env``).

Library code takes arguments; only the command line and the apps read these. A group is read field by
field: ``RAGKIT_QDRANT_API_KEY`` is ``qdrant.api_key``, ``RAGKIT_RERANK_URL`` is ``rerank.url``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ragkit.limits import Limits

Quantization = Literal["none", "scalar", "binary", "turbo"]


@dataclass(frozen=True, slots=True)
class QdrantSettings:
    """How a collection is reached, laid out and searched.

    A layout is chosen when the collection is made; how it is searched may change at any time. The embedded
    engine takes everything but the server's and the cluster's; the client's local mode is exact and takes
    nothing. What a place cannot honour is refused there, not ignored.
    """

    # reaching a server
    api_key: SecretStr | None = None
    ca: str = ""  # file of the certificate authority that signed an https:// server's certificate, if it is your own
    grpc: bool = False  # requests over gRPC: less to serialise, but a second port to open
    grpc_port: int = 6334
    timeout: int = 60  # seconds a request

    # laying it out over a cluster
    shards: int | None = None  # parts a collection is cut into; no more nodes than that share it
    replicas: int | None = None  # copies of each shard: disk and writes for surviving a node
    write_consistency: int | None = None  # replicas that must confirm a write: more wait longer, and for each other
    read_consistency: str = ""  # majority, quorum, all or a number: replicas a search asks and must agree; "" for one
    tiers: bool = False  # tenants share one shard on one node, big ones are promoted to their own: plan for its size

    # disk and memory
    quantization: Quantization = "none"  # scalar: a quarter; turbo: an eighth at 4 bits; binary: a thirty-second
    bits: float = 4  # of a value under turbo: 1, 1.5, 2, 4 or 8; fewer lose recall
    vectors_on_disk: bool = False  # originals read from disk when asked for: memory against rescoring time
    graph_on_disk: bool = False  # the HNSW graph: memory against every search's time
    sparse_on_disk: bool = False
    payload_on_disk: bool = True  # texts and metadata; their indexes stay in memory
    m: int = 16  # edges a point of the HNSW graph: memory and building time for recall
    ef_construct: int = 100  # candidates while building: building time for recall

    # searching
    rescore: bool = True  # the best by quantised vectors are scored again by the originals
    oversampling: float = 2.0  # how many times k are scored again
    ef: int | None = None  # candidates while searching: time for recall; the engine's default is ef_construct

    # guarding and filtering
    strict: bool = False  # a server refuses what could stall it: filters without index, huge limits and batches
    index: str = ""  # metadata that filters name, such as "author, year:integer"; else of type keyword

    def __post_init__(self) -> None:
        wrong = {
            "quantization": self.quantization not in ("none", "scalar", "binary", "turbo")
            and "use none, scalar, binary or turbo",
            "bits": self.bits not in (1, 1.5, 2, 4, 8) and "TurboQuant has 1, 1.5, 2, 4 and 8",
            "oversampling": self.oversampling < 1 and "fewer than k cannot be scored again: use 1 or more",
            "write_consistency": (self.write_consistency or 1) > (self.replicas or self.write_consistency or 1)
            and f"there are only {self.replicas} replicas to confirm a write",
            "read_consistency": self.read_consistency not in ("", "majority", "quorum", "all")
            and not (self.read_consistency.isdecimal() and int(self.read_consistency) > 0)
            and "use majority, quorum, all, or how many replicas",
            "shards": self.tiers
            and self.shards is not None
            and "under tiers, the tenants that share have one shard, and each promoted one has one: leave it out",
        }
        for name, advice in wrong.items():
            if advice:
                raise ValueError(f"{name} is {getattr(self, name)!r}: {advice}")


@dataclass(frozen=True, slots=True)
class RerankSettings:
    """What reads each hit beside the query again: an endpoint (``url``), or a cross-encoder here (``model`` alone)."""

    url: str = ""  # the whole address, for example http://localhost:8080/rerank
    style: Literal["jina", "openai", "tei"] = "jina"  # who is spoken to; "openai": vLLM, llama.cpp, LiteLLM
    model: str = ""  # the endpoint's name for it; without a url, a folder or Hub id for sentence-transformers
    api_key: SecretStr | None = None
    depth: int = 50  # hits that are read again: time for recall
    batch: int = 32  # texts a request; TEI's own limit is 32
    timeout: float = 60.0  # seconds a request


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """The chat model that words answers; none: sentences of the corpus, word for word."""

    model: str = ""  # as its server calls it
    url: str = ""  # of any OpenAI-compatible server, such as http://127.0.0.1:8080/v1; "" for api.openai.com
    api_key: SecretStr | None = None
    max_tokens: int = 1024  # of an answer, and of what the model thinks before it


@dataclass(frozen=True, slots=True)
class AppSettings:
    """Who may use ``ragkit app``, and what its visitors may cost."""

    auth: SecretStr | None = None  # user:password, asked of every visitor
    open: bool = False  # no login, although it listens beyond loopback: something in front of it asks
    read_only: bool = False  # documents can be read and asked, not added, deleted or re-indexed
    uploads: str = ""  # folder that keeps one app's uploaded files (tenants' apart); "" for `uploads` beside the store
    upload_bytes: int = 20_000_000  # of one file
    uploads_bytes: int = 500_000_000  # of all files that are kept
    visitors: int = 64  # requests that may wait; beyond it they are told to come back


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix="RAGKIT_",
        env_file=".env",
        extra="ignore",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        hide_input_in_errors=True,  # an input can be a secret
    )

    model: str = "mini"  # "mini", "mini-base", a model folder, a Hub id, or the URL of an embeddings server
    int8: bool = False  # its matrix products in 8 bits, on a CPU: faster, embeddings of cosine 0.998 to float32's
    dimensions: int | None = None  # of an embedding that is stored, where fewer than the model's; of a model here
    embedder_api_key: SecretStr | None = None  # of the server that `model` or `ragkit doctor` names
    embedder_name: str = ""  # the model's name there, where it serves several
    embedder_folder: str = ""  # an export of the served model: fingerprint, tokenizer and reference vectors
    serve_api_keys: SecretStr | None = None  # of `ragkit serve`: keys with commas between them
    store: str = str(Path(platformdirs.user_data_dir("ragkit")) / "store")  # a folder, or the URL of a Qdrant server
    tenant: str | None = None  # whose part of a shared corpus this is
    qdrant: QdrantSettings = QdrantSettings()
    rerank: RerankSettings = RerankSettings()
    llm: LlmSettings = LlmSettings()
    app: AppSettings = AppSettings()
    cache: Path = Path(platformdirs.user_cache_dir("ragkit"))  # the unpacked base weights of "mini"
    passage_tokens: int = 200  # longest passage, in the encoder's tokens
    parser: Literal["light", "docling"] = "light"  # of pdf, docx, pptx, html; docling needs the extra of that name
    limits: Limits = Limits()  # what one file may cost: RAGKIT_LIMITS_PAGES is limits.pages

    @field_validator("tenant")
    @classmethod
    def _blank_is_nobody(cls, tenant: str | None) -> str | None:
        return tenant if tenant and tenant.strip() else None
