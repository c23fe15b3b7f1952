"""Evaluate a folder through mteb until a file says stop: for the test that kills it. DATA OUT HANG_AT READY"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from conftest import HashEncoder

from ragkit.task import TASKS
from trainer import harness
from trainer.mteb_models import EncoderModel
from trainer.mteb_tasks import local_tasks

data, out, hang_at, ready = sys.argv[1:]


class Hangs(HashEncoder):
    def encode_passages(self, passages):  # type: ignore[no-untyped-def]
        rows = super().encode_passages(passages)
        if self.encoded >= int(hang_at):
            Path(ready).touch()
            time.sleep(600)
        return rows


harness.run(
    EncoderModel(Hangs(), "ragkit/hash"), local_tasks([Path(data)], task=TASKS["question-answering"]), Path(out)
)
