from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.tasks.chat.calls import BrokenCallError, Call, breaks_schema, read_calls, same_calls

WEATHER = Call("weather", {"city": "Huế", "days": 3})
BODY = '{"name": "weather", "arguments": {"city": "Huế", "days": 3}}'
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "dict",
                "properties": {
                    "city": {"type": "str"},
                    "days": {"type": "integer", "minimum": 1},
                    "unit": {"enum": ["C", "F"], "default": "C"},
                },
                "required": ["city"],
            },
        },
    }
]


@pytest.mark.parametrize(
    "text",
    [
        BODY,
        f"```json\n{BODY}\n```",
        f"<tool_call>\n{BODY}\n</tool_call>",
        f"I look it up.\n<tool_call>{BODY}</tool_call>",
        f"[TOOL_CALLS] [{BODY}]",
        f"<|python_tag|>{BODY}",
        '<function=weather>{"city": "Huế", "days": 3}</function>',
        '{"arguments": {"city": "Huế", "days": 3}, "name": "weather"}',
        '{"name": "weather", "parameters": {"city": "Huế", "days": 3}}',
        '{"name": "weather", "arguments": "{\\"city\\": \\"Huế\\", \\"days\\": 3}"}',
        json.dumps({"tool_calls": [{"type": "function", "function": json.loads(BODY)}]}),
    ],
)
def test_a_call_is_read_in_every_common_writing(text: str) -> None:
    assert read_calls(text) == [WEATHER]


@pytest.mark.parametrize(
    "text",
    ["Hello!", "", "It is {sunny}.", "[1] see below", '{"city": "Huế"}', '{"city": "Huế", "name": "An"}', "weather"],
)
def test_plain_text_is_no_call(text: str) -> None:
    assert read_calls(text) == []


@pytest.mark.parametrize(
    "text",
    [BODY[:-1], f"{BODY} ok?", 'weather({"city": "Huế"})', "<tool_call>{}</tool_call>", '{"name": "", "arguments": {}}',
     '{"name": "weather", "arguments": [1]}', '{"name": "weather", "arguments": "no"}'],
)  # fmt: skip
def test_a_call_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(BrokenCallError):
        read_calls(text)


@given(st.text(alphabet='{}[]":,nametool_clrgus<>/= 1', max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert isinstance(read_calls(text), list)
    except BrokenCallError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"city": "Huế"}, ""),
        ({"city": "Huế", "days": 3}, ""),
        ({"days": 3}, "city"),
        ({"city": 3}, "string"),
        ({"city": "Huế", "days": 0}, "minimum"),
        ({"city": "Huế", "days": "3"}, "integer"),
        ({"city": "Huế", "unit": "K"}, "K"),
        ({"city": "Huế", "when": "now"}, "when"),
    ],
)
def test_a_call_is_held_against_the_schema_of_its_tool(arguments: dict[str, Any], why: str) -> None:
    found = breaks_schema(Call("weather", arguments), TOOLS)
    assert why in found if why else found == ""


def test_a_tool_that_was_not_offered_and_a_broken_schema() -> None:
    assert "no tool" in breaks_schema(Call("news", {}), TOOLS)
    assert breaks_schema(Call("x", {"a": 1}), [{"name": "x", "parameters": {"type": "wrong"}}]) == ""


@pytest.mark.parametrize(
    ("said", "same"),
    [
        ([WEATHER], True),
        ([Call("weather", {"days": 3.0, "city": " Huế "})], True),
        ([Call("weather", {"city": "Huế", "days": 3, "unit": "C"})], True),
        ([Call("weather", {"city": "Huế", "days": 3, "unit": "F"})], False),
        ([Call("weather", {"city": "Huế", "days": 4})], False),
        ([Call("weather", {"city": "Huế"})], False),
        ([Call("weather", {"city": "Hue", "days": 3})], False),
        ([Call("news", {"city": "Huế", "days": 3})], False),
        ([WEATHER, WEATHER], False),
        ([], False),
    ],
)
def test_calls_are_the_same_when_tool_and_arguments_are(said: list[Call], same: bool) -> None:
    assert (same_calls([WEATHER], said, TOOLS) == "") is same


def test_calls_of_one_turn_have_no_order_and_true_is_not_one() -> None:
    other = Call("weather", {"city": "Vinh"})
    assert same_calls([WEATHER, other], [other, WEATHER], TOOLS) == ""
    assert same_calls([Call("f", {"x": True})], [Call("f", {"x": 1})], None) != ""
