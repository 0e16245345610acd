"""What one model failed is asked of the next, word for word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.data.formats import RowRefused, detect, read_example
from tunesmith.errors import DataError
from tunesmith.evaluate import Evaluation, Judged
from tunesmith.evaluate.regressions import keep_failures
from tunesmith.types import Completion, Example, Message, Score


def judged(i: int, value: float | None) -> Judged:
    call = {"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}
    turns = (Message("system", "s"), Message("user", f"câu {i}"), Message("assistant", "", train=True, extra=call))
    example = Example(f"e{i}", turns, target=f"t{i}", group="g", meta={"unit": "kg"}, place="x:1")
    return Judged(example, Completion("no"), Score(value, failure="wrong", note="n"))


def test_failures_are_kept_once_and_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "suite.jsonl"
    first = Evaluation((judged(0, 0.0), judged(1, 1.0), judged(2, None), judged(3, 0.5)))
    assert keep_failures(path, {"mine": first}, "run-a") == (2, 2)
    assert keep_failures(path, {"mine": Evaluation((judged(0, 0.0), judged(1, 0.0)))}, "run-b") == (1, 3)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["example"]["id"], line["kept"]["run"]) for line in lines] == [
        ("e0", "run-a"),
        ("e3", "run-a"),
        ("e1", "run-b"),
    ]
    assert all(detect(line) == "kept" for line in lines)
    again, before = read_example(lines[0], "suite:1"), first.judged[0].example
    assert (again.id, again.prompt, again.target, again.group, again.meta) == (
        before.id,
        before.prompt,
        before.target,
        before.group,
        before.meta,
    )
    assert again.messages[-1].extra == before.messages[-1].extra


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"question": "?"}\n')
    with pytest.raises(DataError, match="not a kept failure"):
        keep_failures(path, {"mine": Evaluation((judged(0, 0.0),))}, "run")
    assert path.read_text() == '{"question": "?"}\n'


def test_a_torn_record_is_refused_with_its_place() -> None:
    with pytest.raises(RowRefused, match="not a kept failure"):
        read_example({"example": {"id": "x"}, "kept": {}}, "suite:4")
