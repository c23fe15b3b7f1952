"""Follow folders: what changes in them is brought into the store as it happens, by watchfiles (MIT).

The watcher starts before the first whole run, so that no change falls between the two. After that only the
paths that changed are looked at. A deletion that was seen happen is one, also of the last file of a
folder; a root that disappears is not: what is stored of it stays until it is back, when it is looked at
as a whole, or until a run of :func:`ragkit.ingest.ingest` is told that it may go. A share that is unmounted
and mounted again between two looks, half a second apart or as long as a change takes to embed, is not noticed.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ragkit.files import find_files
from ragkit.ingest import IngestReport, Sync, check_roots
from ragkit.limits import Limits
from ragkit.readers import READERS, Reader

if TYPE_CHECKING:
    import watchfiles

    from ragkit.encoder import Encoder
    from ragkit.store import Store

_log = logging.getLogger(__name__)


class Stop(Protocol):
    """A threading.Event, or what else says when to stop."""

    def is_set(self) -> bool: ...


def watch(
    paths: Sequence[str | Path],
    store: Store,
    encoder: Encoder,
    *,
    passage_tokens: int = 200,  # as ingest takes them, like all that follow
    batch: int = 64,
    limits: Limits | None = None,
    readers: Mapping[str, Reader] = READERS,
    allow_empty: bool = False,
    wait: float = 1.6,  # seconds: changes that come sooner after each other are looked at together
    stop: Stop | None = None,  # when to end; without it, with the process
) -> Iterator[IngestReport]:
    """A report of the first whole run, then one of each group of changes. Raises what ingest raises: the
    first run refuses a root that does not exist, or one that is empty though documents of it are stored."""
    import watchfiles

    roots = check_roots(paths)
    sync = Sync(store, encoder, passage_tokens, batch, limits or Limits(), dict(readers), allow_empty)
    for root in roots:
        sync.refuse_vanished(root)

    def listen() -> tuple[dict[Path, _Identity | None], Generator[set[watchfiles.main.FileChange]]]:
        while True:
            identities = {root: _identity(root) for root in roots}
            changes = watchfiles.watch(
                *(root for root, there in identities.items() if there),
                watch_filter=None,  # the default leaves out what editors make; find_files says which files count
                debounce=int(wait * 1000),
                rust_timeout=500,
                yield_on_timeout=True,
                stop_event=stop,
                raise_interrupt=False,
                ignore_permission_denied=True,
            )
            try:
                _ = next(changes, None)  # starts it
            except FileNotFoundError:  # a root went between the two
                continue
            return identities, changes

    def deleted(change: Iterable[watchfiles.main.FileChange]) -> set[Path]:
        return {Path(path) for kind, path in change if kind is watchfiles.Change.deleted}.intersection(roots)

    known, changes = listen()
    yield sync([(root, root) for root in roots])
    gone: set[Path] = set()
    while (change := next(changes, None)) is not None:
        # A watcher follows what it began with, not what has its name now; of a share that goes it is told nothing. A
        # mount point without its share holds no documents: nothing of it was deleted.
        gone |= deleted(change) | {root for root in roots if _identity(root) != known[root]}
        back = [root for root in gone if any(isinstance(entry, Path) for entry in find_files(root, sync.readers))]
        if back:
            before, (known, changes) = changes, listen()
            if (rest := next(before, None)) is None:  # ended while the new one started
                return
            before.close()
            gone = gone.difference(back) | deleted(rest)
            change |= rest
        targets = [(root, root) for root in back]
        changed = {Path(path) for _, path in change}
        targets += [target for target in _targets(roots, changed) if target[0] not in gone.union(back)]
        if targets:
            report = sync(targets)
            if report.added or report.changed or report.removed or report.skipped:
                yield report


_Identity = tuple[int, int]  # device and inode


def _identity(root: Path) -> _Identity | None:
    try:
        found = root.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _targets(roots: Sequence[Path], changed: Iterable[Path]) -> list[tuple[Path, Path]]:
    """(root, path) of what is to be looked at: nothing hidden or behind a link to a folder, no path twice."""
    targets: list[tuple[Path, Path]] = []
    for path in sorted(changed):
        root = next((root for root in roots if path == root or root in path.parents), None)
        if root is None or any(path == done or done in path.parents for _, done in targets):
            continue
        if not root.exists():
            _log.warning("%s is gone: what is stored of it is kept", root)
            continue
        between = [parent for parent in path.parents if root in parent.parents]
        if any(part.startswith(".") for part in path.relative_to(root).parts) or any(p.is_symlink() for p in between):
            continue
        if path != root or not root.is_dir():  # of the root itself: only its attributes, what is in it comes by name
            targets.append((root, path))
    return targets
