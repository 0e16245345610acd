"""What rows of a database must look like to be legal: types, keys, references, checks; and a sample of those there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import psycopg
from psycopg import sql as psql

from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.schema import Column, quote

_SAMPLE = 60
"""Rows of a table that are read for values to make others of."""

Name = tuple[str, str]
"""Schema and table."""
Cell = str | None
"""A value as PostgreSQL writes it; None is NULL."""


@dataclass(frozen=True)
class Field:
    """A column of a base table."""

    name: str
    type: str
    required: bool
    labels: tuple[str, ...] = ()
    """Of an enum type."""
    computed: bool = False
    """Generated from other columns: PostgreSQL fills it."""
    base: str = ""
    """The type under a domain; otherwise `type` again."""

    @cached_property
    def kind(self) -> str:
        """number, whole, text, date, time, boolean, enum, array or other."""
        kind = Column(self.name, self.base or self.type).kind
        if self.labels:
            return "enum"
        if kind == "number" and (self.base or self.type) in ("integer", "bigint", "smallint"):
            return "whole"
        return "array" if (self.base or self.type).endswith("[]") else kind


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key: `columns` of one table hold the values of `target_columns` of another, or NULL."""

    columns: tuple[str, ...]
    target: Name
    target_columns: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """A base table."""

    name: Name
    fields: tuple[Field, ...]
    keys: tuple[tuple[str, ...], ...] = ()
    """Columns that no two rows share: primary key, unique constraints and indexes without a condition."""
    references: tuple[Reference, ...] = ()
    checks: tuple[str, ...] = ()
    """Conditions, as PostgreSQL writes them."""
    sample: tuple[tuple[Cell, ...], ...] = field(default=(), repr=False)
    """Rows that are there, in the order of `fields`; of a large table some of them."""

    @cached_property
    def columns(self) -> dict[str, Field]:
        """The fields by name."""
        return {one.name: one for one in self.fields}

    @cached_property
    def values(self) -> dict[str, list[str]]:
        """Distinct values of each column in the sample, in its order."""
        found = {one.name: dict.fromkeys(row[i] for row in self.sample) for i, one in enumerate(self.fields)}
        return {name: [value for value in values if value is not None] for name, values in found.items()}

    @property
    def quoted(self) -> str:
        """The name in SQL."""
        return f"{quote(self.name[0])}.{quote(self.name[1])}"


@dataclass(frozen=True)
class Catalogue:
    """The base tables of a database, and what the views among its relations read."""

    relations: dict[Name, Relation]
    views: dict[Name, frozenset[Name]] = field(default_factory=dict)
    path: tuple[str, ...] = ("public",)
    """Schemas in which a bare name is looked up."""

    def find(self, schema: str, table: str) -> tuple[Relation, ...]:
        """The base tables that a name in a query reads; none where it is not one of the database's."""
        for place in (schema,) if schema else self.path:
            if (place, table) in self.relations:
                return (self.relations[place, table],)
            if (place, table) in self.views:
                return tuple(self.relations[one] for one in sorted(self.views[place, table]) if one in self.relations)
        return ()


def read_catalogue(server: Server, database: str) -> Catalogue:
    """Read the base tables of all user schemas with a sample of their rows.

    Raises:
        DataError, ConfigError: the database cannot be loaded or found (see `Server.load`).
    """
    path = tuple(name for (name,) in server.trusted(database, _SCHEMAS))
    fields: dict[Name, list[Field]] = defaultdict(list)
    for schema, table, name, type_, base, required, computed, labels in server.trusted(database, _FIELDS):
        fields[schema, table].append(Field(name, type_, required, tuple(labels or ()), computed, base))
    keys: dict[Name, list[tuple[str, ...]]] = defaultdict(list)
    for schema, table, columns in server.trusted(database, _UNIQUE):
        keys[schema, table].append(tuple(columns))
    references: dict[Name, list[Reference]] = defaultdict(list)
    for schema, table, columns, far_schema, far, far_columns in server.trusted(database, _REFERENCES):
        references[schema, table].append(Reference(tuple(columns), (far_schema, far), tuple(far_columns)))
    checks: dict[Name, list[str]] = defaultdict(list)
    for schema, table, condition in server.trusted(database, _CHECKS):
        checks[schema, table].append(condition)
    views: dict[Name, set[Name]] = defaultdict(set)
    for schema, view, far_schema, far in server.trusted(database, _READS):
        views[schema, view].add((far_schema, far))
    relations = {
        name: Relation(
            name,
            tuple(columns),
            tuple(keys[name]),
            tuple(references[name]),
            tuple(checks[name]),
            _sample(server, database, name, columns),
        )
        for name, columns in fields.items()
    }
    return Catalogue(relations, {name: _base_tables(name, views) for name in views}, path)


