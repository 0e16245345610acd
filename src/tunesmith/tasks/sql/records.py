"""What a record of the sql task must say: a question, its query, and the database both are about."""

from __future__ import annotations

from collections.abc import Collection

from tunesmith.errors import DataError
from tunesmith.types import Record


def text_of(record: Record, field: str) -> str:
    """A field that must hold text. Raises DataError where it does not."""
    value = record.fields.get(field)
    if not isinstance(value, str) or not value.strip():
        have = ", ".join(sorted(record.fields)) or "none"
        raise DataError(
            f"the field `{field}` is {'missing' if value is None else 'empty or not text'} (the record has: {have})",
            place=record.place,
            remedy=f"a record of the sql task needs `question` and `sql`; rename the field that holds the {field}",
        )
    return value


def query_of(record: Record) -> str:
    """The right query, without the semicolon that may end it. Raises DataError where there is none."""
    return text_of(record, "sql").strip().rstrip(";").rstrip()


def database_of(record: Record, databases: Collection[str]) -> str:
    """The database of a record: it may be left out where there is only one.

    Args:
        record: with the field `database`, or without.
        databases: those that the settings name; empty where they name none, and any will do.

    Raises:
        DataError: it is left out, or is none of those.
    """
    named = record.fields.get("database")
    if named is None and len(databases) == 1:
        return next(iter(databases))
    if not isinstance(named, str) or not named:
        raise DataError(
            "the record does not say which database it is about",
            place=record.place,
            remedy="add the field `database`, or name exactly one under task.databases",
        )
    if databases and named not in databases:
        raise DataError(
            f"the record is about the database {named!r}, which the settings do not name",
            place=record.place,
            remedy=f"add `{named}: path/to/file.sql` under task.databases",
        )
    return named
