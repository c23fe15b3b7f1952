"""How fast are texts embedded? Ours beside other programs that run the same weights, in turn, in one run.

    trainer export mini --out mini-export --gguf q8_0 --dtype bfloat16   (float32 where the processor has no bfloat16)
    python benchmarks/encoding.py passages --export mini-export --texts dev/mlqa dev/tydiqa-goldp [--count 500]
    python benchmarks/encoding.py queries  --export mini-export --texts dev/mlqa [--count 1000]
    python benchmarks/encoding.py latency  --export mini-export --texts dev/mlqa [--count 100]

``--texts`` are folders in BEIR's layout; texts are taken evenly from all their files, so that lengths and languages
mix. Every program runs in a process of its own, loads and warms up first, and then takes its turn, five rounds: a
busy minute of the machine falls on all of them. Tokens are those that the model reads, pads left out, the same for
all. The limit is counted: two operations for each parameter of a matrix product and token, at the rate of the
model's own widest product, measured in the same run. Prints a markdown table, and its ratios last; nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ragkit.task import DEFAULT_TASK, TASKS

Run = Callable[[list[str]], Any]  # embeds texts: bare passages, or bare queries
TASK = TASKS[DEFAULT_TASK]
OURS = "ragkit"


def ragkit(export: Path, queries: bool, **knobs: Any) -> Run:
    from ragkit.encoder import LocalEncoder

    encoder = LocalEncoder.load(export, device="cpu", **knobs)
    return (lambda texts: encoder.encode_queries(texts, TASK)) if queries else encoder.encode_passages


def whole_prompts(export: Path, queries: bool) -> Run:
    """Ours, every prompt computed from its first token."""
    from ragkit.encoder import LocalEncoder

    encoder = LocalEncoder.load(export, device="cpu")
    return lambda texts: encoder.encode_rows(encoder.tokenize([TASK.prompt(text) for text in texts]).ids)


def sentence_transformers(export: Path, queries: bool, batch_size: int = 32) -> Run:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(export), device="cpu", local_files_only=True)
    encode = model.encode_query if queries else model.encode_document
    return lambda texts: encode(texts, batch_size=batch_size, show_progress_bar=False)


def onnx(export: Path, queries: bool, quantized: bool = False) -> Run:
    """The exported graph, rows sorted by length, eight a call; in int8 the weights of its products, made here."""
    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

    file = export / "onnx" / "model.onnx"
    if quantized:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        eighths = export / "onnx" / "model-int8.onnx"
        if not eighths.exists():
            quantize_dynamic(
                file, eighths, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"]
            )
        file = eighths
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    tokenizer.enable_truncation(512)
    tokenizer.enable_padding()
    session = InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(texts: list[str]) -> np.ndarray:
        prompts = [TASK.prompt(text) for text in texts] if queries else texts
        order = np.argsort([-len(text) for text in prompts], kind="stable")
        rows = np.empty((len(texts), 0), np.float32)
        for start in range(0, len(order), 8):
            part = order[start : start + 8]
            read = tokenizer.encode_batch([prompts[i] for i in part])
            feed = {
                "input_ids": np.array([row.ids for row in read], np.int64),
                "attention_mask": np.array([row.attention_mask for row in read], np.int64),
            }
            found = np.asarray(session.run(["sentence_embedding"], feed)[0])
            rows = rows if rows.shape[1] else np.empty((len(texts), found.shape[1]), np.float32)
            rows[part] = found
        return rows

    return run


def llama_cpp(export: Path, queries: bool) -> Run:
    from tokenizers import Tokenizer

    xllamacpp: Any = import_module("xllamacpp")  # compiled, without types
    tokenizer = Tokenizer.from_file(str(export / "tokenizer.json"))
    tokenizer.enable_truncation(512)  # it refuses what does not fit
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(export / "model.gguf")
    parameters.embedding = True
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = 3072, 2048, 2048  # 768 for each of four
    parameters.n_parallel = 4
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)

    def run(texts: list[str]) -> np.ndarray:
        prompts = [TASK.prompt(text) for text in texts] if queries else texts
        answer = server.handle_embeddings({"input": [row.ids for row in tokenizer.encode_batch(prompts)]})
        rows = sorted(answer["data"], key=lambda item: item["index"])
        return np.array([row["embedding"] for row in rows], np.float32)

    return run


PROGRAMS: dict[str, Callable[[Path, bool], Run]] = {
    OURS: ragkit,
    "ragkit, layers of transformers": partial(ragkit, trainable=True),
    "ragkit, int8": partial(ragkit, int8=True),
    "ragkit, prompts in whole": whole_prompts,
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, batch 8": lambda export, queries: sentence_transformers(export, queries, 8),
    "sentence-transformers, batch 128": lambda export, queries: sentence_transformers(export, queries, 128),
    "onnxruntime": onnx,
    "onnxruntime, int8": lambda export, queries: onnx(export, queries, True),
    "llama.cpp, Q8_0": llama_cpp,
}


def serve(pipe: Any, program: str, export: Path, queries: bool, one_by_one: bool) -> None:
    """In a process of its own: seconds for each request, a list of texts; the embeddings of the first one too."""
    run = PROGRAMS[program](export, queries)
    first, rows = True, None
    while texts := pipe.recv():
        begun = time.perf_counter()
        if one_by_one:
            seconds: list[float] = []
            for text in texts:
                before = time.perf_counter()
                rows = run([text])
                seconds.append(time.perf_counter() - before)
        else:
            rows = run(texts)
            seconds = [time.perf_counter() - begun]
        pipe.send((seconds, np.asarray(rows) if first else None))
        first = False


class Program:
    def __init__(self, name: str, export: Path, queries: bool, one_by_one: bool) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, name, export, queries, one_by_one), daemon=True)
        self.process.start()
        theirs.close()

    def __call__(self, texts: list[str]) -> tuple[list[float], np.ndarray | None]:
        self.pipe.send(texts)
        return self.pipe.recv()


def read_texts(folders: Sequence[Path], file: str, count: int) -> list[str]:
    """``count`` texts, evenly from all ``file`` below the folders."""
    files = sorted(found for folder in folders for found in folder.rglob(file))
    if not files:
        raise SystemExit(f"no {file} below {', '.join(map(str, folders))}")
    columns = []
    for found in files:
        rows = [json.loads(line) for line in found.read_text("utf-8").splitlines()]
        columns.append([f"{row.get('title') or ''} {row['text']}".strip() for row in rows])
    texts: list[str] = []
    for n in range(max(map(len, columns))):
        texts += [column[n * len(column) // max(map(len, columns))] for column in columns]
    return list(dict.fromkeys(texts))[:count]


def matrix_rate(width: int, inner: int, tokens: int = 1024) -> float:
    """Operations a second of the product that a layer is made of, by PyTorch, in the precision that ours takes."""
    import torch

    from ragkit.encoder import fast_dtype

    dtype = fast_dtype("cpu")
    states, weights = torch.randn(tokens, width).to(dtype), torch.randn(inner, width).to(dtype)
    for _ in range(5):
        torch.nn.functional.linear(states, weights)
    begun, times = time.perf_counter(), 20
    for _ in range(times):
        torch.nn.functional.linear(states, weights)
    return 2 * tokens * width * inner * times / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["passages", "queries", "latency"])
    parser.add_argument("--export", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--programs", nargs="+", choices=list(PROGRAMS), default=None)
    asked = parser.parse_args()
    asked.programs = asked.programs or [name for name in PROGRAMS if asked.what != "passages" or "prompts" not in name]
    queries, one_by_one = asked.what != "passages", asked.what == "latency"
    count = asked.count or {"passages": 500, "queries": 1000, "latency": 100}[asked.what]
    texts = read_texts(asked.texts, "queries.jsonl" if queries else "corpus.jsonl", count)
    tokens = count_tokens(asked.export, texts, queries)
    config = json.loads((asked.export / "config.json").read_text("utf-8"))
    programs = [Program(name, asked.export, queries, one_by_one) for name in asked.programs]
    embeddings = {program.name: program(texts[:32])[1] for program in programs}  # loaded, warm
    seconds: dict[str, list[list[float]]] = {name: [] for name in asked.programs}
    rates: list[float] = []
    for _ in range(asked.rounds):
        rates.append(matrix_rate(config["hidden_size"], config["intermediate_size"]))
        for program in programs:
            seconds[program.name].append(program(texts)[0])
    for program in programs:
        program.pipe.send([])
        program.process.join()
    used = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "sentence-transformers", "onnxruntime", "xllamacpp")
    )
    print(f"{len(texts)} {asked.what}, {tokens:,} tokens; {used}; {platform.processor() or platform.machine()}\n")
    if one_by_one:
        report_latency(seconds)
    else:
        report_rate(seconds, len(texts), tokens, queries)
        limit = statistics.median(rates) / (2 * linear_parameters(config))
        ours = tokens / statistics.median(sum(turn) for turn in seconds[OURS])
        print(
            f"\nlimit: {limit:,.0f} tokens/s ({statistics.median(rates) / 1e9:.0f} GFLOP/s over "
            f"{linear_parameters(config) / 1e6:.1f} M parameters); ours is {ours / limit:.2f} of it"
        )
    report_cosines(embeddings)
    report_ratios(seconds)


def count_tokens(export: Path, texts: list[str], queries: bool) -> int:
    """As the model reads them: prompts, BOS and EOS included."""
    from transformers import AutoTokenizer

    from ragkit.encoder import tokenize

    prompts = [TASK.prompt(text) for text in texts] if queries else texts
    return sum(map(len, tokenize(AutoTokenizer.from_pretrained(str(export)), prompts, 512).ids))


def linear_parameters(config: dict[str, Any]) -> int:
    heads = (config["num_attention_heads"] * 2 + config["num_key_value_heads"] * 2) * config["head_dim"]
    return config["num_hidden_layers"] * config["hidden_size"] * (heads + 3 * config["intermediate_size"])


def report_rate(seconds: dict[str, list[list[float]]], count: int, tokens: int, queries: bool) -> None:
    print("| program | texts/s | tokens/s, median | lowest | highest |\n|---|---|---|---|---|")
    for name, turns in seconds.items():
        taken = [sum(turn) for turn in turns]
        rates = [tokens / max(taken), tokens / min(taken)]
        median = statistics.median(taken)
        print(f"| {name} | {count / median:.1f} | {tokens / median:,.0f} | {rates[0]:,.0f} | {rates[1]:,.0f} |")


def report_latency(seconds: dict[str, list[list[float]]]) -> None:
    print("| program | p50, ms | p95, ms |\n|---|---|---|")
    for name, turns in seconds.items():
        all_of_them = [second * 1000 for turn in turns for second in turn]
        print(f"| {name} | {np.percentile(all_of_them, 50):.1f} | {np.percentile(all_of_them, 95):.1f} |")


def report_cosines(embeddings: dict[str, np.ndarray | None]) -> None:
    """How near the programs' embeddings are to ours: of like length one, or made so here."""
    ours = embeddings[OURS]
    for name, rows in embeddings.items():
        if name != OURS and rows is not None and ours is not None and len(rows) == len(ours):
            cosines = (rows * ours).sum(axis=1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(ours, axis=1)
            print(f"{name}: cosine to ours {cosines.min():.4f} at least, {cosines.mean():.4f} in the mean")


def report_ratios(seconds: dict[str, list[list[float]]]) -> None:
    """Of medians; above one we are faster."""
    ours = statistics.median(second for turn in seconds[OURS] for second in turn)
    told = [
        f"{statistics.median(second for turn in turns for second in turn) / ours:.2f} x {name}"
        for name, turns in seconds.items()
        if name != OURS
    ]
    print(f"\n{OURS}: {', '.join(told)}")


if __name__ == "__main__":
    main()
