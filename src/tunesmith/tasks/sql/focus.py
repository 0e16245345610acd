"""What two queries look at and compare with: where rows must differ for the queries to differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlglot import exp

from tunesmith.tasks.sql.catalogue import Catalogue, Field, Name, Relation
from tunesmith.tasks.sql.structure import POSTGRES, nodes, parse

Place = tuple[Name, str]
"""A column of a table."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A value that a column is compared with."""

    op: str
    """=, <>, <, <=, >, >=, like (a pattern), or near (NULLIF's second argument)."""
    value: str
    """As PostgreSQL writes it; or, where `computed`, an expression without columns."""
    computed: bool = False


@dataclass
class Focus:
    """The tables, columns and constants of queries on one database."""

    relations: dict[Name, Relation] = field(default_factory=dict)
    compared: dict[Place, list[Compared]] = field(default_factory=lambda: defaultdict(list))
    linked: list[tuple[Place, Place]] = field(default_factory=list)
    """Columns that are compared with each other."""
    met: set[Place] = field(default_factory=set)
    """Columns whose values must meet those of other rows: both sides of an INTERSECT or EXCEPT, partitions."""
    null: set[Place] = field(default_factory=set)
    """Columns that are asked whether they are NULL, or counted where they are not."""
    names: set[str] = field(default_factory=set)
    """Columns by their bare names, wherever they are mentioned."""
    everything: bool = False
    """Whether a query reads whole rows: `*`, or a table's name in the place of a column."""
    counts: set[int] = field(default_factory=set)
    """Numbers that counts of rows are compared with."""
    limits: set[int] = field(default_factory=set)
    """Rows that a LIMIT and its OFFSET need to do something."""

    def reads(self, column: str) -> bool:
        """Whether a query can tell what a column holds."""
        return self.everything or column in self.names


def read_focus(queries: Iterable[str], catalogue: Catalogue) -> Focus | None:
    """What the queries mention; None where they read none of the tables.

    Of a query that sqlglot cannot read nothing is known but that it may read everything.
    """
    found = Focus()
    for sql in queries:
        tree = parse(sql)
        if tree is None:
            found.everything = True
        else:
            _Reader(tree, catalogue, found).read()
    return found if found.relations else None


