"""What trials come to, and how a run is held against the undisturbed one."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import world as w


@dataclass
class Outcome:
    """What became of the trials of one kind of fault."""

    fault: str
    trials: int = 0
    stuck: int = 0
    different: int = 0
    wrong: list[str] = field(default_factory=list)
    """Whatever else was not as it must be."""
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether all went as it must."""
        return self.trials > 0 and not (self.stuck or self.different or self.wrong)


def together(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two parts of the trials of a kind, as they are printed."""
    figures = {
        name: max(value, other["figures"][name])
        if name.startswith(("most", "longest"))
        else value + other["figures"][name]
        for name, value in one["figures"].items()
    }
    sums = {name: one[name] + other[name] for name in ("trials", "stuck", "different", "wrong", "seconds")}
    return {**one, **sums, "figures": figures, "good": one["good"] and other["good"]}


def settle(world: w.World, outcome: Outcome, name: str, where: Path | None = None, *extra: str) -> None:
    """The same command until it is done, and the comparison."""
    root = (where or world.folder / "runs") / name
    code = w.finish(w.start(world.folder, name, *extra))
    if code != 0:
        outcome.stuck += 1
        outcome.wrong.append(f"{name}: the same command ended with {code}: {w.said(world.folder, name)[-600:]}")
    else:
        compare(world, outcome, name, root)


def compare(world: w.World, outcome: Outcome, name: str, root: Path) -> None:
    """Of a run that says it is done, with the undisturbed one."""
    if differing := w.differing(w.result(root), world.reference):
        outcome.different += 1
        outcome.wrong.append(f"{name}: another result: {differing}")
    else:
        w.remove(world.folder, name)
