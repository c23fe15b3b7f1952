"""How near to what the server allows does ``trainer synthesise`` come, and does its memory stay flat?

    python benchmarks/synthesise.py                      # 64 at once, 200 ms each: ideal 320 a second
    python benchmarks/synthesise.py --requests 100000 --delay 0 --concurrency 16     # memory

The server (tests/llm_server.py) runs in a process of its own and answers after ``--delay``; the client's
whole path is measured: plan, HTTP, log. Prints answers a second, the share of the ideal, CPU time an
answer, and resident memory at each tenth of the run.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from ragkit.endpoint import Endpoint
from trainer.lock import locked
from trainer.request_plan import Plan, SynthesisConfig
from trainer.synthesise import ask, claim

SERVER = Path(__file__).parent.parent / "tests" / "llm_server.py"


def rss() -> float:
    """Megabytes resident now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6400)
    parser.add_argument("--delay", type=float, default=0.2, help="seconds the server takes")
    parser.add_argument("--concurrency", type=int, default=64)
    args = parser.parse_args()

    server = subprocess.Popen(
        [sys.executable, str(SERVER), "--delay", str(args.delay), "--capacity", str(args.concurrency)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    config = SynthesisConfig([Endpoint("local", base_url=url, concurrency=args.concurrency)])
    tasks = {
        kind: [f"task {n}" for n in range(1000)] for kind in ("short-long", "long-short", "short-short", "long-long")
    }
    memory: list[tuple[int, float]] = []
    done = threading.Event()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = Plan(config, "examples", tasks)
        with locked(folder):
            claim(folder, plan)
            ask(plan, folder, 10 * args.concurrency)  # connections open, code warm
            answers = folder / "answers.jsonl"
            begun = answers.stat().st_size / (10 * args.concurrency)

            def watch() -> None:
                while not done.wait(0.5):
                    memory.append((int(answers.stat().st_size / begun), rss()))

            threading.Thread(target=watch, daemon=True).start()
            cpu, start = time.process_time(), time.perf_counter()
            outcome = ask(plan, folder, args.requests + 10 * args.concurrency)
            took, cpu = time.perf_counter() - start, time.process_time() - cpu
            done.set()
    server.kill()
    rate = outcome.answered / took
    print(f"{outcome.answered} answers, {outcome.failed} failed, {took:.1f} s: {rate:.1f} a second")
    if args.delay:
        ideal = args.concurrency / args.delay
        print(f"ideal {ideal:.0f} a second: {rate / ideal:.3f} of it")
    print(
        f"{1000 * cpu / max(1, outcome.answered):.2f} ms CPU an answer; refused and tried again: "
        f"{sum(count * (tries - 1) for tries, count in outcome.tries.items())}"
    )
    for tenth in range(1, 11):
        reached = [mb for count, mb in memory if count >= outcome.answered * tenth / 10]
        if reached:
            print(f"{tenth * 10:3d} %: {reached[0]:.1f} MB resident")


if __name__ == "__main__":
    main()
