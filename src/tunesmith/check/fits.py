"""Whether the run fits into the memory at hand: the plan's forecast against this machine's card, or its RAM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.check.gpus import read_gpus
from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.config.schema import MergedExport, Quantization, RunConfig
from tunesmith.errors import ModelError
from tunesmith.types import Finding

_LEAST_TOKENS = 64
"""Of a row, below which `train.max_tokens` is not lowered any further."""


class Room(NamedTuple):
    """Memory of this machine, in bytes."""

    name: str
    total: int
    free: int
    """Not held by other programs."""
    gpu: bool


def check_memory(subject: Subject) -> Looked:
    """Forecast the run's peak from its settings, its model's config and its longest real row; try what would lower it."""
    config, room = subject.config, memory_here()
    try:
        memory = _Forecasts(subject, room.gpu)
        needed = memory.of(config)
    except ModelError as error:
        return Looked([_unknown(error)], {})
    findings = [*_fit(config, needed, room, memory), *(_merging(config, memory, ram()) if room.gpu else [])]
    figures = {"GB needed": needed.expected / 1e9, "GB there": room.total / 1e9, "on": room.name}
    return Looked(findings, figures)


def memory_here() -> Room:
    """Of the first GPU where the driver shows one, else of the machine or the container that this is."""
    gpus = read_gpus().gpus
    if gpus:
        return Room(gpus[0].name, gpus[0].total, gpus[0].free, True)
    return ram()


def ram() -> Room:
    """The machine's memory, or the container's where that is less."""
    import psutil

    host = psutil.virtual_memory()
    total, free = int(host.total), int(host.available) + int(psutil.Process().memory_info().rss)
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        most = _number(limit)
        if most is not None and most < total:
            total = most
            free = min(free, most - (_number(used) or 0) + int(psutil.Process().memory_info().rss))
    return Room("this machine", total, free, False)


def _number(path: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


class _Forecasts:
    """What a run needs under its settings, and under others."""

    def __init__(self, subject: Subject, gpu: bool) -> None:
        from tunesmith.check.plan import read_architecture

        self._prepared, self._gpu = subject.preparation.prepared, gpu
        self._architecture = read_architecture(subject.config)
        self._renderer = subject.renderer
        self.longest = int(max(self._prepared.train.lengths, default=0))
        """Tokens of the longest example: a row is never shorter."""
        self.baseline = _resident()

    def of(self, config: RunConfig) -> Any:
        """`Span` of the bytes that the device must have.

        Raises:
            ModelError: the model cannot be computed without data.
        """
        import torch

        from tunesmith.check.footprint import quiet, step_footprint
        from tunesmith.check.memory import forecast_memory
        from tunesmith.check.workload import prompt_lengths, workload_of

        precision = config.train.precision
        types = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
        compute = types.get(precision, torch.bfloat16 if self._gpu else torch.float32)
        with quiet():
            workload = workload_of(config, self._prepared, prompt_lengths(self._prepared, self._renderer))
            footprint = step_footprint(config, self._architecture, workload.worst, gpu=self._gpu, compute=compute)
        self.parameters = footprint.parameters
        baseline = 0 if self._gpu else self.baseline
        return forecast_memory(
            config, self._architecture, workload, footprint, gpu=self._gpu, baseline=baseline
        ).needed  # fmt: skip


def _resident() -> int:
    """Bytes that this process holds: the libraries, the tokenizer and the rows, as a run will when it begins."""
    import psutil
    import transformers  # noqa: F401  # a run imports it, and what is not imported yet would be missing

    return int(psutil.Process().memory_info().rss)


def _fit(config: RunConfig, needed: Any, room: Room, memory: _Forecasts) -> Iterator[Finding]:
    where = f"{room.name} ({room.total / 1e9:.1f} GB)"
    span = f"{needed.expected / 1e9:.1f} GB ({needed.low / 1e9:.1f} to {needed.high / 1e9:.1f})"
    if needed.low > room.total:
        yield Finding(
            "memory.too_small", "error", f"the run needs {span} on {where}", "train", _mended(config, room, memory),
            "it runs out of memory, at the latest at its longest row",
        )  # fmt: skip
    elif needed.high > room.total:
        yield Finding(
            "memory.close", "warning", f"the run needs {span} on {where}: it may fit, and it may not", "train",
            "`tunesmith plan RECIPE --probe` runs its longest row here and knows; or " + _mended(config, room, memory),
            "out of memory in the middle of the run; rows are then halved, and it is slower",
        )  # fmt: skip
    elif needed.high > room.free:
        held = (room.total - room.free) / 1e9
        yield Finding(
            "memory.held", "warning", f"the run needs {span}, and other programs hold {held:.1f} GB of {where}",
            room.name, "end them first: " + ("nvidia-smi" if room.gpu else "ps aux --sort=-rss | head") + " names them",
            "out of memory although the machine is large enough",
        )  # fmt: skip


def _mended(config: RunConfig, room: Room, memory: _Forecasts) -> str:
    """What to set so that it fits, tried by forecast; what the least of them takes where none does."""
    changed: list[str] = []
    best = None
    for words, settings in _cheaper(config, room, memory.longest):
        changed.append(words)
        config = settings(config)
        best = memory.of(config)
        if best.high <= room.total:
            return f"give the run {' '.join(changed)} (then {best.expected / 1e9:.1f} GB)"
    least = f" even {' '.join(changed)} needs {best.expected / 1e9:.1f} GB;" if best is not None else ""
    return f"take a larger machine:{least} `tunesmith plan RECIPE` says on which cards it fits"


def _cheaper(config: RunConfig, room: Room, longest: int) -> Iterator[tuple[str, Any]]:
    """(words, change) of settings that lower memory, those that change no result first."""

    def setting(section: str, **values: Any) -> Any:
        return lambda now: now.model_copy(update={section: getattr(now, section).model_copy(update=values)})

    tokens = config.train.max_tokens
    while tokens // 2 >= max(longest, _LEAST_TOKENS):
        tokens //= 2
    if tokens < config.train.max_tokens:
        yield f"train.max_tokens={tokens}", setting("train", max_tokens=tokens)
    if config.generate.batch_size > 8:
        yield "generate.batch_size=8", setting("generate", batch_size=8)
    if not config.train.gradient_checkpointing:
        yield "train.gradient_checkpointing=true", setting("train", gradient_checkpointing=True)
    if room.gpu and config.model.quantization is None and config.lora is not None:
        yield "model.quantization.bits=4", setting("model", quantization=Quantization(bits=4))


def _merging(config: RunConfig, memory: _Forecasts, host: Room) -> Iterator[Finding]:
    """A merged model is put together in the host's memory, whatever the card holds."""
    sizes = {"float32": 4, "float16": 2, "bfloat16": 2}
    wanted = [sizes[one.dtype] for one in config.exports if isinstance(one, MergedExport)]
    needed = memory.baseline + 2 * max(wanted, default=0) * memory.parameters  # the model, and the bytes being written
    if wanted and needed > host.total:
        yield Finding(
            "memory.merging", "warning",
            f"merging needs {needed / 1e9:.1f} GB of the machine's own memory, which has {host.total / 1e9:.1f} GB",
            "exports", "give the run exports='[{format: adapter}]', and merge with `tunesmith export RUN` on a larger machine",
            "the run trains for hours and is killed when it merges",
        )  # fmt: skip


def _unknown(error: ModelError) -> Finding:
    return Finding("memory.unknown", "info", f"no forecast: {error.message}", error.place, error.remedy)
