"""Arithmetic as it is written in solutions: evaluated exactly, and checked step by step.

No `eval`: an operator-precedence parser over exact fractions, with bounds on length and powers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from tunesmith.tasks.maths.notation import plain
from tunesmith.tasks.maths.numbers import LITERAL, Convention, Language, readings_of
from tunesmith.tasks.maths.units import read_unit

_MAX_LENGTH = 400
_MAX_POWER = 64
_TOKEN = re.compile(
    rf"""\s*(?:
      (?P<mixed>\d+[ ]+\d+/\d+)
    | (?P<fraction>\d+/\d+)(?![\d/^.,])
    | (?P<clock>\d{{1,2}}:\d\d(?!\d)(?=\s*(?:[ap]\.?m|AM|PM|\+|-)))
    | (?P<number>{LITERAL})
    | (?P<op>\*\*|[-+*/^×·÷()−–]|(?<!\S):(?!\S)|(?<=\d):(?=\d)|(?<=\)):|x(?=\s*[\d(.]))
    | (?P<relation>=|≈|->|→)
    | (?P<percent>%)
    | (?P<money>[$€£])
    | (?P<word>[^\W\d_]+(?:-[^\W\d_]+)*[²³23]?)
    | (?P<other>\S)
    )""",
    re.VERBOSE,
)
_MIXED_AND = re.compile(r"(?<=\d) (?:and|và) (?=\d+/\d)")
_LOOSE = {"×": "*", "·": "*", "x": "*", "÷": "/", ":": "/", "−": "-", "–": "-", "**": "^"}


@dataclass(frozen=True, slots=True)
class Expression:
    """An arithmetic expression that was written down."""

    value: Fraction
    numbers: tuple[Fraction, ...]
    """The numbers in it, in order."""
    operations: int
    """How many operations it leaves to do; a fraction is none."""
    fractions: int = 0
    counted: bool = False
    """Whether things are counted in it: `1/6 of the cake` is no calculation."""
    certain: bool = True
    """False where a number in it could be read in two ways."""
    in_base_units: Fraction | None = None
    """Its value with every number converted by the unit that follows it."""
    unit_scale: Fraction = Fraction(1)
    percent: bool = False
    """Whether it is one number with a percent sign."""
    share: bool = False
    """Whether it divides or reckons with percentages: its value may be meant as one."""


class Steps(NamedTuple):
    """The equations of a solution that could be checked."""

    checked: int
    wrong: tuple[str, ...]
    """Those that do not hold, as written."""

    @property
    def share(self) -> float | None:
        """Share that holds, None where there was nothing to check."""
        return None if not self.checked else 1 - len(self.wrong) / self.checked


class _Token(NamedTuple):
    kind: str
    text: str
    readings: tuple[Fraction, ...] = ()
    scale: Fraction = Fraction(1)
    noun: bool = False
    letter: bool = False
    """A number with a single letter behind it: a variable or a unit, nobody knows."""
    end: int = 0


def read_expression(text: str, language: Language, convention: Convention | None = None) -> Expression | None:
    """The arithmetic that a whole text is, or None where it is anything else."""
    written = plain(text)
    if len(written) > _MAX_LENGTH:
        return None
    tokens = _tokens(written, language, convention or Convention())
    if any(token.kind in ("relation", "other") for token in tokens):
        return None
    return _parse(tokens)


def check_steps(solution: str, language: Language, convention: Convention | None = None) -> Steps:
    """Check every `expression = value` of a solution. What has variables or cannot be read is left out.

    A rounded value is right to its last place; `17 : 5 = 3 (dư 2)` is right as a division with remainder; a step
    holds when its numbers come out, or when they come out with their units (`3 m + 50 cm = 350 cm`).
    """
    checked, wrong = 0, []
    known = convention or Convention()
    for line in re.split(
        r"\n|(?<=[^\d])[.;](?=\s)|(?<=\d)[.;](?=\s)", _MIXED_AND.sub(" ", plain(re.sub(r"<<.*?>>", "", solution)))
    ):
        if "=" not in line and "≈" not in line:
            continue
        line = re.sub(r"^\s*\(?[a-h1-9][).]\s+", "", line)  # the label of a part
        tokens = _tokens(line[: 4 * _MAX_LENGTH], language, known)
        places = [i for i, token in enumerate(tokens) if token.kind == "relation"]
        for place, following in zip(places, [*places[1:], len(tokens)], strict=True):
            before = places[places.index(place) - 1] + 1 if places.index(place) else 0
            left = _longest(tokens[before:place], from_end=True)
            right = _longest(tokens[place + 1 : following], from_end=False)
            if (
                left is None
                or right is None
                or (not left.operations and left.counted)
                or left.operations + left.fractions == 0
            ):
                continue
            holds = _holds(left, right, tokens[place].text == "≈", line[tokens[place].end :])
            if not holds and not (left.certain and right.certain):
                continue  # another reading of its numbers may hold
            checked += 1
            if not holds:
                wrong.append(line.strip())
    return Steps(checked, tuple(wrong))


def last_step(line: str, language: Language, convention: Convention | None = None) -> tuple[Expression, str] | None:
    """The expression before the last `=` of a line and the text after it; None where that is no calculation.

    Units that have to be converted, unknowns, and numbers that could be read in two ways make no calculation here.
    """
    before, sign, after = line.rpartition("=")
    if not sign or len(before) > 4 * _MAX_LENGTH:
        return None
    tokens = _tokens(plain(before), language, convention or Convention())
    places = [i for i, token in enumerate(tokens) if token.kind == "relation"]
    left = _longest(tokens[places[-1] + 1 if places else 0 :], from_end=True)
    if left is None or not left.operations or not left.certain or left.in_base_units != left.value:
        return None
    return left, after


def _holds(left: Expression, right: Expression, about: bool, rest: str) -> bool:
    pairs = [(left.value, right.value)]
    if left.in_base_units is not None and right.in_base_units is not None:
        pairs.append((left.in_base_units, right.in_base_units))
        pairs.append((left.in_base_units / right.unit_scale, right.value))
    if right.percent:
        pairs.append((left.value, right.value * 100))
    for value, said in pairs:
        if value == said:
            return True
        if right.operations == 0 and said.denominator != 1 and _rounds_to(value, said):
            return True
    if re.match(r"[^=]{0,60}?(?:dư|remain|left|\brem\b|\br\b)", rest):
        return left.value // 1 == right.value
    return about and abs(left.value - right.value) <= abs(left.value) / 100


def _rounds_to(value: Fraction, said: Fraction) -> bool:
    """Whether a decimal is the value rounded, or cut off, at its last place."""
    places = 0
    while (said * 10**places).denominator != 1:
        if places == 12:
            return False
        places += 1
    unit = Fraction(1, 10**places)
    return abs(value - said) <= unit / 2 or (abs(value) >= abs(said) and abs(value - said) < unit)


def _longest(tokens: list[_Token], *, from_end: bool) -> Expression | None:
    """The longest run of arithmetic that ends (or begins) the tokens."""
    tokens = [token for token in tokens if token.kind != "other" or token.text not in ",;"]
    if from_end:
        start = len(tokens)
        while start and tokens[start - 1].kind in ("number", "op", "noun", "money"):
            start -= 1
        run = tokens[start:]
        before = tokens[start - 1] if start else None
        if before is not None and before.kind == "word" and len(before.text) == 1 and run and run[0].kind == "op":
            return None  # a variable
        if before is not None and before.kind in ("clock", "percent"):
            return None
    else:
        end = 0
        while end < len(tokens) and tokens[end].kind in ("number", "op", "noun", "money"):
            end += 1
        run = tokens[:end]
        if end < len(tokens) and tokens[end].kind == "word" and len(tokens[end].text) == 1:
            return None
    numbers = [token for token in run if token.kind == "number"]
    if not run or any(t.letter for t in numbers) and not all(t.letter or t.scale != 1 for t in numbers):
        return None
    if from_end:
        return _parse(run)
    while run:  # a value ends where something else begins
        if (made := _parse(run)) is not None:
            return made
        run = run[:-1]
    return None


def _tokens(written: str, language: Language, known: Convention) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while match := _TOKEN.match(written, position):
        position = match.end()
        kind = match.lastgroup or "other"
        text = match[kind]
        if kind in ("mixed", "fraction", "number"):
            unit, end = read_unit(written, position)
            if kind == "mixed":
                whole, top, bottom = (int(part) for part in re.findall(r"\d+", text))
                readings: tuple[Fraction, ...] = (whole + Fraction(top, bottom),) if bottom else ()
            elif kind == "fraction":  # a slash without spaces binds tighter: 72 : 2/3
                top, bottom = (int(part) for part in text.split("/"))
                readings = (Fraction(top, bottom),) if bottom else ()
            else:
                readings = readings_of(text, language, known, False)
            between = written[position:end].strip(" ()")
            letter = len(between) == 1 and between.isalpha() and "(" not in written[position:end]
            operator = bool(re.match(r"\s*x\s*[\d(]", written[position:]))
            scale = Fraction(1)
            counted = len(unit.noun) > 1 and _goes_on(written, end)
            if not operator and (unit.known or counted):
                position, scale = end, unit.scale
            else:
                letter = False
            if unit.dimension == (("percent", 1),):
                readings = tuple(reading / 100 for reading in readings)
                scale, kind = Fraction(1), "percent_number"
            before = found[-1] if found else None
            if (
                before is not None
                and before.kind == "number"
                and scale != 1
                and before.scale > scale
                and readings
                and before.readings
            ):
                total = before.readings[0] * before.scale + readings[0] * scale  # 9 giờ 40 phút
                found[-1] = _Token("number", kind, (total / scale,), scale, counted, letter, position)
                continue
            found.append(_Token("number", kind, readings, scale, counted, letter, position))
        elif kind == "op" and text == ":" and language == "en":
            found.append(_Token("other", ":", end=position))  # English divides with ÷ or /
        elif kind in ("op", "relation"):
            found.append(_Token(kind, _LOOSE.get(text, text), end=position))
        elif kind == "money":
            continue
        else:
            found.append(_Token(kind, text, end=position))
    return _without_remarks(found)


def _goes_on(written: str, end: int) -> bool:
    """Whether arithmetic goes on behind a word, so that it is what was counted and not the sentence's next word."""
    return re.match(r"\s*(?:[-+*/×·÷:=≈)−–]|x\s*[\d(]|$)", written[end:]) is not None


