"""What a query leaves open: the order of its rows, which of tied rows it keeps, in what order it adds them up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from sqlglot import exp

from tunesmith.tasks.sql.structure import POSTGRES, nodes, parse

VOLATILE = re.compile(
    r"\b(random|random_normal|setseed|clock_timestamp|timeofday|gen_random_uuid|uuid_generate_v[14]|nextval)\s*\(",
    re.IGNORECASE,
)
"""Functions whose value is another at every call: what is ordered by them is not ordered."""

_MAY_LEAVE_OPEN = re.compile(
    r"\b(limit|offset|fetch|over)\b|\bdistinct\s+on\b|_agg\b|_object_agg|xmlagg", re.IGNORECASE
)

_MORE = 200
"""Rows fetched beyond a LIMIT to see which tie with its last one."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a query orders its rows at the top."""

    keyed_sql: str
    """The query with those keys appended that are not among its columns."""
    keys: tuple[int, ...] | None
    """0-based columns of `keyed_sql` that the rows are ordered by, from the end where negative; None where they are not
    known."""


@lru_cache(maxsize=2048)
def top_order(sql: str) -> Order | None:
    """The order that a query's own top level asks for; None where it asks for none, or cannot be read.

    An ORDER BY in a subquery, a window or an aggregate is not at the top.
    """
    tree = parse(sql) if re.search(r"\border\s+by\b", sql, re.IGNORECASE) else None
    if tree is None:
        return None
    tree = _unwrapped(tree)
    clause = tree.args.get("order")
    if clause is None:
        return None
    select = tree.copy()
    keys: list[int] = []
    appended: list[exp.Expression] = []
    for ordered in clause.expressions:
        if VOLATILE.search(ordered.sql(dialect=POSTGRES)):
            break  # what follows it decides nothing either
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
    return Order(select.sql(dialect=POSTGRES, copy=False), tuple(keys))


@lru_cache(maxsize=2048)
def own_order(sql: str) -> Order | None:
    """The order of the rows that a query hands on, for a query that must order them.

    PostgreSQL hands the rows of a subquery on in its order where the outer query only selects from it, so that counts
    as ordered.
    """
    found = top_order(sql)
    tree = parse(sql)
    if found is not None or tree is None:
        return found
    inner = _passed_on(_unwrapped(tree))
    return None if inner is None else own_order(inner.sql(dialect=POSTGRES))


@lru_cache(maxsize=2048)
def uncut(sql: str) -> tuple[str, int, int] | None:
    """The query with more rows than its LIMIT lets through, the limit and the offset; None where it has none.

    The keys of `top_order` are appended as they are there.
    """
    tree = parse(sql) if re.search(r"\b(limit|offset|fetch)\b", sql, re.IGNORECASE) else None
    if tree is None:
        return None
    order = top_order(sql)
    tree = _unwrapped(parse(order.keyed_sql) or tree if order else tree)
    limit, offset = tree.args.get("limit"), tree.args.get("offset")
    if limit is None and offset is None:
        return None
    most = limit.args.get("expression") or limit.args.get("count") if limit is not None else None
    if isinstance(limit, exp.Fetch) and re.search(r"with ties", limit.sql(dialect=POSTGRES), re.IGNORECASE):
        return None
    skipped = offset.expression if offset is not None else None
    if not all(part is None or (isinstance(part, exp.Literal) and part.is_int) for part in (most, skipped)):
        return None
    taken, left_out = int(most.this) if most is not None else 1_000_000, int(skipped.this) if skipped is not None else 0
    wider = tree.copy()
    wider.set("offset", None)
    wider.set("limit", exp.Limit(expression=exp.Literal.number(left_out + taken + _MORE)) if most is not None else None)
    return wider.sql(dialect=POSTGRES, copy=False), taken, left_out


