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
FORMAT = 1


class Manifest(NamedTuple):
    """What a complete checkpoint says of itself."""

    step: int
    identity: Mapping[str, Any]
    """What must agree for a resume: settings, data, base."""
    files: Mapping[str, tuple[int, str]]
    """Relative path to (bytes, sha256)."""


def commit(staged: Path, final: Path, step: int, identity: Mapping[str, Any]) -> Manifest:
    """Make a finished folder of files a checkpoint: hash and sync every file, write the manifest last, rename.

    A process that dies at any point leaves either no folder of that name or a complete one.

    Args:
        staged: the folder as the trainer wrote it, on the same file system as `final`.
        final: the checkpoint's name; must not exist.
        step: optimizer steps done.
        identity: what a resume must agree with.

    Raises:
        OSError: the disk refused; nothing has the final name then.
    """
    files: dict[str, tuple[int, str]] = {}
    for path in sorted(p for p in staged.rglob("*") if p.is_file()):
        _sync(path)
        files[path.relative_to(staged).as_posix()] = (path.stat().st_size, digest(path))
    manifest = Manifest(step, identity, files)
    draft = staged / f"{MANIFEST}.tmp"
    draft.write_text(json.dumps({"format": FORMAT, **manifest._asdict()}, indent=1), encoding="utf-8")
    _sync(draft)
    draft.rename(staged / MANIFEST)
    _sync(staged)
    staged.rename(final)
    _sync(final.parent)
    return manifest


def digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
