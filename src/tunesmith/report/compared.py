"""What the page says beyond one number a test set: slices, other models, and whether the grader was trustworthy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tunesmith.report.figures import Table, number, section, verdict_of
from tunesmith.report.read import RunFiles


class Slice(NamedTuple):
    """One value of a meta key in one test set."""

    value: str
    base: Table
    tuned: Table
    paired: Table

    @property
    def verdict(self) -> str:
        """`better` or `worse` where the p-value, adjusted for all slices, says so; else empty."""
        p, difference = number(self.paired, "p_value"), number(self.paired, "difference")
        if p is None or difference is None or p >= 0.05:
            return ""
        return "better" if difference > 0 else "worse"


class Slices(NamedTuple):
    """One test set by one meta key."""

    test_set: str
    key: str
    rows: tuple[Slice, ...]


class Other(NamedTuple):
    """Another model beside the tuned one on one test set."""

    test_set: str
    name: str
    kind: str
    where: str
    scores: Table
    paired: Table

    @property
    def verdict(self) -> str:
        """Whether the tuned model is `better` or `worse` than this one beyond chance, or `even`."""
        return verdict_of(self.paired)


class Policy(NamedTuple):
    """What a cheap policy earned."""

    name: str
    earned: float | None


class Trust(NamedTuple):
    """What the run found out about its grader before it trained."""

    gold: float | None
    gold_n: float | None
    shuffled: float | None
    unscored: float | None
    policies: tuple[Policy, ...]
    offences: tuple[str, ...]


def slices(files: RunFiles) -> tuple[Slices, ...]:
    """Every slicing of every test set, of the tuned model and the base."""
    found: list[Slices] = []
    scores = section(files.summary, "scores")
    names = dict.fromkeys([*section(scores, "tuned"), *section(scores, "base")])
    for name in names:
        base, tuned = section(scores, "base", name, "slices"), section(scores, "tuned", name, "slices")
        for key in dict.fromkeys([*tuned, *base]):
            values = dict.fromkeys([*section(tuned, key), *section(base, key)])
            rows = tuple(
                Slice(
                    str(value),
                    section(base, key, value),
                    section(tuned, key, value),
                    section(files.summary, "paired", name, "slices", key, value),
                )
                for value in values
            )
            found.append(Slices(name, str(key), tuple(sorted(rows, key=lambda row: -(number(row.tuned, "n") or 0)))))
    return tuple(found)


def others(files: RunFiles) -> tuple[Other, ...]:
    """Everyone the tuned model was compared with beside its base, by test set."""
    contest = section(files.summary, "contest")
    listed = contest.get("others")
    known = (
        {str(one.get("name")): one for one in listed if isinstance(one, Mapping)} if isinstance(listed, list) else {}
    )
    return tuple(
        Other(
            str(test_set),
            str(name),
            str(known.get(str(name), {}).get("kind", "")),
            str(known.get(str(name), {}).get("where", "")),
            section(files.summary, "scores", str(name), str(test_set)),
            section(contest, "sets", test_set, name),
        )
        for test_set in section(contest, "sets")
        for name in section(contest, "sets", test_set)
    )


def trust(summary: Table) -> Trust | None:
    """The grader's own test, where the run made one."""
    tested, hacked = section(summary, "trust", "self_test"), section(summary, "trust", "hack_gain")
    if not tested and not hacked:
        return None
    policies = section(hacked, "policies")
    ranked = sorted(policies, key=lambda name: -(number(policies, name) or 0.0))
    return Trust(
        number(tested, "gold"),
        number(tested, "gold_n"),
        number(tested, "shuffled"),
        number(tested, "unscored"),
        tuple(Policy(str(name), number(policies, name)) for name in ranked),
        tuple(_texts(tested.get("offences")) + _texts(hacked.get("offences"))),
    )


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
