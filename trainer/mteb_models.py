"""An Encoder as mteb's EncoderProtocol: the protocol of the paper's evaluation, in one place.

Queries of retrieval and reranking carry the task's prompt and their passages are bare; in every other category all
texts carry it (mteb's own instruct wrapper would prompt passages too, and leave nothing symmetric apart). The
authors leave the length of an embedding as it is for classification alone, and so does this, unless told otherwise.
Anything that departs from that protocol stands in the model's name, so that mteb's cache keeps the scores apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ModelMeta, ScoringFunction

from ragkit.task import Task
from trainer.instructions import instruction_of, is_bare

if TYPE_CHECKING:
    from mteb.abstasks.task_metadata import TaskMetadata

    from ragkit.encoder import Encoder

log = logging.getLogger(__name__)


@runtime_checkable
class HasStates(Protocol):
    """An encoder that can give embeddings before their length is made one. A server cannot: what it sends has been
    normalised there, so classification over a RemoteEncoder is measured on unit rows."""

    def encode_states(self, queries: list[str], task: Task) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """Where an evaluation may depart from the authors' protocol."""

    unit_classification: bool = False  # embeddings of length one for classification too
    rerank_prompted: bool = False  # the candidates of reranking prompted: the authors did, today's mteb does not

    @property
    def suffix(self) -> str:
        """What they add to a model's name."""
        return "+unit" * self.unit_classification + "+rerank-prompted" * self.rerank_prompted


class EncoderModel(AbsEncoder):
    """``mteb.evaluate(EncoderModel(encoder, "ragkit/mini"), tasks)``."""

    def __init__(
        self, encoder: Encoder, name: str, *, rules: Rules | None = None, use_instructions: bool = True
    ) -> None:
        self.encoder = encoder
        self.rules = rules or Rules()
        states = getattr(encoder, "inner", encoder)  # a cache around an encoder can give what the encoder can
        self.has_states = isinstance(states, HasStates) and isinstance(encoder, HasStates)
        self.mteb_model_meta = describe(encoder, name + self.rules.suffix, use_instructions=use_instructions)

    def encode(
        self,
        inputs: Iterable[Any],
        *,
        task_metadata: TaskMetadata,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any = None,
        **_: Any,
    ) -> np.ndarray:
        """Rows (N, D) in float32 for mteb's batches of texts."""
        texts = [text for batch in inputs for text in batch["text"]]
        if is_bare(task_metadata, prompt_type, rerank_prompted=self.rules.rerank_prompted):
            return self.encoder.encode_passages(texts)
        task = instruction_of(task_metadata).task
        if task_metadata.type == "Classification" and not self.rules.unit_classification:
            if self.has_states:
                return self.encoder.encode_states(texts, task)  # type: ignore[attr-defined]
            log.warning("%s: this encoder gives unit rows alone, the authors' had their own length", task_metadata.name)
        return self.encoder.encode_queries(texts, task)


def describe(encoder: Encoder, name: str, *, use_instructions: bool = True, **more: Any) -> ModelMeta:
    """What is known of a model and no more: None is mteb's word for unknown. ``name`` is ``owner/name``."""
    inner: Any = getattr(encoder, "inner", encoder)
    parameters = getattr(inner, "n_parameters", None)
    return ModelMeta.create_empty(
        {
            "name": name,
            "revision": encoder.fingerprint,
            "n_parameters": parameters,
            "max_tokens": encoder.max_length or None,
            "embed_dim": encoder.dimension,
            "similarity_fn_name": ScoringFunction.COSINE,
            "use_instructions": use_instructions,
            "framework": ["PyTorch"] if parameters else [],
            **more,
        }
    )
