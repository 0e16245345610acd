"""The fields of a stored document -> the fields a task reads: which key holds the question, the solution, the turns."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.errors import ConfigError

FIELDS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "instruction", "query", "prompt", "cau_hoi", "de_bai"),
    "solution": ("solution", "explanation", "rationale", "response", "output", "loi_giai"),
    "answer": ("answer", "final_answer", "dap_an", "label"),
    "text": ("cleaned_content", "page_content", "content", "text", "document", "chunk", "transcript"),
    "messages": ("messages", "conversations", "conversation", "turns", "dialogue", "dialog"),
    "document": (
        "document_id",
        "doc_id",
        "link",
        "url",
        "source",
        "file",
        "file_name",
        "conversation_id",
        "session",
    ),
    "type": ("type", "data_type", "doc_type", "category", "kind"),
    "grade": ("grade", "grade_id", "level", "class", "lop"),
}
"""What a task needs to the names it has in collections people keep, likeliest first; `--field question=key` says it."""

_PARTS = re.compile(
    r"^\s*(?:\#+\s*|\*\*)?(?:question|problem|câu\s+hỏi|đề\s+bài|bài\s+toán|hỏi)\s*(?:\*\*)?\s*:(?:\*\*)?\s*(?P<question>.+?)"
    r"\n\s*(?:\#+\s*|\*\*)?(?:solution|answer|explanation|lời\s+giải|bài\s+giải|hướng\s+dẫn\s+giải|đáp\s+án|trả\s+lời)"
    r"(?:\s+chi\s+tiết)?\s*(?:\*\*)?\s*:(?:\*\*)?\s*(?P<solution>.+)$",
    re.IGNORECASE | re.DOTALL,
)
_SPEAKERS = {
    "user": "user|customer|client|caller|human|visitor|khách|khách hàng|người dùng|học sinh|student",
    "assistant": "assistant|agent|support|bot|operator|advisor|tutor|teacher|nhân viên|tư vấn viên|trợ lý|gia sư",
    "system": "system",
}
_TURN = re.compile(
    r"^[ \t]*(?:\[[^\]\n]{1,24}\]\s*)?(?:"
    + "|".join(f"(?P<{role}>{names})" for role, names in _SPEAKERS.items())
    + r")(?:\s*\([^)\n]{1,30}\))?\s*:[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)


def lookup(fields: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, as it is or inside `metadata`; None where there is none."""
    for path in (key, f"metadata.{key}"):
        value: Any = fields
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def key_of(fields: Mapping[str, Any], what: str, chosen: Mapping[str, str]) -> str | None:
    """The key under which a document holds what is wanted, as it was chosen or as it is usually called."""
    if what in chosen:
        return chosen[what]
    for name in FIELDS[what]:
        for path in (name, f"metadata.{name}"):
            value: Any = fields
            for part in path.split("."):
                value = value.get(part) if isinstance(value, Mapping) else None
            if value is not None:
                return path
    return None


def filter_key(fields: Mapping[str, Any], what: str, chosen: Mapping[str, str]) -> str:
    """The key to filter by.

    Raises:
        ConfigError: the documents have none; lists what they have.
    """
    key = key_of(fields, what, chosen)
    if key is None:
        have = ", ".join(sorted(_keys(fields))) or "nothing"
        raise ConfigError(
            f"the documents have no field for the {what}; they have: {have}",
            place=f"--{what}",
            remedy=f"say which one it is: --field {what}=NAME",
        )
    return key


def _keys(fields: Mapping[str, Any]) -> Iterable[str]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in value)
        else:
            yield key


def problem_fields(fields: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """`question`, `solution` and `answer` of a document, from fields of their own or out of one text with headings.

    What is not there is left out; the task then says what it lacks.
    """
    found: dict[str, Any] = {}
    for what in ("question", "solution", "answer"):
        key = key_of(fields, what, chosen)
        value = lookup(fields, key) if key else None
        if isinstance(value, str | int | float) and str(value).strip():
            found[what] = value.strip() if isinstance(value, str) else value
    for what in ("choices", "language"):
        if (value := lookup(fields, what)) is not None:
            found[what] = value
    if "question" not in found or len(found.keys() & {"solution", "answer"}) == 0:
        key = key_of(fields, "text", chosen)
        text = lookup(fields, key) if key else None
        if isinstance(text, str) and (parts := _PARTS.match(text)):
            found |= {name: part.strip() for name, part in parts.groupdict().items()}
    return found


def turns_of(fields: Mapping[str, Any], chosen: Mapping[str, str]) -> list[Any]:
    """The turns of a transcript: a list of them (also as JSON text), or a text with a speaker before each turn."""
    for what in ("messages", "text"):
        key = key_of(fields, what, chosen)
        value = lookup(fields, key) if key else None
        if isinstance(value, str) and value.lstrip().startswith("["):
            with contextlib.suppress(ValueError):
                value = json.loads(value)
        if isinstance(value, list):
            return value
        if isinstance(value, str) and (turns := _spoken(value)):
            return turns
    return []


def _spoken(text: str) -> list[dict[str, str]]:
    marks = list(_TURN.finditer(text))
    if not marks or text[: marks[0].start()].strip():
        return []
    stops = [*(mark.start() for mark in marks[1:]), len(text)]
    return [
        {"role": str(mark.lastgroup), "content": text[mark.end() : stop].strip()}
        for mark, stop in zip(marks, stops, strict=True)
    ]
