from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.tasks.maths.numbers import Convention, convention_of, read_quantities


@pytest.mark.parametrize(
    ("text", "point", "comma"),
    [
        ("Giá 1.250.000 đồng", "thousands", "decimal"),
        ("Dài 3,5 m", "thousands", "decimal"),
        ("80,000 đồng", "decimal", "thousands"),
        ("3.5 m and 12 m", "decimal", "thousands"),
        ("1.234,5", "thousands", "decimal"),
        ("3,048", "", ""),
        ("3,5 and then 1,250,000", "", ""),
    ],
)
def test_a_text_shows_how_its_writer_uses_the_marks(text: str, point: str, comma: str) -> None:
    assert convention_of(text) == Convention(point, comma)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2,3", [1, 2, 3]),
        ("1,234,567", [1234567]),
        ("x-3", [3]),
        ("x = -3", [-3]),
        ("5 - 3", [5, 3]),
        (".4", [Fraction(2, 5)]),
        ("200 cm $3$", [200]),
        ("AZYUK2A", []),
        ("5 triệu 200 nghìn đồng", [5200]),
        (r"12,\!000,\!023", [12_000_023]),
    ],
)
def test_numbers_are_found_in_text(text: str, values: list[Fraction]) -> None:
    assert [quantity.usual for quantity in read_quantities(text, "en")] == values


@given(st.integers(0, 10**9), st.sampled_from(["{:,}", "{}"]))
def test_whole_numbers_are_read_in_every_grouping(number: int, form: str) -> None:
    grouped = form.format(number)
    assert read_quantities(grouped, "en")[0].readings == (Fraction(number),)
    assert read_quantities(grouped.replace(",", "."), "vi")[0].usual == number
    assert read_quantities(grouped.replace(",", " "), "vi")[0].readings == (Fraction(number),)
