"""Word problems with a final answer, in English and Vietnamese."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunesmith.config import schema
from tunesmith.errors import DataError
from tunesmith.tasks.maths.numbers import Language, final_answer, last_number, same_answer
from tunesmith.types import Constraint, Example, Message, Record, Score

_VIETNAMESE = re.compile(r"[ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE)


class MathsTask:
    """The task `maths`: the model reasons, and its last marked number is compared with the right one."""

    name = "maths"
    version = "1"

    def __init__(self, config: schema.MathsTask) -> None:
        self._config = config

    def examples(self, record: Record) -> Iterator[Example]:
        """One example of a record `{question, solution, answer}`, where `solution` or `answer` may be missing.

        An `answer` with reasoning before `####` (as GSM8K has it) is a solution too. A solution that marks no final
        answer is trained on, and is not graded.

        Raises:
            DataError: there is no question, or neither solution nor answer.
        """
        question = _text(record, "question")
        solution, answer = _text(record, "solution"), _text(record, "answer")
        if not question or not (solution or answer):
            missing = "question" if not question else "solution` or `answer"
            raise DataError(
                f"the field `{missing}` is missing or empty (the record has: {', '.join(sorted(record.fields))})",
                place=record.place,
                remedy="a record of the maths task needs `question` and `solution` or `answer`",
            )
        if not solution and "####" in answer:
            solution, answer = answer, ""
        target = answer or final_answer(solution) or ""
        written = solution or f"#### {answer}"
        if solution and target and "####" not in solution:
            written = f"{solution.rstrip()}\n#### {target}"
        yield Example(
            id=record.id,
            messages=(
                Message("system", self._config.system),
                Message("user", question),
                Message("assistant", written, train=True),
            ),
            target=target,
            meta={"language": language_of(question)},
            place=record.place,
        )

    def grade(self, example: Example, completion: str) -> Score:
        """1.0 or 0.0; None where there is no right answer to compare with, or both could be read in two ways."""
        if not example.target:
            return Score(None, note="the record marks no final answer")
        language: Language = example.meta.get("language", "en")
        marked = final_answer(completion)
        answer = marked if marked is not None else last_number(completion)
        if answer is None:
            return Score(0.0, note="no number in the answer", failure="no_answer")
        same = same_answer(example.target, answer, language)
        shown = {"answer": answer, "right": example.target}
        if same is None:
            return Score(None, note=f"{answer!r} and {example.target!r} cannot be compared for certain", shown=shown)
        note = f"answered {answer}" + ("" if marked is not None else " (its last number: no answer was marked)")
        return Score(float(same), note=note, failure="" if same else "wrong_number", shown=shown)

    def constraint(self, example: Example) -> Constraint | None:
        """Reasoning is free text."""
        return None

    def close(self) -> None:
        """Nothing is held."""


def language_of(text: str) -> Language:
    """Vietnamese where a letter only it has occurs, else English: decides what a comma in a number means."""
    return "vi" if _VIETNAMESE.search(text) else "en"


def _text(record: Record, field: str) -> str:
    value = record.fields.get(field)
    return str(value).strip() if isinstance(value, str | int | float) else ""
