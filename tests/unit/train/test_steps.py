"""A step's loss and gradient do not depend on how it falls into rows, on sharing, or on how many compute it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.data.prepare import Prepared
from tunesmith.train.steps import Steps, plan_step, total_steps
from tunesmith.types import IGNORE

Make = Callable[..., SimpleNamespace]


def gradient(trainer: Any, step: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss per label token and the gradient of every trained weight."""
    trainer.model.zero_grad()
    loss = float(trainer.training_step(trainer.model, step))
    return loss, {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}


def disturbed(made: SimpleNamespace) -> Any:
    """The trainer, with adapters that already do something: fresh ones have no gradient in their first half."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=draw))
    return made.trainer


def close(a: tuple[float, dict[str, torch.Tensor]], b: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert a[0] == pytest.approx(b[0], rel=1e-6)
    assert a[1].keys() == b[1].keys() and len(a[1]) == 28
    for name, expected in b[1].items():
        assert float((a[1][name] - expected).norm()) <= 1e-5 * float(expected.norm()), name


@pytest.mark.parametrize(("max_tokens", "share"), [(4096, True), (96, True), (40, True), (4096, False), (64, False)])
def test_loss_and_gradient_are_those_of_every_example_alone(train_run: Make, max_tokens: int, share: bool) -> None:
    trainer = disturbed(train_run())
    examples = trainer.prepared.train[0:8]
    expected_loss = 0.0
    labels = sum(int((one.labels != IGNORE).sum()) for one in examples)
    trainer.model.zero_grad()
    for one in examples:
        ids = torch.tensor([one.input_ids.tolist()])
        target = torch.tensor([one.labels.tolist()])[:, 1:]
        logits = trainer.model(input_ids=ids).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits[0], target[0], ignore_index=IGNORE, reduction="sum") / labels
        loss.backward()
        expected_loss += float(loss.detach())
    expected = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    step = plan_step(examples, max_tokens=max_tokens, share=share, pad_id=3)
    assert step.labels == labels
    close(gradient(trainer, step), (expected_loss, expected))


def test_recomputed_activations_change_nothing(train_run: Make) -> None:
    plain, recomputing = train_run("a"), train_run("b", train={"gradient_checkpointing": True})
    step = plan_step(plain.trainer.prepared.train[0:8], max_tokens=96, share=True, pad_id=3)
    close(gradient(disturbed(recomputing), step), gradient(disturbed(plain), step))


def test_validation_loss_is_per_label_token_of_the_whole_set(train_run: Make) -> None:
    big = train_run("a", train={"batch_size": 8}).trainer.validation_loss()
    small = train_run("b", train={"batch_size": 1, "max_tokens": 32}).trainer.validation_loss()
    assert big == pytest.approx(small, rel=1e-6)


def test_two_processes_share_a_step_and_each_row_is_computed_once(prepared: Prepared) -> None:
    examples = prepared.train[0:8]
    one = plan_step(examples, max_tokens=64, share=True, pad_id=3)
    parts = [plan_step(examples, max_tokens=64, share=True, pad_id=3, rank=rank, world=2) for rank in (0, 1)]
    assert {part.labels for part in parts} == {one.labels}
    assert sorted(ids for part in parts for ids in part.examples) == sorted(one.examples)
    loads = [sum(row["input_ids"].numel() for row in part.rows) for part in parts]
    assert max(loads) - min(loads) <= 64


def test_a_process_without_a_row_still_has_something_to_compute_but_nothing_to_learn(prepared: Prepared) -> None:
    part = plan_step(prepared.train[0:1], max_tokens=64, share=True, pad_id=3, rank=1, world=2)
    assert len(part.rows) == 1 and part.examples == [()]
    assert bool((part.rows[0]["labels"] == IGNORE).all())


def test_an_order_is_a_permutation_of_seed_and_epoch_and_of_nothing_else(prepared: Prepared) -> None:
    steps = Steps(prepared.train, 8, 9, seed=7, max_tokens=96, share=True, pad_id=3)
    again = Steps(prepared.train, 8, 9, seed=7, max_tokens=40, share=False, pad_id=3)
    assert [again.members(at).tolist() for at in (5, 0, 8)] == [steps.members(at).tolist() for at in (5, 0, 8)]
    for epoch in range(3):
        shown = np.concatenate([steps.members(3 * epoch + at) for at in range(3)])
        assert sorted(shown.tolist()) == list(range(22))
    assert steps.members(0).tolist() != steps.members(3).tolist()
    other = Steps(prepared.train, 8, 9, seed=8, max_tokens=96, share=True, pad_id=3)
    assert other.members(0).tolist() != steps.members(0).tolist()


def test_steps_are_counted_by_epochs_unless_they_are_given() -> None:
    assert total_steps(22, 8, 2.0, -1) == 6
    assert total_steps(22, 8, 0.5, -1) == 2
    assert total_steps(22, 8, 2.0, 5) == 5


ONE_OF_TWO = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tunesmith.config.schema import RunConfig
from tunesmith.data.cache import TokensDataset
from tunesmith.model.load import load_model, load_tokenizer
from tunesmith.model.lora import add_lora
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train import BUILDERS
from tunesmith.train.fit import fit

entry, base, out = map(Path, sys.argv[1:])
config = RunConfig.model_validate({
    "task": "chat", "data": {"train": "unused.jsonl"}, "model": {"name": str(base)}, "lora": {"r": 4},
    "tracking": {"report_to": []},
    "train": {"max_steps": 4, "batch_size": 8, "learning_rate": 1e-2, "max_tokens": 64},
})
data = SimpleNamespace(train=TokensDataset(entry, "train"), validation=TokensDataset(entry, "validation"), key="key")
model = add_lora(load_model(config.model), config.lora, config.seed)
run = RunDir(out)
out.mkdir(parents=True, exist_ok=True)
trainer = BUILDERS["sft"](config, model, load_tokenizer(config.model), data, run, Tracker(run, config))
print(fit(trainer, run, config).validation_loss)
"""


@pytest.mark.slow
def test_two_processes_train_what_one_would(
    prepared: Prepared, tiny_model_dir: Callable[[str], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    arguments = [sys.executable, "-c", ONE_OF_TWO, str(prepared.train.folder), str(tiny_model_dir("mistral"))]
    losses = {}
    for world in (1, 2):
        port, out = str(free_port()), str(tmp_path / f"world-{world}")
        ranks = [
            subprocess.Popen(
                [*arguments, out],
                env=os.environ | ({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": port,
                                   "MASTER_ADDR": "127.0.0.1"} if world == 2 else {}),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for rank in range(world)
        ]  # fmt: skip
        ended = [process.communicate(timeout=300) for process in ranks]
        assert all(process.returncode == 0 for process in ranks), ended[0][1][-2000:] + ended[-1][1][-2000:]
        losses[world] = [float(out.split()[-1]) for out, _ in ended]
    assert losses[2] == pytest.approx(losses[1] * 2, rel=1e-4)
    one, two = (load_file(tmp_path / f"world-{world}" / "adapter" / "adapter_model.safetensors") for world in (1, 2))
    for name, expected in one.items():
        assert float((two[name] - expected).norm()) <= 1e-3 * float(expected.norm()), name


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
