"""What a mirror holds when its uploads are cut, refused, delayed or corrupted: its rows of the table of faults.

Every trial has a store that confirmed one snapshot, sends the next one under a fault, and then reads the store as an
empty machine would: the newest snapshot there must verify to its last byte and be the old one or the new one.

    python benchmarks/faults_mirror.py [--quick] [--json FILE] [--seed N]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.checkpoints import replicate
from tunesmith.checkpoints.replicate import Pending, Replicator
from tunesmith.checkpoints.snapshot import download, snapshots
from tunesmith.errors import StorageError
from tunesmith.storage import Lease, Store, bucket, open_store, take_lease

DOUBLES = Path(__file__).resolve().parents[1] / "tests" / "doubles"
sys.path.insert(0, str(DOUBLES))

from bucket_server import BucketServer, Fault, Request  # noqa: E402

RUN = "run"
KINDS = ("s3", "gs")


class Outcome(NamedTuple):
    """What one trial came to."""

    fault: str
    torn: bool
    """The newest snapshot that says it exists does not verify: what must never be."""
    newest: int
    """Step of the newest that verifies."""
    confirmed: int | None
    """Step that the sender called safe."""

    @property
    def lied(self) -> bool:
        """Whether something was called safe that is not."""
        return self.confirmed is not None and self.confirmed > self.newest


def contents(step: int, seed: int, size: int = 20_000) -> dict[str, bytes | Path]:
    """A checkpoint's files as a run has them: some change with every step, some do not."""
    changing = random.Random(f"{seed}/{step}")
    fixed = random.Random(seed)
    prefix = f"checkpoints/checkpoint-{step}"
    return {
        f"{prefix}/adapter_model.safetensors": changing.randbytes(size),
        f"{prefix}/optimizer.safetensors": changing.randbytes(2 * size),
        f"{prefix}/adapter_config.json": fixed.randbytes(700),
        f"{prefix}/MANIFEST.json": changing.randbytes(900),
        "run.json": changing.randbytes(1500),
        "config.yaml": fixed.randbytes(1200),
    }


