"""Word problems with a final answer, in English and Vietnamese."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.config import schema
from tunesmith.errors import DataError
from tunesmith.tasks.maths.answers import final_answer, find_answer
from tunesmith.tasks.maths.arithmetic import Steps, check_steps
from tunesmith.tasks.maths.cheap import cheap_answers
from tunesmith.tasks.maths.compare import compare, read_choices
from tunesmith.tasks.maths.constrain import ArithmeticConstraint
from tunesmith.tasks.maths.numbers import Language, convention_of
from tunesmith.tasks.maths.symbolic import MathVerify
from tunesmith.tasks.maths.verdict import Circumstances
from tunesmith.types import Constraint, Example, Message, Record, Score

_VIETNAMESE = re.compile(r"[ăâđêôơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE)
_LETTERS = "ABCDEF"


class MathsTask:
    """The task `maths`: the model reasons, and its final answer is compared with the right one.

    `docs/graders/maths.md` states the rules.
    """

    name = "maths"
    version = "2"

    def __init__(self, config: schema.MathsTask) -> None:
        self._config = config
        self._symbolic = MathVerify() if MathVerify.installed() else None

    def examples(self, record: Record) -> Iterator[Example]:
        """One example of a record `{question, solution, answer}`, where `solution` or `answer` may be missing.

        `choices` (a list or a mapping of letters) and `language` (`en`, `vi`) are read where the record has them. An
        `answer` with reasoning before `####` (as GSM8K has it) is a solution too. A solution that marks no final answer
        is trained on, and is not graded.

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
        choices = _choices(record.fields.get("choices")) or read_choices(question)
        said = record.fields.get("language", record.fields.get("lang"))
        kept = {key: record.fields[key] for key in ("kind", "grade") if key in record.fields}
        yield Example(
            id=record.id,
            messages=(
                Message("system", self._config.system),
                Message("user", question),
                Message("assistant", written, train=True),
            ),
            target=target,
            meta={
                "language": said if said in ("en", "vi") else language_of(question),
                **({"choices": choices} if choices else {}),
                **kept,
            },
            place=record.place,
        )

    def grade(self, example: Example, completion: str) -> Score:
        """1.0 or 0.0; None where there is no right answer to compare with, or nothing decides between two readings.

        Its parts: `steps`, the share of the arithmetic that holds; `marked`, whether the answer was marked.
        """
        if not example.target:
            return Score(None, note="the record marks no final answer")
        language = _language(example)
        completion = _without_question(completion, example.question)
        found = find_answer(completion, language)
        if found is None or (self._config.answer_mark == "required" and not found.marked):
            failure = "no_answer" if found is None else "no_mark"
            note = "no answer was found" if found is None else "the answer is not marked (####, boxed or Đáp số)"
            return Score(0.0, {"marked": 0.0}, note, failure)
        own = convention_of(completion)
        about = Circumstances(
            language,
            example.question,
            example.meta.get("choices", {}),
            self._config.units,
            convention_of(example.answer, example.target, example.question),
            own,
            self._symbolic.same if self._symbolic else None,
        )
        verdict = compare(example.target, found.text, about)
        steps = check_steps(completion, language, own)
        parts = {"marked": float(found.marked)} | ({} if steps.share is None else {"steps": steps.share})
        shown = {"answer": found.text, "right": example.target}
        if steps.wrong:
            shown["wrong_step"] = steps.wrong[0]
        if verdict.same and steps.wrong and self._config.steps == "required":
            return Score(0.0, parts, f"the answer is right, a step is not: {steps.wrong[0]}", "wrong_step", shown)
        value = None if verdict.same is None else float(verdict.same)
        return Score(value, parts, _note(found.text, found.marked, verdict.reason, steps), verdict.failure, shown)

    def cheap_answers(self, example: Example) -> Mapping[str, str]:
        """Answers that solve nothing, for the red team."""
        language = _language(example)
        return cheap_answers(example.question, example.answer, example.target, language)

    def constraint(self, example: Example) -> Constraint:
        """Holds a solution to arithmetic that comes out."""
        constraint: Constraint = ArithmeticConstraint(example.question, _language(example))
        return constraint

    def close(self) -> None:
        """Stop the process that compares symbolic answers, where one runs."""
        if self._symbolic is not None:
            self._symbolic.close()


def language_of(text: str) -> Language:
    """Vietnamese where a letter only it has occurs, else English: the habit by which a comma in a number is read."""
    return "vi" if _VIETNAMESE.search(text) else "en"


def _language(example: Example) -> Language:
    return "vi" if example.meta.get("language") == "vi" else "en"


def _without_question(completion: str, question: str) -> str:
    """What a completion adds to the question: repeating it answers nothing, whatever number or mark stands in it."""
    words = question.split()
    if len(words) < 3:
        return completion
    return re.sub(r"\s+".join(map(re.escape, words)), " ", completion, count=1)


def _note(answer: str, marked: bool, reason: str, steps: Steps) -> str:
    note = f"answered {answer}" + ("" if marked else " (read from its last line: no answer was marked)")
    if reason:
        note += f": {reason}"
    if steps.wrong:
        note += f"; {len(steps.wrong)} of {steps.checked} steps do not hold"
    return note


def _choices(value: Any) -> dict[str, str]:
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    if isinstance(value, Mapping):
        return {str(letter).strip().upper(): str(text) for letter, text in value.items()}
    if isinstance(value, list | tuple):
        texts = [re.sub(r"^\s*\(?[A-F]\s*[).:]\s*", "", str(text)) for text in value]
        return dict(zip(_LETTERS, texts, strict=False))
    return {}


def _text(record: Record, field: str) -> str:
    value = record.fields.get(field)
    return str(value).strip() if isinstance(value, str | int | float) else ""
