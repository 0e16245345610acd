"""Checkpoints and manifests as an attacker or an accident leaves them: each is refused by name, quickly, and nothing
outside their folder is touched."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.checkpoints import commit as commit_module
from tunesmith.checkpoints.commit import MANIFEST, commit
from tunesmith.checkpoints.names import Unsafe, checked_files, checked_path, checked_step
from tunesmith.checkpoints.resume import Folder, find_checkpoint
from tunesmith.checkpoints.snapshot import Snapshot, download, read_snapshot, snapshots
from tunesmith.errors import ConfigError, NoCheckpointError, StorageError
from tunesmith.storage.memory import MemoryStore

IDENTITY = {"seed": 1}
CANARY = b"canary: not to be read, changed or deleted"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file beside the checkpoints; whatever happens, it stays as it is."""
    path = tmp_path / "canary"
    path.write_bytes(CANARY)
    before = path.stat()
    yield path
    after = path.stat()
    assert path.read_bytes() == CANARY
    assert (after.st_mtime_ns, after.st_nlink, after.st_mode) == (before.st_mtime_ns, before.st_nlink, before.st_mode)


@pytest.fixture
def checkpoint(tmp_path: Path, canary: Path) -> Path:
    """A sound one of step 3."""
    folder = tmp_path / "run" / "checkpoints"
    staged = folder / ".staging-3"
    staged.mkdir(parents=True)
    (staged / "adapter_model.safetensors").write_bytes(bytes(1000))
    (staged / "state.json").write_text("{}")
    commit(staged, folder / "checkpoint-3", 3, IDENTITY)
    return folder / "checkpoint-3"


