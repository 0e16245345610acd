"""Where SQL runs: a private embedded PostgreSQL, or the user's own server; what a model wrote runs guarded on both."""

from __future__ import annotations

import datetime as dt
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql as psql

from tunesmith.config.schema import SqlTask
from tunesmith.errors import DataError
from tunesmith.tasks.sql.guard import FAILURES, Limits, Result, SqlError, plainly, read_any_date, run_guarded
from tunesmith.tasks.sql.home import Own, Private, Use, find_address
from tunesmith.tasks.sql.loading import USER_SCHEMAS, digest_of
from tunesmith.types import Finding

__all__ = ["FAILURES", "Limits", "Result", "Server", "SqlError", "open_server"]

log = logging.getLogger(__name__)

_USES: tuple[Use, ...] = ("gold", "guest", "writer", "owner")

_GOLD_CACHE_ROWS = 200_000
"""Rows of remembered gold results, over all queries."""


def open_server(task: SqlTask, environ: Mapping[str, str] | None = None) -> Server:
    """The server that `task.server` names, or that `TUNESMITH_POSTGRES_URL` does where it is set.

    Use it as a context manager: the embedded server is stopped and removed at its end, also after an exception.

    Args:
        task: the settings; its databases are loaded when they are first used.
        environ: where variables are looked up; None is the process's own environment.

    Raises:
        ConfigError: the embedded server is missing or does not start; the variable is not set; the connection string is
            wrong, holds a password, or names a superuser.
    """
    address, place = find_address(task, os.environ if environ is None else environ)
    return Server(task, Own(address, place) if address else Private())


