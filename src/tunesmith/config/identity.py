"""Which settings decide what a run comes to, and so must not change while it is continued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.config.schema import RunConfig

FREE = (
    "checkpoints",
    "code_dir",
    "data.cache_dir",
    "generate.batch_size",
    "limits",
    "name",
    "output_dir",
    "tracking",
    "train.dataloader_num_workers",
    "train.dataloader_pin_memory",
    "train.dataloader_prefetch_factor",
    "train.gradient_checkpointing",
    "train.logging_steps",
    "train.max_tokens",
)
"""Sections and settings that change where, when and how fast, and no result."""


def deciding(config: RunConfig) -> dict[str, Any]:
    """Every setting that is not free, by its dotted name, as plain values."""
    return {name: value for name, value in _leaves(config.model_dump(mode="json"), "") if not _is_free(name)}


def differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """`name: then, now` for every setting that differs."""
    return [
        f"{name}: {theirs.get(name)!r} then, {ours.get(name)!r} now"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]


def _leaves(value: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        found += _leaves(item, f"{name}.") if isinstance(item, Mapping) and item else [(name, item)]
    return found


def _is_free(name: str) -> bool:
    return any(name == free or name.startswith(f"{free}.") for free in FREE)
