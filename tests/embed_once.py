"""One bulk embedding with the tests' encoder, as a process that can be killed: SOURCE OUT."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

import numpy as np
from conftest import HashEncoder

from ragkit.bulk import embed


class SlowEncoder(HashEncoder):
    """Time enough to be killed in the middle of a shard."""

    def encode_passages(self, passages: Sequence[str]) -> np.ndarray:
        time.sleep(0.05)
        return super().encode_passages(passages)


if __name__ == "__main__":
    source, out = sys.argv[1:]
    report = embed([source], out, SlowEncoder, corpus="town", passage_tokens=100, shard_passages=10)
    assert report.skipped == (), report.skipped
    print(report.embedded)
