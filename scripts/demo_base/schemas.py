"""Random databases: a `Schema` and the values its columns would hold. Nothing in them is taken from anywhere."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from demo_base import values
from demo_base.values import Value
from demo_base.words import COMMENTS, DATES, FLAGS, NUMBERS, TEXTS, dictionary, entities, invented, plural
from tunesmith.tasks.sql.schema import Column, Schema, Table

_ABBREVIATED = {
    "customer": "cust", "employee": "emp", "product": "prod", "department": "dept", "order": "ord", "account": "acct",
    "category": "cat", "supplier": "supp", "student": "stud", "transaction": "txn", "number": "no", "quantity": "qty",
    "appointment": "appt", "organisation": "org", "manager": "mgr", "reference": "ref", "warehouse": "wh",
}  # fmt: skip
_NUMBERS = [(names.split(), family) for names, family in re.findall(r"([\w\s]+)\|(\w+)", NUMBERS)]
_TEXTS = {sort: [spec.split("|") for spec in specs.split()] for sort, specs in TEXTS.items()}
_DATES = DATES.split()
_PARENTS = {
    "p": "okl",
    "o": "kl",
    "l": "ko",
    "i": "koil",
    "e": "pilvoaek",
    "d": "poide",
    "k": "k",
    "v": "okl",
    "a": "kpl",
}


@dataclass(frozen=True)
class Database:
    """A schema and, for each (table, column), some values in it."""

    schema: Schema
    cells: dict[tuple[str, str], list[Value]]

    def values(self, table: Table | str, column: Column | str) -> Sequence[Value]:
        """Values of the column, as the product would read them from a real table."""
        key = (table if isinstance(table, str) else table.name, column if isinstance(column, str) else column.name)
        return self.cells.get(key, [])


@dataclass(frozen=True)
class _Naming:
    """How this database's author names things."""

    plural: bool
    prefix: str
    key: str
    whole: str
    text: str
    decimal: str
    time: str
    short: bool
    column_prefix: bool

    def table(self, entity: str) -> str:
        return self.prefix + (plural(entity) if self.plural else entity)

    def abbreviate(self, entity: str) -> str:
        return _ABBREVIATED.get(entity, entity) if self.short else entity

    def primary(self, entity: str) -> str:
        entity = self.abbreviate(entity)
        return {"id": "id", "entity_id": f"{entity}_id", "code": f"{entity}_code", "no": f"{entity}_no", "uid": "uid"}[
            self.key
        ]

    def foreign(self, entity: str, rng: random.Random) -> str:
        entity = self.abbreviate(entity)
        if self.key == "code":
            return f"{entity}_code"
        if self.key == "no":
            return f"{entity}_no"
        return entity if rng.random() < 0.05 else f"{entity}_id"


def _naming(rng: random.Random, domain: str) -> _Naming:
    prefix = ""
    if rng.random() < 0.08:
        prefix = rng.choice(["tbl_", "t_", "app_", "dim_", f"{domain[:3]}_", f"{invented(rng, 2)[:4]}_"])
    return _Naming(
        plural=rng.random() < 0.6,
        prefix=prefix,
        key=rng.choices(["id", "entity_id", "code", "no", "uid"], [55, 35, 4, 3, 3])[0],
        whole=rng.choice(["integer", "integer", "integer", "bigint"]),
        text=rng.choice(["text", "text", "text", "character varying", "character varying(100)"]),
        decimal=rng.choice(["numeric(10,2)", "numeric(10,2)", "numeric", "double precision"]),
        time=rng.choice(["timestamp with time zone", "timestamp without time zone", "timestamp with time zone"]),
        short=rng.random() < 0.12,
        column_prefix=rng.random() < 0.05,
    )


def _entity(rng: random.Random, word: str) -> str:
    """The word, or now and then one that a model cannot have met."""
    pick = rng.random()
    if pick < 0.72:
        return word
    strange, known = invented(rng).rstrip("s"), rng.choice(dictionary()).rstrip("s")
    if pick < 0.86:
        return strange
    if pick < 0.92:
        return known
    return f"{rng.choice([strange, known])}_{word}"


