"""Answers that are numbers, as people write them in English and Vietnamese: read, and compared, or honestly not judged.

A comma or a point followed by exactly three digits can be a decimal mark or a thousands mark. Where the language or the
unit decides, we decide; where nothing does, `same_answer` says None rather than guess.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

Language = Literal["en", "vi"]

_NUMBER = r"""(?<![\w.,])[-−–+]?\s?(?:
    \d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:[.,]\d+)?(?!\d)   # 80 000   1 234,5
  | \d{1,3}(?:,\d{3})+(?:\.\d+)?(?![\d,])                # 1,234.5
  | \d{1,3}(?:\.\d{3})+(?:,\d+)?(?![\d.]\d)              # 1.234,5
  | \d+(?:[.,]\d+)?
)"""
_ANSWER = re.compile(
    rf"(?P<whole>\d+\s+)?(?P<top>{_NUMBER})\s*/\s*(?P<bottom>\d+)(?!\d)|(?P<number>{_NUMBER})", re.VERBOSE
)
_MARKS = (
    re.compile(r"####[ \t]*([^\n]+)"),
    re.compile(r"\\boxed\{((?:[^{}]|\{[^{}]*\})*)\}"),
    re.compile(r"(?:đáp\s*số|đáp\s*án)[ \t]*(?:là)?[ \t]*[:=]?[ \t]*([^\n]+)", re.IGNORECASE),
    re.compile(r"(?:final answer|the answer)[ \t]*(?:is|:|=)+[ \t]*([^\n]+)", re.IGNORECASE),
)
_LATEX = (
    (re.compile(r"\\(?:d|t)?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"<su[pb]>(\d)</su[pb]>"), r"^\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"&nbsp;|\\[,;!: ]|\\quad"), " "),
    (re.compile(r"(?<=[^\W\d_])\s*\^\s*\{?([23])\}?(?!\d)"), r"\1"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$|[$]|\\\(|\\\)|\\boxed|[{}]"), ""),
)
_SUPERSCRIPT = str.maketrans("²³", "23")
_MONEY = frozenset("đồng đ vnd vnđ dong".split())
_UNITS: dict[str, tuple[str, Fraction]] = {
    "mm": ("length", Fraction(1, 1000)),
    "cm": ("length", Fraction(1, 100)),
    "dm": ("length", Fraction(1, 10)),
    "m": ("length", Fraction(1)),
    "km": ("length", Fraction(1000)),
    "g": ("mass", Fraction(1)),
    "kg": ("mass", Fraction(1000)),
    "yến": ("mass", Fraction(10_000)),
    "tạ": ("mass", Fraction(100_000)),
    "tấn": ("mass", Fraction(1_000_000)),
    "ml": ("volume", Fraction(1, 1000)),
    "l": ("volume", Fraction(1)),
    "lít": ("volume", Fraction(1)),
    "giây": ("time", Fraction(1)),
    "phút": ("time", Fraction(60)),
    "giờ": ("time", Fraction(3600)),
    "s": ("time", Fraction(1)),
    "min": ("time", Fraction(60)),
    "h": ("time", Fraction(3600)),
    "%": ("percent", Fraction(1)),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One number with what it may mean."""

    readings: frozenset[Fraction]
    """Its possible values: one, or two where the mark before three digits is ambiguous."""
    unit: str = ""
    """The first word after it, lower case, with `2` or `3` for squares and cubes."""


def final_answer(text: str) -> str | None:
    """What a solution gives as its answer, after its last mark (`####`, `\\boxed`, `Đáp số:`, `The answer is`)."""
    found = [(match.start(), match[1]) for mark in _MARKS for match in mark.finditer(text)]
    return max(found)[1].strip().rstrip(".").strip() if found else None


def last_number(text: str) -> str | None:
    """The last number of a text with the word after it: a guess at the answer of a solution that marks none."""
    matches = list(_ANSWER.finditer(_plain(text)))
    return _plain(text)[matches[-1].start() :].split("\n")[0].strip() if matches else None


