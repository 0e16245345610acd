"""What a run will compute: steps, rows, validations, saves, prompts. From the prepared data, or from settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.check.footprint import RowShape, full_row
from tunesmith.config.schema import RunConfig
from tunesmith.data.forest import plant_forest
from tunesmith.errors import ConfigError
from tunesmith.types import IGNORE, Row, Tokens

if TYPE_CHECKING:
    from tunesmith.data.prepare import Prepared

_SAMPLED = 48
"""Steps that are planted to know the rows of all."""


@dataclass(frozen=True)
class Workload:
    """A run in numbers."""

    examples: int
    steps: int
    rows_per_step: float
    worst: RowShape
    """The row that takes the most memory."""
    typical: RowShape
    """A row of mean length, with the mean number of labels."""
    step_tokens: float
    """Tokens computed per step, a shared prefix counted once."""
    validations: int
    validation_tokens: float
    """Tokens computed in one validation."""
    saves: int
    prompts: int
    """To be answered by base and tuned model together."""
    prompt_batches: int
    """In which they are answered: the last of each test set is seldom full."""
    prompt_tokens: int
    """Of the longest prompt."""
    notes: tuple[str, ...] = ()
    """What was assumed, in sentences."""

    @property
    def assumed(self) -> bool:
        """Whether it stands on settings alone."""
        return bool(self.notes)


def workload_of(config: RunConfig, prepared: Prepared, prompt_lengths: Sequence[int] = ()) -> Workload:
    """The run on its own data; a sample of its steps is planted as a run plants them.

    Args:
        config: the run.
        prepared: its data.
        prompt_lengths: tokens of the test prompts, where they are known.
    """
    train, count = config.train, len(prepared.train)
    steps = steps_of(config, count)
    order = np.random.Generator(np.random.Philox(key=[config.seed, 0])).permutation(count)
    whole = math.ceil(count / train.batch_size)
    sampled = sorted({int(at) for at in np.linspace(0, whole - 1, min(_SAMPLED, whole))})
    per_step: list[list[Row]] = []
    for at in sampled:
        members = order[at * train.batch_size : (at + 1) * train.batch_size]
        per_step.append(_plant(config, [prepared.train[int(i)] for i in members]))
    rows = [row for step in per_step for row in step]
    validation = [prepared.validation[i] for i in range(min(len(prepared.validation), _SAMPLED * 4))]
    share = len(prepared.validation) / len(validation) if validation else 0.0
    computed = share * sum(
        len(row.input_ids)
        for start in range(0, len(validation), train.batch_size)
        for row in _plant(config, validation[start : start + train.batch_size])
    )
    tests = [min(len(found), config.evaluate.max_samples or len(found)) for found in prepared.tests.values()]
    models = 2 if config.evaluate.base else 1
    return Workload(
        examples=count,
        steps=steps,
        rows_per_step=len(rows) / len(per_step),
        worst=_shape(max(rows, key=_weight)),
        typical=_typical(rows),
        step_tokens=sum(len(row.input_ids) for row in rows) / len(per_step),
        validations=_validations(config, steps) if len(prepared.validation) else 0,
        validation_tokens=computed,
        saves=_saves(config, steps),
        prompts=sum(tests) * models,
        prompt_batches=sum(math.ceil(found / config.generate.batch_size) for found in tests) * models,
        prompt_tokens=max(prompt_lengths, default=config.data.max_length),
    )


def assumed_workload(config: RunConfig, *, examples: int | None = None, label_share: float = 0.25) -> Workload:
    """The run as its settings alone tell it: every example as long as allowed, no prefix shared, rows full.

    Args:
        config: the run.
        examples: size of the training set; needed where `train.max_steps` does not say how long the run is.
        label_share: share of the tokens that are trained.

    Raises:
        ConfigError: neither the number of steps nor that of examples is known.
    """
    train = config.train
    notes = [
        f"every example is taken to be {config.data.max_length:,} tokens long (data.max_length), and "
        f"{label_share:.0%} of its tokens to be trained: with the data at hand the forecast is narrower"
    ]
    if examples is None:
        examples = _said_examples(config)
    if examples is None and train.max_steps <= 0:
        raise ConfigError(
            "how long the run is cannot be told from its settings",
            place="train.max_steps",
            remedy="give --examples N, the size of the training set, or set train.max_steps",
        )
    length = config.data.max_length
    tokens = max(min(train.max_tokens // length, train.batch_size) * length, length)
    row = full_row(tokens, length, max(1, round(label_share * tokens)))
    step_tokens = train.batch_size * length
    count = examples or train.max_steps * train.batch_size
    steps = steps_of(config, count)
    held_out = math.ceil(count * config.data.validation_share)
    return Workload(
        examples=count,
        steps=steps,
        rows_per_step=math.ceil(step_tokens / tokens),
        worst=row,
        typical=row,
        step_tokens=step_tokens,
        validations=_validations(config, steps),
        validation_tokens=held_out * length,
        saves=_saves(config, steps),
        prompts=0,
        prompt_batches=0,
        prompt_tokens=length,
        notes=tuple(notes),
    )


def steps_of(config: RunConfig, examples: int) -> int:
    """Optimizer steps of the run."""
    train = config.train
    per_epoch = math.ceil(examples / train.batch_size)
    return train.max_steps if train.max_steps > 0 else math.ceil(train.num_train_epochs * per_epoch)


def _said_examples(config: RunConfig) -> int | None:
    source, build = config.data.train, getattr(config.task, "build", None)
    if source is not None:
        return source.max_samples
    return None if build is None else int(build.examples)


def _validations(config: RunConfig, steps: int) -> int:
    every = config.train.eval_steps
    return steps // every + (1 if steps % every else 0) if every else 1


def _saves(config: RunConfig, steps: int) -> int:
    every = config.checkpoints.save_steps
    return max(1, math.ceil(steps / every)) if every else 1


def _plant(config: RunConfig, tokens: Sequence[Tokens]) -> list[Row]:
    return plant_forest(tokens, config.train.max_tokens, share=config.train.share_prefixes)


def _labels(row: Row) -> int:
    return int((row.labels != IGNORE).sum())


def _weight(row: Row) -> tuple[int, int]:
    return len(row.input_ids), _labels(row)


def _shape(row: Row, labels: int | None = None) -> RowShape:
    return RowShape(row.subtree_end, row.position, _labels(row) if labels is None else labels)


def _typical(rows: Sequence[Row]) -> RowShape:
    """The row nearest to the mean length, with the mean number of labels."""
    mean = sum(len(row.input_ids) for row in rows) / len(rows)
    nearest = min(rows, key=lambda row: abs(len(row.input_ids) - mean))
    return _shape(nearest, round(sum(map(_labels, rows)) / len(rows)))


def prompt_lengths(prepared: Any, renderer: Any, most: int = 64) -> list[int]:
    """Tokens of some test prompts, the longest texts first."""
    examples = [example for found in prepared.tests.values() for example in found]
    longest = sorted(examples, key=lambda one: -sum(len(m.content) for m in one.prompt))[:most]
    return [len(renderer.prompt_ids(example.prompt)) for example in longest]
