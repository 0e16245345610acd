"""A run's folder as it is kept elsewhere: immutable objects first, then one manifest that names them.

    <run>/lease/00000003.json              who may write, see `storage.lease`
    <run>/00000003/objects/<sha256>        contents, each once
    <run>/00000003/0000000007.json         a manifest: the 7th snapshot of the third writer

A snapshot exists when its manifest does, and the newest is that of the highest writer, then of the highest number. What
a writer that lost its lease may still put there stands under its own, lower number.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tunesmith.checkpoints.names import Unsafe, checked_files, checked_step, refuse_code
from tunesmith.storage import MissingError, NotAsWrittenError, Store, fetch, get, put_verified

log = logging.getLogger(__name__)

FORMAT = 1
LIMIT = 16 * 1024 * 1024
"""Most bytes of a manifest."""
_MANIFEST = re.compile(r"(\d{8})/(\d{10})\.json")


class Snapshot(NamedTuple):
    """What a manifest says."""

    run: str
    writer: int
    """The writer's number, from its lease."""
    number: int
    """Of this writer's snapshots."""
    since: int
    """Writer with which the run began; snapshots of lower ones are of an older run of the same name."""
    step: int
    """Of the newest checkpoint in it, 0 without one."""
    complete: bool
    """Whether the run was at its end."""
    files: Mapping[str, tuple[int, str]]
    """Path in the run's folder to (bytes, sha256)."""

    @property
    def key(self) -> str:
        """Of its manifest."""
        return f"{self.run}/{self.writer:08d}/{self.number:010d}.json"

    def object_key(self, sha256: str) -> str:
        """Of a content it refers to."""
        return f"{self.run}/{self.writer:08d}/objects/{sha256}"

    def to_bytes(self) -> bytes:
        """The manifest."""
        return json.dumps({"format": FORMAT, **self._asdict()}, ensure_ascii=False, indent=1).encode()


def read_snapshot(content: bytes, key: str) -> Snapshot:
    """A manifest from outside, believed in no point that was not looked at.

    Raises:
        Unsafe: it is not one that we write.
    """
    try:
        said = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unsafe(f"its manifest cannot be read ({str(error)[:100]})") from error
    if not isinstance(said, dict) or said.get("format") != FORMAT:
        kind = said.get("format") if isinstance(said, dict) else None
        raise Unsafe(f"its manifest has format {str(kind)[:20]!r}, this version reads {FORMAT}")
    try:
        numbers = {name: checked_step(said[name]) for name in ("writer", "number", "since", "step")}
        found = Snapshot(
            run=str(said["run"]), complete=said["complete"] is True, files=checked_files(said["files"]), **numbers
        )
    except KeyError as error:
        raise Unsafe(f"its manifest does not say its {error.args[0]}") from error
    if found.key != key:
        raise Unsafe(f"its manifest is that of {found.key[:200]!r}")
    refuse_code(found.files)
    return found


def list_snapshots(store: Store, run: str) -> list[str]:
    """Keys of a run's manifests, newest first."""
    found = []
    for entry in store.list(run):
        match = _MANIFEST.fullmatch(entry.key.removeprefix(f"{run}/"))
        if match:
            found.append((match.groups(), entry.key))
    return [key for _, key in sorted(found, reverse=True)]


def snapshots(store: Store, run: str) -> Iterator[tuple[str, Snapshot | None, str]]:
    """(key, manifest or None, why not) of every snapshot of the run as it is now, newest first."""
    since = 0
    for key in list_snapshots(store, run):
        try:
            found = read_snapshot(get(store, key, LIMIT), key)
        except (Unsafe, NotAsWrittenError, MissingError) as error:
            yield key, None, str(error)
            continue
        if found.writer < since:
            return
        since = max(since, found.since)
        yield key, found, ""


def upload(
    store: Store,
    snapshot: Snapshot,
    contents: Mapping[str, bytes | Path],
    known: set[str],
    before_manifest: Callable[[], None] = lambda: None,
) -> int:
    """Put a snapshot into the store: objects, each read back and compared, and last its manifest.

    Args:
        store: where.
        snapshot: what the manifest will say.
        contents: path in the run's folder to its content.
        known: digests this writer has verified there before; those of this snapshot are added.
        before_manifest: called between the last object and the manifest; raises when we may not write any more.

    Returns:
        Bytes of the objects that had to be sent.

    Raises:
        StorageError: the store refused; no manifest is there then, and the next call sends only what is missing.
        FileNotFoundError: a file is gone.
    """
    sent = 0
    for path, (size, sha) in snapshot.files.items():
        if sha in known:
            continue
        put_verified(store, snapshot.object_key(sha), contents[path], sha)
        sent += size
        known.add(sha)
    before_manifest()
    body = snapshot.to_bytes()
    put_verified(store, snapshot.key, body, hashlib.sha256(body).hexdigest(), create=True)
    return sent


def download(store: Store, snapshot: Snapshot, folder: Path, wanted: Iterable[str]) -> None:
    """Fetch files of a snapshot into an empty folder, each compared with its digest while it comes.

    Raises:
        NotAsWrittenError: an object has another content.
        MissingError: an object is not there.
    """
    folder.mkdir(parents=True)
    first: dict[str, Path] = {}
    for path in wanted:
        size, sha = snapshot.files[path]
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if sha in first:
            shutil.copyfile(first[sha], target)
            continue
        fetch(store, snapshot.object_key(sha), target, size, sha)
        first[sha] = target


def prune(store: Store, run: str, keep: int, writer: int) -> int:
    """Delete what newer snapshots made superfluous: manifests first, then the contents nobody refers to any more.

    Of each step the newest snapshot stays, and of the steps the `keep` newest: by number, never by clock. A snapshot
    whose manifest cannot be read counts for nothing and is not touched, nor is what a higher writer wrote.

    Args:
        store: where.
        run: the run's name.
        keep: how many steps stay, at least one.
        writer: ours.

    Returns:
        How many snapshots went.
    """
    kept: list[Snapshot] = []
    gone: list[Snapshot] = []
    for _, snapshot, _ in snapshots(store, run):
        if snapshot is None:
            continue
        superfluous = len(kept) >= max(1, keep) or any(other.step == snapshot.step for other in kept)
        (gone if superfluous and snapshot.writer <= writer else kept).append(snapshot)
    for snapshot in gone:
        store.delete(snapshot.key)
    needed = {snapshot.object_key(sha) for snapshot in kept for _, sha in snapshot.files.values()}
    dropped = {snapshot.object_key(sha) for snapshot in gone for _, sha in snapshot.files.values()}
    for key in sorted(dropped - needed):
        store.delete(key)
    if kept and kept[0].since > 1 and kept[0].step:  # the run was started anew, and has something to show
        _delete_before(store, run, kept[0].since)
    return len(gone)


def _delete_before(store: Store, run: str, since: int) -> None:
    doomed = []
    for entry in store.list(run):
        writer = entry.key.removeprefix(f"{run}/").partition("/")[0]
        if writer.isascii() and writer.isdigit() and int(writer) < since:
            doomed.append(entry.key)
    for key in sorted(doomed, key=lambda key: "/objects/" in key):  # manifests first
        store.delete(key)
