"""Room on the disks: checkpoints, exports and prepared rows against what is free."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.check.weights import Weights
from tunesmith.config.schema import MergedExport, RunConfig
from tunesmith.types import Finding

_EXPORT_WIDTH = {"bfloat16": 2, "float16": 2, "float32": 4}
_OPTIMIZER_BYTES = 8
"""Per trained weight: two moments in float32. The 8-bit optimizers need a quarter; the difference is kept as room."""
_MARGIN = 1.1
_BYTES_PER_CHARACTER = 4
"""Prepared rows against their source: ids, labels and the conversation itself."""


def check_disk(subject: Subject) -> Looked:
    """Whether checkpoints, exports and prepared rows fit; sizes come from the headers of the base model's files."""
    config = subject.loaded.config
    needs: dict[Path, int] = defaultdict(int)
    weights = subject.weights
    for folder, size in ((config.output_dir, run_bytes(config, weights)), (subject.cache_dir, _row_bytes(subject))):
        needs[folder] += size
    by_disk: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        place = existing(folder)
        device = place.stat().st_dev
        by_disk[device] = (place, by_disk.get(device, (place, 0))[1] + size)
    findings = [found for place, size in by_disk.values() if (found := _room(config, place, size))]
    if weights is None:
        findings.append(
            Finding(
                "disk.unknown_base",
                "info",
                f"the files of {config.model.name} are not on this machine, so their size and that of the adapters is "
                "not counted",
                "model.name",
                f"download it first: hf download {config.model.name}",
            )  # fmt: skip
        )
    free = min((shutil.disk_usage(place).free for place, _ in by_disk.values()), default=0)
    return Looked(findings, {"GB needed": sum(needs.values()) / 1e9, "GB free": free / 1e9})


def run_bytes(config: RunConfig, weights: Weights | None) -> int:
    """Bytes that a run writes: checkpoints kept and the one being written, the adapter, the exports."""
    if weights is None:
        return 0
    trained = weights.parameters if config.lora is None else weights.adapter_parameters(config.lora)
    checkpoint = trained * (4 + _OPTIMIZER_BYTES)
    total = checkpoint * (config.checkpoints.keep_last + 1) + 4 * trained
    for export in config.exports:
        total += weights.parameters * _EXPORT_WIDTH[export.dtype] if isinstance(export, MergedExport) else 4 * trained
    return int(total * _MARGIN)


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    folder = Path(os.path.abspath(folder))
    while not folder.exists():
        folder = folder.parent
    return folder


def _row_bytes(subject: Subject) -> int:
    total = 0
    for source in subject.sources.values():
        path = Path(source.path)
        if path.is_file():
            total += path.stat().st_size * _BYTES_PER_CHARACTER
    return total


def _room(config: RunConfig, place: Path, needed: int) -> Finding | None:
    free = shutil.disk_usage(place).free
    if needed <= free:
        return None
    return Finding(
        "disk.full", "error",
        f"the run writes about {needed / 1e9:.1f} GB here, and {free / 1e9:.1f} GB are free "
        f"({config.checkpoints.keep_last} checkpoints are kept)", str(place),
        f"free {max(0.1, (needed - free) / 1e9):.1f} GB there, or give the run output_dir=/a/larger/disk"
        + (" or checkpoints.keep_last=1" if config.checkpoints.keep_last > 1 else ""),
        "the run stops in the middle of a checkpoint, after hours",
    )  # fmt: skip
