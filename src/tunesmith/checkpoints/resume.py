"""The newest checkpoint that verifies, wherever it lies; what does not is set aside with the reason."""

from __future__ import annotations

import errno
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tunesmith.checkpoints.commit import MANIFEST, PREFIX, STAGING, Manifest, digest, read_manifest
from tunesmith.checkpoints.names import Unsafe, checked_files, plain_files, refuse_code
from tunesmith.config.identity import differences
from tunesmith.errors import ConfigError, NoCheckpointError

log = logging.getLogger(__name__)

CORRUPT = "corrupt-"
MAX_MANIFEST = 16 * 1024 * 1024
"""Bytes; ours have a few thousand."""


class Found(NamedTuple):
    """A checkpoint to continue from."""

    path: Path
    manifest: Manifest


class Place(Protocol):
    """Somewhere that checkpoints are kept: the run's folder, a mirror of it."""

    def steps(self) -> Iterable[int]:
        """Steps of the checkpoints there, complete or not."""

    def bring(self, step: int) -> Path:
        """A local folder `checkpoint-<step>` with the files of one. It is verified by who asked."""

    def set_aside(self, step: int, reason: str) -> str:
        """Take one that does not verify out of the way, without deleting it; returns where it now lies."""

    def lost(self) -> Sequence[str]:
        """Names of what was set aside before."""


class Folder:
    """A run's own checkpoints."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def steps(self) -> list[int]:
        """Steps of the folders named as checkpoints are."""
        return [_step(p) for p in self.path.glob(f"{PREFIX}*") if p.is_dir() and _step(p) >= 0]

    def bring(self, step: int) -> Path:
        """Where it is."""
        return self.path / f"{PREFIX}{step}"

    def set_aside(self, step: int, reason: str) -> str:
        """Rename it to `corrupt-...`."""
        path = self.bring(step)
        number, aside = 2, path.with_name(f"{CORRUPT}{path.name}")
        while aside.exists():
            aside, number = path.with_name(f"{CORRUPT}{path.name}.{number}"), number + 1
        path.rename(aside)
        return str(aside)

    def lost(self) -> list[str]:
        """Folders named `corrupt-...`."""
        return sorted(p.name for p in self.path.glob(f"{CORRUPT}*"))

    def clear(self) -> None:
        """Remove what never had a name, so that nobody can have relied on it. Only who holds the run's lock may."""
        for leftover in self.path.glob(f"{STAGING}*"):
            shutil.rmtree(leftover)


def find_checkpoint(places: Sequence[Place], identity: Mapping[str, Any]) -> Found | None:
    """The newest complete checkpoint of this run over all places; None where none was ever written.

    One that is half-written or corrupt is set aside where it lies and named in the log, never used and never deleted.

    Args:
        places: where to look; of two with the same step the earlier place is asked first.
        identity: what the checkpoint must agree with.

    Raises:
        NoCheckpointError: there are checkpoints and none verifies.
        ConfigError: the newest belongs to other settings, data or base.
        StorageError: a place cannot be read.
    """
    reasons = []
    candidates = [(step, -rank, place) for rank, place in enumerate(places) for step in place.steps()]
    for step, _, place in sorted(candidates, key=lambda one: one[:2], reverse=True):
        path = place.bring(step)
        manifest, reason = verify(path)
        if manifest is not None:
            _require_same(path, manifest.identity, identity)
            return Found(path, manifest)
        aside = place.set_aside(step, reason)
        reasons.append(f"{PREFIX}{step}: {reason}")
        log.warning("%s%d is not used: %s; it now lies in %s", PREFIX, step, reason, aside)
    reasons += [f"{name} was set aside before" for place in places for name in place.lost()] if not candidates else []
    if reasons:  # to begin again in silence would throw the run away
        raise NoCheckpointError(
            "no checkpoint verifies: " + "; ".join(reasons),
            place=", ".join(str(getattr(place, "path", place)) for place in places),
            remedy="they lie beside it as corrupt-*; restore one from a copy, or start anew with --fresh",
        )
    return None


def verify(path: Path) -> tuple[Manifest | None, str]:
    """The manifest when every file is there, whole and as it was written; else None and why.

    Raises:
        OSError: permission to look was refused, which says nothing about the checkpoint.
    """
    try:
        return _verify(path)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG):
            return None, f"it cannot be read ({error.strerror})"
        raise


def _verify(path: Path) -> tuple[Manifest | None, str]:
    try:
        present = set(plain_files(path)) - {MANIFEST}
        if not (path / MANIFEST).exists():
            return None, "it has no manifest: it was never finished"
        if (size := (path / MANIFEST).stat().st_size) > MAX_MANIFEST:
            return None, f"its manifest has {size:,} bytes"
        manifest = read_manifest((path / MANIFEST).read_text(encoding="utf-8"))
        checked_files(manifest.files)
        refuse_code(manifest.files)
    except Unsafe as error:
        return None, str(error)
    except (ValueError, RecursionError) as error:  # json.JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None, f"its manifest cannot be read ({error})"
    if manifest.step != _step(path):
        return None, f"its manifest is that of step {manifest.step}"
    if missing := sorted(set(manifest.files) - present):
        return None, f"{missing[0]} is missing"
    if extra := sorted(present - set(manifest.files)):
        return None, f"{extra[0]} is not in its manifest"
    for name, (size, sha) in manifest.files.items():
        if (path / name).stat().st_size != size:
            return None, f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
        if digest(path / name) != sha:
            return None, f"{name} is not what was written (its sha256 differs)"
    return manifest, ""


def prune(folder: Path, keep: int, may_go: Callable[[Path], bool] = lambda path: True) -> None:
    """Delete all but the `keep` newest complete checkpoints, by step and never by clock.

    Args:
        folder: the run's checkpoints.
        keep: how many stay; at least 1.
        may_go: whether one may be deleted, for instance because a mirror has it.
    """
    complete = sorted((p for p in folder.glob(f"{PREFIX}*") if (p / MANIFEST).exists()), key=_step)
    for path in complete[:-keep]:
        if may_go(path):
            doomed = path.with_name(f"{STAGING}{path.name}")  # renamed first: a half-deleted folder has no valid name
            path.rename(doomed)
            shutil.rmtree(doomed)


def _step(path: Path) -> int:
    tail = path.name.removeprefix(PREFIX)
    return int(tail) if tail.isdecimal() and tail.isascii() and len(tail) < 12 and str(int(tail)) == tail else -1


def _require_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    ours = json.loads(json.dumps(ours))  # as a manifest holds it: lists for tuples
    if differing := differences(theirs, ours):
        raise ConfigError(
            f"the checkpoint was written by another run: {'; '.join(differing)}",
            place=str(path),
            remedy="restore those settings or data, give the run another name, or start anew with --fresh",
        )
