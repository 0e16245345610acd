from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.tasks.maths.numbers import Language, final_answer, read_answers, same_answer


@pytest.mark.parametrize(
    ("gold", "predicted", "language", "same"),
    [
        ("72", "72", "en", True),
        ("72", "72.0", "en", True),
        ("72", "73", "en", False),
        ("1000", "1,000", "en", True),
        ("1.234", "1234", "en", False),
        ("$18", "18 dollars", "en", True),
        ("0.5", "1/2", "en", True),
        ("2 1/2", "2.5", "en", True),
        ("-3", "3", "en", False),
        ("50%", "50", "en", True),
        # A comma is a decimal mark in Vietnamese: dropping it is another number.
        ("8,24", "824", "vi", False),
        ("8,24", "8.24", "vi", True),
        ("0,125", "0.125", "vi", True),
        ("80,000 đồng", "80000 đồng", "vi", True),
        ("80.000 đồng", "80 000 đồng", "vi", True),
        ("15.000.000", "15000000", "vi", True),
        ("1.234,5", "1234,5", "vi", True),
        ("55 000", "55000", "vi", True),
        ("5,023 kg", "5023 kg", "vi", None),
        ("5,023 kg", "6 kg", "vi", False),
        ("9cm", "9 cm2", "vi", False),
        ("9 cm²", "9 cm2", "vi", True),
        ("9 cm^2", "9 cm²", "vi", True),
        ("2 m", "200 cm", "vi", True),
        ("2 m", "2 cm", "vi", False),
        ("30 cm", "30", "vi", True),
        ("42 thùng", "42 cái", "vi", True),
        (r"$\frac{3}{4}$", "3/4", "vi", True),
        (r"\boxed{12}", "12", "en", True),
        ("5 và 3", "5", "vi", False),
        ("5 và 3", "5; 3", "vi", True),
        ("Thứ Năm", "Thứ Ba", "vi", None),
        ("Tăng lên 10 lần", "Giảm đi 10 lần", "vi", None),
        ("4 500 x 3", "13 500", "vi", None),
        ("B", "B. 35", "vi", True),
        ("B", "A", "vi", False),
        ("5", "none", "en", False),
    ],
)
def test_answers_are_the_same_number_or_not_or_cannot_be_told(
    gold: str, predicted: str, language: Language, same: bool | None
) -> None:
    assert same_answer(gold, predicted, language) is same


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4 + 5 = 9\n#### 9", "9"),
        ("#### 5\nno, wait\n#### 6", "6"),
        (r"so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ("Đáp số: 42 thùng.", "42 thùng"),
        ("The answer is 7.", "7"),
        ("Không phải 12 mà là 13", None),
    ],
)
def test_the_last_mark_says_what_the_answer_is(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@given(st.integers(0, 10**9), st.sampled_from(["{:,}", "{}"]))
def test_whole_numbers_are_read_in_every_grouping(number: int, form: str) -> None:
    grouped = form.format(number)
    assert read_answers(grouped, "en")[0].readings == {Fraction(number)}
    assert number in read_answers(grouped.replace(",", "."), "vi")[0].readings
    assert read_answers(grouped.replace(",", " "), "vi")[0].readings == {Fraction(number)}
