"""A calculator at the model's elbow: what a solution writes after `=` is what stands before it, worked out exactly.

A small model learns which numbers to put together long before it learns to multiply. Annotated solutions with a
calculator while answering are how Cobbe et al., 2021 (GSM8K, arXiv 2110.14168) answer; here no annotation is needed,
because the digits are held to the value as they are written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

from tunesmith.tasks.maths.arithmetic import Expression, check_steps, last_step
from tunesmith.tasks.maths.numbers import Language, convention_of

_WRITTEN = re.compile(r"[ $€£]*(?P<number>[-−]?[\d.,]*(?:/\d*)?)(?P<rest>.*)", re.DOTALL)
_MARKED = re.compile(r"####[\s$€£]*(?P<number>[-−]?\d[\d.,]*)(?P<rest>.*)", re.DOTALL)
_NUMBER = re.compile(r"-?\d(?:[\d.,]*\d)?")
_MOST_PLACES = 4
"""Decimal places to which a value that has no end is rounded."""


class ArithmeticConstraint:
    """Holds a solution to arithmetic that comes out.

    A step writes its value at once (`3 x 4 + 2 = 14`, not `= 12 + 2 = 14`), in any common form: with or without
    thousands marks, rounded where it has no end, as cents, as a percentage, or as the whole part of a division. The
    number behind `####` is one that the solution or the question states. What is no arithmetic is let pass.

    Args:
        question: what was asked.
        language: decides decimal marks where the question does not.
    """

    def __init__(self, question: str, language: Language) -> None:
        self._language = language
        self._convention = convention_of(question)
        self._stated = set(_NUMBER.findall(question))

    def allows(self, text: str) -> bool:
        """Whether `text` is the start of a solution whose steps come out."""
        line = text[text.rstrip("\n").rfind("\n") + 1 :]  # with its end, where it has one
        if found := _MARKED.search(line):
            return _fits(found["number"], bool(found["rest"]), self._answers(text[: -len(line)]))
        step = last_step(line, self._language, self._convention)
        if step is None:
            return True
        expression, written = step
        found = _WRITTEN.match(written)
        assert found is not None  # it matches anything
        number, rest = found["number"], found["rest"]
        if not number and re.match(r"[^\W\d_]|\(", rest):
            return True  # `= x`, `= (3 + 4)`: no value is written
        return _fits(number, bool(rest), set(renderings(expression, self._language)))

    def complete(self, text: str) -> bool:
        """Whether the solution may end here: every step comes out."""
        return self.allows(text + " ") and not check_steps(text, self._language, self._convention).wrong

    def _answers(self, solution: str) -> set[str]:
        """The numbers that a solution or its question states, and every form of what its steps come to; empty for a
        solution without numbers, whose answer can come from nowhere else."""
        stated = set(_NUMBER.findall(solution))
        stated |= {re.sub(r"[.,]0+$", "", number) for number in stated}  # $12.00 is 12
        steps = (last_step(line, self._language, self._convention) for line in solution.split("\n"))
        forms = {form for step in steps if step is not None for form in renderings(step[0], self._language)}
        return stated | forms | self._stated if stated else stated


def _fits(number: str, closed: bool, allowed: set[str]) -> bool:
    """Whether a number, as far as it is written, is one of those that are allowed; none allowed are all allowed."""
    number = number.replace("−", "-")
    whole = not allowed or number.rstrip(".,") in allowed
    return whole or (not closed and any(one.startswith(number) for one in allowed))


def renderings(expression: Expression, language: Language) -> Iterator[str]:
    """How the value of an expression may be written: `1250`, `1,250`, `1250.00`, `0.33`, `33.3`, `1/3`."""
    for value in (expression.value, expression.value * 100) if expression.share else (expression.value,):
        places = _places(value)
        rounded = range(_MOST_PLACES + 1) if places is None else {places, max(places, 2)}  # cents have two
        for count in rounded:
            yield from _forms(value, count, language)
    if expression.value.denominator != 1:
        yield f"{expression.value.numerator}/{expression.value.denominator}"
        yield from _forms(Fraction(expression.value // 1), 0, language)  # 17 : 5 = 3 (dư 2)


def _forms(value: Fraction, places: int, language: Language) -> Iterator[str]:
    scaled = round(value * 10**places)
    sign, digits = "-" if scaled < 0 else "", str(abs(scaled)).rjust(places + 1, "0")
    whole, part = digits[: len(digits) - places], digits[len(digits) - places :]
    thousands, decimal = (".", ",") if language == "vi" else (",", ".")
    tail = decimal + part if part else ""
    yield f"{sign}{whole}{tail}"
    yield f"{sign}{int(whole):,}".replace(",", thousands) + tail


def _places(value: Fraction) -> int | None:
    """Decimal places of a value; None where it has no end, or a far one."""
    for places in range(_MOST_PLACES + 1):
        if (value * 10**places).denominator == 1:
            return places
    return None
