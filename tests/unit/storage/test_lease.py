"""One writer at a time; who comes second is told who is first, and who was only asleep does not write any more."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tunesmith.storage import LeaseHeldError, LeaseLostError, Store, get, take_lease
from tunesmith.storage import lease as module
from tunesmith.storage.memory import MemoryStore


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds a lease seems to be on another machine, whose processes cannot be seen."""
    monkeypatch.setattr(module, "_same_machine", lambda holder: False)


def test_numbers_rise_from_writer_to_writer(store: Store) -> None:
    for number in (1, 2, 3):
        lease = take_lease(store, "run/lease")
        assert lease.token == number
        lease.require()
        lease.release()


def test_the_second_is_told_who_is_first(store: Store) -> None:
    first = take_lease(store, "run/lease")
    with pytest.raises(LeaseHeldError, match=r"process \d+ on .* writes there") as refused:
        take_lease(store, "run/lease")
    assert refused.value.exit_code == 4 and refused.value.remedy
    first.require()
    first.release()
    take_lease(store, "run/lease").release()


def test_of_eight_at_once_exactly_one_writes(store: Store) -> None:
    won: list[module.Lease] = []
    told: list[str] = []

    def start() -> None:
        try:
            won.append(take_lease(store, "run/lease"))
        except LeaseHeldError as error:
            told.append(error.message)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and len(told) == 7
    won[0].release()


def test_a_holder_whose_process_is_gone_is_replaced_at_once() -> None:
    store = MemoryStore()
    gone = {**module._ourselves(), "pid": 2**22 + 1, "nonce": "x"}
    store.put("run/lease/00000004.json", json.dumps(gone).encode())
    lease = take_lease(store, "run/lease", sleep=lambda _: pytest.fail("nobody to wait for"))
    assert lease.token == 5
    lease.release()


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it() -> None:
    store = MemoryStore()
    store.put("run/lease/00000001.json", json.dumps({**module._ourselves(), "started": "1", "nonce": "x"}).encode())
    take_lease(store, "run/lease", sleep=lambda _: pytest.fail("nobody to wait for")).release()


@pytest.mark.usefixtures("elsewhere")
def test_a_silent_holder_elsewhere_is_watched_and_then_replaced() -> None:
    store = MemoryStore()
    store.put("run/lease/00000001.json", json.dumps({"host": "gone", "pid": 7, "beat": 10}).encode())
    slept: list[float] = []
    said: list[str] = []
    lease = take_lease(store, "run/lease", sleep=slept.append, told=said.append)
    assert lease.token == 2 and sum(slept) == pytest.approx(45)
    assert "process 7 on gone" in said[0]
    lease.release()


@pytest.mark.usefixtures("elsewhere")
def test_a_holder_elsewhere_that_beats_is_left_alone() -> None:
    store = MemoryStore()
    store.put("run/lease/00000001.json", json.dumps({"host": "busy", "pid": 7}).encode())

    def beat(_: float) -> None:
        store.put("run/lease/00000001.beat", f"{len(store.calls)}".encode())

    with pytest.raises(LeaseHeldError, match="process 7 on busy"):
        take_lease(store, "run/lease", sleep=beat)


@pytest.mark.usefixtures("elsewhere")
def test_a_holder_that_was_asleep_finds_that_it_was_replaced() -> None:
    store = MemoryStore()
    asleep = take_lease(store, "run/lease", beat=3600)
    awake = take_lease(store, "run/lease", sleep=lambda _: None)
    with pytest.raises(LeaseLostError, match="took over"):
        asleep.require()
    awake.require()
    asleep.release()
    awake.release()


def test_a_holder_beats(store: Store) -> None:
    lease = take_lease(store, "run/lease", beat=0.02)
    for _ in range(500):
        threading.Event().wait(0.01)
        if any(entry.key.endswith(".beat") for entry in store.list("run/lease")):
            break
    assert "beat" in json.loads(get(store, "run/lease/00000001.beat"))
    lease.release()
    assert json.loads(get(store, "run/lease/00000001.beat")) == {"released": True}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"pid": "x", "host": {"a": 1}, "beat": "inf"}', b"\xff"])
@pytest.mark.usefixtures("elsewhere")
def test_a_holder_that_cannot_be_read_is_watched_like_any_other(content: bytes) -> None:
    store = MemoryStore()
    store.put("run/lease/00000001.json", content)
    slept: list[float] = []
    take_lease(store, "run/lease", sleep=slept.append).release()
    assert sum(slept) > 40


def test_a_put_whose_answer_was_lost_is_ours() -> None:
    def lost(operation: str, key: str) -> Any:
        if operation == "put" and key.endswith("1.json") and key not in store.objects:
            store.hook = None
            raw = waiting.pop()
            store.objects[key] = raw
        return None

    store = MemoryStore()
    original = store.put
    waiting: list[bytes] = []

    def put(key: str, content: Any, *, create: bool = False) -> None:
        if create:
            waiting.append(content)
            store.hook = lost
        original(key, content, create=create)

    store.put = put  # type: ignore[method-assign]
    lease = take_lease(store, "run/lease")
    assert lease.token == 1
    lease.release()
