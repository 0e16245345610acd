"""What a SQL answer may continue with, given the schema in the prompt: names that exist, joins along real keys.

A tolerant reader walks over the answer so far. It knows which tables a query speaks of once FROM is written, checks
columns against them, and holds what the SELECT list promised against FROM when FROM ends. It is no parser: what it does
not know it lets pass, because forbidding a right answer costs more than letting a wrong one through.
"""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.literals import Literals, Named
from tunesmith.tasks.sql.names import names_of
from tunesmith.tasks.sql.reader import Reader


class SchemaConstraint:
    """Holds an answer to the tables, columns and keys of a prompt.

    Args:
        schema_text: the prompt's schema as `render_table` writes it, in either style, or plain CREATE TABLE statements.
        question: what was asked; literals are compared with it.
        domains: what the columns hold. Given, a text that a column must equal is one that it holds, or one that the
            question says and no column holds; other texts and numbers come from the question or the schema.
        works: whether a whole query runs. None does not try.
    """

    def __init__(
        self,
        schema_text: str,
        question: str,
        domains: Domains | None = None,
        works: Callable[[str], bool] | None = None,
    ) -> None:
        self._names = names_of(schema_text)
        shown = [value for table in self._names.tables.values() for value in table.values]
        self._literals = Literals(question, shown) if domains is not None else None
        self._domains = domains
        self._named = Named(question, self._names.spoken)
        self._works = works
        self._stand = (Reader(self._names, self._literals, domains), "")
        """A reader, and the text it has read: candidates for one answer differ only after it."""

    def __copy__(self) -> SchemaConstraint:
        """As `copy` would make it, in a third of the time: one is made for every candidate."""
        twin = SchemaConstraint.__new__(SchemaConstraint)
        twin.__dict__.update(self.__dict__)
        return twin

    def allows(self, text: str) -> bool:
        """Whether `text` is the start of a query that keeps to the schema."""
        reader, done = self._reader(text)
        found = reader.read(text, len(done))
        if found is not None:
            self._stand = (found[0], text[: found[1]])
        return found is not None

    def complete(self, text: str) -> bool:
        """Whether `text` is a whole query that keeps to the schema."""
        reader, done = self._reader(text)
        return reader.read(text + " ", len(done)) is not None and reader.may_stop()

    def omits(self, text: str) -> int:
        """How many values and numbers of the question, and words of the schema in it, a query does without."""
        return self._named.missing_from(text)

    def works(self, text: str) -> bool:
        """Whether the database runs it; true where it is not to be tried."""
        return self._works is None or self._works(text)

    def _reader(self, text: str) -> tuple[Reader, str]:
        """A reader to go on with, and the part of the text that it has read."""
        reader, done = self._stand
        if text.startswith(done):
            return reader.copy(), done
        return Reader(self._names, self._literals, self._domains), ""
