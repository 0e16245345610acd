"""The fields of a record -> conversations, for every common shape of chat data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from tunesmith.data.sources import load_function
from tunesmith.errors import DataError
from tunesmith.types import Example, Message, Role

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "task", "kept", "custom"]
Turns = Literal["all", "last"]

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "bot": "assistant", "model": "assistant", "chatgpt": "assistant",
    "function_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool", "ipython": "tool",
}  # fmt: skip
_EXTRA = ("tool_calls", "tool_call_id", "name", "reasoning_content")


class RowRefused(DataError):
    """One row cannot be used; `reason` is the stable word the ledger counts by."""

    def __init__(self, reason: str, detail: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(f"{reason}: {detail}", place=place, remedy=remedy)
        self.reason = reason
        self.detail = f"{detail}; {remedy}" if remedy else detail


def detect(fields: Mapping[str, Any]) -> Format | None:
    """The chat format whose keys a record has, or None: then the fields are for the task to read."""
    if isinstance(fields.get("example"), Mapping) and "kept" in fields:
        return "kept"
    if "messages" in fields:
        return "messages"
    if "conversations" in fields or "conversation" in fields:
        return "sharegpt"
    if "prompt" in fields and "completion" in fields:
        return "prompt_completion"
    if "instruction" in fields and ("output" in fields or "response" in fields):
        return "alpaca"
    return None


def to_messages(
    fields: Mapping[str, Any], format: Format, formatter: str | None = None, place: str = "", train_turns: Turns = "all"
) -> list[tuple[Message, ...]]:
    """The conversations a record holds, each ending with an assistant turn that is trained.

    Args:
        fields: the record's fields.
        format: its shape; `custom` calls `formatter`, `task` is not ours to read.
        formatter: `module:function` for `custom`, returning one list of messages or a list of such lists.
        place: `file:line`, for the error.
        train_turns: whether every assistant turn is trained or the last alone. A turn that says `weight: 0`,
            `loss_weight: 0` or `train: false` is not trained in either case.

    Raises:
        RowRefused: the record does not have that shape, or holds nothing to learn; the message says which turn.
    """
    if format == "custom":
        made = load_function(formatter or "")(fields)
        lists = made if made and isinstance(made[0], Sequence) and not isinstance(made[0], str) else [made]
        return [_conversation(turns, train_turns, place) for turns in lists]
    if format == "messages":
        turns = _field(fields, "messages", place)
    elif format == "sharegpt":
        turns = _field(fields, "conversations" if "conversations" in fields else "conversation", place)
        turns = _with_system(turns, fields)
    elif format == "alpaca":
        turns = _alpaca(fields, place)
    elif format == "prompt_completion":
        turns = _prompt_completion(fields, place)
    else:
        raise ValueError(f"{format!r} is no chat format")
    return [_conversation(turns, train_turns, place)]


def read_example(fields: Mapping[str, Any], place: str = "") -> Example:
    """An example as `evaluate.regressions` wrote it: nothing is phrased anew, so the same prompt is asked again.

    Raises:
        RowRefused: the record is something else.
    """
    try:
        made = fields["example"]
        messages = tuple(
            Message(turn["role"], turn["content"], extra=turn.get("extra") or {}) for turn in made["messages"]
        )
        return Example(
            str(made["id"]), messages, str(made["target"]), group=str(made["group"]), meta=made["meta"], place=place
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise RowRefused("not a kept failure", f"the record lacks {error}", place=place) from error


def _field(fields: Mapping[str, Any], key: str, place: str) -> Any:
    if key not in fields:
        raise RowRefused(f"no {key}", f"the record has the keys {', '.join(map(str, fields)) or 'none'}", place=place)
    return fields[key]


def _with_system(turns: Any, fields: Mapping[str, Any]) -> Any:
    system = fields.get("system") or fields.get("system_prompt")
    if isinstance(system, str) and system.strip() and isinstance(turns, list):
        return [{"role": "system", "content": system}, *turns]
    return turns


def _alpaca(fields: Mapping[str, Any], place: str) -> list[dict[str, Any]]:
    asked = _field(fields, "instruction", place)
    given = fields.get("input") or ""
    if not isinstance(asked, str) or not isinstance(given, str):
        raise RowRefused("not a text", "`instruction` and `input` must be texts", place=place)
    turns: list[dict[str, Any]] = []
    for pair in fields.get("history") or []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowRefused("broken history", "`history` is a list of [question, answer] pairs", place=place)
        turns += [{"role": "user", "content": pair[0]}, {"role": "assistant", "content": pair[1]}]
    turns.append({"role": "user", "content": f"{asked}\n\n{given}" if given.strip() else asked})
    answer = fields["output"] if "output" in fields else _field(fields, "response", place)
    turns.append({"role": "assistant", "content": answer})
    result: list[dict[str, Any]] = _with_system(turns, fields)
    return result


def _prompt_completion(fields: Mapping[str, Any], place: str) -> list[Any]:
    prompt, completion = _field(fields, "prompt", place), _field(fields, "completion", place)
    asked = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    answer = completion if isinstance(completion, list) else [{"role": "assistant", "content": completion}]
    turns: list[Any] = _with_system([*asked, *answer], fields)
    return turns


def _conversation(turns: Any, train_turns: Turns, place: str) -> tuple[Message, ...]:
    if isinstance(turns, str) or not isinstance(turns, Sequence):
        raise RowRefused("messages is not a list", f"it is {type(turns).__name__}: {str(turns)[:60]!r}", place=place)
    if not turns:
        raise RowRefused("no messages", "the list of messages is empty", place=place)
    messages = [_message(turn, number, place) for number, turn in enumerate(turns, 1)]
    if messages[-1].role != "assistant":
        detail = f"the last turn is the {messages[-1].role}'s, so there is no answer to learn"
        raise RowRefused("no answer", detail, place=place)
    if train_turns == "last":
        messages = [Message(m.role, m.content, False, m.extra) for m in messages[:-1]] + messages[-1:]
    for number, message in enumerate(messages, 1):
        if message.train and not message.content.strip() and not message.extra.get("tool_calls"):
            raise RowRefused("empty answer", f"turn {number} is an assistant turn without text", place=place)
    if not any(message.train for message in messages):
        raise RowRefused("nothing to train on", "every assistant turn has weight 0", place=place)
    return tuple(messages)


def _message(turn: Any, number: int, place: str) -> Message:
    if isinstance(turn, Message):
        return turn if turn.role != "assistant" or turn.train else Message(turn.role, turn.content, True, turn.extra)
    if not isinstance(turn, dict | Mapping):  # dict first: asking an abstract class takes longer
        raise RowRefused("broken turn", f"turn {number} is {type(turn).__name__}, not an object", place=place)
    name = turn["role"] if "role" in turn else turn.get("from")
    role = _ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        known = "system, user, assistant, tool"
        raise RowRefused("unknown role", f"turn {number} has the role {name!r}; known are {known}", place=place)
    extra = {key: turn[key] for key in _EXTRA if turn.get(key) is not None}
    content = turn["content"] if "content" in turn else turn.get("value")
    if isinstance(content, list):
        content = _flatten(content, extra, number, place)
    if content is None and extra.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        kind = "missing" if content is None else f"{type(content).__name__} {str(content)[:40]!r}"
        raise RowRefused("content is not a text", f"in turn {number} the content is {kind}", place=place)
    if name == "function_call":
        extra["tool_calls"], content = [_tool_call(content, number, place)], ""
    if "tool_calls" in extra:
        _require_calls(extra["tool_calls"], number, place)
    return Message(role, content, _is_trained(turn, role), extra)


def _is_trained(turn: Mapping[str, Any], role: Role) -> bool:
    weight = turn.get("weight", turn.get("loss_weight", 1))
    return role == "assistant" and weight != 0 and turn.get("train") is not False


def _flatten(blocks: list[Any], extra: dict[str, Any], number: int, place: str) -> str:
    """Content in blocks: texts are joined, reasoning and tool calls go where templates look for them."""
    texts: list[str] = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        value = block.get("text", block.get("value")) if isinstance(block, Mapping) else block
        if not isinstance(value, str) or kind not in (None, "text", "reasoning", "tool_call"):
            raise RowRefused("content is not a text", f"turn {number} holds a block of type {kind!r}", place=place)
        if kind == "reasoning":
            extra["reasoning_content"] = value
        elif kind == "tool_call":
            extra.setdefault("tool_calls", []).append(_tool_call(value, number, place))
        else:
            texts.append(value)
    return "".join(texts)


def _require_calls(calls: Any, number: int, place: str) -> None:
    """A call is a name and arguments that are an object, or the text of one: what whoever runs it can parse."""
    for call in calls if isinstance(calls, list) and calls else [None]:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        named = isinstance(function, Mapping) and isinstance(function.get("name"), str) and function["name"].strip()
        arguments = function.get("arguments", {}) if isinstance(function, Mapping) else None
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError:
                arguments = None
        if not named or not isinstance(arguments, Mapping):
            detail = f"turn {number}: a call has a `name` and `arguments` that are an object, not {str(call)[:60]!r}"
            raise RowRefused("broken tool call", detail, place=place)


def _tool_call(text: str, number: int, place: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        return {"type": "function", "function": {"name": call["name"], "arguments": call.get("arguments", {})}}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        detail = f"turn {number}: a function call is JSON with `name` and `arguments`, not {text[:60]!r}"
        raise RowRefused("broken tool call", detail, place=place) from error
