"""A grader that can be fooled is found out before anything is trained; one that cannot passes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import pytest

from tunesmith.config.schema import Data, MathsTask, Model, RunConfig
from tunesmith.evaluate.trust import hack_gain, near_miss, self_test, try_grader
from tunesmith.tasks.maths.task import MathsTask as Maths
from tunesmith.types import Constraint, Example, Message, Record, Score


def example(i: int, answer: str) -> Example:
    turns = (Message("user", f"Question {i}: how much is it?"), Message("assistant", f"So\n#### {answer}", train=True))
    return Example(f"e{i}", turns, target=answer, place=f"questions.jsonl:{i + 1}")


class Grader:
    """Compares the text after `####`; `kind` says in which way it is too kind."""

    name, version = "own", "1"

    def __init__(self, kind: str = "") -> None:
        self.kind = kind

    def examples(self, record: Record) -> Iterator[Example]:
        yield from ()

    def grade(self, example: Example, completion: str) -> Score:
        answer = completion.rpartition("####")[2].strip()
        if self.kind == "unsure" or not example.target:
            return Score(None)
        if self.kind == "strict":
            return Score(float(answer == example.target and example.id != "e3"))
        if self.kind == "contains":
            return Score(float(example.target in completion))
        if self.kind == "blank":
            return Score(float(not completion or answer == example.target))
        if self.kind == "form":
            return Score(float("####" in completion))
        return Score(float(answer == example.target))

    def constraint(self, example: Example) -> Constraint | None:
        return None

    def close(self) -> None: ...


EXAMPLES = [example(i, str(11 * i + 7)) for i in range(12)]


def test_a_sound_grader_marks_its_own_answers_right_and_others_wrong() -> None:
    found = self_test(Grader(), EXAMPLES)
    assert (found.gold.value, found.shuffled.value, found.shuffled.n, found.unscored) == (1.0, 0.0, 12, 0)
    assert found.findings(0.1) == []
    assert hack_gain(Grader(), EXAMPLES).gain == 0.0


def test_a_right_answer_that_does_not_score_is_named_with_its_place() -> None:
    found = self_test(Grader("strict"), EXAMPLES)
    (finding,) = found.findings(0.1)
    assert (finding.level, finding.place) == ("error", "questions.jsonl:4")
    assert "1 of 12 right answers" in finding.message
    assert found.findings(0.1, least=0.9) == []


def test_a_grader_that_looks_at_the_form_scores_the_answers_of_other_questions() -> None:
    found = self_test(Grader("form"), EXAMPLES)
    assert found.shuffled.value == 1.0
    (finding,) = found.findings(0.1)
    assert "answers to other questions score 100.0%" in finding.message


@pytest.mark.parametrize(("kind", "policy"), [("contains", "all_choices"), ("blank", "empty"), ("form", "right_form")])
def test_each_cheap_policy_finds_the_grader_that_it_fools(kind: str, policy: str) -> None:
    hacks = hack_gain(Grader(kind), EXAMPLES)
    earned = {one.name: one.earned.value for one in hacks.policies}
    assert earned[policy] == hacks.gain == 1.0
    named = next(f for f in hacks.findings(0.02, "error") if policy in f.message)
    assert named.level == "error" and named.place


def test_what_cannot_be_judged_is_neither_right_nor_wrong() -> None:
    found = self_test(Grader("unsure"), EXAMPLES)
    assert (found.gold.value, found.unscored) == (None, 12)
    assert [f.level for f in found.findings(0.1)] == ["warning"]
    assert hack_gain(Grader("unsure"), EXAMPLES).gain == 0.0


def test_a_frequent_answer_is_no_hack_where_it_is_the_right_one() -> None:
    many = [example(i, "7" if i < 9 else str(i)) for i in range(12)]
    hacks = hack_gain(Grader(), many)
    constant = next(one for one in hacks.policies if one.name == "constant")
    assert (constant.earned.value, constant.earned.n) == (0.0, 3)


def test_no_other_answer_means_nothing_is_shuffled() -> None:
    assert self_test(Grader(), [example(i, "7") for i in range(4)]).shuffled.n == 0


def test_a_task_says_its_right_answer_and_its_own_hacks() -> None:
    class Knowing(Grader):
        def gold_answer(self, example: Example) -> str:
            return f"#### {example.target}"

        def cheap_answers(self, example: Example) -> Mapping[str, str]:
            return {"near_miss": "#### 0", "magic": f"magic #### {example.target}"}

    task = Knowing("contains")
    assert self_test(task, EXAMPLES).gold.value == 1.0
    assert {"magic", "near_miss", "empty"} <= {one.name for one in hack_gain(task, EXAMPLES).policies}


@pytest.mark.parametrize(
    ("gold", "missed"),
    [("3 + 4 = 7\n#### 7", "3 + 4 = 7\n#### 8"), ("#### 009", "#### 010"), ("A", "q"), ("a long answer", ""), ("", "")],
)
def test_a_near_miss_is_the_answer_off_by_one(gold: str, missed: str) -> None:
    assert near_miss(gold) == missed


def test_the_maths_task_passes_its_own_test_and_torch_stays_unloaded() -> None:
    before = "torch" in sys.modules
    task = Maths(MathsTask())
    records = [
        Record(f"r{i}", {"question": f"Có {i} quả. Hỏi?", "solution": f"Số quả: {i},5\nĐáp số: {i},5 kg"})
        for i in range(2, 30)
    ]
    examples = [one for record in records for one in task.examples(record)]
    config = RunConfig(task=MathsTask(), model=Model(name="demo"), data=Data.model_validate({"train": "x.jsonl"}))
    trust = try_grader(task, examples, config)
    assert trust.test.gold.value == 1.0
    assert trust.findings == ()
    assert "28 right answers score 100.0 %" in trust.sentence()
    assert ("torch" in sys.modules) == before
