from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.schema import ChatTask as Settings
from tunesmith.errors import DataError
from tunesmith.tasks.chat.task import ChatTask
from tunesmith.types import Example, Record, Task


def example(**fields: Any) -> Example:
    (made,) = ChatTask(Settings()).examples(Record("r", fields, "file.jsonl", 3))
    return made


def test_question_and_answer_become_a_conversation() -> None:
    assert isinstance(ChatTask(Settings()), Task)
    made = example(system="Be kind.", question="Hello?", answer="Hi!")
    assert [(m.role, m.content, m.train) for m in made.messages] == [
        ("system", "Be kind.", False),
        ("user", "Hello?", False),
        ("assistant", "Hi!", True),
    ]


def test_free_text_is_not_judged_and_a_match_is() -> None:
    task = ChatTask(Settings())
    assert task.grade(example(question="Hello?", answer="Hi!"), "Hi!").value is None
    exact = example(question="Capital?", answer="Paris", match="exact")
    assert task.grade(exact, " paris\n").value == 1.0
    assert task.grade(exact, "It is Paris.").value == 0.0
    contains = example(question="Capital?", answer="Paris", match="contains")
    assert task.grade(contains, "It is Paris.").value == 1.0
    assert task.grade(contains, "It is Rome.").failure == "no_match"


@pytest.mark.parametrize(
    "fields", [{"question": "Hello?"}, {"answer": "Hi"}, {"question": "a", "answer": "b", "match": "roughly"}]
)
def test_a_record_that_is_no_conversation_is_refused_with_its_place(fields: dict[str, Any]) -> None:
    with pytest.raises(DataError) as raised:
        example(**fields)
    assert raised.value.place == "file.jsonl:3"
    assert raised.value.remedy


def test_facts_count_in_an_answer_and_not_in_a_list_of_everything() -> None:
    task = ChatTask(Settings())
    asked = example(question="When?", answer="It comes on Monday.", checks={"include": ["Monday"]})
    assert task.grade(asked, "On Monday it comes.").value == 1.0
    assert task.grade(asked, "It comes on Friday.").failure == "breaks_include"
    everything = " ".join(f"It comes on {day} at {hour}." for day in ("Monday", "Friday") for hour in range(8))
    assert task.grade(asked, everything).failure == "breaks_length"
