"""A folder, a bucket at Google, one at anything that speaks S3, and one in memory are the same to whoever uses them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_server import BucketServer, Fault

from tunesmith.errors import ConfigError, StorageError
from tunesmith.storage import (
    AlreadyThereError,
    DeniedError,
    MissingError,
    NotAsWrittenError,
    Store,
    UnreachableError,
    fetch,
    get,
    object_digest,
    open_store,
    put_verified,
)
from tunesmith.storage.memory import MemoryStore
from tunesmith.storage.store import CHUNK


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_is_put_is_listed_read_and_deleted(store: Store) -> None:
    store.put("a/b/one", b"first")
    store.put("a/two", b"")
    store.put("ab", b"beside")
    assert get(store, "a/b/one") == b"first" and get(store, "a/two") == b""
    assert store.list("a") == [("a/b/one", 5), ("a/two", 0)]
    assert [entry.key for entry in store.list("")] == ["a/b/one", "a/two", "ab"]
    store.put("a/b/one", b"second")
    assert get(store, "a/b/one") == b"second"
    store.delete("a/b/one")
    store.delete("a/b/one")
    assert [entry.key for entry in store.list("a")] == ["a/two"]
    with pytest.raises(MissingError) as refused:
        get(store, "a/b/one")
    assert refused.value.exit_code == 4
    assert store.list("nothing/here") == []


def test_a_create_only_put_happens_once(store: Store) -> None:
    store.put("k", b"first", create=True)
    with pytest.raises(AlreadyThereError):
        store.put("k", b"second", create=True)
    assert get(store, "k") == b"first"


def test_of_many_who_create_the_same_exactly_one_does(store: Store) -> None:
    won: list[int] = []

    def create(number: int) -> None:
        try:
            store.put("k", str(number).encode(), create=True)
        except AlreadyThereError:
            return
        won.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1 and get(store, "k") == str(won[0]).encode()


def test_large_files_go_up_and_come_down_in_pieces(store: Store, tmp_path: Path) -> None:
    content = os.urandom(CHUNK) * 2 + b"end"
    (tmp_path / "large").write_bytes(content)
    put_verified(store, "large", tmp_path / "large", sha(content))
    assert object_digest(store, "large") == sha(content)
    fetch(store, "large", tmp_path / "again", len(content), sha(content))
    assert (tmp_path / "again").read_bytes() == content


def test_what_comes_down_otherwise_than_it_should_is_not_kept(store: Store, tmp_path: Path) -> None:
    store.put("k", b"content")
    for size, digest, said in ((7, sha(b"other"), "sha256 differs"), (3, sha(b"content"), "bytes instead of 3")):
        with pytest.raises(NotAsWrittenError, match=said):
            fetch(store, "k", tmp_path / "f", size, digest)
        assert not (tmp_path / "f").exists()
    with pytest.raises(NotAsWrittenError, match="larger than 3 bytes"):
        get(store, "k", limit=3)


@pytest.mark.parametrize("key", ["../x", "/x", "a/../b", "a//b", "a/", "", ".", "a\\b", "a\nb", "./a"])
def test_no_name_leaves_the_store(store: Store, key: str) -> None:
    for act in (lambda: store.put(key, b""), lambda: get(store, key), lambda: store.delete(key)):
        with pytest.raises(StorageError):
            act()


@pytest.mark.parametrize("url", ["az://c/f", "http://h/f", "s3://", "gs://", "gs://UPPER/x", "s3://b?x=1", "ftp://h"])
def test_other_addresses_are_refused_with_what_would_do(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        open_store(url)
    assert "gs://" in refused.value.remedy or "://name-of-the-bucket" in refused.value.remedy


def test_a_file_address_is_a_folder(tmp_path: Path) -> None:
    open_store(f"file://{tmp_path}/here").put("k", b"x")
    assert (tmp_path / "here" / "k").read_bytes() == b"x"


def test_a_folder_store_follows_no_link_and_opens_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = open_store(str(tmp_path / "store"))
    store.put("k", b"x")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "store" / "pipe")
    with pytest.raises(StorageError):
        get(store, "link")
    assert get(store, "pipe") == b""  # and does not wait for a writer
    assert [entry.key for entry in store.list("")] == ["k"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as refused:
        open_store(str(tmp_path / "file" / "folder")).put("k", b"x")
    assert str(tmp_path / "file") in refused.value.place and refused.value.exit_code == 4


def test_without_hard_links_a_name_is_still_given_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = open_store(str(tmp_path))
    store.put("k", b"first", create=True)
    with pytest.raises(AlreadyThereError):
        store.put("k", b"second", create=True)
    assert get(store, "k") == b"first"


@pytest.mark.parametrize("kind", ["s3", "gs"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault("status", 500), UnreachableError),
        (Fault("status", 503), UnreachableError),
        (Fault("status", 429), UnreachableError),
        (Fault("status", 403), DeniedError),
        (Fault("cut", 3), UnreachableError),
        (Fault("hang", 4), UnreachableError),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else value.__name__,
)
def test_a_bucket_that_fails_says_whether_trying_again_helps(
    bucket: BucketServer, kind: str, fault: Fault, expected: type[StorageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_STORAGE_TIMEOUT", "0.3")
    monkeypatch.setattr("tunesmith.storage.bucket.RETRIES", 0)
    store = open_store(f"{kind}://bucket/f")
    bucket.fault = lambda request: fault
    with pytest.raises(expected) as refused:
        store.put("k", b"content")
    assert refused.value.place == f"{kind}://bucket/f/k" and refused.value.remedy
    assert "test" not in refused.value.message.replace("request", "")
    bucket.fault = None
    store.put("k", b"content")
    assert get(store, "k") == b"content"


def test_where_nobody_listens_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr("tunesmith.storage.bucket.RETRIES", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-of-a-secret")
    with pytest.raises(UnreachableError) as refused:
        open_store("s3://bucket/f").put("k", b"x")
    assert "canary" not in str(refused.value) and len(refused.value.message) < 400


def test_an_answer_that_was_lost_is_no_failure(bucket: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The object is there, nobody said so, and the retry of the create-only put is told that it exists."""
    seen: list[int] = []

    def deaf_once(request: object) -> Fault | None:
        seen.append(1)
        return Fault("deaf") if len(seen) == 1 else None

    bucket.fault = deaf_once
    put_verified(open_store("s3://bucket"), "k", b"x", sha(b"x"), create=True)
    assert bucket.objects["k"] == b"x" and len(seen) > 1


def test_what_is_stored_otherwise_than_written_is_noticed() -> None:
    flipped: Callable[[str, str], bytes | None] = lambda operation, key: b"y" if operation == "read" else None  # noqa: E731
    with pytest.raises(NotAsWrittenError, match="not what was written"):
        put_verified(MemoryStore(flipped), "k", b"x", sha(b"x"))


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_check_makes_a_round_trip_through_the_mirror(
    bucket: BucketServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.check.storage import mirror_round_trip

    monkeypatch.setattr("tunesmith.storage.bucket.RETRIES", 0)
    assert mirror_round_trip(f"{kind}://bucket/runs") is None
    assert bucket.objects == {} and {request.method for request in bucket.requests} == {"PUT", "GET", "DELETE"}
    bucket.fault = lambda request: Fault("status", 403)
    finding = mirror_round_trip(f"{kind}://bucket/runs")
    assert finding is not None and finding.level == "error" and "AccessDenied" in finding.message and finding.remedy
