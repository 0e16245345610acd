"""What a SQL answer may continue with, given the schema in the prompt: names that exist, joins along real keys.

A tolerant reader walks over the answer so far. It knows which tables a query speaks of once FROM is written, checks
columns against them, and holds what the SELECT list promised against FROM when FROM ends. It is no parser: what it does
not know it lets pass, because forbidding a right answer costs more than letting a wrong one through.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from tunesmith.tasks.sql.literals import Literals
from tunesmith.tasks.sql.schema import quote
from tunesmith.tasks.sql.schema_text import read_schema_text
from tunesmith.tasks.sql.words import (
    AFTER_OPERAND,
    AGGREGATES,
    BEFORE_OPERAND,
    CASE,
    CLAUSES,
    ENDS,
    FIELDS,
    FRAME,
    FUNCTIONS,
    JOINS,
    JSON_FUNCTIONS,
    NO_ARGUMENTS,
    PAIRS,
    ROWS,
    SET_OPERATIONS,
    TOKEN,
    TYPED,
    TYPES,
    WINDOW,
    WINDOWS,
)


class SchemaConstraint:
    """Holds an answer to the tables, columns and keys of a prompt.

    Args:
        schema_text: the prompt's schema as `render_table` writes it, in either style, or plain CREATE TABLE statements.
        question: what was asked; literals are compared with it.
        strict_literals: whether texts and numbers that a column is compared with must come from the question, the
            schema or `values`. Off by default: a right value need not be in the question ("Irish" means 'Ireland').
        values: texts known to occur in the database, for `strict_literals`.
    """

    def __init__(
        self, schema_text: str, question: str, strict_literals: bool = False, values: Collection[str] = ()
    ) -> None:
        self._names = _names_of(schema_text)
        shown = [value for table in self._names.tables.values() for value in table.values]
        self._literals = Literals(question, [*values, *shown]) if strict_literals else None

    def allows(self, text: str) -> bool:
        """Whether `text` is the start of a query that keeps to the schema."""
        return _Reader(self._names, self._literals).read(text)

    def complete(self, text: str) -> bool:
        """Whether `text` is a whole query that keeps to the schema."""
        reader = _Reader(self._names, self._literals)
        return reader.read(text + " ") and reader.may_stop()


# --- what the prompt says -------------------------------------------------------------------------------------------


class _Names:
    """The schema, with what joins what."""

    def __init__(self, text: str) -> None:
        self.tables = tables = read_schema_text(text)
        self.nested = "json" in text.lower() or "[]" in text
        self.functions = FUNCTIONS | JSON_FUNCTIONS if self.nested else FUNCTIONS
        self.set_functions = JSON_FUNCTIONS | {"unnest"} if self.nested else frozenset()
        self.calls = (self.functions, self.functions - WINDOWS, self.functions - WINDOWS - AGGREGATES)
        self.schemas = frozenset(t.schema for t in tables.values() if t.schema != "public" or "public." in text)
        self.columns = frozenset(column for table in tables.values() for column in table.columns)
        self.quoted: set[str] = {name for name in (*tables, *self.columns) if quote(name) != name}
        self.keyed = {name for name, table in tables.items() if table.references}
        self.keyed |= {target for name in self.keyed for target, _ in tables[name].references.values()}
        self.roots = {(name, column): self._root(name, column) for name in tables for column in tables[name].columns}
        self._shared = Counter(column for table in tables.values() for column in table.columns)
        self._leads: dict[tuple[str, str, str], bool] = {}
        self._of_table = {name: frozenset(self.roots[name, c] for c in table.columns) for name, table in tables.items()}

    def _root(self, table: str, column: str) -> tuple[str, str]:
        """Where a key points to in the end: columns with one root hold the same values."""
        seen = set()
        while (table, column) not in seen:
            seen.add((table, column))
            target = self.tables[table].references.get(column) if table in self.tables else None
            if target is None:
                break
            table, column = target
        return table, column

    def kind(self, table: str | None, column: str) -> str | None:
        """Family of a column's type; without its table, that of every table which has it, where they agree."""
        holders = [self.tables[table]] if table else [t for t in self.tables.values() if column in t.columns]
        kinds = {holder.kinds.get(column) for holder in holders}
        return kinds.pop() if len(kinds) == 1 else None

    def joins(self, a: str, x: str, b: str, y: str) -> bool:
        """Whether `a.x = b.y` follows declared keys.

        Tables that no key relates to each other join on a column that only they have; tables without any key, on any.
        """
        if not {a, b} <= self.keyed or self.roots[a, x] == self.roots[b, y]:
            return True
        return not self.related(a, b) and x == y and self._shared[x] == 2

    def related(self, a: str, b: str) -> bool:
        """Whether columns of both hold the same values, by declared keys."""
        return a != b and not self._of_table[a].isdisjoint(self._of_table[b])

    def leads(self, a: str, x: str, b: str) -> bool:
        """Whether `a.x` joins any column of b."""
        key = (a, x, b)
        if key not in self._leads:
            self._leads[key] = any(self.joins(a, x, b, y) for y in self.tables[b].columns)
        return self._leads[key]

    def joinable(self, a: str, b: str) -> bool:
        return any(self.leads(a, x, b) for x in self.tables[a].columns)


