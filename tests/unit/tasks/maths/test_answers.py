from __future__ import annotations

import pytest

from tunesmith.tasks.maths.answers import final_answer, find_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4 + 5 = 9\n#### 9", "9"),
        ("#### 5\nno, wait\n#### 6", "6"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$\boxed{28}$ percent", "28 percent"),
        ("Đáp số: 42 thùng.", "42 thùng"),
        ("Đáp số:\na) 12 quả\nb) 15 quả", "a) 12 quả; b) 15 quả"),
        ("**Đáp án:** B", "B"),
        ("The answer is 7.", "7"),
        ("The final answer is $7$. I hope it is correct.", "$7$"),
        ("The answer is 42 because 40 + 2 = 42.", "42"),
        ("<think>#### 5</think>\n#### 6", "6"),
        ("<think>#### 5", None),
        ("Không phải 12 mà là 13", None),
        ("####", None),
    ],
)
def test_the_last_mark_says_what_the_answer_is(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Không phải 12 mà là 13 quả táo nhé bạn", "13 quả táo nhé bạn"),
        ("She has 3 + 4 = 7 apples in the end", "7 apples in the end"),
        ("First 3.\nThen 4 more.\nSo it is clear.", "4 more"),
        (r"We find that \( x = 5 \) is the solution.", r"\( x = 5 \)"),
        ("7", "7"),
        ("I do not know the answer to this question, sorry about that", None),
        ("<think>7", None),
    ],
)
def test_without_a_mark_the_last_line_with_a_number_is_read(text: str, answer: str | None) -> None:
    found = find_answer(text, "vi")
    assert (found.text if found else None) == answer
    assert found is None or not found.marked
