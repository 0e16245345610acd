"""Copies of a run elsewhere, made while it goes on: training never waits for an upload, and the end does.

One thread sends snapshots. While it is busy or the store does not answer, newer ones replace older ones that have not
begun, so what waits is never more than one. What was said to be safe was written, read back and compared.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.checkpoints.snapshot import Snapshot, prune, upload
from tunesmith.config.secrets import redact
from tunesmith.errors import StorageError
from tunesmith.storage import Lease, LeaseLostError, Store

log = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the first and between later attempts; each doubles, and is drawn at random from half to all of it."""


class Pending(NamedTuple):
    """A snapshot to be sent."""

    step: int
    complete: bool
    contents: Mapping[str, bytes | Path]
    """Path in the run's folder to what it holds: bytes for what changes, a path for what does not."""
    pinned: str = ""
    """Name of the checkpoint that must not be deleted meanwhile."""
    expected: Mapping[str, str] = {}
    """Path to sha256 where that is known: what has changed on this disk since is not copied."""


@dataclass
class Status:
    """Where the mirror stands."""

    confirmed_step: int | None = None
    """Step of the newest snapshot that was read back and compared; None before the first."""
    complete: bool = False
    """Whether the run's end is among what is confirmed."""
    snapshots: int = 0
    """Confirmed by this process."""
    superseded: int = 0
    """Never sent because a newer one came first."""
    bytes_sent: int = 0
    failures: int = 0
    """Attempts that ended in an error."""
    outages: int = 0
    outage_seconds: float = 0.0
    error: str = ""
    """Of the outage that is on; empty when all is well."""
    lost: StorageError | None = field(default=None, repr=False)
    """Why nothing will be sent any more."""

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        names = ("confirmed_step", "complete", "snapshots", "superseded", "bytes_sent", "failures", "outages", "error")
        return {**{name: getattr(self, name) for name in names}, "outage_seconds": round(self.outage_seconds, 1)}


Tell = Callable[[int, Mapping[str, Any]], None]
"""Called with a step and what there is to say about the mirror at it, from the sending thread."""


