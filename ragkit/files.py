"""What lies below a root: the files that have a reader, and everything else with the reason it is left out.

Nothing is opened here. Links to folders are not entered, so loops of links end, and a link to a file
outside the root is left out: whoever may write into a shared folder could otherwise have any file of
this machine indexed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

_LINKED = "a symbolic link to a folder: name it as a path of its own"


@dataclass(frozen=True, slots=True)
class Skipped:
    """What was not ingested, and why."""

    path: str  # absolute POSIX path
    reason: str
    part: bool = False  # of a file; other documents of it were read


@dataclass(frozen=True, slots=True)
class EmptyFolder:
    """A folder without any entry, which is also what a share that is not mounted looks like."""

    path: str


class Unreadable(ValueError):
    """A file or record whose content is not what it should be. The message is what a user is told."""


def find_files(
    below: Path, suffixes: Container[str], root: Path | None = None
) -> Iterator[Path | Skipped | EmptyFolder]:
    """The files at or below ``below`` whose suffix is one of ``suffixes``, in sorted order, and the rest.

    ``root`` (``below`` itself if not given) is what links may not lead out of; it alone may be a link to a folder.
    """
    root = root or below
    home = root.resolve()
    if below != root and below.is_symlink() and below.is_dir():
        yield skipped(below, _LINKED)
        return
    if not below.is_dir():
        yield _eligible(below, suffixes, home if root.is_dir() else None)
        return
    failed: list[OSError] = []
    for folder, folders, files in os.walk(below, onerror=failed.append):
        here = Path(folder)
        if not folders and not files:
            yield EmptyFolder(stored_path(here))
        folders.sort()
        for name in list(folders):
            path = here / name
            if name.startswith(".") or path.is_symlink():
                folders.remove(name)
                yield skipped(path, "hidden" if name.startswith(".") else _LINKED)
        for name in sorted(files):
            path = here / name
            yield skipped(path, "hidden") if name.startswith(".") else _eligible(path, suffixes, home)
    for error in failed:
        yield skipped(Path(error.filename), f"cannot be read: {error.strerror}")


def _eligible(path: Path, suffixes: Container[str], home: Path | None) -> Path | Skipped:
    suffix = path.suffix.lower()
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
        outside = home is not None and path.is_symlink() and not path.resolve().is_relative_to(home)
    except (OSError, RuntimeError) as error:  # a broken link, a loop of links, no permission
        return skipped(path, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if outside:
        return skipped(path, "a symbolic link to a file outside the folder: name that file as a path of its own")
    if not regular:
        return skipped(path, "not a regular file")
    if suffix not in suffixes:
        known = " ".join(suffixes) if isinstance(suffixes, dict) else ""
        return skipped(path, f"no reader for {suffix or 'a name without suffix'}: known are {known}")
    if path.name == "queries.jsonl" and path.with_name("corpus.jsonl").exists():
        return skipped(path, "BEIR queries beside their corpus.jsonl, not documents")
    return path


def skipped(path: Path, reason: str) -> Skipped:
    return Skipped(stored_path(path), clean(reason))


def stored_path(path: Path) -> str:
    """A path as it is stored, with ``/``. Bytes that are no UTF-8, as in names of old archives, are spelt (``\\xee``):
    two such names must not become one."""
    return clean(path.as_posix().encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def clean(text: str) -> str:
    """Lone surrogates (from JSON escapes and PDFs) cannot be stored as UTF-8, and NUL separates the parts of a
    passage id. Keeps the length."""
    return re.sub("[\ud800-\udfff\0]", "\ufffd", text)


_MAGIC = {  # how a file begins -> what it is, and the suffixes that this is right for
    b"%PDF-": ("a PDF", {".pdf"}),
    b"PK\x03\x04": ("a ZIP archive", {".docx", ".pptx", ".epub"}),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old or an encrypted Office file", set[str]()),
    b"\x1f\x8b": ("a gzip archive", set[str]()),
    b"\x7fELF": ("a program", set[str]()),
    b"\x89PNG": ("a picture", set[str]()),
    b"\xff\xd8\xff": ("a picture", set[str]()),
}


def refuse_wrong_content(path: Path, max_bytes: int) -> None:
    """Raises Unreadable for a file that begins like another format than its name says, or is too large.
    A PDF is ASCII to a text reader, so it would be indexed as gibberish."""
    size = path.stat().st_size
    if size > max_bytes:
        raise Unreadable(f"{size:,} bytes, the limit is {max_bytes:,}: split it, or raise the limit file_bytes")
    with path.open("rb") as file:
        head = file.read(8)
    for magic, (what, suffixes) in _MAGIC.items():
        if head.startswith(magic) and path.suffix.lower() not in suffixes:
            raise Unreadable(f"holds {what}, though its name ends in {path.suffix}: save it as what it is")
