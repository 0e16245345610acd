"""Queries that ask what time it is, asked at one fixed moment: the same answer is the same tomorrow.

`CURRENT_DATE` and its like cannot be set from outside in PostgreSQL, so the words themselves are replaced by the moment
before the query is sent; text in quotes and comments is left alone.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable

_MAY_ASK = re.compile(
    r"current_date|current_time|localtime|\bnow\b|_timestamp\s*\(|timeofday|\bage\s*\(|'\s*(?:today|yesterday|tomorrow|now)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"""
      (?P<skip>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<quoted>[eE]?'(?:[^'\\]|''|\\.)*'|"[^"]*(?:""[^"]*)*"|\$(\w*)\$.*?\$\3\$)
    | (?P<word>[A-Za-z_\u0080-\uffff][\w$]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_Write = Callable[[dt.datetime], str]


def _stamp(at: dt.datetime) -> str:
    return f"TIMESTAMP WITH TIME ZONE '{at:%Y-%m-%d %H:%M:%S}+00'"


def _local(at: dt.datetime) -> str:
    return f"TIMESTAMP '{at:%Y-%m-%d %H:%M:%S}'"


_WORDS: dict[str, _Write] = {
    "current_date": lambda at: f"DATE '{at:%Y-%m-%d}'",
    "current_timestamp": _stamp,
    "localtimestamp": _local,
    "current_time": lambda at: f"TIME WITH TIME ZONE '{at:%H:%M:%S}+00'",
    "localtime": lambda at: f"TIME '{at:%H:%M:%S}'",
}
_CALLS: dict[str, _Write] = {
    "now": _stamp,
    "transaction_timestamp": _stamp,
    "statement_timestamp": _stamp,
    "clock_timestamp": _stamp,
    "timeofday": lambda at: f"'{at:%a %b %d %H:%M:%S}.000000 {at:%Y} UTC'",
}
_TEXTS: dict[str, _Write] = {
    "now": lambda at: f"'{at:%Y-%m-%d %H:%M:%S}+00'",
    "today": lambda at: f"'{at:%Y-%m-%d}'",
    "yesterday": lambda at: f"'{at - dt.timedelta(days=1):%Y-%m-%d}'",
    "tomorrow": lambda at: f"'{at + dt.timedelta(days=1):%Y-%m-%d}'",
}
_DATE_TYPES = ("date", "timestamp", "timestamptz", "time", "timetz")


def freeze(sql: str, at: dt.datetime) -> str:
    """The query with every question for the time answered by `at` (UTC); the same object where it asks none."""
    if not _MAY_ASK.search(sql):
        return sql
    tokens = [(match.lastgroup or "", match[0]) for match in _TOKEN.finditer(sql)]
    tokens = [("quoted" if text[:1] in "$'\"" and len(text) > 1 else kind, text) for kind, text in tokens]
    solid = [i for i, (kind, text) in enumerate(tokens) if not (text.isspace() or text.startswith(("--", "/*")))]
    written = [text for _, text in tokens]
    for place, i in enumerate(solid):
        kind, text = tokens[i]

        def near(step: int, place: int = place) -> str:
            there = place + step
            return tokens[solid[there]][1].lower() if 0 <= there < len(solid) else ""

        if kind == "quoted" and (write := _TEXTS.get(text[1:-1].strip().lower())) and text[0] == "'":
            typed = near(-1) in _DATE_TYPES or near(-1) == "zone"
            cast = (near(1) == ":" and near(3) in _DATE_TYPES) or (near(1) == "as" and near(2) in _DATE_TYPES)
            if typed or cast:
                written[i] = write(at)
        if kind != "word" or near(-1) == "." or near(-1) == "as":
            continue
        word = text.lower()
        if word in _WORDS:
            written[i] = _WORDS[word](at)
            if near(1) == "(" and near(3) == ")":  # a precision: CURRENT_TIMESTAMP(0)
                for j in solid[place + 1 : place + 4]:
                    written[j] = ""
        elif word in _CALLS and near(1) == "(" and near(2) == ")":
            written[i] = _CALLS[word](at)
            for j in solid[place + 1 : place + 3]:
                written[j] = ""
        elif word == "age" and near(1) == "(" and _one_argument([tokens[j][1] for j in solid[place + 2 :]]):
            written[solid[place + 1]] = f"(TIMESTAMP '{at:%Y-%m-%d}', "
    frozen = "".join(written)
    return sql if frozen == sql else frozen


def _one_argument(following: list[str]) -> bool:
    depth = 0
    for text in following:
        if text == ")" and depth == 0:
            return True
        if text == "," and depth == 0:
            return False
        depth += (text in "([") - (text in ")]") if len(text) == 1 else 0
    return False
