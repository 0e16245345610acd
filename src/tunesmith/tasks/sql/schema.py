"""A database as a model sees it: tables, columns, keys, a few values, as prompt text within a token budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Style = Literal["compact", "ddl"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column, with what a question may need to know about it."""

    name: str
    type: str
    """PostgreSQL's own name for the type: `integer`, `text`, `numeric(10,2)`, `timestamp with time zone`."""
    primary_key: bool = False
    references: tuple[str, str] | None = None
    """(table, column) this column points to, where a foreign key declares it."""
    nullable: bool = True
    comment: str = ""
    values: tuple[str, ...] = ()
    """A few distinct values that may be shown in the prompt; empty when sampling is off or not useful."""
    also: tuple[str, ...] = ()
    """What else people call it, from the glossary of a build. Never in a prompt."""

    @property
    def kind(self) -> Literal["number", "text", "date", "time", "boolean", "other"]:
        """The family of the type, which decides what can be asked of the column."""
        head = self.type.split("(")[0].strip().lower()
        if head.endswith("[]"):
            return "other"
        if head in {"integer", "bigint", "smallint", "numeric", "real", "double precision", "money", "decimal"}:
            return "number"
        if head in {"text", "character varying", "varchar", "character", "char", "citext", "bpchar"}:
            return "text"
        if head == "date":
            return "date"
        if head.startswith("timestamp"):
            return "time"
        if head == "boolean":
            return "boolean"
        return "other"


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view."""

    name: str
    columns: tuple[Column, ...]
    schema: str = "public"
    comment: str = ""
    rows: int = 0
    """Number of rows when the schema was read; an estimate is good enough."""
    also: tuple[str, ...] = ()
    """What else people call its rows, in the singular, from the glossary of a build. Never in a prompt."""

    @property
    def qualified(self) -> str:
        """The name as SQL must write it: with its schema unless that is `public`, quoted where needed."""
        return quote(self.name) if self.schema == "public" else f"{quote(self.schema)}.{quote(self.name)}"

    def column(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.name}.{name}")


@dataclass(frozen=True, slots=True)
class Schema:
    """All tables of one database."""

    database: str
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """The table of that name. Raises KeyError."""
        for table in self.tables:
            if table.name == name:
                return table
        raise KeyError(name)


_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
_RESERVED = frozenset(
    """all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like limit
    localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary references
    returning right select session_user similar some symmetric system_user table tablesample then to trailing true
    union unique user using variadic verbose when where window with""".split()
)


def quote(name: str) -> str:
    """The identifier as PostgreSQL needs it: bare when it is plain lower case, else in double quotes."""
    plain = bool(name) and not name[0].isdigit() and _PLAIN.issuperset(name) and name not in _RESERVED
    return name if plain else '"' + name.replace('"', '""') + '"'


def render_table(table: Table, style: Style = "ddl") -> str:
    """One table as prompt text.

    `compact`, for small models and long schemas, one line a table::

        orders(id integer pk, customer_id integer -> customers.id, status text: 'open', 'paid')

    `ddl`, what larger models have read most of::

        CREATE TABLE orders (
          id integer PRIMARY KEY,
          customer_id integer REFERENCES customers(id),
          status text -- 'open', 'paid'
        );
    """
    if style == "compact":
        return f"{table.qualified}({', '.join(_compact(column) for column in table.columns)})"
    lines = [f"CREATE TABLE {table.qualified} (" + (f" -- {_line(table.comment)}" if table.comment else "")]
    for i, column in enumerate(table.columns):
        comma = "," if i + 1 < len(table.columns) else ""
        notes = [_line(column.comment)] if column.comment else []
        if column.values:
            notes.append(", ".join(_literal(value) for value in column.values))
        lines.append(
            f"  {quote(column.name)} {column.type}"
            + (" PRIMARY KEY" if column.primary_key else "")
            + (f" REFERENCES {quote(column.references[0])}({quote(column.references[1])})" if column.references else "")
            + comma
            + (f" -- {'; '.join(notes)}" if notes else "")
        )
    return "\n".join([*lines, ");"])


def render_schema(schema: Schema, style: Style = "ddl") -> str:
    """All tables as prompt text, in the order of `schema.tables`."""
    return "\n".join(render_table(table, style) for table in schema.tables)


def _compact(column: Column) -> str:
    text = f"{quote(column.name)} {_SHORT.get(column.type.split('(')[0].strip(), column.type)}"
    if column.primary_key:
        text += " pk"
    if column.references:
        text += f" -> {quote(column.references[0])}.{quote(column.references[1])}"
    if column.values:
        text += ": " + ", ".join(_literal(value) for value in column.values)
    return text


_SHORT = {
    "character varying": "text",
    "varchar": "text",
    "integer": "int",
    "bigint": "int",
    "smallint": "int",
    "timestamp without time zone": "timestamp",
    "timestamp with time zone": "timestamptz",
    "double precision": "float",
    "boolean": "bool",
}


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _line(text: str) -> str:
    return " ".join(text.split())