def _sample(server: Server, database: str, name: Name, fields: Sequence[Field]) -> tuple[tuple[Cell, ...], ...]:
    columns = psql.SQL(", ").join(psql.SQL("{}::text").format(psql.Identifier(one.name)) for one in fields)
    query = psql.SQL("SELECT {} FROM {} LIMIT {}").format(columns, psql.Identifier(*name), psql.Literal(_SAMPLE))
    try:
        return tuple(server.trusted(database, query))
    except psycopg.Error:  # a table that we may not read
        return ()


def _base_tables(view: Name, reads: dict[Name, set[Name]]) -> frozenset[Name]:
    found: set[Name] = set()
    waiting, seen = [view], set[Name]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for other in reads.get(name, ()):
            (waiting.append if other in reads else found.add)(other)
    return frozenset(found)


_OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_SCHEMAS = psql.SQL(f"SELECT nspname::text FROM pg_namespace n WHERE {_OURS} ORDER BY nspname <> 'public', nspname")
_FIELDS = psql.SQL(f"""
SELECT n.nspname::text, c.relname::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
  CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE format_type(a.atttypid, NULL) END,
  a.attnotnull OR t.typnotnull, a.attgenerated <> '',
  (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = a.atttypid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {_OURS} AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY n.nspname, c.relname, a.attnum
""")
_UNIQUE = psql.SQL(f"""
SELECT n.nspname::text, c.relname::text,
  (SELECT array_agg(a.attname::text ORDER BY k.place) FROM unnest(i.indkey) WITH ORDINALITY k(number, place)
   JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number)
FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE i.indisunique AND i.indpred IS NULL AND 0 <> ALL (i.indkey::int2[]) AND {_OURS}
ORDER BY i.indisprimary DESC, c.relname, i.indexrelid
""")
_REFERENCES = psql.SQL(f"""
SELECT n.nspname::text, c.relname::text,
  (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY u(number, place)
   JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.number),
  m.nspname::text, f.relname::text,
  (SELECT array_agg(a.attname::text ORDER BY u.place) FROM unnest(k.confkey) WITH ORDINALITY u(number, place)
   JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.number)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_class f ON f.oid = k.confrelid JOIN pg_namespace m ON m.oid = f.relnamespace
WHERE k.contype = 'f' AND k.conparentid = 0 AND {_OURS} ORDER BY 1, 2, k.conname
""")
_CHECKS = psql.SQL(f"""
SELECT n.nspname::text, c.relname::text, pg_get_expr(k.conbin, k.conrelid)
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE k.contype = 'c' AND {_OURS} ORDER BY 1, 2, k.conname
""")
_READS = psql.SQL(f"""
SELECT DISTINCT n.nspname::text, v.relname::text, m.nspname::text, c.relname::text
FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class JOIN pg_namespace n ON n.oid = v.relnamespace
JOIN pg_depend d ON d.objid = r.oid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
JOIN pg_class c ON c.oid = d.refobjid AND c.oid <> v.oid JOIN pg_namespace m ON m.oid = c.relnamespace
WHERE v.relkind IN ('v', 'm') AND {_OURS}
""")
