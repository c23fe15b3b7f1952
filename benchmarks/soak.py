"""Hours of use with faults: does the embedded store lose anything, and does what was deleted come back?

    python benchmarks/soak.py [--minutes 60] [--seed N] [--megabytes 400]      (make soak)

Files are written, changed and removed; children ingest, search, delete, reindex, back up and restore, with the tests'
HashEncoder. Beside them stands a model of the truth: which text each file has, in the store, in the folder, and in
the last backup. After every step all passages are read and held against it, and a word that one file alone has is
searched. The faults: a child is killed (SIGKILL) at a random moment, the disk is full (a small tmpfs, which takes
root; else children may write no large file, RLIMIT_FSIZE), the clock jumps by a year (libfaketime, where Debian's
package is installed). One child is never killed: its resident memory is printed as a slope. Exit code 1 at the first
thing that is wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from conftest import SCRIPTS, HashEncoder  # pyright: ignore[reportMissingImports]

from ragkit.backup import backup, restore
from ragkit.edge import ROOM
from ragkit.ingest import ingest
from ragkit.limits import Limits
from ragkit.reindex import open_current, prune, reindex
from ragkit.retrieve import Retriever
from ragkit.store import open_store
from ragkit.types import Document

CORPUS = "soak"
WORST = 120  # seconds a child may take
FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
Truth = dict[str, str]  # path -> text


class Wrong(Exception):
    """What must never be."""


def read(path: Path, _: Limits) -> Iterator[Document]:
    yield Document(id="", path="", text=path.read_text("utf-8"), lang="")


def plain(text: str) -> str:
    return "".join(text.split())


def held(place: Path) -> dict[str, list[tuple[int, str, int]]]:
    """What is stored, by path: (ordinal, text, how many there should be)."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    if not list(place.glob(f"{CORPUS}--*/collection.json")):
        return found
    with open_current(place, CORPUS) as store:
        for page in store.pages():
            for passage in store.passages([str(record.id) for record in page]):
                found.setdefault(passage.path, []).append((passage.ordinal, passage.text, passage.document_passages))
    return found


# ---------------------------------------------------------------------- what children do


def do_ingest(place: Path, files: Path, seed: str) -> None:
    encoder = HashEncoder(seed)
    with open_store(place, CORPUS, encoder) as store:
        report = ingest([files], store, encoder, passage_tokens=40, batch=16, readers={".txt": read}, allow_empty=True)
    if report.skipped:
        raise Wrong(f"skipped {report.skipped[:2]}")


def do_reindex(place: Path, _: Path, seed: str) -> None:
    reindex(place, CORPUS, HashEncoder(seed))


def do_backup(place: Path, out: Path, _: str) -> None:
    backup(place, CORPUS, out)


def do_restore(place: Path, out: Path, _: str) -> None:
    restore(out, place, CORPUS, replace_existing=True)


def do_prune(place: Path, _: Path, __: str) -> None:
    prune(place, CORPUS)


DOES: dict[str, Callable[[Path, Path, str], None]] = {
    "ingest": do_ingest, "reindex": do_reindex, "backup": do_backup, "restore": do_restore, "prune": do_prune
}  # fmt: skip


