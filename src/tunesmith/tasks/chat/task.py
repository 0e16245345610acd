"""Conversations. Free text has no right answer here: it is marked only where a record says how."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config import schema
from tunesmith.errors import DataError
from tunesmith.types import Constraint, Example, Message, Record, Score

_MATCHES = ("exact", "contains")


class ChatTask:
    """The task `chat`. Chat formats are read by the data room; this reads plain question and answer."""

    name = "chat"
    version = "1"

    def __init__(self, config: schema.ChatTask) -> None:
        self._config = config

    def examples(self, record: Record) -> Iterator[Example]:
        """One example of a record `{question, answer}` with an optional `system` and `match`.

        `match: exact` or `match: contains` has answers marked against `answer`; without it they are not marked.

        Raises:
            DataError: question or answer is missing, or `match` is another word.
        """
        question, answer = record.fields.get("question"), record.fields.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or not question.strip() or not answer.strip():
            raise DataError(
                f"the record has neither a conversation nor question and answer (it has: {', '.join(record.fields)})",
                place=record.place,
                remedy="use `messages`, `conversations`, `prompt` and `completion`, or `question` and `answer`",
            )
        match = record.fields.get("match", "")
        if match and match not in _MATCHES:
            raise DataError(f"match: {match} is not known", place=record.place, remedy="write exact or contains")
        system = record.fields.get("system")
        opening = (Message("system", str(system)),) if system else ()
        yield Example(
            id=record.id,
            messages=(*opening, Message("user", question), Message("assistant", answer, train=True)),
            target=answer,
            meta={"match": match} if match else {},
            place=record.place,
        )

    def grade(self, example: Example, completion: str) -> Score:
        """1.0 or 0.0 where the record says how to match, blind to case and spacing; else None."""
        match = example.meta.get("match")
        if not match:
            return Score(None, note="free text: nothing says which answers are right")
        right, answer = _folded(example.target), _folded(completion)
        found = answer == right if match == "exact" else right in answer
        return Score(
            float(found), note=f"{'is' if found else 'is not'} a match ({match})", failure="" if found else "no_match"
        )

    def constraint(self, example: Example) -> Constraint | None:
        """Conversation is free text."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())
