"""Where the final answer stands in free text, English or Vietnamese.

The last mark wins: `#### 12`, `\\boxed{12}`, `Đáp số: 12`, `The answer is 12`. Without any, the last line that has a
number is taken from its last `=` or its last number on, which the score's note says.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tunesmith.tasks.maths.notation import plain
from tunesmith.tasks.maths.numbers import Language, read_quantities


class Found(NamedTuple):
    """The final answer of a text."""

    text: str
    marked: bool
    """Whether the text said that this is its answer; False for a guess from its last line."""


_SHORT = 80
"""Characters up to which a single line of few words is an answer as a whole."""
_FORMULA = re.compile(r"\$\$.+?\$\$|(?<!\\)\$.+?(?<!\\)\$|\\\[.+?\\\]|\\\(.+?\\\)", re.DOTALL)
_SPECIAL = re.compile(r"<\|[^|<>]*\|>(?:\s*(?:user|assistant|system|model)\b)?|</?s>|<(?:end|start)_of_turn>")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_JOIN = re.compile(
    r"(?:[\s,;.$]|\\[()\[\],;: ]|\\q?quad|\\text\s*\{\s*(?:and|or|và|hoặc)\s*\}|\band\b|\bor\b|\bvà\b|\bhoặc\b)*"
)
_REST = r"[*_ \t]*(?=(?P<rest>[^\n]*))"
_MARKS = (
    re.compile(rf"####{_REST}"),
    re.compile(
        r"(?:đáp[ \t]*số|đáp[ \t]*án|trả[ \t]*lời|kết[ \t]*quả(?=[ \t]*[:=]|[ \t]+là\b))[*_ \t]*"
        rf"(?:(?:cuối cùng|đúng)[ \t]*)?(?:là\b)?[ \t]*[:=]?{_REST}",
        re.IGNORECASE,
    ),
    re.compile(
        r"(?:(?:the|my|our)[ \t]+)?(?:final[ \t]+|correct[ \t]+)?answer[*_ \t]*"
        rf"(?:\bis\b[ \t]*:?|[:=]|(?=\$|\\[(\[])){_REST}",
        re.IGNORECASE,
    ),
)
_ENDS = re.compile(r"[.!?](?=\s+[A-ZĐÀ-Ỹ(\[])|[.!?]\s*$|[,.]?\s+(?:because|since|which|as|vì|bởi|do đó|tức là|nên)\s")
_LABELLED = re.compile(r"[ \t]*(?:[-•*][ \t]*)?(?:\(?[a-h1-9][).])[ \t]*\S")


def final_answer(text: str) -> str | None:
    """What a solution marks as its answer, None where it marks none."""
    found = _marked(_spoken(text))
    return found or None


def find_answer(text: str, language: Language) -> Found | None:
    """The answer of a text: marked, or else read from its last line with a number; None where there is neither."""
    spoken = _spoken(text)
    marked = _marked(spoken)
    if marked is not None:
        return Found(marked, True) if marked else None
    whole = spoken.strip()
    if whole and "\n" not in whole and len(whole) <= _SHORT:
        words = len(re.findall(r"[^\W\d_]{2,}", plain(whole)))
        if words <= 1 or (words <= 4 and len(read_quantities(whole, language)) <= 1):
            return Found(whole, False)
    formulas = [found for found in _FORMULA.finditer(whole) if re.search(r"[\w]", found[0])]
    if formulas and not re.search(r"\d", whole[formulas[-1].end() :]):
        return Found(formulas[-1][0], False)
    for line in reversed(whole.splitlines()):
        written = plain(line)
        quantities = read_quantities(written, language)
        if quantities:
            last = quantities[-1]
            equals = max(written.rfind("="), written.rfind("≈"))
            alone = len(quantities) == 1 or quantities[-2].start < equals
            start = equals + 1 if 0 <= equals < last.start and alone else last.start
            return Found(_ended(written[start:]).strip(), False)
    return None


def _spoken(text: str) -> str:
    """Without reasoning in `<think>` and without special tokens; an unfinished thought has said nothing yet."""
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    elif "<think>" in text:
        text = text.partition("<think>")[0]
    return _SPECIAL.sub("\n", text)


def _marked(text: str) -> str | None:
    """None without a mark, an empty string with a mark and nothing behind it."""
    best, at = None, -1
    for mark in _MARKS:
        for found in mark.finditer(text):
            if found.start("rest") > at:
                best, at = _behind(text, found), found.start("rest")
    boxes = _boxes(text)
    if boxes and boxes[-1][0] > at:
        group = [boxes[-1]]
        for box in reversed(boxes[:-1]):
            if not _JOIN.fullmatch(text[box[1] + 1 : group[0][0]]) or "\n\n" in text[box[1] : group[0][0]]:
                break
            group.insert(0, box)
        variable = re.search(r"(?<![\w\\])[a-zA-Z]\s*=\s*$", text[: group[0][0]])
        inner = ", ".join(text[text.index("{", start) + 1 : end] for start, end in group)
        rest = re.match(
            r"[ \t$)\]\\]*((?:pct|percent\w*|%|\\%|[a-zA-Zđ]{1,3}[23²³]?(?![\w]))?)", text[group[-1][1] + 1 :]
        )
        inner = (variable[0] if variable else "") + inner
        return (inner + (f" {rest[1]}" if rest and rest[1] else "")).strip()
    return best


def _boxes(text: str) -> list[tuple[int, int]]:
    """Start and closing brace of every `\\boxed{...}`, braces balanced; the last may lack its brace."""
    found = []
    for mark in _BOX.finditer(text):
        depth, i = 1, mark.end()
        while i < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[i], 0) if text[i - 1] != "\\" else 0
            i += 1
        found.append((mark.start(), i - 1 if depth == 0 else len(text)))
    return found


def _behind(text: str, found: re.Match[str]) -> str:
    """What stands behind a mark: to the end of its sentence, or labelled parts over several lines."""
    rest = found["rest"].strip()
    rest = "" if rest in ("$", "$$", "\\[", "\\(") else rest  # a formula on lines of its own
    lines = text[found.end("rest") :].lstrip("\n").splitlines()
    parts = [rest] if rest else []
    if not rest or _LABELLED.match(rest):
        for line in lines:
            if not line.strip() or (parts and not _LABELLED.match(line)):
                break
            parts.append(line.strip())
    return "; ".join(_ended(part) for part in parts)


def _ended(part: str) -> str:
    """Up to the end of the sentence, without what only decorates."""
    end = _ENDS.search(part)
    part = part[: end.start()] if end else part
    part = re.sub(r"\(\s*(?=[^()]*(?:=|\s\w+\s\w))[^()]*\)\s*$", "", part)  # a remark in brackets
    return part.strip().strip("*_`").strip().rstrip(".;,").strip()
