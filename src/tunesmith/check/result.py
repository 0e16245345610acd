"""What a check came to, for a person, for a machine and for the report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.config.secrets import redact
from tunesmith.types import Finding

_MARKS = {"error": "ERROR", "warning": "warning", "info": "note"}


class Looked(NamedTuple):
    """What the function of one family returns."""

    findings: Sequence[Finding]
    figures: Mapping[str, Any] = {}
    """What was measured: rows proved, bytes needed."""


@dataclass(frozen=True, slots=True)
class FamilyResult:
    """One family of findings."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What was measured: rows proved, bytes needed."""
    skipped: str = ""
    """Why it was not looked at; empty when it was."""

    @property
    def errors(self) -> int:
        return sum(one.level == "error" for one in self.findings)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """All families, cheapest first."""

    recipe: str
    families: tuple[FamilyResult, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, in the order they were made."""
        return tuple(one for family in self.families for one in family.findings)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """Those that a run would stop at, or would be spoilt by."""
        return tuple(one for one in self.findings if one.level == "error")

    @property
    def passed(self) -> bool:
        """Whether nothing was found that must be mended first."""
        return not self.errors

    def figures(self) -> dict[str, Any]:
        """For `check.json`: JSON-serialisable, without secrets."""
        families = [
            {
                "name": one.name,
                "seconds": round(one.seconds, 3),
                "skipped": one.skipped,
                "figures": dict(one.figures),
                "findings": [{key: redact(str(value)) for key, value in asdict(f).items()} for f in one.findings],
            }
            for one in self.families
        ]
        counts = {level: sum(f.level == level for f in self.findings) for level in _MARKS}
        return {"recipe": self.recipe, "passed": self.passed, **counts, "families": families}

    def text(self) -> str:
        """For a terminal: a line per family, then every finding with its reason, cost and remedy."""
        lines = []
        for one in self.families:
            if one.skipped:
                lines.append(f"{one.name:>12}  not looked at: {one.skipped}")
                continue
            counts = {mark: sum(f.level == level for f in one.findings) for level, mark in _MARKS.items()}
            said = ", ".join(f"{n} {mark}{'s' if n > 1 else ''}" for mark, n in counts.items() if n) or "ok"
            shown = ", ".join(f"{_number(value)} {key}" for key, value in one.figures.items())
            lines.append(f"{one.name:>12}  {said:<22} {one.seconds:6.2f} s  {shown}".rstrip())
        for finding in self.findings:
            lines.append("")
            lines += finding_lines(finding)
        verdict = "nothing stands in the way" if self.passed else f"{len(self.errors)} to mend before a run"
        return redact("\n".join([*lines, "", f"check: {verdict}"]))

    def save(self, path: Path) -> None:
        """Write `check.json`, whole or not at all.

        Raises:
            OSError: nothing can be written there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".tmp")
        draft.write_text(json.dumps(self.figures(), indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(draft, path)


def finding_lines(finding: Finding) -> list[str]:
    """A finding for a person: name and place, what is wrong, what it costs, what mends it."""
    where = f"  {finding.place}" if finding.place else ""
    lines = [f"{_MARKS[finding.level]} {finding.check}{where}", f"  {finding.message}"]
    if finding.cost:
        lines.append(f"  cost: {finding.cost}")
    if finding.remedy:
        lines.append(f"  mend: {finding.remedy}")
    return lines


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if isinstance(value, float) else str(value)