@lru_cache(maxsize=2048)
def shaken(sql: str, *, top: bool = True) -> str | None:
    """The query with everything that it leaves open decided by chance; None where it leaves nothing open.

    Rows that tie in an ORDER BY with a LIMIT, in a DISTINCT ON, in a window that counts rows, and values aggregated in
    no order: two runs that differ show that the query does not say what it wants.

    Args:
        sql: the query.
        top: also what a LIMIT at its top leaves open.
    """
    tree = parse(sql) if _MAY_LEAVE_OPEN.search(sql) else None
    if tree is None:
        return None
    tree = tree.copy()
    changed = False
    for node in list(nodes(tree)):
        if not top and node is _unwrapped(tree) and not _distinct_on(node):
            continue
        if isinstance(node, exp.Query) and (node.args.get("limit") or node.args.get("offset") or _distinct_on(node)):
            changed |= _shake_query(node)
        elif isinstance(node, exp.Window) and _counts_rows(node):
            _append_random(node)
            changed = True
        elif isinstance(node, exp.ArrayAgg | exp.GroupConcat | exp.JSONArrayAgg | exp.AnonymousAggFunc):
            changed |= _shake_aggregate(node)
    return tree.sql(dialect=POSTGRES, copy=False) if changed else None


def _shake_query(query: exp.Query) -> bool:
    if not isinstance(query, exp.Select):
        return False
    if query.args.get("distinct") and not _distinct_on(query):
        # Only output columns may be ordered by: the last of them, the other way round.
        width = len(query.selects)
        for i in range(width):
            _append(query, exp.Ordered(this=exp.Literal.number(width - i), desc=True, nulls_first=False))
        return not any(column.is_star for column in query.selects)
    _append(query, exp.Ordered(this=exp.Anonymous(this="random"), nulls_first=False))
    return True


def _append(node: exp.Expression, ordered: exp.Expression) -> None:
    order = node.args.get("order")
    if order is None:
        node.set("order", exp.Order(expressions=[ordered]))
    else:
        order.append("expressions", ordered)


def _append_random(node: exp.Expression) -> None:
    _append(node, exp.Ordered(this=exp.Anonymous(this="random"), nulls_first=False))


def _distinct_on(node: exp.Expression) -> bool:
    distinct = node.args.get("distinct")
    return isinstance(distinct, exp.Distinct) and distinct.args.get("on") is not None


_ROW_FUNCTIONS = (exp.RowNumber, exp.FirstValue, exp.LastValue, exp.NthValue, exp.Lag, exp.Lead, exp.Ntile)


def _counts_rows(window: exp.Window) -> bool:
    spec = window.args.get("spec")
    by_rows = spec is not None and str(spec.args.get("kind", "")).upper() == "ROWS"
    return by_rows or isinstance(window.this, _ROW_FUNCTIONS)


def _shake_aggregate(node: exp.Expression) -> bool:
    inner = node.this
    if isinstance(inner, exp.Distinct) or inner is None:
        return False
    if isinstance(inner, exp.Order):
        inner.append("expressions", exp.Ordered(this=exp.Anonymous(this="random"), nulls_first=False))
    else:
        random = exp.Ordered(this=exp.Anonymous(this="random"), nulls_first=False)
        node.set("this", exp.Order(this=inner.copy(), expressions=[random]))
    return True


def _unwrapped(tree: exp.Expression) -> exp.Expression:
    while isinstance(tree, exp.Subquery) and not tree.args.get("order"):
        tree = tree.this
    return tree


def _passed_on(tree: exp.Expression) -> exp.Expression | None:
    """The only subquery or CTE that a SELECT takes its rows from one by one."""
    if not isinstance(tree, exp.Select) or any(tree.args.get(key) for key in ("group", "distinct", "having", "joins")):
        return None
    if any(column.find(exp.AggFunc, exp.Window) for column in tree.selects):
        return None
    source = tree.args.get("from_") or tree.args.get("from")
    if source is None:
        return None
    if isinstance(source.this, exp.Subquery):
        inner: exp.Expression = source.this.this
        return inner
    if isinstance(source.this, exp.Table):
        for cte in _ctes(tree):
            if cte.alias_or_name.lower() == source.this.name.lower():
                inner = cte.this
                return inner
    return None


def _ctes(tree: exp.Expression) -> Iterator[exp.CTE]:
    with_ = tree.args.get("with_") or tree.args.get("with")
    yield from with_.expressions if with_ is not None else ()


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
