"""Units of measure: what they measure and how they convert. Things that are merely counted (apples) are no units."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_Dimension = tuple[tuple[str, int], ...]
"""Base quantities with their powers, sorted: speed is (("length", 1), ("time", -1))."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What stands after a number."""

    dimension: _Dimension = ()
    """Empty for things that are counted and for nothing at all."""
    scale: Fraction = Fraction(1)
    """How many base units one of it is."""
    noun: str = ""
    """The word itself, where it is a thing that is counted and no known unit."""

    @property
    def known(self) -> bool:
        """Whether this is a unit of measure."""
        return bool(self.dimension)


NO_UNIT = Unit()
PERCENT = Unit((("percent", 1),), Fraction(1, 100))


def _table() -> dict[str, tuple[str, Fraction, int]]:
    made: dict[str, tuple[str, Fraction, int]] = {}

    def add(base: str, scale: Fraction | int, names: str, power: int = 1) -> None:
        for name in names.split("|"):
            made[name] = (base, Fraction(scale), power)

    add(
        "length",
        Fraction(1, 1000),
        "mm|mi-li-mét|mi li mét|milimét|milimet|millimetre|millimetres|millimeter|millimeters",
    )
    add(
        "length",
        Fraction(1, 100),
        "cm|xăng-ti-mét|xăng ti mét|xentimét|xăngtimét|centimetre|centimetres|centimeter|centimeters",
    )
    add("length", Fraction(1, 10), "dm|đề-xi-mét|đề xi mét|đêximét|decimetre|decimetres|decimeter|decimeters")
    add("length", 1, "m|mét|met|metre|metres|meter|meters")
    add("length", 10, "dam|đề-ca-mét")
    add("length", 100, "hm|héc-tô-mét")
    add("length", 1000, "km|ki-lô-mét|ki lô mét|kilômét|kilomet|kilometre|kilometres|kilometer|kilometers|cây số")
    add("length", Fraction(254, 10_000), "inch|inches")
    add("length", Fraction(3048, 10_000), "ft|foot|feet")
    add("length", Fraction(9144, 10_000), "yd|yard|yards")
    add("length", Fraction(1_609_344, 1000), "mi|mile|miles")
    add(
        "length",
        Fraction(1, 1_000_000),
        "ml|mi-li-lít|mi li lít|mililít|millilitre|millilitres|milliliter|milliliters|cc",
        3,
    )
    add("length", Fraction(1, 1000), "l|lít|lit|litre|litres|liter|liters", 3)
    add("length", 10_000, "ha|héc-ta|hecta|hectare|hectares", 2)
    add("mass", Fraction(1, 1000), "mg|mi-li-gam|miligam|milligram|milligrams")
    add("mass", 1, "g|gam|gram|grams|gr")
    add("mass", 10, "dag|đề-ca-gam")
    add("mass", 100, "hg|héc-tô-gam|lạng")
    add("mass", 1000, "kg|ki-lô-gam|ki lô gam|kilôgam|kilogam|kilogram|kilograms|kilo|kilos")
    add("mass", 10_000, "yến")
    add("mass", 100_000, "tạ")
    add("mass", 1_000_000, "tấn|t|tonne|tonnes")
    add("mass", Fraction(45_359_237, 100_000), "lb|lbs|pound|pounds")
    add("mass", Fraction(45_359_237, 1_600_000), "oz|ounce|ounces")
    add("time", 1, "giây|s|sec|secs|second|seconds")
    add("time", 60, "phút|min|mins|minute|minutes")
    add("time", 3600, "giờ|tiếng|h|hr|hrs|hour|hours")
    add("time", 86_400, "ngày|day|days")
    add("time", 604_800, "tuần|tuần lễ|week|weeks")
    add("month", 1, "tháng|month|months")
    add("month", 12, "năm|year|years")
    add("month", 1200, "thế kỉ|thế kỷ|century|centuries")
    add("angle", 1, "°|độ|degree|degrees")
    add("celsius", 1, "°c|độ c")
    add("fahrenheit", 1, "°f|độ f")
    add("percent", Fraction(1, 100), "%|phần trăm|percent|percentage|pct|per cent")
    add("vnd", 1, "đồng|đ|vnd|vnđ|dong")
    add("usd", 1, "$|dollar|dollars|usd|đô la|đô-la|đô")
    add("usd", Fraction(1, 100), "cent|cents|¢")
    add("eur", 1, "€|euro|euros|eur")
    add("gbp", 1, "£|gbp")
    add("count", 12, "tá|dozen|dozens")
    add("count", 2, "đôi|cặp|pair|pairs")
    return made


