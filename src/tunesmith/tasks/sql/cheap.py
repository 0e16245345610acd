"""Cheap answers against the SQL grader: each solves nothing, and must score nothing (`tunesmith.types.RedTeamed`).

They know the right query, and even its result, which no model does: they show what a reward could be raised by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlglot import exp

from tunesmith.tasks.sql.guard import Result
from tunesmith.tasks.sql.order import top_order
from tunesmith.tasks.sql.schema import quote
from tunesmith.tasks.sql.structure import parse

_ROWS_WRITTEN = 50


def cheap_answers(gold_sql: str, gold: Result) -> Mapping[str, str]:
    """Answers by the name of the policy that gives them; those that would be right are left out.

    Args:
        gold_sql: the right query.
        gold: its result on the shipped rows.
    """
    sql, width, rows = gold_sql.strip().rstrip(";"), max(1, len(gold.columns)), list(gold.rows)
    nulls = ", ".join(["NULL"] * width)
    cheap = {
        "one": "SELECT 1 AS one",
        "nulls": f"SELECT {nulls}",
        "right_form": f"SELECT {nulls} WHERE false",
        "no_rows": f"SELECT * FROM ({sql}) q WHERE false",
        "one_column_more": f"SELECT q.*, 1 FROM ({sql}) q",
        "two_statements": f"{sql};\nSELECT 1",
        "statement_before": f"SET statement_timeout = 0;\n{sql}",
        "only_a_comment": f"-- {' '.join(sql.split())}\nSELECT 1",
        "only_a_thought": f"<think>\n{sql}\n</think>\nSELECT 1",
        "unfinished_thought": f"<think>\n{sql}",
        "as_a_text": f"SELECT $gold${sql}$gold$",
        "second_block": f"```sql\nSELECT 1\n```\nor\n```sql\n{sql}\n```",
        "explained": f"EXPLAIN {sql}",
        "prepared": f"PREPARE right_one AS {sql}",
        "other_session": "SELECT query FROM pg_stat_activity",
        "near_miss": _near_miss(sql) or f"SELECT {nulls}",
        "everything": f"SELECT * FROM ({sql}) q, pg_class, pg_attribute",
    }
    if rows and not gold.truncated:
        cheap["written_out"] = _written(rows[:_ROWS_WRITTEN], ordered=top_order(sql) is not None)
        cheap["rows_twice"] = f"SELECT * FROM ({sql}) q UNION ALL SELECT * FROM ({sql}) q"
    if len(rows) > 1:
        cheap["first_row"] = f"SELECT * FROM ({sql}) q LIMIT 1"
        if (order := top_order(sql)) is not None and order.keys is not None and _keys_differ(gold, order.keys):
            cheap["order_by_luck"] = f"SELECT * FROM ({sql}) q ORDER BY random()"
    if table := _first_table(sql):
        cheap["whole_table"] = f"SELECT *, 1 FROM {table}"
        cheap["delete_first"] = f"DELETE FROM {table};\n{sql}"
        cheap["temporary_table"] = f"CREATE TEMP TABLE {table} AS SELECT 1"
    return {name: answer for name, answer in cheap.items() if answer}


def _near_miss(sql: str) -> str:
    """The right query with the last value that it compares a column with another one; empty where there is none."""
    tree = parse(sql)
    if tree is None:
        return ""
    tree = tree.copy()
    found = [
        literal
        for comparison in tree.find_all(exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
        for literal in (comparison.this, comparison.expression)
        if isinstance(literal, exp.Literal)
    ]
    if not found:
        return ""
    last = found[-1]
    last.set("this", f"{last.this}x" if last.is_string else f"{last.this}1")
    return str(tree.sql(dialect="postgres"))


def _written(rows: Sequence[Sequence[Any]], *, ordered: bool) -> str:
    """The result itself instead of a query for it."""
    lines = [", ".join(_literal(value) for value in row) for row in rows]
    if ordered:
        return (
            "SELECT "
            + ", ".join(f"c{i}" for i in range(len(rows[0])))
            + " FROM (VALUES "
            + ", ".join(f"({number}, {line})" for number, line in enumerate(lines))
            + ") v(place, "
            + ", ".join(f"c{i}" for i in range(len(rows[0])))
            + ") ORDER BY place"
        )
    return "VALUES " + ", ".join(f"({line})" for line in lines)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value)
    escaped = str(value).replace("'", "''")
    return f"'{escaped}'" if isinstance(value, str) else f"'{escaped}'::{_CASTS.get(type(value).__name__, 'text')}"


_CASTS = {"Decimal": "numeric", "date": "date", "datetime": "timestamp", "timedelta": "interval", "time": "time"}


def _keys_differ(gold: Result, keys: Sequence[int]) -> bool:
    """Whether the rows are put in order by what is among their columns, and not all of them tie."""
    inside = [key for key in keys if 0 <= key < len(gold.columns)]
    return len({tuple(str(row[key]) for key in inside) for row in gold.rows}) > 1


def _first_table(sql: str) -> str:
    tree = parse(sql)
    if tree is None:
        return ""
    defined = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    table = next((one for one in tree.find_all(exp.Table) if one.name not in defined), None)
    if table is None:
        return ""
    name = table.name if table.this.args.get("quoted") else table.name.lower()
    return f"{quote(table.db.lower())}.{quote(name)}" if table.db else quote(name)