_UNDECLARED = re.compile(r"[a-z]{1,3}\d?$")


def _short_for(word: str, tables: Iterable[str]) -> bool:
    """Whether the word may be an alias used before it is declared: a, b, t1, or letters of a table's name in order."""
    if not _UNDECLARED.match(word):
        return False
    letters = word.rstrip("0123456789").removesuffix("x") or "x"
    return letters in ("a", "b", "t") or any(_in_order(letters, table.lower()) for table in tables)


def _in_order(letters: str, name: str) -> bool:
    rest = iter(name)
    return all(letter in rest for letter in letters)


@lru_cache(maxsize=32)
def _names_of(schema_text: str) -> _Names:
    """Read a schema once, however many questions are asked about it."""
    return _Names(schema_text)


class _Source(NamedTuple):
    """A table, a common table expression or a subquery that a query reads from."""

    alias: str
    table: str | None
    columns: frozenset[str] | None
    """None where they cannot be known."""


Columns = frozenset[str] | None


@dataclass(slots=True)
class _Scope:
    """One SELECT."""

    parent: _Scope | None
    rank: int = -1
    """How far it is: -1 before SELECT, 0 in its list, then the ranks of `CLAUSES`."""
    sources: list[_Source] = field(default_factory=list)
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
    key: tuple[_Source, str] | None = None
    """Left side of the join's equality."""
    key_step: int = 4
    """1 after ON, 2 after its first column, 3 after its =, 4 when it is judged."""


@dataclass(slots=True)
class _Frame:
    """A parenthesis, or the whole."""

    kind: str
    """`query`, `group`, `call`, `columns` (names), `type` (numbers), or `free` (unchecked: the rows of VALUES)."""
    scope: _Scope
    opener: str = ""
    role: str = ""
    """What its result is: `derived` (a table), `cte`, or an expression."""
    only_query: bool = False
    compares: bool = False
    """Whether a comparison stands here already, since the last AND or comma."""
    subtracts: bool = False
    cases: int = 0
    """CASEs that still want their END."""


class _Stop(Exception):
    """The text breaks a rule."""


_SHORT = re.compile(r"[a-z]{1,4}\d?$|[A-Z]\d?$")
"""Aliases that may follow a table without AS; longer words there are misspelt keywords."""
_CAPITAL = re.compile(r"[A-Z]\d?$")
_MADE_UP = frozenset(
    "total sum avg average mean count counts cnt num number n max maximum min minimum most least rank rn row_num "
    "row_number ratio rate share percent percentage difference diff value result".split()
)
"""Names that subqueries give their columns. Only these, of names that the schema does not have, may be used in a SELECT
list before the subquery is written."""


def _made_up(word: str, partial: bool) -> bool:
    return _Reader._fits(word, _MADE_UP, partial)


_AFTER_LEAD = frozenset(("join", "outer"))
_LEADS = frozenset(("inner", "left", "right", "full", "cross", "natural"))
_INNER = {
    "cast": ("as",),
    "extract": ("from",),
    "overlay": ("placing", "from", "for"),
    "position": ("in",),
    "substring": ("from", "for", "similar", "escape"),
    "trim": ("from", "both", "leading", "trailing"),
}
"""Words that part the arguments of some functions."""
_MORE_TYPE = frozenset(("precision", "varying", "with", "without", "time", "zone"))
"""Second words of types."""
_SPACE = re.compile(r" {1,3}|\t| ?\r?\n[ \t]{0,24}")
"""White space as queries are written with: a few spaces, or a new line with its indentation."""
_MOST_ALIAS = 31
_OPERAND_ENDS = ENDS | FIELDS | {"name", "alias", "type", "'", "0", ")", "*", "]"}
_BY = frozenset(("group", "order", "partition"))
_WANT_LANGUAGE = _BY | _LEADS | frozenset(PAIRS)
_WANT_WORD = frozenset(("is", "infix", "similar", "at", "nulls"))
_WANT_PARENTHESIS = frozenset(("function", "array", "any", "some", "exists", "over", "filter", "using"))
_LITERALS = {
    "number": re.compile(r"-?\d*\.?\d*$"),
    "date": re.compile(r"$|\d|[tT][oO]|[yY]|[nN]"),
    "time": re.compile(r"$|\d|[tT][oO]|[yY]|[nN]"),
    "boolean": re.compile(r"t?r?u?e?$|f?a?l?s?e?$|y?e?s?$|n?o?$", re.IGNORECASE),
}
"""How a text must begin to be compared with a column of that kind: '2024-01-01', 'today', 'true'."""
_TESTS = frozenset(("is", "in", "like", "ilike", "between", "similar", "isnull", "notnull"))
_SUMMED = frozenset(("avg", "sum"))
_COMPARISONS = frozenset("= <> != < > <= >=".split())
_SIGNS = _COMPARISONS | frozenset(":: || ~* !~ - + * / % ( ) , . ; ~ [ ]".split())
_FRESH = frozenset(CLAUSES) | JOINS | CASE | SET_OPERATIONS | {"and", "or", "case", "on", ",", "select"}
"""Tokens after which a new comparison may stand."""


