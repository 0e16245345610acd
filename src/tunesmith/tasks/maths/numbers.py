"""Numbers as people write them in English and Vietnamese, read into exact values.

A comma or a point followed by exactly three digits can be a decimal mark or a thousands mark. What decides, in this
order: the form of the number (`1.234,5`, `0,125`, `15.000.000`, `80.000`), its unit (nobody pays a thousandth of a
đồng), how the same writer uses the mark elsewhere, and last the habit of the language. The habit gives the *usual*
reading and keeps the other as a possible one; everything before it gives one reading only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tunesmith.tasks.maths.notation import plain
from tunesmith.tasks.maths.units import NO_UNIT, WHOLE_MONEY, Unit, read_unit

Language = Literal["en", "vi"]
Mark = Literal["decimal", "thousands", ""]

LITERAL = r"""(?:
    \d{1,3}(?:[ ]\d{3})+(?:[.,]\d+)?(?![\d])            # 80 000   1 234,5
  | \d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d]|,\d)            # 1,234.5
  | \d{1,3}(?:\.\d{3})+(?:,\d+)?(?![\d]|\.\d)           # 1.234,5
  | \d{1,3}(?:'\d{3})+(?:\.\d+)?(?!\d)                  # 1'234.5
  | \d+[.,]\d+(?![.,]?\d)                               # 3,5
  | \d+
  | (?<!\d)[.,]\d+                                      # .5
)"""
_LIST = re.compile(r"(?<![\d.,])(?!\d{1,3}(?:,\d{3})+(?!\d))\d+(?:,\d+){2,}(?![\d.])")
_QUANTITY = re.compile(
    rf"""(?<![\w])(?<!\d[.,])(?P<money>[$€£]\s?)?(?P<sign>[-–+]\s?)?(?P<money2>[$€£]\s?)?
    (?:
        (?P<whole>\d+)\s+(?P<wtop>\d+)\s*/\s*(?P<wbottom>\d+)(?![\d/])
      | \(?(?P<top>{LITERAL})\)?\s*/\s*\(?(?P<bottom>{LITERAL})\)?(?![\d/]|\s*/\s*\d)
      | (?P<number>{LITERAL})(?:\s*(?:[×x*·]|\\times)\s*10\s*\^\s*\(?(?P<power>-?\d+)\)?|[eE](?P<e>[-+]?\d+))?
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Convention:
    """How a writer uses the two marks; empty where the text does not show it."""

    point: Mark = ""
    comma: Mark = ""


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a text, with what it may mean."""

    readings: tuple[Fraction, ...]
    """Its possible values: the usual one first, a second where nothing but habit decides."""
    unit: Unit = NO_UNIT
    start: int = 0
    end: int = 0
    """Where it stands in the plain text, unit included."""
    form: Literal["number", "fraction", "mixed"] = "number"

    @property
    def usual(self) -> Fraction:
        """Its value by the habit of the language, where nothing decides."""
        return self.readings[0]

    @property
    def division_left(self) -> bool:
        """Whether it is a fraction that comes out even: a division somebody left undone."""
        return self.form == "fraction" and self.usual.denominator == 1

    @property
    def places(self) -> int | None:
        """Decimal places of the usual reading, None for what is no finite decimal."""
        bottom, count = self.usual.denominator, 0
        while bottom % 10 == 0:
            bottom, count = bottom // 10, count + 1
        for prime in (2, 5):
            while bottom % prime == 0:
                bottom, count = bottom // prime, count + 1
        return count if bottom == 1 else None


def convention_of(*texts: str) -> Convention:
    """How the writer of these texts uses point and comma, from the numbers whose form or unit decides it."""
    seen: dict[str, set[Mark]] = {".": set(), ",": set()}
    for text in texts:
        written = plain(text)
        for found in _QUANTITY.finditer(written):
            for name in ("number", "top", "bottom"):
                if found[name]:
                    for mark, use in _shown(found[name]):
                        seen[mark].add(use)
            unit, _ = read_unit(written, found.end())
            mark_of = re.fullmatch(r"\d{1,3}([.,])\d{3}", found["number"] or "")
            if mark_of and unit.dimension in WHOLE_MONEY and unit.scale == 1:
                seen[mark_of[1]].add("thousands")
    point, comma = (_one(seen[mark]) for mark in ".,")
    # The same mark is not both, so the use of one tells that of the other where it was not seen.
    if not point and not seen["."]:
        point = _other(comma)
    if not comma and not seen[","]:
        comma = _other(point)
    return Convention(point, comma)


def read_quantities(text: str, language: Language, convention: Convention | None = None) -> list[Quantity]:
    """All numbers of a text with their units, in order.

    Args:
        convention: how this writer uses the marks, where other text of theirs shows it.
    """
    written = _spread(plain(text))
    known = convention or Convention()
    found: list[Quantity] = []
    position = 0
    while match := _QUANTITY.search(written, position):
        quantity = _quantity(match, written, language, known)
        position = quantity.end if quantity is not None else match.end()
        if quantity is not None:
            found.append(quantity)
    return _compounded(found, written)


def _quantity(match: re.Match[str], written: str, language: Language, known: Convention) -> Quantity | None:
    money = (match["money"] or match["money2"] or "").strip()
    unit, end = read_unit(written, match.end())
    if money and not unit.known:
        symbol, _ = read_unit(money, 0)
        unit = Unit(symbol.dimension, symbol.scale * unit.scale)
    whole_money = unit.dimension in WHOLE_MONEY and unit.scale == 1
    readings: tuple[Fraction, ...]
    form: Literal["number", "fraction", "mixed"] = "number"
    if match["whole"]:
        bottom = int(match["wbottom"])
        if bottom == 0:
            return None
        readings, form = (int(match["whole"]) + Fraction(int(match["wtop"]), bottom),), "mixed"
    elif match["top"]:
        divisor = readings_of(match["bottom"], language, known, False)[0]
        if divisor == 0:
            return None
        readings = tuple(top / divisor for top in readings_of(match["top"], language, known, whole_money))
        form = "fraction"
    else:
        readings = readings_of(match["number"], language, known, whole_money)
        exponent = match["power"] or match["e"]
        if exponent:
            if abs(int(exponent)) > 1000:
                return None
            readings = tuple(reading * Fraction(10) ** int(exponent) for reading in readings)
    if _is_negative(match, written):
        readings = tuple(-reading for reading in readings)
    return Quantity(readings, unit, match.start(), end, form)


def _spread(written: str) -> str:
    """Lists without spaces get them: `1,2,3` is three numbers, `1,234,567` is one."""
    return _LIST.sub(lambda found: found[0].replace(",", ", "), written)


def _is_negative(match: re.Match[str], written: str) -> bool:
    """Whether the sign belongs to the number, rather than being a minus between two or a hyphen."""
    sign = match["sign"] or ""
    if not sign.strip() or sign.strip() == "+":
        return False
    before = written[: match.start()]
    last = before.rstrip()[-1:]
    between = last.isdigit() or last in (")", "]", "%")
    attached = before[-1:].isalpha() or (last.isalpha() and sign != sign.strip())
    return not between and not attached


def _compounded(found: list[Quantity], written: str) -> list[Quantity]:
    """Parts of one measure joined: `1 giờ 30 phút`, `2 m 5 cm`, `5 triệu 200 nghìn đồng`, `5 feet 3 inches`."""
    joined: list[Quantity] = []
    for quantity in found:
        before = joined[-1] if joined else None
        if (
            before is not None
            and re.fullmatch(r"\s*(?:and|và|,)?\s*", written[before.end : quantity.start])
            and (before.unit.scale > quantity.unit.scale)
            and before.usual >= 0 <= quantity.usual
            and (before.unit.dimension == quantity.unit.dimension or not before.unit.dimension)
            and (quantity.unit.known or (before.unit.scale > 1 and quantity.unit.scale > 1))
            and not before.unit.noun
            and quantity.usual * quantity.unit.scale < before.unit.scale
        ):
            total = before.usual * before.unit.scale + quantity.usual * quantity.unit.scale
            readings = (total / quantity.unit.scale,)
            joined[-1] = Quantity(readings, quantity.unit, before.start, quantity.end)
        else:
            joined.append(quantity)
    return joined


def readings_of(literal: str, language: Language, known: Convention, whole_money: bool) -> tuple[Fraction, ...]:
    """The values a number without sign may have, the usual one first."""
    text = re.sub(r"[\s']", "", literal)
    marks = re.findall(r"[.,]", text)
    if not marks:
        return (Fraction(text),)
    shown = dict(_shown(literal))
    if shown:
        decimal = next((mark for mark, use in shown.items() if use == "decimal"), "")
        for mark in ".,":
            text = text.replace(mark, "." if mark == decimal else "")
        return (Fraction(text if not text.startswith(".") else f"0{text}"),)
    mark = marks[0]
    as_decimal, grouped = Fraction(text.replace(",", ".")), Fraction(text.replace(mark, ""))
    if whole_money:
        return (grouped,)
    use = known.point if mark == "." else known.comma
    if use:
        return (as_decimal,) if use == "decimal" else (grouped,)
    if language == "en":
        return (grouped,) if mark == "," else (as_decimal,)
    return (grouped, as_decimal) if mark == "." else (as_decimal, grouped)


def _shown(literal: str) -> list[tuple[str, Mark]]:
    """What the form of a number says of its marks; nothing for one mark before exactly three digits."""
    text = literal.strip()
    marks = re.findall(r"[.,]", text)
    if not marks:
        return []
    if len(set(marks)) == 2:  # the last is the decimal mark
        return [(marks[-1], "decimal"), (marks[0], "thousands")]
    mark = marks[0]
    if len(marks) > 1:
        return [(mark, "thousands")]
    head, _, tail = text.partition(mark)
    if len(tail) != 3 or len(head) > 3 or head.strip("0") == "" or re.search(r"[ ']", head):
        return [(mark, "decimal")]
    if tail == "000":  # nobody writes three zeros behind a decimal mark
        return [(mark, "thousands")]
    return []


def _one(uses: set[Mark]) -> Mark:
    return next(iter(uses)) if len(uses) == 1 else ""


def _other(use: Mark) -> Mark:
    return {"decimal": "thousands", "thousands": "decimal"}.get(use, "")  # type: ignore[return-value]
