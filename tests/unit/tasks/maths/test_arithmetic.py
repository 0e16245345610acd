from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.tasks.maths.arithmetic import check_steps, read_expression
from tunesmith.tasks.maths.numbers import Language


@pytest.mark.parametrize(
    ("solution", "language", "checked", "wrong"),
    [
        ("48/2 = 24", "en", 1, 0),
        ("48/2 = 25", "en", 1, 1),
        ("She has 5 apples + 3 apples = 8 apples.", "en", 1, 0),
        ("12/60 = $0.2 per minute", "en", 1, 0),
        ("10 / 3 = 3.33", "en", 1, 0),
        ("10 / 3 = 3.34", "en", 1, 1),
        ("200 x 10% = 20", "en", 1, 0),
        ("15 : 60 x 100 = 25%", "vi", 1, 0),
        ("Số tiền là: 12.000 x 3 = 36.000 (đồng)", "vi", 1, 0),
        ("Số tiền là: 12.000 x 3 = 35.000 (đồng)", "vi", 1, 1),
        ("1,5 x 3 = 4,5 (m)", "vi", 1, 0),
        ("3 m + 50 cm = 350 cm", "vi", 1, 0),
        ("10 giờ - 20 phút = 9 giờ 40 phút", "vi", 1, 0),
        ("17 : 5 = 3 (dư 2)", "vi", 1, 0),
        ("72 : 2/3 = 108", "vi", 1, 0),
        ("(3 + 4) x 2 = 7 x 2 = 14", "vi", 2, 0),
        ("(3 + 4) x 2 = 7 x 2 = 15", "vi", 2, 1),
        ("a) 12 x 3 = 37", "vi", 1, 1),
        ("48 / 2 = <<48/2=24>>24", "en", 1, 0),
        # Not arithmetic: variables, and prose with a number in it.
        ("2x + 3 = 7", "en", 0, 0),
        ("x = 5", "en", 0, 0),
        ("1/6 of the cake = 4 pieces", "en", 0, 0),
        ("There are 12 of them.", "en", 0, 0),
    ],
)
def test_steps_that_are_arithmetic_are_checked(solution: str, language: Language, checked: int, wrong: int) -> None:
    steps = check_steps(solution, language)
    assert (steps.checked, len(steps.wrong)) == (checked, wrong), steps


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(1, 99))
def test_expressions_are_evaluated_exactly(a: int, b: int, c: int) -> None:
    made = read_expression(f"({a} + {b}) × 2 / {c}", "en")
    assert made is not None
    assert made.value == Fraction((a + b) * 2, c)


@pytest.mark.parametrize("text", ["9^9^9^9", "1/0", "(" * 200 + "1", "2^-99999", "x + 1", "", "5 +"])
def test_what_is_no_arithmetic_or_too_large_is_not_read(text: str) -> None:
    assert read_expression(text, "en") is None
