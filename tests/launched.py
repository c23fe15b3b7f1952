"""One process of a launched run: ``launched.py RECIPE DATA OUT OPTIMISER``.

With plain SGD the adapter is the sum of the gradients; Adam would hide a wrong scale. accelerate refuses
DeepSpeed and FSDP on CPUs: SHARDED=1 makes it take gloo and the CPU where it would take NCCL and a GPU.
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import DistributedType, PartialState
from transformers.training_args import OptimizerNames

from trainer import train as t
from trainer.config import TrainConfig

if __name__ == "__main__":
    recipe, data, out, optimiser = sys.argv[1:]
    torch.set_num_threads(1)
    original = t._arguments

    def arguments(*args: object) -> object:
        made = original(*args)  # type: ignore[arg-type]
        made.optim = OptimizerNames(optimiser)
        return made

    if os.environ.get("SHARDED"):
        PartialState._prepare_backend = lambda *_: ("gloo", DistributedType.MULTI_GPU)  # type: ignore[method-assign]
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    t._arguments = arguments  # type: ignore[assignment]
    t.train(TrainConfig.read(Path(recipe)), Path(data), Path(out))
    t.leave()
