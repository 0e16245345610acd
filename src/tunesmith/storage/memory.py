"""A store in memory that can be told to fail: the double of a bucket."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.storage.store import CHUNK, AlreadyThereError, Entry, MissingError, check_key

Hook = Callable[[str, str], bytes | None]
"""Called as `(operation, key)` before each operation; may raise, may wait, may return what is read instead."""


class MemoryStore:
    """Objects in a dictionary.

    Args:
        hook: called before every operation with its name (`put`, `read`, `list`, `delete`) and key.
    """

    def __init__(self, hook: Hook | None = None) -> None:
        self.url = "memory:"
        self.objects: dict[str, bytes] = {}
        self.calls: list[tuple[str, str]] = []
        """Every operation, in order."""
        self.hook = hook
        self._lock = threading.Lock()

    def put(self, key: str, content: bytes | Path, *, create: bool = False) -> None:
        """See `Store.put`."""
        self._called("put", key)
        written = content if isinstance(content, bytes) else content.read_bytes()
        with self._lock:
            if create and key in self.objects:
                raise AlreadyThereError("there is such an object already", place=key)
            self.objects[key] = written

    def read(self, key: str) -> Iterator[bytes]:
        """See `Store.read`."""
        instead = self._called("read", key)
        content = instead if instead is not None else self.objects.get(key)
        if content is None:
            raise MissingError("there is no such object", place=key)
        for start in range(0, len(content), CHUNK):
            yield content[start : start + CHUNK]

    def list(self, prefix: str) -> list[Entry]:
        """See `Store.list`."""
        self._called("list", prefix)
        with self._lock:
            inside = [key for key in self.objects if not prefix or key.startswith(f"{prefix}/")]
            return sorted(Entry(key, len(self.objects[key])) for key in inside)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._called("delete", key)
        self.objects.pop(key, None)

    def _called(self, operation: str, key: str) -> bytes | None:
        if key or operation != "list":
            check_key(key)
        self.calls.append((operation, key))
        return self.hook(operation, key) if self.hook is not None else None
