"""One writer at a time, across machines: whoever writes holds a number that is higher than all before it.

A lease is an object that nobody can create twice. Its holder beats: it rewrites a small object now and then. Who comes
while another holds it watches that object for longer than a beat, by its own clock alone, and takes the next number
when it stands still. A holder that was only asleep finds a higher number before it publishes anything, and stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.errors import StorageError
from tunesmith.storage.store import AlreadyThereError, MissingError, Store, UnreachableError, get

BEAT = 10.0
"""Seconds between beats."""
PATIENCE = 4.5
"""Beats that a holder may miss before it is taken for dead."""


_released: set[str] = set()
"""Leases that this process has given back, also those whose store did not hear of it."""


class LeaseHeldError(StorageError):
    """Somebody else writes there."""


class LeaseLostError(StorageError):
    """Somebody else took over while we were away."""


class Lease:
    """The right to write under a prefix, and its number.

    `require` says whether it is still ours; `release` lets the next one in at once.
    """

    def __init__(self, store: Store, prefix: str, token: int, beat: float, nonce: str = "") -> None:
        self.token = token
        self._nonce = nonce
        self._store, self._prefix, self._beat = store, prefix, beat
        self._stop = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._keep, name="tunesmith-lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Raise `LeaseLostError` when a higher number was taken, `UnreachableError` when that cannot be seen."""
        newest = _newest(self._store, self._prefix)
        if newest > self.token:
            raise LeaseLostError(
                f"{_describe(_read(self._store, self._prefix, newest))} took over as the writer of this run",
                place=self._store.url,
                remedy="continue there, or stop that run and start this one again",
            )

    def release(self) -> None:
        """Say that nobody writes any more; errors are left to the next one's patience."""
        self._stop.set()
        _released.add(self._nonce)
        self._thread.join(timeout=5)
        with contextlib.suppress(StorageError):
            self._store.put(_beat_key(self._prefix, self.token), b'{"released": true}')

    def _keep(self) -> None:
        while not self._stop.wait(self._beat):
            self._count += 1
            with contextlib.suppress(StorageError):  # an outage; whoever can see the store can see that we are silent
                self._store.put(_beat_key(self._prefix, self.token), json.dumps({"beat": self._count}).encode())


def take_lease(
    store: Store,
    prefix: str,
    *,
    beat: float = BEAT,
    sleep: Callable[[float], None] = time.sleep,
    told: Callable[[str], None] = lambda _: None,
) -> Lease:
    """Become the only writer under `prefix`.

    Args:
        store: where.
        prefix: the folder of the lease's objects; they are a few hundred bytes.
        beat: seconds between signs of life.
        sleep: how to wait.
        told: called with a sentence when a holder must be watched before it can be taken for dead.

    Raises:
        LeaseHeldError: somebody holds it and lives.
        StorageError: the store does not answer.
    """
    newest = _newest(store, prefix)
    if newest and not _is_free(store, prefix, newest, beat, sleep, told):
        raise LeaseHeldError(
            f"{_describe(_read(store, prefix, newest))} writes there",
            place=store.url,
            remedy="wait for it, stop it, or give this run another name (name=...)",
        )
    nonce = secrets.token_hex(8)
    try:
        store.put(
            _key(prefix, newest + 1), json.dumps({**_ourselves(), "nonce": nonce, "beat": beat}).encode(), create=True
        )
    except AlreadyThereError:
        winner = _read(store, prefix, newest + 1)
        if winner.get("nonce") != nonce:  # else our own put, whose answer was lost
            raise LeaseHeldError(
                f"{_describe(winner)} was faster",
                place=store.url,
                remedy="wait for it, stop it, or give this run another name (name=...)",
            ) from None
    return Lease(store, prefix, newest + 1, beat, nonce)


def _is_free(
    store: Store, prefix: str, token: int, beat: float, sleep: Callable[[float], None], told: Callable[[str], None]
) -> bool:
    holder = _read(store, prefix, token)
    before = _sign(store, prefix, token)
    if b"released" in before or holder.get("nonce") in _released or _died_here(holder):
        return True
    if _lives_here(holder):
        return False
    theirs = holder.get("beat")
    wait = PATIENCE * max(beat, float(theirs) if isinstance(theirs, int | float) and 0 < theirs < 3600 else beat)
    told(f"{_describe(holder)} was the writer of this run; watching for {wait:.0f} s whether it still is")
    waited = 0.0
    while waited < wait:
        sleep(min(beat, wait - waited))
        waited += min(beat, wait - waited)
        now = _sign(store, prefix, token)
        if b"released" in now:
            return True
        if now != before:
            return False
    return True


def _newest(store: Store, prefix: str) -> int:
    numbers = [entry.key.removeprefix(f"{prefix}/").removesuffix(".json") for entry in store.list(prefix)]
    return max((int(text) for text in numbers if text.isascii() and text.isdigit()), default=0)


def _key(prefix: str, token: int) -> str:
    return f"{prefix}/{token:08d}.json"


def _beat_key(prefix: str, token: int) -> str:
    return f"{prefix}/{token:08d}.beat"


def _sign(store: Store, prefix: str, token: int) -> bytes:
    try:
        return get(store, _beat_key(prefix, token), limit=4096)
    except MissingError:
        return b""


def _read(store: Store, prefix: str, token: int) -> dict[str, Any]:
    try:
        said = json.loads(get(store, _key(prefix, token), limit=4096))
    except (ValueError, MissingError):
        return {}
    except UnreachableError:
        raise
    return said if isinstance(said, dict) else {}


def _ourselves() -> dict[str, Any]:
    return {"host": socket.gethostname(), "boot": _boot(), "pid": os.getpid(), "started": _started(os.getpid())}


def _boot() -> str:
    """Names this start of this machine; a container that moves to another one gets another."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _started(pid: int) -> str:
    """When a process began, in ticks since the machine did; empty when it does not run."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[19]
    return ""


def _same_machine(holder: dict[str, Any]) -> bool:
    return bool(_boot()) and holder.get("boot") == _boot() and holder.get("host") == socket.gethostname()


def _lives_here(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    return (
        _same_machine(holder)
        and isinstance(pid, int)
        and bool(_started(pid))
        and _started(pid) == holder.get("started")
    )


def _died_here(holder: dict[str, Any]) -> bool:
    return _same_machine(holder) and isinstance(holder.get("pid"), int) and not _lives_here(holder)


def _describe(holder: dict[str, Any]) -> str:
    host, pid = str(holder.get("host", "another machine"))[:100], holder.get("pid")
    return f"process {pid} on {host}" if isinstance(pid, int) else host
