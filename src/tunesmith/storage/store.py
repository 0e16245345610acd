"""What a store is, the errors it may answer with, and how an address becomes one."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, Protocol

from tunesmith.config.secrets import redact
from tunesmith.errors import ConfigError, StorageError

CHUNK = 8 * 1024 * 1024
"""Bytes held in memory at once."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")


class UnreachableError(StorageError):
    """No answer, a cut connection, or an answer that says `later`: trying again may help."""


class DeniedError(StorageError):
    """Credentials, permissions or a name are wrong: trying again does not help, somebody must act."""


class MissingError(StorageError):
    """There is no object of that name."""


class AlreadyThereError(StorageError):
    """A create-only put met an object of that name."""


class NotAsWrittenError(StorageError):
    """What was read back is not what was written."""


class Entry(NamedTuple):
    """An object in a listing."""

    key: str
    size: int


class Store(Protocol):
    """Objects under keys, which are relative POSIX paths. An object is there whole or not at all.

    Every method raises a `StorageError`: `UnreachableError` where trying again may help, `DeniedError` where not.
    """

    url: str
    """Shown to people; holds no secrets."""

    def put(self, key: str, content: bytes | Path, *, create: bool = False) -> None:
        """Write an object. With `create` it must not exist: `AlreadyThereError` otherwise, decided by the store."""

    def read(self, key: str) -> Iterator[bytes]:
        """The content in pieces of at most `CHUNK`. Raises `MissingError`."""

    def list(self, prefix: str) -> list[Entry]:
        """Objects in the folder `prefix` and below, by key; their keys as `put` takes them."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""


def open_store(url: str) -> Store:
    """The store at `gs://bucket/folder`, `s3://bucket/folder`, `file:///folder` or a plain folder.

    Credentials and endpoints come from the environment, under the names the clouds' own tools read: for S3
    `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_PROFILE` (with boto3
    installed), `AWS_ENDPOINT_URL`; for Google `GOOGLE_APPLICATION_CREDENTIALS`, what `gcloud auth
    application-default login` left, the machine's own account, `STORAGE_EMULATOR_HOST`. Nothing is contacted yet.

    Raises:
        ConfigError: an address of another kind.
        DeniedError: credentials that cannot be read.
    """
    scheme = _SCHEME.match(url)
    if scheme is None or url.startswith("file:"):
        from tunesmith.storage.folder import FolderStore

        return FolderStore(Path(url.removeprefix("file://")).expanduser())
    require_address(url)
    from tunesmith.storage.bucket import BucketStore

    return BucketStore(url)


def is_remote(url: str) -> bool:
    """Whether an address is a URL, and not a folder of this machine."""
    return bool(_SCHEME.match(url)) and not url.startswith("file:")


def require_address(url: str, place: str = "checkpoints.mirror") -> None:
    """Raise `ConfigError` for an address that is neither a folder nor a bucket we can write to."""
    scheme = _SCHEME.match(url)
    kind = scheme.group(1).lower() if scheme else "file"
    if kind not in ("gs", "s3", "file"):
        raise ConfigError(
            f"there is no storage for addresses that begin with {kind}:",
            place=place,
            remedy="use gs://bucket/folder, s3://bucket/folder or a local folder",
        )
    if kind != "file" and not re.fullmatch(r"(?:gs|s3)://[a-z0-9][a-z0-9._-]{1,220}(?:/[^\s?#]*)?", url):
        raise ConfigError(
            f"{redact(url)!r} names no bucket", place=place, remedy=f"write {kind}://name-of-the-bucket/folder"
        )


def check_key(key: str) -> str:
    """The key, when it is one: relative, normalised, printable.

    Raises:
        StorageError: it could name something outside the store.
    """
    path = PurePosixPath(key)
    if key in ("", ".") or path.is_absolute() or str(path) != key or {".", ".."} & set(path.parts) or "\\" in key:
        raise StorageError(f"{key!r} is not a name for an object", remedy="report this: we make these names ourselves")
    if not key.isprintable():
        raise StorageError(f"{key!r} holds characters that cannot be printed")
    return key


def get(store: Store, key: str, limit: int = 64 * 1024 * 1024) -> bytes:
    """A small object whole.

    Raises:
        NotAsWrittenError: it is larger than `limit` bytes, which nothing we write is.
    """
    parts, size = [], 0
    for part in store.read(key):
        size += len(part)
        if size > limit:
            raise NotAsWrittenError(f"the object is larger than {limit:,} bytes", place=f"{store.url}/{key}")
        parts.append(part)
    return b"".join(parts)


def fetch(store: Store, key: str, path: Path, size: int, sha256: str) -> None:
    """Copy an object into a new file, synced, and compare it while it comes.

    Raises:
        NotAsWrittenError: another size or another content; the file is gone again then.
        FileExistsError: `path` is there already.
    """
    digest, seen = hashlib.sha256(), 0
    try:
        with path.open("xb") as file:
            for part in store.read(key):
                seen += len(part)
                if seen > size:
                    break  # whatever sends more than it said will not fill the disk
                digest.update(part)
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if seen != size or digest.hexdigest() != sha256:
            what = f"{seen:,} bytes instead of {size:,}" if seen != size else "another content (its sha256 differs)"
            raise NotAsWrittenError(f"the object has {what}", place=f"{store.url}/{key}")
    except FileExistsError:
        raise
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def object_digest(store: Store, key: str) -> str:
    """sha256 of an object, read from the store."""
    digest = hashlib.sha256()
    for part in store.read(key):
        digest.update(part)
    return digest.hexdigest()


def put_verified(store: Store, key: str, content: bytes | Path, sha256: str, *, create: bool = False) -> None:
    """Write an object, read it back and compare.

    A create-only put whose answer was lost, and which is then told that the object is there, has succeeded when the
    object is the same.

    Raises:
        NotAsWrittenError: what is there now is not what was to be written.
    """
    try:
        store.put(key, content, create=create)
    except AlreadyThereError:
        if object_digest(store, key) == sha256:
            return
        raise
    found = object_digest(store, key)
    if found != sha256:
        raise NotAsWrittenError(
            f"what was read back is not what was written (sha256 {found[:12]}... instead of {sha256[:12]}...)",
            place=f"{store.url}/{key}",
            remedy="it is written again; if this stays, the disk of this machine or the store corrupts data",
        )
