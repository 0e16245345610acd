"""What a run says of itself and of the machine."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tunesmith.train.fit import fit
from tunesmith.train.gauges import Gauges, Interval, reading, size_of
from tunesmith.train.progress import Progress, clock, live_lines

Make = Callable[..., SimpleNamespace]


def events(made: SimpleNamespace, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in made.run.events.read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A library that answers as NVML does, with the load it is told; -1 is a card that does not know."""
    busy = [50]
    fake: Any = ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def rates(_: object) -> SimpleNamespace:
        if busy[0] < 0:
            raise NVMLError("not supported")
        return SimpleNamespace(gpu=busy[0])

    fake.NVMLError, fake.nvmlInit, fake.nvmlShutdown = NVMLError, lambda: None, lambda: None
    fake.nvmlDeviceGetHandleByIndex = lambda index: f"gpu-{index}"
    fake.nvmlDeviceGetUtilizationRates = rates
    fake.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(used=3 * 2**30, total=24 * 2**30)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return busy


def test_gpu_figures_come_from_nvml_and_are_averaged_between_log_lines(nvml: list[int]) -> None:
    gauges = Gauges()
    with reading(gauges):
        deadline = time.monotonic() + 10
        while not gauges._readings and time.monotonic() < deadline:
            time.sleep(0.05)
        nvml[0] = 100
        found = gauges.take()
    assert found.gpu_utilization is not None and 0.5 < found.gpu_utilization < 1.0
    assert found.gpu_memory_mb == 3072
    assert found.rss_mb > 10 and 0 < found.host_memory_share < 1


def test_a_card_that_does_not_answer_and_a_machine_without_one_give_no_gpu_figures(
    nvml: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml[0] = -1
    assert "gpu_utilization" not in Gauges().take().figures()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert set(Gauges().take().figures()) == {"rss_mb", "host_memory_share"}


def test_the_thread_that_reads_ends_with_the_training(train_run: Make) -> None:
    import threading

    made = train_run(train={"max_steps": 2})
    fit(made.trainer, made.run, made.config)
    assert not [one for one in threading.enumerate() if one.name == "tunesmith-gauges"]


def test_every_log_line_has_speed_waiting_memory_and_gradient_norm(train_run: Make) -> None:
    made = train_run(train={"max_steps": 4}, checkpoints={"save_steps": 2})
    fit(made.trainer, made.run, made.config)
    last = events(made, "log")[-1]
    for name in ("steps_per_second", "tokens_per_second", "label_tokens_per_second", "grad_norm", "rss_mb"):
        assert last[name] > 0, name
    assert 0 <= last["waiting_share"] <= 1
    assert last["tokens_per_second"] > last["label_tokens_per_second"]
    saved = events(made, "checkpoint")[-1]
    assert saved["bytes"] == size_of(made.run.checkpoints / "checkpoint-4") and saved["seconds"] > 0


def test_waiting_for_rows_is_told_from_computing(train_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = train_run(train={"max_steps": 4})
    steps = type(made.trainer.steps)
    planned = steps.__getitem__

    def slowly(self: Any, step: int) -> Any:
        time.sleep(0.5)
        return planned(self, step)

    monkeypatch.setattr(steps, "__getitem__", slowly)
    fit(made.trainer, made.run, made.config)
    assert events(made, "log")[-1]["waiting_share"] > 0.5


def test_time_left_counts_the_validations_and_saves_to_come() -> None:
    progress = Progress(None, eval_steps=10, save_steps=25)  # type: ignore[arg-type]  # writes nothing here
    progress._recent.extend([2.0, 2.0])
    progress._evaluation, progress._saving = 7.0, 3.0
    # 60 steps, validations after 50, 60, ..., 100 and saves after 50, 75, 100
    assert progress.seconds_left(40, 100) == 60 * 2 + 6 * 7 + 3 * 3


def test_the_live_view_shows_what_is_known_and_leaves_out_the_rest() -> None:
    figures = {"loss": 1.23456, "waiting_share": 0.421, **Interval(0.5, 3072, 800, 0.25).figures()}
    shown = {name: text for name, text in live_lines(figures, None) if text}
    assert shown == {
        "loss": "1.2346",
        "waiting for data": "42.1 %",
        "memory": "800 MB",
        "of the machine's": "25 %",
        "GPU busy": "50 %",
        "GPU memory": "3,072 MB",
    }


def test_a_terminal_gets_a_live_view_and_its_cursor_back(train_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    screen = StringIO()
    screen.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    made = train_run(train={"max_steps": 3})
    fit(made.trainer, made.run, made.config)
    written = screen.getvalue()
    assert "gradient norm" in written and "waiting for data" in written and "3/3" in written
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


@pytest.mark.parametrize(("seconds", "text"), [(7, "7 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")])
def test_a_clock_reads_as_people_say_it(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"123")
    (tmp_path / "y").write_bytes(b"4567")
    assert size_of(tmp_path) == 7
