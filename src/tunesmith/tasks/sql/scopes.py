"""Where an unfinished query stands: its open parentheses, what each SELECT reads from, which columns it may name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tunesmith.tasks.sql.names import Names, short_for


class Source(NamedTuple):
    """A table, a common table expression or a subquery that a query reads from."""

    alias: str
    table: str | None
    columns: frozenset[str] | None
    """None where they cannot be known."""


Columns = frozenset[str] | None


@dataclass(slots=True)
class Scope:
    """One SELECT."""

    parent: Scope | None
    rank: int = -1
    """How far it is: -1 before SELECT, 0 in its list, then the ranks of `CLAUSES`."""
    sources: list[Source] = field(default_factory=list)
    promised: list[tuple[str | None, str]] = field(default_factory=list)
    """Columns named before FROM, with their qualifiers."""
    outputs: list[str] = field(default_factory=list)
    """Names of the columns it returns."""
    item: str = ""
    """Name of the output being written, as far as it is known."""
    star: bool = False
    merged: set[str] = field(default_factory=set)
    """Columns that USING made one."""
    slot: str = ""
    """What a special place wants: `table`, `alias`, `named` (the word after AS), `joined` (what follows an alias),
    `output` (a column's alias); `cte` (a name), `as`, `body` and `next` within WITH."""
    conditions: int = 0
    """Joins that still want their ON or USING."""
    crossed: bool = False
    """Whether the join being written has no condition."""
    key: tuple[Source, str] | None = None
    """Left side of the join's equality."""
    key_step: int = 4
    """1 after ON, 2 after its first column, 3 after its =, 4 when it is judged."""

    def copy(self, copied: dict[int, Scope]) -> Scope:
        """A copy with its parents; one that is in `copied` already is taken from there."""
        twin = copied.get(id(self))
        if twin is None:
            # Half a million copies are made for a hundred answers; `dataclasses.replace` takes five times as long.
            twin = copied[id(self)] = Scope(
                self.parent and self.parent.copy(copied), self.rank, self.sources.copy(), self.promised.copy(),
                self.outputs.copy(), self.item, self.star, self.merged.copy(), self.slot, self.conditions, self.crossed,
                self.key, self.key_step,
            )  # fmt: skip
        return twin


@dataclass(slots=True)
class Frame:
    """A parenthesis, or the whole."""

    kind: str
    """`query`, `group`, `call`, `columns` (names), `type` (numbers), or `free` (unchecked: the rows of VALUES)."""
    scope: Scope
    opener: str = ""
    role: str = ""
    """What its result is: `derived` (a table), `cte`, or an expression."""
    only_query: bool = False
    compares: bool = False
    """Whether a comparison stands here already, since the last AND or comma."""
    cases: int = 0
    """CASEs that still want their END."""

    def copy(self, copied: dict[int, Scope]) -> Frame:
        """A copy with its scope, as `Scope.copy` makes it."""
        return Frame(
            self.kind, self.scope.copy(copied), self.opener, self.role, self.only_query, self.compares, self.cases
        )


class Stop(Exception):
    """The text breaks a rule."""


def fits(word: str, options: Iterable[str], partial: bool) -> bool:
    """Whether the word is one of the options, or, unfinished, the start of one."""
    if partial:
        return any(option.startswith(word) for option in options)
    return word in options


def take(word: str, options: Iterable[str], partial: bool) -> None:
    """Stop unless the word is, or may become, one of the options."""
    require(fits(word, options, partial))


def require(rule: bool) -> None:
    """Stop unless the rule is kept."""
    if not rule:
        raise Stop


_MADE_UP = frozenset(
    "total sum avg average mean count counts cnt num number n max maximum min minimum most least rank rn row_num "
    "row_number ratio rate share percent percentage difference diff value result".split()
)
"""Names that subqueries give their columns. Only these, of names that the schema does not have, may be used in a SELECT
list before the subquery is written."""


def made_up(word: str, partial: bool) -> bool:
    """Whether the word is, or may become, a name that subqueries give."""
    return fits(word, _MADE_UP, partial)


SUMMED = frozenset(("avg", "sum"))


class Resolver:
    """Says which tables and columns may be named where the query stands."""

    names: Names
    ctes: dict[str, Columns]
    frames: list[Frame]
    place: tuple[str, str] | None
    """Table and column just read, where both are known."""

    @property
    def frame(self) -> Frame:
        return self.frames[-1]

    @property
    def scope(self) -> Scope:
        return self.frames[-1].scope

    def _is_foreign(self, qualifier: str | None, column: str) -> bool:
        """Whether a promised column is in no table and no WITH query."""
        if qualifier is not None or self.scope.parent is not None or column in self.names.columns:
            return False
        return not any(columns is None or column in columns for columns in self.ctes.values())

    def _reaches(self, name: str) -> bool:
        """Whether a joined table can be joined with one that is there."""
        scope = self.scope
        if scope.conditions == 0 or any(source.table is None for source in scope.sources):
            return True
        return any(self.names.joinable(name, source.table) for source in scope.sources if source.table)

    @staticmethod
    def _distinct(scope: Scope) -> bool:
        """Whether no two tables go by one name."""
        aliases = [source.alias for source in scope.sources if source.alias]
        return len(set(aliases)) == len(aliases)

    def _kept(self, scope: Scope) -> bool:
        """Whether the tables of FROM have every column that was named before it, each in one place."""
        return all(self._found(scope, qualifier, column) for qualifier, column in scope.promised)

    def _found(self, scope: Scope, qualifier: str | None, column: str) -> bool:
        if qualifier is None:
            holders = [source for source in scope.sources if source.columns is None or column in source.columns]
            if (
                len(holders) > 1
                and column not in scope.merged
                and all(source.columns is not None for source in holders)
            ):
                return False
        else:
            holders = [s for s in scope.sources if s.alias == qualifier and (s.columns is None or column in s.columns)]
        if holders:
            return True
        return scope.parent is not None and (scope.parent.rank <= 0 or self._found(scope.parent, qualifier, column))

    # Columns

    def _column(self, qualifier: str | None, word: str, partial: bool) -> str | None:
        """Check a column, note what it promises or joins, and say of what kind it is."""
        scope, self.place = self.scope, None
        if qualifier is None:
            require(self._is_known(word, partial) and self._suits_some(word, partial))
            source = next((s for s in scope.sources if s.columns and word in s.columns), None)
            if scope.key_step in (1, 3) and not partial:
                require(source is not None and self._may_join(source, word))
        else:
            source = self._source(scope, qualifier)
            columns = self._columns_of(scope, qualifier)
            if source is not None and scope.key_step in (1, 3) and columns is not None:
                columns = frozenset(column for column in columns if self._may_join(source, column))
            table = source.table if source else qualifier if qualifier in self.names.tables else None
            if columns is not None and self.frame.opener in ("extract", *SUMMED):
                columns = frozenset(column for column in columns if self._suits(table, column))
            invented = source is None and qualifier not in self.names.tables and made_up(word, partial)
            require(columns is None or invented or fits(word, columns, partial))
        if partial:
            return None
        if scope.key_step in (1, 3):
            scope.key_step = 2 if scope.key_step == 1 and source else 4
            scope.key = (source, word) if source else None
        if scope.rank == 0:
            scope.promised.append((qualifier, word))
            if self.frame.kind == "query":
                scope.item = word
        if source is not None and source.table is None or any(s.columns is None for s in scope.sources):
            return None
        if source is not None and source.table is not None:
            self.place = (source.table, word)
        elif qualifier is None and not scope.sources and scope.parent is None:
            self.place = ("", word)  # before FROM: of whatever table has it
        return self.names.kind(source.table if source else None, word)

    def _suits(self, table: str | None, column: str) -> bool:
        """Whether the function around it takes a column of this kind: EXTRACT dates, AVG and SUM no texts."""
        if self.frame.cases or self.frame.kind != "call":
            return True
        kind = self.names.kind(table, column)
        if self.frame.opener == "extract":
            return kind in (None, "date", "time")
        return self.frame.opener not in SUMMED or kind not in ("text", "boolean")

    def _suits_some(self, word: str, partial: bool) -> bool:
        """The same for a column without its table, or what may become one."""
        if self.ctes or self.frame.opener not in ("extract", *SUMMED) or made_up(word, partial):
            return True
        sources = [source for source in self.scope.sources if source.columns]
        if not sources or any(source.table is None for source in self.scope.sources) or self.scope.parent:
            return any(self._suits(None, name) for name in self.names.columns if name.startswith(word))
        return any(self._suits(s.table, name) for s in sources for name in s.columns or () if name.startswith(word))

    def _may_lead(self, source: Source) -> bool:
        """Whether an ON may name a column of this table next."""
        if self.scope.key_step not in (1, 3) or source.columns is None:
            return True
        return any(self._may_join(source, column) for column in source.columns)

    def _may_join(self, source: Source, column: str) -> bool:
        """Whether an ON may begin, or go on, with this column of this table."""
        scope = self.scope
        newest = scope.sources[-1]
        table = source.table
        if source not in scope.sources or table is None:
            return True
        if scope.key_step == 3 and scope.key:
            other, name = scope.key
            allowed = newest in (source, other) and other is not source and other.table is not None
            return allowed and self.names.joins(table, column, other.table or "", name)
        partners = scope.sources[:-1] if source is newest else [newest]
        return any(self.names.leads(table, column, other.table) for other in partners if other.table)

    def _source(self, scope: Scope | None, alias: str) -> Source | None:
        while scope is not None:
            for source in scope.sources:
                if source.alias == alias:
                    return source
            scope = scope.parent
        return None

    def _columns_of(self, scope: Scope, qualifier: str) -> Columns:
        source = self._source(scope, qualifier)
        if source is not None:
            return source.columns
        if qualifier in self.names.tables:
            return self.names.tables[qualifier].columns
        if qualifier in self.ctes:
            return self.ctes[qualifier]
        # An alias that is yet to be declared: of a table, of a WITH, or of a subquery.
        written = self.ctes.values()
        return None if None in written else self.names.columns.union(*filter(None, written))

    def _qualifies(self, word: str, partial: bool) -> bool:
        """Whether the word may stand before a dot."""
        scope: Scope | None = self.scope
        while scope is not None:
            names: Iterable[str] = [source.alias for source in scope.sources if self._may_lead(source)]
            if scope.rank <= 0:
                names = [*names, *self.names.tables, *self.ctes]
                if short_for(word, (*self.names.tables, *self.ctes)):
                    return True
            if fits(word, names, partial):
                return True
            scope = scope.parent
        return False

    def _is_known(self, word: str, partial: bool) -> bool:
        """Whether the word may be a column here, unqualified."""
        scope: Scope | None = self.scope
        first = True
        while scope is not None:
            if any(source.columns is None for source in scope.sources):
                return True
            if scope.rank <= 0:
                if fits(word, self.names.columns, partial) or made_up(word, partial):
                    return True
                if any(columns is None or fits(word, columns, partial) for columns in self.ctes.values()):
                    return True
            if any(self._is_sole(scope, name) for name in self._starting(scope, word, partial)):
                return True
            if first and scope.rank >= 3 and fits(word, scope.outputs, partial):
                return True
            scope, first = scope.parent, False
        return False

    def _starting(self, scope: Scope, word: str, partial: bool) -> Iterable[str]:
        """Columns of the sources that the word is, or may become."""
        columns = {column for source in scope.sources for column in source.columns or ()}
        return (column for column in columns if column == word or partial and column.startswith(word))

    def _is_sole(self, scope: Scope, column: str) -> bool:
        """Whether a column may stand without its table: one source has it, and a join's key may go on with it."""
        holders = [source for source in scope.sources if column in (source.columns or ())]
        if len(holders) > 1 and column not in scope.merged:
            return False
        return scope.key_step not in (1, 3) or scope is not self.scope or self._may_join(holders[0], column)
