from __future__ import annotations

import pytest

from tunesmith.config.schema import MathsTask as Settings
from tunesmith.evaluate.trust import hack_gain, self_test
from tunesmith.tasks.maths.task import MathsTask
from tunesmith.types import Example, Record, RedTeamed

RECORDS = [
    ("Lan has 4 boxes with 12 apples each. How many apples are there?", "4 × 12 = 48\n#### 48"),
    ("A rope of 9.5 m is cut into 5 equal parts. How many metres is one?", "9.5 / 5 = 1.9\n#### 1.9 m"),
    ("A shop sells 3 hats at $7 each and 2 at $4. How many dollars is that?", "3 × 7 = 21\n2 × 4 = 8\n#### $29"),
    ("Một cái bút giá 4.500 đồng. Hỏi 6 cái bút hết bao nhiêu tiền?", "4.500 x 6 = 27.000 (đồng)\nĐáp số: 27.000 đồng"),
    ("Một sợi dây dài 8,24 m, cắt đi 2 m. Hỏi còn lại bao nhiêu mét?", "8,24 - 2 = 6,24 (m)\nĐáp số: 6,24 m"),
    ("Một vườn dài 12 m, rộng 7 m. Tính diện tích.", "12 x 7 = 84 (m²)\nĐáp số: 84 m2"),
    ("Hôm nay là thứ Ba. Hỏi 8 ngày nữa là thứ mấy?", "8 = 7 + 1\nĐáp số: Thứ Tư"),
]


@pytest.fixture
def examples() -> list[Example]:
    task = MathsTask(Settings())
    records = [Record(str(i), {"question": q, "solution": s}) for i, (q, s) in enumerate(RECORDS)]
    return [example for record in records for example in task.examples(record)]


def test_the_grader_knows_its_right_answers_and_no_others(examples: list[Example]) -> None:
    tested = self_test(MathsTask(Settings()), examples)
    assert tested.gold.value == 1
    assert tested.shuffled.value == 0
    assert tested.unscored == 0


def test_more_than_twenty_cheap_policies_earn_nothing(examples: list[Example]) -> None:
    task = MathsTask(Settings())
    assert isinstance(task, RedTeamed)
    tried = hack_gain(task, examples)
    assert len(tried.policies) >= 20
    assert [offence.sentence() for policy in tried.policies for offence in policy.offences] == []
