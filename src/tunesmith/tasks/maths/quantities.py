"""Whether two quantities are the same: units, conversion, percent, two readings of a mark, rounding."""

from __future__ import annotations

import re
from fractions import Fraction

from tunesmith.tasks.maths.notation import plain
from tunesmith.tasks.maths.numbers import Quantity
from tunesmith.tasks.maths.units import PERCENT, Unit, read_unit
from tunesmith.tasks.maths.verdict import SAME, Circumstances, Verdict

_ASKS_PERCENT = re.compile(r"phần trăm|percent|%", re.IGNORECASE)
_ASKED = re.compile(r"(?:bao nhiêu|mấy|how many|đơn vị(?: là)?|theo|ra|bằng|in)\s+(?=\S)", re.IGNORECASE)
MIN_PLACES = 2
"""Decimal places a rounded decimal must have to stand for an exact value."""


def same_quantity(gold: Quantity, answer: Quantity, about: Circumstances) -> Verdict:
    mine, other = gold.unit, answer.unit
    if about.units == "ignored":
        return _same_value(gold, answer, Fraction(1), Fraction(1))
    asked = asked_unit(about.question)
    counts = "count" in [name for unit in (mine, other) for name, _ in unit.dimension]
    if counts and (mine.noun or other.noun or mine.dimension == other.dimension):  # pairs and dozens of things
        return _same_value(gold, answer, mine.scale, other.scale)
    if counts and not (mine.known and other.known):
        return _against_count(gold, answer, asked, about)
    if mine.known and not other.known:
        if (
            other.noun
            and mine.dimension not in (PERCENT.dimension,)
            and mine.dimension[0][0] not in ("usd", "eur", "gbp", "vnd", "count")
        ):
            agrees = _same_value(gold, answer, Fraction(1), other.scale)
            return agrees if agrees.same is False else Verdict(None, f"the unit {other.noun!r} is not known")
        if about.units == "required":
            agrees = _same_value(gold, answer, Fraction(1), other.scale)
            return Verdict(False, "the unit is missing", "wrong_unit") if agrees.same is not False else agrees
        if mine.dimension == PERCENT.dimension and gold.usual / 100 == answer.usual:
            return SAME
        other = Unit(
            mine.dimension,
            (asked or mine).scale * other.scale
            if asked and asked.dimension == mine.dimension
            else mine.scale * other.scale,
        )
    elif other.known and not mine.known:
        if other.dimension == PERCENT.dimension and not mine.noun:
            return _against_percent(gold, answer, about)
        if mine.noun:
            agrees = _same_value(gold, answer, mine.scale, Fraction(1))
            return agrees if agrees.same is False else Verdict(None, f"{mine.noun!r} against a measure")
        taken = asked if asked is not None else other
        mine = Unit(taken.dimension, taken.scale * mine.scale)
    if mine.known and other.known and mine.dimension != other.dimension:
        if PERCENT.dimension in (mine.dimension, other.dimension):
            return Verdict(False, "a percentage against another measure", "wrong_unit")
        return Verdict(False, "the unit measures something else", "wrong_unit")
    return _same_value(gold, answer, mine.scale, other.scale)


def _against_count(gold: Quantity, answer: Quantity, asked: Unit | None, about: Circumstances) -> Verdict:
    """Dozens or pairs against a bare number: so many things, or so many of them where that is what was asked for."""
    if asked is not None and asked.dimension in (gold.unit.dimension, answer.unit.dimension):
        right, said = (one.scale if one.known else asked.scale for one in (gold.unit, answer.unit))
        return _same_value(gold, answer, right, said)
    things = _same_value(gold, answer, gold.unit.scale, answer.unit.scale)
    if things.same or about.units == "required":
        return things
    forgiven = _same_value(gold, answer, Fraction(1), Fraction(1))  # the word left out of the answer
    return forgiven if gold.unit.known and forgiven.same else things


def _against_percent(gold: Quantity, answer: Quantity, about: Circumstances) -> Verdict:
    if gold.usual == answer.usual / 100:
        return SAME
    if gold.usual == answer.usual:
        if _ASKS_PERCENT.search(about.question):
            return SAME
        if not about.question:
            return Verdict(None, "the same number with a percent sign: nothing says whether percent was asked for")
    return Verdict(False, "another number", "wrong_number")


def _same_value(gold: Quantity, answer: Quantity, scale: Fraction, other: Fraction) -> Verdict:
    if gold.usual * scale == answer.usual * other:
        if answer.division_left and gold.form != "fraction":
            return Verdict(False, "the division is left undone", "unevaluated")
        return SAME
    if any(a * scale == b * other for a in gold.readings for b in answer.readings):
        return Verdict(
            None, "the mark before three digits can be a decimal mark or a thousands mark, and nothing decides"
        )
    if scale == other and _rounded(gold, answer):
        return SAME
    return Verdict(False, "another number", "wrong_number")


def _rounded(gold: Quantity, answer: Quantity) -> bool:
    """Whether one is exact and without end as a decimal, and the other its decimal, rounded to two places or more."""
    for exact, decimal in ((gold, answer), (answer, gold)):
        places = decimal.places
        if exact.form == "number" or decimal.form != "number" or exact.places is not None:
            continue
        if places is not None and places >= MIN_PLACES:
            return abs(exact.usual - decimal.usual) <= Fraction(1, 2 * 10**places)
    if (gold.places or 0) >= 10 or (answer.places or 0) >= 10:  # the noise of floating point
        return abs(gold.usual - answer.usual) <= abs(gold.usual) * Fraction(1, 10**9)
    return False


def asked_unit(question: str) -> Unit | None:
    """The unit that a question asks its answer in: `bao nhiêu mét?`, `how many minutes`, `in square metres`."""
    written, found = plain(question), None
    for asked in _ASKED.finditer(written):
        unit, end = read_unit(written, asked.end())
        if unit.known and (asked[0].strip().lower() != "in" or re.match(r"\s*[?.,]|\s*$", written[end:])):
            found = unit
    return found
