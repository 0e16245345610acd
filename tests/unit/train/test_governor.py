"""A run with a limit says when it will come to it, and stops in time for its checkpoint."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.errors import StoppedError
from tunesmith.stop import Limit, Stop
from tunesmith.train.fit import fit
from tunesmith.train.governor import Governor, reached_step

Make = Callable[..., SimpleNamespace]


@pytest.mark.parametrize(("left", "limit", "step"), [(100, 200, 50), (100, 100, 50), (100, 50, 30), (100, 0, 10)])
def test_the_step_that_a_limit_reaches(left: float, limit: float, step: int) -> None:
    assert reached_step(10, 50, left, Limit(limit, "", "")) == step


def test_a_run_that_will_not_end_in_time_is_told_once_and_early(caplog: pytest.LogCaptureFixture) -> None:
    told: list[dict[str, Any]] = []
    stop: Any = SimpleNamespace(nearest=Limit(50.0, "the run has had its limits.max_hours", "higher"))
    progress: Any = SimpleNamespace(seconds_left=lambda step, steps: 200.0, saving=1.0)
    governor = Governor(stop, progress, lambda kind, step, **figures: told.append(figures))
    state = SimpleNamespace(global_step=20, max_steps=100)
    with caplog.at_level(logging.WARNING, "tunesmith"):
        for _ in range(2):
            governor.on_log(None, state, None, {"loss": 1.0})
    assert [one["reached_step"] for one in told] == [40, 40]
    assert len(caplog.records) == 1 and "near step 40 of 100" in caplog.text


def test_the_end_is_asked_for_while_a_checkpoint_still_fits(train_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = train_run(train={"max_steps": 500}, checkpoints={"save_steps": 0})
    state = made.trainer

    def nearest(self: Stop) -> Limit:
        """Plenty until the fifth step, then less than a save needs."""
        return Limit(
            1000.0 if state.state.global_step < 5 else 1.0, "the run has had its limits.max_hours", "--max-hours"
        )

    monkeypatch.setattr(Stop, "nearest", property(nearest))
    with pytest.raises(StoppedError, match="its checkpoint would go beyond") as caught, Stop() as stop:
        fit(made.trainer, made.run, made.config, stop=stop)
    assert caught.value.remedy == "--max-hours"
    assert [path.name for path in made.run.checkpoints.glob("checkpoint-*")] == ["checkpoint-5"]
    lines = [json.loads(line) for line in made.run.events.read_text().splitlines()]
    assert [line["limit_left"] for line in lines if line["event"] == "forecast"][0] == 1000


def test_a_run_without_a_limit_has_no_governor(train_run: Make) -> None:
    made = train_run(train={"max_steps": 2})
    fit(made.trainer, made.run, made.config)
    assert made.trainer.callback(Governor) is None
