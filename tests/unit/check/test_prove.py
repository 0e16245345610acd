"""The rehearsal: what it starts, how it kills, what it looks at. The whole of it with real faults: benchmarks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.check import prove as proving
from tunesmith.check.prove import Proof, Shown, prove, read_proof
from tunesmith.check.rehearsal import Ended, Late, finish, kill_in_a_save, said, slice_of
from tunesmith.config.load import Loaded, load_config
from tunesmith.errors import ConfigError
from tunesmith.rundir import RunDir


def load(tmp_path: Path, **sections: Any) -> Loaded:
    path = tmp_path / "recipe.yaml"
    base = {"name": "mine", "output_dir": str(tmp_path / "runs"), "task": "chat", "model": {"name": "demo"}}
    path.write_text(json.dumps({**base, "data": {"train": "train.jsonl"}, **sections}))
    return load_config(path, environ={})


def start(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_slice_is_the_run_but_shorter(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        task={"name": "sql", "databases": {"a": None}, "build": {"examples": 7000, "paraphrases": 2}},
        data={}, train={"batch_size": 16, "learning_rate": 3e-4, "eval_steps": 5, "early_stopping_patience": 2},
        limits={"max_hours": 2},
    ).config  # fmt: skip
    cut = slice_of(config, tmp_path / "here", "rehearsal", 20, 10)
    assert (cut.train.max_steps, cut.checkpoints.save_steps, cut.checkpoints.save_minutes) == (20, 5, None)
    build = cut.task.build  # type: ignore[union-attr]
    assert (build.examples, build.paraphrases, build.versions) == (160, 2, 1)  # type: ignore[union-attr]
    assert cut.train.learning_rate == 3e-4 and cut.train.early_stopping_patience is None
    assert cut.limits.max_hours is None and cut.evaluate.max_samples == 8
    assert [one.format for one in cut.exports] == ["adapter", "merged"]


@pytest.mark.parametrize(("steps", "at"), [(20, 20), (20, 1), (4, 9)])
def test_a_save_at_the_end_or_the_beginning_is_refused(tmp_path: Path, steps: int, at: int) -> None:
    with pytest.raises(ConfigError, match="--at"):
        slice_of(load(tmp_path).config, tmp_path, "rehearsal", steps, at)


def test_a_process_is_killed_while_it_writes(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    staged = run.checkpoints / ".staging-10"
    process = start(
        f"import pathlib, time\nd = pathlib.Path({str(staged)!r}); time.sleep(0.2); d.mkdir(parents=True)\n"
        "for n in range(400):\n    (d / f'part-{n}').write_text('x'); time.sleep(0.01)"
    )
    text = kill_in_a_save(process, run, 10, tmp_path / "log", 60)
    assert process.poll() == -signal.SIGKILL
    assert "no manifest" in text and 2 <= len(list(staged.iterdir())) < 400


def test_a_save_that_was_quicker_than_the_kill_does_not_count(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    (run.checkpoints / "checkpoint-10").mkdir(parents=True)
    (run.checkpoints / "checkpoint-10" / "MANIFEST.json").write_text("{}")
    with pytest.raises(Late):
        kill_in_a_save(start("import time; time.sleep(60)"), run, 10, tmp_path / "log", 60)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("pass", "ended without saving at step 10"),
        ("raise SystemExit(4)", "ended with exit code 4 before the save"),
        ("import time; time.sleep(60)", "no save of step 10 began within"),
    ],
)
def test_a_process_that_never_saves_is_told(tmp_path: Path, code: str, message: str) -> None:
    process = start(code)
    with pytest.raises(Ended, match=message):
        kill_in_a_save(process, RunDir(tmp_path), 10, tmp_path / "log", 0.7)
    assert process.poll() is not None


def test_a_process_that_hangs_is_killed_and_its_last_words_are_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("loading\nwaiting for a lock\n\n")
    process = start("import time; time.sleep(60)")
    begin = time.monotonic()
    with pytest.raises(Ended, match="did not end within .* waiting for a lock"):
        finish(process, log, 0.3)
    assert process.poll() == -signal.SIGKILL and time.monotonic() - begin < 10


def test_the_error_of_a_part_and_its_remedy_are_handed_on(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("note: x\nerror: train.jsonl:3: not JSON\n  remedy: mend the line\n")
    assert said(log) == ("train.jsonl:3: not JSON", "mend the line")
    log.write_text("Traceback (most recent call last):\n  File\nValueError: shapes\n")
    assert said(log)[0] == "ValueError: shapes"


def healthy(folder: Path, name: str, step: int = 4, back: int | None = 2) -> RunDir:
    """What a run of 8 steps leaves."""
    run = RunDir(folder / name)
    run.adapter.mkdir(parents=True)
    (run.adapter / "adapter_model.safetensors").write_bytes(_weights())
    losses = [{"event": "log", "step": at, "loss": 5 - at / 4} for at in range(1, 9)]
    run.events.write_text("\n".join(map(json.dumps, losses)) + "\n")
    run.batches.write_text("".join(json.dumps({"step": at, "rows": f"r{at}", "chain": "c"}) + "\n" for at in range(9)))
    run.log.write_text(f"INFO continuing from step {back}\n" if back is not None else "")
    return run


def _weights() -> bytes:
    header = {"a.lora_B.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\x00\x00\x80\x3f"


@pytest.fixture
def pair(tmp_path: Path) -> Callable[[], dict[str, bool]]:
    """Two runs and, when called, what is said of them by name."""
    proof = Proof("mine", 8, 4, tmp_path, "digest", machine={"gpu": None})
    run, plain = healthy(tmp_path, "rehearsal"), healthy(tmp_path, "uninterrupted", back=None)
    lines = run.events.read_text().splitlines()[:4]
    (tmp_path / "interrupted.jsonl").write_text("\n".join(lines) + '\n{"event": "log", "st')

    def look() -> dict[str, bool]:
        looks = (proving._resumed, proving._same_bits, proving._learned)
        return {one.name: one.passed for each in looks for one in each(run, plain, proof)}

    return look


def test_a_run_that_went_on_to_the_same_bits_passes(pair: Callable[[], dict[str, bool]]) -> None:
    assert all(pair().values()) and len(pair()) == 6


@pytest.mark.parametrize(
    ("file", "old", "new", "name"),
    [
        ("rehearsal/run.log", "step 2", "step 0", "resume"),
        ("rehearsal/events.jsonl", '"loss": 3.5', '"loss": 3.51', "same losses"),
        ("interrupted.jsonl", '"loss": 4.25', '"loss": 4.26', "same losses"),
        ("rehearsal/events.jsonl", '"loss": 3.5', '"loss": null', "same losses"),
        ("rehearsal/batches.jsonl", "r6", "r7", "same examples"),
        ("uninterrupted/events.jsonl", '"loss": 3.0', '"loss": 9.0', "loss falls"),
    ],
)
def test_what_differs_after_a_resume_is_named(
    tmp_path: Path, pair: Callable[[], dict[str, bool]], file: str, old: str, new: str, name: str
) -> None:
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    assert not pair()[name]


def test_s13_a_run_that_began_again_on_a_fresh_model_is_not_certified_as_resumed(
    tmp_path: Path, pair: Callable[[], dict[str, bool]]
) -> None:
    """It ends well, its loss falls, and its weights are those of the other run: all of that a fresh model does too."""
    log = tmp_path / "rehearsal" / "run.log"
    log.write_text("INFO starting at step 0\n")
    shown = pair()
    assert not shown["resume"] and shown["loss falls"] and shown["same weights"]
    # A checkpoint that was found, and whose weights were not put into the model.
    log.write_text("INFO continuing from step 2\n")
    events = tmp_path / "rehearsal" / "events.jsonl"
    events.write_text(events.read_text().replace('"loss": 4.25', '"loss": 4.75'))
    shown = pair()
    assert shown["resume"] and not shown["same losses"]


def test_weights_that_differ_or_never_moved_are_named(tmp_path: Path, pair: Callable[[], dict[str, bool]]) -> None:
    path = tmp_path / "rehearsal" / "adapter" / "adapter_model.safetensors"
    path.write_bytes(_weights()[:-4] + bytes(4))
    assert not pair()["same weights"] and not pair()["all layers"]


def test_a_part_that_fails_ends_the_rehearsal_with_a_signed_report(tmp_path: Path) -> None:
    asked: list[list[str]] = []

    def launch(program: str, arguments: Any, log: Path) -> Any:
        asked.append([program, *arguments])
        log.write_text("error: no such model\n  remedy: name one that is there\n")
        return start("raise SystemExit(5)")

    proof = prove(load(tmp_path), steps=8, at=4, launch=launch)
    assert not proof.passed and len(asked) == 1 and asked[0][:2] == ["tunesmith", "train"]
    assert proof.findings[0].check == "prove.interrupted" and proof.findings[0].remedy == "name one that is there"
    written = tmp_path / "runs" / ".rehearsals" / "mine" / "proof.json"
    assert read_proof(written)["intact"] and "NOT proved" in proof.text()
    written.write_text(written.read_text().replace('"passed": false', '"passed": true'))
    assert not read_proof(written)["intact"], "a changed report is told from a signed one"


def test_where_two_parts_run_at_once_and_one_fails_the_other_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "room_for_two", lambda: True)
    monkeypatch.setattr(proving._Parts, "interrupt", lambda self, run, at: True)
    started: dict[str, Any] = {}

    def launch(program: str, arguments: Any, log: Path) -> Any:
        log.write_text("error: no such model\n")
        started[log.stem] = start(
            "import time; time.sleep(60)" if log.stem == "uninterrupted" else "raise SystemExit(5)"
        )
        return started[log.stem]

    proof = prove(load(tmp_path), steps=8, at=4, launch=launch)
    assert [finding.check for finding in proof.findings] == ["prove.continued"] and not proof.passed
    assert list(started) == ["uninterrupted", "continued"] and started["uninterrupted"].poll() == -9


def test_a_proof_without_anything_shown_is_none() -> None:
    proof = Proof("mine", 8, 4, Path(), "digest")
    assert not proof.passed
    proof.shown.append(Shown("kill", True, "x"))
    assert proof.passed
