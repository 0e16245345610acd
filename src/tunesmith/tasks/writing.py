"""What can be said of any text a model wrote: its language, whether it goes round in circles or on as somebody else,
whether it ends."""

from __future__ import annotations

import re
from collections import Counter

_LOOP = 40
"""Characters: a tail that is the same piece over and over, at least four times and this long, is a loop."""
ANOTHER_TURN = re.compile(
    r"<\|(?:im_start|im_end|start_header_id|eot_id|user|assistant|end)\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>"
    r"|^\s*(?:user|human|assistant|question|câu hỏi|người dùng)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
"""What opens a turn of somebody else."""
_ENDS = re.compile(r"[.!?…:;。！？)\]}\"'”»`*|]\s*$")
_SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
)
_VIETNAMESE = re.compile(r"[ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE)
_WORDS = {
    "en": "the of and to is are was in that for it with as be on not this have from you how many what which",
    "vi": "là và của có không cho một các được trong với này bao nhiêu số để khi thì đã",
    "fr": "le la les des est et une dans que pour pas sur avec du qui sont combien vous nous",
    "de": "der die das und ist nicht ein eine mit für von den dem auf sind wie viele ich sie wir",
    "es": "el los las es y una en que para no con por del se son cuántos como más está",
    "pt": "o os as é e uma em que para não com por do da são quantos como mais está você",
    "it": "il lo gli le è e una in che per non con di del della sono quanti come più",
}
_KNOWN = {language: frozenset(words.split()) for language, words in _WORDS.items()}


def loops(text: str) -> bool:
    """Whether a text ends in the same piece over and over."""
    text = text.rstrip()
    for period in range(1, len(text) // 4 + 1):
        times = max(4, -(-_LOOP // period))
        if period * times > len(text):
            continue
        piece = text[-period:]
        if piece.strip() and text.endswith(piece * times):
            return True
    return False


def language_of(text: str) -> str:
    """The language of a text as an ISO 639-1 code, or empty where it is too short or too little like any we know.

    By script where the script tells; for Latin letters by Vietnamese's own and by the commonest words. Enough to see a
    model that answers in the wrong language; no substitute for a language detector.
    """
    letters = [c for c in text if c.isalpha()]
    if len(letters) < 8:
        return ""
    for language, script in _SCRIPTS:
        if len(script.findall(text)) > 0.3 * len(letters):
            return language
    words = re.findall(r"[^\W\d_]+", text.casefold())
    marks = len(_VIETNAMESE.findall(text))
    if marks >= 3 and marks > 0.04 * len(letters):
        return "vi"
    counts = Counter({language: sum(word in known for word in words) for language, known in _KNOWN.items()})
    (first, most), (_, second) = counts.most_common(2)
    return first if most >= 2 and most > second else ""


def ends_properly(text: str) -> bool:
    """Whether a text ends with a mark that ends something, as one that was cut off does not; code and lists do."""
    text = text.rstrip()
    last = text.rsplit("\n", 1)[-1].lstrip()
    listed = re.match(r"(?:[-*•]|\d+[.)])\s", last) is not None
    return bool(text) and (_ENDS.search(text) is not None or listed or text[-1].isdigit() or not text[-1].isalnum())


def repeats(text: str) -> bool:
    """Whether a text says the same sentence three times or more, or ends in a loop."""
    sentences = Counter(
        " ".join(part.casefold().split()) for part in re.split(r"(?<=[.!?])\s+|\n", text) if len(part.split()) > 3
    )
    return loops(text) or any(count >= 3 for count in sentences.values())
