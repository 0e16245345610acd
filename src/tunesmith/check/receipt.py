"""The receipt: every setting as it was asked, and as it is in force in the objects that are about to train.

Settings of training are read back from the live objects before the first step: optimizer groups, schedule, loader,
types of weights, adapter modules, quantisation. Settings that act later, or have acted already (grading, exports, data),
stand in the settings object that is handed on, and the receipt names the line of code that reads them. A key that
nothing reads stops the run: it promises what will not happen.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import TrainerCallback

from tunesmith.check import live
from tunesmith.check.idle import idle
from tunesmith.check.readers import fields_of, find_readers
from tunesmith.check.subject import Subject
from tunesmith.config.schema import RunConfig
from tunesmith.config.secrets import redact
from tunesmith.config.shape import dotted, leaves
from tunesmith.data.prepare import Prepared
from tunesmith.errors import CheckFailed
from tunesmith.rundir import RunDir
from tunesmith.types import Finding

Status = Literal["in force", "resolved", "later", "idle", "differs", "unread"]


@dataclass(frozen=True, slots=True)
class Line:
    """One setting."""

    key: str
    asked: str
    in_force: str
    status: Status
    """`in force`: read back and the same. `resolved`: left open (`auto`, null), and this is what it came to. `later`:
    held by the settings that are handed on, read where `where` says. `idle`: nothing reads it beside another setting.
    `differs` and `unread` stop a run."""
    where: str
    """The live object it was read from, the code that reads it, or why it is idle."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """All settings of a run."""

    lines: tuple[Line, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """An error for every key that is not in force as asked, or that nothing reads."""
        return tuple(_finding(line) for line in self.lines if line.status in ("differs", "unread"))

    def figures(self) -> dict[str, Any]:
        """For `receipt.json`."""
        counts = {status: sum(line.status == status for line in self.lines) for status in _STATUSES}
        return {"counts": counts, "lines": [asdict(line) for line in self.lines]}

    def sentence(self) -> str:
        """For a person."""
        counts = self.figures()["counts"]
        live_ones = counts["in force"] + counts["resolved"]
        return (
            f"{len(self.lines)} settings: {live_ones} read back from the live objects, {counts['later']} named by the "
            f"code that reads them, {counts['idle']} idle beside others"
        )

    def text(self) -> str:
        """For a terminal: key, asked, in force."""
        width = max(len(line.key) for line in self.lines)
        return "\n".join(
            f"{line.key:<{width}}  {line.asked} -> {line.in_force}  ({line.status}; {line.where})"
            for line in self.lines
        )

    def save(self, path: Path) -> None:
        """Write `receipt.json`, whole or not at all."""
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.figures(), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(draft, path)


_STATUSES: tuple[Status, ...] = ("in force", "resolved", "later", "idle", "differs", "unread")


def read_receipt(objects: live.Live) -> Receipt:
    """Read every setting back.

    Args:
        objects: what is about to train, with the settings that are handed on.
    """
    config = objects.config
    silent = {key: rule.reason for key, rule in idle(config)}
    fields = {key: fields_of(config, key) for key, _ in leaves(config)}
    named = find_readers(set(fields.values()))
    return Receipt(
        tuple(_line(key, asked, objects, silent, named.get(fields[key], "")) for key, asked in leaves(config))
    )


def _line(parts: tuple[str | int, ...], asked: Any, objects: live.Live, silent: dict[str, str], place: str) -> Line:
    key, shown = dotted(parts), _text(asked)
    reader = live.reader_of(key)
    if reader is not None:
        found = reader.read(objects)
        if found is live.ABSENT:  # what it would act on is not part of this run
            return Line(key, shown, "-", "idle", silent.get(key, reader.where))
        if reader.agrees(asked, found, objects):
            return Line(key, shown, _text(found), "in force" if _text(found) == shown else "resolved", reader.where)
        return Line(key, shown, _text(found), *(("idle", silent[key]) if key in silent else ("differs", reader.where)))
    if key in silent:
        return Line(key, shown, "-", "idle", silent[key])
    if place:
        return Line(key, shown, shown, "later", place)
    return Line(key, shown, "-", "unread", "no code of the package reads it")


class TakeReceipt(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Takes the receipt when everything that trains has been made and before the first step; stops where it differs."""

    def __init__(self, run: RunDir, make: Callable[..., live.Live], announce: Callable[[str], None]) -> None:
        self._run, self._make, self._announce = run, make, announce

    def on_train_begin(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        if not state.is_world_process_zero:
            return
        receipt = read_receipt(self._make(**objects))
        receipt.save(self._run.receipt)
        if wrong := receipt.findings:
            first, more = wrong[0], f" ({len(wrong) - 1} more: see {self._run.receipt})" if len(wrong) > 1 else ""
            raise CheckFailed(f"{first.message}{more}", place=first.place, remedy=first.remedy)
        self._announce(receipt.sentence())


def take_receipt(
    trainer: Any,
    config: RunConfig,
    tokenizer: Any,
    prepared: Prepared,
    run: RunDir,
    announce: Callable[[str], None] = lambda told: None,
) -> None:
    """Have `receipt.json` written before the trainer's first step, and the run stopped where it is not as asked.

    Args:
        trainer: as a builder made it, before `fit`.
        config: the settings as they are handed on.
        tokenizer: with the template in force.
        prepared: the rows it trains on.
        run: where the receipt goes.
        announce: told one sentence.

    Raises (from `fit`):
        CheckFailed: a setting is not in force as asked, or nothing reads it.
    """

    def make(model: Any, optimizer: Any, lr_scheduler: Any, train_dataloader: Any, **_: Any) -> live.Live:
        return live.Live(config, trainer, model, optimizer, lr_scheduler, train_dataloader, tokenizer, prepared, run)

    trainer.add_callback(TakeReceipt(run, make, announce))


def dry_receipt(subject: Subject, build_trainer: Callable[..., Any]) -> Receipt:
    """The receipt of a recipe without its run: everything that trains is made, read back and thrown away.

    Args:
        subject: the recipe; its data is prepared and its model loaded.
        build_trainer: makes what a run would train with: (config, model, tokenizer, prepared, run, tracker, task).

    Raises:
        TunesmithError: something cannot be made; a run would stop there too.
    """
    from tunesmith.model.load import load_model
    from tunesmith.model.lora import add_lora
    from tunesmith.tracking import Tracker

    config, tokenizer, prepared = subject.config, subject.tokenizer, subject.preparation.prepared
    model = load_model(config.model, precision=config.train.precision)
    if config.lora is not None:
        model = add_lora(model, config.lora, config.seed)
    tracker = Tracker(subject.run, config)
    trainer = build_trainer(config, model, tokenizer, prepared, subject.run, tracker, subject.task)
    trainer.state.max_steps = len(trainer.steps)
    trainer.create_optimizer_and_scheduler(num_training_steps=len(trainer.steps))
    loader = trainer.get_train_dataloader()
    return read_receipt(
        live.Live(
            config,
            trainer,
            trainer.model,
            trainer.optimizer,
            trainer.lr_scheduler,
            loader,
            tokenizer,
            prepared,
            subject.run,
        )  # fmt: skip
    )


def _finding(line: Line) -> Finding:
    if line.status == "unread":
        message = f"nothing reads `{line.key}`"
        remedy = "take it out of the recipe; if the schema has it, that is a defect of ours: please report it"
        check = "receipt.unread"
    else:
        message = f"`{line.key}` was asked as {line.asked} and is {line.in_force} in force ({line.where})"
        remedy = "this is a defect of ours, or of a library that changes settings: please report it"
        check = "receipt.differs"
    cost = "the run would be another than its recipe says"
    return Finding(check, "error", message, line.key, remedy, cost)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_text, value)) or "none"
    return redact(str(value)) if not isinstance(value, dict) else redact(json.dumps(value, default=str, sort_keys=True))
