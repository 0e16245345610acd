"""A Qdrant collection, page by page and without loss: on a server, or in a folder that qdrant-client opens itself."""

from __future__ import annotations

import os
import re
import time
import urllib.parse
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.errors import ConfigError, DataError

SCHEMES = ("qdrant", "qdrants")
KEY = "QDRANT_API_KEY"
"""Variable with the key of a server; never sent over an open connection to another machine."""
FOLDER = "qdrant"
"""Folder of the local store that `qdrant://` without an address means."""
_PAGE = 256
_TRIES = 5
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

Where = Mapping[str, "str | int | bool | list[str | int]"]
"""Payload field (dotted for a nested one) to the value it must have, or to a list of which it must have one."""


class Page(NamedTuple):
    """Some points, and where the next ones begin."""

    points: list[tuple[str, dict[str, Any]]]
    """Id and payload of each."""
    next: str | int | None
    """Id of the first point of the next page; None when this is the last."""


@dataclass(frozen=True, slots=True)
class Address:
    """Which collection is meant."""

    place: str
    """`https://host:6333`, or a folder."""
    local: bool
    collection: str
    """Empty where the address names none."""

    @property
    def text(self) -> str:
        """For a person and for the ledger; it never holds a key."""
        return f"qdrant:{self.place}#{self.collection}"


def is_qdrant(path: str) -> bool:
    """Whether a source is a Qdrant collection."""
    return path.partition(":")[0] in SCHEMES and "://" in path


def parse_address(text: str, collection: str = "") -> Address:
    """`qdrant://host:6333#collection` (`qdrants://` for TLS), `qdrant:///folder#collection`, `qdrant://./folder#...`.

    Args:
        text: the address; `qdrant://` alone is the local store in `./qdrant`.
        collection: wins over the one in the address.

    Raises:
        ConfigError: it is no such address.
    """
    parts = urllib.parse.urlsplit(text)
    if parts.scheme not in SCHEMES or parts.username or parts.password or parts.query:
        raise ConfigError(
            f"{text!r} is not the address of a collection",
            remedy=f"write qdrant://host:6333#collection or qdrant:///folder#collection; a key goes into {KEY}",
        )
    name = collection or parts.fragment
    if parts.hostname and parts.netloc not in (".", ".."):
        path = parts.path.strip("/")
        name = name or path.rpartition("/")[2]
        try:
            port = parts.port or 6333
        except ValueError as error:
            raise ConfigError(f"{text!r}: {error}", remedy="write qdrant://host:6333#collection") from error
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return Address(f"{'https' if parts.scheme == 'qdrants' else 'http'}://{host}:{port}", False, name)
    folder = urllib.parse.unquote(parts.netloc + parts.path) or FOLDER
    return Address(folder, True, name)


class Collection:
    """An open collection; use `open_collection`."""

    def __init__(self, client: Any, address: Address, where: Where) -> None:
        self._client = client
        self.address = address
        self.where = dict(where)

    def count(self) -> int:
        """Exactly how many points meet `where` now."""
        return int(
            self._call(
                lambda: self._client.count(self.address.collection, count_filter=self._filter(), exact=True)
            ).count
        )

    def first_payload(self) -> dict[str, Any]:
        """The payload of any point, to see which fields there are; empty where there is no point."""
        found, _ = self._call(lambda: self._client.scroll(self.address.collection, limit=1, with_payload=True))
        return dict(found[0].payload or {}) if found else {}

    def pages(self, start: str | int | None = None, size: int = _PAGE) -> Iterator[Page]:
        """Points in order of their id, from `start` on.

        The server gives the id that the next page begins with, and ids are sorted: a page that is asked for again, or
        after an interruption, is the same page, and points that are added meanwhile move no other.
        """
        following = start
        while True:
            at = following
            found, following = self._call(
                lambda at=at: self._client.scroll(
                    self.address.collection,
                    scroll_filter=self._filter(),
                    limit=size,
                    offset=at,
                    with_payload=True,
                    with_vectors=False,
                )
            )
            yield Page([(str(point.id), dict(point.payload or {})) for point in found], following)
            if following is None:
                return

    def _filter(self) -> Any:
        from qdrant_client import models

        if not self.where:
            return None
        return models.Filter(
            must=[
                models.FieldCondition(
                    key=key,
                    match=models.MatchAny(any=value) if isinstance(value, list) else models.MatchValue(value=value),
                )
                if not isinstance(value, list) or len({type(one) for one in value}) == 1
                else models.Filter(
                    should=[models.FieldCondition(key=key, match=models.MatchValue(value=one)) for one in value]
                )
                for key, value in self.where.items()
            ]
        )

    def _call(self, ask: Any) -> Any:
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        for attempt in range(_TRIES):
            try:
                return ask()
            except UnexpectedResponse as error:
                if error.status_code in (401, 403):
                    raise ConfigError(
                        f"the server refuses the key ({error.status_code})",
                        place=self.address.place,
                        remedy=f"set {KEY}",
                    ) from error
                if error.status_code is not None and error.status_code < 500 and error.status_code != 429:
                    reason = re.sub(r"\s+", " ", str(error))[:200]
                    raise DataError(
                        f"the server refuses: {reason}", place=self.address.text, remedy="check the filters"
                    ) from error
                failed: Exception = error
            except (ResponseHandlingException, OSError) as error:
                failed = error
            if attempt + 1 < _TRIES:
                time.sleep(min(30.0, 0.5 * 2**attempt))
        raise DataError(
            f"the server does not answer: {str(failed)[:200]}",
            place=self.address.place,
            remedy="check that it runs and the address is right; the same command continues",
        ) from failed


