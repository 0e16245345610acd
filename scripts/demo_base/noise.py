"""Light noise on questions: other words for tables and columns, and a colleague's carelessness."""

from __future__ import annotations

import random
import re

from demo_base.words import synonyms

_OPENERS = """Please |Hi, |Hello, |Can you |I want to know |I would like to know |Quick one: |Hey, |Could you say |
We need |Question: |For my report, |My boss asks: |Just wondering, |So, |Ok, |And |Now """.replace("\n", "").split("|")
_WORD = re.compile(r"[A-Za-z]+")


def disturb(question: str, sql: str, rng: random.Random) -> str:
    """The question as somebody else might type it. Words that the SQL quotes as values stay as they are."""
    kept = {word.lower() for literal in re.findall(r"'((?:[^']|'')*)'", sql) for word in _WORD.findall(literal)}
    if rng.random() < 0.18:
        known = synonyms()

        def swap(match: re.Match[str]) -> str:
            word = match.group()
            if word in known and word not in kept and rng.random() < 0.6:
                return rng.choice(known[word])
            return word

        question = _WORD.sub(swap, question)
    if rng.random() < 0.05 and question[:1].isupper() and question.split(" ")[0].lower() not in kept:
        question = rng.choice(_OPENERS) + question[:1].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip("?.")
    if rng.random() < 0.06:
        question = question[:1].lower() + question[1:]
    if rng.random() < 0.03:
        question = _mistype(question, kept, rng)
    return question


def _mistype(text: str, kept: set[str], rng: random.Random) -> str:
    spots = [m for m in _WORD.finditer(text) if len(m.group()) > 5 and m.group().lower() not in kept]
    if not spots:
        return text
    start, end = rng.choice(spots).span()
    at = rng.randrange(start + 1, end - 2)
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :] if rng.random() < 0.5 else text[:at] + text[at + 1 :]
