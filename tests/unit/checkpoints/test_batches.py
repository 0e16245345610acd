"""What every step was trained on, and that a resumed run is shown it again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.checkpoints.batches import BatchLedger
from tunesmith.errors import DataError


def write(path: Path, *digests: str) -> BatchLedger:
    ledger = BatchLedger(path)
    for step, rows in enumerate(digests, 1):
        ledger.note(step, rows)
    return ledger


def test_steps_taken_again_must_be_the_same(tmp_path: Path) -> None:
    path = tmp_path / "batches.jsonl"
    at_two = write(tmp_path / "short.jsonl", "a", "b").chain
    whole = write(path, "a", "b", "c", "d")
    again = BatchLedger(path, 2, at_two)
    again.note(3, "c")
    again.note(4, "d")
    again.note(5, "e")
    assert len(path.read_text().splitlines()) == 5
    assert again.chain != whole.chain
    with pytest.raises(DataError, match="step 3 would be trained on other rows") as refused:
        BatchLedger(path, 2, at_two).note(3, "x")
    assert refused.value.exit_code == 3


def test_a_file_of_another_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batches.jsonl"
    write(path, "a", "b")
    with pytest.raises(DataError, match="the first 2 steps were trained on other rows"):
        BatchLedger(path, 2, write(tmp_path / "other.jsonl", "a", "x").chain)


def test_half_a_line_that_a_kill_left_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "batches.jsonl"
    write(path, "a", "b")
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        again = BatchLedger(path)
        again.note(1, "a")
        again.note(2, "b")
        assert path.read_bytes() == whole


def test_an_empty_machine_goes_on_from_the_checkpoint_alone(tmp_path: Path) -> None:
    there = write(tmp_path / "there.jsonl", "a", "b", "c")
    at_two = write(tmp_path / "two.jsonl", "a", "b")
    here = BatchLedger(tmp_path / "here.jsonl", 2, at_two.chain)
    here.note(3, "c")
    assert here.chain == there.chain


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "batches.jsonl"
    path.write_text('{"step": "one"}\n')
    with pytest.raises(DataError, match="cannot be read") as refused:
        BatchLedger(path)
    assert refused.value.place == str(path)
