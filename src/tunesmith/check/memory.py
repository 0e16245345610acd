"""The memory of a run by stage and component, with an interval, from its config alone.

What the model and a step hold is simulated (`footprint.py`); what a sum cannot know (how an allocator rounds and
fragments, what libraries keep) is the interval, whose width was measured (`benchmarks/forecast.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from tunesmith.check.cards import Card
from tunesmith.check.footprint import Footprint, base_dtype, state_bytes
from tunesmith.check.workload import Workload
from tunesmith.config.schema import MergedExport, RunConfig

GIGA = 1e9
_CONTEXT = 0.55 * GIGA
"""A CUDA context with cuBLAS and cuDNN: held beside what tensors hold."""
_FIRST_USE = 38e6
"""Held on a CPU by what libraries load and set up when they first compute: 22 MB of their own files, the rest tables
and threads; the same in a run of 6 and of 60 million parameters."""
_MERGE_COPIES = 2
"""Of the merged weights: the model, and the bytes being written."""


@dataclass(frozen=True)
class Span:
    """An expectation and the interval it is stated with."""

    low: float
    expected: float
    high: float

    def scaled(self, factor: float) -> Span:
        """In another unit."""
        return Span(self.low * factor, self.expected * factor, self.high * factor)

    def holds(self, value: float) -> bool:
        """Whether the value is within."""
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Memory:
    """What a run holds, in bytes."""

    device: Literal["cpu", "gpu"]
    stages: dict[str, dict[str, int]]
    """Stage to component to bytes."""
    peak: Span
    """Of the largest stage: held by tensors on a GPU (`torch.cuda.max_memory_allocated`), resident on a CPU."""
    needed: Span
    """What the device must have: on a GPU with fragmentation and the CUDA context, on a CPU the peak."""
    measured: bool = False
    """Whether a probe has narrowed it."""

    @property
    def largest(self) -> str:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: sum(self.stages[stage].values()))

    @property
    def components(self) -> dict[str, int]:
        """Of the largest stage."""
        return self.stages[self.largest]

    def fits(self, card: Card) -> Literal["yes", "perhaps", "no"]:
        """Whether the run fits a card."""
        room = card.memory_gb * GIGA
        if self.needed.high <= room:
            return "yes"
        return "perhaps" if self.needed.low <= room else "no"

    def figures(self) -> dict[str, Any]:
        """For `plan.json`."""
        return asdict(self)


def forecast_memory(
    config: RunConfig, architecture: Any, workload: Workload, footprint: Footprint, *, gpu: bool, baseline: int = 0
) -> Memory:
    """Memory of every stage of a run, and of the largest with its interval.

    Args:
        config: the run.
        architecture: config of transformers, of the text model.
        workload: its rows and prompts.
        footprint: of its worst row.
        gpu: for a GPU; else resident memory on a CPU.
        baseline: bytes that Python and the libraries hold on a CPU before anything is loaded.
    """
    model = {"weights": footprint.weights, "adapter" if config.lora else "trained weights": footprint.trained}
    start = {} if gpu else {"libraries": round(baseline + _FIRST_USE)}
    holes = {} if gpu else {"fragmentation": footprint.holes}
    stages = {
        "train": {
            **start, **model,
            "gradients": footprint.trained,
            "optimizer": round(footprint.trainable * state_bytes(config.train.optim)),
            "activations": footprint.activations,
            "logits": footprint.logits,
            "workspace": footprint.workspace,
            **holes,
        },
    }  # fmt: skip
    if not gpu:
        stages["load"] = {**start, "weights": footprint.weights, "file": _file_bytes(footprint, architecture)}
    if workload.prompts:
        stages["grade"] = {**start, **model, **_generation(config, architecture, workload, gpu=gpu)}
    if (copy := _export_copy(config, footprint)) and not gpu:
        stages["export"] = {**start, **model, "merged copies": copy}
    expected = float(max(sum(parts.values()) for parts in stages.values()))
    return Memory("gpu" if gpu else "cpu", stages, *_spans(expected, stages, gpu=gpu, assumed=workload.assumed))


def _spans(expected: float, stages: dict[str, dict[str, int]], *, gpu: bool, assumed: bool) -> tuple[Span, Span]:
    largest = max(stages.values(), key=lambda parts: sum(parts.values()))
    fixed = sum(largest.get(name, 0) for name in ("libraries", "weights", "adapter", "trained weights"))
    moving = expected - fixed
    if gpu:
        # Below: memory that a better kernel does not take. Above: what libraries keep beside tensors of ours.
        peak = Span(fixed * 0.98 + moving * 0.75, expected, fixed * 1.05 + moving * (1.5 if assumed else 1.25))
        # An allocator keeps what it once had, in blocks that do not fit the next request.
        needed = Span(peak.low * 1.02 + _CONTEXT, expected * 1.15 + _CONTEXT, peak.high * 1.25 + _CONTEXT)
        return peak, needed
    holes = largest.get("fragmentation", 0)
    low = fixed * 0.95 + (moving - holes) + 0.3 * holes
    peak = Span(low, expected, fixed * 1.06 + (moving - holes) * (1.4 if assumed else 1.1) + 2.0 * holes)
    return peak, peak


def _file_bytes(footprint: Footprint, architecture: Any) -> int:
    """Of the checkpoint on disk, which is mapped into memory while it is read."""
    said = getattr(architecture, "dtype", None)
    size = said.itemsize if isinstance(said, torch.dtype) else 2
    return (footprint.parameters - footprint.trainable) * size if footprint.trained else footprint.parameters * size


def _generation(config: RunConfig, architecture: Any, workload: Workload, *, gpu: bool) -> dict[str, int]:
    """The cache of keys and values for a batch of answers, and the logits of a step."""
    size = base_dtype(config, architecture, gpu=gpu).itemsize
    heads = getattr(architecture, "num_key_value_heads", None) or architecture.num_attention_heads
    width = getattr(architecture, "head_dim", None) or architecture.hidden_size // architecture.num_attention_heads
    layers = architecture.num_hidden_layers
    new = config.generate.max_new_tokens
    batch = min(config.generate.batch_size, max(1, workload.prompts)) * config.generate.beams
    cache = 2 * layers * heads * width * size * batch * (workload.prompt_tokens + new)
    return {"cache": cache, "logits": batch * architecture.vocab_size * (size + 8)}


def _export_copy(config: RunConfig, footprint: Footprint) -> int:
    """Of a merged model while it is written, on the CPU."""
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
    wanted = [sizes[export.dtype] for export in config.exports if isinstance(export, MergedExport)]
    return max(wanted, default=0) * (footprint.parameters - (footprint.trainable if config.lora else 0)) * _MERGE_COPIES
