"""Preparation on disk: what a killed process had done is gone on with, and memory does not grow with the source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.data import prepare as prepare_module
from tunesmith.data.cache import example_line, read_example_line
from tunesmith.data.pool import Progress, Seen
from tunesmith.data.prepare import prepare_dataset
from tunesmith.data.render import Renderer
from tunesmith.errors import DataError
from tunesmith.tasks import get_task
from tunesmith.types import Example, Message

PREPARE = """
import os, resource, signal, sys
from pathlib import Path
from tunesmith.config.schema import RunConfig
from tunesmith.data import prepare
from tunesmith.data.cache import RowWriter
from tunesmith.model.load import load_tokenizer
from tunesmith.tasks import get_task

prepare._SHARD = int(sys.argv[3])
add, batches = RowWriter.add, 0

def add_and_die(self, rows, lines):
    global batches
    batches += 1
    add(self, rows, lines)
    if batches == int(sys.argv[4]):
        for file in self._files.values():
            file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

RowWriter.add = add_and_die
config = RunConfig.model_validate({
    "task": {"name": "chat"}, "model": {"name": "demo"},
    "data": {"train": sys.argv[1], "max_length": 8192, "validation_share": 0.1},
})
prepared = prepare.prepare_dataset(config, get_task(config), load_tokenizer(config.model), cache_dir=Path(sys.argv[2]))
print(prepared.key, len(prepared.train), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def conversations(path: Path, megabytes: float, system_words: int = 400) -> int:
    """Made conversations under forty system messages; returns how many."""
    systems = [" ".join(f"word{at * word % 997}" for word in range(system_words)) for at in range(40)]
    count = 0
    with path.open("w") as file:
        while file.tell() < megabytes * 1e6:
            turns = [
                {"role": "system", "content": systems[count * 7 % 40]},
                {"role": "user", "content": f"How many are there of number {count}?"},
                {"role": "assistant", "content": f"There are {count * 13 % 101}."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
            count += 1
    return count


def prepared_by(path: Path, cache: Path, shard: int = 16_384, killed_in_batch: int = 0) -> list[str]:
    asked = [sys.executable, "-c", PREPARE, str(path), str(cache), str(shard), str(killed_in_batch)]
    done = subprocess.run(asked, check=False, capture_output=True, text=True)
    assert done.returncode == (-signal.SIGKILL if killed_in_batch else 0), done.stderr
    return done.stdout.split()


def entry(cache: Path) -> dict[str, bytes]:
    (folder,) = [one for one in cache.iterdir() if one.is_dir()]
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_killed_preparation_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    source, whole, torn = tmp_path / "train.jsonl", tmp_path / "whole", tmp_path / "torn"
    conversations(source, 5)
    prepared_by(source, whole)
    done = []
    for batch in (3, 2):  # the first of the first call is validation's
        prepared_by(source, torn, 256, batch)
        (written,) = torn.glob(".*-draft/progress.json")
        done.append(json.loads(written.read_text())["at"])
    assert 0 < done[0] < done[1]
    prepared_by(source, torn, 512)
    assert entry(torn) == entry(whole)
    assert not list(torn.glob(".*"))


def test_a_draft_is_cut_back_to_what_was_written_down(tmp_path: Path) -> None:
    (tmp_path / "train.ids").write_bytes(b"12345678")
    Progress(at=3).save(tmp_path)
    (tmp_path / "train.ids").write_bytes(b"12345678and more")
    (tmp_path / "stray").write_bytes(b"")
    found = Progress.load(tmp_path)
    assert found is not None and found.at == 3
    assert (tmp_path / "train.ids").read_bytes() == b"12345678" and not (tmp_path / "stray").exists()
    (tmp_path / "train.ids").write_bytes(b"1234")  # shorter than it was: it cannot be gone on with
    assert Progress.load(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_stop_keeps_the_draft_and_wrong_data_does_not(
    tmp_path: Path, make_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations(tmp_path / "train.jsonl", 1, 20)
    monkeypatch.setattr(prepare_module, "_SHARD", 256)
    config = RunConfig.model_validate(
        {"task": {"name": "chat"}, "model": {"name": "demo"}, "data": {"train": str(tmp_path / "train.jsonl")}}
    )
    render, batches = Renderer.render_many, 0

    def stopping(error: BaseException) -> Any:
        def rendered(self: Renderer, examples: list[Example]) -> Any:
            nonlocal batches
            batches += 1
            if batches == 4:
                raise error
            return render(self, examples)

        return rendered

    def prepared() -> Any:
        return prepare_dataset(config, get_task(config), make_tokenizer(), cache_dir=tmp_path / "cache")

    for error, drafts in ((KeyboardInterrupt(), 1), (DataError("wrong"), 0)):
        batches = 0
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(Renderer, "render_many", stopping(error))
            prepared()
        assert len(list((tmp_path / "cache").glob(".*-draft"))) == drafts
    assert len(prepared().train) > 1000


def test_the_place_of_a_key_is_the_first_one(tmp_path: Path) -> None:
    with Seen(tmp_path / "seen") as seen:
        assert seen.first(b"a", "1") == "1" and seen.first(b"b", "2") == "2" and seen.first(b"a", "3") == "1"
        assert seen.where(b"b") == "2" and seen.where(b"c") is None
        seen.keep()
    with Seen(tmp_path / "seen") as seen:
        assert seen.where(b"a") == "1"


def test_keys_that_left_memory_are_still_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.data.pool._IN_MEMORY", 8)
    with Seen(tmp_path / "seen") as seen:
        for turn in ("first", "again"):
            found = [seen.first(bytes([key]), f"{turn} {key}") for key in range(30)]
            assert found == [f"first {key}" for key in range(30)]
        assert seen.where(b"other") is None
        seen.keep()
    with Seen(tmp_path / "seen") as seen:
        assert [seen.where(bytes([key])) for key in (0, 7, 8, 29)] == ["first 0", "first 7", "first 8", "first 29"]


@pytest.mark.parametrize("meta", [{"a": 10**30}, {1: "a key that is a number"}, {"text": "é\0\u2028", "n": 0.1}])
def test_a_line_gives_the_example_back(meta: dict[Any, Any]) -> None:
    turns = (Message("user", "q", extra={"name": "x"}), Message("assistant", "a", train=True))
    example = Example("1", turns, "a", meta=meta, place="file:1")
    expected = {str(key): value for key, value in meta.items()}
    assert read_example_line(example_line(example)) == replace(example, meta=expected)


@pytest.mark.parametrize("meta", [{"when": date(2024, 1, 1)}, {"half": "\ud800"}, {"some": object()}])
def test_what_json_does_not_know_is_named(meta: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="cannot be written as JSON") as refused:
        example_line(Example("1", (Message("user", "q"),), meta=meta, place="file:1"))
    assert refused.value.place == "file:1"


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    peaks = {}
    for megabytes in (60, 300):
        rows = conversations(tmp_path / "train.jsonl", megabytes, 1000)
        _, trained, peak = prepared_by(tmp_path / "train.jsonl", tmp_path / f"cache-{megabytes}")
        assert int(trained) > 0.8 * rows
        assert os.path.getsize(tmp_path / "train.jsonl") > megabytes * 1e6
        peaks[megabytes] = int(peak)
    assert peaks[300] < peaks[60] + 30, peaks
