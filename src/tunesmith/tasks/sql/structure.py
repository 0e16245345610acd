"""What can be said of a query without running it: its order, its parts, and where two queries differ."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import sqlglot
from sqlglot import exp

from tunesmith.tasks.sql.schema import quote

# It says on the log what it reads only roughly (EXPLAIN, SET): not of interest, PostgreSQL decides.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

POSTGRES = sqlglot.Dialect.get_or_raise("postgres")
"""Looked up once: by its name, sqlglot makes a new one for every query."""


# The same right query is held against many answers. Few are kept, for a tree is thousands of objects, which Python's
# collector of cycles looks through again and again.
@lru_cache(maxsize=128)
def parse(sql: str) -> exp.Expression | None:
    """The query's tree, or None where sqlglot cannot read it (PostgreSQL decides what is valid, not we).

    The tree is shared between calls: copy it before changing it.
    """
    try:
        found = POSTGRES.parse(sql, error_level=sqlglot.ErrorLevel.IMMEDIATE)
    except (sqlglot.errors.SqlglotError, RecursionError):
        return None
    trees = [tree for tree in found if tree is not None]
    return trees[0] if len(trees) == 1 else None


def nodes(tree: exp.Expression) -> Iterator[exp.Expression]:
    """Every node of a tree, level by level: what `walk` gives, in a third of the time."""
    level = [tree]
    while level:
        yield from level
        level = [
            child
            for node in level
            for value in node.args.values()
            for child in (value if type(value) is list else (value,))
            if isinstance(child, exp.Expr)
        ]


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
    return next((f"wrong_{part}" for part in _PARTS if gold.part(part) != predicted.part(part)), "wrong_rows")


_PARTS = ("table", "aggregate", "join", "filter", "literal", "grouping", "distinct", "limit")
"""In the order in which a difference explains most."""


@lru_cache(maxsize=64)
def _shape(sql: str) -> _Shape | None:
    tree = parse(sql)
    return None if tree is None else _Shape(tree)


class _Shape:
    """What a query is made of, part by part; each is looked at when it is asked for, for most differ early."""

    def __init__(self, tree: exp.Expression) -> None:
        self._nodes = [node for node in nodes(tree) if isinstance(node, _SHAPING)]
        self._parts: dict[str, Counter[str]] = {}

    def part(self, name: str) -> Counter[str]:
        """How often each thing of one of `_PARTS` occurs."""
        if name not in self._parts:
            if name in ("filter", "literal"):
                self._read_conditions()
            else:
                self._parts[name] = Counter(getattr(self, f"_{name}")())
        return self._parts[name]

    def _of(self, *types: type[exp.Expression]) -> Iterator[Any]:
        return (node for node in self._nodes if isinstance(node, types))

    def _table(self) -> set[str]:
        defined = {node.alias_or_name.lower() for node in self._of(exp.CTE)}
        return {node.name.lower() for node in self._of(exp.Table)} - defined

    def _aggregate(self) -> Iterator[str]:
        # COUNT(*) and COUNT(key) usually mean the same: only the function and its DISTINCT are compared.
        for node in self._of(exp.AggFunc):
            yield f"{node.key}{' distinct' if isinstance(node.this, exp.Distinct) else ''}"

    def _join(self) -> Iterator[str]:
        for node in self._of(exp.Join):
            on = node.args.get("on")
            yield f"{node.side} {node.method}".lower()
            for pair in on.find_all(exp.EQ) if on else ():
                yield " = ".join(sorted(side.name.lower() for side in (pair.this, pair.expression)))

    def _read_conditions(self) -> None:
        filters, literals = Counter[str](), Counter[str]()
        for node in self._of(exp.Where, exp.Having):
            masked, values = _condition(node)
            filters[masked] += 1
            literals.update(values)
        self._parts |= {"filter": filters, "literal": literals}

    def _grouping(self) -> Iterator[str]:
        for node in self._of(exp.Group):
            for key in node.expressions:
                yield key.name.lower() or key.sql(dialect=POSTGRES, normalize=True)

    def _distinct(self) -> Iterator[str]:
        for node in self._of(exp.Distinct, exp.SetOperation):
            if isinstance(node, exp.Distinct) or node.args.get("distinct"):
                yield "distinct"

    def _limit(self) -> Iterator[str]:
        for node in self._of(exp.Limit, exp.Offset, exp.Fetch):
            yield node.sql(dialect=POSTGRES)


_SHAPING = (
    exp.CTE, exp.Table, exp.AggFunc, exp.Join, exp.Where, exp.Having, exp.Group, exp.Distinct, exp.SetOperation,
    exp.Limit, exp.Offset, exp.Fetch,
)  # fmt: skip
"""The nodes that `_Shape` looks at."""


def _condition(clause: exp.Expression) -> tuple[str, list[str]]:
    """A WHERE or HAVING without the names of tables and with its values masked; and the values.

    Values keep their case: 'FRANCE' finds other rows than 'France'.
    """
    body = clause.copy()
    literals = []
    for node in list(nodes(body)):
        if isinstance(node, exp.Column):
            node.set("table", None)
        elif isinstance(node, exp.Literal):
            literals.append(f"'{node.this}'" if node.is_string else str(node.this))
            node.replace(exp.Placeholder())
    return body.sql(dialect=POSTGRES, normalize=True, copy=False), literals
