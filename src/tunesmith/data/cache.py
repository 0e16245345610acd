"""Prepared data on disk, found by the digest of everything that made it; the manifest is written last.

<cache>/<key>/train.ids.npy  train.labels.npy  train.offsets.npy   flat int32 arrays, memory-mapped
              train.examples.jsonl  train.lines.npy                what each row was, by byte offset
              validation.*  test:<name>.examples.jsonl  ledger.jsonl
              MANIFEST.json                                        sizes of all files, findings, totals
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunesmith.errors import DataError, StorageError
from tunesmith.types import IGNORE, Example, Message, Tokens

MANIFEST = "MANIFEST.json"
_DIGESTS = "digests.json"
_SETTLED_SECONDS = 2.0
"""A file changed this recently may change again without its time showing it, so its digest is not remembered."""


class TokensDataset(Sequence[Tokens]):
    """Rendered examples, memory-mapped: opening costs nothing, and worker processes share the pages."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder
        self.split = split
        self._offsets: NDArray[np.int64] = np.load(folder / f"{split}.offsets.npy")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        start, stop = self._offsets[index], self._offsets[index + 1]
        return Tokens(self.ids[index], np.asarray(self._input_ids[start:stop]), np.asarray(self._labels[start:stop]))

    def __iter__(self) -> Iterator[Tokens]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type[TokensDataset], tuple[Path, str]]:
        return TokensDataset, (self.folder, self.split)

    @cached_property
    def ids(self) -> list[str]:
        """The examples' ids."""
        found: list[str] = json.loads((self.folder / f"{self.split}.names.json").read_text(encoding="utf-8"))
        return found

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per example, shape (len,)."""
        return np.diff(self._offsets)

    @cached_property
    def label_counts(self) -> NDArray[np.int64]:
        """Tokens the loss sees per example, shape (len,)."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(np.asarray(self._labels) != IGNORE, self._offsets[:-1], dtype=np.int64)

    def example(self, index: int) -> Example:
        """The conversation row `index` was made of."""
        start, stop = (int(at) for at in self._lines[index : index + 2])
        with (self.folder / f"{self.split}.examples.jsonl").open("rb") as file:
            file.seek(start)
            return _example(file.read(stop - start))

    @cached_property
    def _input_ids(self) -> NDArray[np.int32]:
        return self._flat("ids")

    @cached_property
    def _labels(self) -> NDArray[np.int32]:
        return self._flat("labels")

    @cached_property
    def _lines(self) -> NDArray[np.int64]:
        lines: NDArray[np.int64] = np.load(self.folder / f"{self.split}.lines.npy")
        return lines

    def _flat(self, name: str) -> NDArray[np.int32]:
        # An empty file cannot be mapped.
        flat: NDArray[np.int32] = np.load(
            self.folder / f"{self.split}.{name}.npy", mmap_mode="r" if self._offsets[-1] else None
        )
        return flat


def write_tokens(folder: Path, split: str, tokens: Sequence[Tokens], examples: Sequence[Example]) -> None:
    """Write one split's rows and what they were made of."""
    empty = [np.zeros(0, np.int32)]
    offsets = np.cumsum([0, *(len(one.input_ids) for one in tokens)], dtype=np.int64)
    np.save(folder / f"{split}.ids.npy", np.concatenate([one.input_ids for one in tokens] or empty))
    np.save(folder / f"{split}.labels.npy", np.concatenate([one.labels for one in tokens] or empty))
    np.save(folder / f"{split}.offsets.npy", offsets)
    (folder / f"{split}.names.json").write_text(json.dumps([one.id for one in tokens]), encoding="utf-8")
    np.save(folder / f"{split}.lines.npy", write_examples(folder, split, examples))


def write_examples(folder: Path, name: str, examples: Iterable[Example]) -> NDArray[np.int64]:
    """Write examples as JSON lines; returns the byte offset of each line, and of the end."""
    starts = [0]
    with (folder / f"{name}.examples.jsonl").open("wb") as file:
        for example in examples:
            starts.append(starts[-1] + file.write(_line(example)))
    return np.array(starts, dtype=np.int64)


def read_examples(folder: Path, name: str) -> list[Example]:
    """The examples of a split or test set."""
    with (folder / f"{name}.examples.jsonl").open("rb") as file:
        return [_example(line) for line in file]


def _line(example: Example) -> bytes:
    try:
        return json.dumps(asdict(example), ensure_ascii=False).encode() + b"\n"
    except (TypeError, UnicodeEncodeError) as error:
        raise DataError(
            f"the example cannot be written as JSON: {error}",
            place=example.place,
            remedy="keep `meta` and the messages to texts, numbers, lists and objects",
        ) from error


def _example(line: bytes) -> Example:
    fields = json.loads(line)
    messages = tuple(Message(**message) for message in fields.pop("messages"))
    return Example(messages=messages, **fields)


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

    Raises:
        StorageError: the cache cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder.parent, error) from error
    try:
        yield draft
        manifest["sizes"] = {file.name: file.stat().st_size for file in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)  # torn, or we would not be here
        draft.rename(folder)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


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
