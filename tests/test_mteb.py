import json
from pathlib import Path
import numpy as np, pytest
from conftest import HashEncoder
from trainer import harness, mteb_tasks as t
from trainer.mteb_models import EncoderModel
from trainer.mteb_store import StoreModel, Setup
from test_evaluate import data  # noqa


def test_x(data, tmp_path):
    tasks = t.local_tasks([data], task=t.TASK)
    print(tasks, [x.metadata.eval_langs for x in tasks])
    out = harness.run(EncoderModel(HashEncoder(), "ragkit/hash"), tasks, tmp_path / "out")
    print(out.failed)
    print(harness.table(out.results))
    for s in ("sparse", "hybrid"):
        out = harness.run(
            StoreModel(HashEncoder(), "ragkit/hash", Setup(s)), t.local_tasks([data], task=t.TASK), tmp_path / "out"
        )
        print(out.failed)
        print(harness.table(out.results))
    for f in sorted((tmp_path / "out").rglob("*")):
        print(f.relative_to(tmp_path), f.stat().st_size if f.is_file() else "")
    print(next((tmp_path / "out").rglob("towns.perquery.json")).read_text())
    print(next((tmp_path / "out").rglob("towns.store.json")).read_text())
    print(next((tmp_path / "out").rglob("towns.json")).read_text()[:800])
