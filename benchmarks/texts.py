"""What a passage's text becomes in the store: the planner's constants of payload, terms and indexed fields.

    python benchmarks/texts.py

Over the demo corpus, with mini's tokenizer; ragkit/constants.yaml holds what it prints.
"""

from __future__ import annotations

import json
from pathlib import Path

from stores import passages_of
from transformers import AutoTokenizer

from ragkit import mini, nodes, qdrant
from ragkit.settings import QdrantSettings
from ragkit.sparse import sparse_passage

TEXTS = Path(__file__).parent.parent / "apps" / "corpus" / "mul" / "corpus.jsonl"


def main() -> None:
    texts = [json.loads(line) for line in TEXTS.open(encoding="utf-8")]
    passages = passages_of(texts, 0, len(texts))
    tokenizer = AutoTokenizer.from_pretrained(mini.base_folder())
    tokens = sum(len(tokenizer.encode(p.text, add_special_tokens=False)) for p in passages)
    own = sum(len(p.text.encode()) for p in passages)
    payloads = [nodes.to_payload(p) for p in passages]
    whole = sum(len(json.dumps(payload, ensure_ascii=False).encode()) for payload in payloads)
    terms = sum(len(sparse_passage(p.text, p.lang).indices) for p in passages)
    fields = qdrant.indexes(QdrantSettings(), tenants=False)
    indexed = sum(len(str(payload[f]).encode()) for payload in payloads for f in fields if f in payload)
    n = len(passages)
    print(f"{n} passages, {tokens / n:.0f} tokens each")
    print(f"payload_overhead {(whole - own) / n:.0f} bytes\ntext_bytes {own / tokens:.2f} a token")
    print(f"terms {terms / tokens:.2f} a token\nindexed_bytes {indexed / n:.0f}")


if __name__ == "__main__":
    main()
