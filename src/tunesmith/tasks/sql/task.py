"""Text to PostgreSQL: a question and a schema become a query, which is marked by running it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tunesmith.config import schema
from tunesmith.errors import DataError
from tunesmith.tasks.sql.answer import extract_sql
from tunesmith.tasks.sql.cheap import cheap_answers
from tunesmith.tasks.sql.domains import Domains
from tunesmith.tasks.sql.grade import SqlGrader
from tunesmith.tasks.sql.introspect import read_domains, read_mentions, read_schema
from tunesmith.tasks.sql.mentions import Mentions, mention_text, with_mentions
from tunesmith.tasks.sql.postgres import Server, open_server
from tunesmith.tasks.sql.prune import schema_text
from tunesmith.tasks.sql.records import database_of, query_of, text_of
from tunesmith.tasks.sql.schema import Schema
from tunesmith.tasks.sql.writes import changes_rows
from tunesmith.types import Constraint, Example, Message, Record, Score

SYSTEM = "Write one PostgreSQL query."
"""What every prompt begins with; the schema follows after an empty line."""


class SqlTask:
    """The task `sql`. Training needs no server: one is started when something is graded or a schema must be read.

    Args:
        config: the settings under `task`.
        server: one that is running already, and stays its owner's to close; None starts one on first use.
        environ: where `TUNESMITH_POSTGRES_URL` and `env:NAME` are looked up; None is the process's own.
    """

    name = "sql"
    version = "1"

    def __init__(
        self, config: schema.SqlTask, server: Server | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        self._config = config
        self._given = server
        self._started: Server | None = None
        self._environ = os.environ if environ is None else environ
        self._schemas: dict[str, Schema] = {}
        self._mentions: dict[str, Mentions] = {}
        self._domains: dict[str, Domains] = {}
        self._marks: SqlGrader | None = None

    def server(self) -> Server:
        """The server that queries run on, started on the first call."""
        if self._given is not None:
            return self._given
        if self._started is None:
            self._started = open_server(self._config, self._environ)
        return self._started

    def examples(self, record: Record) -> Iterator[Example]:
        """One example of a record `{question, sql}` and, where they are known, `{database, schema, skeleton, kind}`.

        `database` may be left out where the settings name only one, `schema` where the server can be asked. `evidence`
        is shown after the question, and so is `mentioned`, which is looked up where it is left out and the settings ask
        for it; `alternatives` are further right queries. The group is the database with question
        and query, values masked: the same question in other values never stands on two sides of a split.

        Raises:
            DataError: a field is missing or is not text, or the database is not named in the settings.
        """
        question, sql = text_of(record, "question"), query_of(record)
        database = database_of(record, self._config.databases)
        shown = record.fields.get("schema")
        if shown is None:
            shown = schema_text(self._schema(database), question, self._config.schema_style, self._config.schema_tokens)
        elif not isinstance(shown, str):
            raise DataError("the field `schema` is not text", place=record.place, remedy="give CREATE TABLE statements")
        if evidence := record.fields.get("evidence"):
            question = f"{question}\n{evidence}"
        mentioned = record.fields.get("mentioned")
        if mentioned is None and self._config.mentioned_values:
            mentioned = mention_text(self._mentions_of(database).find(question, self._config.mentioned_values))
        meta: dict[str, Any] = {"database": database, "question": question}
        for key in ("skeleton", "kind", "alternatives"):
            if record.fields.get(key):
                meta[key] = record.fields[key]
        yield Example(
            id=record.id,
            messages=(
                Message("system", f"{SYSTEM}\n\n{shown.strip()}"),
                Message("user", with_mentions(question, str(mentioned or ""))),
                Message("assistant", sql, train=True),
            ),
            target=sql,
            group=_group(database, question, sql, str(record.fields.get("skeleton", ""))),
            meta=meta,
            place=record.place,
        )

    def grade(self, example: Example, completion: str) -> Score:
        """Run the answer and hold its result against the right query's (`docs/graders/sql.md` states the policy).

        1.0 or 0.0; None where the right query itself fails or returns too much, which says nothing about the answer.
        """
        golds = (example.target, *example.meta.get("alternatives", ()))
        return self._grader().grade(str(example.meta["database"]), golds, completion)

    def constraint(self, example: Example) -> Constraint:
        """Holds an answer to the names that the prompt shows, and to values where the settings ask for it."""
        from tunesmith.tasks.sql.constrain import SchemaConstraint

        shown = example.messages[0].content.removeprefix(SYSTEM).strip()
        database = str(example.meta["database"])
        domains = self._domains_of(database) if self._config.constrain_values else None
        constraint: Constraint = SchemaConstraint(shown, example.messages[1].content, domains, self._tried(database))
        return constraint

    def _tried(self, database: str) -> Callable[[str], bool] | None:
        """Whether the database runs a query, as the grader would; what changes rows is not tried."""
        if not self._config.try_queries:
            return None

        def works(text: str) -> bool:
            sql = extract_sql(text)
            return changes_rows(sql) or self.server().run(database, sql).error is None

        return works

    def cheap_answers(self, example: Example) -> Mapping[str, str]:
        """Answers that solve nothing, made from the right query and its result (`tunesmith.types.RedTeamed`)."""
        if changes_rows(example.target):
            return {}
        return cheap_answers(example.target, self._grader().right(str(example.meta["database"]), example.target))

    def close(self) -> None:
        """Stop the server, where this task started it. Safe to call twice."""
        server, self._started, self._marks = self._started, None, None
        if server is not None:
            server.close()

    def _grader(self) -> SqlGrader:
        if self._marks is None:
            self._marks = SqlGrader(self.server(), self._config)
        return self._marks

    def _schema(self, database: str) -> Schema:
        if database not in self._schemas:
            self._schemas[database] = read_schema(self.server(), database, self._config.sample_values)
        return self._schemas[database]

    def _domains_of(self, database: str) -> Domains:
        if database not in self._domains:
            self._domains[database] = read_domains(self.server(), self._schema(database))
        return self._domains[database]

    def _mentions_of(self, database: str) -> Mentions:
        if database not in self._mentions:
            self._mentions[database] = read_mentions(self.server(), self._schema(database))
        return self._mentions[database]


def _group(database: str, question: str, sql: str, skeleton: str) -> str:
    from tunesmith.tasks.sql.build import masked_question

    parts: Sequence[str] = (database, skeleton, masked_question(question, sql))
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:16]
