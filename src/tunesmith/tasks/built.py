"""What a task's builder made, and how it lies in a folder: JSON Lines for each set, and a file written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETS = ("train", "test_built", "test_unseen")
"""What is written: training; other values under kinds that were trained; kinds that were not."""

_DONE = "built.json"
"""Written last: where it is missing, the build did not finish."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build made."""

    files: Mapping[str, Path]
    """Set name to JSON Lines file."""
    counts: Mapping[str, int]
    """Set name to number of records."""
    kinds: Mapping[str, int]
    """Kind of question to number of records."""
    rejected: Mapping[str, int]
    """Reason to number of drawn records that were left out."""
    proof: str = ""
    """What was proved of every record."""


def write_built(
    records: Mapping[str, Sequence[Mapping[str, Any]]],
    kinds: Mapping[str, int],
    rejected: Mapping[str, int],
    out: Path,
    key: str,
    proof: str,
) -> Built:
    """Write the sets into a folder, which is created, and `built.json` last.

    Args:
        records: for every name in `SETS`.
        key: names what decided the build; `read_built` gives it back only under the same.
        proof: what was proved of every record, for a person.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / _DONE).unlink(missing_ok=True)
    files = {name: out / f"{name}.jsonl" for name in SETS}
    for name in SETS:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records[name])
        files[name].write_text(text, encoding="utf-8")
    counts = {name: len(records[name]) for name in SETS}
    about = {"key": key, "counts": counts, "kinds": dict(kinds), "rejected": dict(rejected), "proof": proof}
    (out / _DONE).write_text(json.dumps(about, indent=1), encoding="utf-8")
    return Built(files, counts, dict(kinds), dict(rejected), proof)


def read_built(out: Path, key: str) -> Built | None:
    """What an earlier build under the same key left in the folder; None where none finished there."""
    done = out / _DONE
    if not done.exists():
        return None
    about = json.loads(done.read_text(encoding="utf-8"))
    if about["key"] != key:
        return None
    files = {name: out / f"{name}.jsonl" for name in SETS}
    return Built(files, about["counts"], about["kinds"], about["rejected"], about["proof"])


def digest(*parts: object) -> str:
    """A hash that is the same on every machine."""
    return hashlib.sha256("\x00".join(str(part) for part in parts).encode()).hexdigest()


def share_of(*parts: object) -> float:
    """A number in [0, 1) drawn by hash: what decides the side of a split, whatever the order."""
    return int(digest(*parts)[:12], 16) / 16**12
