"""Times of day: `14:30`, `2:30 PM`, `14 giờ 30 phút`, `2 giờ rưỡi chiều`."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from tunesmith.tasks.maths.notation import plain

_HALF = r"(?P<half>a\.?\s?m\.?|p\.?\s?m\.?|sáng|trưa|chiều|tối|đêm|in the (?:morning|afternoon|evening))"
_CLOCK = re.compile(
    rf"""\s*(?:lúc|at)?\s*(?P<hour>\d{{1,2}})\s*
    (?: (?P<colon>[:h])\s*(?P<minute>\d{{2}})(?:\s*(?:phút|p|'))?
      | (?P<word>giờ|h|o'clock)(?:\s*(?P<minute2>\d{{1,2}})\s*(?:phút|p|')?|\s*(?P<thirty>rưỡi)
          |\s*kém\s*(?P<short>\d{{1,2}})\s*(?:phút|p|')?)?
      | (?=\s*(?:a\.?m|p\.?m)))
    \s*{_HALF}?\s*\.?\s*""",
    re.VERBOSE | re.IGNORECASE,
)
_ASKS = re.compile(r"mấy giờ|lúc nào|vào lúc|what time|when |at what|o'clock", re.IGNORECASE)


class _Time(NamedTuple):
    minutes: int
    certain: bool
    """Whether only a time of day is written so."""
    colon: bool
    """Whether it is written with a colon, as a ratio may be too."""
    halved: bool
    """Whether it says which half of the day."""


def asks_for_a_time(question: str) -> bool:
    """Whether a question asks for a time of day."""
    return _ASKS.search(question) is not None


def same_time(gold: str, answer: str, asked: bool) -> Literal["same", "other", "half"] | None:
    """Compare two times of day; `half` when they differ by twelve hours and one leaves open which half it means.

    Args:
        asked: whether the question asks for a time of day, which makes `3:20` one.

    Returns:
        None when the two are not both times of day.
    """
    right, said = _time(gold), _time(answer)
    if right is None or said is None or not (asked or right.certain or said.certain or right.colon != said.colon):
        return None
    if right.minutes == said.minutes:
        return "same"
    if abs(right.minutes - said.minutes) == 720 and right.halved != said.halved:
        return "half"
    return "other"


def _time(text: str) -> _Time | None:
    found = _CLOCK.fullmatch(plain(text).strip())
    if found is None:
        return None
    hour = int(found["hour"])
    minute = int(found["minute"] or found["minute2"] or (30 if found["thirty"] else 0))
    minute -= int(found["short"] or 0)
    if hour > 24 or minute > 59:
        return None
    half = (found["half"] or "").lower().replace(".", "").replace(" ", "")
    if half in ("am", "sáng", "inthemorning") and hour == 12:
        hour = 0
    elif (
        (half in ("pm", "chiều", "tối", "intheafternoon", "intheevening") and hour < 12)
        or (half == "trưa" and hour < 3)
        or half == "đêm"
        and 6 <= hour < 12
    ):
        hour += 12
    certain = (
        bool(half)
        or bool(found["thirty"] or found["short"])
        or bool(found["colon"] == ":" and len(found["hour"]) == 2 and found["hour"][0] == "0")
    )
    return _Time(((hour % 24) * 60 + minute) % 1440, certain, found["colon"] == ":", bool(half) or hour > 12)
