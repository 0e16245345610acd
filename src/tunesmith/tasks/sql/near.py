"""Values at and around a constant: those that meet a comparison with it, and those that just do not."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from tunesmith.tasks.sql.catalogue import Field
from tunesmith.tasks.sql.focus import Compared


@dataclass
class Values:
    """What a column may hold in a made row."""

    good: list[str] = field(default_factory=list)
    """Values that meet a comparison."""
    near: list[str] = field(default_factory=list)
    """Values on the other side of its boundary, or alike but for a detail."""

    def add(self, other: Values) -> None:
        """Take over what another column has, in the same order and without repeating any."""
        self.good = list(dict.fromkeys([*self.good, *other.good]))
        self.near = list(dict.fromkeys([*self.near, *other.near]))


def values_near(column: Field, compared: Iterable[Compared], now: dt.datetime, known: Collection[str] = ()) -> Values:
    """Values for a column that is compared with constants.

    Args:
        column: whose type decides what a value is.
        compared: the comparisons, worked out: none is `computed` any more.
        now: what a number of days is counted from.
        known: values that the column has. Where there is no negative one, none is made: a price is not negative,
            although no constraint may say so.
    """
    found = Values()
    for one in compared:
        good, near = _around(column.kind, one.op, one.value, column, now)
        found.add(Values(good, near))
    if known and column.kind in ("number", "whole") and not any(value.startswith("-") for value in known):
        found.good = [value for value in found.good if not value.startswith("-")]
        found.near = [value for value in found.near if not value.startswith("-")]
    return found


def _around(kind: str, op: str, value: str, column: Field, now: dt.datetime) -> tuple[list[str], list[str]]:
    if kind in ("number", "whole"):
        return _numbers(kind, op, value)
    if kind in ("date", "time"):
        return _dates(kind, op, value, now)
    if kind == "boolean":
        other = {"true": "false", "false": "true"}.get(value.lower())
        return ([value.lower()], [other]) if other else ([], [])
    if kind == "enum":
        fits = [label for label in column.labels if label == value]
        return fits, [label for label in column.labels if label != value]
    if kind == "text":
        return _texts(op, value, column)
    if kind == "other" and re.fullmatch(r"\d\d?:\d\d(:\d\d)?", value):
        return _times(op, value)
    return [], []


def _split(op: str, below: list[str], same: str, above: list[str]) -> tuple[list[str], list[str]]:
    """Which of three values in order meet a comparison with the middle one."""
    if op == "<>":
        return [*above, *below], [same]
    if op == ">":
        return above, [same, *below]
    if op == ">=":
        return [same, *above], below
    if op == "<":
        return below, [same, *above]
    if op == "<=":
        return [same, *below], above
    return [same], [*below, *above]


def _numbers(kind: str, op: str, value: str) -> tuple[list[str], list[str]]:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return [], []
    if not number.is_finite() or abs(number) > Decimal(10) ** 15:
        return [], []
    if kind == "whole" and number != number.to_integral_value():
        lower = int(number.to_integral_value(rounding="ROUND_FLOOR"))
        return _split(op, [str(lower)], str(lower + 1), [str(lower + 2)])
    below, above = [_plain(number - 1)], [_plain(number + 1)]
    if kind == "number":
        below.append(_plain(number - Decimal("0.5")))
        above.append(_plain(number + Decimal("0.5")))
    return _split(op, below, _plain(number), above)


def _plain(number: Decimal) -> str:
    return f"{number:f}"


_DATE = re.compile(r"(\d{4})-(\d\d?)(?:-(\d\d?))?(?:[ T](\d\d?):(\d\d)(?::(\d\d))?)?")
_INTERVAL = re.compile(r"(-?\d+) days?(?:, .*)?|(-?\d+):(\d\d):(\d\d)")


def _dates(kind: str, op: str, value: str, now: dt.datetime) -> tuple[list[str], list[str]]:
    moment = read_date(value)
    if moment is not None:
        day, second = dt.timedelta(days=1), dt.timedelta(seconds=1)
        if kind == "date":
            return _split(op, [_date(moment - day)], _date(moment), [_date(moment + day)])
        within = moment + dt.timedelta(hours=13)
        below, above = [moment - second, moment - day], [moment + second, within, moment + day]
        return _split(op, [str(one) for one in below], str(moment), [str(one) for one in above])
    write = _date if kind == "date" else str
    if re.fullmatch(r"(1[89]|20|21)\d\d", value):  # a year that was taken out of the date
        year = int(value)
        inside = [write(dt.datetime(year, month, day)) for month, day in ((6, 15), (1, 1), (12, 31))]  # noqa: DTZ001
        before, after = [write(dt.datetime(year - 1, 12, 31))], [write(dt.datetime(year + 1, 1, 1))]  # noqa: DTZ001
        good, near = _split(op, before, inside[0], after)
        return good + (inside[1:] if inside[0] in good else []), near + ([] if inside[0] in good else inside[1:])
    days = _days(value)
    if days is None:
        return [], []
    around = [now + sign * dt.timedelta(days=days + step) for sign in (-1, 1) for step in (-1, 0, 1)]
    found = [write(one.replace(microsecond=0, tzinfo=None)) for one in around]
    if days == int(days) and 1 <= days <= 12:  # or a month
        found += [write(dt.datetime(now.year, int(days), 14)), write(dt.datetime(now.year, int(days) % 12 + 1, 14))]  # noqa: DTZ001
    return found, []


def _days(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        match = _INTERVAL.fullmatch(value)
        if match is None:
            return None
        number = float(match[1]) if match[1] else int(match[2]) / 24
    return number if abs(number) < 40_000 else None


def read_date(text: str) -> dt.datetime | None:
    """A date or moment at the start of a text; a month alone is its first day."""
    match = _DATE.match(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) if part else 0 for part in match.groups())
    try:
        return dt.datetime(year, month, day or 1, hour, minute, second)  # noqa: DTZ001
    except ValueError:
        return None


def _date(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d}"


def _times(op: str, value: str) -> tuple[list[str], list[str]]:
    hour, minute = (int(part) for part in value.split(":")[:2])
    below, above = f"{max(hour - 1, 0):02}:{minute:02}:00", f"{min(hour + 1, 23):02}:{minute:02}:00"
    return _split(op, [below], f"{hour:02}:{minute:02}:00", [above])


def _texts(op: str, value: str, column: Field) -> tuple[list[str], list[str]]:
    most = _length(column.base or column.type)
    if op == "like":
        bare = re.sub(r"(?<!\\)%", "", re.sub(r"(?<!\\)_", "z", value)).replace("\\", "")
        filled = re.sub(r"(?<!\\)%", "qu", re.sub(r"(?<!\\)_", "z", value)).replace("\\", "")
        good, near = [bare, filled], [bare.swapcase(), f"x{bare}", f"{bare}x", bare[:-1]]
    else:
        below: list[str] = []
        above: list[str] = []
        if re.fullmatch(r"-?\d{1,9}", value):  # a number kept as text
            below, above = [str(int(value) - 1)], [str(int(value) + 1)]
        elif (moment := read_date(value)) is not None and re.fullmatch(r"\d{4}-\d\d-\d\d", value):
            step = dt.timedelta(days=1)
            below, above = [_date(moment - step)], [_date(moment + step)]
        good, near = _split(op, below, value, above or [f"{value}x"])
        near = [*near, value.swapcase(), f"x{value}"]
    good = [text[:most] for text in good]
    return good, [text[:most] for text in near if text[:most] not in good]


def _length(type_: str) -> int | None:
    match = re.search(r"char(?:acter)?(?: varying)?\((\d+)\)", type_)
    return int(match[1]) if match else None
