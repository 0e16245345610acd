"""What can be said of a query without running it: its order, its parts, and where two queries differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import sqlglot
from sqlglot import exp


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


@dataclass(frozen=True, slots=True)
class Order:
    """How a query orders its rows at the top."""

    keyed_sql: str
    """The query with those keys appended that are not among its columns."""
    keys: tuple[int, ...] | None
    """0-based columns of `keyed_sql` that the rows are ordered by, from the end where negative; None where they are not
    known."""


def top_order(sql: str) -> Order | None:
    """The order that a query's own top level asks for; None where it asks for none, or cannot be read.

    An ORDER BY in a subquery, a window or an aggregate is not at the top.
    """
    tree = parse(sql)
    if tree is None:
        return None
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    clause = tree.args.get("order")
    if clause is None:
        return None
    select = tree.copy()
    keys: list[int] = []
    appended: list[exp.Expression] = []
    for ordered in clause.expressions:
        column = _output_column(tree, ordered.this)
        if column is None:
            appended.append(ordered.this.copy())
            column = -len(appended)
        keys.append(column)
    if not appended:
        return Order(sql, tuple(keys))
    if not isinstance(tree, exp.Select) or tree.args.get("distinct"):
        return Order(sql, None)  # what is not among the columns of these cannot be added to them
    for number, key in enumerate(reversed(appended)):
        select.select(exp.alias_(key, f"order_key_{number}"), copy=False)
    return Order(select.sql(dialect="postgres"), tuple(keys))


def _output_column(tree: exp.Expression, key: exp.Expression) -> int | None:
    """The output column that a key of ORDER BY is: by number, by name, or because it is the same expression."""
    if isinstance(key, exp.Literal) and key.is_int:
        return int(key.this) - 1
    outputs = list(tree.selects) if isinstance(tree, exp.Query) else []
    if any(output.is_star for output in outputs):
        return None
    for i, output in enumerate(outputs):
        named = isinstance(key, exp.Column) and not key.table and output.alias_or_name.lower() == key.name.lower()
        if named or output.unalias() == key:
            return i
    return None


def exact_match(gold_sql: str, predicted_sql: str) -> bool:
    """Whether two queries are the same text but for case, space, quotes that do nothing, comments and semicolons."""
    return normalised(gold_sql) == normalised(predicted_sql)


def normalised(sql: str) -> str:
    """A query's one spelling."""
    tree = parse(sql)
    if tree is None:
        return _squeeze(sql)

    def plain(node: exp.Expression) -> exp.Expression:
        if isinstance(node, exp.Identifier):
            name = node.name if node.args.get("quoted") else node.name.lower()
            node.set("this", name)
            node.set("quoted", re.fullmatch(r"[a-z_][a-z0-9_]*", name) is None)
        return node

    return str(tree.transform(plain).sql(dialect="postgres", comments=False, normalize_functions="lower"))


def where_they_differ(gold_sql: str, predicted_sql: str) -> str:
    """The first part in which two queries differ, as a class of failure; `wrong_rows` where none is plain."""
    gold, predicted = parse(gold_sql), parse(predicted_sql)
    if gold is None or predicted is None:
        return "wrong_rows"
    for failure, parts in (
        ("wrong_table", _tables),
        ("wrong_aggregate", _aggregates),
        ("wrong_join", _joins),
        ("wrong_filter", _filters),
    ):
        if parts(gold) != parts(predicted):
            return failure
    return "wrong_rows"


def _tables(tree: exp.Expression) -> set[str]:
    defined = {cte.alias_or_name.lower() for cte in tree.find_all(exp.CTE)}
    return {table.name.lower() for table in tree.find_all(exp.Table)} - defined


def _aggregates(tree: exp.Expression) -> Counter[str]:
    # COUNT(*) and COUNT(key) usually mean the same: only the function and its DISTINCT are compared.
    return Counter(f"{node.key}{' distinct' if node.find(exp.Distinct) else ''}" for node in tree.find_all(exp.AggFunc))


def _joins(tree: exp.Expression) -> Counter[str]:
    found: Counter[str] = Counter()
    for join in tree.find_all(exp.Join):
        on = join.args.get("on")
        found[f"{join.side} {join.method}".lower()] += 1
        for pair in on.find_all(exp.EQ) if on else ():
            found[" = ".join(sorted(side.name.lower() for side in (pair.this, pair.expression)))] += 1
    return found


def _filters(tree: exp.Expression) -> Counter[str]:
    found: Counter[str] = Counter()
    for clause in (*tree.find_all(exp.Where), *tree.find_all(exp.Having), *tree.find_all(exp.Limit)):
        body = clause.copy()
        for column in body.find_all(exp.Column):
            column.set("table", None)
        # Values keep their case: 'FRANCE' finds other rows than 'France'.
        found[body.sql(dialect="postgres", normalize=True)] += 1
    return found


def _squeeze(sql: str) -> str:
    """Lower case and single spaces outside of quotes."""
    parts: Sequence[str] = re.split(r"('(?:[^']|'')*'|\"(?:[^\"]|\"\")*\")", sql.strip().rstrip(";"))
    return "".join(part if i % 2 else re.sub(r"\s+", " ", part).lower() for i, part in enumerate(parts)).strip()
