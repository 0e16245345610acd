from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.schema import MathsTask as Settings
from tunesmith.errors import DataError
from tunesmith.tasks.maths.task import MathsTask
from tunesmith.types import Example, Record, Task


def example(**fields: Any) -> Example:
    (made,) = MathsTask(Settings()).examples(Record("r", fields, "file.jsonl", 3))
    return made


def test_the_maths_task_is_a_task() -> None:
    task = MathsTask(Settings())
    assert isinstance(task, Task)
    constraint = task.constraint(example(question="1 + 1?", answer="2"))
    assert constraint.allows("1 + 1 = 2\n") and not constraint.allows("1 + 1 = 3\n")


@pytest.mark.parametrize(
    ("fields", "written", "target"),
    [
        ({"answer": "2"}, "#### 2", "2"),
        ({"answer": 2}, "#### 2", "2"),
        ({"answer": "1 + 1 = 2\n#### 2"}, "1 + 1 = 2\n#### 2", "2"),
        ({"solution": "1 + 1 = 2", "answer": "2"}, "1 + 1 = 2\n#### 2", "2"),
        ({"solution": "1 + 1 = 2\nĐáp số: 2 quả"}, "1 + 1 = 2\nĐáp số: 2 quả\n#### 2 quả", "2 quả"),
        ({"solution": "It is even."}, "It is even.", ""),
    ],
)
def test_a_solution_ends_with_its_marked_answer(fields: dict[str, Any], written: str, target: str) -> None:
    made = example(question="1 + 1?", **fields)
    assert made.messages[-1].content == written
    assert made.messages[-1].train
    assert made.target == target


def test_the_language_of_the_question_decides_what_a_comma_means() -> None:
    task = MathsTask(Settings())
    assert task.grade(example(question="How many?", answer="1,500"), "#### 1500").value == 1.0
    assert task.grade(example(question="Bao nhiêu mét?", answer="1,5"), "#### 15").value == 0.0
    assert task.grade(example(question="Bao nhiêu mét?", answer="1,500"), "#### 1500").value is None


def test_answers_are_marked_by_their_last_mark_or_last_number() -> None:
    task = MathsTask(Settings())
    asked = example(question="How many?", answer="13")
    assert task.grade(asked, "12 no, 13\n#### 13").value == 1.0
    assert task.grade(asked, "#### 12 and not 13").value == 0.0
    guessed = task.grade(asked, "not 12 but 13")
    assert guessed.value == 1.0
    assert "last line" in guessed.note
    assert task.grade(asked, "I do not know").failure == "no_number"
    assert task.grade(asked, "").failure == "no_answer"
    assert task.grade(example(question="Why?", solution="Because."), "#### 13").value is None


@pytest.mark.parametrize("fields", [{"question": "1 + 1?"}, {"answer": "2"}, {"question": "", "answer": "2"}])
def test_a_record_without_question_or_answer_is_refused_with_its_place(fields: dict[str, Any]) -> None:
    with pytest.raises(DataError) as raised:
        example(**fields)
    assert raised.value.place == "file.jsonl:3"
    assert raised.value.remedy
