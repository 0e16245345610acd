"""What a task's builder made, and how it lies in a folder: JSON Lines for each set, and a file written last."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

SETS = ("train", "test_built", "test_unseen")
"""What is written: training; other values under kinds that were trained; kinds that were not."""

_TEST_SHARE = 0.1
"""Share of what is drawn of a kind that is kept for testing."""
_TRIES = 40
"""Drawn for each record that is wanted, before giving up on variety."""

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


class Wanted(Protocol):
    """The settings of a builder that draws records of kinds."""

    @property
    def examples(self) -> int: ...
    @property
    def test_examples(self) -> int: ...
    @property
    def unseen_kinds(self) -> float: ...


class Drawn(NamedTuple):
    """One record that might be kept. What costs something is asked only of those that might."""

    identity: Hashable
    """What must not come twice."""
    values: tuple[object, ...]
    """What decides whether it is kept for testing: records that agree in it stand on one side."""
    holds: Callable[[], bool]
    """Whether the grader would accept it."""
    record: Callable[[], dict[str, Any]]


@dataclass(slots=True)
class Sets:
    """Records by set, while they are drawn."""

    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in SETS})
    kinds: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    refused: int = 0
    """Records that the grader would not accept."""


def draw_sets(
    kinds: Sequence[str],
    draw: Callable[[str, random.Random], Drawn],
    rng: random.Random,
    wanted: Wanted,
    seed: int,
) -> Sets:
    """Draw records of random kinds until every set is full, or variety is at its end.

    Args:
        kinds: their names; `draw` makes one record of a kind.
        rng: of everything drawn.
        wanted: how many records; the kinds of `test_unseen` are in no other set.
        seed: with a record's `values`, decides its side.
    """
    sets, seen, unseen = Sets(), set[Hashable](), unseen_kinds(kinds, wanted.unseen_kinds, seed)
    tests = wanted.test_examples
    most = {"train": wanted.examples, "test_built": tests, "test_unseen": tests if unseen else 0}
    for _ in range(_TRIES * (wanted.examples + 2 * tests)):
        unfilled = [name for name in SETS if len(sets.records[name]) < most[name]]
        if not unfilled:
            break
        kind = rng.choice(kinds)
        drawn = draw(kind, rng)
        side = "test_built" if share_of(seed, *drawn.values) < _TEST_SHARE else "train"
        side = "test_unseen" if kind in unseen else side
        if side not in unfilled:
            continue
        if drawn.identity in seen:
            sets.repeated += 1
        elif not drawn.holds():
            sets.refused += 1
        else:
            seen.add(drawn.identity)
            sets.kinds[kind] += 1
            sets.records[side].append(drawn.record())
    return sets


def unseen_kinds(kinds: Sequence[str], share: float, seed: int) -> frozenset[str]:
    """The kinds that training never sees: the nearest whole number to their share, chosen by hash."""
    order = sorted(kinds, key=lambda kind: digest(seed, "unseen", kind))
    return frozenset(order[: min(round(share * len(kinds)), len(kinds) - 1)])


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
