"""The app under load: twenty visitors at once, then two thousand searches in a row, over the demo corpus.

    make demo APP=0 && python benchmarks/app.py            # RAGKIT_STORE=.ragkit/store, as the Makefile has it

Every visitor is a gradio_client of its own, which asks the questions of the demo one after the other. A search's own
time is what its visitor waited less what the encoder took (the app says both). The encoder is one for all, so its queue
is the larger part of what a visitor waits for; that is printed too. Memory is the app's resident set.
"""

from __future__ import annotations

import argparse
import itertools
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from gradio_client import Client

from apps.running import running

ROOT = Path(__file__).parent.parent
QUESTIONS = ROOT / "apps" / "corpus" / "mul" / "queries.jsonl"


def questions() -> list[str]:
    return [json.loads(line)["text"] for line in QUESTIONS.read_text("utf-8").splitlines()]


def resident(pid: int) -> float:
    """Megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return float("nan")


def visit(url: str, asked: list[str], waited: list[float], own: list[float], failed: list[str]) -> None:
    client = Client(url, verbose=False)
    for question in asked:
        begin = time.perf_counter()
        try:
            found: dict[str, Any] = client.predict(question, api_name="/search")
        except Exception as error:  # counted, whatever it was
            failed.append(repr(error))
            continue
        took = 1000 * (time.perf_counter() - begin)
        waited.append(took)
        own.append(took - found["milliseconds"]["encode"])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--visitors", type=int, default=20)
    parser.add_argument("--each", type=int, default=10)
    parser.add_argument("--searches", type=int, default=2000)
    options = parser.parse_args()
    with running("--corpus", "selvara") as app:
        pool = questions()
        visit(app.url, pool[:3], [], [], [])  # loads the model
        waited, own, failed = list[float](), list[float](), list[str]()
        deal = itertools.cycle(pool)
        threads = [
            threading.Thread(
                target=visit, args=(app.url, list(itertools.islice(deal, options.each)), waited, own, failed)
            )
            for _ in range(options.visitors)
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - begin
        rate = len(waited) / seconds
        print(f"{options.visitors} visitors, {len(waited)} searches, {len(failed)} failed, {rate:.1f} a second")
        for name, values in (("waited", waited), ("beyond the encoding", own)):
            p50, p95 = np.percentile(values, [50, 95])
            print(f"  {name}: p50 {p50:.0f} ms, p95 {p95:.0f} ms")
        marks = [resident(app.pid)]
        for n in range(4):
            share = options.searches // 16
            threads = [
                threading.Thread(target=visit, args=(app.url, list(itertools.islice(deal, share)), [], [], failed))
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            marks.append(resident(app.pid))
            print(f"  after {(n + 1) * share * 4} more: {marks[-1]:.0f} MB", flush=True)
        print(f"memory: {marks[0]:.0f} MB, then {marks[-1]:.0f} MB; {len(failed)} failed {failed[:2]}")


if __name__ == "__main__":
    main()