class Replicator:
    """Sends snapshots of one run to one store, in the background.

    Args:
        store: where to.
        run: the run's name there.
        lease: our right to write; looked at again before every manifest.
        since: the writer with which the run began.
        keep: steps kept in the store.
        tell: told of every confirmation, outage and recovery.
        wait: how to wait, in seconds, until there is something to do; for tests.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        lease: Lease,
        since: int,
        keep: int,
        tell: Tell = lambda step, said: None,
        wait: Callable[[threading.Condition, float], object] = lambda condition, seconds: condition.wait(seconds),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.status = Status()
        self._store, self._run, self._lease, self._since, self._keep = store, run, lease, since, keep
        self.tell, self._wait, self._clock = tell, wait, clock
        self._number = 0
        self._known: set[str] = set()
        self._measures: dict[tuple[str, int, int, int], tuple[int, str]] = {}
        self._changed = threading.Condition()
        self._waiting: Pending | None = None
        self._sending: Pending | None = None
        self._closed = False
        self._hurry = False
        self._failing_since: float | None = None
        self._random = random.Random()
        self._thread = threading.Thread(target=self._work, name="tunesmith-mirror", daemon=True)
        self._thread.start()

    def enqueue(self, pending: Pending) -> None:
        """Send it as soon as may be. Returns at once."""
        with self._changed:
            if self._waiting is not None:
                self.status.superseded += 1
            self._waiting = pending
            self._changed.notify_all()

    @property
    def pinned(self) -> frozenset[str]:
        """Names of checkpoints that are being sent or wait to be, and must not be deleted here."""
        with self._changed:
            return frozenset(one.pinned for one in (self._waiting, self._sending) if one is not None and one.pinned)

    def flush(self, seconds: float) -> bool:
        """Wait until everything is confirmed; False when that took longer, or cannot come any more."""
        deadline = self._clock() + seconds
        with self._changed:
            self._hurry = True  # whoever waits does not want to wait for a pause between two attempts as well
            self._changed.notify_all()
            while (self._waiting or self._sending) and self.status.lost is None:
                left = deadline - self._clock()
                if left <= 0:
                    break
                self._wait(self._changed, min(left, 1.0))
            self._hurry = False
            return not self._waiting and not self._sending and self.status.lost is None

    def close(self) -> None:
        """Stop after what is being done now; what waits is not sent any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(timeout=2)  # a daemon: an upload that hangs does not keep the process

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        pause = FIRST_WAIT
        while (pending := self._next()) is not None:
            try:
                self._send(pending)
            except LeaseLostError as error:
                self._give_up(error)
                return
            except FileNotFoundError as error:
                # Deleted here before it was sent: somebody cleared the folder. The next one will tell.
                log.warning("a file of step %d was deleted before it was copied: %s", pending.step, error.filename)
                self._done(pending)
            except StorageError as error:
                self._failed(pending, error)
                self._pause(pause)
                pause = min(2 * pause, LONGEST_WAIT)
            except Exception as error:
                log.exception("copying to the mirror failed")
                self._give_up(StorageError(f"copying failed: {error!r}", remedy="report this, with run.log"))
                return
            else:
                pause = FIRST_WAIT
                self._done(pending)

    def _next(self) -> Pending | None:
        with self._changed:
            while self._waiting is None and self._sending is None and not self._closed:
                self._wait(self._changed, 3600.0)
            if self._closed:
                return None
            if self._waiting is not None:
                if self._sending is not None:
                    self.status.superseded += 1
                self._sending, self._waiting = self._waiting, None
                self._number += 1  # also when the one before was not confirmed: its manifest may be there all the same
            return self._sending

    def _send(self, pending: Pending) -> None:
        start = self._clock()
        files = {path: self._measured(content) for path, content in pending.contents.items()}
        if damaged := [path for path, sha in pending.expected.items() if files[path][1] != sha]:
            log.error("step %d is not copied: %s is not what was written here", pending.step, damaged[0])
            self.tell(pending.step, {"state": "damaged here", "file": damaged[0]})
            return
        snapshot = Snapshot(
            self._run, self._lease.token, self._number, self._since, pending.step, pending.complete, files
        )
        sent = upload(self._store, snapshot, pending.contents, self._known, self._lease.require)
        status = self.status
        status.confirmed_step, status.complete = pending.step, pending.complete
        status.snapshots, status.bytes_sent = status.snapshots + 1, status.bytes_sent + sent
        self._recovered(pending.step)
        seconds = self._clock() - start
        log.info("step %d is safe in the mirror: %.1f MB sent in %.1f s", pending.step, sent / 1e6, seconds)
        self.tell(pending.step, {"state": "confirmed", "bytes": sent, "mirror_seconds": round(seconds, 3)})
        self._known &= {sha for _, sha in files.values()}  # what others referred to may be deleted next
        try:
            prune(self._store, self._run, self._keep, self._lease.token)
        except StorageError as error:
            log.info("old copies in the mirror stay until the next one is made: %s", error.message)

    def _measured(self, content: bytes | Path) -> tuple[int, str]:
        if isinstance(content, bytes):
            return _measure(content)
        status = content.stat()
        key = (str(content), status.st_size, status.st_mtime_ns, status.st_ino)
        if key not in self._measures:  # data files are large, and the same at every checkpoint
            self._measures[key] = _measure(content)
        return self._measures[key]

    def _failed(self, pending: Pending, error: StorageError) -> None:
        self.status.failures += 1
        self.status.error = redact(error.message)
        if self._failing_since is not None:
            log.debug("the mirror still does not take step %d: %s", pending.step, self.status.error)
            return
        self._failing_since = self._clock()
        self.status.outages += 1
        behind = (
            "nothing is safe there yet"
            if self.status.confirmed_step is None
            else (f"step {self.status.confirmed_step} is the newest that is safe there")
        )
        log.warning(
            "the mirror does not take step %d: %s; %s. Training goes on", pending.step, self.status.error, behind
        )
        self.tell(pending.step, {"state": "failing", "error": self.status.error})

    def _recovered(self, step: int) -> None:
        self.status.error = ""
        if self._failing_since is not None:
            seconds = self._clock() - self._failing_since
            self.status.outage_seconds += seconds
            self._failing_since = None
            log.warning("the mirror answers again after %.0f s, and has caught up to step %d", seconds, step)
            self.tell(step, {"state": "caught up", "outage_seconds": round(seconds, 1)})

    def _give_up(self, error: StorageError) -> None:
        log.error("nothing is copied to the mirror any more: %s", error)
        with self._changed:
            self.status.lost = error
            self.status.error = redact(error.message)
            self._changed.notify_all()
        self.tell(self.status.confirmed_step or 0, {"state": "lost", "error": self.status.error})

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._closed:
                longest = min(seconds, FIRST_WAIT) if self._hurry else seconds
                self._wait(self._changed, longest * self._random.uniform(0.5, 1.0))

    def _done(self, pending: Pending) -> None:
        with self._changed:
            if self._sending is pending:
                self._sending = None
            self._changed.notify_all()


def _measure(content: bytes | Path) -> tuple[int, str]:
    """(bytes, sha256) of what will be sent."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
