"""Where SQL runs: a private embedded PostgreSQL, or the user's own server; what a model wrote runs guarded on both."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
from psycopg import sql as psql

from tunesmith.config.schema import SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.sql.embedded import GOLD, GUEST, OWNER, TEMPLATE, Embedded
from tunesmith.tasks.sql.guard import FAILURES, Limits, Result, SqlError, read_any_date, run_guarded
from tunesmith.tasks.sql.script import Statement, line_at, split_statements
from tunesmith.types import Finding

__all__ = ["FAILURES", "Limits", "Result", "Server", "SqlError", "open_server"]

log = logging.getLogger(__name__)

Use = Literal["gold", "guest"]

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
    address, place = _address(task, os.environ if environ is None else environ)
    return Server(task, _Own(address, place) if address else _Private())


class Server:
    """Databases that queries can be run on. One query at a time; safe to call from several threads."""

    def __init__(self, task: SqlTask, home: _Own | _Private) -> None:
        self._task = task
        self._home = home
        self._limits = Limits(task.timeout_seconds, task.max_rows, task.max_bytes)
        self._connections: dict[tuple[str, Use], psycopg.Connection[Any]] = {}
        self._paths: dict[str, str] = {}
        self._loaded: dict[str, str] = {}
        self._gold: OrderedDict[tuple[str, str], Result] = OrderedDict()
        self._gold_rows = 0
        self._lock = threading.RLock()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What this server cannot guarantee; nothing for the embedded one."""
        return self._home.findings

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
            digest = _digest(sql_file) if sql_file else ""
            if self._loaded.get(database) == digest:
                return
            self._disconnect(database)
            self._home.load(database, sql_file, digest)
            self._loaded[database] = digest

    def run(self, database: str, sql: str, *, gold: bool = False) -> Result:
        """Run one query, guarded. It never raises for what the query does; `Result.error` says it.

        Args:
            database: one of `task.databases`, created or checked on first use.
            sql: one statement.
            gold: run as another role than model output, which cannot see this one's queries; the result is remembered.

        Raises:
            DataError: the database is not named in the settings, or the server cannot be reached any more.
        """
        with self._lock:
            if not gold:
                return run_guarded(self._connection(database, "guest"), sql, self._limits)
            key = (database, sql)
            if key in self._gold:
                self._gold.move_to_end(key)
                return self._gold[key]
            result = run_guarded(self._connection(database, "gold"), sql, self._limits)
            self._remember(key, result)
            return result

    def trusted(
        self, database: str, sql: psql.Composed | psql.SQL, values: Sequence[Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Rows of a query that we wrote ourselves, with parameters; raises psycopg's errors."""
        with self._lock:
            return self._connection(database, "gold").execute(sql, values or None).fetchall()

    def close(self) -> None:
        """End the connections, and the embedded server. Safe to call twice."""
        with self._lock:
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
            if database not in self._task.databases:
                named = ", ".join(sorted(self._task.databases)) or "none"
                raise DataError(
                    f"an example speaks of the database {database!r}, and the settings name {named}",
                    place="task.databases",
                    remedy=f"add `{database}: path/to/file.sql` under task.databases",
                )
            self.load(database, self._task.databases[database])
        if database not in self._paths:
            with self._home.connect(database, use, "") as first:
                self._paths[database] = _search_path(first)
        options = _options({"search_path": self._paths[database], **self._session()})
        connection = self._home.connect(database, use, options)
        read_any_date(connection)
        self._connections[database, use] = connection
        return connection

    def _session(self) -> dict[str, str]:
        """Defaults of every session, which DISCARD ALL goes back to. They make results the same everywhere."""
        milliseconds = max(1, round(self._limits.seconds * 1000))
        return {
            "statement_timeout": str(milliseconds),
            "lock_timeout": str(min(milliseconds, 1000)),
            "idle_in_transaction_session_timeout": str(milliseconds + 10_000),
            "default_transaction_read_only": "on",
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
        for use in ("gold", "guest"):
            if connection := self._connections.pop((database, use), None):
                connection.close()
        self._paths.pop(database, None)
        for key in [key for key in self._gold if key[0] == database]:
            self._gold_rows -= len(self._gold.pop(key).rows) + 1


class _Private:
    """Our own server: each use is a login role with just its rights."""

    findings: tuple[Finding, ...] = ()

    def __init__(self) -> None:
        self._server = Embedded()

    def connect(self, database: str, use: Use, options: str) -> psycopg.Connection[Any]:
        return _connect(self._server.url(GOLD if use == "gold" else GUEST, database), options, "task.server")

    def load(self, database: str, sql_file: Path | None, digest: str) -> None:
        if sql_file is None:
            raise ConfigError(
                f"the embedded server starts empty, so it has no database {database!r}",
                place=f"task.databases.{database}",
                remedy="give the SQL file that creates it, or set task.server to the server that has it",
            )
        name = psql.Identifier(database)
        with psycopg.connect(self._server.url("postgres", "postgres"), autocommit=True) as admin:
            admin.execute(psql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            admin.execute(psql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(name, *_names(TEMPLATE, OWNER)))
            admin.execute(psql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
            admin.execute(psql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(name, *_names(GOLD, GUEST)))
        # Not as the superuser: a file from the internet could then run programs.
        with psycopg.connect(self._server.url(OWNER, database), autocommit=True) as owner:
            load_script(owner, sql_file)
            owner.execute("RESET ALL")
            for (schema,) in owner.execute(_USER_SCHEMAS).fetchall():
                for rights in ("USAGE ON SCHEMA {}", "SELECT ON ALL TABLES IN SCHEMA {}"):
                    grant = psql.SQL(f"GRANT {rights} TO {{}}, {{}}")
                    owner.execute(grant.format(*_names(schema, GOLD, GUEST)))
            owner.execute("ANALYZE")

    def close(self) -> None:
        self._server.close()


class _Own:
    """The user's server: we log in as the user we were given, and create only what a named SQL file asks for."""

    def __init__(self, address: str, place: str) -> None:
        self._address, self._place = address, place
        with _connect(address, "", place) as connection:
            self.findings = _rights(connection, place)
        for finding in self.findings:
            log.warning("%s: %s (%s)", finding.place, finding.message, finding.remedy)

    def connect(self, database: str, use: Use, options: str) -> psycopg.Connection[Any]:
        return _connect(psycopg.conninfo.make_conninfo(self._address, dbname=database), options, self._place)

    def load(self, database: str, sql_file: Path | None, digest: str) -> None:
        place = f"task.databases.{database}"
        with _connect(self._address, "", self._place) as connection:
            found = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
            (may_create,) = _one(connection, "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")
            if found is not None:
                if sql_file is not None and found[0] != _made_from(digest):
                    raise ConfigError(
                        f"the server has a database {database!r} that was not made from {sql_file}",
                        place=place,
                        remedy="set it to null to use it as it is, or choose another name",
                    )
                return
            if sql_file is None or not may_create:
                raise ConfigError(
                    f"the server has no database {database!r}"
                    + ("" if sql_file is None else ", and the user may not create one"),
                    place=place,
                    remedy="create and load it yourself, or correct the name"
                    if sql_file is None
                    else f"create and load it yourself and set {place} to null, or use the embedded server",
                )
            name = psql.Identifier(database)
            connection.execute(psql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8'").format(name))
            try:
                with self.connect(database, "gold", "") as fresh:
                    load_script(fresh, sql_file)
            except BaseException:
                connection.execute(psql.SQL("DROP DATABASE {}").format(name))
                raise
            comment = psql.SQL("COMMENT ON DATABASE {} IS {}").format(name, psql.Literal(_made_from(digest)))
            connection.execute(comment)

    def close(self) -> None:
        """Nothing of ours runs there."""


def load_script(connection: psycopg.Connection[Any], sql_file: Path) -> None:
    """Run a SQL file as `psql` would, on a database made for it.

    Left out, because the database has its own: creating databases, roles, grants and owners.

    Raises:
        DataError: the file cannot be read or a statement fails, with `file:line`.
    """
    text = _read(sql_file)
    for statement in split_statements(text, str(sql_file)):
        if _concerns_others(statement):
            continue
        try:
            if statement.rows is None:
                connection.execute(statement.sql.encode())  # bytes: psycopg must not look for placeholders
            else:
                with connection.cursor().copy(statement.sql.encode()) as copy:
                    copy.write(statement.rows)
        except psycopg.Error as error:
            if statement.words[:1] == ("set",) and error.sqlstate == "42704":
                continue  # a setting of a newer pg_dump
            raise DataError(
                f"PostgreSQL refuses this statement: {error.diag.message_primary or error}",
                place=f"{sql_file}:{_line_of(error, statement)}",
                remedy="correct the file; it must load into an empty database with `psql -v ON_ERROR_STOP=1 -f`",
            ) from error


_USER_SCHEMAS = psql.SQL(
    "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' "
    "ORDER BY nspname <> 'public', nspname"
)


def _concerns_others(statement: Statement) -> bool:
    """Whether a statement is about databases, roles and rights rather than about what is in this database."""
    words = statement.words
    if words[:1] in {("grant",), ("revoke",), ("reassign",)}:
        return True
    if words[:1] in {("create",), ("alter",), ("drop",), ("comment",)} and words[1:2] != ("table",):
        about = words[1:3]
        if about[:1] in {("database",), ("role",), ("user",), ("group",)} or words[:2] == ("alter", "default"):
            return words[1:3] != ("user", "mapping")
        if words[:3] == ("comment", "on", "extension") or words[:3] == ("comment", "on", "database"):
            return True
    if words[:1] == ("alter",):
        ending = statement.sql.lower().split()[-3:]
        return ending[:2] == ["owner", "to"]
    return words[:3] in {("set", "session", "authorization"), ("reset", "session", "authorization")} or words[:2] == (
        "set",
        "role",
    )


def _line_of(error: psycopg.Error, statement: Statement) -> int:
    if position := error.diag.statement_position:
        return statement.line + line_at(statement.sql, int(position) - 1) - 1
    if statement.rows is not None and (context := error.diag.context or "").startswith("COPY "):
        row = next((word.strip(",:") for word in context.split(" line ")[1:]), "1").split()[0].strip(",:")
        return statement.line + statement.sql.count("\n") + int(row)
    return statement.line


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(
            f"the SQL file cannot be read: {error.strerror}",
            place=str(path),
            remedy="correct the path in task.databases",
        ) from error
    except UnicodeDecodeError as error:
        line = line_at(path.read_bytes()[: error.start].decode("latin-1"), error.start)
        raise DataError(
            "the SQL file is not UTF-8",
            place=f"{path}:{line}",
            remedy="convert it, for example with `iconv -f LATIN1 -t UTF-8`",
        ) from error


def _digest(path: Path) -> str:
    return hashlib.sha256(_read(path).encode()).hexdigest()


def _made_from(digest: str) -> str:
    return f"made by tunesmith from SQL with sha256 {digest}"


def _address(task: SqlTask, environ: Mapping[str, str]) -> tuple[str, str]:
    """The user's connection string, or "" for the embedded server; and where it was said."""
    if address := environ.get("TUNESMITH_POSTGRES_URL"):
        return address, "TUNESMITH_POSTGRES_URL"
    if task.server == "embedded":
        return "", ""
    if task.server.startswith("env:"):
        name = task.server.removeprefix("env:")
        if not (address := environ.get(name)):
            raise ConfigError(
                f"the variable {name} is not set", place="task.server", remedy=f"export {name}=postgresql://user@host/"
            )
        return address, name
    if _parse(task.server, "task.server").get("password"):
        raise ConfigError(
            "the connection string holds a password, which would be written into every run",
            place="task.server",
            remedy="put the string into a variable and write `server: env:NAME`",
        )
    return task.server, "task.server"


def _parse(address: str, place: str) -> dict[str, Any]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(address))
    except psycopg.ProgrammingError:  # its message may quote the password
        raise ConfigError(
            "this is not a connection string", place=place, remedy="write postgresql://user@host:5432/database"
        ) from None


def _connect(address: str, options: str, place: str) -> psycopg.Connection[Any]:
    _parse(address, place)
    until = time.monotonic() + 10
    while True:
        try:
            return psycopg.connect(
                address, autocommit=True, connect_timeout=10, options=options, prepare_threshold=None
            )
        except psycopg.OperationalError as error:
            # After a backend was killed the server recovers for a moment.
            recovering = "recovery mode" in str(error) or "starting up" in str(error)
            if recovering and time.monotonic() < until:
                time.sleep(0.2)
                continue
            raise ConfigError(
                f"PostgreSQL cannot be reached: {' '.join(str(error).split())}",
                place=place,
                remedy="start the server, or correct host, user and database",
            ) from None


def _options(settings: Mapping[str, str]) -> str:
    def escape(value: str) -> str:
        return value.replace("\\", "\\\\").replace(" ", "\\ ")

    return " ".join(f"-c {name}={escape(value)}" for name, value in settings.items())


def _search_path(connection: psycopg.Connection[Any]) -> str:
    """All schemas of the database, `public` first: a database may keep its tables elsewhere."""
    schemas = [name for (name,) in connection.execute(_USER_SCHEMAS).fetchall()]
    return ",".join('"' + name.replace('"', '""') + '"' for name in schemas) or "public"


def _names(*names: str) -> list[psql.Identifier]:
    return [psql.Identifier(name) for name in names]


def _one(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


_READER = "CREATE ROLE reader LOGIN PASSWORD '...' NOSUPERUSER; GRANT pg_read_all_data TO reader;"


def _rights(connection: psycopg.Connection[Any], place: str) -> tuple[Finding, ...]:
    """What the given user could do beyond reading. A superuser is refused: its queries could run programs."""
    dangerous = ("pg_execute_server_program", "pg_write_server_files", "pg_read_server_files")
    (is_super,) = _one(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    held = [
        name
        for (name,) in connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND pg_has_role(oid, 'MEMBER')", (list(dangerous),)
        ).fetchall()
    ]
    if is_super or held:
        raise ConfigError(
            f"the user is {'a superuser' if is_super else 'a member of ' + held[0]}: SQL written by a model could read "
            "files of the server or run programs on it",
            place=place,
            remedy=f"connect as a user who may only read: {_READER}",
        )
    findings = [
        Finding(
            "sql_server",
            "info",
            "gold queries and model queries run as the same user here, so a model's query could read a gold query from "
            "pg_stat_activity, and sleep or take advisory locks until its timeout",
            place,
            "the embedded server keeps the two apart",
        )
    ]
    (writable,) = _one(
        connection,
        "SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace NOT IN "
        "('pg_catalog'::regnamespace, 'information_schema'::regnamespace) "
        "AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')",
    )
    if writable:
        findings.append(
            Finding(
                "sql_server",
                "warning",
                f"the user may write to {writable} tables; only read-only transactions and one statement at a time "
                "stand between a model's SQL and your data",
                place,
                f"connect as a user who may only read: {_READER}",
            )
        )
    return tuple(findings)