def _without_remarks(tokens: list[_Token]) -> list[_Token]:
    """Brackets that hold only words: `= 12 (quyển vở)`."""
    kept: list[_Token] = []
    i = 0
    while i < len(tokens):
        if tokens[i].kind == "op" and tokens[i].text == "(":
            j = i + 1
            while j < len(tokens) and tokens[j].kind in ("word", "percent"):
                j += 1
            if j > i + 1 and j < len(tokens) and tokens[j].text == ")":
                i = j + 1
                continue
        kept.append(tokens[i])
        i += 1
    return kept


def _parse(tokens: list[_Token]) -> Expression | None:
    try:
        parser = _Parser(tokens)
        value, based = parser.sum()
        if parser.place != len(tokens):
            return None
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    scales = [token.scale for token in tokens if token.kind == "number"]
    return Expression(
        value,
        tuple(parser.numbers),
        parser.operations,
        parser.fractions,
        any(token.noun for token in tokens),
        parser.certain,
        based,
        scales[0] if len(scales) == 1 else Fraction(1),
        len(tokens) == 1 and tokens[0].text == "percent_number",
        any(token.text in ("/", "fraction", "percent_number") for token in tokens),
    )


class _Parser:
    """sum := product (+|- product)*; product := power (*|/ power)*; power := atom (^ atom)?"""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.place = 0
        self.numbers: list[Fraction] = []
        self.operations = 0
        self.fractions = 0
        self.certain = True
        self.depth = 0

    def _next(self) -> str:
        if self.place < len(self.tokens) and self.tokens[self.place].kind == "op":
            return self.tokens[self.place].text
        return ""

    def sum(self) -> tuple[Fraction, Fraction]:
        value, based = self.product()
        while (sign := self._next()) in ("+", "-"):
            self.place += 1
            other, other_based = self.product()
            value = value + other if sign == "+" else value - other
            based = based + other_based if sign == "+" else based - other_based
            self.operations += 1
        return value, based

    def product(self) -> tuple[Fraction, Fraction]:
        value, based = self.power()
        while (sign := self._next()) in ("*", "/", "("):
            if sign != "(":  # `2(3 + 4)` multiplies too
                self.place += 1
            other, other_based = self.power()
            value = value / other if sign == "/" else value * other
            based = based / other_based if sign == "/" else based * other_based
            self.operations += 1
        return value, based

    def power(self) -> tuple[Fraction, Fraction]:
        value, based = self.atom()
        if self._next() == "^":
            self.place += 1
            exponent, _ = self.atom()
            if exponent.denominator != 1 or abs(exponent) > _MAX_POWER or value.numerator.bit_length() > 256:
                raise ValueError("too large a power")
            value, based = value ** int(exponent), based ** int(exponent)
            self.operations += 1
        return value, based

    def atom(self) -> tuple[Fraction, Fraction]:
        token = self.tokens[self.place]
        if token.kind == "number" and token.readings:
            self.place += 1
            self.fractions += token.text in ("fraction", "mixed")
            self.numbers.append(token.readings[0])
            self.certain = self.certain and len(token.readings) == 1
            return token.readings[0], token.readings[0] * token.scale
        if token.kind == "op" and token.text in "+-" and self.depth < 40:
            self.place += 1
            self.depth += 1
            value, based = self.atom()
            self.depth -= 1
            return (-value, -based) if token.text == "-" else (value, based)
        if token.kind == "op" and token.text == "(" and self.depth < 40:
            self.place += 1
            self.depth += 1
            value, based = self.sum()
            self.depth -= 1
            if self._next() != ")":
                raise ValueError("no closing bracket")
            self.place += 1
            return value, based
        raise ValueError(f"{token.text!r} is no number")
