"""trainer: make the embedder. Sources of (query, positive, negatives) -> LoRA adapter -> scores -> other formats.

synthesise  ask a language model (request_plan, slots, prompts, languages, answers, batch, report.py), and keep what is
            sound (parse, checks, identify, refusals, words, dedup, contamination, derive)
config      a recipe: every knob of a run; recipes/ holds those that ship
data        training examples, sources with instruction and ratio; public: the 14 public sets, streamed
mine        hard negatives by a model's ranking
plan        the batches of a run, on disk, and the masks of known answers
loss        InfoNCE, Matryoshka and distillation, pure functions; teacher: another embedder's view of a batch
embedder    the model under training; rows dealt to chunks and devices
loop        the step, on one CPU, one GPU or many (transformers.Trainer); train: a run from recipe to model folder
checkpoints sealed, swept, averaged; memory: what a process took, and how it stays flat
axes        the directions along which a model's embeddings are shortened
estimate    what a run will do and take, before it is paid for
evaluate    ndcg@10, recall@100, mrr@10 over local sets in BEIR layout
harness     mteb: its results, resumed, with every query's scores beside; suites and mteb_tasks (local data) are what it
            runs, mteb_models (an encoder), mteb_store (the deployed store) and peers what it runs on; instructions: the
            sentence of every task
overlap     what of the training data stands in evaluation sets
passkey     is a long text found by one sentence in it? passkey_report: its table and plot
report_cli  mteb's result files (scores) as the paper's tables (published, grids, suite_means, comparisons,
            significance, score_tables, tables), pictures (charts) and a page (evaluation_report, page)
export      to safetensors, sentence-transformers, ONNX and GGUF, each verified (layout, gguf_writer, runtimes,
            references, model_card)
cli         trainer synthesise | mine | train | average | axes | evaluate | contamination | passkey | report |
            export (evaluate_cli, report_cli, synthesise_cli)
"""