def database(rng: random.Random, tables: int = 0, rich: float = 1.0) -> Database:
    """One random database.

    tables: how many tables (0: drawn, 1 to 13). rich: scales the number of columns of a table.
    """
    count = tables or rng.choices(range(1, 14), [8, 12, 14, 14, 12, 10, 8, 6, 5, 4, 3, 3, 2])[0]
    domains = list(entities())
    domain = rng.choice(domains)
    pool = list(entities()[domain])
    while len(pool) < count + 2 or rng.random() < 0.15:
        pool += entities()[rng.choice(domains)]
    naming = _naming(rng, domain)
    chosen: dict[str, str] = {}
    for word, sort in rng.sample(pool, len(pool)):
        name = _entity(rng, word)
        if len(chosen) < count and name not in chosen and plural(name) not in chosen:
            chosen[name] = sort
    # lookups and places first, events last: a table refers to tables before it
    order = sorted(chosen, key=lambda name: "klopivade".index(chosen[name]) + rng.uniform(-2, 2))
    cells: dict[tuple[str, str], list[Value]] = {}
    made: list[tuple[str, Table]] = []
    for entity in order:
        made.append((entity, _table(rng, entity, chosen[entity], naming, made, chosen, cells, rich)))
    if len(made) < count + 1 and len(made) > 2 and rng.random() < 0.25:
        made.append(_join_table(rng, naming, made, cells))
    if len({table.name for _, table in made}) != len(made):
        return database(rng, tables, rich)
    final = [table for _, table in made]
    if rng.random() < 0.6:
        rng.shuffle(final)
    return Database(Schema(database=domain, tables=tuple(final)), cells)


def _table(
    rng: random.Random,
    entity: str,
    sort: str,
    naming: _Naming,
    before: list[tuple[str, Table]],
    sorts: dict[str, str],
    cells: dict[tuple[str, str], list[Value]],
    rich: float,
) -> Table:
    name = naming.table(entity)
    columns: list[Column] = []

    def add(column: Column, some: list[Value]) -> None:
        if all(other.name != column.name for other in columns):
            columns.append(column)
            cells[name, column.name] = some

    rows = int(10 ** rng.uniform(1, 4))
    key = naming.primary(entity)
    if rng.random() < 0.96:
        some: list[Value]
        if naming.key == "code":
            add(
                Column(key, naming.text, primary_key=True, nullable=False),
                [values.TEXT["code"](rng) for _ in range(12)],
            )
        else:
            base = rng.choice([1, 1, 1, 100, 1000])
            some = [base + rng.randint(0, 60) for _ in range(12)]
            add(Column(key, naming.whole, primary_key=True, nullable=False), some)

    texts = _TEXTS[sort]
    wanted = max(0, round((rng.choice([0, 1, 1, 2, 2, 3]) + (sort in "polkiav")) * rich))
    picks = texts[:1] if sort not in "ed" or rng.random() < 0.3 else []
    if sort == "p" and rng.random() < 0.3:
        picks = texts[1:3]
    picks = picks + rng.sample(texts[1:], min(len(texts) - 1, max(0, wanted - len(picks))))
    for column, kind in picks:
        _text_column(rng, add, _renamed(rng, column, entity, naming), kind, naming)

    parents = [pair for pair in before if sorts.get(pair[0], "e") in _PARENTS[sort]] or before
    links = min(len(parents), rng.choices([0, 1, 2, 3], [10, 50, 30, 10] if sort in "ed" else [40, 50, 10, 0])[0])
    for parent, table in rng.sample(parents, links):
        primary = next((c for c in table.columns if c.primary_key), None)
        if primary is not None:
            link = naming.foreign(parent, rng)
            if rng.random() < 0.05:
                link = f"{rng.choice(['main', 'origin', 'home', 'first', 'primary', invented(rng, 2)])}_{link}"
            add(
                Column(link, primary.type, references=(table.name, primary.name)), list(cells[table.name, primary.name])
            )
    if sort in "pok" and columns and columns[0].primary_key and rng.random() < 0.12:
        role = {"p": ["manager", "mentor", "supervisor", "lead"], "o": ["parent"], "k": ["parent"]}[sort]
        link = naming.foreign(rng.choice(role), rng)
        add(Column(link, columns[0].type, references=(name, key)), list(cells[name, key]))

    amounts = rng.choice([0, 0, 1, 1, 2] if sort in "pok" else [0, 1, 1, 2, 2, 3])
    for _ in range(round(amounts * rich)):
        names, family = rng.choice(_NUMBERS)
        column = rng.choice(names) if rng.random() < 0.88 else f"{rng.choice(dictionary())}_{rng.choice(names)}"
        whole = family == "count" or (rng.random() < 0.3 and family != "measure")
        if column in {"year_built", "age", "years"}:
            whole, family = True, "year" if column == "year_built" else "count"
        kind = naming.whole if whole else naming.decimal
        some = [values.number(rng, family, whole) for _ in range(10)]
        add(Column(_renamed(rng, column, entity, naming), kind), some)
    for _ in range(rng.choices([0, 1, 2], [25, 55, 20] if sort in "ed" else [60, 35, 5])[0]):
        column = rng.choice(_DATES)
        if column.endswith("_at") or column in {"last_login", "departure", "arrival"}:
            add(Column(column, naming.time), [values.moment(rng) for _ in range(8)])
        else:
            add(Column(column, "date"), [values.date(rng) for _ in range(8)])
    if rng.random() < 0.18:
        add(Column(_renamed(rng, rng.choice(FLAGS), entity, naming), "boolean"), [True, False])
    if rng.random() < 0.15:
        word = invented(rng) if rng.random() < 0.7 else rng.choice(dictionary())
        _text_column(rng, add, word, rng.choice(["@type", "@status", "label", "code"]), naming)
    if len(columns) < 2:
        _text_column(rng, add, "name", "thing", naming)
    comment = rng.choice(COMMENTS).strip() if rng.random() < 0.03 else ""
    if rng.random() < 0.5:
        head = [c for c in columns if c.primary_key]
        rest = [c for c in columns if not c.primary_key]
        rng.shuffle(rest)
        columns = head + rest
    columns = [replace(c, comment=rng.choice(COMMENTS).strip()) if rng.random() < 0.03 else c for c in columns]
    return Table(name, tuple(columns), comment=comment, rows=rows)


