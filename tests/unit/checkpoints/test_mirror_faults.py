"""Whatever happens to an upload, the mirror holds the old snapshot or the new one, and nothing is called safe that is
not there."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))
import faults_mirror
from tunesmith.checkpoints import replicate
from tunesmith.checkpoints.replicate import Pending, Replicator
from tunesmith.checkpoints.snapshot import list_snapshots, snapshots
from tunesmith.storage import Lease, UnreachableError, take_lease
from tunesmith.storage.memory import MemoryStore

RUN = "run"


@pytest.fixture
def bench(tmp_path: Path) -> faults_mirror.Bench:
    return faults_mirror.Bench(tmp_path, 0)


def test_an_upload_cut_at_any_request_leaves_the_old_snapshot_or_the_new_one(bench: faults_mirror.Bench) -> None:
    outcomes = list(faults_mirror.cuts(bench, 20, 21, random.Random(1)))
    assert [one for one in outcomes if one.torn or one.lied or one.newest not in (1, 2)] == []
    assert {one.newest for one in outcomes} == {1, 2}  # cut before the end, and after it


def test_faults_that_pass_are_caught_up_with(bench: faults_mirror.Bench) -> None:
    outcomes = list(faults_mirror.passing(bench, 20, 8, random.Random(1)))
    assert [one for one in outcomes if one.torn or one.newest != 2 or one.confirmed != 2] == []


def test_a_writer_that_slept_is_told_and_is_never_read_before_its_successor(tmp_path: Path) -> None:
    assert faults_mirror.takeovers(tmp_path, 4, random.Random(1)) == (0, 0)


# --- in memory --------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    monkeypatch.setattr(replicate, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(replicate, "LONGEST_WAIT", 0.01)
    return MemoryStore()


@pytest.fixture
def lease(store: MemoryStore) -> Iterator[Lease]:
    lease = take_lease(store, f"{RUN}/lease", beat=3600)
    yield lease
    lease.release()


@pytest.fixture
def replicator(store: MemoryStore, lease: Lease) -> Iterator[Replicator]:
    made = Replicator(store, RUN, lease, 1, keep=2)
    yield made
    made.close()


def pending(step: int, **more: Any) -> Pending:
    return Pending(step, False, {"run.json": f"{step}".encode(), "fixed": b"fixed"}, **more)


def steps(store: MemoryStore) -> list[int]:
    return [found.step for _, found, _ in snapshots(store, RUN) if found is not None]


def away(store: MemoryStore, operations: tuple[str, ...] = ("put", "read", "list")) -> None:
    def refuse(operation: str, key: str) -> bytes | None:
        if operation in operations:
            raise UnreachableError("it is away")
        return None

    store.hook = refuse


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.002)


def test_objects_go_first_and_the_manifest_last(store: MemoryStore, replicator: Replicator) -> None:
    replicator.enqueue(pending(3))
    assert replicator.flush(10)
    puts = [key for operation, key in store.calls if operation == "put" and "lease" not in key]
    assert len(puts) == 3 and puts[-1].endswith("/0000000001.json")
    read_back = [key for operation, key in store.calls if operation == "read"]
    assert set(puts) <= set(read_back)


def test_what_has_not_changed_is_sent_once(store: MemoryStore, replicator: Replicator) -> None:
    for step in (1, 2, 3):
        replicator.enqueue(pending(step))
        assert replicator.flush(10)
    puts = [key for operation, key in store.calls if operation == "put" and "objects" in key]
    assert len(puts) == 3 + 1
    assert replicator.status.bytes_sent == 3 + len(b"fixed")


def test_an_outage_is_told_survived_and_caught_up_with(store: MemoryStore, replicator: Replicator) -> None:
    told: list[tuple[int, str]] = []
    replicator.tell = lambda step, said: told.append((step, said["state"]))
    replicator.enqueue(pending(1))
    assert replicator.flush(10)
    away(store)
    for step in range(2, 9):
        replicator.enqueue(pending(step))
        time.sleep(0.01)
    assert not replicator.flush(0.02)
    assert replicator.status.confirmed_step == 1 and replicator.status.error == "it is away"
    store.hook = None
    assert replicator.flush(10) and replicator.status.confirmed_step == 8 and replicator.status.error == ""
    assert [state for _, state in told] == ["confirmed", "failing", "caught up", "confirmed"]
    assert replicator.status.outages == 1 and steps(store) == [8, 1]


def test_training_never_waits_and_what_waits_is_never_more_than_one(store: MemoryStore, replicator: Replicator) -> None:
    gate = threading.Event()

    def slow(operation: str, key: str) -> None:
        if operation == "put":
            gate.wait(10)

    store.hook = slow
    began = time.monotonic()
    for step in range(1, 50):
        replicator.enqueue(pending(step, pinned=f"checkpoint-{step}"))
    assert time.monotonic() - began < 1
    until(lambda: len(replicator.pinned) <= 2)
    assert "checkpoint-49" in replicator.pinned
    gate.set()
    assert replicator.flush(10)
    assert steps(store)[0] == 49 and replicator.pinned == frozenset()


def test_old_copies_go_only_after_newer_ones_are_confirmed(store: MemoryStore, replicator: Replicator) -> None:
    for step in (1, 2, 3, 4):
        replicator.enqueue(pending(step))
        assert replicator.flush(10)
    assert steps(store) == [4, 3]
    away(store, ("put",))
    replicator.enqueue(pending(5))
    assert not replicator.flush(0.05)
    assert steps(store) == [4, 3]


def test_pruning_counts_steps_and_not_copies_of_one_step(store: MemoryStore, replicator: Replicator) -> None:
    for step in (1, 2, 2, 2):
        replicator.enqueue(pending(step))
        assert replicator.flush(10)
    assert steps(store) == [2, 1]


def test_pruning_leaves_no_object_that_nobody_needs_and_takes_none_that_somebody_does(
    store: MemoryStore, replicator: Replicator, tmp_path: Path
) -> None:
    for step in range(1, 6):
        replicator.enqueue(pending(step))
        assert replicator.flush(10)
    kept = [found for _, found, _ in snapshots(store, RUN) if found is not None]
    needed = {found.object_key(sha) for found in kept for _, sha in found.files.values()}
    assert {key for key in store.objects if "objects" in key} == needed
    assert faults_mirror.newest_whole(store, tmp_path / "read") == (5, False)


def test_a_store_that_will_not_delete_does_not_make_a_copy_unsafe(store: MemoryStore, replicator: Replicator) -> None:
    away(store, ("delete",))
    for step in (1, 2, 3, 4):
        replicator.enqueue(pending(step))
        assert replicator.flush(10)
    assert replicator.status.failures == 0 and steps(store) == [4, 3, 2, 1]


def test_what_was_damaged_on_this_disk_is_not_copied(
    store: MemoryStore, replicator: Replicator, caplog: pytest.LogCaptureFixture
) -> None:
    replicator.enqueue(pending(1, expected={"fixed": "0" * 64}))
    assert replicator.flush(10)
    assert list_snapshots(store, RUN) == [] and "not what was written here" in caplog.text
    assert replicator.status.confirmed_step is None


def test_a_file_that_was_deleted_meanwhile_does_not_end_the_copying(
    store: MemoryStore, replicator: Replicator, tmp_path: Path
) -> None:
    replicator.enqueue(Pending(1, False, {"gone": tmp_path / "gone"}))
    assert replicator.flush(10)
    replicator.enqueue(pending(2))
    assert replicator.flush(10) and steps(store) == [2]


def test_a_manifest_that_is_there_although_nobody_said_so_does_not_stand_in_the_way(
    store: MemoryStore, replicator: Replicator
) -> None:
    """The first put succeeds and its answer is lost; by the next attempt there is a newer step to send."""

    def lose(operation: str, key: str) -> bytes | None:
        if operation == "read" and key.endswith("1.json") and "lease" not in key:
            raise UnreachableError("lost")
        return None

    store.hook = lose
    replicator.enqueue(pending(1))
    until(lambda: replicator.status.failures > 0)
    replicator.enqueue(pending(2))
    until(lambda: replicator.status.confirmed_step == 2)
    store.hook = None
    assert replicator.flush(10) and steps(store) == [2, 1]


def test_whoever_lost_the_lease_sends_nothing_more(store: MemoryStore, replicator: Replicator) -> None:
    store.put(f"{RUN}/lease/00000002.json", b"{}", create=True)
    replicator.enqueue(pending(1))
    assert not replicator.flush(10)
    assert replicator.status.lost is not None and list_snapshots(store, RUN) == []
