"""One writer per run: a lock that the kernel frees when its holder dies, and a number that grows with every holder.

The lock is a POSIX record lock, which a loader's worker does not inherit: a run that was killed is free at once,
whatever its children still do. Such a lock also goes when the holder closes any descriptor of the file, so nothing
else in the package opens it; it lies beside the run's folder and not in it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from tunesmith.errors import StorageError

_held: dict[Path, RunLock] = {}
"""Record locks do not hold against one's own process."""


class RunLock:
    """The right to write into one run; a context manager.

    Args:
        root: the run's folder, which need not exist yet.

    Raises:
        StorageError: on entering: another process holds it, or the file system cannot lock.
    """

    def __init__(self, root: Path) -> None:
        root = root.absolute()
        self.root = root
        self.path = root.parent.resolve() / f".{root.name}.lock"
        self.number = 0
        """Grows with every holder: a writer with a smaller one than the file says has been replaced."""
        self._descriptor = -1
        self._since = ""

    def __enter__(self) -> RunLock:
        if int(os.environ.get("RANK") or 0) > 0:  # one of several that compute together: the first has the lock
            return self
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError, FileNotFoundError) as error:
            raise StorageError(
                f"there can be no folder for runs here ({error.strerror})",
                place=str(self.path.parent),
                remedy="set output_dir to a folder that is there or can be made",
            ) from error
        if self.path in _held:
            raise self._in_use(_held[self.path].writer)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                said = _read(descriptor)
                os.close(descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise self._in_use(said) from None
                raise StorageError(
                    f"the file system cannot lock a file ({error.strerror}), so two runs could write over each other",
                    place=str(self.path),
                    remedy="set output_dir to a local disk, and checkpoints.mirror to where they should be kept",
                ) from error
            if _same_file(self.path, descriptor):
                break
            os.close(descriptor)  # it was removed between opening and locking
        self._descriptor = descriptor
        self.number = int(_read(descriptor).get("number", 0)) + 1
        self._since = datetime.now(UTC).isoformat(timespec="seconds")
        text = json.dumps(self.writer, indent=1).encode() + b"\n"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
        os.fsync(descriptor)
        _held[self.path] = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            _held.pop(self.path, None)
            os.close(self._descriptor)
            self._descriptor = -1

    @property
    def writer(self) -> dict[str, Any]:
        """Who holds it, for the lock itself and for every manifest."""
        return {"number": self.number, "pid": os.getpid(), "host": socket.gethostname(), "since": self._since}

    def require(self) -> None:
        """Make sure that nobody took the run over; called before anything is given its final name.

        Raises:
            StorageError: the lock's file is gone or says that a later writer came.
        """
        if self._descriptor < 0:
            return
        said = _read(self._descriptor)
        if _same_file(self.path, self._descriptor) and said.get("number") == self.number:
            return
        later = self._said()
        raise StorageError(
            f"another process took this run over: {_who(later)}" if later else "the lock of this run was removed",
            place=str(self.path),
            remedy="let one of them finish; nothing more was written by this one",
        )

    def _said(self) -> dict[str, Any]:
        # Only where we do not hold it: closing a descriptor would give it up.
        try:
            return dict(json.loads(self.path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def _in_use(self, said: dict[str, Any]) -> StorageError:
        return StorageError(
            f"this run is in use by {_who(said)}",
            place=str(self.root),
            remedy="wait for it or stop it (the run continues afterwards), or give this run another name",
        )


def _who(said: dict[str, Any]) -> str:
    if "pid" not in said:
        return "another process, which has only just begun"
    return f"process {said['pid']} on {said['host']}, since {said['since']}"


def _read(descriptor: int) -> dict[str, Any]:
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return {}


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
