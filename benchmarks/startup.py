"""How long until something is on the screen? Importing ragkit, its help, and a search from the typed command to its
first hit, each in a process of its own.

    make demo APP=0 && python benchmarks/startup.py            # RAGKIT_STORE=.ragkit/store, as the Makefile has it

The search is cold for the process, not for the disk: one run beforehand, which does not count, reads all files. The
last line is the worst of the medians over its goal: at most 1 is what is wanted.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

IMPORT, HELP, SEARCH = 0.5, 0.5, 6.0  # seconds
RAGKIT = str(Path(sys.executable).with_name("ragkit"))


def run(command: list[str]) -> tuple[float, float]:
    """Seconds until the first byte of output (or the end, where there is none), and CPU seconds to the end."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    seconds = time.perf_counter() - begin
    _, errors = process.communicate()
    if process.returncode:
        sys.exit(f"{' '.join(command)}: {errors.decode().strip()}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="selvara")
    parser.add_argument("--query", default="wann schließt das Lager?")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    commands = {
        "import ragkit": (IMPORT, [sys.executable, "-c", "import ragkit"]),
        "ragkit --help": (HELP, [RAGKIT, "--help"]),
        "ragkit search": (SEARCH, [RAGKIT, "search", options.query, "--corpus", options.corpus]),
    }
    ratios = list[float]()
    print("| | median | spread | CPU | goal |\n|---|---|---|---|---|")
    for name, (goal, command) in commands.items():
        run(command)
        waited, cpu = zip(*(run(command) for _ in range(options.runs)), strict=True)
        median = statistics.median(waited)
        ratios.append(median / goal)
        spread = f"{min(waited):.2f} to {max(waited):.2f} s"
        print(f"| {name} | {median:.2f} s | {spread} | {statistics.median(cpu):.2f} s | {goal} s |", flush=True)
    print(f"worst median / goal: {max(ratios):.2f}")


if __name__ == "__main__":
    main()
