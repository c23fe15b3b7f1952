"""What a copy of a model returns when it is set up wrongly, computed: the doctor's book of symptoms.

Each fault says what the model would then read (ids) or which state would be taken (pooling), so its
vectors can be computed with the healthy model, or carried in ``reference.json`` for where there is none.
A missing normalisation is no entry: it is seen by a vector's length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ragkit.encoder import LocalEncoder, plain_ids
from ragkit.references import Reference
from ragkit.task import DEFAULT_TASK, TASKS

HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Fault:
    """``text``: what is tokenised; ``row``: BOS and EOS (either may be absent) around the ids; ``pool``: states
    (T, D) to one vector."""

    text: Callable[[Reference], str] = lambda reference: reference.prompt
    bos: int = 1  # how many
    eos: int = 1
    pool: Callable[[Tensor], Tensor] = lambda states: states[-1]


def _doubled(reference: Reference) -> str:
    return reference.asked.prefix + reference.prompt if reference.asked else reference.text


def _both_sides(reference: Reference) -> str:
    return reference.prompt if reference.asked else TASKS[DEFAULT_TASK].prefix + reference.text


def _no_last_space(reference: Reference) -> str:
    return reference.asked.prefix.rstrip() + reference.text if reference.asked else reference.text


FAULTS = {
    HEALTHY: Fault(),
    "EOS lost": Fault(eos=0),
    "BOS lost": Fault(bos=0),
    "BOS and EOS lost": Fault(bos=0, eos=0),
    "EOS doubled": Fault(eos=2),
    "BOS doubled": Fault(bos=2),
    "prefix missing": Fault(text=lambda reference: reference.text),
    "prefix doubled": Fault(text=_doubled),
    "prefix on passages": Fault(text=_both_sides),
    "prefix without its last space": Fault(text=_no_last_space),
    "line breaks lost": Fault(text=lambda reference: reference.prompt.replace("\n", " ")),
    "wrong pooling (mean)": Fault(pool=lambda states: states.mean(0)),
    "wrong pooling (first token)": Fault(pool=lambda states: states[0]),
}


def load_exactly(model: str | Path) -> LocalEncoder:
    """The model in float32: references are not rounded to what this device computes fast."""
    return LocalEncoder.load(model, dtype=torch.float32)


@torch.inference_mode()
def fault_vectors(encoder: LocalEncoder, probes: Sequence[Reference]) -> dict[str, np.ndarray]:
    """For each fault, unit rows (N, D) of ``probes``. A fault that this model cannot have is left out: a
    tokenizer without BOS loses none."""
    bos: Any = encoder.tokenizer.bos_token_id
    eos: Any = encoder.tokenizer.eos_token_id
    model: Any = encoder.model
    device = next(model.parameters()).device
    found: dict[str, np.ndarray] = {}
    for name, fault in FAULTS.items():
        if bos is None and fault.bos != 1:
            continue
        out = []
        for ids in plain_ids(encoder.tokenizer, [fault.text(probe) for probe in probes]):
            head, tail = [bos] * fault.bos if bos is not None else [], [eos] * fault.eos
            row = [*head, *ids[: encoder.max_length - len(head) - len(tail)], *tail]
            states = model(input_ids=torch.tensor([row], device=device), use_cache=False).last_hidden_state[0]
            out.append(torch.nn.functional.normalize(fault.pool(states).float(), dim=-1).cpu().numpy())
        found[name] = np.stack(out)
    return found
