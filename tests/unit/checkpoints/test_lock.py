"""One writer per run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.checkpoints.lock import RunLock
from tunesmith.errors import StorageError

HOLD = """
import sys, time
from pathlib import Path
from tunesmith.checkpoints.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def held(tmp_path: Path):
    """A run that another process has."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_told_who_has_the_run(tmp_path: Path, held: subprocess.Popen[str]) -> None:
    with pytest.raises(StorageError, match=rf"in use by process {held.pid} on \S+, since 20") as refused:
        RunLock(tmp_path / "run").__enter__()
    assert refused.value.exit_code == 4


def test_a_killed_holder_leaves_the_run_free_at_once(tmp_path: Path, held: subprocess.Popen[str]) -> None:
    held.kill()
    held.wait()
    with RunLock(tmp_path / "run") as lock:
        assert lock.number == 2


def test_a_stopped_holder_still_has_it(tmp_path: Path, held: subprocess.Popen[str]) -> None:
    held.send_signal(signal.SIGSTOP)
    with pytest.raises(StorageError, match="in use"):
        RunLock(tmp_path / "run").__enter__()


def test_a_child_of_a_killed_holder_does_not_keep_it(tmp_path: Path) -> None:
    program = HOLD.replace("    print", "    import os\n    if os.fork() == 0: time.sleep(60)\n    print")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        with RunLock(tmp_path / "run"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_the_same_process_cannot_take_it_twice_and_does_not_lose_it_by_trying(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run"):
        with pytest.raises(StorageError, match=f"process {os.getpid()}"):
            RunLock(tmp_path / "run").__enter__()
        program = HOLD.replace("time.sleep(60)", "pass")
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True)
        assert "in use" in done.stderr


def test_every_holder_has_a_greater_number(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with RunLock(tmp_path / "run") as lock:
            assert lock.number == number
            lock.require()


def test_who_was_replaced_writes_nothing_more(tmp_path: Path) -> None:
    with RunLock(tmp_path / "run") as lock:
        said = json.loads(lock.path.read_text()) | {"number": 9, "pid": 4242}
        lock.path.unlink()
        lock.path.write_text(json.dumps(said))
        with pytest.raises(StorageError, match="took this run over: process 4242"):
            lock.require()
        lock.path.unlink()
        with pytest.raises(StorageError, match="was removed"):
            lock.require()


def test_of_processes_that_compute_together_the_first_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunLock(tmp_path / "run") as first:
        monkeypatch.setenv("RANK", "1")
        with RunLock(tmp_path / "run") as second:
            second.require()
        first.require()


def test_an_unreadable_lock_file_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".run.lock").write_text("half a li")
    began = time.monotonic()
    with RunLock(tmp_path / "run") as lock:
        assert lock.number == 1
    assert time.monotonic() - began < 1
