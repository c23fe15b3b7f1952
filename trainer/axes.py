"""The principal axes of a model's embeddings: what a short embedding keeps.

The first numbers of an embedding are as good as any others, unless training saw to it (Matryoshka), and that costs
the whole embedding's training. Along its principal axes a space needs no training: they are found in minutes, from a
few passages, for any model (trainer/EXPERIMENTS.md has what either loses).
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from ragkit.around import principal_axes
from ragkit.encoder import Encoder
from trainer.config import TrainConfig
from trainer.data import draw


def fit_axes(encoder: Encoder, config: TrainConfig, data: Path, *, texts: int = 2000, seed: int = 1) -> np.ndarray:
    """Of passages of the recipe's sources, drawn as it weighs them: (D, D) float32, as ``principal_axes`` gives them.
    Fewer passages than dimensions show the first axes only. Raises ValueError as :func:`trainer.data.draw` does, and
    where there is no passage."""
    sources = [replace(source, in_batch=True) for source in config.sources]  # so that none needs a hard negative
    drawn = (group for source in sources for group in draw(source, data, hard_negatives=0, seed=config.seed))
    passages = sorted({example.positive for group in drawn for example in group.examples})
    if not passages:
        raise ValueError(f"the recipe's sources give no passage below {data}: axes are found from passages")
    chosen = random.Random(seed).sample(passages, min(texts, len(passages)))
    return principal_axes(encoder.encode_passages(chosen))
