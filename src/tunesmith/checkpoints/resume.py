"""The newest checkpoint that verifies; what does not is set aside with the reason."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.checkpoints.commit import FORMAT, MANIFEST, PREFIX, STAGING, Manifest, digest
from tunesmith.errors import ConfigError, NoCheckpointError

log = logging.getLogger(__name__)

CORRUPT = "corrupt-"


class Found(NamedTuple):
    """A checkpoint to continue from."""

    path: Path
    manifest: Manifest


def find_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Found | None:
    """The newest complete checkpoint of this run; None where none was ever written.

    Half-written and corrupt ones are renamed to `corrupt-...` and named in the log, never used and never deleted.

    Args:
        folder: the run's checkpoints.
        identity: what the checkpoint must agree with.

    Raises:
        NoCheckpointError: there are checkpoints and none verifies.
        ConfigError: the newest belongs to other settings, data or base.
    """
    for leftover in folder.glob(f"{STAGING}*"):
        shutil.rmtree(leftover)  # never had a name, so nobody can have relied on it
    candidates = sorted((p for p in folder.glob(f"{PREFIX}*") if p.is_dir()), key=_step, reverse=True)
    reasons = []
    for path in candidates:
        manifest, reason = verify(path)
        if manifest is None:
            aside = _free_name(path.with_name(f"{CORRUPT}{path.name}"))
            path.rename(aside)
            reasons.append(f"{path.name}: {reason}")
            log.warning("checkpoint %s is not used: %s; it now lies in %s", path.name, reason, aside)
            continue
        _require_same(path, manifest.identity, identity)
        return Found(path, manifest)
    reasons += [f"{p.name} was set aside before" for p in folder.glob(f"{CORRUPT}*")] if not candidates else []
    if reasons:  # to begin again in silence would throw the run away
        raise NoCheckpointError(
            "no checkpoint verifies: " + "; ".join(reasons),
            place=str(folder),
            remedy="they lie beside it as corrupt-*; restore one from a copy, or start anew with --fresh",
        )
    return None


def verify(path: Path) -> tuple[Manifest | None, str]:
    """The manifest when every file is there, whole and as it was written; else None and why."""
    try:
        said = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            return None, f"it has format {said['format']}, this version reads {FORMAT}"
        files = {name: (int(size), str(sha)) for name, (size, sha) in said["files"].items()}
        manifest = Manifest(int(said["step"]), dict(said["identity"]), files)
    except FileNotFoundError:
        return None, "it has no manifest: it was never finished"
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return None, f"its manifest cannot be read ({error})"
    if manifest.step != _step(path):
        return None, f"its manifest is that of step {manifest.step}"
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()} - {MANIFEST}
    if missing := sorted(set(files) - present):
        return None, f"{missing[0]} is missing"
    if extra := sorted(present - set(files)):
        return None, f"{extra[0]} is not in its manifest"
    for name, (size, sha) in files.items():
        if (path / name).stat().st_size != size:
            return None, f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
        if digest(path / name) != sha:
            return None, f"{name} is not what was written (its sha256 differs)"
    return manifest, ""


def prune(folder: Path, keep: int) -> None:
    """Delete all but the `keep` newest complete checkpoints, by step and never by clock."""
    complete = sorted((p for p in folder.glob(f"{PREFIX}*") if (p / MANIFEST).exists()), key=_step)
    for path in complete[:-keep]:
        doomed = path.with_name(f"{STAGING}{path.name}")  # renamed first: a half-deleted folder has no valid name
        path.rename(doomed)
        shutil.rmtree(doomed)


def _free_name(path: Path) -> Path:
    number = 2
    free = path
    while free.exists():
        free, number = path.with_name(f"{path.name}.{number}"), number + 1
    return free


def _step(path: Path) -> int:
    tail = path.name.removeprefix(PREFIX)
    return int(tail) if tail.isdecimal() and tail.isascii() else -1


def _require_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    differing = [key for key in sorted({*theirs, *ours}) if theirs.get(key) != ours.get(key)]
    if differing:
        shown = "; ".join(f"{key}: {theirs.get(key)!r} then, {ours.get(key)!r} now" for key in differing)
        raise ConfigError(
            f"the checkpoint was written by another run: {shown}",
            place=str(path),
            remedy="restore those settings or data, give the run another name, or start anew with --fresh",
        )
