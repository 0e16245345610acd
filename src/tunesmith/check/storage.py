"""A round trip through every place that the run will write to, its mirror too: write, read back, compare, delete."""

from __future__ import annotations

import errno
import hashlib
import os
import time
import uuid
from pathlib import Path

from tunesmith.check.disk import existing
from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.errors import StorageError, TunesmithError
from tunesmith.storage import open_store, put_verified
from tunesmith.types import Finding

_BYTES = 1 << 20
_SLOW = 5e6
"""Bytes per second below which a checkpoint of gigabytes takes many minutes."""


def check_storage(subject: Subject) -> Looked:
    """Write a megabyte where runs and prepared rows go, read it back and delete it."""
    findings: list[Finding] = []
    rates = []
    for key, folder in (("output_dir", subject.loaded.config.output_dir), ("data.cache_dir", subject.cache_dir)):
        rate, finding = round_trip(folder, key)
        findings += [finding] if finding else []
        rates += [rate] if rate else []
    if (mirror := subject.loaded.config.checkpoints.mirror) is not None:
        findings += [finding] if (finding := mirror_round_trip(mirror)) else []
    return Looked(findings, {"MB/s": min(rates, default=0.0) / 1e6})


def mirror_round_trip(url: str) -> Finding | None:
    """What is wrong with a mirror: a small object is created once, read back, listed and deleted there."""
    key = f".tunesmith-check/{uuid.uuid4().hex}"
    content = key.encode()
    try:
        store = open_store(url)
        put_verified(store, key, content, hashlib.sha256(content).hexdigest(), create=True)
        try:
            if [entry.key for entry in store.list(".tunesmith-check") if entry.key == key] != [key]:
                raise StorageError(
                    "what was written there is not listed", place=url, remedy="see the bucket's permissions"
                )
        finally:
            store.delete(key)
    except TunesmithError as error:
        return Finding(
            "storage.mirror", "error", f"the mirror cannot be used: {error.message}", f"checkpoints.mirror: {url}",
            error.remedy, "the run stops before its first step, or loses its copies",
        )  # fmt: skip
    return None


def round_trip(folder: Path, key: str = "") -> tuple[float, Finding | None]:
    """Bytes per second through a folder, and what is wrong with it.

    Only what did not exist before is created, and it is taken away again.
    """
    place, made = existing(folder), []
    name = f".tunesmith-check-{uuid.uuid4().hex}"
    content = os.urandom(_BYTES)
    try:
        below = Path(os.path.abspath(folder))
        while not below.exists():
            made.append(below)
            below = below.parent
        Path(folder).mkdir(parents=True, exist_ok=True)
        start = time.perf_counter()
        draft, final = Path(folder) / f"{name}.tmp", Path(folder) / name
        try:
            with draft.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(final)
            same = hashlib.sha256(final.read_bytes()).digest() == hashlib.sha256(content).digest()
        finally:
            draft.unlink(missing_ok=True)
            final.unlink(missing_ok=True)
        rate = _BYTES / max(time.perf_counter() - start, 1e-9)
    except OSError as error:
        return 0.0, Finding(
            "storage.unwritable", "error", f"nothing can be written here: {error.strerror}", f"{key}: {folder}",
            f"free some space there, or set {key} to a larger disk" if error.errno == errno.ENOSPC
            else f"chmod u+w {place}, or set {key} to a folder that can be written",
            "the run stops at its first checkpoint, or before",
        )  # fmt: skip
    finally:
        for one in made:
            if one.is_dir() and not any(one.iterdir()):
                one.rmdir()
    if not same:
        return rate, Finding(
            "storage.corrupts", "error", "what was written does not read back as it was", f"{key}: {folder}",
            f"set {key} to another disk; this one loses data", "checkpoints and exports that are not what was trained",
        )  # fmt: skip
    if rate < _SLOW:
        return rate, Finding(
            "storage.slow", "warning", f"a megabyte takes {_BYTES / rate:.1f} s to write and read back",
            f"{key}: {folder}", f"set {key} to a local disk, not a network one",
            "the GPU waits at every checkpoint",
        )  # fmt: skip
    return rate, None