def rewrite(path: Path, **changes: Any) -> None:
    """A manifest with changed parts and a digest that agrees: not an accident, but somebody's work."""
    said = commit_module.read_manifest((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(said._replace(**changes).text())


def add(path: Path, name: str, content: bytes = b"x", **more: tuple[int, str]) -> None:
    """List a file in the manifest, without writing it."""
    said = commit_module.read_manifest((path / MANIFEST).read_text())
    sha = hashlib.sha256(content).hexdigest()
    rewrite(path, files={**said.files, name: (len(content), sha), **more})


def swap(path: Path, put: Callable[[Path], object]) -> None:
    target = path / "state.json"
    target.unlink()
    put(target)


def with_file(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    add(path, name, content)


def tar(path: Path) -> None:
    with tarfile.open(path / "more.tar", "w") as archive:
        info = tarfile.TarInfo("../../../canary")
        archive.addfile(info)
    with_file(path, "more.tar", (path / "more.tar").read_bytes())


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "K1 no manifest": (lambda p: (p / MANIFEST).unlink(), "never finished"),
    "K2 empty manifest": (lambda p: (p / MANIFEST).write_bytes(b""), "cannot be read"),
    "K3 manifest of another step": (lambda p: rewrite(p, step=4), "that of step 4"),
    "K4 a path that climbs": (lambda p: add(p, "../../../canary", CANARY), "leaves its folder"),
    "K5 an absolute path": (lambda p: add(p, str(p.parents[2] / "canary"), CANARY), "not a path inside it"),
    "K5 a drive": (lambda p: add(p, "C:canary"), "not a path inside it"),
    "K6 a link to a file": (lambda p: swap(p, lambda t: t.symlink_to(p.parents[2] / "canary")), "state.json is a link"),
    "K6 a link to a folder": (lambda p: (p / "inner").symlink_to(p.parents[2]), "inner is a link"),
    "K6 a link in a circle": (lambda p: swap(p, lambda t: t.symlink_to(t)), "state.json is a link"),
    "K6 the manifest a link": (
        lambda p: ((p / MANIFEST).rename(p.parent / "m"), (p / MANIFEST).symlink_to(p.parent / "m")),
        "is a link",
    ),
    "K7 a hard link": (lambda p: swap(p, lambda t: t.write_bytes(CANARY)), "bytes instead of"),
    "K7 a pipe": (lambda p: swap(p, os.mkfifo), "a pipe, a socket or a device"),
    "K7 the manifest a pipe": (lambda p: ((p / MANIFEST).unlink(), os.mkfifo(p / MANIFEST)), "a pipe, a socket"),
    "K8 a file too many": (lambda p: (p / "more").write_bytes(b""), "more is not in its manifest"),
    "K9 a file missing": (lambda p: (p / "state.json").unlink(), "state.json is missing"),
    "K10 another size": (lambda p: (p / "state.json").write_bytes(b"{} "), "3 bytes instead of 2"),
    "K11 another content": (lambda p: (p / "state.json").write_bytes(b"[]"), "sha256 differs"),
    "K12 names that differ in case": (lambda p: with_file(p, "STATE.json", b"{}"), "one name on some file systems"),
    "K12 names that differ in form": (
        lambda p: [with_file(p, unicodedata.normalize(form, "é"), b"") for form in ("NFC", "NFD")],
        "one name on some file systems",
    ),
    "K13 step -1": (lambda p: rewrite(p, step=-1), "that of step -1"),
    "K13 step 1e30": (lambda p: rewrite(p, step=1e30), "cannot be read"),
    "K13 step NaN": (lambda p: rewrite(p, step="NaN"), "cannot be read"),
    "K14 a later format": (lambda p: (p / MANIFEST).write_text('{"format": 99}'), "it has format 99"),
    "K16 a pickle": (lambda p: with_file(p, "optimizer.pt", b"cos\nsystem\n(S'x'\ntR."), "is a pickle by its name"),
    "K17 an array of objects": (lambda p: with_file(p, "rng.npy", b"\x93NUMPY"), "is a pickle by its name"),
    "K18 a zip bomb": (lambda p: with_file(p, "scheduler.pth", b"PK\x03\x04"), "is a pickle by its name"),
    "K19 a folder made by hand": (lambda p: p.rename(p.with_name("checkpoint-9999")), "that of step 3"),
    "K22 an archive": (tar, "is an archive by its name"),
    "a manifest of a hundred thousand brackets": (lambda p: (p / MANIFEST).write_text("[" * 100_000), "cannot be read"),
    "a manifest of gigabytes": (lambda p: os.truncate(p / MANIFEST, 1 << 34), "its manifest has 17,179,869,184 bytes"),
    "a manifest of latin-1": (lambda p: (p / MANIFEST).write_bytes(b'{"\xe9": 1}'), "cannot be read"),
    "the folder a link": (
        lambda p: (p.rename(p.parents[2] / "moved"), p.symlink_to(p.parents[2] / "moved")),
        "it is a link",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_checkpoint_is_refused_by_name_and_nothing_else_is_touched(checkpoint: Path, case: str) -> None:
    act, said = CASES[case]
    act(checkpoint)
    began = time.process_time()
    with pytest.raises(NoCheckpointError) as refused:
        find_checkpoint([Folder(checkpoint.parent)], IDENTITY)
    assert said in refused.value.message and refused.value.remedy and refused.value.exit_code == 6
    assert time.process_time() - began < 2


def test_a_hard_link_to_a_file_elsewhere_is_read_as_what_it_holds(checkpoint: Path, canary: Path) -> None:
    """K7: the content decides; the other name of the file is neither changed nor deleted."""
    (checkpoint / "state.json").unlink()
    os.link(canary, checkpoint / "state.json")
    with pytest.raises(NoCheckpointError, match="bytes instead of"):
        find_checkpoint([Folder(checkpoint.parent)], IDENTITY)
    (checkpoint.with_name("corrupt-checkpoint-3") / "state.json").unlink()


def test_two_manifests_of_one_step_are_two_names_of_it(checkpoint: Path) -> None:
    """K20: `checkpoint-03` is no second step 3."""
    (checkpoint.parent / "checkpoint-03").mkdir()
    found = find_checkpoint([Folder(checkpoint.parent)], IDENTITY)
    assert found is not None and found.path == checkpoint


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(checkpoint: Path) -> None:
    """K21."""
    with pytest.raises(ConfigError, match="seed: 1 then, 2 now"):
        find_checkpoint([Folder(checkpoint.parent)], {"seed": 2})


# --- manifests of a mirror --------------------------------------------------------------------------------------------

SHA = hashlib.sha256(b"x").hexdigest()
SOUND = Snapshot("run", 1, 1, 1, 3, False, {"checkpoints/checkpoint-3/state.json": (1, SHA)})


def changed(**parts: Any) -> bytes:
    return json.dumps({**json.loads(SOUND.to_bytes()), **parts}).encode()


MANIFESTS: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "cannot be read"),
    "a list": (b"[]", "has format"),
    "brackets": (b"[" * 100_000, "cannot be read"),
    "a later format": (changed(format=9), "has format '9'"),
    "another key": (changed(number=7), "is that of"),
    "another run": (changed(run="other"), "is that of"),
    "a run that climbs": (changed(run="../.."), "is that of"),
    "a step that is true": (changed(step=True), "no number of steps"),
    "a step below zero": (changed(step=-1), "no number of steps"),
    "a step of 1e30": (changed(step=1e30), "no number of steps"),
    "no files": (json.dumps({k: v for k, v in json.loads(SOUND.to_bytes()).items() if k != "files"}).encode(), "files"),
    "files that are a list": (changed(files=["x"]), "list of files is none"),
    "too many files": (changed(files={f"f{n}": [0, SHA] for n in range(100_001)}), "lists 100,001 files"),
    "a path that climbs": (changed(files={"../../canary": [1, SHA]}), "leaves its folder"),
    "a path that climbs inside": (changed(files={"a/../../canary": [1, SHA]}), "leaves its folder"),
    "an absolute path": (changed(files={"/etc/canary": [1, SHA]}), "not a path inside it"),
    "a Windows path": (changed(files={"a\\..\\canary": [1, SHA]}), "not a path inside it"),
    "a path with a line break": (changed(files={"a\nb": [1, SHA]}), "cannot be printed"),
    "a path of a megabyte": (changed(files={"a" * 1_000_000: [1, SHA]}), "too long"),
    "a file that is a folder": (changed(files={"a": [1, SHA], "a/b": [1, SHA]}), "both a file and a folder"),
    "names that differ in case": (changed(files={"a/B": [1, SHA], "A/c": [1, SHA]}), "one name on some file systems"),
    "a size below zero": (changed(files={"a": [-1, SHA]}), "a size of"),
    "a size of exabytes": (changed(files={"a": [2**60, SHA]}), "a size of"),
    "a digest that climbs": (changed(files={"a": [1, "../../lease/00000001.json"]}), "sha256 that is none"),
    "a pickle": (changed(files={"adapter/adapter_model.bin": [1, SHA]}), "is a pickle by its name"),
    "an archive": (changed(files={"a.tar.gz": [1, SHA]}), "is an archive by its name"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_bad_manifest_in_a_mirror_is_refused_by_name(case: str) -> None:
    content, said = MANIFESTS[case]
    began = time.process_time()
    store = MemoryStore()
    store.objects[SOUND.key] = content
    ((key, found, reason),) = snapshots(store, "run")
    assert found is None and key == SOUND.key and said in reason
    assert time.process_time() - began < 2


def test_an_object_larger_than_it_said_does_not_fill_the_disk(tmp_path: Path) -> None:
    store = MemoryStore()
    store.objects[SOUND.object_key(SHA)] = bytes(50_000_000)
    with pytest.raises(StorageError, match="bytes instead of 1"):
        download(store, SOUND, tmp_path / "here", SOUND.files)
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 0


def test_a_sound_manifest_is_read_as_it_was_written() -> None:
    assert read_snapshot(SOUND.to_bytes(), SOUND.key) == SOUND


@pytest.mark.parametrize("value", [True, -1, 2**60, "3", 3.0, None, float("nan")])
def test_steps_are_whole_numbers(value: Any) -> None:
    with pytest.raises(Unsafe):
        checked_step(value)


@pytest.mark.parametrize("value", ["", ".", "..", "a/", "a//b", "./a", "a/./b", "/a", "a\x00b", "\u202ea", None, 3])
def test_paths_are_relative_and_plain(value: Any) -> None:
    with pytest.raises(Unsafe):
        checked_path(value)


def test_ordinary_names_are_believed() -> None:
    names = ["adapter/adapter_model.safetensors", "data/đồng.jsonl", "scores/base-mine.jsonl", ".hidden", "a b"]
    assert list(checked_files({name: [3, SHA] for name in names})) == names
