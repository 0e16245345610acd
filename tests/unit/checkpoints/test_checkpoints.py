"""A checkpoint exists when its manifest does, and only what verifies is ever continued from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.checkpoints.commit import MANIFEST, commit
from tunesmith.checkpoints.resume import Folder, find_checkpoint, prune
from tunesmith.errors import ConfigError, NoCheckpointError

IDENTITY = {"seed": 1, "data": "key"}


def write(folder: Path, step: int) -> Path:
    staged = folder / f".staging-{step}"
    (staged / "inner").mkdir(parents=True)
    (staged / "weights.safetensors").write_bytes(bytes(range(256)) * step)
    (staged / "inner" / "state.json").write_text('{"step": 1}')
    final = folder / f"checkpoint-{step}"
    commit(staged, final, step, IDENTITY)
    return final


def test_the_newest_that_verifies_is_found(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write(tmp_path, step)
    found = find_checkpoint([Folder(tmp_path)], IDENTITY)
    assert found is not None
    assert (found.path.name, found.manifest.step) == ("checkpoint-10", 10)
    assert set(found.manifest.files) == {"weights.safetensors", "inner/state.json"}


def test_where_nothing_was_ever_saved_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert find_checkpoint([Folder(tmp_path)], IDENTITY) is None


def flip(path: Path) -> None:
    """One bit in the middle, size and time as before."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


WEIGHTS = "weights.safetensors"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped bit": (lambda p: flip(p / WEIGHTS), "its sha256 differs"),
    "a file cut off": (lambda p: (p / WEIGHTS).write_bytes(b"x"), "has 1 bytes instead of"),
    "a file gone": (lambda p: (p / WEIGHTS).unlink(), f"{WEIGHTS} is missing"),
    "a file too many": (lambda p: (p / "extra.bin").write_bytes(b""), "extra.bin is not in its manifest"),
    "no manifest": (lambda p: (p / MANIFEST).unlink(), "never finished"),
    "half a manifest": (lambda p: (p / MANIFEST).write_bytes((p / MANIFEST).read_bytes()[:90]), "cannot be read"),
    "a manifest of another kind": (lambda p: (p / MANIFEST).write_text("[]"), "cannot be read"),
    "a later format": (lambda p: (p / MANIFEST).write_text('{"format": 99}'), "it has format 99"),
    "a manifest with a changed number": (
        lambda p: (p / MANIFEST).write_text((p / MANIFEST).read_text().replace('"seed": 1', '"seed": 2')),
        "its digest differs",
    ),
    "a folder in a file's place": (lambda p: ((p / WEIGHTS).unlink(), (p / WEIGHTS).mkdir()), "is missing"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_does_not_verify_is_set_aside_and_the_one_before_is_used(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 1)
    newest = write(tmp_path, 2)
    DAMAGE[damage][0](newest)
    found = find_checkpoint([Folder(tmp_path)], IDENTITY)
    assert found is not None and found.manifest.step == 1
    assert not newest.exists() and (tmp_path / "corrupt-checkpoint-2").is_dir()
    assert DAMAGE[damage][1] in caplog.text


def test_a_checkpoint_renamed_to_another_step_is_not_believed(tmp_path: Path) -> None:
    write(tmp_path, 1).rename(tmp_path / "checkpoint-7")
    with pytest.raises(NoCheckpointError, match="manifest is that of step 1"):
        find_checkpoint([Folder(tmp_path)], IDENTITY)


def test_when_none_verifies_nothing_starts_over_in_silence(tmp_path: Path) -> None:
    for step in (1, 2):
        flip(write(tmp_path, step) / WEIGHTS)
    with pytest.raises(NoCheckpointError, match="no checkpoint verifies: checkpoint-2(.|\n)*checkpoint-1") as refused:
        find_checkpoint([Folder(tmp_path)], IDENTITY)
    assert refused.value.exit_code == 6


def test_nor_does_it_when_asked_a_second_time(tmp_path: Path) -> None:
    """The first look sets the torn ones aside; a look that then finds an empty folder must not start over."""
    flip(write(tmp_path, 1) / WEIGHTS)
    for _ in range(2):
        with pytest.raises(NoCheckpointError):
            find_checkpoint([Folder(tmp_path)], IDENTITY)


def test_what_was_never_given_a_name_is_cleared_away(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (tmp_path / ".staging-2" / "checkpoint-2").mkdir(parents=True)
    Folder(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with pytest.raises(ConfigError, match="seed: 1 then, 2 now"):
        find_checkpoint([Folder(tmp_path)], {"seed": 2, "data": "key"})


def test_a_committed_step_is_never_overwritten(tmp_path: Path) -> None:
    final = write(tmp_path, 1)
    before = (final / MANIFEST).read_bytes()
    with pytest.raises(OSError):
        write(tmp_path, 1)
    assert (final / MANIFEST).read_bytes() == before


def test_the_manifest_is_written_after_everything_it_lists(tmp_path: Path) -> None:
    final = write(tmp_path, 3)
    said = json.loads((final / MANIFEST).read_text())
    assert said["step"] == 3 and said["files"][WEIGHTS][0] == 768
    assert all((final / name).stat().st_mtime_ns <= (final / MANIFEST).stat().st_mtime_ns for name in said["files"])


def test_pruning_goes_by_step_and_never_by_clock(tmp_path: Path) -> None:
    for step in (1, 2, 9, 10):
        os.utime(write(tmp_path, step), (2_000_000_000 - step, 2_000_000_000 - step))
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-9"]


class Died(BaseException):
    """A process that is gone: nothing after it runs."""


def test_a_save_that_dies_at_any_of_its_operations_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when what was not synced before is lost with the power: every such file is emptied."""
    at, steps, fsync = 0, set(), os.fsync
    while True:
        at += 1
        folder = tmp_path / str(at)
        write(folder, 1)
        done, synced = [0], set()

        def counting(operation: Callable[..., Any], done: list[int], synced: set[str], at: int) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                done[0] += 1
                if done[0] == at:
                    raise Died
                result = operation(*arguments, **options)
                if operation is fsync:
                    synced.add(os.readlink(f"/proc/self/fd/{arguments[0]}"))
                return result

            return run

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", counting(fsync, done, synced, at))
            for name in ("rename", "write_text", "write_bytes", "mkdir"):
                patch.setattr(Path, name, counting(getattr(Path, name), done, synced, at))
            try:
                write(folder, 2)
                finished = True
            except Died:
                finished = False
        for path in folder.rglob("*"):
            staged = path.name in {Path(name).name for name in synced}
            if path.is_file() and "checkpoint-1" not in path.parts and not staged and path.name != MANIFEST:
                path.write_bytes(b"")
        Folder(folder).clear()
        found = find_checkpoint([Folder(folder)], IDENTITY)
        assert found is not None
        steps.add(found.manifest.step)
        assert not list(folder.glob("corrupt-*"))
        if finished:
            break
    assert steps == {1, 2} and at > 10
