"""ragkit: retrieval-augmented generation in any language on an instruction-tuned embedder.

Layers, lower first; each imports only those above it in this list:

    types, task, settings        records, instructions, RAGKIT_* variables
    language, sparse, metrics    which language a text is in; BM25 vectors; ndcg, recall, mrr
    endpoint, pace, llm          chat with a model behind any OpenAI-compatible or Azure endpoint
    split, readers               text -> sentences -> passages; files -> documents
    mini, encoder                the packaged model; texts -> embeddings: BOS ... EOS, pooling (torch)
    embedding                    TaskEmbedding, the encoder as a LlamaIndex embedding
    owner, edge, nodes, store    the embedded engine and its lock; one collection per corpus and encoder
    ingest, retrieve, answer     files -> store; dense, sparse, hybrid search; hits -> the sentence that answers
    markers, grounded            hits -> an answer worded by a chat model, its citations checked
    cli                          ragkit ingest | search | ask

Importing ``ragkit`` loads neither torch nor LlamaIndex: import the module you need.
"""

from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Answer, Citation, Document, Hit, Passage

__version__ = "0.1.0"

__all__ = ["DEFAULT_TASK", "TASKS", "Answer", "Citation", "Document", "Hit", "Passage", "Task", "__version__"]
