"""The answers' log: what was paid for, on disk before anything else is asked, and never rewritten.

JSON lines, appended with one write each to an unbuffered file, so that ``kill -9`` costs no answer; a
line that it cut in two is recognised by its missing end and removed at the next start. A record carries
what it answers (kind, slots, task), so examples can be made from the log alone, again and again, when a
check changes. Everything else in a run's folder is made from it.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ragkit.endpoint import Reply
from trainer.request_plan import STAGES, Request

Record = dict[str, Any]

# The files of a run's folder.
ANSWERS, FAILED = "answers.jsonl", "failed.jsonl"
TASKS, EXAMPLES, REJECTED = "tasks.jsonl", "examples.jsonl", "rejected.jsonl"


def answer_record(request: Request, reply: Reply, cost: float) -> Record:
    return {
        "id": request.id, "stage": request.stage, "number": request.number, "kind": request.kind,
        "slots": request.slots, "endpoint": request.endpoint, "model": reply.model, "text": reply.text,
        "finish": reply.finish, "refused": reply.refused, "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens, "estimated": reply.estimated, "cost": cost,
        "tries": reply.tries,
    }  # fmt: skip


def generator_of(answer: Mapping[str, Any]) -> str:
    """The endpoint's name, and what the server calls the model where that says more."""
    label, model = answer["endpoint"], Path(answer["model"]).name  # llama.cpp calls a model by its path
    return label if model in ("", label) else f"{label} ({model})"


def dump(record: Mapping[str, Any]) -> bytes:
    """One line. Letters stay letters, but for lone surrogates, which UTF-8 has no place for."""
    try:
        return json.dumps(record, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record).encode() + b"\n"


def load(path: Path) -> Iterator[Record]:
    """Records of a log, a torn last line left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


class Log:
    """A file of JSON lines that is appended to. ``torn``: bytes of a cut-off last line, removed at opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn = _mend(path)
        self._file: BinaryIO = path.open("ab", buffering=0)

    def append(self, record: Mapping[str, Any]) -> None:
        line = dump(record)
        written = self._file.write(line)
        if written < len(line):  # other askers may still append: no half line may stand before theirs
            self._file.truncate(self._file.seek(0, 2) - written)
            raise OSError(f"{self.path} took {written} of {len(line)} bytes: is the disk full?")

    def close(self) -> None:
        self._file.close()


class Whole:
    """A file of JSON lines that appears under its name when it is whole. ``keep``: what is there stays."""

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self._path, self._scratch, self._keep = path, path.with_suffix(".tmp"), keep

    def __enter__(self) -> Whole:
        self._file = self._scratch.open("wb")
        return self

    def write(self, record: Mapping[str, Any]) -> None:
        self._file.write(dump(record))

    def __exit__(self, failed: object, *_: object) -> None:
        self._file.close()
        if failed or self._keep:
            self._scratch.unlink()
        else:
            self._scratch.replace(self._path)


class Index:
    """Which requests of which stage a log has answered, and where in the file. A few bytes a request."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tokens, self.money = 0, 0.0
        self._offsets = {stage: array("q") for stage in STAGES}
        if not path.exists():
            return
        with path.open("rb") as file:
            offset = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                record = json.loads(line)
                self.tokens += record["prompt_tokens"] + record["completion_tokens"]
                self.money += record["cost"]
                self._mark(record["stage"], record["number"], offset)
                offset += len(line)

    def _mark(self, stage: str, number: int, offset: int) -> None:
        offsets = self._offsets[stage]
        if number >= len(offsets):
            offsets.extend([-1] * (number + 1 - len(offsets)))
        if offsets[number] < 0:  # the first answer stands
            offsets[number] = offset

    def answered(self, stage: str) -> bytearray:
        """1 for each number that has an answer."""
        return bytearray(offset >= 0 for offset in self._offsets[stage])

    def records(self, stage: str) -> Iterator[Record]:
        """Answers in the order of their requests, whenever they came; each once."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            for offset in self._offsets[stage]:
                if offset >= 0:
                    file.seek(offset)
                    yield json.loads(file.readline())


def _mend(path: Path) -> int:
    """Cuts a last line that has no end. Its answer was not complete, so its request is asked again."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        size = end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        file.truncate(end)
    return size - end
