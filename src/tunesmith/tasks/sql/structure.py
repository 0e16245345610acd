"""What can be said of a query without running it: its order, its parts, and where two queries differ."""

from __future__ import annotations

import logging
import re
from collections import Counter
from functools import lru_cache

import sqlglot
from sqlglot import exp

from tunesmith.tasks.sql.schema import quote

# It says on the log what it reads only roughly (EXPLAIN, SET): not of interest, PostgreSQL decides.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


@lru_cache(maxsize=512)  # the same right query is held against many answers
def parse(sql: str) -> exp.Expression | None:
    """The query's tree, or None where sqlglot cannot read it (PostgreSQL decides what is valid, not we).

    The tree is shared between calls: copy it before changing it.
    """
    try:
        found = sqlglot.parse(sql, read="postgres", error_level=sqlglot.ErrorLevel.IMMEDIATE)
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None
    trees = [tree for tree in found if tree is not None]
    return trees[0] if len(trees) == 1 else None


def is_same_text(gold_sql: str, predicted_sql: str) -> bool:
    """Whether an answer need not be run: it is the right query but for space, case and quotes that do nothing.

    Narrower than `exact_match`: what PostgreSQL could read otherwise, or refuse, is no longer the same.
    """
    if any(mark in predicted_sql for mark in ("--", "/*", "\0")) or any(map(_is_surrogate, predicted_sql)):
        return False
    return _pieces(gold_sql) == _pieces(predicted_sql)


def _is_surrogate(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def exact_match(gold_sql: str, predicted_sql: str) -> bool:
    """Whether two queries are the same text but for case, space, quotes that do nothing, comments and semicolons."""
    return normalised(gold_sql) == normalised(predicted_sql)


_PIECE = re.compile(
    r"""
      (?P<nothing>\s+|--[^\n]*|/\*.*?\*/)
    | (?P<quoted>"[a-z_][a-z0-9_]*")(?!\s*\.?\s*\()
    | (?P<text>[eE]?'(?:[^'\\]|''|\\.)*'|"(?:[^"]|"")*"|\$(\w*)\$.*?\$\4\$)
    | (?P<word>[A-Za-z_\u0080-\uffff][\w$]*)
    | (?P<number>\d[\w.]*)
    | (?P<sign>[<>=!~@\#%^&|`?*+/:-]+|.)
    """,
    re.VERBOSE | re.DOTALL,
)


def normalised(sql: str) -> str:
    """A query's one spelling: its words, signs and texts with single spaces between them, `AS` left out."""
    return " ".join(piece for piece in _pieces(sql) if piece != "as")


@lru_cache(maxsize=4096)
def _pieces(sql: str) -> tuple[str, ...]:
    pieces: list[str] = []
    for match in _PIECE.finditer(sql.strip()):
        kind, piece = match.lastgroup, match[0]
        if kind == "nothing":
            continue
        if kind == "quoted" and quote(piece[1:-1]) == piece[1:-1]:
            piece = piece[1:-1]
        elif kind == "word":
            piece = piece.lower()
        elif piece == "!=":
            piece = "<>"
        pieces.append(piece)
    while pieces and pieces[-1] == ";":
        pieces.pop()
    return tuple(pieces)


def where_they_differ(gold_sql: str, predicted_sql: str) -> str:
    """The first part in which two queries differ, as a class of failure; `wrong_rows` where none is plain."""
    gold, predicted = _shape(gold_sql), _shape(predicted_sql)
    if gold is None or predicted is None:
        return "wrong_rows"
    return next((f"wrong_{part}" for part in _PARTS if gold[part] != predicted[part]), "wrong_rows")


_PARTS = ("table", "aggregate", "join", "filter", "literal", "grouping", "distinct", "limit")
"""In the order in which a difference explains most."""


@lru_cache(maxsize=2048)
def _shape(sql: str) -> dict[str, Counter[str]] | None:
    """What a query is made of, part by part."""
    tree = parse(sql)
    if tree is None:
        return None
    found: dict[str, Counter[str]] = {part: Counter() for part in _PARTS}
    tables, defined = set[str](), set[str]()
    for node in tree.walk():
        if isinstance(node, exp.CTE):
            defined.add(node.alias_or_name.lower())
        elif isinstance(node, exp.Table):
            tables.add(node.name.lower())
        elif isinstance(node, exp.AggFunc):
            # COUNT(*) and COUNT(key) usually mean the same: only the function and its DISTINCT are compared.
            found["aggregate"][f"{node.key}{' distinct' if isinstance(node.this, exp.Distinct) else ''}"] += 1
        elif isinstance(node, exp.Join):
            on = node.args.get("on")
            found["join"][f"{node.side} {node.method}".lower()] += 1
            for pair in on.find_all(exp.EQ) if on else ():
                found["join"][" = ".join(sorted(side.name.lower() for side in (pair.this, pair.expression)))] += 1
        elif isinstance(node, exp.Where | exp.Having):
            masked, literals = _condition(node)
            found["filter"][masked] += 1
            found["literal"].update(literals)
        elif isinstance(node, exp.Group):
            for key in node.expressions:
                found["grouping"][key.name.lower() or key.sql(dialect="postgres", normalize=True)] += 1
        elif isinstance(node, exp.Distinct) or (isinstance(node, exp.SetOperation) and node.args.get("distinct")):
            found["distinct"]["distinct"] += 1
        elif isinstance(node, exp.Limit | exp.Offset | exp.Fetch):
            found["limit"][node.sql(dialect="postgres")] += 1
    found["table"].update(tables - defined)
    return found


def _condition(clause: exp.Expression) -> tuple[str, list[str]]:
    """A WHERE or HAVING without the names of tables and with its values masked; and the values.

    Values keep their case: 'FRANCE' finds other rows than 'France'.
    """
    body = clause.copy()
    literals = []
    for node in list(body.walk()):
        if isinstance(node, exp.Column):
            node.set("table", None)
        elif isinstance(node, exp.Literal):
            literals.append(node.sql(dialect="postgres"))
            node.replace(exp.Placeholder())
    return body.sql(dialect="postgres", normalize=True), literals
