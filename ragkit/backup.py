"""A corpus as one file, and back: its current generation, with all that a search answers from.

Of the embedded engine, the shard's files are copied while the engine is closed and its lock is held, so they are of
one moment; a restored corpus gives the same hits and scores to the bit. Of a server, its own snapshot is taken,
fetched, and uploaded again. A server's snapshot holds what lies on the node that was asked: on a cluster each node
is backed up, and restored, by its own URL. What the corpus was before stays whole until the moment of the exchange.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

import ragkit
from ragkit import qdrant
from ragkit.archive import Manifest, extract_archive, read_manifest, require_room, taken, write_archive
from ragkit.client import header_key, is_url, masked
from ragkit.generations import Folder, Server
from ragkit.names import check_corpus
from ragkit.reindex import open_current
from ragkit.settings import QdrantSettings
from ragkit.store import Store, StoreError

SNAPSHOT = "collection.snapshot"  # the one file of a server's backup
HOURS = 6 * 3600  # seconds that a server may take over a snapshot


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup, made or restored."""

    file: str
    corpus: str
    fingerprint: str
    points: int
    bytes: int  # of the file
    node: str  # of a cluster: the one that this is a part of; "" where it is all


def backup(location: str | Path, corpus: str, out: str | Path, settings: QdrantSettings | None = None) -> Kept:
    """Write the corpus' current generation to ``out``; a folder, or what ends in a slash and becomes one, gets a file
    named by the corpus, the time, and the node where there are several.

    Raises :class:`CorpusInUse` where another process has the embedded corpus open, StoreError where a server's
    snapshot does not arrive whole. A file of that name is replaced once the new one is whole.
    """
    settings = _patient(settings)
    with open_current(location, corpus, settings) as store:
        return backup_store(store, out)


