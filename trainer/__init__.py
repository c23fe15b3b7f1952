"""trainer: make the embedder. Sources of (query, positive, negatives) -> LoRA adapter -> scores.

synthesise  ask a language model (request_plan, slots, prompts, languages, answers, batch, report) and keep what is
            sound (parse, checks, identify, refusals, words, dedup, contamination, derive)
data        training examples, sources with instruction and ratio, task-homogeneous batches
loss        InfoNCE, a pure function
train       one loop for one CPU, one GPU or many (transformers.Trainer)
evaluate    ndcg@10, recall@100, mrr@10 over local sets in BEIR layout
cli         trainer synthesise | train | evaluate | export
"""
