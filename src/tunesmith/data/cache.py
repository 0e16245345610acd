"""Prepared data on disk, found by the digest of everything that made it; the manifest is written last.

<cache>/<key>/train.ids  train.trained  train.offsets      flat numbers, memory-mapped; offsets are of the rows
              train.names  train.name_offsets              the examples' ids, likewise
              examples.jsonl  train.lines                  what each row was made of: start and size of its line
              validation.*  test-0.examples.jsonl  ledger.jsonl
              MANIFEST.json                                sizes of all files, findings, totals

Every file is written from its start to its end, so a draft that was killed is cut back to its last shard and gone on
with (`data/pool.py`).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from tunesmith.data import fast_json
from tunesmith.errors import CheckFailed, DataError, StorageError
from tunesmith.types import IGNORE, Example, Message, Tokens

MANIFEST = "MANIFEST.json"
EXAMPLES = "examples.jsonl"
PROGRESS = "progress.json"
_DIGESTS = "digests.json"
_SETTLED_SECONDS = 2.0
"""A file changed this recently may change again without its time showing it, so its digest is not remembered."""
_FORGOTTEN_SECONDS = 7 * 86_400
"""A draft that nobody went on with for so long is removed."""
_COLUMNS: dict[str, np.dtype[Any]] = {
    "ids": np.dtype("<i4"), "trained": np.dtype("?"), "offsets": np.dtype("<i8"), "names": np.dtype("u1"),
    "name_offsets": np.dtype("<i8"), "lines": np.dtype("<i8"),
}  # fmt: skip
_BLOCK = 1 << 16
"""Rows that are counted at once."""


class TokensDataset(Sequence[Tokens]):
    """Rendered examples, memory-mapped: opening costs nothing, and worker processes share the pages."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        self._offsets = self._column("offsets")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, stop = self._offsets[index], self._offsets[index + 1]
        first, last = self._name_offsets[index], self._name_offsets[index + 1]
        name = self._names[first:last].tobytes().decode()
        ids = np.asarray(self._input_ids[start:stop])
        return Tokens(name, ids, np.where(self._trained[start:stop], ids, np.int32(IGNORE)))

    def __iter__(self) -> Iterator[Tokens]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type[TokensDataset], tuple[Path, str]]:
        return TokensDataset, (self.folder, self.split)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example, shape (len,)."""
        return np.diff(self._offsets)

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Tokens the loss sees per example, shape (len,)."""
        counts = np.zeros(len(self), np.int64)
        for first in range(0, len(self), _BLOCK):
            starts = self._offsets[first : first + _BLOCK]
            stop = self._offsets[first + len(starts)] if first + len(starts) < len(self) else self._offsets[-1]
            seen = self._trained[starts[0] : stop]
            where = starts[: len(counts) - first] - starts[0]
            counts[first : first + len(starts)] = np.add.reduceat(seen, where, dtype=np.int64)
        return counts

    def example(self, index: int) -> Example:
        """The conversation row `index` was made of."""
        start, size = (int(number) for number in self._lines.reshape(-1, 2)[index])
        with (self.folder / EXAMPLES).open("rb") as file:
            file.seek(start)
            return read_example_line(file.read(size))

    @property
    def examples(self) -> Examples:
        """The conversations, read when they are asked for."""
        return Examples(self)

    @cached_property
    def _input_ids(self) -> NDArray[np.int32]:
        return self._column("ids")

    @cached_property
    def _trained(self) -> NDArray[np.bool_]:
        return self._column("trained")

    @cached_property
    def _names(self) -> NDArray[np.uint8]:
        return self._column("names")

    @cached_property
    def _name_offsets(self) -> NDArray[np.int64]:
        return self._column("name_offsets")

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        return self._column("lines")

    def _column(self, name: str) -> NDArray[Any]:
        path, kind = self.folder / f"{self.split}.{name}", _COLUMNS[name]
        if not path.stat().st_size:  # an empty file cannot be mapped
            return np.zeros(0, kind)
        mapped: NDArray[Any] = np.memmap(path, kind, mode="r")
        return mapped


class Examples(Sequence[Example]):
    """The conversations of a split, in order, each read from the disk when it is asked for."""

    def __init__(self, rows: TokensDataset) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._rows.example(at) for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._rows.example(index % len(self))


