"""Every kind of store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.storage import Store, open_store
from tunesmith.storage.memory import MemoryStore


@pytest.fixture(params=["folder", "memory", "s3", "gs"])
def store(request: Any, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "store"))
    if request.param == "memory":
        return MemoryStore()
    request.getfixturevalue("bucket")
    return open_store(f"{request.param}://bucket/some/folder")
