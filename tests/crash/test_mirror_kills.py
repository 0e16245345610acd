"""The sending process is killed at random instants: what lies in the mirror is the old snapshot or the new one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATHS = [str(Path(__file__).parents[2] / place) for place in ("tests/doubles", "benchmarks")]
for path in PATHS:
    sys.path.insert(0, path)

from bucket_server import BucketServer  # noqa: E402

import faults_mirror  # noqa: E402
from tunesmith.storage import open_store  # noqa: E402

SENDER = """
import sys
sys.path[:0] = {paths!r}
import faults_mirror
from tunesmith.checkpoints.replicate import Pending, Replicator
from tunesmith.storage import open_store, take_lease
store = open_store({url!r})
lease = take_lease(store, "run/lease")
sender = Replicator(store, "run", lease, 1, keep=2)
for step in range({start}, {start} + 1000):
    sender.enqueue(Pending(step, False, faults_mirror.contents(step, 0)))
    sender.flush(60)
    print(sender.status.confirmed_step, flush=True)
"""


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_sender_that_is_killed_leaves_nothing_torn_and_nothing_that_it_called_safe_is_lost(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kills = int(os.environ.get("KILLS", "20"))
    rng = random.Random(kind)
    with BucketServer() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        url = f"{kind}://bucket/folder"
        safe = 0
        for number in range(kills):
            program = SENDER.format(paths=PATHS, url=url, start=safe + 1)
            child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None
            said = child.stdout.readline()  # the first is safe; then at any instant
            time.sleep(rng.uniform(0, 0.3))
            child.send_signal(signal.SIGKILL)
            lines = [said, *child.stdout]
            child.wait()
            child.stdout.close()
            safe = max([safe, *(int(line) for line in lines if line.endswith("\n"))])
            newest, torn = faults_mirror.newest_whole(open_store(url), tmp_path / str(number))
            assert not torn and newest in (safe, safe + 1), f"kill {number}: {newest} is there, {safe} was called safe"
            safe = newest