def forked(work: Callable[[], None], kill_after: float | None = None, most: int | None = None) -> tuple[int, str]:
    """Run it in a child; its exit code (negative: the signal that ended it) and what it raised."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 0
        try:
            if most is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            work()
        except BaseException as error:
            code = 1
            os.write(writer, f"{type(error).__name__}: {error}".encode()[:2000])
        os._exit(code)
    os.close(writer)
    ends = time.monotonic() + (WORST if kill_after is None else kill_after)
    done = status = 0
    while not done and time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        time.sleep(0.002)
    if not done:
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        if kill_after is None:
            raise Wrong(f"a child hung for {WORST} s")
    with os.fdopen(reader, "rb") as told:
        return os.waitstatus_to_exitcode(status), told.read().decode("utf-8", "replace")


def steadily(pipe: Any, place: Path) -> None:
    """The child that is never killed: does as it is told, and says how much memory it holds."""
    while True:
        what, path, seed = pipe.recv()
        try:
            answer: Any = None
            if what == "held":
                answer = held(place)
            elif what == "search":
                encoder = HashEncoder(seed)
                with open_store(place, CORPUS, encoder, create=False) as store:
                    retriever = Retriever(store, encoder)
                    hits = [*retriever.search(path, mode="sparse", k=20), *retriever.search(path, k=20)]
                    answer = [(hit.passage.path, hit.passage.text) for hit in hits]
            else:
                DOES[what](place, Path(path), seed)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            pipe.send(("done", answer, pages * resource.getpagesize()))
        except Exception as error:
            pipe.send(("failed", f"{type(error).__name__}: {error}", 0))


# ---------------------------------------------------------------------- the run


@dataclass
class Soak:
    base: Path
    dice: random.Random
    small: bool  # whether the store lies on a disk of its own, which can be filled
    truth: Truth = field(default_factory=dict)  # of the folder
    stored: Truth = field(default_factory=dict)  # of the corpus, once what was begun is finished
    kept: Truth | None = None  # of the last backup
    kept_seed: str = ""
    seed: str = "a"  # of the current encoder
    word: int = 0
    gone: list[str] = field(default_factory=list)  # words of texts that are no more
    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, int]] = field(default_factory=list)  # seconds, bytes

    def __post_init__(self) -> None:
        self.disk, self.files = self.base / "disk", self.base / "files"
        self.place, self.out = self.disk / "store", self.disk / "kept.tar.gz"
        self.files.mkdir()
        self.pipe, there = multiprocessing.Pipe()
        self.steady = os.fork()
        if self.steady == 0:
            steadily(there, self.place)
        self.began = time.monotonic()

    def ask(self, what: str, path: str | Path = "", seed: str = "") -> Any:
        self.pipe.send((what, str(path), seed or self.seed))
        if not self.pipe.poll(WORST):
            raise Wrong(f"the steady child hung in {what}")
        state, answer, memory = (*self.pipe.recv(), 0)[:3]
        if state == "failed":
            raise Wrong(f"{what}: {answer}")
        self.memory.append((time.monotonic() - self.began, memory))
        return answer

    def text(self) -> str:
        self.word += 1
        sentences = [f"{text} unique{self.word}x." for text in SCRIPTS.values()]
        return " ".join(self.dice.choices(sentences, k=self.dice.randrange(1, 40))) + f" unique{self.word}x."

    def change_files(self) -> None:
        for _ in range(self.dice.randrange(1, 8)):
            known = sorted(self.truth)
            if known and (self.dice.random() < 0.35 or len(known) > 80):
                path = self.dice.choice(known)
                self.gone.append(self.truth.pop(path).split()[-1].rstrip("."))
                Path(path).unlink()
                continue
            path = (
                self.dice.choice(known) if known and self.dice.random() < 0.4 else str(self.files / f"{self.word}.txt")
            )
            if path in self.truth:
                self.gone.append(self.truth[path].split()[-1].rstrip("."))
            self.truth[path] = self.text()
            Path(path).write_text(self.truth[path], "utf-8")
        self.gone = self.gone[-50:]

    def check(self, between: Truth | None = None) -> None:
        """The store holds ``stored``; or of each file one or both, where a run to ``between`` was cut off."""
        found = self.ask("held")
        allowed = {path: {plain(t[path]) for t in (self.stored, between or self.stored) if path in t} for path in found}
        for path, passages in found.items():
            if not allowed[path]:
                raise Wrong(f"{path} is stored, and was deleted")
            for _, text, _ in passages:
                if not any(plain(text) in whole for whole in allowed[path]):
                    raise Wrong(f"{path} holds {text[:80]!r}, which it never had, or has no more")
        for path, text in self.stored.items():
            after = (between or self.stored).get(path)
            have = {plain(passage[1]) for passage in found.get(path, [])}
            if after == text and not self.complete(found.get(path, []), text):
                raise Wrong(f"{path} is not whole: {len(have)} passages")
        if between is None and found.keys() != self.stored.keys():
            raise Wrong(f"lost {sorted(self.stored.keys() - found.keys())[:3]}")
        self.counts["checks"] += 1

    @staticmethod
    def complete(passages: list[tuple[int, str, int]], text: str) -> bool:
        ordered = sorted(passages)
        whole = [number for number, _, _ in ordered] == list(range(len(ordered)))
        return whole and "".join(plain(t) for _, t, _ in ordered) == plain(text)

    def search(self) -> None:
        if self.stored:
            path, text = self.dice.choice(sorted(self.stored.items()))
            word = text.split()[-1].rstrip(".")
            if not any(found == path and word in hit for found, hit in self.ask("search", word)):
                raise Wrong(f"{path} is not found by its own word")
        live = {text.split()[-1].rstrip(".") for text in self.stored.values()}
        if dead := [word for word in self.gone if word not in live]:
            word = self.dice.choice(dead)
            if found := [path for path, hit in self.ask("search", word) if f"{word}." in hit]:
                raise Wrong(f"a deleted text is found, in {found[0]}")
            self.counts["searches"] += 1

    # -------------------------------------------------------------- a step, with or without a fault

    def step(self) -> None:
        what = self.dice.choices(["ingest", "reindex", "backup", "restore", "prune"], [10, 2, 2, 1, 1])[0]
        if what == "restore" and self.kept is None:
            what = "backup"
        if not self.stored:
            what = "ingest"
        fault = self.dice.choices(["none", "kill", "full", "clock"], [4, 5, 2, 1])[0]
        seed, path = self.seed, self.files
        after, after_seed = self.stored, self.seed
        if what == "ingest":
            self.change_files()
            after = dict(self.truth)
        elif what == "reindex":
            after_seed = seed = "b" if self.seed == "a" else "a"
        elif what in ("backup", "restore"):
            path = self.out
            if what == "restore":
                assert self.kept is not None
                after, after_seed = self.kept, self.kept_seed
        self.counts[f"{what} {fault}"] += 1
        if fault != "none":
            self.hurt(fault, what, path, seed)
            self.seed, before = self.current(after_seed), self.seed
            if what == "restore" and self.place.exists():
                self.either(after if self.seed == after_seed else self.stored, after)
            else:
                self.check(after if what == "ingest" else None)
            self.counts["done though hurt"] += before != self.seed
        self.ask(what, path, seed)  # and now without a fault
        self.stored, self.seed = dict(after), after_seed
        if what == "backup":
            self.kept, self.kept_seed = dict(self.stored), self.seed
        self.check()
        self.search()

    def either(self, one: Truth, other: Truth) -> None:
        """A restore is done or not done."""
        before = self.stored
        try:
            self.check()
        except Wrong:
            self.stored = other
            self.check()
        finally:
            self.stored = before

    def current(self, likely: str) -> str:
        with suppress(FileNotFoundError, ValueError, KeyError):
            fingerprint = json.loads((self.place / f"{CORPUS}.json").read_text())["current"]
            return next(seed for seed in "ab" if HashEncoder(seed).fingerprint == fingerprint)
        return self.seed

    def hurt(self, fault: str, what: str, path: Path, seed: str) -> None:
        work = lambda: DOES[what](self.place, path, seed)  # noqa: E731
        if fault == "kill":
            code, _ = forked(work, kill_after=self.dice.random() ** 2 * 1.5)
            self.counts["killed"] += code == -signal.SIGKILL
        elif fault == "full" and self.small:
            ballast = self.disk / "ballast"
            free = shutil.disk_usage(self.disk).free
            with ballast.open("wb") as file:
                for _ in range(max(0, free - self.dice.choice([0, 1 << 20, 20 << 20, 70 << 20])) >> 16):
                    file.write(bytes(1 << 16))
            try:
                self.clear_error(*forked(work))
                if shutil.disk_usage(self.disk).free > ROOM + (4 << 20):
                    self.ask("held")  # it can be read
            finally:
                ballast.unlink()
        elif fault == "full":
            self.clear_error(*forked(work, most=self.dice.choice([0, 1 << 16, 1 << 20])))
        elif FAKETIME.exists():
            shift = self.dice.choice(["-366d", "+366d", "+20y"])
            command = [sys.executable, __file__, "--child", what, str(self.place), str(path), seed]
            # the wall's clock alone: no jump of that moves the monotonic one
            wrong_time = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
            environment = os.environ | wrong_time
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * WORST)
            except subprocess.TimeoutExpired as error:
                raise Wrong(f"{what} with the clock at {shift} hung") from error
            if done.returncode:
                raise Wrong(f"{what} with the clock at {shift}: {done.stderr[-500:]}")

    def clear_error(self, code: int, told: str) -> None:
        self.counts["full, told"] += code == 1
        self.counts["full, enough"] += code == 0
        if code not in (0, 1):
            raise Wrong(f"on a full disk the child died of {signal.Signals(-code).name}")
        if code and not any(word in told for word in ("make room", "No space left", "File too large", "os error 27")):
            raise Wrong(f"on a full disk: {told}")


def slope(memory: list[tuple[float, int]]) -> tuple[float, float]:
    """MB at the end, MB a minute; of the later two thirds, since the first is warming up."""
    late = np.array([(at, size / 1e6) for at, size in memory[len(memory) // 3 :] if size])
    if len(late) < 3:
        return (late[-1, 1] if len(late) else 0.0), 0.0
    return float(late[-1, 1]), float(np.polyfit(late[:, 0] / 60, late[:, 1], 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--megabytes", type=int, default=400, help="of the small disk")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        what, place, path, seed = asked.child
        DOES[what](Path(place), Path(path), seed)
        return
    base = Path(tempfile.mkdtemp(prefix="ragkit-soak-"))
    disk = base / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={asked.megabytes}m", "soak", str(disk)]
    small = os.geteuid() == 0 and subprocess.run(mounting, capture_output=True).returncode == 0
    clock = FAKETIME.exists()
    print(f"seed {asked.seed}, {asked.minutes} minutes; full disk by {'tmpfs' if small else 'RLIMIT_FSIZE'}, "
          f"clock by {'libfaketime' if clock else 'nothing: libfaketime is not installed'}", flush=True)  # fmt: skip
    soak = Soak(base, random.Random(asked.seed), small)
    wrong = ""
    told = time.monotonic()
    try:
        while not wrong and time.monotonic() - soak.began < 60 * asked.minutes:
            try:
                soak.step()
            except Wrong as error:
                wrong = str(error)
            if time.monotonic() - told > 60:
                told = time.monotonic()
                megabytes, growth = slope(soak.memory)
                print(f"{(told - soak.began) / 60:.0f} min, {soak.counts['checks']} checks, {len(soak.stored)} files, "
                      f"{megabytes:.0f} MB, {growth:+.2f} MB a minute", flush=True)  # fmt: skip
    finally:
        os.kill(soak.steady, signal.SIGKILL)
        os.waitpid(soak.steady, 0)
        if wrong:
            shutil.copytree(disk, base / "left", ignore=shutil.ignore_patterns("ballast"))
        if small:
            subprocess.run(["umount", str(disk)], check=True)
        if not wrong:
            shutil.rmtree(base)
    megabytes, growth = slope(soak.memory)
    print("; ".join(f"{name} {count}" for name, count in sorted(soak.counts.items())))
    print(f"{len(soak.memory)} calls of the steady child: {megabytes:.0f} MB, {growth:+.2f} MB a minute")
    if wrong:
        print(f"WRONG: {wrong} (last: {soak.counts}); what is left: {base}")
        sys.exit(1)


if __name__ == "__main__":
    main()