def _renamed(rng: random.Random, column: str, entity: str, naming: _Naming) -> str:
    if naming.column_prefix or rng.random() < 0.04:
        return f"{naming.abbreviate(entity)}_{column}"
    pick = rng.random()
    if pick < 0.03:
        return f"{column}_{rng.choice(['no', 'text', 'value', 'code', invented(rng, 2)])}"
    return f"{rng.choice([invented(rng, 2), rng.choice(dictionary())])}_{column}" if pick < 0.09 else column


def _text_column(rng: random.Random, add, name: str, kind: str, naming: _Naming) -> None:  # type: ignore[no-untyped-def]
    if kind.startswith("@"):
        some = values.lookup(rng, kind[1:])
        shown = tuple(some) if rng.random() < 0.65 else ()
    else:
        some = [values.TEXT[kind](rng) for _ in range(rng.choice([4, 10]))]
        shown = tuple(some[:4]) if kind in {"label", "invented", "city"} and rng.random() < 0.25 else ()
    add(Column(name, naming.text, values=shown), some)


def _join_table(
    rng: random.Random, naming: _Naming, made: list[tuple[str, Table]], cells: dict[tuple[str, str], list[Value]]
) -> tuple[str, Table]:
    """A table that links two others, many to many."""
    (left, a), (right, b) = rng.sample(made, 2)
    entity = f"{left}_{right}"
    name = naming.prefix + rng.choice([entity, f"{left}_{plural(right)}", f"{plural(left)}_{plural(right)}"])
    columns = []
    for other, table in ((left, a), (right, b)):
        primary = next((c for c in table.columns if c.primary_key), None)
        if primary is not None:
            columns.append(Column(naming.foreign(other, rng), primary.type, references=(table.name, primary.name)))
            cells[name, columns[-1].name] = list(cells[table.name, primary.name])
    extra, family = rng.choice(_NUMBERS)
    columns.append(Column(rng.choice(extra), naming.whole))
    cells[name, columns[-1].name] = [values.number(rng, family, True) for _ in range(8)]
    if len({c.name for c in columns}) != len(columns):
        columns = columns[-1:]
    return entity, Table(name, tuple(columns), rows=rng.randint(50, 9000))
