"""What stands on both sides: questions of a held-out set in training, groups that straddle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.errors import CheckFailed
from tunesmith.types import Example, Finding

_COST = "held-out figures that measure memory: they look good and fall on the first new question"


def check_leakage(subject: Subject) -> Looked:
    """Questions that are also held out, and groups (a database, a document) that stand in training and in a test set."""
    made = subject.preparation
    leaked = [line for line in made.ledger if line["outcome"] == "dropped" and line.get("reason") == "leak"]
    findings: list[Finding] = []
    if leaked:
        first = leaked[0]
        findings.append(
            Finding(
                "leakage.same_question",
                "warning",
                f"{len(leaked):,} rows ask a question that is also held out and are left out of training; "
                f"{first.get('detail', '')}",
                first["place"],
                "`tunesmith data leaks RECIPE` lists every pair; nothing to do where both sets were drawn from the same "
                "records on purpose",
                _COST,
            )  # fmt: skip
        )
    if isinstance(made.error, CheckFailed):  # a test set's claim is broken
        findings.append(
            Finding(
                "leakage.claim_broken",
                "error",
                made.error.message,
                made.error.place or "data.leaks",
                made.error.remedy,
                _COST,
            )  # fmt: skip
        )
    for told in made.prepared.findings:
        if told.check == "leak" and told.level == "warning" and "left out" not in told.message:
            findings.append(Finding("leakage.alike", told.level, told.message, told.place, told.remedy, _COST))
    train = [made.prepared.train.example(at) for at in range(len(made.prepared.train))]
    for name, examples in made.prepared.tests.items():
        findings += _groups(name, train, examples)
    findings += _groups("validation", train, made.prepared.validation_examples)
    return Looked(findings, {"rows compared": len(train) + sum(map(len, made.prepared.tests.values()))})


def _groups(name: str, train: Sequence[Example], held_out: Sequence[Example]) -> Iterator[Finding]:
    trained = {example.group: example.place for example in reversed(train) if example.group}
    both = [example for example in held_out if example.group in trained and example.group]
    if not both:
        return
    first = both[0]
    yield Finding(
        "leakage.group_straddles", "warning",
        f"{len(both):,} of {len(held_out):,} examples of {name!r} belong to a group that is trained on too "
        f"({first.group[:60]!r}, also at {trained[first.group]})", first.place,
        "give whole groups to one side; `tunesmith data leaks RECIPE` lists every pair", _COST,
    )  # fmt: skip
