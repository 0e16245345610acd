"""Being asked to end: by whom, and what happens then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from loopback import served

from tunesmith.config.schema.limits import Limits
from tunesmith.errors import StoppedError, StorageError
from tunesmith.stop import Limit, Stop


def wait(seconds: float = 10.0) -> None:
    """What a stage does that takes long; interrupted in the middle."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
    raise AssertionError("was not interrupted")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_whatever_is_done_at_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(StoppedError, match=f"stopped: {number.name}(.|\n)*the same command continues"), Stop():
        os.kill(os.getpid(), number)
        wait()
    assert signal.getsignal(number) is before


def test_a_limit_that_is_spent_before_the_run_begins_is_never_raised_where_nobody_catches_it() -> None:
    """The request comes while the `with` is being entered: one in four escaped it once."""
    for _ in range(60):
        with pytest.raises(StoppedError, match="spent"), ExitStack() as stack:
            stack.enter_context(Stop([Limit(0.0, "spent", "give it more")]))
            wait()


def test_what_is_to_be_saved_is_saved_from_another_thread_first() -> None:
    saved = []

    def save() -> str:
        saved.append(threading.current_thread())
        return "at step 3 of 9, with a checkpoint"

    with pytest.raises(StoppedError, match="at step 3 of 9"), Stop() as stop, stop.saving(save):
        os.kill(os.getpid(), signal.SIGTERM)
        wait()
    assert len(saved) == 1 and saved[0] is not threading.main_thread()


def test_a_save_that_fails_is_what_the_run_ends_with() -> None:
    def save() -> str:
        raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="disk is full"), Stop() as stop, stop.saving(save):
        os.kill(os.getpid(), signal.SIGTERM)
        wait()


def test_no_except_clause_on_the_way_swallows_it() -> None:
    with pytest.raises(StoppedError), Stop():
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            wait()
        except Exception as error:
            raise AssertionError("swallowed") from error


class Slow:
    """Where it is dropped, Python swallows whatever its finalizer raises."""

    swallowed = False

    def __del__(self) -> None:
        try:
            wait(5.0)
        except KeyboardInterrupt:
            type(self).swallowed = True
            raise


def test_a_request_that_a_finalizer_swallows_comes_again() -> None:
    hook = sys.unraisablehook
    with pytest.raises(StoppedError, match="stopped: SIGTERM"), Stop():
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        slow = Slow()
        del slow
        assert Slow.swallowed
        wait()
    assert sys.unraisablehook is hook


def test_a_limit_of_time_says_what_to_raise() -> None:
    with (
        pytest.raises(StoppedError, match=r"limits.max_hours \(0.001\)(.|\n)*a higher --max-hours continues"),
        Stop.within(Limits(max_hours=0.001, preemption_url=None), spent=3.5),
    ):
        wait()


def test_cost_is_hours_times_price() -> None:
    limits = Limits(max_hours=10, max_cost=6, price_per_hour=2, preemption_url=None)
    assert limits.hours == 3
    with pytest.raises(ValueError, match="max_cost needs price_per_hour"):
        Limits(max_cost=6)
    with (
        pytest.raises(StoppedError, match=r"limits.max_cost \(6\)"),
        Stop.within(limits, spent=3 * 3600 - 0.2),
    ):
        wait()


def test_where_checks_are_made_they_end_it_too() -> None:
    with pytest.raises(StoppedError), Stop([Limit(0.05, "time is up", "more time")]) as stop:
        while True:
            stop.check()
            time.sleep(0.01)


def test_another_thread_than_the_main_one_is_ended_by_its_checks() -> None:
    ended: list[BaseException] = []

    def run() -> None:
        try:
            with Stop() as stop:
                stop.ask("because")
                while True:
                    stop.check()
        except StoppedError as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert len(ended) == 1 and "because" in str(ended[0])


# --- the cloud --------------------------------------------------------------------------------------------------------


@pytest.fixture
def notice() -> Iterator[Any]:
    """A metadata server on this machine; `notice.said` is what it answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.asked.append(self.headers.get("Metadata-Flavor"))
            self.send_response(200 if server.said else 503)
            self.end_headers()
            self.wfile.write(server.said)

        def log_message(self, *_: Any) -> None:
            pass

    with served(Handler) as server:
        server.said, server.asked = b"FALSE", []
        server.url = f"{server.address}/computeMetadata/v1/instance/preempted"
        yield server


def test_a_preemption_notice_ends_the_run(notice: Any) -> None:
    with pytest.raises(StoppedError, match="about to be taken"), Stop(notice=notice.url, poll_seconds=0.02):
        while len(notice.asked) < 3:
            time.sleep(0.01)
        notice.said = b"TRUE\n"
        wait()
    assert set(notice.asked) == {"Google"}


def test_a_notice_that_cannot_be_asked_for_is_said_once_and_ends_nothing(
    notice: Any, caplog: pytest.LogCaptureFixture
) -> None:
    notice.said = b""
    with Stop(notice=notice.url, poll_seconds=0.02):
        while len(notice.asked) < 5:
            time.sleep(0.01)
    assert sum("does not answer" in record.message for record in caplog.records) == 1


def test_on_a_machine_of_no_cloud_nobody_is_asked() -> None:
    with Stop(notice="auto"):
        assert "notice" not in [thread.name for thread in threading.enumerate()]


# --- the second and third time ----------------------------------------------------------------------------------------

PROGRAM = """
import sys, time
from tunesmith.stop import Stop
from tunesmith.errors import StoppedError

def save():
    time.sleep(float(sys.argv[1]))
    print("saved", flush=True)
    return "with a checkpoint"

try:
    with Stop() as stop, stop.saving(save):
        print("ready", flush=True)
        stop._before.clear()  # as if the main thread were in the middle of one long product of matrices
        time.sleep(60)
except StoppedError:
    print("unwound")
    sys.exit(75)
"""


def stopped(save_seconds: float, signals: int) -> tuple[int, str, float]:
    """Exit code, output and seconds of a process that gets so many signals 0.3 s apart."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(save_seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    began = time.monotonic()
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    output, _ = process.communicate(timeout=30)
    return process.returncode, output, time.monotonic() - began


def test_a_second_control_c_waits_for_the_save_and_for_nothing_else() -> None:
    code, output, seconds = stopped(1.0, 2)
    assert (code, "saved" in output, "with a checkpoint; the same command continues" in output) == (75, True, True)
    assert 0.9 < seconds < 6


def test_a_second_control_c_after_the_save_ends_at_once() -> None:
    code, output, seconds = stopped(0.0, 2)
    assert (code, "saved" in output) == (75, True) and seconds < 5


def test_a_third_ends_in_the_middle_of_the_save() -> None:
    code, output, seconds = stopped(20.0, 3)
    assert (code, "saved" in output) == (75, False) and seconds < 5


def test_a_forked_worker_does_not_report_its_signals_to_its_parent() -> None:
    with Stop() as stop:
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGINT)  # ignored: the parent decides
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(3)
        _, status = os.waitpid(pid, 0)
        time.sleep(0.1)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert not stop.asked
