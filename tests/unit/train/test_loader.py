"""Steps come in order from wherever the run is; a worker that dies is replaced."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.errors import DataError
from tunesmith.train.loader import StepLoader
from tunesmith.train.steps import Steps


@pytest.fixture
def steps(prepared: Any) -> Steps:
    return Steps(prepared.train, 4, 12, seed=1, max_tokens=96, share=True, pad_id=0)


def digests(loader: StepLoader) -> list[str]:
    return [step.digest for step in loader]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_begins_where_the_run_is_and_draws_no_random_number(steps: Steps, workers: int) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1).item()
    torch.manual_seed(7)
    whole = digests(StepLoader(steps, lambda: 0, workers, False, None))
    assert whole == [steps[at].digest for at in range(12)]
    assert digests(StepLoader(steps, lambda: 5, workers, False, None)) == whole[5:]
    assert torch.rand(1).item() == expected


def test_a_killed_worker_is_replaced_and_no_step_is_lost_or_repeated(
    steps: Steps, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []
    for at, step in enumerate(StepLoader(steps, lambda: 0, 1, False, 2)):
        seen.append(step.digest)
        if at == 3:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)
    assert seen == [steps[at].digest for at in range(12)]
    assert "it is replaced" in caplog.text


def test_what_the_data_raises_is_raised(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(self: Steps, step: int) -> Any:
        raise DataError("the rows are gone", place=str(Path("train.ids.npy")), remedy="prepare them again")

    monkeypatch.setattr(Steps, "__getitem__", vanish)
    with pytest.raises(DataError, match="the rows are gone"):
        digests(StepLoader(steps, lambda: 0, 0, False, None))
