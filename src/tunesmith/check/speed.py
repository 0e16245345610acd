"""The time of a run: every kernel of a step at what a device computes and moves, or a probe's own seconds."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from tunesmith.check.cards import Card
from tunesmith.check.footprint import Footprint
from tunesmith.check.memory import Span
from tunesmith.check.workload import Workload
from tunesmith.config.schema import RunConfig

_COMPUTED, _MOVED = 0.7, 0.8
"""Shares of a card's peak rates that large matrix products and large copies reach."""
_LAUNCH = 8e-6
"""Seconds from one kernel to the next where Python is slower than the GPU."""
_START = 30.0
"""Seconds of imports, loading and preparing, before the first step."""


class Rates(NamedTuple):
    """What a device does in a second."""

    flops: float
    bytes: float
    launch: float
    """Seconds that a kernel takes at least."""


@dataclass(frozen=True)
class Time:
    """Seconds of a run."""

    seconds: Span
    """Of the whole run."""
    per_step: Span
    parts: dict[str, float]
    """Stage to expected seconds."""
    measured: bool = False

    def cost(self, usd_per_hour: float) -> Span:
        """US dollars."""
        return self.seconds.scaled(usd_per_hour / 3600)

    def figures(self) -> dict[str, Any]:
        """For `plan.json`."""
        return asdict(self)


class Probed(NamedTuple):
    """What a probe measured; see `train/probe.py`."""

    step_seconds: float
    """Mean of its steps, weighted to the mean number of tokens."""
    step_error: float
    """Relative error of that mean."""
    evaluation: float
    saving: float
    start: float
    """Seconds before the first step, and after the last one but for validation and save."""
    batch: float
    """Of a batch of answers, however small; of the base model."""
    prompt: float
    """Of each prompt in it, besides."""
    shorter: float
    """Share of that time when answers are as long as those that were trained on: the tuned model's."""
    export: float
    """Of an export, loaded back and compared."""


def card_rates(card: Card, precision: str) -> Rates:
    """Of a card, in the type that a run would compute in."""
    flops = card.tflops.get(card.compute(precision), card.tflops.get("fp32", min(card.tflops.values())))
    return Rates(flops * 1e12 * _COMPUTED, card.bandwidth_gb_s * 1e9 * _MOVED, _LAUNCH)


def cpu_rates(compute: torch.dtype) -> Rates:
    """Of this machine's CPU now, by a third of a second of products and copies."""
    a = torch.ones(512, 512, dtype=compute)
    b = torch.ones(16_000_000)
    products = _repeat(lambda: a @ a)
    copies = _repeat(lambda: b.add(1.0))
    return Rates(2 * 512**3 / products, 2 * 4 * b.numel() / copies, 10e-6)


def _repeat(work: Any) -> float:
    work()
    taken: list[float] = []
    end = time.perf_counter() + 0.15
    while time.perf_counter() < end or len(taken) < 3:
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[len(taken) // 2]


def row_seconds(footprint: Footprint, rates: Rates) -> float:
    """Of a row's forward and backward: each kernel takes as long as its products or its memory, whichever is longer."""
    return sum(
        count * max(one.flops / rates.flops, one.bytes / rates.bytes, rates.launch)
        for one, count in footprint.operations.items()
    )


def forecast_time(config: RunConfig, workload: Workload, footprint: Footprint, rates: Rates, *, gpu: bool) -> Time:
    """The seconds of a run from the rates of a device.

    Args:
        config: the run.
        workload: its steps.
        footprint: of its typical row.
        rates: of the device.
        gpu: whether the rates are a card's peak; a CPU's were measured, on a machine that may be shared.
    """
    per_token = row_seconds(footprint, rates) / workload.typical.tokens
    step = per_token * workload.step_tokens
    # A forward alone is a third of forward and backward, and less where activations are computed again.
    validation = per_token * workload.validation_tokens * (0.25 if config.train.gradient_checkpointing else 0.35)
    saving = footprint.trained * 3 / 300e6 + 0.3
    parts = {
        "start": _START,
        "training": step * workload.steps,
        "validation": validation * workload.validations,
        "saving": saving * workload.saves,
        "grading": _grading(config, workload, footprint, rates),
    }
    low, high = (0.75, 1.5) if gpu else (0.5, 3.0)
    if workload.assumed:
        low = 0.1  # shared prefixes and shorter examples, which the settings do not tell
    return _time(parts, step, low, high)


def narrowed_time(config: RunConfig, workload: Workload, probed: Probed) -> Time:
    """The seconds of a run on the machine that a probe ran on."""
    models = 1 + probed.shorter if config.evaluate.base else probed.shorter
    each = 2 if config.evaluate.base else 1
    answering = probed.batch * workload.prompt_batches / each + probed.prompt * workload.prompts / each
    parts = {
        "start": probed.start,
        "training": probed.step_seconds * workload.steps,
        "validation": probed.evaluation * workload.validations,
        "saving": probed.saving * workload.saves,
        "grading": answering * models,
        "exports": probed.export * len(config.exports),
    }
    width = max(0.15, 2 * probed.step_error)
    found = _time(parts, probed.step_seconds, 1 - width, 1 + width)
    return Time(found.seconds, found.per_step, found.parts, measured=True)


def _time(parts: dict[str, float], step: float, low: float, high: float) -> Time:
    total = sum(parts.values())
    return Time(Span(total * low, total, total * high), Span(step * low, step, step * high), parts)


def _grading(config: RunConfig, workload: Workload, footprint: Footprint, rates: Rates) -> float:
    """Answers are written token by token, each reading all weights once for a batch of prompts."""
    if not workload.prompts:
        return 0.0
    batches = max(1, workload.prompts // config.generate.batch_size)
    one = max((footprint.weights + footprint.trained) / rates.bytes, 400 * rates.launch * 4)
    return batches * config.generate.max_new_tokens / 2 * one
