"""A backup's file: a gzipped tar with a manifest first, and nothing in it that the manifest does not name.

    manifest.json     what it is a copy of, by which versions, and each file's size and SHA-256
    files/...         the files

Written beside its place and renamed once it has been read back, so a file of the right name is a whole one. Read as
a stranger's: the manifest's names, of which paths are made, must stay below their folder; each member passes Python's
``data`` filter (no path leads out, no links, no devices), must be named by the manifest, once, and have its checksum.
The engine's files are mostly holes: those are left out, as GNU tar's sparse format 1.0 does, which `tar -x` knows too,
or from 8 GiB of data on left to gzip, and are holes again when read.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from ragkit.owner import NoRoom, StoreError, sync_folder

FORMAT = 1
BLOCK = 1 << 16  # bytes read at once
HOLE = bytes(BLOCK)  # the least that is left out
LARGE = 8**11  # bytes of a member whose size tarfile writes into a record of its own, which wins over a sparse file's
MANIFEST_BYTES = 64 << 20  # a manifest is 100 bytes a file
UNREADABLE = (ValueError, LookupError, ArithmeticError, struct.error)  # what tarfile lets through of a wrong header
LATER = "Nothing was changed: copy the file again if it came over a network, or take an earlier backup"


class BackupError(StoreError):
    """A backup that is damaged, or none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    kind: str  # "embedded" or "server": where it can be restored
    corpus: str
    fingerprint: str  # of the encoder: the generation's name
    points: int  # of everybody
    made: str  # time, UTC
    ragkit: str  # versions
    engine: str
    collection: dict[str, Any]  # parameters and metadata
    disk: int = 0  # bytes that the files took; less than their sizes, since they have holes
    node: str = ""  # of a cluster: whose part this is
    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # name -> bytes, SHA-256
    format: int = FORMAT


def write_archive(
    out: Path, describe: Callable[[dict[str, tuple[int, str]]], Manifest], files: Mapping[str, Path]
) -> Manifest:
    """``files`` by their names, and what ``describe`` says of them, whole or not at all. They must not change
    meanwhile: one that does is noticed."""
    scans = {name: _scan(path) for name, path in sorted(files.items())}
    manifest = describe({name: (scan.size, scan.digest) for name, scan in scans.items()})
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    try:
        with part.open("wb") as raw:
            with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1, format=tarfile.PAX_FORMAT) as tar:
                text = json.dumps(asdict(manifest), ensure_ascii=True, indent=1).encode()
                head = tarfile.TarInfo("manifest.json")
                head.size, head.mode = len(text), 0o600
                tar.addfile(head, io.BytesIO(text))
                for name, scan in scans.items():
                    with files[name].open("rb") as file:
                        _add(tar, f"files/{name}", scan, file)
            raw.flush()
            os.fsync(raw.fileno())
        check_archive(part)
        part.replace(out)
        sync_folder(out.parent)
        return manifest
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class _Scan:
    size: int
    digest: str  # SHA-256, holes read as zeros
    data: list[tuple[int, int]]  # offset, length of what is no hole


def _scan(path: Path) -> _Scan:
    digest, data, at = hashlib.sha256(), list[tuple[int, int]](), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            if block != HOLE:
                if data and sum(data[-1]) == at:
                    data[-1] = (data[-1][0], data[-1][1] + len(block))
                else:
                    data.append((at, len(block)))
            at += len(block)
    return _Scan(at, digest.hexdigest(), data)


def _add(tar: tarfile.TarFile, name: str, scan: _Scan, file: IO[bytes]) -> None:
    """GNU's sparse 1.0: the offsets and lengths stand in decimal lines before the data, filled up to 512 bytes. What is
    too large for that is an ordinary member, its holes zeros."""
    extents = [*scan.data, (scan.size, 0)]  # the last one says where the file ends, though it be a hole
    lines = [len(extents), *(number for extent in extents for number in extent)]
    table = "".join(f"{number}\n" for number in lines).encode()
    table += bytes(-len(table) % tarfile.BLOCKSIZE)
    size = len(table) + sum(length for _, length in scan.data)
    if size >= LARGE:
        whole = tarfile.TarInfo(name)
        whole.size, whole.mode = scan.size, 0o600
        tar.addfile(whole, file)
        return
    member = tarfile.TarInfo(
        f"GNUSparseFile.0/{len(tar.getmembers())}"
    )  # short: a long one would take the name's place
    member.size, member.mode = size, 0o600
    told = {"major": "1", "minor": "0", "name": name, "realsize": str(scan.size)}
    member.pax_headers = {f"GNU.sparse.{key}": value for key, value in told.items()}
    tar.addfile(member, _Data(table, file, scan.data))


class _Data(io.RawIOBase):
    """``table``, then the extents of ``file``, to be read once."""

    def __init__(self, table: bytes, file: IO[bytes], data: list[tuple[int, int]]) -> None:
        self._pieces = self._read_on(table, file, data)
        self._rest = b""

    def _read_on(self, table: bytes, file: IO[bytes], data: list[tuple[int, int]]) -> Iterator[bytes]:
        yield table
        for offset, length in data:
            file.seek(offset)
            while length and (block := file.read(min(length, BLOCK))):
                length -= len(block)
                yield block

    def read(self, size: int = -1) -> bytes:
        pieces, have = [self._rest], len(self._rest)
        while have < size and (piece := next(self._pieces, b"")):
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        self._rest = whole[size:]
        return whole[:size]


