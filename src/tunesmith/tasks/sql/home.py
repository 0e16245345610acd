"""The two homes of databases: a private PostgreSQL of ours, or a server of the user's own."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql as psql

from tunesmith.config.schema import SqlTask
from tunesmith.errors import ConfigError
from tunesmith.tasks.sql.embedded import GOLD, GUEST, OWNER, TEMPLATE, WRITER, Embedded
from tunesmith.tasks.sql.loading import USER_SCHEMAS, load_script, made_from
from tunesmith.types import Finding

log = logging.getLogger(__name__)

Use = Literal["gold", "guest", "writer", "owner"]
"""Who runs a query: right answers, what a model wrote, the same where the task is to write, and the loader of files."""


_ROLES: Mapping[Use, str] = {"gold": GOLD, "guest": GUEST, "writer": WRITER, "owner": OWNER}


class Private:
    """Our own server: each use is a login role with just its rights."""

    findings: tuple[Finding, ...] = ()

    def __init__(self) -> None:
        self._server = Embedded()

    def connect(self, database: str, use: Use, options: str) -> psycopg.Connection[Any]:
        return _connect(self._server.url(_ROLES[use], database), options, "task.server")

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
            for (schema,) in owner.execute(USER_SCHEMAS).fetchall():
                for rights in ("USAGE ON SCHEMA {}", "SELECT ON ALL TABLES IN SCHEMA {}"):
                    grant = psql.SQL(f"GRANT {rights} TO {{}}, {{}}")
                    owner.execute(grant.format(*_names(schema, GOLD, GUEST)))
            owner.execute("ANALYZE")

    def copy(self, database: str, name: str, writable: bool = False) -> None:
        """Copy a database that nobody is connected to, in the place of any other of that name.

        Args:
            database: what is copied: types, tables, rows, rights within it.
            name: of the copy.
            writable: let the writer in, and let it change rows of every table.
        """
        copied = psql.Identifier(name)
        with psycopg.connect(self._server.url("postgres", "postgres"), autocommit=True) as admin:
            admin.execute(psql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(copied))
            admin.execute(
                psql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(
                    copied, psql.Identifier(database), psql.Identifier(OWNER)
                )
            )
            admin.execute(psql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(copied))
            readers = (GOLD, WRITER) if writable else (GOLD, GUEST)
            admin.execute(psql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(copied, *_names(*readers)))
        if writable:
            with psycopg.connect(self._server.url(OWNER, name), autocommit=True) as owner:
                for (schema,) in owner.execute(USER_SCHEMAS).fetchall():
                    for rights in (
                        "USAGE ON SCHEMA {}",
                        "SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA {}",
                        "USAGE ON ALL SEQUENCES IN SCHEMA {}",
                    ):
                        owner.execute(psql.SQL(f"GRANT {rights} TO {{}}").format(*_names(schema, WRITER)))

    def drop(self, name: str) -> None:
        """Remove a copy, whoever is connected to it."""
        with psycopg.connect(self._server.url("postgres", "postgres"), autocommit=True) as admin:
            admin.execute(psql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(psql.Identifier(name)))

    def close(self) -> None:
        self._server.close()


class Own:
    """The user's server: we log in as the user we were given, and create only what a named SQL file asks for."""

    def __init__(self, address: str, place: str) -> None:
        self.find_address, self._place = address, place
        with _connect(address, "", place) as connection:
            self.findings = _rights(connection, place)
        for finding in self.findings:
            log.warning("%s: %s (%s)", finding.place, finding.message, finding.remedy)

    def connect(self, database: str, use: Use, options: str) -> psycopg.Connection[Any]:
        return _connect(psycopg.conninfo.make_conninfo(self.find_address, dbname=database), options, self._place)

    def load(self, database: str, sql_file: Path | None, digest: str) -> None:
        place = f"task.databases.{database}"
        with _connect(self.find_address, "", self._place) as connection:
            found = connection.execute(
                "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
            ).fetchone()
            (may_create,) = _one(connection, "SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")
            if found is not None:
                if sql_file is not None and found[0] != made_from(digest):
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
            comment = psql.SQL("COMMENT ON DATABASE {} IS {}").format(name, psql.Literal(made_from(digest)))
            connection.execute(comment)

    def close(self) -> None:
        """Nothing of ours runs there."""


def find_address(task: SqlTask, environ: Mapping[str, str]) -> tuple[str, str]:
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
