"""ragkit: retrieval-augmented generation in any language on an instruction-tuned embedder.

Layers, lower first; each imports only those above it in this list:

    limits                       what one file may cost
    types, task, settings        records, instructions, RAGKIT_* variables
    language, sparse, metrics    which language a text is in; BM25 vectors; ndcg, recall, mrr
    split                        text -> sentences -> passages
    files, markup, office        what lies below a root; HTML, PDF, docx, pptx, epub -> text, pages, headings
    readers, layout, parsing     a reader per suffix; docling in their place; the child process they run in
    mini, encoder                the packaged model; texts -> embeddings: BOS ... EOS, pooling (torch)
    embedding                    TaskEmbedding, the encoder as a LlamaIndex embedding
    owner, edge, nodes, store    the embedded engine and its lock; one collection per corpus and encoder
    keys                         a set too large for memory
    ingest, retrieve, answer     files -> store; dense, sparse, hybrid search; hits -> a cited answer
    watch                        changes of files -> store, as they happen
    cli                          ragkit ingest | search | ask

Importing ``ragkit`` loads neither torch nor LlamaIndex: import the module you need.
"""

from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Answer, Citation, Document, Hit, Passage

__version__ = "0.1.0"

__all__ = ["DEFAULT_TASK", "TASKS", "Answer", "Citation", "Document", "Hit", "Passage", "Task", "__version__"]
