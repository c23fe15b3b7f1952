"""The ground that ragkit stands on: installed versions, free disk, free memory. Nothing is imported to find out."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from ragkit.types import Finding


def check_versions() -> Iterator[Finding]:
    """Installed packages against what ragkit asks for; extras that are not installed are no fault."""
    from packaging.requirements import Requirement

    wrong = []
    for line in importlib.metadata.requires("ragkit") or ():
        wanted = Requirement(line)
        extra = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            if not extra:
                wrong.append(f"{wanted.name} is not installed, wanted {wanted.specifier}")
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted.name} {version}, wanted {wanted.specifier}")
    told = "; ".join(wrong) or f"ragkit {importlib.metadata.version('ragkit')}, its packages as it wants them"
    yield Finding("versions", "failed" if wrong else "ok", told)


def check_room(folders: Mapping[str, Path], weights: int) -> Iterator[Finding]:
    """Free disk below the folders (1 GB), and memory for ``weights`` bytes and as much again."""
    for name, folder in folders.items():
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        low = free < 1 << 30
        yield Finding(f"disk ({name})", "warning" if low else "ok", f"{free / 2**30:.1f} GB free at {there}")
    free, wanted = free_memory(), 2 * weights + (1 << 29)
    if free is not None:
        told = f"{free / 2**30:.1f} GB free, about {wanted / 2**30:.1f} GB wanted"
        yield Finding("memory", "warning" if free < wanted else "ok", told)


def free_memory() -> int | None:
    """Bytes this process may still take: the machine's, or the container's where that is less."""
    found = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        lines = [line.split() for line in meminfo.read_text().splitlines()]
        found += [int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"]
    elif hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and limit.read_text().strip() != "max":
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found, default=None)
