"""Reads a query that is not finished yet, left to right, and says whether it can still become a right one."""

from __future__ import annotations

import re

from tunesmith.tasks.sql.grammar import Grammar
from tunesmith.tasks.sql.names import in_order
from tunesmith.tasks.sql.schema import quote
from tunesmith.tasks.sql.scopes import SUMMED, Columns, Frame, Scope, Source, Stop, fits, require, take
from tunesmith.tasks.sql.words import BY, COMPARISONS, LEADS, NO_ARGUMENTS, PAIRS, TOKEN

_SHORT = re.compile(r"[a-z]{1,4}\d?$|[A-Z]\d?$")
"""Aliases that may follow a table without AS; longer words there are misspelt keywords."""
_CAPITAL = re.compile(r"[A-Z]\d?$")
"""Aliases in capitals, T1."""
_SPACE = re.compile(r" {1,3}|\t| ?\r?\n[ \t]{0,24}")
"""White space as queries are written with: a few spaces, or a new line with its indentation."""
_MOST_ALIAS = 31
"""Letters of an alias; a longer one is a model going round in circles."""
_WANT_LANGUAGE = BY | LEADS | frozenset(PAIRS)
_WANT_WORD = frozenset(("is", "infix", "similar", "at", "nulls"))
_WANT_PARENTHESIS = frozenset(("function", "array", "any", "some", "exists", "over", "filter", "using"))
_LITERALS = {
    "number": re.compile(r"-?\d*\.?\d*$"),
    "date": re.compile(r"$|\d|[tyn]", re.IGNORECASE),
    "time": re.compile(r"$|\d|[tyn]", re.IGNORECASE),
    "boolean": re.compile(r"t?r?u?e?$|f?a?l?s?e?$|y?e?s?$|n?o?$", re.IGNORECASE),
}
"""How a text must begin to be compared with a column of that kind: '2024-01-01', 'today', 'true'."""
_SIGNS = COMPARISONS | frozenset(":: || ~* !~ - + * / % ( ) , . ; ~ [ ]".split())


class Reader(Grammar):
    """Reads one text, left to right, once."""

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
        require(not self.compared or self.against in (None, "number", "difference"))
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
            if sign in COMPARISONS:
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
            require(self.before not in ("(", "."))
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
        like = (name for name in self.names.tables if name.startswith(word))
        options = {*self.ctes, *(name for name in like if scope.crossed or self._reaches(name))} - there
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


def one_case(token: str) -> bool:
    """Whether a word is written in lower case, as PostgreSQL stores names, or in upper case."""
    return token.islower() or token.isupper()
