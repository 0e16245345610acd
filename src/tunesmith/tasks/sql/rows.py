"""Rows that nobody wrote: legal by every declared key and check, and such that different queries differ on them.

A row's values are drawn from what the queries compare its column with, from around those constants, and from what the
shipped rows hold. Few distinct values make duplicates and ties; references leave some parents without children.
"""

from __future__ import annotations

import datetime as dt
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tunesmith.tasks.sql.catalogue import Cell, Field, Name, Reference, Relation
from tunesmith.tasks.sql.focus import Focus, Place
from tunesmith.tasks.sql.near import Values, read_date

_MOST_ROWS = 40


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one instance is made for."""

    name: str
    """For a person, as in `rows with duplicates`."""
    rows: int
    """Of a table, before constants of the queries ask for more."""
    met: float
    """Share of the rows that meet every comparison."""
    spoilt: float
    """Share of the rows that meet all but one; the others are drawn without regard to the comparisons."""
    null: float
    """Chance of NULL where it is allowed."""
    null_links: float
    """The same for columns that tables are joined by."""
    distinct: int
    """How many values a column without comparisons has; 0 for a new one in each row."""
    twins: float
    """Chance that a row repeats another but for its keys."""
    childless: float
    """Share of the rows that nothing refers to."""


RECIPES = (
    Recipe("rows that meet the conditions or all but one", 12, 0.55, 0.4, 0.05, 0.0, 5, 0.1, 0.25),
    Recipe("rows with duplicates, ties and NULLs", 14, 0.45, 0.35, 0.2, 0.15, 2, 0.4, 0.5),
    Recipe("rows around the boundaries, all different", 14, 0.35, 0.55, 0.0, 0.0, 0, 0.0, 0.35),
    Recipe("few rows", 3, 0.5, 0.4, 0.1, 0.1, 2, 0.2, 0.4),
    Recipe("rows with distinct values", 9, 0.5, 0.4, 0.05, 0.05, 0, 0.0, 0.5),
    Recipe("many rows", 24, 0.6, 0.35, 0.08, 0.05, 7, 0.1, 0.2),
)
"""In the order in which they are tried: what tells most queries apart comes first."""


def make_rows(
    focus: Focus, compared: Mapping[Place, Values], recipe: Recipe, seed: str
) -> dict[Name, list[tuple[Cell, ...]]]:
    """Rows of every mentioned table, in the order of its fields; the same for the same arguments.

    Args:
        focus: of the queries that are to be told apart.
        compared: values for the columns that are compared with constants.
        recipe: what the rows are for.
        seed: of the choices.
    """
    return _Maker(focus, compared, recipe, random.Random(seed)).make()


@dataclass(frozen=True, slots=True)
class _Plan:
    """How the cells of one column are drawn."""

    name: str
    field: Field
    values: Values
    domain: list[str]
    null: float = 0.0
    may_be_null: bool = False
    unique: bool = False
    in_turn: bool = False
    """One value after the other, rather than at random."""
    unread: bool = False
    """Always NULL."""


class _Maker:
    def __init__(self, focus: Focus, compared: Mapping[Place, Values], recipe: Recipe, rng: random.Random) -> None:
        self._focus, self._recipe, self._rng = focus, recipe, rng
        self._made: dict[Name, list[dict[str, Cell]]] = {}
        self._groups = _Groups(focus, compared)
        self._domains: dict[Place, list[str]] = {}
        self._rows = recipe.rows
        self._crowd = max((count for count in focus.counts if count <= _MOST_ROWS), default=0)
        if counts := [count for count in focus.counts if 0 < count <= _MOST_ROWS]:
            self._rows = max(self._rows, min(_MOST_ROWS, 2 * max(counts) + 2))
        if limits := [limit for limit in focus.limits if 0 < limit <= _MOST_ROWS]:
            self._rows = max(self._rows, min(_MOST_ROWS, max(limits) + 4))

    def make(self) -> dict[Name, list[tuple[Cell, ...]]]:
        for relation in _parents_first(self._focus.relations):
            self._made[relation.name] = self._table(relation)
        found = {}
        for name, rows in self._made.items():
            rows.sort(key=lambda _: self._rng.random())
            columns = list(self._focus.relations[name].columns)
            found[name] = [tuple(row[column] for column in columns) for row in rows]
        return found

    def _table(self, relation: Relation) -> list[dict[str, Cell]]:
        rng, recipe = self._rng, self._recipe
        wanted = max(1, self._rows + rng.randint(-2, 2))
        rows: list[dict[str, Cell]] = []
        taken: dict[tuple[str, ...], set[tuple[Cell, ...]]] = {key: set() for key in relation.keys}
        keyed = {column for key in relation.keys for column in key}
        parents = {one: self._referable(one.target) for one in relation.references}
        bound = {column for reference in relation.references for column in reference.columns} | keyed
        plans = [self._plan(relation, field, field.name in keyed, field.name in bound) for field in relation.fields]
        idle: dict[str, Cell] = {plan.name: None for plan in plans if plan.unread}
        read = [(i, plan) for i, plan in enumerate(plans) if not plan.unread]
        asked = [plan.name for plan in plans if plan.values.good or plan.values.near]
        in_key = any(keyed.intersection(one.columns) for one in relation.references)
        start = rng.random()
        # Where one column alone is compared, a spoilt row meets nothing: fewer of these will do.
        spoiling = recipe.spoilt if len(asked) > 1 else recipe.spoilt / 2
        met = 1 - spoiling - (1 - recipe.met - recipe.spoilt)
        for attempt in range(wanted * 3):
            if len(rows) >= wanted:
                break
            row = dict(idle)
            twin = _one_of(rows, rng) if rows and rng.random() < recipe.twins else None
            base = _one_of(relation.sample, rng) if relation.checks and relation.sample else None
            draw = (start + 0.618034 * attempt) % 1  # the shares of the recipe in few rows, too
            # Every column meets its comparisons but this one; None: each is as it likes.
            spoilt: str | None = ""
            if draw > met:
                spoilt = _one_of(asked, rng) if asked and draw < met + spoiling else None
            for i, plan in read:
                if twin is not None and plan.name not in keyed:
                    row[plan.name] = twin[plan.name]
                elif base is not None and rng.random() < 0.5:
                    row[plan.name] = base[i]
                else:
                    row[plan.name] = self._cell(plan, len(rows) + attempt, spoilt)
            if twin is None or in_key:
                self._refer(relation, row, parents, rows)
            if self._legal(relation, row, taken):
                rows.append(row)
        return rows

    def _plan(self, relation: Relation, field: Field, keyed: bool, bound: bool) -> _Plan:
        place = (relation.name, field.name)
        if not self._focus.reads(field.name) and not (bound or relation.checks):
            # No query looks at it: NULL, or where that is not allowed one value for all.
            domain = [] if not field.required else list(relation.values[field.name][:1]) or _new_values(field, [], 1)
            return _Plan(field.name, field, Values(), domain, unread=not field.required)
        linked, unique = self._groups.linked(place), (field.name,) in relation.keys
        null = self._recipe.null_links if linked else self._recipe.null
        if place in self._focus.null:
            null = max(null, 0.3)
        return _Plan(
            name=field.name,
            field=field,
            values=self._groups.values(place),
            domain=self._own_part(place, self._domain(relation, field, place), field, keyed, unique),
            null=0.0 if field.required or keyed else null,
            may_be_null=not (field.required or keyed),
            unique=unique,
            in_turn=self._recipe.distinct == 0 and not linked and place not in self._focus.met,
        )

    def _cell(self, plan: _Plan, number: int, spoilt: str | None) -> Cell:
        rng, good, near = self._rng, plan.values.good, plan.values.near
        broken = spoilt == plan.name
        meets = bool(good) and spoilt is not None and not broken
        if plan.may_be_null and not meets and rng.random() < (max(plan.null, 0.3) if broken else plan.null):
            return None
        if meets and rng.random() < (0.3 if plan.unique else 0.95):
            return _one_of(good, rng)
        if broken and near and rng.random() < 0.75:
            return _one_of(near, rng)
        if spoilt is None and near and rng.random() < 0.3:
            return _one_of([*near, *good], rng)
        if plan.unique or plan.in_turn:
            return plan.domain[number % len(plan.domain)]
        return _one_of(plan.domain, rng)

    def _own_part(self, place: Place, domain: list[str], field: Field, keyed: bool, unique: bool) -> list[str]:
        """Of the values that columns of several tables share, those of one: some rows of each have no partner."""
        if self._groups.linked(place) and len(domain) > 2 and (unique or not keyed):
            domain = self._rng.sample(domain, len(domain) - max(1, len(domain) // 4))
        missing = 4 * self._rows - len(domain) if unique else 0
        return [*domain, *_new_values(field, domain, missing)]

    def _domain(self, relation: Relation, field: Field, place: Place) -> list[str]:
        """Values that are not about any comparison; columns that are compared with each other share them."""
        leader = self._groups.leader(place)
        key = leader if leader in self._domains or self._groups.linked(place) else place
        if key in self._domains:
            return self._domains[key]
        known = relation.values[field.name]
        size = self._recipe.distinct or self._rows
        if self._groups.linked(place) or place in self._focus.met:
            size = max(4, 2 * self._rows // 3)
        if field.kind in ("enum", "boolean"):
            known = list(field.labels) or ["true", "false"]
            size = len(known)
        taken = min(len(known), size)
        if self._recipe.distinct == 0 and field.kind in ("number", "whole"):
            taken = min(taken, max(2, size // 2))  # the rest are neighbours of what is there
        values = self._rng.sample(known, taken)
        values += _new_values(field, values, size - taken)
        self._domains[key] = values
        return values

    def _referable(self, target: Name) -> list[dict[str, Cell]]:
        """The rows of a parent table that may have children: the others stay without."""
        rows = self._made.get(target, [])
        kept = max(1, round(len(rows) * (1 - self._recipe.childless)))
        if self._crowd > 4:  # a group of so many rows comes about only where there are few groups
            kept = min(kept, max(1, self._rows // (self._crowd + 1)))
        return self._rng.sample(rows, min(kept, len(rows)))

    def _refer(
        self,
        relation: Relation,
        row: dict[str, Cell],
        parents: Mapping[Reference, Sequence[dict[str, Cell]]],
        rows: Sequence[dict[str, Cell]],
    ) -> None:
        for reference in relation.references:
            if reference.target not in self._focus.relations:
                continue  # not among the tables that are filled: any value will do
            optional = all(not relation.columns[column].required for column in reference.columns)
            choices = list(rows) if reference.target == relation.name else parents[reference]
            if optional and (not choices or self._rng.random() < self._recipe.null_links):
                row.update(dict.fromkeys(reference.columns))
                continue
            if not choices:
                if reference.target != relation.name:
                    row["\0"] = None  # no parent: the row is not legal
                else:
                    pairs = zip(reference.columns, reference.target_columns, strict=True)
                    row.update({near: row[far] for near, far in pairs})
                continue
            parent = _one_of(choices, self._rng)
            pairs = zip(reference.columns, reference.target_columns, strict=True)
            row.update({near: parent[far] for near, far in pairs})

    def _legal(
        self, relation: Relation, row: dict[str, Cell], taken: dict[tuple[str, ...], set[tuple[Cell, ...]]]
    ) -> bool:
        if "\0" in row:
            return False
        for one in relation.fields:
            if one.required and row[one.name] is None and not one.computed:
                return False
        keys = {key: tuple([row[column] for column in key]) for key in relation.keys}
        for key, value in keys.items():
            if value in taken[key] and None not in value:
                return False
        for key, value in keys.items():
            taken[key].add(value)
        return True


class _Groups:
    """Columns that are compared with each other, which must hold the same values to ever meet."""

    def __init__(self, focus: Focus, compared: Mapping[Place, Values]) -> None:
        self._leader: dict[Place, Place] = {}
        for a, b in focus.linked:
            first, second = self.leader(a), self.leader(b)
            if first != second:
                self._leader[second] = first
        for relation in focus.relations.values():
            for reference in relation.references:
                if reference.target in focus.relations:
                    for near, far in zip(reference.columns, reference.target_columns, strict=True):
                        first, second = self.leader((reference.target, far)), self.leader((relation.name, near))
                        if first != second:
                            self._leader[second] = first
        self._size: dict[Place, int] = defaultdict(int)
        for place in {place for pair in focus.linked for place in pair}:
            self._size[self.leader(place)] += 1
        self._values: dict[Place, Values] = defaultdict(Values)
        for place, values in compared.items():
            self._values[self.leader(place)].add(values)

    def leader(self, place: Place) -> Place:
        while place in self._leader:
            place = self._leader[place]
        return place

    def linked(self, place: Place) -> bool:
        return self._size[self.leader(place)] > 1

    def values(self, place: Place) -> Values:
        return self._values[self.leader(place)]


_T = TypeVar("_T")


def _one_of(choices: Sequence[_T], rng: random.Random) -> _T:
    """As `rng.choice`, in a third of the time."""
    return choices[int(rng.random() * len(choices))]


def _parents_first(relations: Mapping[Name, Relation]) -> Iterator[Relation]:
    done: set[Name] = set()

    def visit(name: Name, above: tuple[Name, ...]) -> Iterator[Relation]:
        if name in done or name in above or name not in relations:
            return
        for reference in relations[name].references:
            yield from visit(reference.target, (*above, name))
        if name not in done:
            done.add(name)
            yield relations[name]

    for name in sorted(relations):
        yield from visit(name, ())


def _new_values(field: Field, known: Sequence[str], count: int) -> list[str]:
    """Values like those that are there, and not among them."""
    if count <= 0:
        return []
    kind, type_, numbers = field.kind, field.base or field.type, range(len(known), len(known) + count)
    if kind in ("number", "whole"):
        largest = int(max((float(value) for value in known if _is_number(value)), default=0.0))
        return [str(largest + 1 + i + i // 3) for i in range(count)]
    if kind == "text":
        return [f"v{number + 1}" for number in numbers]
    if kind in ("date", "time"):
        latest = max((moment for value in known if (moment := read_date(value))), default=None)
        first = latest or dt.datetime(2024, 1, 30)  # noqa: DTZ001
        moments = [first + dt.timedelta(days=1 + 9 * i) for i in range(count)]
        return [f"{one:%Y-%m-%d}" if kind == "date" else f"{one:%Y-%m-%d %H:%M:%S}" for one in moments]
    if kind == "boolean":
        return [("true", "false")[number % 2] for number in numbers]
    if kind == "array":
        return ["{}"] * count
    pattern = _PLAIN.get(type_.split("(")[0], "{number}")
    return [pattern.format(number=number, short=number % 24) for number in numbers]


_PLAIN = {
    "json": '{{"a": {number}}}',
    "jsonb": '{{"a": {number}}}',
    "uuid": "00000000-0000-4000-8000-{number:012}",
    "bytea": "\\x{number:04}",
    "interval": "{number} hours",
    "inet": "10.0.{number}.1",
    "time without time zone": "{short:02}:30:00",
    "time with time zone": "{short:02}:30:00+00",
    "xml": "<a>{number}</a>",
}


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
