"""What became of every row: rows in = rows trained + rows set aside + rows dropped, each with place and reason."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self

from tunesmith.data import fast_json
from tunesmith.errors import DataError

Outcome = Literal["trained", "validation", "test", "dropped"]

NOT_FAULTS = frozenset({"duplicate", "leak"})
"""Reasons that say nothing against the data as written: such rows do not count towards `data.max_dropped`."""


class Dropped(NamedTuple):
    """A row that goes no further."""

    place: str
    reason: str
    """A stable word or two to count by: `broken JSON`, `too long`, `special token`."""
    detail: str = ""
    """One sentence for a person."""
    id: str = ""


@dataclass(frozen=True, slots=True)
class LedgerSummary:
    """The ledger in figures."""

    rows: int = 0
    trained: int = 0
    validation: int = 0
    test: int = 0
    dropped: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Dropped rows by reason."""
    first: Mapping[str, str] = field(default_factory=dict)
    """For each reason, the first row that was dropped for it, as `place: detail`."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Rows that were kept but changed, by what was done: `prompt shortened`."""

    @property
    def faults(self) -> int:
        """Dropped rows that count towards `data.max_dropped`."""
        return sum(count for reason, count in self.reasons.items() if reason not in NOT_FAULTS)

    def figures(self) -> dict[str, object]:
        """The same, JSON-serialisable."""
        return asdict(self) | {"faults": self.faults}

    def text(self) -> str:
        """A few lines for a terminal: the totals, then each reason with its first place."""
        lines = [
            f"{self.rows:,} rows in = {self.trained:,} trained + {self.validation:,} validation"
            f" + {self.test:,} test + {self.dropped:,} dropped"
        ]
        for reason, count in sorted(self.reasons.items(), key=lambda item: (-item[1], item[0])):
            lines.append(f"  dropped {count:,}: {reason}, first at {self.first[reason]}")
        for note, count in sorted(self.notes.items()):
            lines.append(f"  kept {count:,}: {note}")
        return "\n".join(lines)


class Ledger:
    """Writes one JSON line per row and keeps count. A context manager; leaving it checks that nothing is missing.

    Args:
        path: file to write; None keeps the counts only.
        state: of an earlier ledger, to go on with its file.
    """

    def __init__(self, path: Path | None, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._file: BinaryIO | None = None
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab" if state else "wb")
        self._admitted: Counter[str] = Counter(state.get("admitted", {}))
        self._outcomes: Counter[str] = Counter(state.get("outcomes", {}))
        self._reasons: Counter[str] = Counter(state.get("reasons", {}))
        self._notes: Counter[str] = Counter(state.get("notes", {}))
        self._faults: Counter[str] = Counter(state.get("faults", {}))
        self._first: dict[str, str] = dict(state.get("first", {}))
        self._first_fault: dict[str, str] = dict(state.get("first_fault", {}))

    def state(self) -> dict[str, Any]:
        """The counts, JSON-serialisable, once every line so far is on the disk."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
        return {
            "admitted": self._admitted, "outcomes": self._outcomes, "reasons": self._reasons, "notes": self._notes,
            "faults": self._faults, "first": self._first, "first_fault": self._first_fault,
        }  # fmt: skip

    def admit(self, split: str, rows: int = 1) -> None:
        """Say that `rows` more rows of a source came in; each must be settled once."""
        self._admitted[split] += rows

    def settle(self, place: str, id: str, split: str, outcome: Outcome, reason: str = "", detail: str = "") -> None:
        """Say what became of one row. `reason` of a kept row is a note of what was changed."""
        self._outcomes[outcome] += 1
        if outcome == "dropped":
            self._reasons[reason] += 1
            if reason not in NOT_FAULTS:
                self._faults[split] += 1
                self._first_fault.setdefault(split, place)
            self._first.setdefault(reason, f"{place}: {detail}" if detail else place)
        elif reason:
            self._notes[reason] += 1
        if self._file is not None:
            line = {"place": place, "id": id, "split": split, "outcome": outcome}
            if reason:
                line |= {"reason": reason, "detail": detail}
            self._file.write(fast_json.dumps(line, halves=True) + b"\n")

    def drop(self, dropped: Dropped, split: str) -> None:
        """Settle a row as dropped."""
        self.settle(dropped.place, dropped.id, split, "dropped", dropped.reason, dropped.detail)

    def gate(self, max_dropped: float) -> None:
        """Stop when a source loses more than `max_dropped` (a share) of its rows to faults.

        Raises:
            DataError: with the reasons and the first place of each.
        """
        for split, faults in self._faults.items():
            rows = self._admitted[split]
            if faults > max_dropped * rows:
                raise DataError(
                    f"{faults:,} of {rows:,} {split} rows would be dropped; data.max_dropped allows "
                    f"{max_dropped:.1%}\n{self.summary().text()}",
                    place=self._first_fault[split],
                    remedy="repair them, or raise data.max_dropped",
                )

    def summary(self) -> LedgerSummary:
        """The figures so far."""
        return LedgerSummary(
            rows=self._admitted.total(),
            trained=self._outcomes["trained"],
            validation=self._outcomes["validation"],
            test=self._outcomes["test"],
            dropped=self._outcomes["dropped"],
            reasons=dict(self._reasons),
            first=dict(self._first),
            notes=dict(self._notes),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if kind is None and self._admitted.total() != self._outcomes.total():
            raise AssertionError(f"{self._admitted.total()} rows came in, {self._outcomes.total()} were accounted for")
