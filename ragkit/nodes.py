"""A Passage as the payload that LlamaIndex's QdrantVectorStore reads and writes.

The payload is a TextNode as LlamaIndex stores it, whose metadata are our Passage fields: they lie flat
beside the node, where Qdrant can filter on them, and none of them enters the text that is embedded
(LlamaIndex would put metadata in front of it; training never saw that). LlamaIndex takes over a second
to import, so reading a payload does without it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from ragkit.language import detect_language
from ragkit.sparse import SparseVector, sparse_passage, sparse_query, well_formed
from ragkit.types import RESERVED, UNDETERMINED, Passage, canonical_date

if TYPE_CHECKING:
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.qdrant import QdrantVectorStore

_Encode = Callable[[str, str], SparseVector]  # text, language
_SHOWN = ("title", "lang", "date")  # what an LLM is shown beside the text; paths and hashes would only distract it
_OURS = tuple(f.name for f in fields(Passage) if f.name not in ("text", "id", "metadata"))


def to_node(passage: Passage) -> TextNode:
    """Its ``ref_doc_id`` is ``<path>#<document>``, so LlamaIndex can delete by document; of a node that LlamaIndex
    added, what it was. Raises ValueError for metadata under a name that the payload needs for itself."""
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    if taken := sorted(RESERVED & passage.metadata.keys()):
        raise ValueError(f"metadata {', '.join(taken)} of {passage.id}: the payload needs that name, choose another")
    flat = {name: _clean(getattr(passage, name)) for name in _OURS}
    flat |= {well_formed(name): _clean(value) for name, value in passage.metadata.items()}
    if not passage.date:
        del flat["date"]  # an empty text is no date to the engine
    ours = passage.document_hash or not passage.document  # else LlamaIndex added it, under its own id
    source = RelatedNodeInfo(node_id=f"{flat['path']}#{flat['document']}" if ours else passage.document)
    return TextNode(
        id_=passage.id,
        text=well_formed(passage.text),
        metadata=flat,
        excluded_embed_metadata_keys=list(flat),
        excluded_llm_metadata_keys=[name for name in flat if name not in _SHOWN],
        relationships={NodeRelationship.SOURCE: source},
    )


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    return [_clean(one) for one in value] if isinstance(value, list | tuple) else value


def to_payload(passage: Passage) -> dict[str, Any]:
    """Raises ValueError for a date that is none, and as :func:`to_node`."""
    from llama_index.core.vector_stores.utils import node_to_metadata_dict

    date = canonical_date(passage.date) if passage.date else ""
    return node_to_metadata_dict(to_node(replace(passage, date=date)))


def from_payload(passage_id: str, payload: dict[str, Any] | None) -> Passage:
    """Also of a node that LlamaIndex added by itself, whose metadata need not have our fields."""
    payload = payload or {}
    node = json.loads(payload.get("_node_content", "{}"))
    return Passage(
        id=passage_id,
        text=node.get("text") or "",
        lang=payload.get("lang") or UNDETERMINED,
        document=payload.get("document") or _source(payload),
        path=payload.get("path") or payload.get("file_path") or "",
        ordinal=payload.get("ordinal") or 0,
        document_hash=payload.get("document_hash") or "",
        document_passages=payload.get("document_passages") or 0,
        title=payload.get("title") or "",
        page=payload.get("page") or 0,
        heading=payload.get("heading") or "",
        date=payload.get("date") or "",
        metadata={name: value for name, value in (node.get("metadata") or {}).items() if name not in RESERVED},
    )


def _source(payload: dict[str, Any]) -> str:
    """Of a node of LlamaIndex's; where it has none, "None" is stored."""
    source = payload.get("ref_doc_id")
    return "" if source in (None, "None") else str(source)


def vector_store(client: Any, collection: str, dense_name: str, sparse_name: str) -> QdrantVectorStore:
    """LlamaIndex's own class over an open client: dense, sparse and hybrid queries, filters, add, delete.

    Hybrid there is LlamaIndex's (scores of the two rankings scaled and added), not ours.
    """
    from llama_index.vector_stores.qdrant import QdrantVectorStore

    def batch(
        encode: Callable[[str, str], SparseVector], texts: list[str]
    ) -> tuple[list[list[int]], list[list[float]]]:
        vectors = [encode(text, detect_language(text)) for text in texts]
        return [list(v.indices) for v in vectors], [list(v.values) for v in vectors]

    return QdrantVectorStore(
        collection_name=collection,
        client=client,
        aclient=cast(Any, _InThreads(client)),
        enable_hybrid=True,
        dense_vector_name=dense_name,
        sparse_vector_name=sparse_name,
        sparse_doc_fn=partial(batch, sparse_passage),
        sparse_query_fn=partial(batch, sparse_query),
    )


class _InThreads:
    """The same client for LlamaIndex's async methods: one client only, since a second one could not open
    the folder and would not see a local store's data."""

    def __init__(self, client: Any) -> None:
        self._sync = client

    def __getattr__(self, name: str) -> Any:
        return partial(asyncio.to_thread, getattr(self._sync, name))
