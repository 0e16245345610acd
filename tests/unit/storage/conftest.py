"""Every kind of store, and a bucket on loopback that can be told to fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "doubles"))
from bucket_server import BucketServer

from tunesmith.storage import Store, open_store
from tunesmith.storage.memory import MemoryStore


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """A bucket at both `s3://bucket` and `gs://bucket`."""
    with BucketServer() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TUNESMITH_STORAGE_TIMEOUT", "2")
        yield server


@pytest.fixture(params=["folder", "memory", "s3", "gs"])
def store(request: Any, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    if request.param == "memory":
        return MemoryStore()
    request.getfixturevalue("bucket")
    return open_store(f"{request.param}://bucket/some/folder")
