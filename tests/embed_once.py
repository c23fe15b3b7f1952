"""One bulk embedding with the tests' encoder, as a process that can be killed: SOURCE OUT. And the encoders of the
workers that are killed elsewhere: this module is all that they import of the tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from conftest import HashEncoder

from ragkit.bulk import embed


class SlowEncoder(HashEncoder):
    """Time enough to be killed in the middle of a shard."""

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        time.sleep(0.05)
        return super().encode_passages(passages)


class Noting(HashEncoder):
    """Leaves its process' id behind, and a line for each shard's beginning; slow enough to be killed in one."""

    def __init__(self, folder: str, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds
        self.file = Path(folder) / str(os.getpid())
        self.file.touch()

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        with self.file.open("a") as file:
            file.write("x\n")
        time.sleep(self.seconds)
        return super().encode_passages(passages)


class Failing(HashEncoder):
    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        raise ValueError("no memory for ቤተ መጻሕፍት")


class Deadly(HashEncoder):
    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(passages)


if __name__ == "__main__":
    source, out = sys.argv[1:]
    report = embed([source], out, SlowEncoder, corpus="town", passage_tokens=100, shard_passages=10)
    assert report.skipped == (), report.skipped
    print(report.embedded)