def read_answers(text: str, language: Language) -> list[Answer]:
    """All numbers of a text with their units, in order."""
    plain = _plain(text)
    answers = []
    for match in _ANSWER.finditer(plain):
        if match["number"] is not None:
            readings = _readings(match["number"], language)
        else:
            bottom = int(match["bottom"])
            if bottom == 0:
                continue
            whole = Fraction(int(match["whole"])) if match["whole"] else Fraction(0)
            readings = frozenset(whole + top / bottom for top in _readings(match["top"], language))
        unit = _unit(plain[match.end() :])
        if unit in _MONEY and len(readings) > 1:
            readings = frozenset({max(readings, key=abs)})  # nobody pays a thousandth of a đồng
        answers.append(Answer(readings, unit))
    return answers


def same_answer(gold: str, predicted: str, language: Language) -> bool | None:
    """Whether two answers are the same number, or None where that cannot be told.

    Units: an answer without one is accepted; length, mass, volume and time are converted; cm against cm² is wrong;
    other words after a number are ignored, other words before it cannot be judged. Several numbers must agree in order.
    """
    if _squeezed(gold) == _squeezed(predicted):
        return True
    letter = re.fullmatch(r"\(?([A-D])[).]?", gold.strip())
    if letter:
        chosen = re.match(r"\(?([A-D])\b", predicted.strip())
        return chosen is not None and chosen[1] == letter[1]
    right, answered = read_answers(gold, language), read_answers(predicted, language)
    if not right:
        return None
    if re.search(r"\d\s*[+×*:÷=x]\s*\(?\d", _plain(gold)):
        return None  # an expression: comparing its value would accept any other with the same
    if len(right) != len(answered):
        return False
    before = [
        re.findall(r"[^\W\d_]{2,}", _plain(text).lower().partition(_first_digit(text))[0]) for text in (gold, predicted)
    ]
    if all(before) and before[0] != before[1] and right[0].readings == answered[0].readings:
        return None  # "increases by 10" against "decreases by 10"
    verdicts = [_same(a, b) for a, b in zip(right, answered, strict=True)]
    return False if False in verdicts else None if None in verdicts else True


def _first_digit(text: str) -> str:
    digit = re.search(r"\d", _plain(text))
    return digit[0] if digit else "\0"


def _same(gold: Answer, predicted: Answer) -> bool | None:
    scale_gold, scale_predicted = Fraction(1), Fraction(1)
    if gold.unit and predicted.unit and gold.unit != predicted.unit:
        a, b = _measure(gold.unit), _measure(predicted.unit)
        if a and b:
            if a[:2] != b[:2]:
                return False
            scale_gold, scale_predicted = a[2], b[2]
    mine = {reading * scale_gold for reading in gold.readings}
    other = {reading * scale_predicted for reading in predicted.readings}
    if not mine & other:
        return False
    return True if len(mine) == len(other) == 1 else None


def _measure(unit: str) -> tuple[str, int, Fraction] | None:
    power = int(unit[-1]) if unit[-1] in "23" else 1
    known = _UNITS.get(unit.rstrip("23"))
    return (known[0], power, known[1] ** power) if known else None


def _readings(number: str, language: Language) -> frozenset[Fraction]:
    text = re.sub(r"[\s\u00a0\u202f]", "", number).replace("−", "-").replace("–", "-")
    marks = re.findall(r"[.,]", text)
    if not marks:
        return frozenset({Fraction(text)})
    if len(set(marks)) == 2:  # the last is the decimal mark
        decimal = marks[-1]
        return frozenset({Fraction(text.replace("," if decimal == "." else ".", "").replace(decimal, "."))})
    grouped = Fraction(re.sub(r"[.,]", "", text))
    if len(marks) > 1:
        return frozenset({grouped})
    head, mark, tail = re.split(r"([.,])", text)
    as_decimal = Fraction(f"{head}.{tail}")
    if (
        re.search(r"\d[ \u00a0\u202f]\d", number)
        or len(tail) != 3
        or len(head.lstrip("+-")) > 3
        or head.strip("+-0") == ""
    ):
        return frozenset({as_decimal})
    if language == "en":
        return frozenset({grouped if mark == "," else as_decimal})
    return frozenset({grouped, as_decimal})


def _unit(rest: str) -> str:
    match = re.match(r"[ \t(]*(%|[^\W\d_]+)[ \t)]*\^?[ \t]*([23])?(?!\d)", rest)
    return match[1].lower() + (match[2] or "") if match else ""


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFC", text).translate(_SUPERSCRIPT)
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", _plain(text)).lower().rstrip(".")
