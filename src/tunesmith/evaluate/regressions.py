"""Prompts that a model once failed, kept so that the next one is asked them too.

One JSON object a line: `{"example": {...}, "kept": {...}}`. The first part is all that asking and grading need, so the
file is a test set like any other (`data.test: {regressions: regressions.jsonl}`), and training rows that repeat one of
its questions are left out. The second says who failed it, when the run is long gone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.errors import DataError
from tunesmith.evaluate.metrics import Evaluation, Judged
from tunesmith.types import Example


class Kept(NamedTuple):
    """What a suite holds after failures were added."""

    added: int
    total: int


def keep_failures(path: Path, evaluations: Mapping[str, Evaluation], run: str) -> Kept:
    """Add every example that was judged and scored below 1 to a suite; what is in it already stays as it is.

    Args:
        path: the suite; it is made where there is none.
        evaluations: of one model, by test set.
        run: name of the run, for whoever reads the suite later.

    Raises:
        DataError: the file is there and is no suite.
    """
    known = _read(path)
    before = len(known)
    for name, evaluation in evaluations.items():
        for one in evaluation.judged:
            if one.score.value is not None and one.score.value < 1:
                known.setdefault(one.example.id, _line(one, name, run))
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("w", encoding="utf-8", newline="\n") as out:
        out.writelines(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in known.values())
        out.flush()
        os.fsync(out.fileno())
    staged.replace(path)
    return Kept(len(known) - before, len(known))


def _line(one: Judged, test_set: str, run: str) -> dict[str, Any]:
    score = one.score
    kept = {
        "run": run,
        "test_set": test_set,
        "completion": one.completion.text,
        "value": score.value,
        "failure": score.failure,
        "note": score.note,
    }
    return {"example": example_fields(one.example), "kept": kept}


def example_fields(example: Example) -> dict[str, Any]:
    """An example as JSON, the way `data.formats.read_example` reads it back."""
    turns = [{"role": m.role, "content": m.content, **({"extra": dict(m.extra)} if m.extra else {})} for m in
             example.messages]  # fmt: skip
    return {
        "id": example.id,
        "messages": turns,
        "target": example.target,
        "group": example.group,
        "meta": dict(example.meta),
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    found: dict[str, dict[str, Any]] = {}
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                value = json.loads(line)
                found[value["example"]["id"]] = value
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    "this line is not a kept failure, so nothing is added to the file",
                    place=f"{path}:{number}",
                    remedy="name another file with --suite",
                ) from error
    return found
