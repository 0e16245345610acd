"""A SQL file into a database made for it, as `psql` would, with errors that name file and line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as psql

from tunesmith.errors import DataError
from tunesmith.tasks.sql.script import Statement, line_at, split_statements


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


USER_SCHEMAS = psql.SQL(
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


def digest_of(path: Path) -> str:
    return hashlib.sha256(_read(path).encode()).hexdigest()


def made_from(digest: str) -> str:
    return f"made by tunesmith from SQL with sha256 {digest}"
