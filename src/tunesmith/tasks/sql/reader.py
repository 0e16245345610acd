"""Reads a query that is not finished yet, left to right, and says whether it can still become a right one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.literals import Literals
from tunesmith.tasks.sql.names import Names, in_order
from tunesmith.tasks.sql.schema import quote
from tunesmith.tasks.sql.scopes import SUMMED, Columns, Frame, Resolver, Scope, Source, Stop, fits, require, take
from tunesmith.tasks.sql.words import (
    AFTER_OPERAND,
    BEFORE_OPERAND,
    CASE,
    CLAUSES,
    ENDS,
    FIELDS,
    FRAME,
    JOINS,
    NO_ARGUMENTS,
    PAIRS,
    ROWS,
    SET_OPERATIONS,
    TOKEN,
    TYPED,
    TYPES,
    WINDOW,
)

_SHORT = re.compile(r"[a-z]{1,4}\d?$|[A-Z]\d?$")
"""Aliases that may follow a table without AS; longer words there are misspelt keywords."""
_CAPITAL = re.compile(r"[A-Z]\d?$")
"""Aliases in capitals, T1."""
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
"""Letters of an alias; a longer one is a model going round in circles."""
_OPERAND_ENDS = ENDS | FIELDS | {"name", "alias", "type", "'", "0", ")", "*", "]"}
_BY = frozenset(("group", "order", "partition"))
_WANT_LANGUAGE = _BY | _LEADS | frozenset(PAIRS)
_WANT_WORD = frozenset(("is", "infix", "similar", "at", "nulls"))
_WANT_PARENTHESIS = frozenset(("function", "array", "any", "some", "exists", "over", "filter", "using"))
_LITERALS = {
    "number": re.compile(r"-?\d*\.?\d*$"),
    "date": re.compile(r"$|\d|[tyn]", re.IGNORECASE),
    "time": re.compile(r"$|\d|[tyn]", re.IGNORECASE),
    "boolean": re.compile(r"t?r?u?e?$|f?a?l?s?e?$|y?e?s?$|n?o?$", re.IGNORECASE),
}
"""How a text must begin to be compared with a column of that kind: '2024-01-01', 'today', 'true'."""
_TESTS = frozenset(("is", "in", "like", "ilike", "between", "similar", "isnull", "notnull"))
_COMPARISONS = frozenset("= <> != < > <= >=".split())
_EQUALITIES = frozenset(("=", "<>", "!=", "in"))
_SIGNS = _COMPARISONS | frozenset(":: || ~* !~ - + * / % ( ) , . ; ~ [ ]".split())
_FRESH = frozenset(CLAUSES) | JOINS | CASE | SET_OPERATIONS | {"and", "or", "case", "on", ",", "select"}
"""Tokens after which a new comparison may stand."""


class Reader(Resolver):
    """Reads one text, left to right, once."""

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
        """Family of the type of the column just read."""
        self.against: str | None = None
        """The same of the column that a literal here is compared with."""
        self.compared = False
        """Whether a literal here is compared with a column."""
        self.place = None
        self.equalled: tuple[str, str] | None = None
        """Table and column that a literal here must equal, or differ from; '' for a table that FROM is yet to name."""

    def read(self, text: str, start: int = 0) -> tuple[Reader, int] | None:
        """Read on from `start`; the last word may be unfinished.

        Returns:
            None where the text breaks a rule; else a reader that stands before the last token, which may still grow,
            and where that token starts: any text that goes on from there can be read from that place. This reader
            itself has read the whole text.
        """
        tokens = [(str(m.lastgroup), m[0], m.start()) for m in TOKEN.finditer(text, start)]
        last = max((i for i, (kind, _, _) in enumerate(tokens) if kind != "space"), default=0)
        before, place = self, start
        try:
            for i, (kind, token, at) in enumerate(tokens):
                if i == last:
                    before, place = self.copy(), at
                if kind == "space":
                    require(self.previous != "." and bool(_SPACE.fullmatch(token)))
                    require(self.previous != "function" or token == " ")
                    continue
                rest = tokens[i + 1 : i + 3]
                following = next((t for k, t, _ in rest if k != "space"), "")
                self._token(kind, token, following, partial=not rest)
        except Stop:
            return None
        return before, place

    def copy(self) -> Reader:
        """A reader that stands where this one does, and goes on by itself."""
        twin = Reader.__new__(Reader)
        twin.__dict__.update(self.__dict__)
        twin.ctes, twin.writing = self.ctes.copy(), self.writing.copy()
        scopes: dict[int, Scope] = {}
        twin.frames = [frame.copy(scopes) for frame in self.frames]
        return twin

    def may_stop(self) -> bool:
        """Whether the statement may end after what was read."""
        if self.previous == ";":
            return True
        frame = self.frames[0]
        return len(self.frames) == 1 and not self.open and frame.scope.rank >= 0 and self._ends(frame.scope)

    # Tokens

    def _token(self, kind: str, token: str, following: str, partial: bool) -> None:
        frame, scope = self.frame, self.scope
        require(self.previous != ";")
        self.open = kind in ("open_string", "open_quoted")
        if frame.only_query and self.previous == "(":
            require(kind == "word" or token == "(")
        if self.previous in _WANT_PARENTHESIS:
            require(token == "(" or token == "[" and self.previous == "array")
        if self.previous in _WANT_WORD:
            require(kind == "word")
        if self.previous == "typed":
            require(kind in ("string", "open_string"))
        if kind in ("word", "quoted", "open_quoted"):
            self._name(kind, token, following, partial)
            return
        require(self.previous != "." or token == "*")
        if partial and token in ("!", "|", ":"):
            require(self._ended() and scope.key_step == 4 and not (frame.kind == "query" and scope.slot))
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
            raise Stop
        if scope.key_step < 4 and frame.scope is scope:
            # Where keys are declared, a join begins with one: what else it asks for comes after.
            require(token in ("(", ".") or (scope.key_step == 2 and token == "="))
            if token == "=":
                scope.key_step = 3
        self._advance(token)

    def _advance(self, token: str, kind: str | None = None) -> None:
        if token in _FRESH:
            self.frame.compares = False
        self.before, self.previous = self.previous, token
        if token in _COMPARISONS or token in ("like", "ilike", "in", "between"):
            self.compared, self.against = True, self.kind
            self.equalled = self.place if token in _EQUALITIES else None
        elif token not in ("(", ",", "'", "0", "infix", "-") and not (token == "and" and self.before in ("'", "0")):
            self.compared, self.against, self.equalled = False, None, None
        if token != "infix":
            self.kind = kind
        if token not in ("infix", "name"):
            self.place = None

    def _operand(self) -> None:
        """Check that a literal may stand here."""
        frame, scope = self.frame, self.scope
        require(frame.kind in ("query", "group", "call", "free") and not (frame.kind == "query" and scope.slot))
        require(scope.rank >= 0 and not self._ended())

    def _text(self, token: str, closed: bool) -> None:
        require(self.previous != "limit" and (self.frame.kind != "query" or self.scope.rank < 7))
        self._operand()
        wanted = _LITERALS.get(self.against or "")
        require(not (self.compared and wanted) or bool(wanted and wanted.match(token[1:].rstrip("'"))))
        text = (token[1:-1] if closed else token[1:]).replace("''", "'")
        require(not (self.literals and self.compared) or self._has_cause(text, closed))

    def _has_cause(self, text: str, closed: bool) -> bool:
        """Whether the question, or what the column holds, gives cause to compare with a text."""
        assert self.literals is not None
        table, column = self.equalled or ("", "")
        holders = [name for name, named in self.names.tables.items() if column in named.columns]
        places = [(name, column) for name in ([table] if table else holders)]
        if self.domains is None or not places or any(place not in self.domains for place in places):
            return self.literals.text(text, closed)
        # What no column holds can only be what the question says: then the right answer is that there is none.
        foreign = not closed or self.domains.is_foreign(text)
        held = any(self.domains.holds(place, text, closed) for place in places)
        return held or (foreign and self.literals.asks_for(text))

    def _number(self, token: str, closed: bool) -> None:
        if self.frame.kind == "type":
            return
        self._operand()
        require(not self.compared or self.against in (None, "number"))
        require(not (self.literals and self.compared and not self.literals.number(token, closed)))

    def _sign(self, sign: str) -> str:
        """Check a sign, and say what to remember it as."""
        frame, scope = self.frame, self.scope
        outermost = frame.kind == "query"
        require(sign in _SIGNS or self.names.nested and sign in ("@", "#", "&", "?", "->", "->>"))
        if outermost and scope.rank == 7:
            require(sign in ");,")
        if frame.kind in ("columns", "type", "free"):
            require(sign in "(),.-+" if frame.kind == "free" else sign in "),")
        if sign == "(":
            self._open()
        elif sign == ")":
            self._close()
            # What follows DISTINCT ON (...) is the first output, not something that follows an operand.
            return "distinct" if frame.opener == "on" else ")"
        elif sign == ",":
            self._comma()
        elif sign == ".":
            require(self.previous == "name" and self.qualifier is not None)
        elif sign == ";":
            require(len(self.frames) == 1 and scope.rank >= 0 and self._ends(scope))
        elif sign == "*" and not self._ended():
            if outermost and scope.rank == 0 and self.previous in ("select", "distinct", "all", ",", "."):
                scope.star = True
            else:
                require(self.previous == "(" and frame.opener == "count" or self.previous == ".")
        else:
            require(scope.rank >= 0 and not (outermost and scope.slot))
            starts = sign in "+-" and self.previous not in ("+", "-") or sign == "[" and self.previous == "array"
            require(self._ended() or starts)
            frame.subtracts |= sign == "-"
            if sign in _COMPARISONS:
                # One comparison is no operand of another: a = b = c is an error.
                require(not frame.compares)
                frame.compares = True
            return "times" if sign == "*" else sign
        return sign

    def _comma(self) -> None:
        frame, scope = self.frame, self.scope
        if frame.kind == "query" and scope.slot == "next":
            scope.slot = "cte"
            return
        require(scope.rank >= 0 and not frame.cases)
        require(self._ended() or frame.kind == "query" and scope.slot in ("alias", "joined"))
        if frame.kind == "query" and scope.rank == 0:
            self._output(scope)
        elif frame.kind == "query" and scope.rank == 1:
            require(scope.conditions == 0 and scope.key_step == 4 and self._distinct(scope))
            scope.slot = "table"
        elif frame.kind == "query":
            require(scope.rank in (3, 6))

    def _ended(self) -> bool:
        """Whether an operand, or the last word of an expression, was just read."""
        return self.previous in _OPERAND_ENDS

    def _ends(self, scope: Scope) -> bool:
        """Whether this SELECT may end here: nothing open, and every promised column kept."""
        if scope.slot not in ("", "alias", "joined") or not (self._ended() or scope.slot):
            return False
        return self._kept(scope) and scope.key_step == 4 and not (scope.rank <= 1 and scope.conditions)

    # Parentheses

    def _open(self) -> None:
        frame, scope = self.frame, self.scope
        slot = scope.slot if frame.kind == "query" else ""
        if frame.kind == "free":
            opened = Frame("free", scope)
        elif slot == "table" and not self.call:
            opened = Frame("group", scope, role="derived", only_query=True)
        elif slot == "joined" and self.previous == "name" and scope.sources[-1].table is None:
            scope.sources[-1] = scope.sources[-1]._replace(columns=None)
            opened = Frame("columns", scope)
        elif slot == "as" and self.previous == "name":
            self.ctes[self.writing[-1]] = None
            opened = Frame("columns", scope)
        elif slot == "body":
            opened = Frame("group", scope, role="cte", only_query=True)
        elif self.previous == "type":
            opened = Frame("type", scope)
        elif self.previous == "using":
            opened = Frame("columns", scope, opener="using")
        elif self.call:
            opened = Frame("call", scope, opener=self.call)
        elif frame.kind == "query" and scope.rank == -1 and not slot:
            opened = Frame("group", scope, role="operand", only_query=True)
        else:
            require(not slot and scope.rank >= 0)
            require(not self._ended() or (self.previous == "row"))
            opened = Frame("group", scope, opener=self.previous)
        self.frames.append(opened)
        self.call = ""

    def _close(self) -> None:
        require(len(self.frames) > 1)
        frame = self.frames.pop()
        outer = self.scope
        columns: Columns = None
        if frame.kind == "query":
            require(frame.scope.rank >= 0 and self._ends(frame.scope))
            self._output(frame.scope)
            columns = None if frame.scope.star else frozenset(frame.scope.outputs)
        elif frame.kind == "call" and self.previous == "(":
            require(frame.opener in NO_ARGUMENTS)
        elif frame.opener in SUMMED and self.kind in ("date", "time"):
            # A difference of dates can be averaged, a date cannot.
            require(self.before not in ("(", ".") or frame.subtracts)
        else:
            # OVER () is a window of all rows.
            require(self._ended() or (self.previous == "(" and frame.opener == "over"))
        require(not frame.cases)
        if frame.role == "derived":
            outer.sources.append(Source("", None, columns))
            outer.slot = "alias"
        elif frame.role == "cte":
            # Set already where the columns were listed, or the query may name itself.
            self.ctes.setdefault(self.writing.pop(), columns)
            outer.slot = "next"
        elif frame.role == "operand":
            outer.rank, outer.slot = 1, "joined"
            outer.sources.append(Source("", None, None))
        elif frame.kind == "call":
            if outer.slot == "table" and self.frame.kind == "query":
                outer.sources.append(Source("", None, None))
                outer.slot = "alias"
            elif outer.rank == 0 and self.frame.kind == "query":
                outer.item = frame.opener

    def _output(self, scope: Scope) -> None:
        scope.outputs.append(scope.item or "?column?")
        scope.item = ""

    # Words

    def _name(self, kind: str, token: str, following: str, partial: bool) -> None:
        frame = self.frame
        quoted = kind != "word"
        word = token[1:].removesuffix('"').replace('""', '"') if quoted else token.lower()
        partial = kind == "open_quoted" or (partial and not quoted)
        require(quoted or one_case(token))
        if quoted and self.scope.slot not in ("named", "output", "cte") and frame.kind != "free":
            take(word, self._quoted(), partial)
        if frame.kind in ("columns", "free", "type"):
            self._bare(word, partial)
            return
        # Names are written as the prompt writes them; capitals are for keywords and the query's own names.
        slot = self.scope.slot if frame.kind == "query" else ""
        own = quoted or token == word or (slot != "table" and bool(_CAPITAL.match(token)))
        own = own or slot in ("named", "output", "cte")
        if self.previous == ".":
            require(quoted or token == word)
            family = None
            if self.qualifier in self.names.schemas and slot == "table":
                self._table(word, "", partial)
            else:
                family = self._column(self.qualifier, word, partial)
            self.qualifier = None
            self._advance("name", family)
            return
        self.qualifier = None
        if self.upper is None:
            self.upper = token.isupper()
        # Where SELECT is in capitals, so are the other words of the language: small letters are names.
        speaks = not quoted and (token.isupper() or not self.upper or self._in_either_case(word, partial))
        require(speaks or self.previous not in _WANT_LANGUAGE)
        plain = speaks and self._keyword(word, following, partial)
        if not plain:
            require(own)
            self._identifier(word, quoted, token, following, partial)

    def _in_either_case(self, word: str, partial: bool) -> bool:
        """Types and plain values are written small by many who write the rest in capitals."""
        typing = self.previous in ("::", "type", "typed") or (self.previous == "as" and self.frame.opener == "cast")
        return typing or fits(word, ("true", "false", "null"), partial)

    def _quoted(self) -> set[str]:
        """Names that may stand in quotes: those of the schema that need them, and the query's own."""
        scope = self.scope
        own = {*scope.outputs, *self.ctes, *(source.alias for source in scope.sources)}
        given = [source.columns for source in scope.sources if source.table is None and source.columns]
        return {name for name in self.names.quoted.union(own, *given) if quote(name) != name}

    def _bare(self, word: str, partial: bool) -> None:
        """A word in a list of columns or of plain values."""
        frame, scope = self.frame, self.scope
        require(frame.kind != "type" and (self.previous in ("(", ",") or frame.kind == "free"))
        if frame.opener == "using":
            shared = [source.columns for source in scope.sources if source.columns is not None]
            take(word, self.names.columns.union(*shared), partial)
            scope.merged.add(word)
        self._advance("name")

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
        if previous in _BY and not (previous == "group" and self.before == "within"):
            take(word, ("by",), partial)
            self._advance(word)
            return True
        if outermost and scope.rank == 1 and previous in _LEADS:
            take(word, _AFTER_LEAD | _LEADS if previous == "natural" else _AFTER_LEAD, partial)
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

    def _identifier(self, word: str, quoted: bool, token: str, following: str, partial: bool) -> None:
        frame, scope = self.frame, self.scope
        require(scope.rank >= 0 or scope.slot == "cte")
        if frame.kind == "query" and scope.slot:
            self._in_slot(word, token, following, partial)
        elif not self._ended() and (following == "." or (partial and self._qualifies(word, True))):
            require(self._qualifies(word, partial))
            self.qualifier = word
        else:
            output = frame.kind == "query" and scope.rank == 0 and self._ended() and self.previous != "alias"
            if not self._ended():
                kind = self._column(None, word, partial)
            else:
                require(output and len(word) <= _MOST_ALIAS and (partial or quoted or quote(word) == word))
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
                and (len(word) <= 2 or in_order(word.rstrip("12345"), scope.sources[-1].alias))
            )
            require(len(word) <= _MOST_ALIAS if scope.slot == "named" else short or not scope.sources[-1].table)
            require(partial or token[0] == '"' or quote(word) == word)
            scope.sources[-1] = scope.sources[-1]._replace(alias=word)
            scope.slot = "joined"
        else:
            raise Stop

    def _table(self, word: str, following: str, partial: bool) -> None:
        scope = self.scope
        if following == "." and word in self.names.schemas and self.previous != ".":
            self.qualifier = word
            return
        # A name that no table has was promised: a subquery must give it.
        require(len(scope.sources) > 0 or not any(self._is_foreign(*promise) for promise in scope.promised))
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
        take(word, options, partial)
        if not partial:
            known = self.ctes.get(word) if word in self.ctes else self.names.tables[word].columns
            scope.sources.append(Source(word, None if word in self.ctes else word, known))
            scope.slot = "alias"

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


def one_case(token: str) -> bool:
    """Whether a word is written in lower case, as PostgreSQL stores names, or in upper case."""
    return token.islower() or token.isupper()
