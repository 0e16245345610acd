"""Prompt text back to tables: names, keys and shown values, from either style of `render_table` or a dump's DDL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tunesmith.tasks.sql.words import TOKEN


@dataclass(frozen=True, slots=True)
class Named:
    """What a prompt says of one table."""

    name: str
    """As PostgreSQL stores it, without its schema."""
    columns: frozenset[str]
    primary_key: frozenset[str] = frozenset()
    references: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Column to the (table, column) it points to."""
    values: tuple[str, ...] = ()
    """Every value shown beside its columns."""
    schema: str = "public"
    kinds: dict[str, str] = field(default_factory=dict)
    """Column to the family of its type: number, text, date, time, boolean; others are left out."""


def read_schema_text(text: str) -> dict[str, Named]:
    """Tables by name. Lines that are no table, such as an instruction before the schema, are skipped."""
    ddl = "create table" in text.lower()
    tables = {table.name: table for table in (_from_ddl(text) if ddl else _from_compact(text))}
    for table in tables.values():
        for column, (target, key) in table.references.items():
            if not key and target in tables and len(tables[target].primary_key) == 1:
                table.references[column] = (target, next(iter(tables[target].primary_key)))
    return tables


_NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
_HEAD = re.compile(rf"create\s+table\s+(?:if\s+not\s+exists\s+)?({_NAME})(?:\.({_NAME}))?\s*\(", re.IGNORECASE)
_LINE = re.compile(rf"^({_NAME})(?:\.({_NAME}))?\(", re.MULTILINE)
_COMMENT = re.compile(r"--([^\n]*)")
_VALUE = re.compile(r"'(?:[^']|'')*'")
_CONSTRAINTS = {"primary", "foreign", "unique", "constraint", "check", "exclude"}

_KINDS = {
    name: kind
    for kind, names in {
        "number": "int integer bigint smallint int2 int4 int8 numeric decimal float real double float4 float8 serial",
        "text": "text character varchar char citext bpchar",
        "date": "date",
        "time": "timestamp timestamptz",
        "boolean": "bool boolean",
    }.items()
    for name in names.split()
}

_Token = tuple[str, str]
"""Kind, and the text; names already as PostgreSQL stores them."""


def _from_ddl(text: str) -> Iterator[Named]:
    heads = list(_HEAD.finditer(text))
    for head, after in zip(heads, [*heads[1:], None], strict=True):
        body = text[head.end() : after.start() if after else len(text)]
        values = [_stored(value) for comment in _COMMENT.findall(body) for value in _VALUE.findall(comment)]
        yield _table(head, _pieces(_COMMENT.sub("", body)), values)


def _from_compact(text: str) -> Iterator[Named]:
    for head in _LINE.finditer(text):
        end = text.find("\n", head.end())
        pieces = _pieces(text[head.end() : end if end >= 0 else len(text)])
        yield _table(head, pieces, [token for piece in pieces for kind, token in piece if kind == "string"])


def _table(head: re.Match[str], pieces: Sequence[Sequence[_Token]], values: Sequence[str]) -> Named:
    schema, name = (head[1], head[2]) if head[2] else ("public", head[1])
    columns: list[str] = []
    keys: list[str] = []
    references: dict[str, tuple[str, str]] = {}
    kinds: dict[str, str] = {}
    for piece in pieces:
        if piece[0][0] not in ("word", "quoted"):
            continue
        words = [token for _, token in piece]
        if piece[0][0] == "word" and words[0] in _CONSTRAINTS and columns:
            if "foreign" in words and "references" in words:
                own = _within(words, words.index("foreign"))
                target = words.index("references")
                table = words[target + 3] if words[target + 2 : target + 3] == ["."] else words[target + 1]
                found = _within(words, target) if "(" in words[target:] else [""] * len(own)
                references.update({column: (table, key) for column, key in zip(own, found, strict=False)})
            elif "primary" in words:
                keys += _within(words, words.index("primary"))
            continue
        columns.append(words[0])
        if len(words) > 1 and words[1] in _KINDS and "[" not in words:
            kinds[words[0]] = _KINDS[words[1]]
        if "pk" in words[1:] or ("primary" in words[1:] and "key" in words[1:]):
            keys.append(words[0])
        if "->" in words:
            target = words.index("->")
            references[words[0]] = (words[target + 1], words[target + 3])
        elif "references" in words[1:]:
            target = words.index("references", 1)
            table = words[target + 3] if words[target + 2 : target + 3] == ["."] else words[target + 1]
            references[words[0]] = (table, next(iter(_within(words, target)), ""))
    return Named(_stored(name), frozenset(columns), frozenset(keys), references, tuple(values), _stored(schema), kinds)


def _within(words: Sequence[str], start: int) -> list[str]:
    """The names in the first parentheses after a word."""
    if "(" not in words[start:]:
        return []
    opened = words.index("(", start)
    closed = words.index(")", opened)
    return [word for word in words[opened + 1 : closed] if word != ","]


def _pieces(body: str) -> list[list[_Token]]:
    """The parts of a table's body between commas, up to the parenthesis that closes it."""
    pieces: list[list[_Token]] = [[]]
    depth = 0
    for match in TOKEN.finditer(body):
        kind, token = str(match.lastgroup), match[0]
        if kind == "space":
            continue
        if token == "(":
            depth += 1
        elif token == ")":
            depth -= 1
            if depth < 0:
                break
        if token == "," and depth == 0:
            pieces.append([])
        else:
            pieces[-1].append((kind, _stored(token) if kind in ("word", "quoted", "string") else token))
    return [piece for piece in pieces if piece]


def _stored(token: str) -> str:
    """A name or text as the database holds it: unquoted, and lower case where it was not quoted."""
    mark = token[0]
    return token[1:-1].replace(mark * 2, mark) if mark in "\"'" and len(token) > 1 else token.lower()
