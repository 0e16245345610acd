"""Tool calls as models write them: read, held against the tool's schema, compared with the right ones."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TAGGED = re.compile(
    r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)|<function=([\w.-]+)>\s*(.*?)\s*(?:</function>|$)", re.DOTALL
)
_OPENERS = re.compile(r"^\s*(?:\[TOOL_CALLS\]|<\|python_tag\|>)\s*")
_FENCE = re.compile(r"^```(?:json|tool_call|tool_code)?\s*\n?(.*?)\n?```$", re.DOTALL)
_TRIES = re.compile(
    r"<tool_call>|<function=|\[TOOL_CALLS\]|<\|python_tag\|>|^\s*(?:```\w*\s*)?[\[{]\s*[\[{]?\s*\"(?:name|function|tool_calls)\""
)
_TYPES = {"str": "string", "dict": "object", "int": "integer", "float": "number", "bool": "boolean", "list": "array",
          "tuple": "array", "any": None}  # fmt: skip
"""What people write for the types of JSON Schema."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, Any]


class BrokenCallError(ValueError):
    """A text that tries to call a tool and cannot be read; its message says why."""


def attempts_call(text: str) -> bool:
    """Whether a text sets out to call a tool, well or badly."""
    if _TRIES.search(text.strip()) is not None or re.match(r"\s*[a-z_]+\(\s*[\"'{]", text) is not None:
        return True
    fenced = _FENCE.match(text.strip())
    return _is_call(fenced[1] if fenced else text)


def _is_call(body: str) -> bool:
    """Whether a JSON text has the keys of a call, in whatever order."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return False
    items = value if isinstance(value, list) else [value]
    return bool(items) and all(
        isinstance(item, Mapping)
        and (
            isinstance(item.get("function"), Mapping) or ("name" in item and {"arguments", "parameters"} & item.keys())
        )
        for item in items
    )


def read_calls(text: str) -> list[Call]:
    """The tool calls of an answer; empty where it is plain text.

    Read are: a bare JSON object or list, one in a code fence, `<tool_call>` (Hermes, Qwen), `[TOOL_CALLS]` (Mistral),
    `<|python_tag|>` and `<function=name>` (Llama), and OpenAI's `tool_calls`. Arguments may be an object or the text of
    one, under `arguments` or `parameters`. Text around an untagged call makes it no call.

    Raises:
        BrokenCallError: the text sets out to call a tool and is not readable JSON, or lacks a name.
    """
    tagged = list(_TAGGED.finditer(text))
    if tagged:
        calls: list[Call] = []
        for found in tagged:
            if found[2]:
                calls.append(_call({"name": found[2], "arguments": found[3] or "{}"}))
            else:
                calls += _calls(found[1])
        return calls
    body = _OPENERS.sub("", text.strip())
    if fenced := _FENCE.match(body):
        body = fenced[1].strip()
    if not body.startswith(("{", "[")) or not attempts_call(text):
        if attempts_call(text):
            raise BrokenCallError("a call must be JSON with `name` and `arguments`")
        return []
    return _calls(body)


def _calls(body: str) -> list[Call]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BrokenCallError(f"it is not JSON: {error}") from error
    except RecursionError as error:
        raise BrokenCallError("it is nested too deeply") from error
    if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), list):
        value = value["tool_calls"]
    items = value if isinstance(value, list) else [value]
    return [_call(item) for item in items]


def _call(item: Any) -> Call:
    if isinstance(item, Mapping) and isinstance(item.get("function"), Mapping):
        item = item["function"]
    if not isinstance(item, Mapping) or not isinstance(item.get("name"), str) or not item["name"]:
        raise BrokenCallError("a call has a `name` that is a text")
    arguments = item.get("arguments", item.get("parameters", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise BrokenCallError(f"its arguments are not JSON: {error}") from error
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, Mapping):
        raise BrokenCallError("its arguments are not an object")
    return Call(item["name"], arguments)


def schema_of(tools: Any, name: str) -> Mapping[str, Any] | None:
    """The JSON Schema of a tool's arguments; None where there is no such tool."""
    for tool in tools if isinstance(tools, Sequence) else []:
        tool = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        if tool.get("name") == name:
            schema = tool.get("parameters") or tool.get("input_schema") or {"type": "object"}
            return _mended(schema) if isinstance(schema, Mapping) else {"type": "object"}
    return None


def breaks_schema(call: Call, tools: Any) -> str:
    """How a call breaks the schema of the tools that were offered, or empty where it holds.

    A property that the schema does not name is a breach unless the schema allows it: models invent arguments.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, UnknownType

    schema = schema_of(tools, call.name)
    if schema is None:
        return f"there is no tool {call.name!r}"
    if "properties" in schema and "additionalProperties" not in schema:
        schema = {**schema, "additionalProperties": False}
    try:
        Draft202012Validator.check_schema(schema)
        error = next(iter(sorted(Draft202012Validator(schema).iter_errors(dict(call.arguments)), key=str)), None)
    except (SchemaError, UnknownType, re.error):
        return ""  # a broken schema holds nobody to anything
    return "" if error is None else error.message[:200]


def _mended(schema: Any) -> Any:
    """The schema with the type names people write (`str`, `dict`) as JSON Schema's own."""
    if isinstance(schema, list):
        return [_mended(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    made = {key: _mended(value) for key, value in schema.items()}
    kind = made.get("type")
    if isinstance(kind, str) and kind in _TYPES:
        known = _TYPES[kind]
        made = {key: value for key, value in made.items() if key != "type"} | ({"type": known} if known else {})
    return made


def same_calls(right: Sequence[Call], said: Sequence[Call], tools: Any) -> str:
    """How calls differ from the right ones, or empty where they are the same. Calls of one turn have no order.

    Texts are compared in one Unicode form without outer spaces, numbers by value. An argument left out is the same as
    its default in the schema.
    """
    if len(right) != len(said):
        return f"{len(said)} calls where {len(right)} is right"
    left = [_normal(call, tools) for call in said]
    for wanted in right:
        normal = _normal(wanted, tools)
        if normal in left:
            left.remove(normal)
            continue
        near = next((one for one in left if one[0] == normal[0]), None)
        if near is None:
            return f"the tool {wanted.name!r} is not called"
        wrong = sorted(key for key in {*normal[1], *near[1]} if normal[1].get(key) != near[1].get(key))
        return f"{wanted.name}: another {', '.join(wrong)}"
    return ""


def _normal(call: Call, tools: Any) -> tuple[str, dict[str, Any]]:
    schema = schema_of(tools, call.name) or {}
    properties = schema.get("properties", {})
    defaults = {
        key: value["default"] for key, value in properties.items() if isinstance(value, Mapping) and "default" in value
    }
    arguments = {**defaults, **{key: value for key, value in call.arguments.items() if value is not None}}
    return call.name, {key: _plain(value) for key, value in arguments.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", " ".join(value.split()))
    if isinstance(value, bool) or value is None:
        return ("constant", value)  # True is not 1
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value