class Server:
    """Databases that queries can be run on. One query at a time; safe to call from several threads."""

    def __init__(self, task: SqlTask, home: Own | Private) -> None:
        self._task = task
        self.opened = dt.datetime.now(dt.UTC).replace(microsecond=0)
        """When this server was opened."""
        self._home = home
        self._strict = isinstance(home, Private)  # its roles may not change their session from within a query
        self._limits = Limits(task.timeout_seconds, task.max_rows, task.max_bytes)
        self._connections: dict[tuple[str, Use], psycopg.Connection[Any]] = {}
        self._paths: dict[str, str] = {}
        self._loaded: dict[str, str] = {}
        self._gold: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self._gold_rows = 0
        self._beside: Server | None = None
        self._lock = threading.RLock()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What this server cannot guarantee; nothing for the embedded one."""
        return self._home.findings

    def sql_file(self, database: str) -> Path | None:
        """The file that creates a database of the settings; None for one that is there already."""
        return self._task.databases.get(database)

    def load(self, database: str, sql_file: Path | None) -> None:
        """Make a database usable: create it from a SQL file, or see that it is there.

        On a server of the user's own, a file is loaded only where no database of that name exists, and an existing one
        is used only if it was made from this very file.

        Args:
            database: its name.
            sql_file: what `pg_dump` or a person wrote; None for a database that exists.

        Raises:
            DataError: the file cannot be read, or a statement of it fails, with `file:line`.
            ConfigError: the database is missing, or must not be created.
        """
        with self._lock:
            digest = digest_of(sql_file) if sql_file else ""
            if self._loaded.get(database) == digest:
                return
            self._disconnect(database)
            self._home.load(database, sql_file, digest)
            self._loaded[database] = digest

    def run(self, database: str, sql: str, *, gold: bool = False, remember: bool = True) -> Result:
        """Run one query, guarded. It never raises for what the query does; `Result.error` says it.

        Args:
            database: one of `task.databases`, created or checked on first use; or a copy.
            sql: one statement.
            gold: run as another role than model output, which cannot see this one's queries.
            remember: keep the result of a gold query, for as long as the database does not change.

        Raises:
            DataError: the database is not named in the settings, or the server cannot be reached any more.
        """
        with self._lock:
            if not gold:
                return run_guarded(self._connection(database, "guest"), sql, self._limits, trusted=self._strict)
            if not remember:
                return run_guarded(self._connection(database, "gold"), sql, self._limits, trusted=self._strict)
            key = (database, sql)
            if key in self._gold:
                self._gold.move_to_end(key)
                return self._gold[key]
            result = run_guarded(self._connection(database, "gold"), sql, self._limits, trusted=self._strict)
            self._remember(key, result)
            return result

    def trusted(
        self, database: str, sql: psql.Composed | psql.SQL, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows of a query that we wrote ourselves, with parameters; raises psycopg's errors."""
        with self._lock:
            return self._connection(database, "gold").execute(sql, values or None).fetchall()

    def write(self, database: str, sql: str) -> Result:
        """Run one statement that changes rows, on a copy that was made `writable`, and keep what it did.

        An INSERT, UPDATE, DELETE or MERGE without RETURNING gives no columns and no error.
        """
        with self._lock:
            return run_guarded(self._connection(database, "writer"), sql, self._limits, writes=True)

    def beside(self) -> Server:
        """The server on which copies of databases may be made: this one, or for one of the user's own, a private one.

        On a server of the user's own nothing is ever created for grading.

        Raises:
            ConfigError: the embedded PostgreSQL is needed and not installed.
        """
        with self._lock:
            if isinstance(self._home, Private):
                return self
            if self._beside is None:
                self._beside = Server(self._task, Private())
            return self._beside

    def copy(self, database: str, name: str, *, writable: bool = False) -> None:
        """Copy a database of the embedded server, in the place of any other copy of that name."""
        assert isinstance(self._home, Private), "copies are made on our own server only"
        with self._lock:
            if database not in self._loaded:
                self.load(database, self._task.databases[database])
            self._disconnect(database)
            self._disconnect(name)
            self._home.copy(database, name, writable)
            self._loaded[name] = ""

    def drop(self, name: str) -> None:
        """Remove a copy."""
        assert isinstance(self._home, Private), "copies are made on our own server only"
        with self._lock:
            self._disconnect(name)
            self._home.drop(name)
            self._loaded.pop(name, None)

    def arrange(self, database: str, statements: str) -> None:
        """Run statements of our own on a copy, as its owner and in one transaction; raises psycopg's errors."""
        with self._lock:
            plainly(self._connection(database, "owner"), statements)

    def close(self) -> None:
        """End the connections, and the embedded server. Safe to call twice."""
        with self._lock:
            if self._beside is not None:
                self._beside.close()
            for connection in self._connections.values():
                connection.close()
            self._connections.clear()
            self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connection(self, database: str, use: Use) -> psycopg.Connection[Any]:
        known = self._connections.get((database, use))
        if known is not None and not known.closed:
            return known
        if database not in self._loaded:
            if database not in self._task.databases:  # a copy is loaded from its beginning
                named = ", ".join(sorted(self._task.databases)) or "none"
                raise DataError(
                    f"an example speaks of the database {database!r}, and the settings name {named}",
                    place="task.databases",
                    remedy=f"add `{database}: path/to/file.sql` under task.databases",
                )
            self.load(database, self._task.databases[database])
        if database not in self._paths:
            with self._home.connect(database, "gold", "") as first:
                self._paths[database] = _search_path(first)
        options = _options({"search_path": self._paths[database], **self._session(read_only=use in ("gold", "guest"))})
        connection = self._home.connect(database, use, options)
        read_any_date(connection)
        self._connections[database, use] = connection
        return connection

    def _session(self, read_only: bool) -> dict[str, str]:
        """Defaults of every session, which DISCARD ALL goes back to. They make results the same everywhere."""
        milliseconds = max(1, round(self._limits.seconds * 1000))
        return {
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(min(milliseconds, 1000)),
            "idle_in_transaction_session_timeout": str(milliseconds + 10_000),
            "default_transaction_read_only": "on" if read_only else "off",
            "work_mem": "32MB",
            "max_parallel_workers_per_gather": "0",
            "timezone": "UTC",
            "datestyle": "ISO,YMD",
            "intervalstyle": "postgres",
            "extra_float_digits": "1",
            "bytea_output": "hex",
            "client_min_messages": "error",
        }

    def _remember(self, key: tuple[str, str], result: Result) -> None:
        self._gold[key] = result
        self._gold_rows += len(result.rows) + 1
        while self._gold_rows > _GOLD_CACHE_ROWS:
            _, old = self._gold.popitem(last=False)
            self._gold_rows -= len(old.rows) + 1

    def _disconnect(self, database: str) -> None:
        for use in _USES:
            if connection := self._connections.pop((database, use), None):
                connection.close()
        self._paths.pop(database, None)
        for key in [key for key in self._gold if key[0] == database]:
            self._gold_rows -= len(self._gold.pop(key).rows) + 1


def _options(settings: Mapping[str, str]) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace(" ", "\\ ")

    return " ".join(f"-c {name}={escape(value)}" for name, value in settings.items())


def _search_path(connection: psycopg.Connection[Any]) -> str:
    """All schemas of the database, `public` first: a database may keep its tables elsewhere."""
    schemas = [name for (name,) in connection.execute(USER_SCHEMAS).fetchall()]
    return ",".join('"' + name.replace('"', '""') + '"' for name in schemas) or "public"
