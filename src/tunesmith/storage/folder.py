"""A folder as a store: another disk, a network share, a mounted drive."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tunesmith.errors import StorageError
from tunesmith.storage.store import (
    CHUNK,
    AlreadyThereError,
    DeniedError,
    Entry,
    MissingError,
    UnreachableError,
    check_key,
)

_DRAFT = ".writing-"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


class FolderStore:
    """Objects as files: written beside, synced, and only then given their name.

    Args:
        root: the folder; made at the first put.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.url = str(self.root)

    def put(self, key: str, content: bytes | Path, *, create: bool = False) -> None:
        """See `Store.put`."""
        path = self.root / check_key(key)
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f"{_DRAFT}{secrets.token_hex(8)}")
            try:
                with draft.open("xb") as file:
                    if isinstance(content, bytes):
                        file.write(content)
                    else:
                        with content.open("rb") as source:
                            shutil.copyfileobj(source, file, CHUNK)
                    file.flush()
                    os.fsync(file.fileno())
                if create:
                    _give_new_name(draft, path)
                else:
                    draft.replace(path)
                _sync_folder(path.parent)
            finally:
                draft.unlink(missing_ok=True)

    def read(self, key: str) -> Iterator[bytes]:
        """See `Store.read`. A link is not followed: nothing we write is one."""
        path = self.root / check_key(key)
        with _explained(path):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                while part := file.read(CHUNK):
                    yield part

    def list(self, prefix: str) -> list[Entry]:
        """See `Store.list`."""
        folder = self.root / check_key(prefix) if prefix else self.root
        found = []
        with _explained(folder):
            for path in folder.rglob("*") if folder.is_dir() else ():
                if path.name.startswith(_DRAFT) or path.is_symlink():
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted while we look
                    if path.is_file():
                        found.append(Entry(path.relative_to(self.root).as_posix(), path.stat().st_size))
        return sorted(found)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        path = self.root / check_key(key)
        with _explained(path):
            path.unlink(missing_ok=True)


def _give_new_name(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A drive without hard links. The name is claimed first; half a content is told from a whole one by its reader.
        with path.open("xb") as file:
            file.write(draft.read_bytes())
            file.flush()
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network drives cannot sync a folder
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except FileNotFoundError as error:
        raise MissingError("there is no such object", place=str(path)) from error
    except FileExistsError as error:
        raise AlreadyThereError("there is such an object already", place=str(path)) from error
    except OSError as error:
        kind = DeniedError if error.errno in _DENIED else UnreachableError
        remedy = "free space there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "see that it can be written"
        raise kind(error.strerror or type(error).__name__, place=str(path), remedy=remedy) from error
