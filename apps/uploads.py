"""What may come in as a file: its name, its size, and whether its first bytes are what its suffix promises.

This is the door; what a file costs to read is bounded again where it is parsed, in a process of its own
(ragkit/parsing.py). An accepted file lies in the library's folder under its own name, so a second upload of
that name is a new version of the same document. The version before stays aside until the new one has been
read, and comes back if it could not be.
"""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ragkit.readers import READERS

_ZIPPED = {".docx": "word/", ".pptx": "ppt/", ".epub": "META-INF/"}  # a name that each has in it
NAME_BYTES = 180  # UTF-8; file systems take 255, and Gradio hands over no more than 200


@dataclass(frozen=True, slots=True)
class Refused:
    """``reason`` names a message of the app; ``value`` fills its gap."""

    name: str
    reason: str
    value: object = ""


def safe_name(name: str, path: Path | None = None) -> str:
    """The last part of ``name``, without control and direction characters, not hidden, and not too long. "" where
    nothing is left. The end of a long one, where numbers stand, goes; a digest of the file at ``path`` tells it from
    others (of the name, it would not: Gradio has cut that already)."""
    last = name.replace("\\", "/").rpartition("/")[2]
    kept = "".join(sign for sign in last if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Zl", "Zp"))
    kept = unicodedata.normalize("NFC", kept).strip(" .")
    stem, dot, suffix = kept.rpartition(".")
    if dot and len(kept.encode()) > NAME_BYTES:
        if path is not None and path.is_file():
            with path.open("rb") as file:
                suffix = f"{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}.{suffix}"
        while stem and len(f"{stem}.{suffix}".encode()) > NAME_BYTES:
            stem = stem[:-1]
        kept = f"{stem}.{suffix}"
    return kept if stem and len(kept.encode()) <= NAME_BYTES else ""


def refusal(path: Path, name: str, most: int) -> Refused | None:
    """Why the file at ``path``, which its sender calls ``name``, may not come in; ``most`` bytes are allowed."""
    shown = name.replace("\\", "/").rpartition("/")[2][:NAME_BYTES]
    kept = safe_name(name)
    suffix = Path(kept).suffix.lower()
    if not kept:
        return Refused(shown, "upload.bad_name")
    if suffix not in READERS:
        return Refused(shown, "upload.bad_type", " ".join(sorted(READERS)))
    if path.is_symlink() or not path.is_file():
        return Refused(shown, "upload.no_file")
    size = path.stat().st_size
    if not size:
        return Refused(shown, "upload.no_bytes")
    if size > most:
        return Refused(shown, "upload.too_large", most // 1_000_000)
    if not _is(path, suffix):
        return Refused(shown, "upload.not_its_type", suffix)
    return None


def _is(path: Path, suffix: str) -> bool:
    with path.open("rb") as file:
        head = file.read(4096)
    if suffix == ".pdf":
        return b"%PDF-" in head[:1024]
    if suffix in _ZIPPED:
        try:
            with zipfile.ZipFile(path) as archive:
                return any(name.startswith(_ZIPPED[suffix]) for name in archive.namelist())
        except (zipfile.BadZipFile, OSError, ValueError):
            return False
    return head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" not in head  # text: UTF-16 is told by its mark


@contextmanager
def brought_in(files: Sequence[tuple[Path, str]], folder: Path, most: int, total: int) -> Iterator[Arrival]:
    """Put ``files``, each (where it lies, its sender's name), into ``folder``, of ``total`` bytes at most. At the end
    of the block those that were named :meth:`unreadable` are gone again; all of them, where the block fails."""
    arrival = Arrival(folder)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    room = total - sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
    try:
        for path, name in files:
            wrong = refusal(path, name, most)
            kept = "" if wrong else safe_name(name, path)
            if kept in arrival.taken:
                wrong = Refused(name, "upload.twice")
            elif wrong is None and path.stat().st_size > room:
                wrong = Refused(name, "upload.no_room", total // 1_000_000)
            if wrong is not None:
                arrival.refused.append(wrong)
                continue
            room -= path.stat().st_size
            arrival.take(path, kept)
        yield arrival
    except BaseException:
        arrival.withdrawn()
        raise
    finally:
        shutil.rmtree(arrival.aside, ignore_errors=True)


class Arrival:
    """Files that came in together."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aside = folder.with_name(f".{folder.name}-before")
        self.taken: list[str] = []
        self.refused: list[Refused] = []

    @property
    def paths(self) -> list[Path]:
        return [self.folder / name for name in self.taken]

    def take(self, path: Path, name: str) -> None:
        target = self.folder / name
        if target.exists():
            self.aside.mkdir(exist_ok=True, mode=0o700)
            target.replace(self.aside / name)
        self.taken.append(name)
        shutil.copyfile(path, target)

    def withdrawn(self) -> list[Path]:
        """All of it goes, as :meth:`unreadable` says. Where it lay."""
        paths = self.paths
        for name in list(self.taken):
            self.unreadable(name)
        return paths

    def unreadable(self, name: str) -> bool:
        """Nothing of this one could be read: it goes, and the version before it, if there was one, comes back. Whether
        it did."""
        if name not in self.taken:
            return False
        self.taken.remove(name)
        (self.folder / name).unlink(missing_ok=True)
        before = self.aside / name
        if not before.exists():
            return False
        before.replace(self.folder / name)
        return True
