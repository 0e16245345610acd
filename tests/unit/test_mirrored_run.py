"""A run with a mirror: on an empty machine the same command continues to the same bits, and nothing is called safe that
is not."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from tunesmith import cli, pipeline
from tunesmith.checkpoints import mirror as mirror_module
from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError

PAIRS = {"Peru": "Lima", "Chile": "Santiago", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana", "Ghana": "Accra"}


class Vanished(BaseException):
    """The machine is gone: nothing is tidied up."""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Callable[[str], Path]) -> Path:
    turns = [[("user", f"Capital of {k}?"), ("assistant", f"It is {v}.")] for k, v in PAIRS.items()]
    records = [{"messages": [{"role": r, "content": c} for r, c in turn]} for turn in turns]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
name: tiny
task: chat
data: {{train: train.jsonl, validation_share: 0}}
model: {{name: {tiny_model_dir("mistral")}}}
lora: {{r: 4, target_modules: all-linear}}
train: {{max_steps: 6, batch_size: 2, logging_steps: 1, learning_rate: 1e-2}}
checkpoints: {{save_steps: 2, keep_last: 2}}
exports: []
""")
    monkeypatch.chdir(tmp_path)
    return path


def run(recipe: Path, *overrides: str, **options: Any) -> Any:
    return pipeline.run(load_config(recipe, overrides, environ={}), **options)


def weights(root: Path) -> str:
    return hashlib.sha256((root / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


class VanishAfter(TrainerCallback):
    """Takes the machine away after a step, once the mirror has confirmed another."""

    def __init__(self, step: int, confirmed: int, mirror: Any) -> None:
        self.step, self.confirmed, self.mirror = step, confirmed, mirror

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            for _ in range(6000):
                if (self.mirror.status.confirmed_step or 0) >= self.confirmed:
                    raise Vanished
                time.sleep(0.01)
            raise AssertionError("the mirror never confirmed it")


@pytest.fixture
def vanish(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """`vanish(step, confirmed)`: the next run ends like that."""

    def arrange(step: int, confirmed: int) -> None:
        def follow(self: Any, trainer: Any) -> None:
            monkeypatch.setattr(mirror_module.Mirror, "follow", original)
            original(self, trainer)
            trainer.add_callback(VanishAfter(step, confirmed, self))

        original = mirror_module.Mirror.follow
        monkeypatch.setattr(mirror_module.Mirror, "follow", follow)

    return arrange


@pytest.mark.parametrize("where", ["s3://bucket/runs", "gs://bucket/runs", "folder"])
@pytest.mark.parametrize(("step", "confirmed"), [(3, 2)])
@pytest.mark.usefixtures("bucket")
def test_on_an_empty_machine_the_same_command_continues_to_the_same_bits(
    recipe: Path, tmp_path: Path, vanish: Callable[[int, int], None], where: str, step: int, confirmed: int
) -> None:
    run(recipe, "name=whole")
    vanish(step, confirmed)
    with pytest.raises(Vanished):
        run(recipe, f"checkpoints.mirror={where}")
    shutil.rmtree(tmp_path / "runs" / "tiny")
    shutil.rmtree(tmp_path / "runs" / ".cache")
    said: list[str] = []
    summary = run(recipe, f"checkpoints.mirror={where}", announce=lambda stage, line: said.append(f"{stage}: {line}"))
    assert any("restored from step" in line for line in said) and any("everything is safe at" in line for line in said)
    assert weights(tmp_path / "runs" / "tiny") == weights(tmp_path / "runs" / "whole")
    assert summary["status"] == "complete"
    steps = [json.loads(line) for line in (tmp_path / "runs" / "tiny" / "events.jsonl").read_text().splitlines()]
    assert {e["step"] for e in steps if e["event"] == "log"} == {1, 2, 3, 4, 5, 6}
    assert any(e["event"] == "mirror" and e["state"] == "confirmed" and e["step"] == 6 for e in steps)
    assert run(recipe, f"checkpoints.mirror={where}")["status"] == "complete"  # and again: nothing to do
    shutil.rmtree(tmp_path / "runs" / "tiny")
    assert run(recipe, f"checkpoints.mirror={where}")["status"] == "complete"
    assert weights(tmp_path / "runs" / "tiny") == weights(tmp_path / "runs" / "whole")


@pytest.mark.crash
@pytest.mark.parametrize("trial", range(20))
@pytest.mark.usefixtures("bucket")
def test_wherever_it_vanished_it_continues_to_the_same_bits(
    recipe: Path, tmp_path: Path, vanish: Callable[[int, int], None], trial: int
) -> None:
    """Twice in a row, on a new empty machine each time."""
    rng = random.Random(trial)
    where = f"{('s3', 'gs')[trial % 2]}://bucket/runs"
    run(recipe, "name=whole", "checkpoints.save_steps=1")
    for step in sorted(rng.sample(range(2, 6), 2)):  # what a mirror has by then is one step older, or more
        vanish(step, step - 1)
        with pytest.raises(Vanished):
            run(recipe, f"checkpoints.mirror={where}", "checkpoints.save_steps=1")
        shutil.rmtree(tmp_path / "runs" / "tiny")
        shutil.rmtree(tmp_path / "runs" / ".cache")
    run(recipe, f"checkpoints.mirror={where}", "checkpoints.save_steps=1")
    assert weights(tmp_path / "runs" / "tiny") == weights(tmp_path / "runs" / "whole")


@pytest.mark.usefixtures("bucket")
def test_the_address_alone_is_enough_on_an_empty_machine(
    recipe: Path, tmp_path: Path, vanish: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """No recipe, no data, no run: `tunesmith resume gs://bucket/runs/tiny` continues to the same bits."""
    run(recipe, "name=whole")
    vanish(3, 2)
    with pytest.raises(Vanished):
        run(recipe, "checkpoints.mirror=gs://bucket/runs")
    whole = weights(tmp_path / "runs" / "whole")
    for path in tmp_path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setattr(sys, "argv", ["tunesmith", "resume", "gs://bucket/runs/tiny"])
    cli.main()
    assert weights(tmp_path / "elsewhere" / "runs" / "tiny") == whole
    assert "restored from step 2 of gs://bucket/runs/tiny" in capfd.readouterr().out.replace("\n", " ")


def test_a_bucket_as_output_dir_is_refused_with_what_would_do(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output_dir") as refused:
        run(recipe, "output_dir=gs://bucket/runs")
    assert "checkpoints.mirror: gs://bucket/runs" in refused.value.remedy
    assert not list(tmp_path.glob("gs*"))


@pytest.mark.parametrize("mirror", ["az://c/f", "http://h/f", "gs://", "s3:///f"])
def test_a_mirror_that_is_none_is_refused(recipe: Path, mirror: str) -> None:
    with pytest.raises(ConfigError, match=r"checkpoints\.mirror"):
        run(recipe, f"checkpoints.mirror={mirror}")