# ---------------------------------------------------------------------- reading


def read_manifest(source: Path) -> Manifest:
    """Raises BackupError where it is no backup, or not one that this version can read."""
    with _opened(source, to_its_end=False) as tar:
        return _manifest(source, tar)


def check_archive(source: Path) -> Manifest:
    """Read all of it, write nothing. Raises BackupError."""
    return _read(source, None)


def extract_archive(source: Path, target: Path) -> Manifest:
    """All files into ``target``, an empty folder, each synced to disk. Raises BackupError; what was written till then
    is the caller's to remove."""
    return _read(source, target)


def _read(source: Path, target: Path | None) -> Manifest:
    with _opened(source) as tar:
        manifest = _manifest(source, tar)
        expected = dict(manifest.files)
        while (member := tar.next()) is not None:
            name = tarfile.data_filter(member, str(target or Path.cwd())).name
            kind, _, name = name.partition("/")
            if name not in expected or kind != "files" or not member.isreg():
                raise BackupError(f"{source}: {member.name!r} is not in its manifest, or there twice. {LATER}")
            size, digest = expected.pop(name)
            stream = tar.extractfile(member)
            assert stream is not None  # a regular file
            if member.size != size or _copy(stream, target / name if target else None, size) != digest:
                raise BackupError(f"{source}: {name!r} is not what was written (size or SHA-256 differ). {LATER}")
        if expected:
            raise BackupError(f"{source}: {len(expected)} files are missing, such as {min(expected)!r}. {LATER}")
        return manifest


def _copy(stream: IO[bytes], path: Path | None, size: int) -> str:
    """The SHA-256 of what is read, and written where there is a ``path``; zeros become holes."""
    digest = hashlib.sha256()
    if path is None:
        while block := stream.read(BLOCK):
            digest.update(block)
        return digest.hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while block := stream.read(BLOCK):
            digest.update(block)
            _write(file, block)
        file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def copied(source: str, target: str) -> str:
    """As shutil.copy2 does it, but what is a hole stays one: a store's files are mostly holes."""
    with Path(source).open("rb") as whole, Path(target).open("wb") as file:
        while block := whole.read(BLOCK):
            _write(file, block)
        file.truncate()
    shutil.copystat(source, target)
    return target


def _write(file: IO[bytes], block: bytes) -> None:
    if block == HOLE:
        file.seek(len(block), os.SEEK_CUR)
    else:
        file.write(block)


@contextmanager
def _opened(source: Path, *, to_its_end: bool = True) -> Iterator[tarfile.TarFile]:
    """The archive; whatever its bytes are wrong in becomes a BackupError."""
    try:
        with gzip.open(source) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
            yield tar
            if to_its_end:
                while plain.read(BLOCK):  # what gzip checks, its CRC, comes last
                    pass
    except tarfile.FilterError as error:
        raise BackupError(f"{source} is hostile or damaged: {error}. Nothing was changed") from error
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, *UNREADABLE) as error:
        size = source.stat().st_size
        raise BackupError(
            f"{source} ({size} bytes) is cut off, damaged or no backup at all ({error}). {LATER}"
        ) from error


def _manifest(source: Path, tar: tarfile.TarFile) -> Manifest:
    first = tar.next()
    if first is None or first.name != "manifest.json" or not first.isreg() or first.size > MANIFEST_BYTES:
        raise BackupError(f"{source} is no backup: `ragkit backup` writes manifest.json first. Nothing was changed")
    stream = tar.extractfile(first)
    assert stream is not None  # a regular file
    try:
        fields = json.loads(stream.read())
        if fields["format"] > FORMAT:
            raise BackupError(
                f"{source} is of format {fields['format']}, made by ragkit {fields['ragkit']}; this version reads "
                f"{FORMAT}: install that version, or a later one"
            )
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in fields["files"].items()}
        manifest = Manifest(**{**fields, "files": files})
        if not re.fullmatch("[0-9a-f]{16}", manifest.fingerprint):
            raise BackupError(f"{source} is hostile: {manifest.fingerprint!r} is no fingerprint. Nothing was changed")
        if outside := [name for name in files if _leads_out(name)]:
            raise BackupError(f"{source} is hostile: a file in it is called {outside[0]!r}. Nothing was changed")
        return manifest
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackupError(f"{source}: its manifest cannot be read ({error!r}). {LATER}") from error


def _leads_out(name: str) -> bool:
    """Whether a file of that name might lie elsewhere than below the folder that it is put in, on any system."""
    return not {"", ".."}.isdisjoint(name.split("/")) or "\\" in name or bool(PureWindowsPath(name).drive)


def taken(folder: Path) -> int:
    """Bytes that the files below take on disk, holes not counted."""
    stats = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return sum(getattr(stat, "st_blocks", -(-stat.st_size // 512)) * 512 for stat in stats)  # Windows has no st_blocks


def require_room(folder: Path, wanted: int) -> None:
    """Raises NoRoom where the disk has less free than ``wanted`` bytes."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise NoRoom(
            f"{wanted / 1e6:,.0f} MB are needed at {folder}, {free / 1e6:,.0f} MB are free: make room and run this "
            "again"
        )
