"""What a run writes down is whole, valid JSON, and holds no secret."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker, environment

SECRET = "hf_" + "a1b2c3d4e5f6" * 2


def tracker(path: Path, *mirrors: str) -> Tracker:
    config = {"task": "chat", "data": {"train": "x.jsonl"}, "model": {"name": "m"}, "tracking": {"report_to": mirrors}}
    return Tracker(RunDir(path / "run"), RunConfig.model_validate(config))


def test_parts_of_a_summary_are_merged(tmp_path: Path) -> None:
    with tracker(tmp_path) as track:
        track.summary(status="running", scores={"base": {"built": 1}})
        track.summary(status="complete", scores={"tuned": {"built": 2}})
    said = json.loads(track.run.summary.read_text())
    assert said["status"] == "complete"
    assert said["scores"] == {"base": {"built": 1}, "tuned": {"built": 2}}


def test_events_are_one_object_a_line_and_survive_a_second_run(tmp_path: Path) -> None:
    for step in (1, 2):
        with tracker(tmp_path) as track:
            track.event("log", step, loss=0.5)
    lines = [json.loads(line) for line in track.run.events.read_text().splitlines()]
    assert [(line["event"], line["step"], line["loss"]) for line in lines] == [("log", 1, 0.5), ("log", 2, 0.5)]


def test_a_secret_reaches_neither_summary_nor_events_nor_log(tmp_path: Path) -> None:
    with tracker(tmp_path) as track:
        track.summary(error=f"401 for {SECRET}", nested={"list": [SECRET]})
        track.event("log", 1, note=SECRET)
        logging.getLogger("tunesmith.any").warning("token %s", SECRET)
    for path in (track.run.summary, track.run.events, track.run.log):
        assert SECRET not in path.read_text() and "***" in path.read_text(), path.name


def test_a_number_that_json_does_not_have_becomes_null(tmp_path: Path) -> None:
    with tracker(tmp_path) as track:
        track.summary(loss=float("nan"))
        track.event("log", 1, loss=float("inf"))
    assert json.loads(track.run.summary.read_text())["loss"] is None
    assert json.loads(track.run.events.read_text())["loss"] is None


def test_figures_are_shown_on_tensorboard(tmp_path: Path) -> None:
    with tracker(tmp_path, "tensorboard") as track:
        track.event("log", 3, loss=0.5, note="text")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(track.run.tensorboard))
    board.Reload()
    assert board.Tags()["scalars"] == ["log/loss"]
    assert [(event.step, event.value) for event in board.Scalars("log/loss")] == [(3, 0.5)]


def test_the_log_file_ends_with_what_went_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), tracker(tmp_path) as track:
        raise ValueError("boom")
    assert "ended with ValueError: boom" in (tmp_path / "run" / "run.log").read_text()
    assert track.run.root.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_by_the_error_that_it_made_and_not_by_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    track = tracker(tmp_path)
    track.run.root.mkdir()
    track.run.log.symlink_to("/dev/full")
    with pytest.raises(OSError, match="its own error"), track:
        logging.getLogger("tunesmith.x").warning("this does not fit")
        raise OSError(28, "its own error")
    assert capfd.readouterr().err == ""


def test_the_environment_is_named_without_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    said = environment()
    assert said["packages"]["torch"] and said["cores"] >= 1
    assert SECRET not in json.dumps(said)
