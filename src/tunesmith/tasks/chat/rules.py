"""Rules an answer keeps or breaks, which need no judge: language, format, length, an end, repetition, named facts."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.tasks.writing import ANOTHER_TURN, ends_properly, language_of, repeats

KNOWN = ("language", "format", "min_words", "max_words", "include", "exclude", "ends", "repeats", "tools")
"""What a record's `checks` may hold."""
_PHRASE = 3
"""Words up to which an answer needs no full stop."""
_QUOTED = 5
"""Words from which a piece of the conversation is a repetition of it."""
_MARKDOWN = re.compile(r"^\s*(?:#{1,6}\s|[-*•]\s|\d+[.)]\s|```|\|)|\*\*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Broken:
    """A rule that an answer breaks."""

    rule: str
    why: str


def check_rules(answer: str, checks: Mapping[str, Any], language: str) -> tuple[dict[str, float], list[Broken]]:
    """Each rule that applies as 1.0 or 0.0, and what is broken.

    Args:
        checks: the record's own rules (`tools` are read by the grader): `language` (a code, or `any`), `format`
            (`json`, `list`, `plain`), `min_words`, `max_words`, `include` and `exclude` (texts, or lists of
            alternatives), `ends`, `repeats` (False leaves the rule out).
        language: the language of the last question, for where the record names none; empty leaves the rule out.
    """
    broken: list[Broken] = []
    parts: dict[str, float] = {}

    def rule(name: str, why: str) -> None:
        parts[name] = 0.0 if why else 1.0
        if why:
            broken.append(Broken(name, why))

    wanted = str(checks.get("language", language) or "")
    spoken = language_of(_words_of(answer))
    if wanted and wanted != "any" and spoken:
        rule("language", "" if spoken == wanted else f"the answer is in {spoken}, not in {wanted}")
    if form := checks.get("format"):
        rule("format", _misses_format(answer, str(form)))
    words = len(answer.split())
    least, most = int(checks.get("min_words", 1)), checks.get("max_words")
    if words < least:
        rule("length", f"{words} words, at least {least} are asked for")
    else:
        rule("length", f"{words} words, at most {most} are asked for" if most is not None and words > int(most) else "")
    if checks.get("ends", True) and checks.get("format") != "json" and words > _PHRASE:
        ended = ends_properly(answer) and not ANOTHER_TURN.search(answer)
        rule("ends", "" if ended else "it breaks off, or goes on as somebody else")
    if checks.get("repeats", True):
        rule("repeats", "it says the same again and again" if repeats(_prose(answer)) else "")
    if include := checks.get("include"):
        missing = [one for one in _listed(include) if not any(holds(answer, text) for text in _listed(one))]
        rule("include", f"{_listed(missing[0])[0]!r} is not in it" if missing else "")
    if exclude := checks.get("exclude"):
        found = [one for one in _listed(exclude) if holds(answer, str(one))]
        rule("exclude", f"{found[0]!r} must not be in it" if found else "")
    return parts, broken


def echoes(answer: str, turns: Iterable[str], right: str) -> bool:
    """Whether an answer only repeats what it was given: a whole turn, or five words and more out of one.

    What the right answer does as well (a quotation, a choice out of the question) is no fault.
    """
    said, wanted = folded_text(answer).strip(" .!?\"'"), folded_text(right).strip(" .!?\"'")
    words = len(said.split())
    for turn in map(folded_text, turns):
        if wanted and wanted in turn:
            continue
        if said and (said == turn.strip(" .!?\"'") or (words >= _QUOTED and said in turn)):
            return True
    return False


def holds(text: str, part: str) -> bool:
    """Whether a text holds another as a whole, blind to case, spacing and Unicode form: `A12` is not in `A123`."""
    folded, wanted = folded_text(text), folded_text(part)
    if not wanted:
        return True
    before = r"(?<![\w])(?<!\d[.,])" if wanted[0].isalnum() else ""
    after = r"(?![\w])(?![.,]\d)" if wanted[-1].isalnum() else ""
    return re.search(before + re.escape(wanted) + after, folded) is not None


def folded_text(text: str) -> str:
    """One Unicode form, one case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _prose(answer: str) -> str:
    """An answer without its code."""
    text = re.sub(r"```.*?(?:```|$)|`[^`]*`", " ", answer, flags=re.DOTALL)
    code = re.compile(r"[;{}]\s*$|^\s*(?:import|def|class|//|#include)\b")
    return "\n".join(line for line in text.splitlines() if not code.search(line))


def _words_of(answer: str) -> str:
    """An answer without code and identifiers, which are in no language."""
    return re.sub(r"\S*\d\S*", " ", _prose(answer))


def _misses_format(answer: str, form: str) -> str:
    if form == "json":
        try:
            json.loads(re.sub(r"^```(?:json)?\s*|\s*```$", "", answer.strip()))
        except (ValueError, RecursionError):
            return "it is not JSON"
        return ""
    if form == "list":
        lines = [line for line in answer.splitlines() if re.match(r"\s*(?:[-*•]|\d+[.)])\s", line)]
        return "" if len(lines) >= 2 else "it is not a list"
    return "it is formatted, plain text is asked for" if _MARKDOWN.search(answer) else ""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