_OPS: dict[type[exp.Expression], str] = {
    exp.EQ: "=",
    exp.NullSafeEQ: "=",
    exp.NEQ: "<>",
    exp.NullSafeNEQ: "<>",
    exp.GT: ">",
    exp.GTE: ">=",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.Like: "like",
    exp.ILike: "like",
    exp.SimilarTo: "like",
}
_TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class _Reader:
    """One query. Names are resolved over the whole query rather than by scope: what is found too much does no harm."""

    def __init__(self, tree: exp.Expression, catalogue: Catalogue, found: Focus) -> None:
        self._nodes, self._found = list(nodes(tree)), found
        self._tables: dict[str, set[Name]] = defaultdict(set)
        self._outputs: dict[str, list[exp.Expression]] = defaultdict(list)
        for table in (node for node in self._nodes if isinstance(node, exp.Table)):
            for relation in catalogue.find(_plain(table.args.get("db")), _plain(table.this)):
                found.relations[relation.name] = relation
                self._tables[_plain(table.args.get("alias")) or _plain(table.this)].add(relation.name)
        self._all = {name for names in self._tables.values() for name in names}
        for alias in (node for node in self._nodes if isinstance(node, exp.Alias)):
            self._outputs[_plain(alias.args.get("alias"))].append(alias.this)

    def read(self) -> None:
        for node in self._nodes:
            if isinstance(node, exp.Column):
                name = _plain(node.this)
                self._found.names.add(name)
                self._found.everything |= name in self._tables
            elif isinstance(node, exp.Star):
                self._found.everything |= not isinstance(node.parent, exp.Count)
            elif (op := _OPS.get(type(node))) is not None:
                self._compare(op, node.this, node.expression)
            elif isinstance(node, exp.Between):
                self._compare(">=", node.this, node.args["low"])
                self._compare("<=", node.this, node.args["high"])
            elif isinstance(node, exp.In):
                for item in node.expressions:
                    self._compare("=", node.this, item)
                if (query := node.args.get("query")) is not None:
                    self._link(node.this, query)
            elif isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
                self._found.null |= self._places(node.this)
            elif isinstance(node, exp.Nullif):
                self._compare("near", node.this, node.expression)
            elif isinstance(node, exp.Count) and isinstance(node.this, exp.Column):
                self._found.null |= self._places(node.this)  # it counts what is not NULL
            elif isinstance(node, exp.Coalesce):
                # Not its value: one that stands for NULL is by intention none that occurs.
                self._found.null |= self._places(node.this)
            elif isinstance(node, exp.Case) and node.this is not None:
                for branch in node.args.get("ifs", ()):
                    self._compare("=", node.this, branch.this)
            elif isinstance(node, exp.Join) and node.args.get("using"):
                shared = [identifier.name for identifier in node.args["using"]]
                self._found.names.update(shared)
                self._share(shared)
            elif isinstance(node, exp.Join) and str(node.args.get("method") or "").upper() == "NATURAL":
                self._found.everything = True
                self._share(_common_columns(self._found.relations[name] for name in self._all))
            elif isinstance(node, exp.SetOperation):
                self._meet(node)
                self._limit(node)
            elif isinstance(node, exp.Query):
                self._limit(node)

    def _compare(self, op: str, left: exp.Expression, right: exp.Expression) -> None:
        here, there = self._places(left), self._places(right)
        if here and there:
            self._link(left, right)
            return
        if not here and there:
            left, right, here, op = right, left, there, _TURNED.get(op, op)
        constant = _constant(right)
        if constant is None or any(right in default.expressions for default in left.find_all(exp.Coalesce)):
            return
        value, computed = constant
        if _counts(left, self._outputs) and not computed and value.lstrip("-").isdigit():
            self._found.counts.add(int(value))
            return
        for place in here:
            self._found.compared[place].append(Compared(op, value, computed))

    def _link(self, left: exp.Expression, right: exp.Expression) -> None:
        for a in self._places(left):
            for b in self._places(right):
                if a != b and _alike(self._field(a), self._field(b)):
                    self._found.linked.append((a, b))

    def _meet(self, node: exp.SetOperation) -> None:
        for side in (node.left, node.right):
            for selected in side.selects:
                self._found.met |= self._places(selected)

    def _share(self, names: Iterable[str]) -> None:
        for column in names:
            holders = [(name, column) for name in sorted(self._all) if column in self._found.relations[name].columns]
            self._found.linked += zip(holders, holders[1:], strict=False)

    def _limit(self, query: exp.Query) -> None:
        limit, offset = query.args.get("limit"), query.args.get("offset")
        most = limit.args.get("expression") or limit.args.get("count") if limit is not None else None
        numbers = [
            int(part.this)
            for part in (most, offset.expression if offset is not None else None)
            if part is not None and _is_whole(part)
        ]
        if numbers:
            self._found.limits.add(sum(numbers))

    def _field(self, place: Place) -> Field:
        return self._found.relations[place[0]].columns[place[1]]

    def _places(self, node: exp.Expression, depth: int = 0) -> set[Place]:
        """The columns of tables that an expression is made of; of a subquery, those that it selects."""
        if isinstance(node, exp.Subquery | exp.Select) and depth < 4:
            inner = node.unnest() if isinstance(node, exp.Subquery) else node
            selected = inner.selects if isinstance(inner, exp.Query) else []
            return {place for one in selected for place in self._places(one, depth + 1)}
        found: set[Place] = set()
        for column in (one for one in nodes(node) if isinstance(one, exp.Column)):
            found |= self._resolve(_plain(column.args.get("table")), _plain(column.this), depth)
        return found

    def _resolve(self, table: str, column: str, depth: int) -> set[Place]:
        names = self._tables.get(table, self._all) if table else self._all
        places = {(name, column) for name in names if column in self._found.relations[name].columns}
        if places or depth > 3:
            return places
        return {place for one in self._outputs.get(column, ()) for place in self._places(one, depth + 1)}


def _plain(identifier: exp.Expression | str | None) -> str:
    """A name as PostgreSQL folds it."""
    if isinstance(identifier, exp.TableAlias):
        identifier = identifier.this
    if isinstance(identifier, exp.Identifier):
        return str(identifier.this) if identifier.args.get("quoted") else str(identifier.this).lower()
    return str(getattr(identifier, "name", identifier) or "").lower()


def _constant(node: exp.Expression) -> tuple[str, bool] | None:
    """A value without columns: the text of a literal, or an expression for the server to work out."""
    inner = node
    while isinstance(inner, exp.Cast | exp.Paren):
        inner = inner.this
    if isinstance(inner, exp.Literal):
        return str(inner.this), False
    if isinstance(inner, exp.Neg) and isinstance(inner.this, exp.Literal):
        return f"-{inner.this.this}", False
    if isinstance(inner, exp.Boolean):
        return ("true" if inner.this else "false"), False
    if inner.find(exp.Column, exp.Query, exp.AggFunc, exp.Placeholder, exp.Parameter, exp.Null, exp.Star):
        return None
    return node.sql(dialect=POSTGRES), True


def _counts(node: exp.Expression, outputs: dict[str, list[exp.Expression]], depth: int = 0) -> bool:
    if node.find(exp.Count):
        return True
    return depth < 3 and any(
        _counts(one, outputs, depth + 1) for column in node.find_all(exp.Column) for one in outputs.get(column.name, ())
    )


def _alike(a: Field, b: Field) -> bool:
    kinds = {a.kind, b.kind}
    return len(kinds) == 1 or kinds <= {"whole", "number"} or kinds <= {"date", "time"}


def _common_columns(relations: Iterable[Relation]) -> list[str]:
    seen: dict[str, int] = defaultdict(int)
    for relation in relations:
        for name in relation.columns:
            seen[name] += 1
    return [name for name, times in seen.items() if times > 1]


def _is_whole(node: exp.Expression) -> bool:
    return isinstance(node, exp.Literal) and bool(node.is_int)