_UNITS = _table()
_BY_LENGTH = sorted(_UNITS, key=len, reverse=True)
_NAME = re.compile(
    r"(?:" + "|".join(re.escape(name) for name in _BY_LENGTH) + r")(?![^\W\d_])", re.IGNORECASE
)  # fmt: skip
# A digit that stands apart and has a unit of its own is the next part of the measure: 5 m 3 dm.
_POWER = re.compile(r"(?:\^?([23])(?!\d)|\s*\^?\s*([23])(?!\d|[.,]\d|\s*[^\W\d_])|\s*(vuông|khối))")
_BEFORE = re.compile(r"(square|sq\.?|cubic|cu\.?)\s+", re.IGNORECASE)
_PER = re.compile(r"\s*(?:/|\bper\b|\bmỗi\b|\bmột\b|\ban\b|\ba\b)\s*", re.IGNORECASE)
MULTIPLIERS = {
    "nghìn": 10**3, "ngàn": 10**3, "triệu": 10**6, "tỉ": 10**9, "tỷ": 10**9, "chục": 10,
    "thousand": 10**3, "million": 10**6, "billion": 10**9, "trăm": 100, "hundred": 100,
}  # fmt: skip
_MULTIPLIER = re.compile(r"\s*(" + "|".join(MULTIPLIERS) + r")(?![^\W\d_])", re.IGNORECASE)
_NOT_NOUNS = (
    "và|hoặc|hay|kém|hơn|rưỡi|đúng|sáng|trưa|chiều|tối|đêm|là|thì|vì|nên|dư|còn|lần lượt|and|or|is|are|in|at|of|on|by|"
    "per|each|more|less|left|ago|altogether|total|"
    "remainder|remaining|respectively|because|since|so|with|to|for|if|when|than|from|a|an|the"
)
_WORD = rf"(?!(?:{_NOT_NOUNS})(?![^\W\d_]))[^\W\d_]+"
_NOUN = re.compile(rf"{_WORD}(?:[ -]{_WORD}){{0,2}}", re.IGNORECASE)
WHOLE_MONEY = frozenset({(("vnd", 1),)})
"""Currencies without a subunit in use: an amount in them is a whole number."""


def read_unit(text: str, at: int) -> tuple[Unit, int]:
    """The unit that stands at `at`, just after a number, and where it ends. `(m)`, `m²`, `km/giờ`, `triệu đồng`."""
    scale, position = Fraction(1), at
    while multiplier := _MULTIPLIER.match(text, position):
        scale *= MULTIPLIERS[multiplier[1].casefold()]
        position = multiplier.end()
    start = _skip(text, position)
    found = _measure(text, start)
    if found is None:
        noun = _NOUN.match(text, start)
        if noun is None or (start > position and text[start - 1] == "("):
            return Unit((), scale), position
        return Unit((), scale, noun[0].casefold()), noun.end()
    base, power, one, end = found
    dimension, scale = {base: power}, scale * one
    per = _PER.match(text, end)
    if per and base not in ("percent", "angle") and (below := _measure(text, per.end())):
        base, power, one, end = below
        dimension[base] = dimension.get(base, 0) - power
        scale /= one
    elif base not in ("percent", "angle") and (
        of := re.compile(rf"[ \t]+({_NOUN.pattern})", re.IGNORECASE).match(text, end)
    ):
        end = of.end()  # lít xăng, mét vải: what is measured
    if "(" in text[position:start] and end < len(text) and text[end] == ")":
        end += 1
    return Unit(tuple(sorted((name, power) for name, power in dimension.items() if power)), scale), end


def unit_of_word(word: str) -> Unit | None:
    """The unit a text is, whole; None where it is no unit."""
    found = _measure(word, 0)
    return Unit(((found[0], found[1]),), found[2]) if found is not None and found[3] == len(word) else None


def _skip(text: str, position: int) -> int:
    found = re.compile(r"[ \t]*\(?[ \t]*").match(text, position)
    return found.end() if found else position


def _measure(text: str, at: int) -> tuple[str, int, Fraction, int] | None:
    """Base quantity, power, scale and end of the unit at a place."""
    before = _BEFORE.match(text, at)
    at = before.end() if before else at
    found = _NAME.match(text, at)
    if found is None:
        return None
    name = found[0].casefold()
    base, scale, power = _UNITS[name]
    end = found.end()
    raised = 0
    if before:
        raised = 2 if before[1].lower().startswith("sq") else 3
    elif base == "length" and power == 1 and (marked := _POWER.match(text, end)):
        digit = marked[1] or marked[2]
        raised = int(digit) if digit else 2 if marked[3].lower() == "vuông" else 3
        end = marked.end()
    if raised and power == 1:
        power, scale = raised, scale**raised
    return base, power, scale, end
