"""The README's table of what the paper's run would take: counted, not run. Loads no weights.

    python benchmarks/estimate.py

A batch of ``paper`` with queries of 64 and passages of 256 tokens, and (in brackets) with all texts of 512. The
rates are assumptions: about 40 % of an A100's peak in bfloat16, and about a third of a V100's in float16.
"""

from __future__ import annotations

import dataclasses
import tempfile

from transformers import MistralConfig

from trainer.config import RECIPES, TrainConfig
from trainer.estimate import cost, estimate, meta_model

STEPS = 879  # 1.8 million examples over 2,048


def main() -> None:
    paper = TrainConfig.read(RECIPES / "paper.yaml")
    alone = dataclasses.replace(paper, deepspeed="")
    half = dataclasses.replace(paper, chunk_tokens=paper.chunk_tokens // 2, keep_tokens=paper.keep_tokens // 2)
    with tempfile.TemporaryDirectory() as folder:
        MistralConfig().save_pretrained(folder)  # the defaults are Mistral-7B-v0.1's
        model = cost(meta_model(dataclasses.replace(paper, base=folder)), element=2)
    n = paper.batch_size
    usual, longest = [64] * n + [256] * 2 * n, [512] * 3 * n  # tokens of a batch's rows
    print("| devices | memory a device | a step of 2,048 | 879 steps |\n|---|---|---|---|")
    for config, devices, rate, name in [
        (alone, 1, 125e12, "1 at 125 TFLOP/s"),
        (paper, 8, 125e12, "8 at 125 TFLOP/s, ZeRO-3"),
        (paper, 32, 125e12, "32 at 125 TFLOP/s, ZeRO-3"),
        (half, 32, 40e12, "32 at 40 TFLOP/s (V100), ZeRO-3, half the chunk"),
    ]:
        a, b = (estimate(config, model, [rows], devices=devices, flops=rate, element=2) for rows in (usual, longest))
        print(
            f"| {name} | {a.bytes / 1e9:.0f} GB ({b.bytes / 1e9:.0f} GB) "
            f"| {a.seconds:.0f} s ({b.seconds:.0f} s) "
            f"| {a.seconds * STEPS / 3600:.1f} h ({b.seconds * STEPS / 3600:.1f} h) |"
        )


if __name__ == "__main__":
    main()
