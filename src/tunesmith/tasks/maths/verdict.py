"""What is known when two answers are compared, and what a comparison says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tunesmith.tasks.maths.numbers import Convention, Language

Units = Literal["optional", "required", "ignored"]
Symbolic = Callable[[str, str], bool | None]


class Verdict(NamedTuple):
    """What a comparison says."""

    same: bool | None
    """None where it cannot be told."""
    reason: str = ""
    failure: str = ""
    """The class of a wrong answer: `wrong_number`, `wrong_unit`, `unevaluated`, ..."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What is known beside the two answers."""

    language: Language = "en"
    question: str = ""
    choices: Mapping[str, str] = field(default_factory=dict)
    """Letter to text, for multiple choice."""
    units: Units = "optional"
    gold_convention: Convention = field(default_factory=Convention)
    """How the writer of the right answer uses point and comma."""
    answer_convention: Convention = field(default_factory=Convention)
    symbolic: Symbolic | None = None
    """Compares symbolic answers; None where math-verify is not installed."""


SAME = Verdict(True)
