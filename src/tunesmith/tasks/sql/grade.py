"""The mark of an answer: by its rows on the shipped data, then on second instances of the database.

1.0 where the answer gives what the right query gives on every set of rows that it was asked on; 0.0 where it does not,
with the class of the failure; None where nothing can be said of the answer: the right query itself fails, or both give
no row on any set of rows.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tunesmith.config import schema
from tunesmith.tasks.sql.answer import extract_sql
from tunesmith.tasks.sql.clock import freeze
from tunesmith.tasks.sql.compare import Verdict
from tunesmith.tasks.sql.instances import Examined, Instances
from tunesmith.tasks.sql.judge import LUCK, is_luck, is_settled, judge
from tunesmith.tasks.sql.plans import have_same_plan
from tunesmith.tasks.sql.postgres import Result, Server
from tunesmith.tasks.sql.structure import exact_match, is_same_text, where_they_differ
from tunesmith.tasks.sql.writes import Writes, changes_rows
from tunesmith.types import Score

_ROWS_SHOWN = 10
_REMEMBERED = 5_000
"""Marks that are kept: a model that is trained by its marks gives the same answer many times."""


class SqlGrader:
    """Marks answers on one server. Safe to call from several threads.

    Args:
        server: where the databases are.
        config: `instances` and `clock` are read.
    """

    def __init__(self, server: Server, config: schema.SqlTask) -> None:
        self._server = server
        self.now = server.opened if config.clock == "start" else dt.datetime.fromisoformat(config.clock)
        """The moment at which every query is asked, in UTC."""
        self._instances = Instances(server, config.instances, self.now)
        self._writes = Writes(server)
        self._marks: OrderedDict[tuple[str, str, str], Score] = OrderedDict()
        self._settled: dict[tuple[str, str], bool] = {}

    def grade(self, database: str, golds: Sequence[str], completion: str) -> Score:
        """Mark an answer as the model wrote it, against the right query and its alternatives; the best mark counts."""
        predicted, rows = extract_sql(completion), _Shipped(self._server, database)
        best: Score | None = None
        for gold in golds:
            score = self._mark(rows, gold, predicted)
            if score.value == 1.0:
                return score
            if best is None or best.value is None:
                best = score
        assert best is not None, "an example has a right query"
        return best

    def right(self, database: str, gold: str) -> Result:
        """What the right query gives on the shipped rows."""
        return _Shipped(self._server, database).right(freeze(gold, self.now))

    def _mark(self, rows: _Shipped, gold_sql: str, predicted_sql: str) -> Score:
        key = (rows.database, gold_sql, predicted_sql)
        if (known := self._marks.get(key)) is not None:
            return known
        score = self._compare(rows, gold_sql, predicted_sql)
        self._marks[key] = score
        if len(self._marks) > _REMEMBERED:
            self._marks.popitem(last=False)
        return score

    def _is_settled(self, rows: _Shipped, gold_sql: str, gold: Result) -> bool:
        """`is_settled`, asked once for a right query: on the shipped rows it does not change."""
        key = (rows.database, gold_sql)
        if key not in self._settled:
            self._settled[key] = is_settled(rows, gold_sql, gold)
        return self._settled[key]

    def _compare(self, rows: _Shipped, gold_text: str, predicted_text: str) -> Score:
        gold_sql, predicted_sql = freeze(gold_text, self.now), freeze(predicted_text, self.now)
        if changes_rows(gold_sql):
            return self._writes.mark(rows.database, gold_sql, predicted_sql)
        gold = rows.right(gold_sql)
        if gold.error is not None:
            return Score(None, note=f"the right query cannot be used: {gold.error.message}")
        shown: dict[str, Any] = {
            "sql": predicted_text,
            "gold_columns": list(gold.columns),
            "gold_rows": shown_rows(gold),
        }
        if gold_sql is not gold_text or predicted_sql is not predicted_text:
            shown["asked_at"] = f"{self.now:%Y-%m-%d %H:%M:%S} UTC"
        if is_same_text(gold_text, predicted_text):
            shown |= {"columns": list(gold.columns), "rows": shown_rows(gold)}
            parts = {"exact_match": 1.0, "shipped_rows": 1.0, "second_instances": 1.0}
            return Score(1.0, parts, "the same query", shown=shown)
        exact = float(exact_match(gold_text, predicted_text))
        predicted = rows.answer(predicted_sql)
        shown |= {"columns": list(predicted.columns), "rows": shown_rows(predicted)}
        if predicted.error is not None:
            parts = {"exact_match": exact, "shipped_rows": 0.0}
            return Score(0.0, parts, predicted.error.message, predicted.error.failure, shown)
        verdict = judge(rows, gold_sql, gold, predicted_sql, predicted)
        parts = {"exact_match": exact, "shipped_rows": float(verdict.equal)}
        open_ = not verdict.equal and verdict.failure == "wrong_rows" and not self._is_settled(rows, gold_sql, gold)
        if verdict.equal and is_luck(rows, gold_sql, gold, predicted_sql):
            parts["shipped_rows"] = 0.0
            verdict = Verdict(False, LUCK, "wrong_rows")
        if not verdict.equal and not open_:
            return Score(0.0, parts, verdict.reason, _failure(verdict, gold_sql, predicted_sql), shown)
        if verdict.equal and have_same_plan(rows, gold_sql, predicted_sql):
            parts["second_instances"] = 1.0
            return Score(
                1.0, parts, f"{verdict.reason}, and the same plan: PostgreSQL reads both as one query", shown=shown
            )
        examined = self._instances.examine(rows.database, gold_sql, predicted_sql)
        return _score(verdict, examined, open_, parts, shown, gold_sql, predicted_sql)


def _score(
    verdict: Verdict,
    examined: Examined | None,
    is_open: bool,
    parts: dict[str, float],
    shown: dict[str, Any],
    gold_sql: str,
    predicted_sql: str,
) -> Score:
    """The mark of an answer that the shipped rows do not show to be wrong."""
    reason = "the right query leaves open which rows it gives" if is_open else verdict.reason
    if verdict.both_empty and not (examined and (examined.filled or examined.verdict)):
        return Score(None, parts, "both results are empty on every set of rows: that proves nothing", shown=shown)
    if examined is None:
        failure = _failure(verdict, gold_sql, predicted_sql) if is_open else ""
        return Score(float(not is_open), parts, f"{reason}; no second instance", failure, shown)
    if examined.verdict is None:
        parts["second_instances"] = 1.0
        return Score(1.0, parts, f"{reason}, and on {examined.agreed} instances of our own", shown=shown)
    parts["second_instances"] = 0.0
    gold, predicted = examined.gold or Result(), examined.predicted or Result()
    shown["instance"] = {
        "made_of": examined.recipe,
        "tables": {name: [list(row) for row in rows[:_ROWS_SHOWN]] for name, rows in (examined.rows or {}).items()},
        "gold_rows": shown_rows(gold),
        "rows": shown_rows(predicted),
    }
    said = examined.verdict
    note = f"{reason} on the shipped data, but not on {examined.recipe}: {said.reason}"
    return Score(0.0, parts, note, _failure(said, gold_sql, predicted_sql), shown)


_BY_CHANCE = re.compile(r"\b(random|setseed)\(", re.IGNORECASE)
"""What must be decided anew every time."""


class _Shipped:
    """The rows that a database came with, for the answers to one question."""

    def __init__(self, server: Server, database: str) -> None:
        self._server, self.database = server, database
        self._answered: dict[str, Result] = {}

    def right(self, sql: str) -> Result:
        return self._server.run(self.database, sql, gold=True, remember=not _BY_CHANCE.search(sql))

    def answer(self, sql: str) -> Result:
        if _BY_CHANCE.search(sql):
            return self._server.run(self.database, sql)
        if sql not in self._answered:  # held against several right queries, it is run once
            self._answered[sql] = self._server.run(self.database, sql)
        return self._answered[sql]


def shown_rows(result: Result) -> list[list[Any]]:
    """The first rows in a form that JSON and a person can read."""
    return [[_plain(value) for value in row] for row in result.rows[:_ROWS_SHOWN]]


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if len(value) <= 200 else value[:199] + "…"
    if isinstance(value, dt.datetime) and value.time() == dt.time(0) and value.tzinfo is None:
        return f"{value:%Y-%m-%d} 00:00"
    if isinstance(value, Decimal):
        return str(value)
    return _plain(str(value))


def _failure(verdict: Verdict, gold_sql: str, predicted_sql: str) -> str:
    """The plainest word for a wrong result: its shape first, then the part of the query that differs."""
    if verdict.failure != "wrong_rows":
        return verdict.failure
    return where_they_differ(gold_sql, predicted_sql)
