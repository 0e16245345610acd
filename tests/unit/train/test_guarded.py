"""What goes wrong inside a step: memory, numbers that are none, losses out of all proportion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunesmith.data.cache import TokensDataset
from tunesmith.errors import DivergedError, ModelError
from tunesmith.train.fit import fit
from tunesmith.train.spikes import Spikes

Make = Callable[..., SimpleNamespace]


def adapter(made: SimpleNamespace) -> str:
    return hashlib.sha256((made.run.adapter / "adapter_model.safetensors").read_bytes()).hexdigest()


def run_to_end(made: SimpleNamespace) -> Any:
    return fit(made.trainer, made.run, made.config)


def events(made: SimpleNamespace, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in made.run.events.read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def spoiled(made: SimpleNamespace, spoil: Callable[[Any, torch.Tensor], None]) -> SimpleNamespace:
    """`spoil(step, losses)` may change the losses of a step's rows, its gradients, or raise."""
    plain = made.trainer.row_losses

    def row_losses(model: Any, step: Any) -> torch.Tensor:
        losses: torch.Tensor = plain(model, step)
        spoil(step, losses)
        return losses

    made.trainer.row_losses = row_losses
    return made


def spoil_losses(*names: str) -> Callable[[Any, torch.Tensor], None]:
    def spoil(step: Any, losses: torch.Tensor) -> None:
        for at, examples in enumerate(step.examples):
            if set(names) & set(examples):
                losses[at] = float("nan")

    return spoil


def test_an_example_whose_loss_is_no_number_is_named_and_left_out_from_then_on(train_run: Make) -> None:
    made = spoiled(train_run(train={"max_tokens": 96}), spoil_losses("example-7"))
    result = run_to_end(made)
    assert result.set_aside == ["example-7"] and "1 examples set aside" in result.sentence()
    (event,) = events(made, "set_aside")
    assert event["examples"] == ["example-7"] and "not a number" in event["reason"]


def test_the_run_is_the_one_without_that_example(train_run: Make, prepared: Any) -> None:
    made = spoiled(train_run("with"), spoil_losses("example-7"))
    run_to_end(made)
    without = train_run("without")
    at = [one.id for one in prepared.train].index("example-7")
    without.trainer._aside[at] = "by hand"
    run_to_end(without)
    assert adapter(made) == adapter(without)


def test_an_example_whose_gradient_is_no_number_is_found_by_computing_it_alone(train_run: Make) -> None:
    made = train_run()

    def spoil(step: Any, losses: torch.Tensor) -> None:
        if any("example-3" in examples for examples in step.examples):
            next(p for p in made.model.parameters() if p.grad is not None).grad.fill_(float("inf"))

    assert run_to_end(spoiled(made, spoil)).set_aside == ["example-3"]


def test_when_most_examples_are_no_numbers_the_run_has_diverged(train_run: Make) -> None:
    made = spoiled(train_run(), spoil_losses(*(f"example-{at}" for at in range(12))))
    with pytest.raises(DivergedError, match="set aside before, and it goes on") as diverged:
        run_to_end(made)
    assert diverged.value.exit_code == 7


def test_what_was_set_aside_is_in_the_checkpoint(train_run: Make) -> None:
    whole = spoiled(train_run("whole", checkpoints={"save_steps": 1}), spoil_losses("example-7"))
    run_to_end(whole)
    parts = spoiled(train_run("parts", checkpoints={"save_steps": 1}), spoil_losses("example-7"))
    run_to_end(parts)
    for path in sorted(parts.run.checkpoints.glob("checkpoint-*"))[-1:]:
        path.rename(path.with_name(f".staging-{path.name}"))  # as if killed before the last step
    parts.run.adapter.rename(parts.run.root / "old")
    again = train_run("parts", checkpoints={"save_steps": 1})
    result = run_to_end(again)  # the example would not be spoiled any more, and stays aside
    assert result.set_aside == ["example-7"] and adapter(again) == adapter(whole)


