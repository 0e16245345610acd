"""Numbers written as words, Vietnamese (`bốn trăm linh năm`) and English (`four hundred and five`)."""

from __future__ import annotations

import re
import unicodedata

_VI = {
    "không": 0, "một": 1, "mốt": 1, "hai": 2, "ba": 3, "bốn": 4, "tư": 4, "năm": 5, "lăm": 5, "nhăm": 5, "sáu": 6,
    "bảy": 7, "bẩy": 7, "tám": 8, "chín": 9, "mười": 10, "mươi": 10,
}  # fmt: skip
_EN = {
    word: value
    for value, word in enumerate(
        """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
        seventeen eighteen nineteen""".split()
    )
} | {
    word: 10 * tens
    for tens, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), start=2)
}
_LARGE = {"nghìn": 10**3, "ngàn": 10**3, "triệu": 10**6, "tỉ": 10**9, "tỷ": 10**9}
_LARGE_EN = {"thousand": 10**3, "million": 10**6, "billion": 10**9}


def read_words(text: str) -> tuple[int, str] | None:
    """The number a text begins with in words, and what follows it; None where it begins with another word."""
    words = re.findall(r"[^\W\d_]+|\S", unicodedata.normalize("NFC", text).casefold().replace("-", " "))
    for take in range(len(words), 0, -1):
        for read in (_vietnamese, _english):
            value = read(words[:take])
            if value is not None:
                return value, " ".join(words[take:])
    return None


def _vietnamese(words: list[str]) -> int | None:
    total, group, last = 0, 0, None
    for i, word in enumerate(words):
        if word in _LARGE:
            if last is None:
                return None
            total, group, last = (
                (total + group + last) * _LARGE[word] if total == 0 else total + (group + last) * _LARGE[word],
                0,
                0,
            )
        elif word == "trăm":
            if last is None or last > 9 or group:
                return None
            group, last = last * 100, 0
        elif word in ("linh", "lẻ"):
            if i == len(words) - 1 or not (group or total):
                return None
            last = 0
        elif word in ("mươi", "chục"):
            if last is None or not 1 < last < 10:
                return None
            group, last = group + last * 10, 0
        elif word == "mười":
            if last:
                return None
            group, last = group + 10, 0
        elif word in _VI:
            if last:
                return None
            last = _VI[word]
        else:
            return None
    return None if last is None else total + group + last


def _english(words: list[str]) -> int | None:
    total, group, seen = 0, 0, False
    for i, word in enumerate(words):
        if word == "and":
            if not seen or i == len(words) - 1:
                return None
        elif word in _EN:
            value = _EN[word]
            if (value < 20 and group % 10) or (value >= 10 and group % 100):
                return None
            group, seen = group + value, True
        elif word == "hundred":
            if not 0 < group < 10:
                return None
            group *= 100
        elif word in _LARGE_EN:
            if not group:
                return None
            total, group = total + group * _LARGE_EN[word], 0
        else:
            return None
    return total + group if seen else None
