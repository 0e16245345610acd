"""Against another implementation of S3 than our own double: what we call is what the interface has."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.storage import (
    AlreadyThereError,
    DeniedError,
    MissingError,
    fetch,
    get,
    open_store,
    put_verified,
    take_lease,
)


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def environ(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environ")
def test_puts_lists_conditions_parts_and_deletes(moto: str, tmp_path: Path) -> None:
    import boto3

    boto3.client("s3", endpoint_url=moto).create_bucket(Bucket="bucket")
    store = open_store("s3://bucket/folder")
    large = bytes(range(256)) * 40_000
    (tmp_path / "large").write_bytes(large)
    put_verified(store, "a/large", tmp_path / "large", hashlib.sha256(large).hexdigest())
    fetch(store, "a/large", tmp_path / "again", len(large), hashlib.sha256(large).hexdigest())
    store.put("a/small", b"x", create=True)
    with pytest.raises(AlreadyThereError):
        store.put("a/small", b"y", create=True)
    assert store.list("a") == [("a/large", len(large)), ("a/small", 1)] and get(store, "a/small") == b"x"
    store.delete("a/small")
    store.delete("a/small")
    with pytest.raises(MissingError):
        get(store, "a/small")
    take_lease(store, "run/lease").release()
    with pytest.raises(DeniedError, match="no such bucket"):
        open_store("s3://nobodys-bucket").put("k", b"x")
