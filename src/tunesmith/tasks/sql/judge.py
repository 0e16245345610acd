"""Whether an answer says what the right query says, on one set of rows: values, ties, and whose order it is."""

from __future__ import annotations

from typing import Any, Protocol

from tunesmith.tasks.sql.compare import Verdict, cell, equal, groups
from tunesmith.tasks.sql.guard import Result
from tunesmith.tasks.sql.order import own_order, shaken, top_order, uncut
from tunesmith.tasks.sql.structure import POSTGRES, parse

LUCK = "the right rows, but by luck: the answer leaves open which of several tied rows it keeps"


class Rows(Protocol):
    """One set of rows that queries can be asked about."""

    def right(self, sql: str) -> Result:
        """Run the right query, or a variant of it."""
        ...

    def answer(self, sql: str) -> Result:
        """Run what a model wrote, or a variant of it."""
        ...


def judge(rows: Rows, gold_sql: str, gold: Result, predicted_sql: str, predicted: Result) -> Verdict:
    """Hold a result against the right one. What may differ is what the right query leaves open: order, and ties.

    Args:
        rows: what both were run on.
        gold_sql: the right query.
        gold: its result, without an error.
        predicted_sql: the answer.
        predicted: its result, without an error.
    """
    order = top_order(gold_sql)
    verdict = equal(gold, predicted, ordered=order is not None)
    ties: list[tuple[Any, ...]] | None = None
    asks_order = order is not None and len(gold.rows) > 1
    if not verdict.equal or asks_order:
        ties = _ties(rows, gold_sql, gold) if order is not None else None
    if not verdict.equal and order is not None and ties is not None:
        verdict = equal(gold, predicted, ordered=True, ties=ties)
    if not verdict.equal and len(gold.rows) == len(predicted.rows) and len(gold.columns) == len(predicted.columns):
        verdict = _with_cut_ties(rows, gold_sql, gold, predicted, verdict)
    if verdict.equal and asks_order and not _is_ordered(rows, predicted_sql, predicted, groups(gold, ties)):
        return Verdict(False, "the right rows, but not ordered by the query: their order is luck", "wrong_order")
    return verdict


def is_luck(rows: Rows, gold_sql: str, gold: Result, predicted_sql: str) -> bool:
    """Whether an answer that was found right is so by chance: with what it leaves open decided otherwise, it is wrong.

    Which rows a LIMIT keeps among those that tie, for example, where the right query has no such tie.
    """
    other = shaken(predicted_sql)
    if other is None:
        return False
    rows.answer("SELECT setseed(0.5)")  # the same chance every time
    for _ in range(2):
        again = rows.answer(other)
        if again.error is not None:
            return False  # our variant cannot be run, which says nothing of the answer
        if not judge(rows, gold_sql, gold, other, again).equal:
            tree = parse(predicted_sql)
            plain_sql = tree.sql(dialect=POSTGRES) if tree is not None else ""
            plain = rows.answer(plain_sql)  # our way of writing it must not be what makes it wrong
            return plain.error is None and judge(rows, gold_sql, gold, plain_sql, plain).equal
    return False


def is_settled(rows: Rows, gold_sql: str, gold: Result) -> bool:
    """Whether the right query has one result, up to what `judge` allows: chance in what it leaves open changes nothing.

    Eight tries: two rows that tie stay as they were in one of 256 cases.
    """
    other = shaken(gold_sql, top=uncut(gold_sql) is None)
    if other is None:
        return True
    rows.right("SELECT setseed(0.5)")
    for _ in range(8):
        again = rows.right(other)
        if again.error is not None:
            return True  # our variant cannot be run, which says nothing of the query
        if not judge(rows, gold_sql, gold, other, again).equal:
            return False
    return True


def _ties(rows: Rows, gold_sql: str, gold: Result) -> list[tuple[Any, ...]] | None:
    """For each gold row the values it was ordered by; None where they are not known."""
    order = top_order(gold_sql)
    if order is None or order.keys is None:
        return None
    keyed = gold if order.keyed_sql == gold_sql else rows.right(order.keyed_sql)
    if keyed.error is not None or len(keyed.rows) != len(gold.rows):
        return None
    return [tuple(row[i] for i in order.keys) for row in keyed.rows]


def _with_cut_ties(rows: Rows, gold_sql: str, gold: Result, predicted: Result, verdict: Verdict) -> Verdict:
    """The verdict where a LIMIT or OFFSET goes through rows that tie: which of them are kept is open."""
    cut = uncut(gold_sql)
    if cut is None or not gold.rows:
        return verdict
    wider_sql, _, offset = cut
    wider = rows.right(wider_sql)
    if wider.error is not None or len(wider.rows) < offset + len(gold.rows):
        return verdict
    width, end = len(gold.columns), offset + len(gold.rows)
    order = top_order(gold_sql)
    if order is not None and order.keys is None:
        return verdict
    keys = [tuple(cell(row[i]) for i in order.keys) if order and order.keys else () for row in wider.rows]
    first = [row[:width] for row, key in zip(wider.rows[:offset], keys, strict=False) if key == keys[offset]]
    last = [row[:width] for row, key in zip(wider.rows[end:], keys[end:], strict=True) if key == keys[end - 1]]
    if not first and not last:
        return verdict
    kept = Result(gold.columns, tuple(row[:width] for row in wider.rows[offset:end]))
    tied = [tuple(row[i] for i in order.keys) if order and order.keys else () for row in wider.rows[offset:end]]
    return equal(kept, predicted, ordered=order is not None, ties=tied, first=first, last=last)


def _is_ordered(rows: Rows, sql: str, result: Result, group: list[int]) -> bool:
    """Whether the answer itself puts rows of different groups in order: rows it ties all belong to one group."""
    if group[-1] == 0:
        return True
    order = own_order(sql)
    if order is None:
        return False
    if order.keys is None:
        return True  # it orders, by what cannot be added to its columns
    keyed = result if order.keyed_sql == sql else rows.answer(order.keyed_sql)
    if keyed.error is not None or len(keyed.rows) != len(result.rows):
        return True
    keys = [tuple(cell(row[i]) for i in order.keys) for row in keyed.rows]
    return all(keys[i] != keys[i - 1] for i in range(1, len(group)) if group[i] != group[i - 1])
