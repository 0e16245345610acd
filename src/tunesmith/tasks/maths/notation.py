"""Mathematical notation as people and models type it (LaTeX, HTML, Markdown, Unicode), as one plain line of text."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_VULGAR = {sign: unicodedata.normalize("NFKC", sign).replace("\u2044", "/") for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}
_OPERAND = r"(?:\{((?:[^{}]|\{[^{}]*\})*)\}|\s*(\d))"
_FRACTION = re.compile(rf"(\d\s*)?\\(?:d|t|c)?frac\s*{_OPERAND}\s*{_OPERAND}")
_REPLACED = (
    (re.compile(r"<(?:sup|sub)>\s*(\d+)\s*</(?:sup|sub)>", re.IGNORECASE), r"^\1"),
    (re.compile(r"<br\s*/?>", re.IGNORECASE), "\n"),
    (re.compile(r"</?[a-zA-Z][^<>]*>"), ""),
    (re.compile(r"&nbsp;|&#160;"), " "),
    (re.compile(r"&times;"), "×"),
    (re.compile(r"\\(?:text|textbf|textit|textrm|textnormal|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}"), r" \1"),
    (re.compile(r"\s*\{,\s*\}\s*|,\s*\\!\s*"), ","),
    (re.compile(r"\^\s*\{?\s*\\circ\s*\}?|\\degree(?![a-zA-Z])|(?<=\d)\s*\^\s*\{?[0oO]\}?(?![\d.])"), "°"),
    (re.compile(r"\$\s*\{\s*\\times\s*\}\s*\$|\{\s*\\times\s*\}|\\times(?![a-zA-Z])|\\ast(?![a-zA-Z])"), "×"),
    (re.compile(r"\\cdot(?![a-zA-Z])"), "·"),
    (re.compile(r"\\div(?![a-zA-Z])"), "÷"),
    (re.compile(r"\\approx(?![a-zA-Z])|\\simeq(?![a-zA-Z])"), "≈"),
    (re.compile(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?|displaystyle|limits)(?![a-zA-Z])"), ""),
    (re.compile(r"\\(?:quad|qquad)(?![a-zA-Z])|\\[,;: ]|~"), " "),
    (re.compile(r"\\!"), ""),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\\\$"), "\u0001"),
    (re.compile(r"\\[()\[\]]|\\boxed\b"), " "),
    (re.compile(r"\*\*|__|`"), ""),
)
_POWER_OF_UNIT = re.compile(r"(?<=[^\W\d_])\s*\^\s*\{?([23])\}?(?!\d)|(?<=[^\W\d_])\s\$([23])\$")


@lru_cache(8192)
def plain(text: str) -> str:
    """The text with its notation spelled out: `\\frac{1}{2}` as `1/2`, `8\\frac{1}{2}` as `8 1/2`, `cm^2` as `cm2`.

    Dollar signs that come in pairs are mathematics and go; a single one is money and stays.
    """
    text = unicodedata.normalize("NFC", text).replace("\u200b", "").replace("\ufeff", "")
    text = re.sub(r"(?<=\d)([⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)", lambda found: "^" + found[1], text).translate(_SUPERSCRIPTS)
    for sign, spelled in _VULGAR.items():
        text = text.replace(sign, f" {spelled}")
    text = _POWER_OF_UNIT.sub(lambda found: found[1] or found[2], text)
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    for _ in range(4):  # fractions within fractions
        text, count = _FRACTION.subn(_fraction, text)
        if not count:
            break
    text = re.sub(r"(?<=[^\W\d_])\s*\^\s*\{?([23])\}?(?!\d)", r"\1", text)
    if text.count("$") % 2 == 0:
        text = text.replace("$", " ")
    text = text.replace("\u0001", "$").translate({ord("{"): None, ord("}"): None})
    return text.replace("−", "-").replace("\u00a0", " ").replace("\u202f", " ").replace("\u2009", " ")


def _fraction(found: re.Match[str]) -> str:
    top, bottom = (found[2] if found[2] is not None else found[3]), (found[4] if found[4] is not None else found[5])
    top, bottom = (part.strip().strip("{}").strip() for part in (top, bottom))
    top, bottom = (part if re.fullmatch(r"\s*-?[\w.,]*\s*", part) else f"({part})" for part in (top, bottom))
    spelled = f"{top.strip()}/{bottom.strip()}"
    if found[1] is None:
        return spelled
    mixed = top.strip().isdigit() and bottom.strip().isdigit() and int(top) < int(bottom)
    return f"{found[1].strip()} {spelled}" if mixed else f"{found[1].strip()}·{spelled}"


def squeezed(text: str) -> str:
    """The plain text without spaces, capitals and a final full stop: what two answers share that are the same.

    A space between two digits stays, for `1 2/3` is not `12/3`; one that groups thousands goes.
    """
    written = re.sub(r"(?<=\d)\s+(?=\d{3}(?!\d))", "", plain(text))
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", written).casefold().rstrip(".")
