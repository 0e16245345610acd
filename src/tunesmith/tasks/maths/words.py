"""Answers that are words: closed classes (weekdays, yes and no, comparison signs, Roman numerals), and the rest."""

from __future__ import annotations

import re
import unicodedata

_CLASSES: dict[str, tuple[tuple[str, ...], ...]] = {
    "weekday": (
        ("thứ hai", "thứ 2", "monday", "mon"), ("thứ ba", "thứ 3", "tuesday", "tue"),
        ("thứ tư", "thứ 4", "wednesday", "wed"), ("thứ năm", "thứ 5", "thursday", "thu"),
        ("thứ sáu", "thứ 6", "friday", "fri"), ("thứ bảy", "thứ 7", "saturday", "sat"),
        ("chủ nhật", "sunday", "sun"),
    ),
    "verdict": (
        ("đúng", "có", "yes", "true", "correct", "được"),
        ("sai", "không", "no", "false", "incorrect", "không đúng", "không được"),
    ),
    "parity": (("chẵn", "số chẵn", "even"), ("lẻ", "số lẻ", "odd")),
    "sign": ((">", "lớn hơn", "greater", "greater than"), ("<", "bé hơn", "nhỏ hơn", "less", "less than"),
             ("=", "bằng", "bằng nhau", "equal", "equal to"), ("≥", "lớn hơn hoặc bằng"), ("≤", "bé hơn hoặc bằng")),
    "place": (("đơn vị",), ("chục",), ("trăm",), ("nghìn", "ngàn"), ("chục nghìn",), ("trăm nghìn",), ("triệu",),
              ("phần mười",), ("phần trăm",), ("phần nghìn",), ("phần mười nghìn",), ("phần trăm nghìn",),
              ("phần triệu",)),
    "operator": (("+", "cộng", "plus"), ("-", "trừ", "minus"), ("×", "*", "nhân", "times"), (":", "÷", "/", "chia")),
}  # fmt: skip
_CLOSED = {word: (name, i) for name, groups in _CLASSES.items() for i, group in enumerate(groups) for word in group}
_OPPOSED = (
    ("tăng", "giảm"), ("thêm", "bớt"), ("nhiều", "ít"), ("nhanh", "chậm"), ("hơn", "kém"), ("lãi", "lỗ"),
    ("trước", "sau"), ("sớm", "muộn"), ("trên", "dưới"), ("lên", "xuống"), ("sáng", "chiều"), ("dài", "ngắn"),
    ("increase", "decrease"), ("increases", "decreases"), ("increased", "decreased"), ("more", "less"),
    ("more", "fewer"), ("profit", "loss"), ("before", "after"), ("early", "late"), ("up", "down"), ("gain", "lose"),
    ("faster", "slower"), ("older", "younger"), ("north", "south"), ("east", "west"), ("at least", "at most"),
)  # fmt: skip
_FILLERS = frozenset(
    """là có hết được còn lại tất cả vậy thì các số đó của và tổng khoảng cần phải đã mua bán
    the is are was were a an of has have had there in total altogether about answer so it its that this to and for
    be will would x y n k""".split()
)
_ROMAN = re.compile(r"(?:(?:thế k[ỉỷìy]|century|chương|chapter|lớp|khối)\s+)?([IVXLC]+)", re.IGNORECASE)
_DENIED = re.compile(r"\b(?:không phải|chẳng phải|not|isn't|never|khác)\b", re.IGNORECASE)


def closed_class(text: str) -> tuple[str, int] | None:
    """The class and member a whole answer is: ("weekday", 2); None for any other text."""
    folded = _folded(text).removeprefix("hàng ")
    return _CLOSED.get(folded)


def roman(text: str) -> int | None:
    """The number of a Roman numeral that a whole answer is, alone or after `thế kỉ`, `century`, `chapter`."""
    found = _ROMAN.fullmatch(text.strip().rstrip("."))
    if not found or (len(found[1]) == 1 and found[0] == found[1]):
        return None
    values, total, last = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}, 0, 0
    for letter in reversed(found[1].upper()):
        total += values[letter] if values[letter] >= last else -values[letter]
        last = max(last, values[letter])
    return total


def content_words(text: str) -> set[str]:
    """The words that carry meaning, folded; words of grammar are left out."""
    words = {word for word in re.findall(r"[^\W\d_]+", _folded(text)) if word not in _FILLERS}
    return words | set(re.findall(r"(?<![\w.])[A-Z](?![\w'])(?!\s+[a-z])", text))  # the names of points and cars


def opposed(one: str, other: str) -> bool:
    """Whether two texts say opposite things with the same number: increases by, decreases by."""
    left, right = f" {_folded(one)} ", f" {_folded(other)} "
    for a, b in _OPPOSED:
        for first, second in ((a, b), (b, a)):
            says = re.compile(rf"\b{first}\b")
            against = re.compile(rf"\b{second}\b")
            if says.search(left) and against.search(right) and not says.search(right) and not against.search(left):
                return True
    return False


def denied(text: str) -> bool:
    """Whether an answer says what it is not."""
    return _DENIED.search(text) is not None


def _folded(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split()).strip(" .!\"'“”")
