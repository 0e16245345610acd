"""A SQL file as `psql` reads it: statements with their lines, COPY blocks, backslash lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.errors import DataError


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file."""

    sql: str
    """Without the semicolon, comments inside included."""
    line: int
    """1-based line of its first word."""
    words: tuple[str, ...]
    """Its first words, lower case, comments left out: enough to tell what kind it is."""
    rows: str | None = None
    """The data lines that follow `COPY ... FROM stdin`."""


_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>--[^\n]*)
    | (?P<block>/\*)
    | (?P<string>[eE]'[^'\\]*(?:(?:\\.|'')[^'\\]*)*'|'[^']*(?:''[^']*)*'|"[^"]*(?:""[^"]*)*")
    | (?P<dollar>\$(?:[A-Za-z_\u0080-\uffff]\w*)?\$)
    | (?P<word>[A-Za-z_\u0080-\uffff][\w$]*)
    | (?P<end>;)
    | (?P<meta>\\[^\n]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_HARMLESS_META = frozenset(
    r"\c \connect \restrict \unrestrict \encoding \echo \qecho \set \unset \pset \timing \x \a \t \q \! \.".split()
)
_WORDS_KEPT = 12


def split_statements(text: str, place: str = "") -> Iterator[Statement]:
    """Split a script the way `psql` does.

    Semicolons count outside of quotes, dollar quotes, comments, parentheses and `BEGIN ATOMIC` bodies. Backslash lines
    that only concern the terminal or the connection are skipped.

    Args:
        text: the script.
        place: its path, for errors.

    Raises:
        DataError: an unterminated quote or comment, or a backslash command that would do something, such as `\\i`.
    """
    at, lines = 0, _Lines(text)
    start, words, parens, atomic = -1, list[str](), 0, 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match is not None  # the last alternative takes any character
        kind, token, at = match.lastgroup, match[0], match.end()
        if kind == "block":
            at = _comment_end(text, match.start(), lines, place)
            continue
        if kind in ("space", "comment"):
            continue
        if kind == "meta":
            _check_meta(token, f"{place}:{lines.number(match.start())}")
            continue
        if kind == "end" and parens <= 0 and atomic <= 0:
            if start >= 0:
                statement = Statement(text[start : match.start()].rstrip(), lines.number(start), tuple(words))
                if _is_copy(statement):
                    data, at = _copy_rows(text, at)
                    statement = Statement(statement.sql, statement.line, statement.words, data)
                yield statement
            start, words, parens, atomic = -1, [], 0, 0
            continue
        if start < 0:
            start = match.start()
        if kind == "dollar":
            end = text.find(token, at)
            if end < 0:
                raise _unterminated(f"{token} quote", lines.number(match.start()), place)
            at = end + len(token)
        elif kind == "word":
            word = token.lower()
            if len(words) < _WORDS_KEPT:
                words.append(word)
            if "function" in words or "procedure" in words:
                opens = (word == "begin") or (word == "case" and atomic > 0)
                atomic += opens - (word == "end" and atomic > 0)
        elif token in "()":
            parens += 1 if token == "(" else -1
        elif token in "'\"":
            raise _unterminated(f"{token} quote", lines.number(match.start()), place)
    if start >= 0:
        yield Statement(text[start:].rstrip(), lines.number(start), tuple(words))


def line_at(text: str, offset: int) -> int:
    """1-based line of a character offset."""
    return text.count("\n", 0, offset) + 1


class _Lines:
    """Line numbers of growing offsets, counted once."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def number(self, offset: int) -> int:
        if offset < self._at:
            return self._line - self._text.count("\n", offset, self._at)
        self._line += self._text.count("\n", self._at, offset)
        self._at = offset
        return self._line


def _comment_end(text: str, start: int, lines: _Lines, place: str) -> int:
    """PostgreSQL's block comments nest."""
    depth = 0
    for mark in re.finditer(r"/\*|\*/", text[start:]):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return start + mark.end()
    raise _unterminated("comment", lines.number(start), place)


def _is_copy(statement: Statement) -> bool:
    return statement.words[:1] == ("copy",) and re.search(r"\bfrom\s+stdin\b", statement.sql, re.IGNORECASE) is not None


def _copy_rows(text: str, at: int) -> tuple[str, int]:
    begin = text.find("\n", at) + 1
    end = re.compile(r"^\\\.\r?$", re.MULTILINE).search(text, begin)
    return (text[begin : end.start()], end.end()) if end else (text[begin:], len(text))


def _check_meta(line: str, place: str) -> None:
    command = line.split()[0].rstrip(";")
    if command not in _HARMLESS_META:
        raise DataError(
            f"{command} is a command of psql, not SQL, and is not carried out here",
            place=place,
            remedy="put what it does into the file as SQL (for \\i and \\copy: the file's content)",
        )


def _unterminated(what: str, line: int, place: str) -> DataError:
    return DataError(f"a {what} that starts here never ends", place=f"{place}:{line}", remedy="close it")
