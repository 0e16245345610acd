"""Settings that reach the trainer, and those that are refused before it starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tunesmith.errors import ConfigError, DataError
from tunesmith.model.load import compute_dtype
from tunesmith.train.fit import fit
from tunesmith.train.steps import plan_step

Make = Callable[..., SimpleNamespace]


def test_further_arguments_of_the_trainer_are_handed_on(train_run: Make) -> None:
    assert train_run(train={"extra": {"adam_beta1": 0.8}}).trainer.args.adam_beta1 == 0.8


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"learning_rte": 1}, "TrainingArguments has no 'learning_rte'"),
        ({"learning_rate": 1}, "write it as train.learning_rate"),
        ({"gradient_accumulation_steps": 4}, r"set train.batch_size \(examples per step\)"),
        ({"output_dir": "x"}, "output_dir follows from other settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_that_are_unknown_or_ours_are_refused(train_run: Make, extra: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_run(train={"extra": extra})


def test_an_optimizer_that_does_not_exist_is_refused(train_run: Make) -> None:
    with pytest.raises(ConfigError, match="adamw_torhc"):
        train_run(train={"optim": "adamw_torhc"})


def test_half_precision_that_would_underflow_on_a_cpu_is_refused(train_run: Make) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine can scale the loss")
    with pytest.raises(ConfigError, match="fp16 needs its loss scaled(.|\n)*use auto, bf16 or fp32"):
        train_run(train={"precision": "fp16"})


def test_mixed_precision_computes_in_16_bits_and_hands_the_model_back_without_it(train_run: Make) -> None:
    exact, mixed = train_run("a", train={"precision": "fp32"}), train_run("b", train={"precision": "bf16"})
    if not torch.cuda.is_available():  # through the faster forward pass, which autocast would go around
        assert mixed.trainer._decoder is not None and mixed.trainer._decoder.products is torch.bfloat16
    results = [fit(made.trainer, made.run, made.config) for made in (exact, mixed)]
    first, second = (result.validation_loss or 0.0 for result in results)
    assert first != second and first == pytest.approx(second, rel=0.01)
    ids = torch.tensor([[1, 20, 21]])
    with torch.no_grad():
        inside = mixed.trainer.model(input_ids=ids).logits
    assert inside.dtype == torch.float32 and not torch.equal(inside, inside.bfloat16().float())
    for parameter in mixed.trainer.model.parameters():
        assert parameter.dtype == torch.float32


def test_precision_is_what_was_said() -> None:
    assert compute_dtype("fp32") is torch.float32
    assert compute_dtype("bf16") is torch.bfloat16
    assert compute_dtype("fp16") is torch.float16


def test_a_loss_of_ones_own_takes_the_place_of_cross_entropy(
    train_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_losses.py").write_text(
        "def double(logits, labels):\n"
        "    import torch\n"
        "    assert logits.shape[0] == labels.shape[0] and labels.min() >= 0\n"
        "    return 2 * torch.nn.functional.cross_entropy(logits, labels, reduction='sum')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plain, doubled = train_run("a").trainer, train_run("b", train={"loss": "my_losses:double"}).trainer
    step = plan_step(plain.prepared.train[0:8], max_tokens=96, share=True, pad_id=3)
    losses = [float(trainer.training_step(trainer.model, step)) for trainer in (plain, doubled)]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-6)


@pytest.mark.parametrize("target", ["no_such_module:loss", "math:no_such_loss"])
def test_a_loss_that_cannot_be_imported_is_refused(train_run: Make, target: str) -> None:
    with pytest.raises(ConfigError, match="the loss cannot be imported(.|\n)*module:function"):
        train_run(train={"loss": target})


def test_early_stopping_without_validation_rows_is_refused(train_run: Make, prepared: Any) -> None:
    from dataclasses import replace

    empty = prepared.train.__class__
    data = replace(prepared, validation=empty(_nothing(prepared.train.folder), "none"))
    with pytest.raises(DataError, match="no row is set aside"):
        train_run(data=data, train={"eval_steps": 1, "early_stopping_patience": 1})


def test_no_training_rows_is_an_error_of_the_data(train_run: Make, prepared: Any) -> None:
    from dataclasses import replace

    empty = prepared.train.__class__
    with pytest.raises(DataError, match="no row is left to train on"):
        train_run(data=replace(prepared, train=empty(_nothing(prepared.train.folder), "none")))


def _nothing(folder: Path) -> Path:
    from tunesmith.data.cache import write_tokens

    write_tokens(folder, "none", [], [])
    return folder