@contextmanager
def open_collection(
    address: Address, where: Where | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Collection]:
    """Open a collection for reading, and close it.

    Raises:
        ConfigError: qdrant-client is not installed, the key would travel in the open, or the collection is not named
            and there are several.
        DataError: no such folder or collection, or another program holds the folder.
    """
    if find_spec("qdrant_client") is None:
        raise ConfigError("reading Qdrant needs qdrant-client", remedy="pip install 'tunesmith[qdrant]'")
    from qdrant_client import QdrantClient

    key = (os.environ if environ is None else environ).get(KEY)
    if address.local:
        if not (Path(address.place) / "meta.json").exists():
            raise DataError(
                "there is no local Qdrant store in this folder", place=address.place, remedy="name the folder of one"
            )
        client = _open_folder(QdrantClient, address.place)
    else:
        host = urllib.parse.urlsplit(address.place).hostname
        if key and address.place.startswith("http:") and host not in _LOCAL:
            raise ConfigError(
                "the key would travel unencrypted", place=address.place, remedy="use qdrants://, or unset " + KEY
            )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Api key is used with an insecure connection")  # to this very machine
            client = QdrantClient(
                url=address.place, api_key=key or None, timeout=60, check_compatibility=False, prefer_grpc=False
            )
    try:
        collection = Collection(client, address, where or {})
        names = sorted(one.name for one in collection._call(client.get_collections).collections)
        if not address.collection and len(names) == 1:
            address = Address(address.place, address.local, names[0])
        if address.collection not in names:
            said = f"there is no collection {address.collection!r}" if address.collection else "which collection?"
            raise (DataError if address.collection else ConfigError)(
                f"{said}; there are: {', '.join(names) or 'none'}",
                place=address.place,
                remedy="name one with --collection, or after # in the address",
            )
        yield Collection(client, address, where or {})
    finally:
        client.close()


def _open_folder(make: Any, folder: str) -> Any:
    import portalocker

    # Asked first, because the client leaves its own handle of a locked file open.
    with (Path(folder) / ".lock").open("a+b") as lock:
        try:
            portalocker.lock(lock, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
            portalocker.unlock(lock)
        except portalocker.exceptions.LockException as error:
            raise DataError(
                "another program has this store open",
                place=folder,
                remedy="close it, or run a Qdrant server for both",
            ) from error
    return make(path=folder)


def read_points(path: str, where: Where) -> Iterator[dict[str, Any]]:
    """The payloads of a collection, as a source of records (`data.train: qdrant://...`); `where` is asked of the
    server.

    Raises:
        DataError: fewer points came than there are, which would be a silent loss.
    """
    with open_collection(parse_address(path), where) as collection:
        expected, came = collection.count(), 0
        for page in collection.pages():
            came += len(page.points)
            yield from (payload for _, payload in page.points)
        require_all(came, expected, collection)


def require_all(came: int, expected: int, collection: Collection) -> None:
    """Raise where fewer points came than there were at the start and still are: points were lost, not deleted."""
    if came < expected and came < (left := collection.count()):
        raise DataError(
            f"{came:,} points came, and {left:,} are there",
            place=collection.address.text,
            remedy="run it again; if it repeats, the collection is damaged",
        )
