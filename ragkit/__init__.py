"""ragkit: retrieval-augmented generation in any language on an instruction-tuned embedder.

Layers, lower first; each imports only those above it in this list:

    types, task, settings    records, instructions, RAGKIT_* variables      (light)
    encoder                  texts -> embeddings: prompts, BOS ... EOS, pooling  (torch)
    embedding                TaskEmbedding, the encoder as a LlamaIndex embedding
    sparse, edge, store      BM25 vectors; the embedded engine; one collection per corpus and encoder
    ingest, retrieve         files -> passages -> store; dense, sparse and hybrid search
    answer                   hits -> an answer with checked citations
    cli                      ragkit ingest | search | ask

Importing ``ragkit`` loads neither torch nor LlamaIndex: import the module you need.
"""

from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Answer, Citation, Document, Hit, Passage

__version__ = "0.1.0"

__all__ = ["DEFAULT_TASK", "TASKS", "Answer", "Citation", "Document", "Hit", "Passage", "Task", "__version__"]
