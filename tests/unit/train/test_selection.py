"""A run that chooses its checkpoint by its answers, on a tiny model with a grader that knows the order of steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith import pipeline
from tunesmith.config.load import load_config
from tunesmith.config.schema import Data, Evaluate, MathsTask, Model, RunConfig, Select, Sft
from tunesmith.errors import DataError
from tunesmith.train import selection
from tunesmith.types import Score

WANTED = ("exports=[]", "evaluate.base=false", "evaluate.self_test=0", "train.max_steps=8", "train.eval_steps=1",
          "evaluate.select={min_gain: 0.01}")  # fmt: skip


def load(recipe: Path, *overrides: str) -> Any:
    path = recipe.parent / "validation.jsonl"
    pairs = {"Spain": "Madrid", "Norway": "Oslo"}
    path.write_text("".join(json.dumps({"country": k, "capital": v}) + "\n" for k, v in pairs.items()))
    return load_config(recipe, (*WANTED, f"data.validation={path}", *overrides), environ={})


def scripted(monkeypatch: pytest.MonkeyPatch, values: list[float | None]) -> list[int]:
    """Every evaluation of the model scores what the script says; returns where the number of them is kept."""
    calls: list[int] = []
    original = selection.evaluate

    def evaluate(*arguments: Any) -> Any:
        from dataclasses import replace

        found = original(*arguments)
        value = values[len(calls)]
        calls.append(len(found.judged))
        return replace(found, judged=tuple(replace(one, score=Score(value)) for one in found.judged))

    monkeypatch.setattr(selection, "evaluate", evaluate)
    return calls


def test_the_weights_of_the_best_score_are_kept_and_a_dead_run_is_stopped(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scripted(monkeypatch, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    loaded = load(recipe)
    summary = pipeline.run(loaded)
    assert summary["training"]["best_step"] == 2
    assert len(calls) == summary["training"]["steps"] < 8
    run = pipeline.run_dir(loaded.config)
    events = [json.loads(line) for line in run.events.read_text(encoding="utf-8").splitlines()]
    told = [event for event in events if event["event"] == "selection"]
    assert [event["task_score"] for event in told][:3] == [0.0, 1.0, 0.0]
    assert [event["best"] for event in told][:3] == [True, True, False]
    assert told[-1]["gain_probability"] < 0.05
    losses = {e["step"]: e["validation_loss"] for e in events if e["event"] == "evaluation"}
    assert summary["training"]["validation_loss"] == pytest.approx(losses[2])
    from safetensors.torch import load_file

    kept, adapter = load_file(run.root / "best.safetensors"), load_file(run.adapter / "adapter_model.safetensors")
    values = {name.replace(".default", ""): tensor for name, tensor in kept.items()}
    assert all((values[name] == tensor).all() for name, tensor in adapter.items() if name in values) and adapter


def test_without_stopping_the_run_goes_to_its_end_and_its_last_weights_are_looked_at(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = scripted(monkeypatch, [0.0, 0.0, 0.0, 1.0])
    summary = pipeline.run(
        load(recipe, "evaluate.select.stop=false", "train.eval_steps=2", "train.max_steps=7")
    )  # fmt: skip
    assert (len(calls), summary["training"]["steps"], summary["training"]["best_step"]) == (4, 7, 7)


def test_a_selection_without_validation_examples_is_refused(recipe: Path) -> None:
    with pytest.raises(DataError, match="no example is set aside"):
        pipeline.run(load(recipe, "data.validation=null"))


def test_a_selection_needs_evaluations_and_is_the_only_chooser() -> None:
    def config(**train: Any) -> RunConfig:
        return RunConfig(
            task=MathsTask(),
            model=Model(name="demo"),
            data=Data.model_validate({"train": "x.jsonl"}),
            evaluate=Evaluate(select=Select()),
            train=Sft(**train),
        )

    with pytest.raises(ValidationError, match="set train.eval_steps"):
        config()
    with pytest.raises(ValidationError, match="both choose the checkpoint"):
        config(eval_steps=5, early_stopping_patience=2)
    assert config(eval_steps=5).evaluate.select is not None
