"""Which words of the language may come next in a query, from what was read of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.literals import Literals
from tunesmith.tasks.sql.names import Names
from tunesmith.tasks.sql.scopes import Columns, Frame, Resolver, Scope, fits, require, take
from tunesmith.tasks.sql.words import (
    AFTER_OPERAND,
    BEFORE_OPERAND,
    BY,
    CASE,
    CLAUSES,
    COMPARISONS,
    ENDS,
    FIELDS,
    FRAME,
    JOINS,
    LEADS,
    PAIRS,
    ROWS,
    SET_OPERATIONS,
    TYPED,
    TYPES,
    WINDOW,
)

_AFTER_LEAD = frozenset(("join", "outer"))
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
_OPERAND_ENDS = ENDS | FIELDS | {"name", "alias", "type", "'", "0", ")", "*", "]"}
_TESTS = frozenset(("is", "in", "like", "ilike", "between", "similar", "isnull", "notnull"))
_EQUALITIES = frozenset(("=", "<>", "!=", "in"))
_FRESH = frozenset(CLAUSES) | JOINS | CASE | SET_OPERATIONS | {"and", "or", "case", "on", ",", "select"}
"""Tokens after which a new comparison may stand."""


class Grammar(Resolver):
    """What was read of a query so far, and what may follow it."""

    def __init__(self, names: Names, literals: Literals | None, domains: Domains | None = None) -> None:
        self.names = names
        self.literals = literals
        self.domains = domains
        self.ctes: dict[str, Columns] = {}
        self.writing: list[str] = []
        """Names of the WITH queries being written, innermost last."""
        self.recursive = False
        """Whether a WITH query may name itself."""
        self.frames = [Frame("query", Scope(None))]
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
        """Family of the type of the column just read; `difference` where it is a date that something was taken from."""
        self.minus = False
        """Whether a column that comes next is taken away."""
        self.against: str | None = None
        """The same of the column that a literal here is compared with."""
        self.compared = False
        """Whether a literal here is compared with a column."""
        self.place = None
        self.equalled: tuple[str, str] | None = None
        """Table and column that a literal here must equal, or differ from; '' for a table that FROM is yet to name."""

    def _ended(self) -> bool:
        """Whether an operand, or the last word of an expression, was just read."""
        return self.previous in _OPERAND_ENDS

    def _ends(self, scope: Scope) -> bool:
        """Whether this SELECT may end here: nothing open, and every promised column kept."""
        if scope.slot not in ("", "alias", "joined") or not (self._ended() or scope.slot):
            return False
        return self._kept(scope) and scope.key_step == 4 and not (scope.rank <= 1 and scope.conditions)

    def _advance(self, token: str, kind: str | None = None) -> None:
        if token in _FRESH:
            self.frame.compares = False
        self.before, self.previous = self.previous, token
        if token in COMPARISONS or token in ("like", "ilike", "in", "between"):
            self.compared, self.against = True, self.kind
            self.equalled = self.place if token in _EQUALITIES else None
        elif token not in ("(", ",", "'", "0", "infix", "-") and not (token == "and" and self.before in ("'", "0")):
            self.compared, self.against, self.equalled = False, None, None
        if self.minus and kind in ("date", "time"):
            kind = "difference"  # days or an interval, as the dates have hours or not
        self.minus = token == "-" or (self.minus and kind is None and token in ("name", "."))
        if token != "infix":
            self.kind = kind
        if token not in ("infix", "name"):
            self.place = None

    def _output(self, scope: Scope) -> None:
        scope.outputs.append(scope.item or "?column?")
        scope.item = ""

    def _keyword(self, word: str, following: str, partial: bool) -> bool:
        """Take the word as a part of the language where it is one here, or, unfinished, may become one."""
        frame, scope, previous = self.frame, self.scope, self.previous
        outermost = frame.kind == "query"
        if previous == "::" or (previous == "as" and frame.opener == "cast" and not outermost):
            take(word, TYPES, partial)
            self._advance("type")
            return True
        if previous == "type" and fits(word, _MORE_TYPE, partial):
            self._advance("type")
            return True
        if previous in BY and not (previous == "group" and self.before == "within"):
            take(word, ("by",), partial)
            self._advance(word)
            return True
        if outermost and scope.rank == 1 and previous in LEADS:
            take(word, _AFTER_LEAD | LEADS if previous == "natural" else _AFTER_LEAD, partial)
            self._join(word)
            return True
        special = outermost and scope.slot in ("table", "named", "cte", "output")
        if special and word not in ("lateral", "only", "recursive"):
            return False
        if fits(word, self._clauses(), partial):
            if not partial:
                self._clause(word)
            return True
        if outermost and scope.slot in ("alias", "joined"):
            if word == "as" and scope.slot == "alias":
                scope.slot = "named"
                self._advance("as")
                return True
            require(scope.slot == "alias")
            return False
        if outermost and scope.slot == "as" and fits(word, ("as",), partial):
            scope.slot = "body" if word == "as" else "as"
            self._advance(word)
            return True
        if word == "as" and outermost and scope.rank == 0 and self._ended():
            scope.slot = "output"
            self._advance("as")
            return True
        if frame.kind == "call" and fits(word, _INNER.get(frame.opener, ()), partial):
            self._advance(word)
            return True
        if scope.slot == "table" and word in ("lateral", "only"):
            self._advance(word)
            return True
        if scope.slot == "body" and fits(word, ("materialized", "not"), partial):
            self._advance(word)
            return True
        return self._in_expression(word, following, partial)

    def _in_expression(self, word: str, following: str, partial: bool) -> bool:
        frame, scope = self.frame, self.scope
        if scope.rank < 0 and frame.kind == "query":
            require(self.previous == "with" or self.previous in SET_OPERATIONS)
            take(word, ("recursive",) if self.previous == "with" else ("all", "distinct"), partial)
            self.recursive |= word == "recursive"
            self._advance(word)
            return True
        if following == "." or (frame.only_query and self.previous == "("):
            return False
        in_field = frame.opener == "extract" and self.previous == "(" or self.previous == "'"
        if in_field and fits(word, FIELDS, partial):
            self._advance(word)
            return True
        known = self._is_known(word, partial=False)
        callable_here = not self._ended() and (partial or following == "(" or (not following and not known))
        if callable_here and fits(word, self._functions(), partial):
            self.call = word
            self._advance("function")
            return True
        typed = not self._ended() and (following[:1] == "'" or (not following and not known))
        if typed and fits(word, TYPED, partial):
            self._advance("typed")
            return True
        if self._inside(word, partial):
            self._advance(word)
            return True
        words = self._words_here()
        require(self.previous not in PAIRS or self.previous == "time" or fits(word, words, partial))
        if known and not partial and word not in BEFORE_OPERAND and not self._ended():
            return False
        if fits(word, words, partial):
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
        if window and fits(word, ("order", "partition"), partial):
            return True
        ordered = frame.kind == "call" or (frame.kind == "group" and frame.opener in ("over", "as"))
        if ordered and self._ended() and fits(word, WINDOW, partial):
            return True
        if frame.opener == "filter" and self.previous == "(":
            return fits(word, ("where",), partial)
        if self.previous == "within":
            return fits(word, ("group",), partial)
        if self.previous == "distinct" and self.before == "select":
            return fits(word, ("on",), partial)
        comparing = self.previous == "distinct" and self.before in ("is", "not")
        return comparing and fits(word, ("from",), partial)

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

    def _clause(self, word: str) -> None:
        scope = self.scope
        if word in ("select", "with"):
            if self.frame.kind != "query":
                self.frame.kind = "query"
                lateral = self.frame.role in ("", "operand") or self.before == "lateral"
                self.frame.scope = scope = Scope(scope if lateral else None)
            scope.rank, scope.slot = (0, "") if word == "select" else (-1, "cte")
        elif word == "values":
            self.frame.kind = "free"
        elif word in SET_OPERATIONS:
            self._output(scope)
            fresh = Scope(scope.parent, outputs=scope.outputs, star=scope.star)
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
