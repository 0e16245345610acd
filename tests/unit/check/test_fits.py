"""A run that does not fit into the memory at hand is told before it starts, with settings that make it fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.check import CheckResult, check, fits
from tunesmith.config.load import Loaded, load_config


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Callable[[str], Path]) -> Callable[..., Loaded]:
    def make(*overrides: str) -> Loaded:
        rows = [
            {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": "x " * 400}]}
            for n in range(60)
        ]
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {
            "name": "x", "task": "chat", "output_dir": str(tmp_path / "runs"), "data": {"train": "train.jsonl"},
            "model": {"name": str(tiny_model_dir("llama"))}, "tracking": {"report_to": []},
            "train": {"batch_size": 48, "max_tokens": 16384},
        }  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
        return load_config(tmp_path / "recipe.yaml", overrides, environ={})

    return make


def look(loaded: Loaded) -> CheckResult:
    return check(loaded, families=["memory"])


def rooms(monkeypatch: pytest.MonkeyPatch, total: float, free: float | None = None, gpu: bool = False) -> None:
    room = fits.Room("a small card" if gpu else "this machine", int(total), int(free or total), gpu)
    monkeypatch.setattr(fits, "memory_here", lambda: room)


def test_a_run_that_fits_gives_no_alarm_and_says_what_it_needs(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms(monkeypatch, 64e9)
    result = look(recipe())
    figures = result.families[0].figures
    assert result.findings == () and 0.1 < figures["GB needed"] < 5 and figures["GB there"] == 64


def test_a_run_that_cannot_fit_is_an_error_and_its_remedy_makes_it_fit(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rooms(monkeypatch, 64e9)
    monkeypatch.setattr(fits, "_resident", lambda: 100_000_000)
    needed = look(recipe()).families[0].figures["GB needed"]
    rooms(monkeypatch, 0.7 * needed * 1e9)
    (finding,) = look(recipe()).findings
    assert (finding.check, finding.level) == ("memory.too_small", "error") and "GB" in finding.message
    settings = finding.remedy.partition(" (then")[0].removeprefix("give the run ").split()
    assert settings and all("=" in one for one in settings), finding.remedy
    assert look(recipe(*settings)).findings == ()


def test_where_no_setting_helps_it_says_so(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms(monkeypatch, 10e6)
    (finding,) = look(recipe()).findings
    assert finding.level == "error" and "a larger machine" in finding.remedy


def test_an_interval_that_reaches_beyond_is_a_warning_and_so_are_other_programs(
    recipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fits, "_resident", lambda: 100_000_000)
    rooms(monkeypatch, 64e9)
    needed = look(recipe()).families[0].figures["GB needed"]
    rooms(monkeypatch, needed * 1e9)
    assert [(f.check, f.level) for f in look(recipe()).findings] == [("memory.close", "warning")]
    rooms(monkeypatch, 64e9, free=0.5 * needed * 1e9)
    (finding,) = look(recipe()).findings
    assert (finding.check, finding.level) == ("memory.held", "warning") and "other programs hold" in finding.message


def test_on_a_card_the_merging_counts_in_the_machines_own_memory(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms(monkeypatch, 24e9, gpu=True)
    monkeypatch.setattr(fits, "ram", lambda: fits.Room("this machine", 1000, 1000, False))
    assert [f.check for f in look(recipe("exports=[{format: merged}]")).findings] == ["memory.merging"]
    assert look(recipe("exports=[{format: adapter}]")).findings == ()


def test_a_card_that_is_too_small_is_offered_four_bits(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms(monkeypatch, 1e6, gpu=True)
    assert "model.quantization.bits=4" in look(recipe()).findings[0].remedy


def test_the_memory_at_hand_is_that_of_the_machine() -> None:
    room = fits.ram()
    assert 0 < room.free <= room.total and not room.gpu