def newest_whole(store: Store, folder: Path) -> tuple[int, bool]:
    """(step of the newest snapshot that verifies, whether a newer one was listed that does not); 0 without one."""
    torn = False
    for number, (_, snapshot, _) in enumerate(snapshots(store, RUN)):
        try:
            if snapshot is None:
                raise StorageError("unreadable")
            download(store, snapshot, folder / str(number), snapshot.files)
            return snapshot.step, torn
        except StorageError:
            torn = True
    return 0, torn


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """Environment variables for a while, and attempts that follow each other quickly."""
    before = {name: os.environ.get(name) for name in variables}
    waits = replicate.FIRST_WAIT, replicate.LONGEST_WAIT, bucket.RETRIES
    os.environ.update(variables)
    replicate.FIRST_WAIT, replicate.LONGEST_WAIT, bucket.RETRIES = 0.01, 0.05, 0
    try:
        yield
    finally:
        replicate.FIRST_WAIT, replicate.LONGEST_WAIT, bucket.RETRIES = waits
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class Bench:
    """A store with a confirmed snapshot of step 1, and a sender for step 2."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.count = 0

    def trial(
        self, kind: str, fault: Callable[[Request], Fault | None], *, patience: float, name: str = ""
    ) -> tuple[Outcome, int]:
        """One trial; also returns how many requests sending took."""
        self.count += 1
        with BucketServer() as server, environment(**server.environ(), TUNESMITH_STORAGE_TIMEOUT="0.3"):
            store = open_store(f"{kind}://bucket/folder")
            lease = take_lease(store, f"{RUN}/lease", beat=3600)
            replicator = Replicator(store, RUN, lease, 1, keep=2)
            replicator.enqueue(Pending(1, False, contents(1, self.seed)))
            if not replicator.flush(30):
                raise RuntimeError("the store does not work even without a fault")
            before = len(server.requests)
            server.fault = lambda request: fault(request._replace(number=request.number - before))
            replicator.enqueue(Pending(2, False, contents(2, self.seed)))
            replicator.flush(patience)
            confirmed = replicator.status.confirmed_step
            replicator.close()
            server.fault = None
            used = len(server.requests) - before
            newest, torn = newest_whole(open_store(f"{kind}://bucket/folder"), self.folder / str(self.count))
            lease.release()
        return Outcome(name, torn, newest, confirmed), used


def cuts(bench: Bench, requests: int, trials: int, rng: random.Random) -> Iterator[Outcome]:
    """The sender dies at every request, before it is read, in the middle of its body or before it is answered."""
    at = 0
    for number in range(trials):
        at = number % (requests + 1)
        kind = KINDS[number % 2]
        how = ("cut", "deaf", "short")[(number // (requests + 1)) % 3]
        amount = rng.randrange(0, 45_000)

        def dead(request: Request, at: int = at, how: str = how, amount: int = amount) -> Fault | None:
            if request.number < at:
                return None
            return Fault(how, amount) if request.number == at else Fault("cut", 0)

        yield bench.trial(kind, dead, patience=0.05, name=f"{how} at request {at}")[0]


def passing(bench: Bench, requests: int, trials: int, rng: random.Random) -> Iterator[Outcome]:
    """Some answers are an error, a cut, a hang or a wrong byte; then all is well, and the sender must catch up."""
    faults = [Fault("status", 500), Fault("status", 503), Fault("status", 429), Fault("cut", 100), Fault("deaf"),
              Fault("short", 10), Fault("flip"), Fault("hang", 0.4)]  # fmt: skip
    for number in range(trials):
        chosen, kind = faults[number % len(faults)], KINDS[number % 2]
        bad = {rng.randrange(requests) for _ in range(1 + number % 3)}

        def sometimes(request: Request, bad: set[int] = bad, chosen: Fault = chosen) -> Fault | None:
            return chosen if request.number in bad else None

        yield bench.trial(kind, sometimes, patience=30, name=f"{chosen.kind} {chosen.amount:g} at {sorted(bad)}")[0]


def takeovers(folder: Path, trials: int, rng: random.Random) -> tuple[int, int]:
    """(times that the newest snapshot was not that of the newest writer, times that two wrote at once)."""
    wrong = both = 0
    for number in range(trials):
        store = open_store(str(folder / f"takeover-{number}"))
        old = take_lease(store, f"{RUN}/lease", beat=3600)
        sleeper = Replicator(store, RUN, old, 1, keep=2)
        sleeper.enqueue(Pending(5, False, contents(5, number)))
        sleeper.flush(30)
        new = Lease(store, f"{RUN}/lease", old.token + 1, 3600)
        store.put(f"{RUN}/lease/{new.token:08d}.json", b"{}", create=True)
        writer = Replicator(store, RUN, new, 1, keep=2)
        step = rng.randrange(1, 9)
        due = [(writer, step), (sleeper, 9)]
        rng.shuffle(due)
        for sender, at in due:
            sender.enqueue(Pending(at, False, contents(at, number)))
        writer.flush(30)
        sleeper.flush(30)
        newest, torn = newest_whole(store, folder / f"read-{number}")
        wrong += newest != step or torn
        both += sleeper.status.lost is None
        for one in (writer, sleeper):
            one.close()
        new.release()
        old.release()
    return wrong, both


def faults(quick: bool, seed: int) -> list[dict[str, Any]]:
    """All rows of the table, as `benchmarks/reliability.py` shows them."""
    rng = random.Random(seed)
    rows: list[dict[str, Any]] = []
    conditions = f"own S3 and XML-API server on loopback, {platform.machine()}, Python {platform.python_version()}"

    def figure(name: str, value: float | int, unit: str, goal: str, more: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions + more})
        print(f"{name:<64} {value:>9} {unit:<8} goal: {goal}", flush=True)

    with tempfile.TemporaryDirectory() as place:
        bench = Bench(Path(place), seed)
        _, requests = bench.trial("s3", lambda _: None, patience=30)
        cut = list(cuts(bench, requests, (requests + 1) if quick else max(300, 6 * (requests + 1)), rng))
        more = f"; {requests} requests a snapshot"
        figure("upload cut at every request and at random bytes: trials", len(cut), "", ">= 300", more)
        figure("upload cut: torn in the mirror", sum(one.torn for one in cut), "", "0", more)
        figure("upload cut: called safe and not there", sum(one.lied for one in cut), "", "0", more)
        figure("upload cut: neither old nor new is there", sum(one.newest not in (1, 2) for one in cut), "", "0")
        pass_by = list(passing(bench, requests, 16 if quick else 160, rng))
        figure("errors, cuts, hangs and wrong bytes that pass: trials", len(pass_by), "", ">= 100", more)
        figure("passing faults: torn in the mirror", sum(one.torn for one in pass_by), "", "0")
        figure("passing faults: not caught up", sum(one.newest != 2 or one.confirmed != 2 for one in pass_by), "", "0")
        wrong, both = takeovers(Path(place), 10 if quick else 60, rng)
        figure("a writer that slept: read instead of its successor's", wrong, "", "0")
        figure("a writer that slept: not told that it was replaced", both, "", "0")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="few trials, under a minute")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.getLogger("tunesmith").setLevel(logging.CRITICAL)  # every trial would tell of its fault
    rows = faults(arguments.quick, arguments.seed)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
