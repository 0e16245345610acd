from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import Source
from tunesmith.data.formats import RowRefused, detect, to_messages
from tunesmith.data.sources import read_records
from tunesmith.types import Message, Record


def plain(messages: tuple[Message, ...]) -> list[tuple[str, str, bool]]:
    return [(m.role, m.content, m.train) for m in messages]


ASKED = ("user", "How many?", False)
ANSWERED = ("assistant", "Four.", True)
SHAPES: list[tuple[str, dict[str, Any], list[tuple[str, str, bool]]]] = [
    (
        "messages",
        {"messages": [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Four."}]},
        [ASKED, ANSWERED],
    ),
    (
        "messages",
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "content": [{"type": "text", "text": "How "}, {"type": "text", "value": "many?"}]},
                {"role": "assistant", "content": "Four."},
            ]
        },
        [("system", "Be brief.", False), ASKED, ANSWERED],
    ),
    (
        "sharegpt",
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "How many?"}, {"from": "gpt", "value": "Four."}],
        },
        [("system", "Be brief.", False), ASKED, ANSWERED],
    ),
    ("alpaca", {"instruction": "How many?", "input": "", "output": "Four."}, [ASKED, ANSWERED]),
    (
        "alpaca",
        {"instruction": "Count.", "input": "cats", "output": "Four.", "history": [["How many?", "Four."]]},
        [ASKED, ANSWERED, ("user", "Count.\n\ncats", False), ANSWERED],
    ),
    ("prompt_completion", {"prompt": "How many?", "completion": "Four."}, [ASKED, ANSWERED]),
    (
        "prompt_completion",
        {
            "prompt": [{"role": "user", "content": "How many?"}],
            "completion": [{"role": "assistant", "content": "Four."}],
        },
        [ASKED, ANSWERED],
    ),
]


@pytest.mark.parametrize(("form", "fields", "wanted"), SHAPES)
def test_every_shape_becomes_messages(form: Any, fields: dict[str, Any], wanted: list[tuple[str, str, bool]]) -> None:
    assert detect(fields) == form
    [messages] = to_messages(fields, form)
    assert plain(messages) == wanted


def test_fields_without_chat_keys_are_for_the_task() -> None:
    assert detect({"question": "How many?", "sql": "SELECT 4"}) is None


def conversation(*turns: dict[str, Any]) -> dict[str, Any]:
    return {"messages": list(turns)}


USER = {"role": "user", "content": "How many?"}
FOUR = {"role": "assistant", "content": "Four."}


def test_which_turns_are_trained() -> None:
    four = conversation(USER, FOUR, USER, FOUR)
    assert [m.train for m in to_messages(four, "messages", train_turns="all")[0]] == [False, True, False, True]
    assert [m.train for m in to_messages(four, "messages", train_turns="last")[0]] == [False, False, False, True]
    for off in ({"weight": 0}, {"loss_weight": 0.0}, {"train": False}):
        weighed = conversation(USER, {**FOUR, **off}, USER, FOUR)
        assert [m.train for m in to_messages(weighed, "messages")[0]] == [False, False, False, True]


def test_tool_calls_and_reasoning_go_where_templates_look() -> None:
    call = json.dumps({"name": "count", "arguments": {"of": "cats"}})
    [messages] = to_messages(
        {
            "conversations": [
                {"from": "human", "value": "How many?"},
                {"from": "function_call", "value": call},
                {"from": "observation", "value": "4"},
                {"from": "gpt", "value": "Four."},
            ]
        },
        "sharegpt",
    )
    assert [m.role for m in messages] == ["user", "assistant", "tool", "assistant"]
    called = {"type": "function", "function": {"name": "count", "arguments": {"of": "cats"}}}
    assert messages[1].extra == {"tool_calls": [called]} and messages[1].content == "" and messages[1].train
    blocks = [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "Four."}]
    [messages] = to_messages(conversation(USER, {"role": "assistant", "content": blocks}), "messages")
    assert messages[1].extra == {"reasoning_content": "hm"} and messages[1].content == "Four."


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([USER, {"role": "assistant", "content": "b", "weight": 0}], "nothing to train on"),
        ([{"content": "a"}, FOUR], "unknown role"),
        ([{"role": 7, "content": "a"}, FOUR], "unknown role"),
        (["hello", FOUR], "broken turn"),
        ([USER, {"role": "assistant", "content": [{"type": "image", "url": "x"}]}], "content is not a text"),
        ([USER, {"role": "function_call", "content": "count(cats)"}], "broken tool call"),
        ([USER, {"role": "function_call", "content": '["count"]'}], "broken tool call"),
    ],
)
def test_a_turn_that_cannot_be_read_is_refused_with_its_number(turns: list[Any], reason: str) -> None:
    with pytest.raises(RowRefused) as caught:
        to_messages({"messages": turns}, "messages", place="a.jsonl:7")
    assert caught.value.reason == reason and caught.value.place == "a.jsonl:7"


@pytest.mark.parametrize(
    ("form", "fields", "says"),
    [
        ("alpaca", {"instruction": 1, "output": "x"}, "must be texts"),
        ("alpaca", {"instruction": "a", "output": "x", "history": ["q"]}, "pairs"),
        ("alpaca", {"instruction": "a"}, "no response"),
        ("prompt_completion", {"prompt": "a", "completion": 4}, "int '4'"),
    ],
)
def test_other_shapes_refuse_what_is_not_text(form: Any, fields: dict[str, Any], says: str) -> None:
    with pytest.raises(RowRefused, match=says):
        to_messages(fields, form)


def test_a_formatter_of_ones_own_may_give_one_conversation_or_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_format.py").write_text(
        "def one(f):\n    return [{'role': 'user', 'content': f['q']}, {'role': 'assistant', 'content': f['a']}]\n"
        "def two(f):\n    return [one(f), one(f)]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert [plain(m) for m in to_messages({"q": "How many?", "a": "Four."}, "custom", "my_format:one")] == [
        [ASKED, ANSWERED]
    ]
    assert len(to_messages({"q": "a", "a": "b"}, "custom", "my_format:two")) == 2


def test_public_samples_of_every_shape_are_read(real_data: Path) -> None:
    read: dict[str, int] = {}
    for file in sorted((real_data / "chat" / "formats").iterdir()):
        for record in read_records(Source(path=str(file)), 1_000_000):
            assert isinstance(record, Record)
            form = detect(record.fields)
            if form is not None and "preference" not in file.name:
                assert to_messages(record.fields, form, place=record.place)
                read[form] = read.get(form, 0) + 1
    assert set(read) == {"messages", "sharegpt", "alpaca"} and sum(read.values()) > 300
