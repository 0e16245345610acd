"""Queries that PostgreSQL itself reads as one: where both have the same plan, no rows can tell them apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from sqlglot import exp

from tunesmith.tasks.sql.judge import Rows
from tunesmith.tasks.sql.order import VOLATILE
from tunesmith.tasks.sql.structure import nodes, parse

_EXPLAIN = "EXPLAIN (VERBOSE, COSTS OFF) "

_UNSAID = (
    exp.Limit, exp.Offset, exp.Fetch, exp.Window, exp.Values, exp.Lateral, exp.TableSample, exp.Lock, exp.SetOperation,
    exp.Unnest,
)  # fmt: skip
"""What a plan does not show in full: how many rows a LIMIT lets through, the frame of a window, a list of values."""


def have_same_plan(rows: Rows, gold_sql: str, predicted_sql: str) -> bool:
    """Whether two queries are one program: the same scans, joins, conditions, groups and output, word for word.

    It is a proof for every set of rows that keeps the declared constraints, for that is all a planner may assume. The
    reverse does not hold: queries with other names for their tables, or with their joins in another order, may be the
    same all the same.

    Args:
        rows: where both can be asked about.
        gold_sql: the right query.
        predicted_sql: the answer; it has been run without an error.
    """
    if not (_is_told(gold_sql) and _is_told(predicted_sql)):
        return False
    gold = rows.right(_EXPLAIN + gold_sql)
    if gold.error is not None or not gold.rows:
        return False
    predicted = rows.answer(_EXPLAIN + predicted_sql)
    return predicted.error is None and _bare(predicted.rows) == _bare(gold.rows)


_SCAN = re.compile(r"Scan\b.* on (?:\S+\.)?([^\s.]+?)(?: ([^\s.]+))?$")
_QUOTED = re.compile(r"('(?:[^']|'')*')")


def _bare(plan: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a plan; where it reads one table, without what the query called it.

    PostgreSQL writes the name where the query had more than one level, even if nothing of the second is left.
    """
    lines = [str(row[0]) for row in plan]
    scans = [(at, _SCAN.search(line)) for at, line in enumerate(lines) if "Scan" in line]
    if len(scans) != 1 or (scan := scans[0][1]) is None:
        return lines
    lines[scans[0][0]] = scan.string[: scan.end(1)]
    name = re.compile(rf"(?<![\w.]){re.escape(scan[2] or scan[1])}\.(?=[\w\"])")
    return [
        "".join(part if i % 2 else name.sub("", part) for i, part in enumerate(_QUOTED.split(line))) for line in lines
    ]


@lru_cache(maxsize=2048)
def _is_told(sql: str) -> bool:
    """Whether everything that a query does stands in its plan."""
    tree = parse(sql)
    if not isinstance(tree, exp.Select) or VOLATILE.search(sql):
        return False
    for node in nodes(tree):
        if isinstance(node, _UNSAID) or (isinstance(node, exp.With) and node.args.get("recursive")):
            return False
        if isinstance(node, exp.Distinct) and not isinstance(node.parent, exp.AggFunc):
            return False  # a plan says `Unique`, and not of which columns
    return True
