"""A run trains, keeps its best, stops when asked and goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from tunesmith.errors import ConfigError, DivergedError, NoCheckpointError, StoppedError
from tunesmith.train.fit import fit, load_trained

Make = Callable[..., SimpleNamespace]


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def adapter(made: SimpleNamespace) -> str:
    return sha(made.run.adapter / "adapter_model.safetensors")


def run_to_end(made: SimpleNamespace, **options: Any) -> Any:
    return fit(made.trainer, made.run, made.config, **options)


class StopAt(TrainerCallback):
    """Sends the process a signal at the end of a step, and waits until it has been noticed."""

    def __init__(self, trainer: Any, step: int, number: int = signal.SIGTERM) -> None:
        self.trainer, self.step, self.number = trainer, step, number

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)
            while not self.trainer.stop.asked:
                time.sleep(0.001)


def stop_at(made: SimpleNamespace, step: int, number: int = signal.SIGTERM) -> SimpleNamespace:
    made.trainer.add_callback(StopAt(made.trainer, step, number))
    return made


def test_training_learns_and_writes_down_what_it_came_to(train_run: Make) -> None:
    made = train_run(train={"num_train_epochs": 4, "max_steps": -1})
    result = run_to_end(made)
    events = [json.loads(line) for line in made.run.events.read_text().splitlines()]
    losses = [event["loss"] for event in events if event["event"] == "log"]
    assert result.steps == len(losses) == 12
    assert losses[-1] < losses[0] - 0.3
    assert result.tokens == 4 * int(made.trainer.prepared.train.lengths.sum())
    assert result.label_tokens == 4 * int(made.trainer.prepared.train.label_counts.sum())
    assert result.sharing == pytest.approx(result.tokens / made.trainer.computed, abs=1e-3) and result.sharing > 1.5
    assert result.tokens_per_second > 0 and result.seconds > 0
    assert events[-2]["event"] == "checkpoint" and events[-1]["validation_loss"] == result.validation_loss
    assert [event["epoch"] for event in events if event["event"] == "log"][-1] == 4
    assert json.loads(json.dumps(result.figures()))["parameters"]["trainable"] == result.parameters.trainable
    assert f"of {result.parameters.total:,} parameters" in result.sentence()


def test_the_adapter_comes_with_tokenizer_settings_and_card_and_without_pickles(
    train_run: Make, tiny_model: Callable[..., Any]
) -> None:
    made = train_run(train={"max_steps": 1})
    run_to_end(made)
    card = (made.run.adapter / "README.md").read_text()
    assert "LoRA adapter (rank 4) of `tiny`" in card and "[More Information Needed]" not in card
    names = {path.name for path in made.run.adapter.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "tokenizer.json",
        "tunesmith.yaml",
        "README.md",
    } <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))]
    again = load_trained(made.config, made.run, tiny_model("mistral"))
    ids = torch.tensor([[1, 20, 21, 22]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, made.trainer.model.eval()(input_ids=ids).logits)


def test_a_resumed_run_ends_with_the_same_bits(train_run: Make) -> None:
    whole = train_run("whole", checkpoints={"save_steps": 2})
    run_to_end(whole)
    parts = train_run("parts", checkpoints={"save_steps": 2})
    stop_at(parts, 3)
    with pytest.raises(StoppedError, match="stopped: SIGTERM, at step 3 of 6, with a checkpoint"):
        run_to_end(parts)
    assert not parts.run.adapter.exists()
    again = train_run("parts", checkpoints={"save_steps": 2})
    result = run_to_end(again, resume=True)
    assert adapter(again) == adapter(whole)
    assert result.tokens == whole.trainer.seen(0, 6).tokens


@pytest.mark.gpu
def test_on_a_gpu_a_resumed_run_ends_within_the_stated_tolerance(train_run: Make) -> None:
    """The same state is restored; kernels may sum in another order. Losses within 1e-4, weights within 1e-3."""
    whole, parts = (train_run(name, checkpoints={"save_steps": 2}) for name in ("whole", "parts"))
    run_to_end(whole)
    stop_at(parts, 3)
    with pytest.raises(StoppedError):
        run_to_end(parts)
    again = train_run("parts", checkpoints={"save_steps": 2})
    run_to_end(again, resume=True)
    assert logged(again) == pytest.approx(logged(whole), rel=1e-4)
    ours, theirs = (load_file(made.run.adapter / "adapter_model.safetensors") for made in (again, whole))
    for name, weights in theirs.items():
        assert float((ours[name] - weights).abs().max()) <= 1e-3 * float(weights.abs().max()), name


def logged(made: SimpleNamespace) -> list[float]:
    """The losses of all steps, as the log has them."""
    events = map(json.loads, made.run.events.read_text().splitlines())
    return [event["loss"] for event in events if event["event"] == "log"]


VALIDATIONS = [3.0, 2.5, 2.7, 2.4, 2.6, 2.5, 2.45, 2.0]
"""Loss after step 1, 2, ...: best at step 4, which a patience of 3 leaves standing at step 7."""
PATIENT: dict[str, Any] = {
    "train": {"max_steps": 20, "eval_steps": 1, "early_stopping_patience": 3, "lr_scheduler_type": "constant"}
}


def scripted(made: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    trainer = made.trainer
    monkeypatch.setattr(trainer, "validation_loss", lambda: VALIDATIONS[trainer.state.global_step - 1])
    return made


def test_early_stopping_keeps_the_best_weights(train_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scripted(train_run("patient", **PATIENT), monkeypatch)
    result = run_to_end(made)
    assert (result.steps, result.best_step, result.validation_loss) == (7, 4, 2.4)
    short = train_run("short", train={"max_steps": 4, "lr_scheduler_type": "constant"})
    run_to_end(short)
    assert adapter(made) == adapter(short)


@pytest.mark.parametrize("step", [1, 4, 6])
def test_it_stops_where_it_would_have_wherever_it_was_interrupted(
    train_run: Make, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = scripted(train_run("whole", **PATIENT), monkeypatch)
    run_to_end(whole)
    parts = stop_at(scripted(train_run("parts", **PATIENT), monkeypatch), step)
    with pytest.raises(StoppedError):
        run_to_end(parts)
    (parts.run.root / "best.safetensors").unlink()  # a checkpoint is all that another machine has
    again = scripted(train_run("parts", **PATIENT), monkeypatch)
    result = run_to_end(again)
    assert (result.steps, result.best_step, result.validation_loss) == (7, 4, 2.4)
    assert adapter(again) == adapter(whole)


def test_a_run_that_lost_patience_is_over_also_after_a_crash(train_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scripted(train_run("a", **PATIENT), monkeypatch)
    run_to_end(made)
    before = adapter(made)
    shutil.rmtree(made.run.adapter)
    again = scripted(train_run("a", **PATIENT), monkeypatch)
    result = run_to_end(again)
    assert (result.steps, result.best_step) == (7, 4)
    assert adapter(again) == before


def test_a_finished_run_that_lost_its_adapter_writes_it_again(train_run: Make) -> None:
    made = train_run()
    first = run_to_end(made)
    before = adapter(made)
    again = train_run()
    second = run_to_end(again)
    assert adapter(again) == before
    assert (second.steps, second.tokens, second.validation_loss) == (first.steps, first.tokens, first.validation_loss)


def test_control_c_saves_and_says_how_to_go_on(train_run: Make) -> None:
    made = stop_at(train_run(), 2, signal.SIGINT)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(StoppedError, match="SIGINT(.|\n)*the same command continues") as stopped:
        run_to_end(made)
    assert stopped.value.exit_code == 75
    assert (made.run.checkpoints / "checkpoint-2" / "MANIFEST.json").exists()
    assert signal.getsignal(signal.SIGINT) is before


class Passed(TrainerCallback):
    """Says when an epoch has ended."""

    def __init__(self) -> None:
        self.epoch = threading.Event()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.epoch.set()


def test_the_end_of_an_epoch_lets_go_of_nothing_that_a_save_holds(train_run: Make) -> None:
    """The loop calls the same method there as after an update, and once released a lock that was not its own."""
    made, passed = stop_at(train_run(), 6), Passed()
    made.trainer.add_callback(passed)
    original, held = made.trainer.save, []

    def save(at: Any) -> Path:
        if threading.current_thread() is not threading.main_thread():
            assert passed.epoch.wait(20)
            time.sleep(0.3)
            held.append(made.trainer._moving.locked())
        return Path(original(at))

    made.trainer.save = save
    with pytest.raises(StoppedError, match="at step 6 of 6, with a checkpoint"):
        run_to_end(made)
    assert held == [True]


def test_a_loss_that_is_no_number_stops_the_run_and_names_step_and_examples(
    train_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = train_run(checkpoints={"save_steps": 1}, train={"max_tokens": 40, "on_divergence": "stop"})
    plain = made.trainer.loss
    calls = iter(range(1000))

    def broken(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return plain(logits, labels) * (float("nan") if made.trainer.state.global_step == 2 and next(calls) else 1)

    monkeypatch.setattr(made.trainer, "loss", broken)
    with pytest.raises(DivergedError, match=r"not a number, at step 3, in examples example-\d+") as diverged:
        run_to_end(made)
    assert diverged.value.exit_code == 7
    assert sorted(path.name for path in made.run.checkpoints.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    for parameter in made.model.parameters():
        assert bool(torch.isfinite(parameter).all())


def test_a_gradient_that_is_no_number_never_reaches_the_weights(train_run: Make) -> None:
    made = train_run()
    name, parameter = next((n, p) for n, p in made.model.named_parameters() if p.requires_grad)
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DivergedError, match="the gradient is not a number, at step 1"):
        run_to_end(made)
    assert bool(torch.isfinite(parameter).all()), name


def test_resume_without_a_checkpoint_is_refused(train_run: Make) -> None:
    with pytest.raises(ConfigError, match="no checkpoint to resume from"):
        run_to_end(train_run(), resume=True)


def test_a_checkpoint_of_other_settings_is_refused_by_name(train_run: Make) -> None:
    run_to_end(train_run())
    with pytest.raises(ConfigError, match=r"train.learning_rate: 0.01 then, 0.02 now"):
        run_to_end(train_run(train={"learning_rate": 0.02}))


def test_other_rows_are_the_same_run(train_run: Make) -> None:
    """`max_tokens` decides memory alone, so a run may be resumed with another."""
    made = train_run()
    stop_at(made, 3)
    with pytest.raises(StoppedError):
        run_to_end(made)
    assert run_to_end(train_run(train={"max_tokens": 40})).steps == 6


def test_when_no_checkpoint_verifies_the_run_does_not_start_over(train_run: Make) -> None:
    run_to_end(train_run())
    for path in train_run().run.checkpoints.glob("checkpoint-*/optimizer.safetensors"):
        path.write_bytes(b"torn")
    with pytest.raises(NoCheckpointError, match="optimizer.safetensors has 4 bytes instead of"):
        run_to_end(train_run())


def test_old_checkpoints_go_and_a_pickle_never_comes(train_run: Make) -> None:
    made = train_run(checkpoints={"save_steps": 1, "keep_last": 2})
    run_to_end(made)
    left = sorted(path.name for path in made.run.checkpoints.iterdir())
    assert left == ["checkpoint-5", "checkpoint-6"]
    files = {path.name for path in made.run.checkpoints.rglob("*") if path.is_file()}
    assert files == {
        "adapter_config.json", "adapter_model.safetensors", "optimizer.safetensors", "progress.safetensors",
        "random.safetensors", "state.json", "trainer_state.json", "MANIFEST.json",
    }  # fmt: skip


def test_all_weights_can_be_trained_instead(train_run: Make, tiny_model: Callable[..., Any]) -> None:
    made = train_run(lora=None, train={"max_steps": 2, "learning_rate": 1e-3})
    result = run_to_end(made)
    assert result.parameters.share == 1
    again = load_trained(made.config, made.run, tiny_model("mistral"))
    ids = torch.tensor([[1, 20, 21, 22]])
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, made.trainer.model.eval()(input_ids=ids).logits)