def backup_store(store: Store, out: str | Path) -> Kept:
    """:func:`backup` of a corpus that is open here. Nothing may use an embedded one meanwhile."""
    named_folder = str(out).endswith(("/", os.sep))  # though it be none yet
    out = Path(out)
    made = datetime.now(UTC)
    client: Any = store.client
    kind = "server" if is_url(store.location) else "embedded"
    node = _node(client) if kind == "server" else ""
    if named_folder or out.is_dir():
        name = "-".join([store.corpus, f"{made:%Y%m%dT%H%M%SZ}", *node.split()[:2]])
        out /= f"{name}.tar.gz"
    info = client.get_collection(store.collection)
    parameters = info.config.params.model_dump(mode="json", exclude_none=True)
    manifest = Manifest(
        kind=kind,
        corpus=store.corpus,
        fingerprint=store.fingerprint,
        points=store.count(everybody=True),
        made=made.isoformat(timespec="seconds"),
        ragkit=ragkit.__version__,
        engine="",
        collection={"params": parameters, "metadata": info.config.metadata or {}},
        node=node,
    )
    if kind == "server":
        manifest = replace(manifest, engine=f"qdrant {client.info().version}")
        with tempfile.TemporaryDirectory(prefix=f".{store.corpus}.", dir=_made(out.parent)) as fetched:
            snapshot = Path(fetched) / SNAPSHOT
            _fetch(client, store, snapshot)
            manifest = write_archive(out, lambda files: replace(manifest, files=files), {SNAPSHOT: snapshot})
    else:
        engine = f"qdrant-edge {importlib.metadata.version('qdrant-edge-py')}"
        with client.at_rest() as shard:
            disk = taken(shard)
            require_room(out.parent, disk // 4)  # a guess: how well vectors compress is not known before
            files = {path.relative_to(shard).as_posix(): path for path in shard.rglob("*") if path.is_file()}
            manifest = replace(manifest, engine=engine, disk=disk)
            manifest = write_archive(out, lambda facts: replace(manifest, files=facts), files)
    return _kept(out, manifest)


def restore(
    source: str | Path,
    location: str | Path,
    corpus: str,
    *,
    replace_existing: bool = False,
    settings: QdrantSettings | None = None,
) -> Kept:
    """Put a backup in place and make it the corpus' current generation.

    A corpus that is there is refused, or with ``replace_existing`` exchanged once the backup has been read whole and
    the engine has counted its points. Raises :class:`BackupError` for a damaged file, StoreError for another corpus,
    place or a full disk, :class:`CorpusInUse` where another process has the corpus open; then nothing has changed.
    """
    check_corpus(corpus)
    source = Path(source)
    manifest = read_manifest(source)
    if manifest.corpus != corpus:
        raise StoreError(
            f"{source} is of the corpus {manifest.corpus!r}, not {corpus!r}: passages are known by their corpus' name, "
            f"so give --corpus {manifest.corpus}, and another --store to have it beside the present one"
        )
    place = "server" if is_url(location) else "embedded"
    if manifest.kind != place:
        raise StoreError(
            f"{source} is of the {manifest.kind} engine ({manifest.engine}), {masked(location)} is not: their files "
            f"differ. Give {'the URL of a Qdrant server' if manifest.kind == 'server' else 'a folder'} as --store"
        )
    into = _into_server if place == "server" else _into_folder
    into(source, manifest, str(location), replace_existing, _patient(settings))
    return _kept(source, manifest)


def _into_folder(source: Path, manifest: Manifest, location: str, replace_existing: bool, _: QdrantSettings) -> None:
    from ragkit.edge import exchange

    root = Path(location).expanduser().resolve()
    generations = Folder(root)
    current = generations.current(manifest.corpus)
    _refuse_present(manifest, location, current, replace_existing)
    require_room(root, manifest.disk)
    if current is not None:
        generations.make_current(manifest.corpus, current)  # said outright, before there is a second one
    folder = root / f"{manifest.corpus}--{manifest.fingerprint}"
    exchange(folder, manifest.collection, lambda shard: _extracted(source, manifest, shard), manifest.points)
    generations.make_current(manifest.corpus, manifest.fingerprint)


def _extracted(source: Path, manifest: Manifest, shard: Path) -> None:
    if extract_archive(source, shard) != manifest:
        raise StoreError(f"{source} was exchanged while it was being read: nothing was changed; begin again")


def _refuse_present(manifest: Manifest, location: str, current: str | None, replace_existing: bool) -> None:
    if current is not None and not replace_existing:
        raise StoreError(
            f"there is a corpus {manifest.corpus!r} at {masked(location)}: --replace puts the backup of "
            f"{manifest.made} in its place, another --store has it beside"
        )


# ---------------------------------------------------------------------- a server


def _into_server(source: Path, manifest: Manifest, url: str, replace_existing: bool, settings: QdrantSettings) -> None:
    with tempfile.TemporaryDirectory(prefix="ragkit-restore-") as folder:
        require_room(Path(folder), sum(size for size, _ in manifest.files.values()))
        _extracted(source, manifest, Path(folder))
        [(_, digest)] = manifest.files.values()
        client = qdrant.connect(url, settings)
        try:
            generations = Server(client)
            name = f"{manifest.corpus}--{manifest.fingerprint}"
            node = _node(client)
            if bool(node) != bool(manifest.node):
                raise StoreError(
                    f"{source} was made of {f'a cluster ({manifest.node})' if manifest.node else 'one node'}, "
                    f"{masked(url)} is {f'a cluster ({node})' if node else 'one node'}: a snapshot goes back to where "
                    "it came from. Elsewhere, ingest again"
                )
            current = generations.current(manifest.corpus)
            _refuse_present(
                manifest, url, current or (name if client.collection_exists(name) else None), replace_existing
            )
            with _http(url, settings) as http, (Path(folder) / SNAPSHOT).open("rb") as file:
                _done(
                    http.post(
                        f"/collections/{name}/snapshots/upload",
                        params={"wait": "true", "priority": "snapshot", "checksum": digest},
                        files={"snapshot": (SNAPSHOT, file, "application/octet-stream")},
                    ),
                    "recover from the snapshot",
                )
            found = client.count(name, exact=True).count
            if not node and found != manifest.points:
                raise StoreError(
                    f"{name} at {masked(url)} holds {found} points after the restore, the backup {manifest.points}: "
                    f"the alias {manifest.corpus!r} was left as it was. Was something written meanwhile? Restore again"
                )
            generations.make_current(manifest.corpus, manifest.fingerprint)
        finally:
            client.close()


def _fetch(client: Any, store: Store, path: Path) -> None:
    """Have the server take a snapshot, download it, and have it removed there."""
    described = client.create_snapshot(store.collection, wait=True)
    try:
        address = f"/collections/{store.collection}/snapshots/{described.name}"
        require_room(path.parent, 2 * described.size)  # as it comes, and in the archive
        with (
            _http(store.location, _patient(store.settings)) as http,
            http.stream("GET", address) as response,
            path.open("wb") as file,
        ):
            _done(response, "give out its snapshot")
            for block in response.iter_bytes():
                file.write(block)
        _check(path, described)
    finally:
        client.delete_snapshot(store.collection, described.name, wait=True)


def _check(path: Path, described: Any) -> None:
    import hashlib

    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if size != described.size or (described.checksum and described.checksum != digest):
        raise StoreError(
            f"the snapshot {described.name} did not arrive whole ({size} of {described.size} bytes, SHA-256 {digest}, "
            f"expected {described.checksum or 'not told'}): no backup was written; run it again"
        )


def _node(client: Any) -> str:
    """Which node of how many this client asks; "" where it is the only one."""
    status = client.cluster_status()
    peers = getattr(status, "peers", None) or {}
    return f"node {status.peer_id} of {len(peers)}" if len(peers) > 1 else ""


@contextmanager
def _http(url: str, settings: QdrantSettings) -> Iterator[httpx.Client]:
    key = header_key(settings.api_key)
    headers = {"api-key": key} if key else {}
    parts = urlsplit(url)
    if parts.port is None:  # as QdrantClient has it
        url = parts._replace(netloc=f"{parts.netloc}:6333").geturl()
    verify: Any = True
    if settings.ca:
        import ssl

        verify = ssl.create_default_context(cafile=settings.ca)
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=settings.timeout, verify=verify) as http:
            yield http
    except httpx.HTTPError as error:
        raise StoreError(
            f"the Qdrant server at {masked(url)} broke off ({error!r}): nothing was changed here; again"
        ) from error


def _done(response: httpx.Response, what: str) -> None:
    if response.status_code >= 400:
        response.read()
        raise StoreError(f"the Qdrant server did not {what}: {response.status_code} {response.text[:300]}")


def _patient(settings: QdrantSettings | None) -> QdrantSettings:
    settings = settings or QdrantSettings()
    return replace(settings, timeout=max(settings.timeout, HOURS))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _kept(file: Path, manifest: Manifest) -> Kept:
    return Kept(str(file), manifest.corpus, manifest.fingerprint, manifest.points, file.stat().st_size, manifest.node)
