"""The judge is tried on right and wrong answers before anything is judged by it."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.errors import TunesmithError
from tunesmith.evaluate.trust import try_grader
from tunesmith.types import Finding

_COSTS: Mapping[str, tuple[str, str]] = {
    "self-test": ("grader.self_test", "a figure that no model can reach, or that any model reaches"),
    "hack gain": ("grader.hack_gain", "a model that is rewarded for this learns this"),
}
_TRAINED = "the run trains for hours and cannot say what came of it"


def check_grader(subject: Subject) -> Looked:
    """Grade right answers, other questions' answers and cheap ones, as a run does before it trains."""
    config = subject.config
    examples = [one for tests in subject.preparation.prepared.tests.values() for one in tests]
    if not examples or not config.evaluate.self_test:
        return Looked([], {"right answers": 0})
    try:
        trust = try_grader(subject.task, examples, config)
    except TunesmithError as error:
        return Looked(
            [
                Finding(
                    "grader.stops", "error", f"the grader stops: {error.message}", error.place, error.remedy, _TRAINED
                )
            ]
        )
    except Exception as error:  # a task of the user's own may raise anything
        return Looked(
            [
                Finding(
                    "grader.raises",
                    "error",
                    f"the grader raises {type(error).__name__}: {error}",
                    "task.target",
                    "mend `grade` of the task; it is given an example and a completion, and returns a Score",
                    _TRAINED,
                )  # fmt: skip
            ]
        )
    findings = []
    for one in trust.findings:
        check, cost = _COSTS.get(one.check, (f"grader.{one.check}", ""))
        findings.append(Finding(check, one.level, one.message, one.place, one.remedy, cost))
    return Looked(findings, {"right answers": trust.test.gold.n})
