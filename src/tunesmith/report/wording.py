"""Numbers as people read them: per cent, points, minutes, megabytes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NARROW = "\N{NARROW NO-BREAK SPACE}"
SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


def percent(share: float | None, digits: int = 1) -> str:
    """0.871 as `87.1 %`; a dash for None."""
    return DASH if share is None else f"{share * 100:.{digits}f}{NARROW}%"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed, without the unit: 0.658 as `+65.8`."""
    if difference is None:
        return DASH
    text = f"{abs(difference) * 100:.1f}"
    return text if text == "0.0" else (MINUS if difference < 0 else "+") + text


def interval(low: float | None, high: float | None, *, signed: bool = False) -> str:
    """`82.0 to 90.6`, in per cent or, signed, in points; empty when either end is unknown."""
    if low is None or high is None:
        return ""
    if signed:
        return f"{points(low)} to {points(high)}"
    return f"{low * 100:.1f} to {high * 100:.1f}{NARROW}%"


def p_value(p: float | None) -> str:
    """`p < 0.001`, or `p = 0.031`; empty for None."""
    if p is None:
        return ""
    return f"p{SPACE}<{SPACE}0.001" if p < 0.001 else f"p{SPACE}={SPACE}{p:.3f}"


def count(number: float | None) -> str:
    """1,234 up to a million, then `5.9 million`, then `7.25 billion`."""
    if number is None:
        return DASH
    for size, word, digits in ((1e9, "billion", 2), (1e6, "million", 1)):
        if abs(number) >= size:
            return f"{number / size:.{digits}f}{SPACE}{word}"
    return f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """`8.4 s`, `4 min 12 s`, `3 h 05 min`."""
    if seconds is None:
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest:02d}{NARROW}s"
    return f"{minutes // 60}{NARROW}h {minutes % 60:02d}{NARROW}min"


def size(number: float | None) -> str:
    """Bytes in decimal units: `14.2 MB`."""
    if number is None:
        return DASH
    for step, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= step:
            return f"{number / step:.1f}{NARROW}{unit}"
    return f"{number:.0f}{NARROW}bytes"


def figure(value: Any) -> str:
    """A measured value with as many digits as mean something: 4 significant ones below 1,000."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return DASH if value is None else str(value)
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3e}" if value and abs(value) < 1e-3 else f"{value:.4g}"


def moment(value: Any) -> str:
    """An ISO time or seconds since 1970 as `21 November 2026, 07:05 UTC`; anything else as it is."""
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            time = datetime.fromtimestamp(value, UTC)
        else:
            time = datetime.fromisoformat(str(value))
    except (ValueError, OverflowError, OSError):
        return "" if value is None else str(value)
    zone = time.tzname() or ""
    return f"{time.day} {time:%B %Y, %H:%M} {zone}".strip()


def words(name: str) -> str:
    """An identifier as words: `wrong_filter` as `wrong filter`."""
    return name.replace("_", " ")
