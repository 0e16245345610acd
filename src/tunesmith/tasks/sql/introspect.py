"""A database's tables, columns, keys and comments, read from its catalogue; row data only where it was asked for."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from typing import Any

import psycopg
from psycopg import sql as psql

from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.mentions import MOST_VALUES, Mentions, text_values
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.schema import Column, Schema, Table

log = logging.getLogger(__name__)

_FEW = 20
"""A text column with at most this many distinct values is a list of words worth showing, not free text."""

_ROWS_READ = 100_000
"""Rows of a table that values are taken from: enough for a data set, bounded on a large table."""

_RELATIONS = psql.SQL("""
SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.reltuples::float8, obj_description(c.oid, 'pg_class')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
  AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
  AND NOT EXISTS (
    SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e')
ORDER BY n.nspname <> 'public', n.nspname, c.relname
""")

_COLUMNS = psql.SQL("""
SELECT a.attrelid, a.attnum, a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  col_description(a.attrelid, a.attnum),
  (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = a.atttypid)
FROM pg_attribute a WHERE a.attrelid = ANY(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum
""")

_KEYS = psql.SQL("""
SELECT k.conrelid, k.contype::text, k.conkey, coalesce(t.relname::text, ''),
  (SELECT array_agg(a.attname::text ORDER BY f.place) FROM unnest(k.confkey) WITH ORDINALITY f(number, place)
   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = f.number)
FROM pg_constraint k LEFT JOIN pg_class t ON t.oid = k.confrelid
WHERE k.conrelid = ANY(%s) AND k.contype IN ('p', 'f') ORDER BY k.conrelid, k.contype, k.conname
""")


def read_schema(server: Server, database: str, sample_values: int = 0) -> Schema:
    """Read the tables and views of all user schemas, `public` first, then by name.

    Args:
        server: where the database is; it is loaded first where it must be.
        database: its name in the settings.
        sample_values: show up to this many values of text columns with few distinct ones, the most frequent first.
            0 reads no row data. Labels of enum types are part of the schema and always shown.

    Raises:
        DataError, ConfigError: the database cannot be loaded or found (see `Server.load`).
    """
    relations = server.trusted(database, _RELATIONS)
    oids = [oid for oid, *_ in relations]
    primary: set[tuple[int, int]] = set()
    foreign: dict[tuple[int, int], tuple[str, str]] = {}
    for oid, kind, numbers, target, names in server.trusted(database, _KEYS, (oids,)):
        if kind == "p" and len(numbers) == 1:
            primary.add((oid, numbers[0]))
        elif kind == "f":
            for number, name in zip(numbers, names, strict=True):
                foreign.setdefault((oid, number), (target, name))
    columns: dict[int, list[Column]] = defaultdict(list)
    for oid, number, name, type_, required, comment, labels in server.trusted(database, _COLUMNS, (oids,)):
        columns[oid].append(
            Column(
                name=name,
                type=type_,
                primary_key=(oid, number) in primary,
                references=foreign.get((oid, number)),
                nullable=not required,
                comment=comment or "",
                values=tuple(labels or ())[:_FEW],
            )
        )
    tables = []
    for oid, schema, name, kind, estimate, comment in relations:
        table = Table(name, tuple(columns[oid]), schema, comment or "")
        rows = _count(server, database, table, kind, estimate)
        shown = tuple(_with_values(server, database, table, c, sample_values) for c in table.columns)
        tables.append(Table(name, shown, schema, comment or "", rows))
    return Schema(database, tuple(tables))


def column_values(server: Server, database: str, table: str, column: str, limit: int) -> list[Any]:
    """Distinct values of a column that exist, as Python objects, NULL left out.

    The order is arbitrary but the same for the same data, so that a limit takes a fair sample rather than the smallest
    values. Empty where the table cannot be read, or not within the time limit; that is logged.

    Args:
        server: where the database is.
        database: its name in the settings.
        table: the table's bare name, or `schema.table`.
        column: the column's name.
        limit: at most this many values.
    """
    name = _name(table)
    query = psql.SQL(
        "SELECT value FROM (SELECT DISTINCT value FROM (SELECT {column} AS value FROM {table} "
        "WHERE {column} IS NOT NULL LIMIT {read}) part) found ORDER BY md5(value::text), value::text LIMIT {limit}"
    ).format(column=psql.Identifier(column), table=name, read=psql.Literal(_ROWS_READ), limit=psql.Literal(limit))
    return [value for (value,) in _rows(server, database, query, f"{table}.{column}")]


def read_mentions(server: Server, schema: Schema) -> Mentions:
    """Every text of the database that a question may mention, by its words."""

    def values(table: str, column: str) -> list[Any]:
        return column_values(server, schema.database, table, column, limit=MOST_VALUES)

    return Mentions(text_values(schema, values))


def read_domains(server: Server, schema: Schema) -> Domains:
    """What the text columns of the database hold, where that can be read whole: keys and large tables are left out."""
    found: dict[tuple[str, str], list[str]] = {}
    namesakes = Counter(table.name for table in schema.tables)
    for table in schema.tables:
        if table.rows >= _ROWS_READ or namesakes[table.name] > 1:
            continue
        for column in table.columns:
            if column.kind == "text" and not column.references:
                name = f"{table.schema}.{table.name}"
                values = column_values(server, schema.database, name, column.name, limit=MOST_VALUES)
                if 0 < len(values) < MOST_VALUES and all(isinstance(value, str) for value in values):
                    found[table.name, column.name] = values
    return Domains(found)


def _with_values(server: Server, database: str, table: Table, column: Column, most: int) -> Column:
    if not most or column.kind != "text" or column.references or column.values:
        return column
    query = psql.SQL(
        "SELECT value::text, count(*) FROM (SELECT {column} AS value FROM {table} "
        "WHERE {column} IS NOT NULL LIMIT {read}) part GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {few}"
    ).format(
        column=psql.Identifier(column.name),
        table=psql.Identifier(table.schema, table.name),
        read=psql.Literal(_ROWS_READ),
        few=psql.Literal(_FEW + 1),
    )
    found = _rows(server, database, query, f"{table.name}.{column.name}")
    values = [value for value, _ in found]
    # Values that hardly repeat are names and addresses of a small table, except in a table that lists the words.
    repeated = sum(count for _, count in found) >= 2 * len(found) or sum(c.kind == "text" for c in table.columns) == 1
    if not repeated or len(values) > _FEW or any(len(value) > 40 for value in values):
        return column
    return Column(
        column.name,
        column.type,
        column.primary_key,
        column.references,
        column.nullable,
        column.comment,
        tuple(values[:most]),
    )


def _count(server: Server, database: str, table: Table, kind: str, estimate: float) -> int:
    """Rows; PostgreSQL's estimate for large tables, counted for small ones and where there is no estimate."""
    if kind != "v" and estimate >= _ROWS_READ:
        return int(estimate)
    query = psql.SQL("SELECT count(*) FROM (SELECT 1 FROM {} LIMIT {}) part").format(
        psql.Identifier(table.schema, table.name), psql.Literal(_ROWS_READ)
    )
    found = _rows(server, database, query, table.name)
    return int(found[0][0]) if found else 0


def _rows(server: Server, database: str, query: psql.Composed, what: str) -> list[tuple[Any, ...]]:
    try:
        return server.trusted(database, query)
    except psycopg.Error as error:  # a slow table, or a view that fails on its own rows
        log.warning("%s: %s cannot be read and is treated as empty: %s", database, what, error.diag.message_primary)
        return []


def _name(table: str) -> psql.Identifier:
    """`schema.table` or a bare name, which the search path finds in any schema."""
    schema, dot, name = table.partition(".")
    return psql.Identifier(schema, name) if dot and name else psql.Identifier(table)