LONG: dict[str, Any] = {"train": {"max_steps": 44, "batch_size": 8, "learning_rate": 1e-3}}


def test_a_step_whose_loss_is_a_spike_makes_no_update(train_run: Make) -> None:
    made = train_run(**LONG)

    def spoil(step: Any, losses: torch.Tensor) -> None:
        if made.trainer.state.global_step == 40:
            losses *= 50

    result = run_to_end(spoiled(made, spoil))
    assert result.skipped_steps == [41] and result.steps == 44
    (event,) = events(made, "skipped")
    assert "standard deviations above" in event["reason"] and len(event["examples"]) == 8


def test_spikes_that_go_on_are_divergence(train_run: Make) -> None:
    made = train_run(**LONG)

    def spoil(step: Any, losses: torch.Tensor) -> None:
        if made.trainer.state.global_step >= 36:
            losses *= 50

    with pytest.raises(DivergedError, match="at the 3 steps before"):
        run_to_end(spoiled(made, spoil))


def test_a_spike_is_judged_by_the_steps_before_it() -> None:
    spikes = Spikes(6.0)
    assert not any(spikes.is_spike(loss) for loss in [9.0] * 3 + [2.0, 2.1, 1.9] * 12)
    assert spikes.is_spike(40.0) and not spikes.is_spike(2.5)
    assert len(spikes.losses) == 40  # a spike does not count for what comes after it
    assert not Spikes(None).is_spike(1e9)
    flat = Spikes(6.0)
    assert not any(flat.is_spike(loss) for loss in [1.0] * 40 + [1.001])


# --- memory -----------------------------------------------------------------------------------------------------------


def out_of_memory_beyond(made: SimpleNamespace, tokens: int, kind: type[Exception] = torch.OutOfMemoryError) -> Any:
    def spoil(step: Any, losses: torch.Tensor) -> None:
        if max(row["input_ids"].shape[1] for row in step.rows) > tokens:
            raise (
                kind("CUDA out of memory. Tried to allocate 2 GiB")
                if kind is not RuntimeError
                else kind("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: 12 bytes")
            )

    return spoiled(made, spoil)


@pytest.mark.parametrize("kind", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_out_of_memory_halves_the_rows_and_changes_neither_steps_nor_loss(
    train_run: Make, kind: type[Exception]
) -> None:
    whole = train_run("whole")
    run_to_end(whole)
    small = out_of_memory_beyond(train_run("small"), 60, kind)
    result = run_to_end(small)
    assert result.steps == 6
    losses = [[event["loss"] for event in events(made, "log")] for made in (whole, small)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    (event,) = events(small, "out_of_memory")
    assert event["before"] == 96 and event["max_tokens"] <= 60


def test_a_resumed_run_keeps_the_size_of_rows_it_had_found(train_run: Make) -> None:
    made = out_of_memory_beyond(train_run(checkpoints={"save_steps": 3}), 60)
    run_to_end(made)
    newest = made.run.checkpoints / "checkpoint-6"
    newest.rename(newest.with_name(".staging-6"))
    made.run.adapter.rename(made.run.root / "old")
    again = train_run(checkpoints={"save_steps": 3})
    run_to_end(again)
    assert again.trainer.planting["max_tokens"] == made.trainer.planting["max_tokens"] < 96
    assert (again.run.root / "old" / "adapter_model.safetensors").read_bytes() == (
        again.run.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_out_of_memory_with_one_example_a_row_is_refused(train_run: Make, prepared: Any) -> None:
    assert isinstance(prepared.train, TokensDataset)
    with pytest.raises(ModelError, match="with one example a row") as refused:
        run_to_end(out_of_memory_beyond(train_run(), 3))
    assert refused.value.exit_code == 5


def test_other_runtime_errors_are_not_taken_for_it(train_run: Make) -> None:
    def spoil(step: Any, losses: torch.Tensor) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run_to_end(spoiled(train_run(), spoil))
