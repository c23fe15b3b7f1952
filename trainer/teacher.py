"""What another embedder thinks of a batch: targets that say how near each passage is, not only which is right.

In-batch negatives are all equally wrong to InfoNCE, though some of them answer the query too; and languages without
pairs to train on teach it nothing. A teacher that knows them gives every query of a batch a distribution over its
passages (distillation of in-batch similarities, as in arXiv 2010.11386). It reads bare texts behind its own prompts, so
any embedder can teach, and of a passage as much as the student reads of it: the rest would be told of and not seen.
What it says of a text is kept in the run folder, for a run that goes on or sees a text again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ragkit.encoder import plain
from ragkit.sparse import well_formed
from ragkit.task import Task
from trainer.plan import Batch, Texts

if TYPE_CHECKING:
    from ragkit.encoder import Encoder


class Teacher:
    """``encoder`` is any Encoder; its queries get the instruction of their example, if it reads instructions. ``cut``
    leaves of passages what the student reads of them."""

    def __init__(self, encoder: Encoder, cut: Callable[[Sequence[str]], list[str]] = list) -> None:
        self.encoder, self.cut = encoder, cut

    @classmethod
    def open(cls, model: str, kept: Path, cut: Callable[[Sequence[str]], list[str]] = list) -> Teacher:
        """``model`` is what ``trainer evaluate --model`` takes, a server by the same settings; its embeddings are kept
        in ``kept``, a file."""
        from ragkit.settings import Settings
        from trainer.evaluate import CachedEncoder
        from trainer.peers import open_model, server_of

        _, encoder, _ = open_model(model, **server_of(Settings()))
        return cls(CachedEncoder(encoder, kept, progress=False), cut)

    def cosines(self, batch: Batch, texts: Texts) -> Tensor:
        """Of every query with every passage of a step, (Q, P) float32; rows and columns as ``texts`` has them."""
        queries = np.empty((len(texts.queries), self.encoder.dimension), np.float32)
        for group in texts.alike:
            task = Task("training", batch.examples[group[0]].instruction)
            queries[group] = self.encoder.encode_queries([batch.examples[n].query for n in group], task)
        return torch.from_numpy(queries @ self.encoder.encode_passages(self.cut(texts.passages)).T)


def first_tokens(tokenizer: Any, texts: Sequence[str], count: int) -> list[str]:
    """Of each text what its first ``count`` tokens stand for. A tokenizer that cannot tell where its tokens lie in a
    text (transformers calls it slow) leaves them whole."""
    if not tokenizer.is_fast or not texts:
        return list(texts)
    places = plain(tokenizer, texts, return_offsets_mapping=True)["offset_mapping"]
    clean = map(well_formed, texts)
    return [text[: own[:count][-1][1]] if own else text for text, own in zip(clean, places, strict=True)]
