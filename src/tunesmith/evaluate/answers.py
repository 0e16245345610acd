"""What can be said of an answer without knowing what is right: whether it ran on, and which language it is in."""

from __future__ import annotations

from tunesmith.tasks.writing import ANOTHER_TURN, language_of, loops
from tunesmith.types import Completion

__all__ = ["language_of", "run_on"]


def run_on(completion: Completion, gold: str = "") -> str:
    """How an answer failed to end: `length` (cut at the limit), `loop`, `next_turn` (it went on as somebody else), or
    empty where it ended properly. What the right answer does as well is no fault."""
    if not completion.stopped:
        return "length"
    if loops(completion.text) and not loops(gold):
        return "loop"
    if ANOTHER_TURN.search(completion.text) and not ANOTHER_TURN.search(gold):
        return "next_turn"
    return ""
