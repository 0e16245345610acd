"""Proof before paying: what would fail, or be spoilt, after hours of a run is found in seconds before it.

Each family of findings is one function, `(Subject) -> Looked`, that can be called alone. They are independent of each
other but for what `NEEDS` says, and stand in `FAMILIES` cheapest first; those of `QUICK` import no torch.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Mapping

from tunesmith.check.result import CheckResult, FamilyResult, Looked
from tunesmith.check.subject import Subject, examine
from tunesmith.config.load import Loaded
from tunesmith.errors import TunesmithError
from tunesmith.types import Finding

__all__ = ["FAMILIES", "QUICK", "CheckResult", "FamilyResult", "Looked", "Subject", "check", "examine", "run_family"]


FAMILIES: dict[str, str] = {
    "recipe": "recipe:check_recipe",
    "environment": "environment:check_environment",
    "disk": "disk:check_disk",
    "storage": "storage:check_storage",
    "tracker": "tracker:check_tracker",
    "exports": "exports:check_exports",
    "model": "model:check_model",
    "sources": "sources:check_sources",
    "template": "template:check_template",
    "data": "data:check_data",
    "labels": "labels:check_labels",
    "leakage": "leakage:check_leakage",
    "memory": "fits:check_memory",
    "grader": "grader:check_grader",
}
"""Family to `module:function` of this package, cheapest first."""
QUICK = ("recipe", "environment", "disk", "storage", "tracker", "exports", "model", "sources")
"""Those that import no torch and take well under a second together."""
BEFORE_A_RUN = ("recipe", "environment", "disk", "storage", "tracker", "exports")
"""Those that a run makes before it does anything else; the others it makes on its way, by its own errors."""
NEEDS = {
    "template": ("model", "sources"),
    "data": ("model", "sources", "template"),
    "labels": ("model", "sources", "template"),
    "leakage": ("model", "sources", "template"),
    "memory": ("model", "sources", "template"),
    "grader": ("model", "sources", "template"),
}
"""Families without whose success a family can say nothing."""


def check(
    loaded: Loaded,
    *,
    quick: bool = False,
    families: Iterable[str] | None = None,
    environ: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CheckResult:
    """Look at a recipe, at this machine and at every row of the data for what would stop a run or spoil its result.

    Args:
        loaded: settings with the origin of each, as `load_config` gives them.
        quick: only what needs neither torch nor the data itself.
        families: only these, in the order of `FAMILIES`; None is all.
        environ: variables that servers and trackers are named in; None is the process's own environment.
        progress: told the name of each family before it is looked at.

    Returns:
        Findings by family. A check that cannot be made is a finding, not an exception.
    """
    wanted = set(families) if families is not None else set(QUICK if quick else FAMILIES)
    if unknown := wanted - set(FAMILIES):
        raise ValueError(f"no such family: {', '.join(sorted(unknown))}; there are {', '.join(FAMILIES)}")
    results: list[FamilyResult] = []
    with examine(loaded, environ) as subject:
        for name in FAMILIES:
            if name not in wanted:
                continue
            failed = next((r.name for r in results if r.name in NEEDS.get(name, ()) and (r.errors or r.skipped)), None)
            if failed:
                results.append(FamilyResult(name, (), 0.0, skipped=f"{failed} must be mended first"))
                continue
            if progress is not None:
                progress(name)
            results.append(run_family(name, subject))
    return CheckResult(loaded.config.name, tuple(results))


def run_family(name: str, subject: Subject) -> FamilyResult:
    """One family of `FAMILIES`; an error that a run would stop with becomes a finding under the family's name."""
    module, _, function = FAMILIES[name].partition(":")
    start = time.perf_counter()
    try:
        look = getattr(importlib.import_module(f"tunesmith.check.{module}"), function)
        findings, figures = look(subject)
    except TunesmithError as error:
        cost = "a run stops here"
        findings, figures = [Finding(name, "error", error.message, error.place, error.remedy, cost)], {}
    return FamilyResult(name, tuple(findings), time.perf_counter() - start, figures)
