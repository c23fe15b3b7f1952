"""ragkit: retrieval-augmented generation in any language on an instruction-tuned embedder.

Layers, lower first; each imports only those above it in this list:

    limits                       what one file may cost
    constants, operations        what a plan is counted from, with sources; operations of a forward pass
    page, pictures               parts of a page that is one file; a figure as PNG for light and dark
    types, task, settings        records, instructions, RAGKIT_* variables and knobs
    progress                     how far a long work is
    language, sparse, metrics    which language a text is in; BM25 vectors; ndcg, recall, mrr
    endpoint, pace, llm          chat with a model behind any OpenAI-compatible or Azure endpoint
    split                        text -> sentences -> passages
    files, markup, office        what lies below a root; HTML, PDF, docx, pptx, epub -> text, pages, headings
    records, tables              a record -> a document; rows of parquet and arrow
    readers, layout, parsing     a reader per suffix; docling in their place; the child process they run in
    documents                    files -> documents -> passages, with the ids that every command gives them
    mini, context, lora          the packaged model; RoPE and window; an adapter merged into its base
    forward, int8, encoder       token rows -> embeddings, in one pass; in 8 bits; texts -> token rows (torch)
    around                       what stands around any encoder; embeddings shortened along a model's axes
    client, dialects, remote     the encoder over HTTP: ours, vLLM, TEI, llama.cpp
    references, faults, runtimes texts with their vectors; what faults make of them; exports in their own programs
    embedding                    TaskEmbedding, the encoder as a LlamaIndex embedding
    owner, archive, edge         the embedded engine, its lock, a backup's file
    names                        what corpora and tenants may be called
    filters, tenant, qdrant      what is looked for, whose it is, and how a collection is laid out
    cluster                      a bulk load without the graph; a shard of its own for a big tenant
    generations                  which of a corpus's collections, one for each encoder it had, is the current one
    nodes, store                 a passage as a LlamaIndex node; one collection per corpus and encoder
    rerank                       a second reading of the hits, by an endpoint or a cross-encoder
    keys                         a set too large for memory
    ingest, retrieve, answer     files -> store; dense, sparse, hybrid search; hits -> the sentence that answers
    retriever                    that search as LlamaIndex's retriever
    reindex, live                another embedder for a stored corpus; a retriever exchanged under searches
    backup                       a corpus as one file, and back
    shards, bulk, bulk_ray       a folder of embedded passages; made here; made by a Ray cluster
    load                         that folder -> store, verified
    watch                        changes of files -> store, as they happen
    markers, grounded            hits -> an answer worded by a chat model, its citations checked
    evaluate                     what the deployed store is worth on your own questions
    wire, batching, guard, server  OpenAI's /v1/embeddings with role and task: a request's meaning, queue, gate
    machine, doctor              versions, disk, memory; a server's or export's vectors against the model's
    capacity, search_load        memory, nodes, hours and money of any size; searches as they queue
    forecast                     predictions against measured rows
    plan_report, plan_page       a plan as text, JSON and a page
    commands, cli, cli_operate   ragkit ingest | search | ask; reindex | evaluate | serve | doctor
    cli_keep, cli_plan, cli_bulk  ragkit backup | restore | generations | promote; plan; embed | load

Importing ``ragkit`` loads neither torch nor LlamaIndex: import the module you need.
"""

from ragkit.task import DEFAULT_TASK, TASKS, Task
from ragkit.types import Answer, Citation, Document, Hit, Passage

__version__ = "0.1.0"

__all__ = ["DEFAULT_TASK", "TASKS", "Answer", "Citation", "Document", "Hit", "Passage", "Task", "__version__"]