# --- reading --------------------------------------------------------------------------------------------------------


class _Reader:
    """Reads one text, left to right, once."""

    def __init__(self, names: _Names, literals: Literals | None) -> None:
        self.names = names
        self.literals = literals
        self.ctes: dict[str, Columns] = {}
        self.writing: list[str] = []
        """Names of the WITH queries being written, innermost last."""
        self.recursive = False
        """Whether a WITH query may name itself."""
        self.frames = [_Frame("query", _Scope(None))]
        self.previous = ""
        """The token before, lower case where it is a word; `'` for a text, `0` for a number, `name` for a name."""
        self.before = ""
        """The token before that."""
        self.qualifier: str | None = None
        self.call = ""
        """The function just named, before its parenthesis."""
        self.upper: bool | None = None
        """Whether the statement's first word is in capitals; None before it."""
        self.open = False
        """Whether the text ends within quotes."""
        self.kind: str | None = None
        """Family of the type of the column just read."""
        self.against: str | None = None
        """The same of the column that a literal here is compared with."""
        self.compared = False
        """Whether a literal here is compared with a column."""

    def read(self, text: str) -> bool:
        """Whether the text keeps to the rules; its last word may be unfinished."""
        tokens = [(str(m.lastgroup), m[0]) for m in TOKEN.finditer(text)]
        try:
            for i, (kind, token) in enumerate(tokens):
                if kind == "space":
                    _require(self.previous != "." and bool(_SPACE.fullmatch(token)))
                    _require(self.previous != "function" or token == " ")
                    continue
                rest = tokens[i + 1 : i + 3]
                following = next((t for k, t in rest if k != "space"), "")
                self._token(kind, token, following, partial=not rest)
        except _Stop:
            return False
        return True

    def may_stop(self) -> bool:
        """Whether the statement may end after what was read."""
        if self.previous == ";":
            return True
        frame = self.frames[0]
        return len(self.frames) == 1 and not self.open and frame.scope.rank >= 0 and self._ends(frame.scope)

    @property
    def frame(self) -> _Frame:
        return self.frames[-1]

    @property
    def scope(self) -> _Scope:
        return self.frames[-1].scope

    # Tokens

    def _token(self, kind: str, token: str, following: str, partial: bool) -> None:
        frame, scope = self.frame, self.scope
        _require(self.previous != ";")
        self.open = kind in ("open_string", "open_quoted")
        if frame.only_query and self.previous == "(":
            _require(kind == "word" or token == "(")
        if self.previous in _WANT_PARENTHESIS:
            _require(token == "(" or token == "[" and self.previous == "array")
        if self.previous in _WANT_WORD:
            _require(kind == "word")
        if self.previous == "typed":
            _require(kind in ("string", "open_string"))
        if kind in ("word", "quoted", "open_quoted"):
            self._name(kind, token, following, partial)
            return
        _require(self.previous != "." or token == "*")
        if partial and token in ("!", "|", ":"):
            _require(self._ended() and scope.key_step == 4 and not (frame.kind == "query" and scope.slot))
            return
        if kind in ("string", "open_string"):
            self._text(token, kind == "string")
            token = "'"
        elif kind == "number":
            self._number(token, closed=not partial and following != ".")
            token = "0"
        elif kind == "sign":
            token = self._sign(token)
        else:
            raise _Stop
        if scope.key_step < 4 and frame.scope is scope:
            # Where keys are declared, a join begins with one: what else it asks for comes after.
            _require(token in ("(", ".") or (scope.key_step == 2 and token == "="))
            if token == "=":
                scope.key_step = 3
        self._advance(token)

    def _advance(self, token: str, kind: str | None = None) -> None:
        if token in _FRESH:
            self.frame.compares = False
        self.before, self.previous = self.previous, token
        if token in _COMPARISONS or token in ("like", "ilike", "in", "between"):
            self.compared, self.against = True, self.kind
        elif token not in ("(", ",", "'", "0", "infix", "-") and not (token == "and" and self.before in ("'", "0")):
            self.compared, self.against = False, None
        if token != "infix":
            self.kind = kind

    def _operand(self) -> None:
        """Check that a literal may stand here."""
        frame, scope = self.frame, self.scope
        _require(frame.kind in ("query", "group", "call", "free") and not (frame.kind == "query" and scope.slot))
        _require(scope.rank >= 0 and not self._ended())

    def _text(self, token: str, closed: bool) -> None:
        _require(self.previous != "limit" and (self.frame.kind != "query" or self.scope.rank < 7))
        self._operand()
        wanted = _LITERALS.get(self.against or "")
        _require(not (self.compared and wanted) or bool(wanted and wanted.match(token[1:].rstrip("'"))))
        text = (token[1:-1] if closed else token[1:]).replace("''", "'")
        _require(not (self.literals and self.compared and not self.literals.text(text, closed)))

    def _number(self, token: str, closed: bool) -> None:
        if self.frame.kind == "type":
            return
        self._operand()
        _require(not self.compared or self.against in (None, "number"))
        _require(not (self.literals and self.compared and not self.literals.number(token, closed)))

    def _sign(self, sign: str) -> str:
        """Check a sign, and say what to remember it as."""
        frame, scope = self.frame, self.scope
        outermost = frame.kind == "query"
        _require(sign in _SIGNS or self.names.nested and sign in ("@", "#", "&", "?", "->", "->>"))
        if outermost and scope.rank == 7:
            _require(sign in ");,")
        if frame.kind in ("columns", "type", "free"):
            _require(sign in "(),.-+" if frame.kind == "free" else sign in "),")
        if sign == "(":
            self._open()
        elif sign == ")":
            self._close()
            # What follows DISTINCT ON (...) is the first output, not something that follows an operand.
            return "distinct" if frame.opener == "on" else ")"
        elif sign == ",":
            self._comma()
        elif sign == ".":
            _require(self.previous == "name" and self.qualifier is not None)
        elif sign == ";":
            _require(len(self.frames) == 1 and scope.rank >= 0 and self._ends(scope))
        elif sign == "*" and not self._ended():
            if outermost and scope.rank == 0 and self.previous in ("select", "distinct", "all", ",", "."):
                scope.star = True
            else:
                _require(self.previous == "(" and frame.opener == "count" or self.previous == ".")
        else:
            _require(scope.rank >= 0 and not (outermost and scope.slot))
            starts = sign in "+-" and self.previous not in ("+", "-") or sign == "[" and self.previous == "array"
            _require(self._ended() or starts)
            frame.subtracts |= sign == "-"
            if sign in _COMPARISONS:
                # One comparison is no operand of another: a = b = c is an error.
                _require(not frame.compares)
                frame.compares = True
            return "times" if sign == "*" else sign
        return sign

    def _comma(self) -> None:
        frame, scope = self.frame, self.scope
        if frame.kind == "query" and scope.slot == "next":
            scope.slot = "cte"
            return
        _require(scope.rank >= 0 and not frame.cases)
        _require(self._ended() or frame.kind == "query" and scope.slot in ("alias", "joined"))
        if frame.kind == "query" and scope.rank == 0:
            self._output(scope)
        elif frame.kind == "query" and scope.rank == 1:
            _require(scope.conditions == 0 and scope.key_step == 4 and self._distinct(scope))
            scope.slot = "table"
        elif frame.kind == "query":
            _require(scope.rank in (3, 6))

    def _ended(self) -> bool:
        """Whether an operand, or the last word of an expression, was just read."""
        return self.previous in _OPERAND_ENDS

    # Parentheses

    def _open(self) -> None:
        frame, scope = self.frame, self.scope
        slot = scope.slot if frame.kind == "query" else ""
        if frame.kind == "free":
            opened = _Frame("free", scope)
        elif slot == "table" and not self.call:
            opened = _Frame("group", scope, role="derived", only_query=True)
        elif slot == "joined" and self.previous == "name" and scope.sources[-1].table is None:
            scope.sources[-1] = scope.sources[-1]._replace(columns=None)
            opened = _Frame("columns", scope)
        elif slot == "as" and self.previous == "name":
            self.ctes[self.writing[-1]] = None
            opened = _Frame("columns", scope)
        elif slot == "body":
            opened = _Frame("group", scope, role="cte", only_query=True)
        elif self.previous == "type":
            opened = _Frame("type", scope)
        elif self.previous == "using":
            opened = _Frame("columns", scope, opener="using")
        elif self.call:
            opened = _Frame("call", scope, opener=self.call)
        elif frame.kind == "query" and scope.rank == -1 and not slot:
            opened = _Frame("group", scope, role="operand", only_query=True)
        else:
            _require(not slot and scope.rank >= 0)
            _require(not self._ended() or (self.previous == "row"))
            opened = _Frame("group", scope, opener=self.previous)
        self.frames.append(opened)
        self.call = ""

    def _close(self) -> None:
        _require(len(self.frames) > 1)
        frame = self.frames.pop()
        outer = self.scope
        columns: Columns = None
        if frame.kind == "query":
            _require(frame.scope.rank >= 0 and self._ends(frame.scope))
            self._output(frame.scope)
            columns = None if frame.scope.star else frozenset(frame.scope.outputs)
        elif frame.kind == "call" and self.previous == "(":
            _require(frame.opener in NO_ARGUMENTS)
        elif frame.opener in _SUMMED and self.kind in ("date", "time"):
            # A difference of dates can be averaged, a date cannot.
            _require(self.before not in ("(", ".") or frame.subtracts)
        else:
            # OVER () is a window of all rows.
            _require(self._ended() or (self.previous == "(" and frame.opener == "over"))
        _require(not frame.cases)
        if frame.role == "derived":
            outer.sources.append(_Source("", None, columns))
            outer.slot = "alias"
        elif frame.role == "cte":
            # Set already where the columns were listed, or the query may name itself.
            self.ctes.setdefault(self.writing.pop(), columns)
            outer.slot = "next"
        elif frame.role == "operand":
            outer.rank, outer.slot = 1, "joined"
            outer.sources.append(_Source("", None, None))
        elif frame.kind == "call":
            if outer.slot == "table" and self.frame.kind == "query":
                outer.sources.append(_Source("", None, None))
                outer.slot = "alias"
            elif outer.rank == 0 and self.frame.kind == "query":
                outer.item = frame.opener

    def _output(self, scope: _Scope) -> None:
        scope.outputs.append(scope.item or "?column?")
        scope.item = ""

    # Words

    def _name(self, kind: str, token: str, following: str, partial: bool) -> None:
        frame = self.frame
        quoted = kind != "word"
        word = token[1:].removesuffix('"').replace('""', '"') if quoted else token.lower()
        partial = kind == "open_quoted" or (partial and not quoted)
        _require(quoted or _one_case(token))
        if quoted and self.scope.slot not in ("named", "output", "cte") and frame.kind != "free":
            _take(word, self._quoted(), partial)
        if frame.kind in ("columns", "free", "type"):
            self._bare(word, partial)
            return
        # Names are written as the prompt writes them; capitals are for keywords and the query's own names.
        slot = self.scope.slot if frame.kind == "query" else ""
        own = quoted or token == word or (slot != "table" and bool(_CAPITAL.match(token)))
        own = own or slot in ("named", "output", "cte")
        if self.previous == ".":
            _require(quoted or token == word)
            family = self._column(self.qualifier, word, partial)
            self.qualifier = None
            self._advance("name", family)
            return
        self.qualifier = None
        if self.upper is None:
            self.upper = token.isupper()
        # Where SELECT is in capitals, so are the other words of the language: small letters are names.
        speaks = not quoted and (token.isupper() or not self.upper or self._in_either_case(word, partial))
        _require(speaks or self.previous not in _WANT_LANGUAGE)
        plain = speaks and self._keyword(word, following, partial)
        if not plain:
            _require(own)
            self._identifier(word, quoted, token, following, partial)

    def _in_either_case(self, word: str, partial: bool) -> bool:
        """Types and plain values are written small by many who write the rest in capitals."""
        typing = self.previous in ("::", "type", "typed") or (self.previous == "as" and self.frame.opener == "cast")
        return typing or self._fits(word, ("true", "false", "null"), partial)

    def _quoted(self) -> set[str]:
        """Names that may stand in quotes: those of the schema that need them, and the query's own."""
        scope = self.scope
        own = {*scope.outputs, *self.ctes, *(source.alias for source in scope.sources)}
        given = [source.columns for source in scope.sources if source.table is None and source.columns]
        return {name for name in self.names.quoted.union(own, *given) if quote(name) != name}

    def _bare(self, word: str, partial: bool) -> None:
        """A word in a list of columns or of plain values."""
        frame, scope = self.frame, self.scope
        _require(frame.kind != "type" and (self.previous in ("(", ",") or frame.kind == "free"))
        if frame.opener == "using":
            shared = [source.columns for source in scope.sources if source.columns is not None]
            _take(word, self.names.columns.union(*shared), partial)
            scope.merged.add(word)
        self._advance("name")

    def _keyword(self, word: str, following: str, partial: bool) -> bool:
        """Take the word as a part of the language where it is one here, or, unfinished, may become one."""
        frame, scope, previous = self.frame, self.scope, self.previous
        outermost = frame.kind == "query"
        if previous == "::" or (previous == "as" and frame.opener == "cast" and not outermost):
            _take(word, TYPES, partial)
            self._advance("type")
            return True
        if previous == "type" and self._fits(word, _MORE_TYPE, partial):
            self._advance("type")
            return True
        if previous in _BY and not (previous == "group" and self.before == "within"):
            _take(word, ("by",), partial)
            self._advance(word)
            return True
        if outermost and scope.rank == 1 and previous in _LEADS:
            _take(word, _AFTER_LEAD | _LEADS if previous == "natural" else _AFTER_LEAD, partial)
            self._join(word)
            return True
        special = outermost and scope.slot in ("table", "named", "cte", "output")
        if special and word not in ("lateral", "only", "recursive"):
            return False
        if self._fits(word, self._clauses(), partial):
            if not partial:
                self._clause(word)
            return True
        if outermost and scope.slot in ("alias", "joined"):
            if word == "as" and scope.slot == "alias":
                scope.slot = "named"
                self._advance("as")
                return True
            _require(scope.slot == "alias")
            return False
        if outermost and scope.slot == "as" and self._fits(word, ("as",), partial):
            scope.slot = "body" if word == "as" else "as"
            self._advance(word)
            return True
        if word == "as" and outermost and scope.rank == 0 and self._ended():
            scope.slot = "output"
            self._advance("as")
            return True
        if frame.kind == "call" and self._fits(word, _INNER.get(frame.opener, ()), partial):
            self._advance(word)
            return True
        if scope.slot == "table" and word in ("lateral", "only"):
            self._advance(word)
            return True
        if scope.slot == "body" and self._fits(word, ("materialized", "not"), partial):
            self._advance(word)
            return True
        return self._in_expression(word, following, partial)

    def _in_expression(self, word: str, following: str, partial: bool) -> bool:
        frame, scope = self.frame, self.scope
        if scope.rank < 0 and frame.kind == "query":
            _require(self.previous == "with" or self.previous in SET_OPERATIONS)
            _take(word, ("recursive",) if self.previous == "with" else ("all", "distinct"), partial)
            self.recursive |= word == "recursive"
            self._advance(word)
            return True
        if following == "." or (frame.only_query and self.previous == "("):
            return False
        in_field = frame.opener == "extract" and self.previous == "(" or self.previous == "'"
        if in_field and self._fits(word, FIELDS, partial):
            self._advance(word)
            return True
        known = self._is_known(word, partial=False)
        callable_here = not self._ended() and (partial or following == "(" or (not following and not known))
        if callable_here and self._fits(word, self._functions(), partial):
            self.call = word
            self._advance("function")
            return True
        typed = not self._ended() and (following[:1] == "'" or (not following and not known))
        if typed and self._fits(word, TYPED, partial):
            self._advance("typed")
            return True
        if self._inside(word, partial):
            self._advance(word)
            return True
        words = self._words_here()
        _require(self.previous not in PAIRS or self.previous == "time" or self._fits(word, words, partial))
        if known and not partial and word not in BEFORE_OPERAND and not self._ended():
            return False
        if self._fits(word, words, partial):
            frame.cases += (word == "case") - (word == "end")
            if word == "end" and scope.rank == 0 and frame.kind == "query":
                scope.item = "case"
            self._advance("infix" if word == "not" and self._ended() else word)
            return True
        return False

    def _functions(self) -> Collection[str]:
        """Functions that may be called here."""
        scope = self.scope
        if scope.key_step in (1, 3):
            return ()
        everything, grouped, single = self.names.calls
        return everything if scope.rank in (0, 6) else grouped if scope.rank in (4, 5) else single

    def _words_here(self) -> Collection[str]:
        """Words of the language that may stand here in an expression."""
        frame, scope, previous = self.frame, self.scope, self.previous
        if scope.key_step < 4:
            return ()
        if previous == "time" and self.before != "at":
            return ()
        if previous in PAIRS:
            texts = self.kind in (None, "text")
            return PAIRS[previous] if texts else PAIRS[previous] - {"like", "ilike", "similar"}
        if previous == "not" and self.before == "is":
            return ("null", "true", "false", "distinct")
        if frame.kind == "query" and scope.rank == 7:
            return ROWS
        window = frame.kind == "group" and frame.opener in ("over", "as")
        words = AFTER_OPERAND if self._ended() else BEFORE_OPERAND
        if self._ended() and frame.compares:
            words = words - _TESTS
        if self.kind not in (None, "text"):
            words = words - {"like", "ilike", "similar"}
        if window:
            words = words | FRAME
        if self._ended() and (window or frame.kind == "call" or frame.opener == "group" or scope.rank == 6):
            words = words | {"asc", "desc", "nulls"}
        if frame.cases and (self._ended() or previous == "case"):
            words = words | CASE
        if previous in ("select", "("):
            words = words | {"distinct"}
        if previous == "between":
            words = words | {"symmetric"}
        return words

    def _inside(self, word: str, partial: bool) -> bool:
        """Whether the word parts a window, an aggregate or a comparison, as its place says."""
        frame = self.frame
        window = frame.kind == "group" and frame.opener in ("over", "group", "as") and self.previous == "("
        if window and self._fits(word, ("order", "partition"), partial):
            return True
        ordered = frame.kind == "call" or (frame.kind == "group" and frame.opener in ("over", "as"))
        if ordered and self._ended() and self._fits(word, WINDOW, partial):
            return True
        if frame.opener == "filter" and self.previous == "(":
            return self._fits(word, ("where",), partial)
        if self.previous == "within":
            return self._fits(word, ("group",), partial)
        if self.previous == "distinct" and self.before == "select":
            return self._fits(word, ("on",), partial)
        comparing = self.previous == "distinct" and self.before in ("is", "not")
        return comparing and self._fits(word, ("from",), partial)

    def _identifier(self, word: str, quoted: bool, token: str, following: str, partial: bool) -> None:
        frame, scope = self.frame, self.scope
        _require(scope.rank >= 0 or scope.slot == "cte")
        if frame.kind == "query" and scope.slot:
            self._in_slot(word, token, following, partial)
        elif not self._ended() and (following == "." or (partial and self._qualifies(word, True))):
            _require(self._qualifies(word, partial))
            self.qualifier = word
        else:
            output = frame.kind == "query" and scope.rank == 0 and self._ended() and self.previous != "alias"
            if not self._ended():
                kind = self._column(None, word, partial)
            else:
                _require(output and len(word) <= _MOST_ALIAS and (partial or quoted or quote(word) == word))
                scope.item = word
                self._advance("alias")
                return
            if not following and not partial and self._qualifies(word, False):
                self.qualifier = word
            self._advance("name", kind)
            return
        self._advance("name")

    def _in_slot(self, word: str, token: str, following: str, partial: bool) -> None:
        scope = self.scope
        if scope.slot == "table":
            self._table(word, following, partial)
        elif scope.slot == "cte":
            self.writing.append(word)
            if self.recursive:
                self.ctes[word] = None
            scope.slot = "as"
        elif scope.slot == "output":
            scope.item, scope.slot = word, ""
        elif scope.slot in ("named", "alias"):
            short = (
                word not in self.names.tables
                and bool(_SHORT.match(token))
                and (len(word) <= 2 or _in_order(word.rstrip("12345"), scope.sources[-1].alias))
            )
            _require(len(word) <= _MOST_ALIAS if scope.slot == "named" else short or not scope.sources[-1].table)
            _require(partial or token[0] == '"' or quote(word) == word)
            scope.sources[-1] = scope.sources[-1]._replace(alias=word)
            scope.slot = "joined"
        else:
            raise _Stop

    def _table(self, word: str, following: str, partial: bool) -> None:
        scope = self.scope
        if following == "." and word in self.names.schemas and self.previous != ".":
            self.qualifier = word
            return
        # A name that no table has was promised: a subquery must give it.
        _require(len(scope.sources) > 0 or not any(self._is_foreign(*promise) for promise in scope.promised))
        # A table that is joined with itself has another name first: FROM vets AS a JOIN vets AS b.
        there = {source.alias for source in scope.sources}
        options = {*self.ctes, *(name for name in self.names.tables if scope.crossed or self._reaches(name))} - there
        if not partial and following == "(" and word in self.names.set_functions:
            self.call = word
            return
        if partial:
            options |= self.names.schemas | (
                {"lateral"} if scope.conditions else {"lateral", *self.names.set_functions}
            )
        _take(word, options, partial)
        if not partial:
            known = self.ctes.get(word) if word in self.ctes else self.names.tables[word].columns
            scope.sources.append(_Source(word, None if word in self.ctes else word, known))
            scope.slot = "alias"

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

    # Clauses and joins

    def _clauses(self) -> Iterable[str]:
        """Words that may begin a new part here."""
        frame, scope = self.frame, self.scope
        if frame.kind != "query":
            if self.previous == "(" and frame.kind == "group" and frame.opener not in ("over", "filter", "as"):
                return ("select", "with", "values") if frame.only_query else ("select", "with")
            return ()
        if scope.rank < 0:
            return ("select", "with") if not scope.slot or scope.slot == "next" else ()
        if not self._ended() and scope.slot not in ("alias", "joined"):
            return ()
        if frame.cases or scope.key_step < 4:
            return ()
        if not self._distinct(scope):
            return ()
        if scope.rank == 0:
            return ("from", *SET_OPERATIONS, "limit", "where") if not scope.promised else ("from",)
        found: list[str] = []
        if scope.rank == 1:
            found += ["on", "using"] if scope.conditions and scope.slot else []
            found += JOINS if not scope.conditions or not scope.slot else ()
        if self._kept(scope) and not (scope.rank == 1 and scope.conditions):
            found += SET_OPERATIONS
            found += (clause for clause, rank in CLAUSES.items() if rank > scope.rank or rank == scope.rank == 7)
        return found

    @staticmethod
    def _distinct(scope: _Scope) -> bool:
        """Whether no two tables go by one name."""
        aliases = [source.alias for source in scope.sources if source.alias]
        return len(set(aliases)) == len(aliases)

    def _clause(self, word: str) -> None:
        scope = self.scope
        if word == "select" or word == "with":
            if self.frame.kind != "query":
                self.frame.kind = "query"
                lateral = self.frame.role in ("", "operand") or self.before == "lateral"
                self.frame.scope = scope = _Scope(scope if lateral else None)
            scope.rank, scope.slot = (0, "") if word == "select" else (-1, "cte")
        elif word == "values":
            self.frame.kind = "free"
        elif word in SET_OPERATIONS:
            self._output(scope)
            fresh = _Scope(scope.parent, outputs=scope.outputs, star=scope.star)
            self.frame.scope = fresh
        elif word in ("on", "using"):
            scope.conditions -= 1
            scope.slot = ""
            keyed = all(source.table in self.names.keyed for source in scope.sources)
            scope.key, scope.key_step = None, 1 if word == "on" and keyed else 4
        elif word in JOINS:
            self._join(word)
            return
        else:
            if word == "from":
                self._output(scope)
            scope.rank, scope.slot = CLAUSES[word], "table" if word == "from" else ""
        self._advance(word)

    def _join(self, word: str) -> None:
        scope = self.scope
        if word == "join":
            scope.crossed = self.previous in ("cross", "natural") or self.before == "natural"
            scope.conditions += not scope.crossed
            scope.slot = "table"
        self._advance(word)

    def _ends(self, scope: _Scope) -> bool:
        """Whether this SELECT may end here: nothing open, and every promised column kept."""
        if scope.slot not in ("", "alias", "joined") or not (self._ended() or scope.slot):
            return False
        return self._kept(scope) and scope.key_step == 4 and not (scope.rank <= 1 and scope.conditions)

    def _kept(self, scope: _Scope) -> bool:
        """Whether the tables of FROM have every column that was named before it, each in one place."""
        return all(self._found(scope, qualifier, column) for qualifier, column in scope.promised)

    def _found(self, scope: _Scope, qualifier: str | None, column: str) -> bool:
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
        scope = self.scope
        if qualifier in self.names.schemas and scope.slot == "table":
            self._table(word, "", partial)
            return None
        if qualifier is None:
            _require(self._is_known(word, partial) and self._suits_some(word, partial))
            source = next((s for s in scope.sources if s.columns and word in s.columns), None)
            if scope.key_step in (1, 3) and not partial:
                _require(source is not None and self._may_join(source, word))
        else:
            source = self._source(scope, qualifier)
            columns = self._columns_of(scope, qualifier)
            if source is not None and scope.key_step in (1, 3) and columns is not None:
                columns = frozenset(column for column in columns if self._may_join(source, column))
            table = source.table if source else qualifier if qualifier in self.names.tables else None
            if columns is not None and self.frame.opener in ("extract", *_SUMMED):
                columns = frozenset(column for column in columns if self._suits(table, column))
            made_up = source is None and qualifier not in self.names.tables and _made_up(word, partial)
            _require(columns is None or made_up or self._fits(word, columns, partial))
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
        return self.names.kind(source.table if source else None, word)

    def _suits(self, table: str | None, column: str) -> bool:
        """Whether the function around it takes a column of this kind: EXTRACT dates, AVG and SUM no texts."""
        if self.frame.cases or self.frame.kind != "call":
            return True
        kind = self.names.kind(table, column)
        if self.frame.opener == "extract":
            return kind in (None, "date", "time")
        return self.frame.opener not in _SUMMED or kind not in ("text", "boolean")

    def _suits_some(self, word: str, partial: bool) -> bool:
        """The same for a column without its table, or what may become one."""
        if self.ctes or self.frame.opener not in ("extract", *_SUMMED) or _made_up(word, partial):
            return True
        sources = [source for source in self.scope.sources if source.columns]
        if not sources or any(source.table is None for source in self.scope.sources) or self.scope.parent:
            return any(self._suits(None, name) for name in self.names.columns if name.startswith(word))
        return any(self._suits(s.table, name) for s in sources for name in s.columns or () if name.startswith(word))

    def _may_lead(self, source: _Source) -> bool:
        """Whether an ON may name a column of this table next."""
        if self.scope.key_step not in (1, 3) or source.columns is None:
            return True
        return any(self._may_join(source, column) for column in source.columns)

    def _may_join(self, source: _Source, column: str) -> bool:
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

    def _source(self, scope: _Scope | None, alias: str) -> _Source | None:
        while scope is not None:
            for source in scope.sources:
                if source.alias == alias:
                    return source
            scope = scope.parent
        return None

    def _columns_of(self, scope: _Scope, qualifier: str) -> Columns:
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
        scope: _Scope | None = self.scope
        while scope is not None:
            names: Iterable[str] = [source.alias for source in scope.sources if self._may_lead(source)]
            if scope.rank <= 0:
                names = [*names, *self.names.tables, *self.ctes]
                if _short_for(word, (*self.names.tables, *self.ctes)):
                    return True
            if self._fits(word, names, partial):
                return True
            scope = scope.parent
        return False

    def _is_known(self, word: str, partial: bool) -> bool:
        """Whether the word may be a column here, unqualified."""
        scope: _Scope | None = self.scope
        first = True
        while scope is not None:
            if any(source.columns is None for source in scope.sources):
                return True
            if scope.rank <= 0:
                if self._fits(word, self.names.columns, partial) or _made_up(word, partial):
                    return True
                if any(columns is None or self._fits(word, columns, partial) for columns in self.ctes.values()):
                    return True
            if any(self._is_sole(scope, name) for name in self._starting(scope, word, partial)):
                return True
            if first and scope.rank >= 3 and self._fits(word, scope.outputs, partial):
                return True
            scope, first = scope.parent, False
        return False

    def _starting(self, scope: _Scope, word: str, partial: bool) -> Iterable[str]:
        """Columns of the sources that the word is, or may become."""
        columns = {column for source in scope.sources for column in source.columns or ()}
        return (column for column in columns if column == word or partial and column.startswith(word))

    def _is_sole(self, scope: _Scope, column: str) -> bool:
        """Whether a column may stand without its table: one source has it, and a join's key may go on with it."""
        holders = [source for source in scope.sources if column in (source.columns or ())]
        if len(holders) > 1 and column not in scope.merged:
            return False
        return scope.key_step not in (1, 3) or scope is not self.scope or self._may_join(holders[0], column)

    @staticmethod
    def _fits(word: str, options: Iterable[str], partial: bool) -> bool:
        if partial:
            return any(option.startswith(word) for option in options)
        return word in options


def _one_case(token: str) -> bool:
    """Whether a word is written in lower case, as PostgreSQL stores names, or in upper case."""
    return token.islower() or token.isupper()


def _take(word: str, options: Iterable[str], partial: bool) -> None:
    _require(_Reader._fits(word, options, partial))


def _require(rule: bool) -> None:
    if not rule:
        raise _Stop
