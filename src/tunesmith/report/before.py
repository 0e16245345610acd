"""What was found and fixed before the first step: the findings of the check, and the receipt of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.report.read import RunFiles


class Family(NamedTuple):
    """One family of findings."""

    name: str
    outcome: str
    seconds: float
    findings: tuple[Mapping[str, str], ...]
    """`{check, level, message, place, remedy, cost}`; notes are left out."""


class Receipt(NamedTuple):
    """Settings as asked and as in force."""

    counts: tuple[tuple[str, int], ...]
    """How many were `in force`, `resolved`, `later`, `idle`."""
    lines: tuple[Mapping[str, str], ...]
    """`{key, asked, in_force, status, where}`."""


def families(files: RunFiles) -> tuple[Family, ...]:
    """The last check of this run, by family; empty where none was made."""
    found = []
    for one in _mappings(files.check.get("families")):
        shown = [finding for finding in _mappings(one.get("findings")) if finding.get("level") in ("error", "warning")]
        texts = tuple({str(key): str(value) for key, value in finding.items()} for finding in shown)
        skipped = str(one.get("skipped") or "")
        counted = [(level, sum(text.get("level") == level for text in texts)) for level in ("error", "warning")]
        said = ", ".join(f"{count} {level}{'s' if count > 1 else ''}" for level, count in counted if count)
        seconds = one.get("seconds")
        took = float(seconds) if isinstance(seconds, int | float) else 0.0
        found.append(
            Family(str(one.get("name", "")), f"not looked at: {skipped}" if skipped else said or "ok", took, texts)
        )
    return tuple(found)


def receipt(files: RunFiles) -> Receipt | None:
    """Every setting as it was read back before the first step; None where the run took no receipt."""
    lines = tuple({str(k): str(v) for k, v in line.items()} for line in _mappings(files.receipt.get("lines")))
    lines = tuple(line for line in lines if {"key", "asked", "in_force", "status", "where"} <= set(line))
    if not lines:
        return None
    order = ("differs", "unread", "in force", "resolved", "later", "idle")
    statuses = sorted(
        {line["status"] for line in lines}, key=lambda one: order.index(one) if one in order else len(order)
    )
    return Receipt(tuple((status, sum(line["status"] == status for line in lines)) for status in statuses), lines)


def _mappings(value: Any) -> Sequence[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