class RowWriter:
    """Appends rows to a split. A context manager."""

    def __init__(self, folder: Path, split: str) -> None:
        self._files: dict[str, BinaryIO] = {name: (folder / f"{split}.{name}").open("ab") for name in _COLUMNS}
        self._at = {name: file.tell() // _COLUMNS[name].itemsize for name, file in self._files.items()}
        if not self._at["offsets"]:
            self._append("offsets", [0])
            self._append("name_offsets", [0])

    def add(self, rows: Sequence[Tokens], lines: Sequence[tuple[int, int]]) -> None:
        """Append rows, each with start and size of its example's line in `examples.jsonl`.

        Raises:
            ValueError: a label is another token than the one it stands at, which cannot be written.
        """
        if not rows:
            return
        ends = self._at["ids"] + np.cumsum([len(one.input_ids) for one in rows])
        names = [one.id.encode() for one in rows]
        name_ends = self._at["names"] + np.cumsum([len(name) for name in names])
        ids, labels = (np.concatenate([getattr(one, name) for one in rows]) for name in ("input_ids", "labels"))
        trained = labels != IGNORE
        if not np.array_equal(labels[trained], ids[trained]):
            raise ValueError("a label is another token than the one it stands at")
        self._append("ids", ids)
        self._append("trained", trained)
        self._append("offsets", ends)
        self._append("names", np.frombuffer(b"".join(names), np.uint8))
        self._append("name_offsets", name_ends)
        self._append("lines", np.array(lines).ravel())

    def sync(self) -> None:
        """Everything so far is on the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def _append(self, name: str, values: Any) -> None:
        found = np.asarray(values, _COLUMNS[name])
        self._files[name].write(found.data)
        self._at[name] += len(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()


def write_tokens(folder: Path, split: str, tokens: Sequence[Tokens], examples: Sequence[Example]) -> None:
    """Write one split's rows and what they were made of, in place of what was there."""
    for name in _COLUMNS:
        (folder / f"{split}.{name}").unlink(missing_ok=True)
    with (folder / EXAMPLES).open("ab") as file, RowWriter(folder, split) as writer:
        lines = [example_line(example) for example in examples]
        starts = file.tell() + np.cumsum([0, *(len(line) for line in lines)])
        file.write(b"".join(lines))
        writer.add(tokens, [(int(start), len(line)) for start, line in zip(starts[:-1], lines, strict=True)])


def write_examples(folder: Path, name: str, examples: Iterable[Example]) -> None:
    """Write a test set as JSON lines."""
    with (folder / f"{name}.{EXAMPLES}").open("wb") as file:
        file.writelines(example_line(example) for example in examples)


def read_examples(folder: Path, name: str) -> list[Example]:
    """The examples of a test set."""
    with (folder / f"{name}.{EXAMPLES}").open("rb") as file:
        return [read_example_line(line) for line in file]


_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def example_line(example: Example) -> bytes:
    """An example as a line of JSON.

    Raises:
        DataError: it holds something that JSON does not know.
    """
    turns = [
        {"role": turn.role, "content": turn.content, "train": turn.train, "extra": dict(turn.extra)}
        for turn in example.messages
    ]
    fields = {
        "id": example.id, "messages": turns, "target": example.target, "rejected": example.rejected,
        "group": example.group, "meta": dict(example.meta), "place": example.place,
    }  # fmt: skip
    try:
        return fast_json.dumps(fields, option=_STRICT) + b"\n"
    except (TypeError, UnicodeEncodeError) as error:
        raise DataError(
            f"the example cannot be written as JSON: {error}",
            place=example.place,
            remedy="keep `meta` and the messages to texts, numbers, lists and objects",
        ) from error


def read_example_line(line: bytes) -> Example:
    """What `example_line` wrote."""
    fields = fast_json.loads(line)
    fields["messages"] = tuple(
        Message(turn["role"], turn["content"], turn["train"], turn["extra"]) for turn in fields["messages"]
    )
    return Example(**fields)


# --- entries ----------------------------------------------------------------------------------------------------------


def cache_key(parts: Mapping[str, Any]) -> str:
    """Digest of everything the rows depend on; `parts` is JSON-serialisable and names each."""
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def open_entry(folder: Path) -> dict[str, Any] | None:
    """The manifest of a complete entry, or None when there is none or a file of it is missing or cut off."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = manifest["sizes"]
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


@contextmanager
def new_entry(folder: Path, manifest: dict[str, Any]) -> Iterator[Path]:
    """A folder to fill. Leaving without an error makes it the entry: manifest last, then renamed into place.

    It is the folder that a killed process had begun to fill, where there is one and nobody else fills it. What is in
    it stays when the fault is not the data's, so that the next call goes on.

    Raises:
        StorageError: the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(folder.parent)
        draft, lock = _claim(folder)
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    lost = True
    try:
        yield draft
        manifest["sizes"] = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # torn, or we would not be here
        draft.rename(folder)
    except OSError as error:
        lost = False
        raise _unwritable(folder, error) from error
    except (DataError, CheckFailed):
        raise
    except BaseException:
        lost = False
        raise
    finally:
        if lost or lock is None or not (draft / PROGRESS).exists():
            shutil.rmtree(draft, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _claim(folder: Path) -> tuple[Path, int | None]:
    """The draft of an entry and the lock on it; a private one without a lock while another process fills that."""
    draft = folder.parent / f".{folder.name}-draft"
    draft.mkdir(exist_ok=True)
    lock = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if draft.stat().st_ino == os.fstat(lock).st_ino:  # else it was finished in between
            return draft, lock
    except OSError:
        pass
    os.close(lock)
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent)), None


def _forget_old(cache: Path) -> None:
    for draft in cache.glob(".*-draft"):
        with contextlib.suppress(OSError):
            if time.time() - draft.stat().st_mtime > _FORGOTTEN_SECONDS:
                shutil.rmtree(draft)


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        f"prepared data cannot be written: {error.strerror}",
        place=str(folder),
        remedy="free space or set data.cache_dir to another disk",
    )


def file_digest(path: Path, cache_dir: Path) -> str:
    """Hash of a file's bytes; remembered by size and time of change, so that a second look is free.

    Raises:
        DataError: the file cannot be read.
    """
    memory = cache_dir / _DIGESTS
    try:
        remembered: dict[str, list[Any]] = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        remembered = {}
    try:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns, status.st_ino]
        name = str(path.resolve())
        known = remembered.get(name)
        if known and known[:3] == stamp:
            return str(known[3])
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", place=str(path), remedy="check the path") from error
    if time.time() - status.st_mtime > _SETTLED_SECONDS:
        remembered[name] = [*stamp, digest]
        try:
            cache_dir.mkdir(parents=True, exist_ok=True)
            draft = memory.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(remembered), encoding="utf-8")
            draft.replace(memory)
        except OSError as error:
            raise _unwritable(cache_dir, error) from error
    return digest
