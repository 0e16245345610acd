"""Tasks that change rows: right statement and answer each run on a fresh copy, and what they leave is compared.

Copies are made by `CREATE DATABASE ... TEMPLATE` on the embedded server and dropped afterwards. The role that writes
can reach nothing but the copy.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql as psql
from sqlglot import exp

from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.sql.compare import equal
from tunesmith.tasks.sql.guard import Result
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.structure import parse, where_they_differ
from tunesmith.types import Score

log = logging.getLogger(__name__)

_TABLES = psql.SQL(
    "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname !~ '^pg_' "
    "AND n.nspname <> 'information_schema' ORDER BY 1, 2"
)
_CONTENT = "SELECT count(*), sum(('x' || substr(md5(t::text), 1, 15))::bit(60)::bigint::numeric) FROM {} t"
"""The same for two tables with the same rows, in whatever order, each as often."""

State = Mapping[str, object]
"""What each table holds, as something that can be compared."""


def changes_rows(sql: str) -> bool:
    """Whether a statement is there to change rows: INSERT, UPDATE, DELETE, MERGE, also within a WITH."""
    tree = parse(sql)
    return tree is not None and tree.find(exp.Insert, exp.Update, exp.Delete, exp.Merge) is not None


@dataclass(frozen=True, slots=True)
class _Left:
    """What a statement left behind."""

    state: State
    result: Result


class Writes:
    """Marks statements that change rows."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._right: dict[tuple[str, str], _Left | str] = {}

    def mark(self, database: str, gold_sql: str, predicted_sql: str) -> Score:
        """1.0 where the answer leaves every table as the right statement does, and returns what that returns.

        None where the right statement fails, changes nothing, or leaves other rows each time; and on a server of the
        user's own whose database has no SQL file: there is nothing that may be written to.
        """
        right = self._of_right(database, gold_sql)
        if isinstance(right, str):
            return Score(None, note=right)
        shown = {"sql": predicted_sql, "columns": [], "rows": [], "gold_columns": [], "gold_rows": []}
        left = self._run(database, predicted_sql)
        if left.result.error is not None:
            return Score(0.0, {}, left.result.error.message, left.result.error.failure, shown)
        differing = [name for name in right.state if right.state[name] != left.state.get(name)]
        if differing:
            failure = where_they_differ(gold_sql, predicted_sql)
            return Score(0.0, {}, f"other rows than there should be in {', '.join(differing)}", failure, shown)
        if right.result.columns:
            verdict = equal(right.result, left.result, ordered=False)
            if not verdict.equal:
                return Score(
                    0.0, {}, f"the right rows are changed, but returned: {verdict.reason}", verdict.failure, shown
                )
        return Score(1.0, {}, "every table is left as it should be", shown=shown)

    def _of_right(self, database: str, sql: str) -> _Left | str:
        key = (database, sql)
        if key not in self._right:
            try:
                self._right[key] = self._settled(database, sql)
            except (ConfigError, DataError) as error:
                self._right[key] = f"what changes rows cannot be run: {error.message}"
        return self._right[key]

    def _settled(self, database: str, sql: str) -> _Left | str:
        left, again = self._run(database, sql), self._run(database, sql)
        if left.result.error is not None:
            return f"the right statement cannot be used: {left.result.error.message}"
        if left.state != again.state:
            return "the right statement leaves other rows each time it is run"
        if left.state == self._run(database, "").state:
            return "the right statement changes nothing, which proves nothing"
        return left

    def _run(self, database: str, sql: str) -> _Left:
        beside, name = self._server.beside(), f"{database.encode()[:48].decode(errors='ignore')} written"
        source = self._server.sql_file(database)
        if beside is not self._server and source is None:
            raise ConfigError(
                "on a server of your own nothing is written",
                place=f"task.databases.{database}",
                remedy="name the SQL file that creates the database: a private copy is made from it",
            )
        if source is not None:
            beside.load(database, source)
        beside.copy(database, name, writable=True)
        try:
            result = beside.write(name, sql) if sql else Result()
            return _Left(_state(beside, name), result)
        finally:
            beside.drop(name)


def _state(server: Server, name: str) -> State:
    found: dict[str, object] = {}
    for schema, table in server.trusted(name, _TABLES):
        content = psql.SQL(_CONTENT).format(psql.Identifier(schema, table))
        found[f"{schema}.{table}"] = server.trusted(name, content)
    return found
