"""Where copies are kept: a folder, `gs://` or `s3://`; and who may write there.

open_store(url) -> Store      put, read, list, delete; create-only where asked
put_verified(store, ...)      written, read back and compared
take_lease(store, ...)        one writer at a time, each with a number higher than all before it
"""

from __future__ import annotations

from tunesmith.storage.lease import Lease, LeaseHeldError, LeaseLostError, take_lease
from tunesmith.storage.store import (
    AlreadyThereError,
    DeniedError,
    Entry,
    MissingError,
    NotAsWrittenError,
    Store,
    UnreachableError,
    fetch,
    get,
    is_remote,
    object_digest,
    open_store,
    put_verified,
)

__all__ = [
    "AlreadyThereError",
    "DeniedError",
    "Entry",
    "Lease",
    "LeaseHeldError",
    "LeaseLostError",
    "MissingError",
    "NotAsWrittenError",
    "Store",
    "UnreachableError",
    "fetch",
    "get",
    "is_remote",
    "object_digest",
    "open_store",
    "put_verified",
    "take_lease",
]
