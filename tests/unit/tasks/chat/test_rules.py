from __future__ import annotations

from typing import Any

import pytest

from tunesmith.tasks.chat.rules import check_rules, echoes, holds


@pytest.mark.parametrize(
    ("answer", "checks", "language", "broken"),
    [
        ("The order is in Leeds and arrives on Monday.", {}, "en", []),
        ("Đơn hàng của bạn đang ở Huế và sẽ đến vào thứ hai.", {}, "en", ["language"]),
        ("Đơn hàng của bạn đang ở Huế và sẽ đến vào thứ hai.", {"language": "any"}, "en", []),
        ("The order is in Leeds and arrives on Monday.", {"language": "vi"}, "en", ["language"]),
        ('{"a": 1}', {"format": "json"}, "", []),
        ("a: 1.", {"format": "json"}, "", ["format"]),
        ("- one\n- two", {"format": "list"}, "", []),
        ("One and two.", {"format": "list"}, "", ["format"]),
        ("**Yes**, of course.", {"format": "plain"}, "", ["format"]),
        ("One two three four.", {"max_words": 3}, "", ["length"]),
        ("One.", {"min_words": 3}, "", ["length"]),
        ("The order is in", {}, "", ["ends"]),
        ("Yes.\nuser: and then?", {}, "", ["ends"]),
        ("I am very happy today. " * 3, {}, "", ["repeats"]),
        ("Order A12 arrives.", {"include": ["A12"]}, "", []),
        ("Order A123 arrives.", {"include": ["A12"]}, "", ["include"]),
        ("It costs 5.50 today.", {"include": ["5"]}, "", ["include"]),
        ("It is closed.", {"include": [["shut", "closed"]]}, "", []),
        ("It is open.", {"exclude": ["open"]}, "", ["exclude"]),
    ],
)
def test_rules_that_an_answer_breaks(answer: str, checks: dict[str, Any], language: str, broken: list[str]) -> None:
    parts, found = check_rules(answer, checks, language)
    assert [one.rule for one in found] == broken
    assert all(one.why for one in found)
    assert {name for name, value in parts.items() if value == 0} == set(broken)


def test_repeating_the_conversation_is_no_answer_unless_it_is_right() -> None:
    turns = ["Result: order A12 is in Leeds and arrives in 3 days"]
    assert echoes("order A12 is in Leeds and arrives", turns, "It comes in 3 days.")
    assert not echoes("Leeds", turns, "It comes in 3 days.")
    assert not echoes("order A12 is in Leeds and arrives", turns, "is in Leeds")


def test_a_fact_is_found_whatever_its_case_and_unicode_form() -> None:
    assert holds("ở HUẾ nhé", "Hu\u0065\u0302\u0301")
    assert not holds("ở Huếx", "Huế")
