"""Whether a text found somewhere is fit to be learned from: readable, whole without a picture, free of people's data.

Rules, not a model: each names what it saw, so that the ledger can be read and a wrong rule corrected.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_HTML = re.compile(
    r"</?(?:div|span|p|br|table|tr|td|script|style|a|ul|li|h[1-6])\b[^>]*>|&(?:nbsp|amp|lt|gt|quot|#\d+);",
    re.IGNORECASE,
)
_IMAGE = re.compile(
    r"!\[[^\]]*\]\(|<img\b|\\includegraphics|\[(?:image|figure|hình|ảnh)[^\]]*\]|\bdata:image/"
    r"|\b(?:hình|tranh|ảnh)\s+(?:vẽ|bên|dưới|trên|sau|minh\s+họa|minh\s+hoạ|đây)\b"
    r"|\b(?:trong|theo|quan\s+sát|xem|nhìn|dựa\s+vào|như|cho)\s+(?:các\s+)?(?:hình|bức\s+tranh|tranh|bức\s+ảnh|ảnh|biểu\s+đồ"
    r"|sơ\s+đồ|đồ\s+thị)(?:\s+\d+)?(?=\s*(?:[,.:;)?]|$|vẽ|bên|dưới|trên|sau|hãy|em|và|có))"
    r"|\b(?:biểu\s+đồ|sơ\s+đồ|đồ\s+thị)\s+(?:sau|dưới|bên|trên)\b"
    r"|\b(?:in|see|from|shown\s+in|using|on)\s+(?:the\s+)?(?:figure|diagram|picture|image|drawing|graph|chart|photo)\b"
    r"|\b(?:figure|diagram|picture|image|graph|chart|drawing)s?\s+(?:below|above|shown|\d+)\b",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_PHONE = re.compile(r"(?<![\w.,+])(?:\+\d{1,3}[\s.-]?|0)\d(?:[\s.-]?\d){7,9}(?![\w]|[.,]\d)")
_CARD = re.compile(r"(?<![\w.,])\d{4}(?:[ -]\d{4}){3}(?![\w]|[.,]\d)")


def unreadable(text: str) -> str:
    """What makes a text unfit to be read, in a few words; empty where nothing does."""
    if not text.strip():
        return "it is empty"
    if "\ufffd" in text:
        return "characters were lost before it came here (U+FFFD)"
    if found := _CONTROL.search(text):
        return f"it holds the control character U+{ord(found.group()):04X}"
    if _mistaken(text):
        return "it was read in the wrong encoding once (UTF-8 as Latin-1)"
    if _HTML.search(text):
        return "it holds HTML"
    seen = [c for c in text if not c.isspace()]
    said = sum(unicodedata.category(c)[0] in "LMNS" for c in seen)
    if len(seen) >= 20 and said < 0.5 * len(seen):
        return "most of it is punctuation"
    if len(seen) >= 40 and len(set(seen)) <= 4:
        return "it repeats a few characters"
    return ""


def _mistaken(text: str) -> bool:
    """Whether bytes of UTF-8 were taken for Latin-1 or Windows-1252: turned back, they are fewer and sensible."""
    if text.isascii():
        return False
    for encoding in ("cp1252", "latin-1"):
        try:
            again = text.encode(encoding).decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            continue
        if len(again) < len(text):
            return True
    return bool(re.search(r"Ã[\u0080-\u00bf]|Ä[\u0080-\u00bf‘’]|á[º»][\u0080-\u00bf\u2010-\u2122]", text))


def needs_image(text: str) -> str:
    """The words that point to a picture that is not there; empty where none do.

    A name of a shape (`hình chữ nhật`, `a picture frame`) is no picture.
    """
    found = _IMAGE.search(text)
    return " ".join(found.group().split()) if found else ""


def masked(text: str) -> tuple[str, int]:
    """The text with e-mail addresses, phone and card numbers replaced by `[email]`, `[phone]`, `[card]`; and how many
    were. Names stay: no rule finds them without taking much else."""
    count = 0
    for pattern, mask in ((_EMAIL, "[email]"), (_CARD, "[card]"), (_PHONE, "[phone]")):
        text, times = pattern.subn(mask, text)
        count += times
    return text, count
