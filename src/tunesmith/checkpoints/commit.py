"""A checkpoint exists when its manifest does: staged, hashed, synced, and only then given its name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "MANIFEST.json"
PREFIX = "checkpoint-"
STAGING = ".staging-"
FORMAT = 2
"""1 had the trainer's own pickles in it."""


class Manifest(NamedTuple):
    """What a complete checkpoint says of itself."""

    step: int
    identity: Mapping[str, Any]
    """What must agree for a resume: settings, data, base."""
    files: Mapping[str, tuple[int, str]]
    """Relative path to (bytes, sha256)."""
    writer: Mapping[str, Any] = {}
    """Who wrote it: process, host, and the number of the lock it held, which grows with every holder."""

    def text(self) -> str:
        """As it stands in the file: JSON with a digest of itself, so that no change of it goes unseen."""
        said = {"format": FORMAT, **self._asdict()}
        return json.dumps({**said, "digest": _digest(said)}, indent=1, sort_keys=True) + "\n"


def read_manifest(text: str) -> Manifest:
    """The manifest that `Manifest.text` wrote.

    Raises:
        ValueError: it is not one, is of another format, or is not as it was written; the message says which.
    """
    said = json.loads(text)
    if not isinstance(said, dict) or not isinstance(said.get("format"), int):
        raise ValueError("it is not a manifest")
    if said["format"] != FORMAT:
        raise ValueError(f"it has format {said['format']}, this version reads {FORMAT}")
    try:
        files = {str(name): (int(size), str(sha)) for name, (size, sha) in said["files"].items()}
        manifest = Manifest(int(said["step"]), dict(said["identity"]), files, dict(said["writer"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"it lacks {error}") from error
    if manifest.text() != text:
        raise ValueError("it is not what was written (its digest differs)")
    return manifest


def commit(
    staged: Path, final: Path, step: int, identity: Mapping[str, Any], writer: Mapping[str, Any] | None = None
) -> Manifest:
    """Make a finished folder of files a checkpoint: hash and sync every file, write the manifest last, rename.

    A process that dies at any point leaves either no folder of that name or a complete one.

    Args:
        staged: the folder as the trainer wrote it, on the same file system as `final`.
        final: the checkpoint's name; must not exist.
        step: optimizer steps done.
        identity: what a resume must agree with.
        writer: who writes it, as `RunLock.writer` says.

    Raises:
        OSError: the disk refused; nothing has the final name then.
    """
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        sync(path)
        files[path.relative_to(staged).as_posix()] = (path.stat().st_size, digest(path))
    for folder in (p for p in staged.rglob("*") if p.is_dir()):
        sync(folder)
    manifest = Manifest(step, json.loads(json.dumps(identity)), files, writer or {})
    draft = staged / f"{MANIFEST}.tmp"
    draft.write_text(manifest.text(), encoding="utf-8")
    sync(draft)
    draft.rename(staged / MANIFEST)
    sync(staged)
    staged.rename(final)
    sync(final.parent)
    return manifest


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Have the disk keep what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Write a file such that it has its old content or its new one, whenever the process dies."""
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    sync(draft)
    draft.replace(path)


def _digest(said: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
