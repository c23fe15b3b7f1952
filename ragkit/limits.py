"""What one file may cost before it is skipped: the knobs of reading.

A stream (JSONL, CSV) may be of any size, since it is read record by record: there ``file_bytes`` is for a
line and ``seconds`` for a record. Every file is parsed in a child process (parsing.py), so that time and
memory are limits even for a parser that hangs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Limits:
    file_bytes: int = 100_000_000  # of a file; of one line where a format is read line by line
    characters: int = 5_000_000  # of one document's text, about 1,600 pages: it is split in memory
    pages: int = 5_000  # of a PDF; slides of a presentation; chapters of a book
    seconds: float = 60.0  # until a file's next document comes: time lost to one that hangs
    expanded_bytes: int = 500_000_000  # of everything inside a docx, pptx or epub, which are ZIP archives
    memory_bytes: int = 2_000_000_000  # of address space for the child (Linux): docling needs more, see there

    def __post_init__(self) -> None:
        for field in fields(self):
            if (value := getattr(self, field.name)) <= 0:
                raise ValueError(f"limit {field.name} is {value}: nothing could be read; give a positive number")
