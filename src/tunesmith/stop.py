"""Stopping on request: a signal, a cloud's notice, a limit of time or money. What is saved, and when the process ends.

    first request    the state after the last complete optimizer step is saved at once, in a thread of its own, however
                     long the step that is being computed takes; then the run unwinds, and what it opened is closed
    second signal    nothing is waited for but a save that is being written; then the process ends
    third signal     the process ends

Signals reach Python code between two of its instructions only, and one instruction can be a minute of matrix products.
So the interpreter writes their numbers to a pipe, which it does at once, and a thread reads it.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NamedTuple

from tunesmith.config.schema.limits import Limits
from tunesmith.errors import StoppedError, TunesmithError
from tunesmith.notice import asker, nearest

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_WAKE = signal.SIGURG
"""Sent by the watching thread to the main one, to raise there; ignored by whoever does not expect it."""
_FINISH_SECONDS = 30.0
"""How long a save may take before the run ends without it: what a cloud gives before it takes the machine."""


class Interrupt(KeyboardInterrupt):
    """Raised in the main thread by `Stop`, which turns it into `StoppedError`; no `except Exception` swallows it."""


class Limit(NamedTuple):
    """A point in time at which the run stops by itself."""

    seconds: float
    """From now."""
    reason: str
    remedy: str


class Stop:
    """Whether the run has been asked to end; a context manager that listens while it is open.

    Args:
        limits: when to stop unasked.
        notice: URL that says when the machine is about to be taken (see `notice.asker`); "auto" asks the cloud whose
            machine this is.
        poll_seconds: between two looks at it.
    """

    def __init__(self, limits: Sequence[Limit] = (), notice: str | None = None, poll_seconds: float = 5.0) -> None:
        self.reason = ""
        """Who asked, and how; empty while nobody has."""
        self.remedy = "the same command continues"
        self.error: BaseException | None = None
        """Why the save that the request called for failed."""
        self.outcome = ""
        self._begin = time.monotonic()
        self._limits = sorted(limits)
        self._notice = nearest() if notice == "auto" else notice
        self._poll_seconds = poll_seconds
        self._save: Callable[[], str] | None = None
        self._asked, self._finished, self._closed = threading.Event(), threading.Event(), threading.Event()
        self._guard = threading.Lock()
        self._raised = self._at_once = self._gently = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._unraisable_before = sys.unraisablehook
        self._pipe: tuple[int, int] | None = None

    @classmethod
    def within(cls, limits: Limits, spent: float) -> Stop:
        """Listening within a run's limits.

        Args:
            limits: of the recipe.
            spent: seconds that earlier calls of the run took.
        """
        found = []
        if limits.hours is not None:
            name = "max_hours" if limits.hours == limits.max_hours else "max_cost"
            reason = f"the run has had its limits.{name} ({getattr(limits, name):g})"
            remedy = f"the same command with a higher --{name.replace('_', '-')} continues"
            found.append(Limit(max(0.0, 3600 * limits.hours - spent), reason, remedy))
        return cls(found, limits.preemption_url)

    # --- listening ------------------------------------------------------------------------------------------------

    def __enter__(self) -> Stop:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._pipe = read, write
        if threading.current_thread() is threading.main_thread():
            for number in (*_SIGNALS, _WAKE):
                if number == _WAKE or signal.getsignal(number) is not signal.SIG_IGN:  # `nohup` and `&` mean it
                    self._before[number] = signal.signal(number, self._handle)
            self._wakeup_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
            self._unraisable_before, sys.unraisablehook = sys.unraisablehook, self._unraisable
            _listening.append(self)
        threading.Thread(target=self._watch, name="stop", daemon=True).start()
        if self._notice is not None:
            threading.Thread(target=self._ask_cloud, args=(self._notice,), name="notice", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed.set()
        if self in _listening:
            _listening.remove(self)
            signal.set_wakeup_fd(self._wakeup_before)
            sys.unraisablehook = self._unraisable_before
            for number, handler in self._before.items():
                signal.signal(number, handler)
        if self._pipe is not None:
            with suppress(OSError):
                os.write(self._pipe[1], b"\0")
        if isinstance(error, Interrupt):
            raise self._stopped() from self.error

    def _watch(self) -> None:
        assert self._pipe is not None
        read, write = self._pipe
        while not self._closed.is_set():
            now = time.monotonic() - self._begin
            wait = min([limit.seconds - now for limit in self._limits if not self.reason], default=None)
            ready, _, _ = select.select([read], [], [], None if wait is None else max(0.0, min(wait, 3600.0)))
            for number in os.read(read, 64) if ready else b"":
                if number in _SIGNALS and not self._closed.is_set():
                    self._signalled(signal.Signals(number).name)
            for limit in self._limits:
                if limit.seconds <= time.monotonic() - self._begin:
                    self.ask(limit.reason, limit.remedy)
        os.close(read)
        os.close(write)
        self._pipe = None

    def _signalled(self, name: str) -> None:
        if not self.reason:
            self.ask(name)
        elif self._at_once or self._finished.is_set() or self._save is None:
            self._leave()
        else:
            self._at_once = True
            log.warning("%s again: ending as soon as the checkpoint is written; once more ends at once", name)

    def _handle(self, number: int, frame: Any) -> None:
        due = number == _WAKE and self._finished.is_set() and not self._raised and not self._closed.is_set()
        # Skipped at a door, it comes again a moment later (`_finish`).
        if due and os.getpid() == self._process and not _at_a_door(frame):
            self._raised = True
            raise Interrupt

    def _unraisable(self, lost: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised in a finalizer or a weak reference's callback: ours comes again (`_finish`)."""
        if lost.exc_type is Interrupt:
            self._raised = False
        else:
            self._unraisable_before(lost)

    # --- asking and answering -------------------------------------------------------------------------------------

    def ask(self, reason: str, remedy: str = "") -> None:
        """Ask for the end of the run; the first reason counts."""
        with self._guard:
            if self.reason:
                return
            self.reason, self.remedy = reason, remedy or self.remedy
        log.warning("stopping: %s%s", reason, "" if self._save is None else "; saving a checkpoint")
        self._asked.set()
        if not self._gently:
            threading.Thread(target=self._finish, name="save", daemon=True).start()

    def _finish(self) -> None:
        try:
            if self._save is not None:
                self.outcome = self._save()
        except BaseException as error:  # told to the main thread, which raises it
            self.error = error
        self._finished.set()
        if self._at_once:
            self._leave()
        # Sent again until it was heard: one that arrives just before a system call does not interrupt it, and one
        # that is raised in a finalizer is lost.
        while self._before and not self._closed.is_set():
            if not self._raised:
                signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
            self._closed.wait(0.2)

    def _leave(self) -> None:
        """End the process without waiting for what it computes."""
        print(f"stopped ({self.reason}){f', {self.outcome}' if self.outcome else ''}; {self.remedy}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(self.error.exit_code if isinstance(self.error, TunesmithError) else StoppedError.exit_code)

    @contextmanager
    def saving(self, save: Callable[[], str]) -> Iterator[None]:
        """While open, a request calls `save`, from another thread; it returns what it saved, for a person."""
        self._save = save
        try:
            yield
        finally:
            self._save = None

    @contextmanager
    def gently(self) -> Iterator[None]:
        """While open, a request only sets `asked`: processes that compute together must stop at the same step."""
        self._gently = True
        try:
            yield
        finally:
            self._gently = False

    @property
    def asked(self) -> bool:
        """Whether the run is to end."""
        return self._asked.is_set()

    @property
    def nearest(self) -> Limit | None:
        """The first limit to come, with the seconds that are left until it; None without limits."""
        if not self._limits:
            return None
        first = self._limits[0]
        return first._replace(seconds=first.seconds - (time.monotonic() - self._begin))

    def check(self) -> None:
        """Go no further once the run is to end: waits for the save.

        Raises:
            TunesmithError: it is to end; `StoppedError` where all went well.
        """
        if self._asked.is_set() and not self._gently:
            self._finished.wait(_FINISH_SECONDS)
            self._raised = True
            raise self._stopped() from self.error

    def _stopped(self) -> BaseException:
        if self.error is not None:
            return self.error
        saved = f", {self.outcome}" if self.outcome else ""
        return StoppedError(f"stopped: {self.reason}{saved}", remedy=self.remedy)

    # --- the cloud ------------------------------------------------------------------------------------------------

    def _ask_cloud(self, url: str) -> None:
        ask, reachable = asker(url), True
        while not self._closed.wait(self._poll_seconds) and not self.reason:
            try:
                coming = ask(self._poll_seconds)
                reachable = True
            except (OSError, ValueError, http.client.HTTPException) as error:
                if reachable:
                    log.warning("%s does not answer (%s): no notice before this machine is taken", url, error)
                reachable = False
                continue
            if coming:
                self.ask(f"this machine is about to be taken (preemption notice: {coming})")


def _at_a_door(frame: Any) -> bool:
    """Whether the main thread is entering or leaving a `with`: what is raised there, nobody may be left to catch."""
    doors = (Stop.__enter__.__code__, Stop.__exit__.__code__)
    if frame is not None and frame.f_code.co_filename == contextlib.__file__:
        return True
    while frame is not None:
        if frame.f_code in doors:
            return True
        frame = frame.f_back
    return False


_listening: list[Stop] = []


def _forget() -> None:
    """A forked child, such as a loader's worker, has the parent's pipe, and must not report its own signals there."""
    if _listening:
        _listening.clear()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the parent decides
        for number in (signal.SIGTERM, _WAKE):
            signal.signal(number, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
