"""The SQL in what a model wrote, taken out as a person would copy it."""

from __future__ import annotations

import re

from tunesmith.errors import DataError
from tunesmith.tasks.sql.script import Statement, split_statements
from tunesmith.tasks.sql.structure import parse

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_VERBS = (
    "select with values table show explain insert update delete merge create drop alter truncate grant revoke copy set "
    "do call begin commit rollback vacuum"
).split()
_QUOTED = re.compile(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")")
_QUOTED_IN_MYSQL = re.compile(r"('(?:[^'\\]|''|\\.)*'|\"(?:[^\"]|\"\")*\")", re.DOTALL)
_QUERY_LINE = re.compile(r"^[ \t(]*(?:select|with|values)\b", re.IGNORECASE | re.MULTILINE)
_QUERY_AFTER_COLON = re.compile(r":\s*(\(*\s*(?:select|with)\b)", re.IGNORECASE)


def extract_sql(text: str) -> str:
    """The query in an answer, without its semicolon; several statements where the answer gives several.

    A code block wins over the text around it; prose before the query, and after its semicolon or a blank line, is left
    out. What is no query (an INSERT, a refusal in words) comes back as it is, for the server to refuse.
    """
    text = _THOUGHT.sub("", text).strip()
    if _starts_as_sql(text):
        text = text.partition("```")[0]  # the prompt may have ended with an open block, which the answer closes
    elif blocks := _FENCE.findall(text):
        language_first = sorted(blocks, key=lambda block: block[0].lower() not in ("sql", "postgresql", "postgres"))
        text = language_first[0][1]
    elif match := _QUERY_LINE.search(text):
        text = text[match.start() :]
    elif match := _QUERY_AFTER_COLON.search(text):
        text = text[match.start(1) :]
    return _without_prose_after(_without_escapes(text.strip()))


def _starts_as_sql(text: str) -> bool:
    word = re.match(r"[\s(]*(\w+)", re.sub(r"--[^\n]*|/\*.*?\*/", " ", text[:400], flags=re.DOTALL))
    return word is not None and word[1].lower() in _VERBS


def _without_escapes(text: str) -> str:
    """Undo Markdown's `\\_` and `\\*` outside of quotes, where no valid query has a backslash."""
    # Where a model escapes a quote as MySQL does, the quoted text goes on behind it.
    parts = (_QUOTED_IN_MYSQL if "\\'" in text else _QUOTED).split(text)
    return "".join(part if i % 2 else re.sub(r"\\([_*])", r"\1", part) for i, part in enumerate(parts))


def _without_prose_after(text: str) -> str:
    try:
        statements = list(split_statements(text))
    except DataError:
        statements = []  # an apostrophe in the prose, or a torn query: decide by paragraphs alone
    kept: list[Statement] = []
    for statement in statements:
        if kept and not (statement.words and statement.words[0] in _VERBS):
            break
        kept.append(statement)
    if len(kept) > 1:
        return ";\n".join(statement.sql for statement in kept)
    if kept and len(statements) > 1:
        return kept[0].sql
    first, semicolon, rest = text.partition(";")
    if not statements and semicolon and parse(first) is not None:
        return first.strip()
    text = kept[0].sql if kept else text
    paragraphs = re.split(r"\n[ \t]*\n", text)
    if len(paragraphs) > 1 and parse(text) is None:
        for end in range(len(paragraphs) - 1, 0, -1):
            start = "\n\n".join(paragraphs[:end])
            if parse(start) is not None:
                return start.strip().rstrip(";")
    return text.strip().rstrip(";").strip()
