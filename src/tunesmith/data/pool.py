"""Examples on disk while a data set is prepared, so that memory stays what it is however large the source.

A pool keeps every example that can be used as a line of `examples.jsonl`, and beside it what is asked of it before it
is read again: the hash of its prompt, and on which side of a split it falls. What was done is written down after every
shard (`Progress`); a process that is killed loses no more than that.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from tunesmith.data.cache import EXAMPLES, PROGRESS, example_line, read_example_line
from tunesmith.types import Example

_ROW = np.dtype([("prompt", "V16"), ("sides", "u1"), ("start", "<i8"), ("size", "<i8")])
_BLOCK = 4096
"""Rows of the pool's table that are read at once."""
_TABLE_KILOBYTES = 32_768
"""Memory of a table of keys; the rest of it is on disk."""
_BUFFER = 1 << 18
"""Bytes that are read and written at once: examples are longer than a line of text is."""
_IN_MEMORY = 32_768
"""Keys that are not written to the table yet."""
_MARKS = 1 << 22
"""Bytes, each set once a key of its number is in the table: a key whose byte is not set need not be looked for."""


class Seen:
    """Which keys were seen, and where first: the latest in memory, the rest in a table on disk."""

    def __init__(self, path: Path) -> None:
        self._table = sqlite3.connect(path, isolation_level=None)
        for setting in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{_TABLE_KILOBYTES}"):
            self._table.execute(f"PRAGMA {setting}")
        self._table.execute("CREATE TABLE IF NOT EXISTS seen (key BLOB PRIMARY KEY, place TEXT) WITHOUT ROWID")
        self._latest: dict[bytes, str] = {}
        self._marks = bytearray()
        for (key,) in self._table.execute("SELECT key FROM seen"):
            self._mark(key)

    def first(self, key: bytes, place: str) -> str:
        """The place at which the key was seen first: this one where it is new."""
        known = self.where(key)
        if known is not None:
            return known
        self._latest[key] = place
        if len(self._latest) == _IN_MEMORY:
            self.keep()
            for kept in self._latest:
                self._mark(kept)
            self._latest.clear()
        return place

    def where(self, key: bytes) -> str | None:
        """The place at which the key was seen, or None."""
        known = self._latest.get(key)
        if known is not None or not self._marks or not self._marks[_number(key)]:
            return known
        found = self._table.execute("SELECT place FROM seen WHERE key = ?", (key,)).fetchone()
        return str(found[0]) if found else None

    def _mark(self, key: bytes) -> None:
        self._marks = self._marks or bytearray(_MARKS)
        self._marks[_number(key)] = 1

    def keep(self) -> None:
        """Write down what was added; in order, which a tree on disk likes."""
        self._table.execute("BEGIN")
        self._table.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", sorted(self._latest.items()))
        self._table.execute("COMMIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._table.close()


def _number(key: bytes) -> int:
    """Which of the `_MARKS` bytes stands for a key; keys are hashes, so that any of their bits will do."""
    return int.from_bytes(key[:4], "big") % _MARKS


class Pooled(NamedTuple):
    """An example of a pool that was not read yet."""

    at: int
    """Its number in the pool."""
    prompt: bytes
    """Hash of what it asks."""
    sides: int
    """Bits, as they were given to `Pool.add`."""
    start: int
    size: int


class Lines:
    """Examples as lines of one file, written to its end and read from anywhere. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._into = (folder / EXAMPLES).open("ab", _BUFFER)
        self._out = (folder / EXAMPLES).open("rb", _BUFFER)
        self._end, self._at = self._into.tell(), 0  # telling is a call of the system

    def write(self, example: Example) -> tuple[int, int]:
        """Append an example; returns the start and the size of its line."""
        start, size = self._end, self._into.write(example_line(example))
        self._end += size
        return start, size

    def read(self, start: int, size: int) -> Example:
        """The example of the line at a place, once it was flushed."""
        if self._at != start:  # seeking throws away what was read ahead
            self._out.seek(start)
        self._at = start + size
        return read_example_line(self._out.read(size))

    def flush(self) -> None:
        """Everything so far can be read."""
        self._into.flush()

    def sync(self) -> None:
        """Everything so far is on the disk."""
        self._into.flush()
        os.fsync(self._into.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._into.close()
        self._out.close()


class Pool:
    """The examples of one source, in order; several pools share a file of lines."""

    def __init__(self, lines: Lines, name: str) -> None:
        self._lines = lines
        self._table = lines.folder / f"{name}.pool"
        self._rows: list[tuple[bytes, int, int, int]] = []

    def add(self, example: Example, prompt: bytes, sides: int = 0) -> None:
        """Keep an example, with the hash of its prompt."""
        self._rows.append((prompt, sides, *self._lines.write(example)))
        if len(self._rows) == _BLOCK:
            self.flush()

    def rows(self, start: int = 0) -> Iterator[Pooled]:
        """What is known of each example, from a number on."""
        self.flush()
        with self._table.open("rb") as table:
            table.seek(start * _ROW.itemsize)
            while block := table.read(_BLOCK * _ROW.itemsize):
                for prompt, sides, first, size in np.frombuffer(block, _ROW).tolist():
                    yield Pooled(start, prompt, sides, first, size)
                    start += 1

    def flush(self) -> None:
        """Everything so far can be read, and is safe from the end of this process."""
        self._lines.flush()
        with self._table.open("ab") as table:
            table.write(np.array(self._rows, _ROW).tobytes())
            os.fsync(table.fileno())
        self._rows = []


@dataclass
class Progress:
    """How far the training rows of a draft are, once everything that is held out is done."""

    at: int = 0
    """Examples of the pool that are done."""
    held_side: int = 0
    """The bit of `sides` that sends an example to validation."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    leaked: list[str] = field(default_factory=list)
    """Of the first training row that asks a held-out question: its place, and where it is held out."""
    leaks: int = 0
    pairs: list[dict[str, Any]] = field(default_factory=list)
    thoughtful: int = 0
    rows: int = 0
    ledger: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Bytes of every file of the draft that count."""

    def save(self, draft: Path) -> None:
        """Write it down; whatever it speaks of must be on the disk."""
        self.sizes = {file.name: file.stat().st_size for file in draft.iterdir() if file.name != PROGRESS}
        written = draft / f"{PROGRESS}.new"
        with written.open("w", encoding="utf-8") as file:
            json.dump(vars(self), file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        written.replace(draft / PROGRESS)

    @classmethod
    def load(cls, draft: Path) -> Progress | None:
        """How far a draft was when its process ended, its files cut back to that; None leaves an empty folder."""
        try:
            found = cls(**json.loads((draft / PROGRESS).read_text(encoding="utf-8")))
            for name, size in found.sizes.items():
                if (draft / name).stat().st_size < size:
                    raise ValueError(name)
        except (OSError, ValueError, TypeError, AttributeError):
            found = None
        for file in draft.iterdir():
            if found is None or (file.name != PROGRESS and file.name not in found.sizes):
                file.unlink()
            elif file.name != PROGRESS:
                os.truncate(file, found.sizes[file.name])
        return found
