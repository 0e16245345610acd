"""Second instances: the same schema with rows of our own making, on which a right and a wrong query differ.

Two queries that give the same rows on the shipped data may still ask for different things. Each instance is a few rows
per table, made for the pair of queries at hand (`rows`), in a copy of the database whose tables are otherwise empty.
Keys, unique and check constraints of the schema hold in them; foreign keys are kept by the maker.
"""

from __future__ import annotations

import datetime as dt
import logging
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.sql.catalogue import Catalogue, Cell, Name, Relation, read_catalogue
from tunesmith.tasks.sql.compare import Verdict
from tunesmith.tasks.sql.focus import Compared, Focus, Place, read_focus
from tunesmith.tasks.sql.guard import Result
from tunesmith.tasks.sql.judge import LUCK, is_luck, is_settled, judge
from tunesmith.tasks.sql.near import Values, values_near
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.rows import RECIPES, make_rows
from tunesmith.tasks.sql.schema import quote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Examined:
    """What the second instances said of an answer."""

    agreed: int
    """Instances on which both queries gave the same rows."""
    judged: int
    """Instances on which the right query has one answer; where it leaves its result open, an instance has no vote."""
    filled: int = 0
    """Of those agreed, the ones on which the result was not empty."""
    verdict: Verdict | None = None
    """Of the instance on which they differ; None where they never do."""
    recipe: str = ""
    """What that instance was made of."""
    rows: Mapping[str, Sequence[Sequence[Cell]]] | None = None
    """Its rows, by table."""
    gold: Result | None = None
    predicted: Result | None = None


class Instances:
    """Makes instances of the databases of a server, and asks both queries of a pair on them.

    Args:
        server: whose databases are copied. For a server of the user's own the copies are made on a private one beside
            it, from the SQL file or the schema and a sample of rows: nothing is created on the user's.
        count: how many instances a pair is examined on; 0 for none.
        now: the moment at which queries are asked.
    """

    def __init__(self, server: Server, count: int, now: dt.datetime) -> None:
        self._server, self._count, self._now = server, min(count, len(RECIPES)), now
        self._catalogues: dict[str, Catalogue | None] = {}
        self._lock = threading.RLock()

    def examine(self, database: str, gold_sql: str, predicted_sql: str) -> Examined | None:
        """Ask both queries on every instance, until they differ; None where no instance can be made."""
        if self._count == 0:
            return None
        with self._lock:
            catalogue = self._catalogue(database)
            focus = catalogue and read_focus((gold_sql, predicted_sql), catalogue)
            if not focus:
                return None
            rows = _Instance(self._server.beside(), instance_of(database))
            compared = self._values(rows, focus)
            agreed = judged = filled = 0
            for recipe in RECIPES[: self._count]:
                made = make_rows(focus, compared, recipe, f"{database}\0{gold_sql}\0{recipe.name}")
                if not rows.fill(focus.relations, made):
                    continue
                gold = rows.right(gold_sql)
                if gold.error is not None:
                    continue
                predicted = rows.answer(predicted_sql)
                if predicted.error is not None:
                    verdict = Verdict(False, predicted.error.message, predicted.error.failure)
                else:
                    verdict = judge(rows, gold_sql, gold, predicted_sql, predicted)
                if verdict.equal and is_luck(rows, gold_sql, gold, predicted_sql):
                    verdict = Verdict(False, LUCK, "wrong_rows")
                if not verdict.equal and not is_settled(rows, gold_sql, gold):
                    continue
                judged += 1
                if not verdict.equal:
                    shown = {name[1]: made[name] for name in sorted(made)}
                    return Examined(agreed, judged, filled, verdict, recipe.name, shown, gold, predicted)
                agreed += 1
                filled += bool(gold.rows)
            return Examined(agreed, judged, filled) if judged else None

    def _catalogue(self, database: str) -> Catalogue | None:
        if database not in self._catalogues:
            try:
                self._catalogues[database] = self._prepare(database)
            except (ConfigError, DataError, psycopg.Error) as error:
                log.warning("%s: answers are judged on the shipped rows alone: %s", database, error)
                self._catalogues[database] = None
        return self._catalogues[database]

    def _prepare(self, database: str) -> Catalogue:
        catalogue = read_catalogue(self._server, database)
        beside, name = self._server.beside(), instance_of(database)
        if beside is self._server:
            beside.copy(database, name)
        else:
            source = self._server.sql_file(database)
            if source is not None:
                beside.load(name, source)
            else:
                from tunesmith.tasks.sql.describe import schema_script

                with tempfile.TemporaryDirectory() as folder:
                    script = Path(folder) / f"{database}.sql"
                    script.write_text(schema_script(self._server, database), encoding="utf-8")
                    beside.load(name, script)
        statements = [
            f"ALTER TABLE {relation.quoted} DISABLE TRIGGER USER" for relation in catalogue.relations.values()
        ]
        if catalogue.relations:
            tables = ", ".join(relation.quoted for relation in catalogue.relations.values())
            statements.append(_DROP_REFERENCES)
            statements.append(f"TRUNCATE {tables}")
            beside.arrange(name, "; ".join(statements))
        return catalogue

    def _values(self, rows: _Instance, focus: Focus) -> dict[Place, Values]:
        """Values for the columns that are compared with constants, worked out by the server where they are computed."""
        wanted = sorted({one.value for found in focus.compared.values() for one in found if one.computed})
        known = rows.work_out(wanted)
        found = {}
        for place, compared in focus.compared.items():
            plain = (one if not one.computed else Compared(one.op, known.get(one.value, "")) for one in compared)
            relation = focus.relations[place[0]]
            column, there = relation.columns[place[1]], relation.values[place[1]]
            found[place] = values_near(column, (one for one in plain if one.value), self._now, there)
        return found


def instance_of(database: str) -> str:
    """Name of the copy; PostgreSQL cuts names at 63 bytes."""
    return f"{database.encode()[:48].decode(errors='ignore')} instance"


class _Instance:
    """The copy of one database, with the rows that were filled in last."""

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name

    def right(self, sql: str) -> Result:
        return self._server.run(self._name, sql, gold=True, remember=False)

    def answer(self, sql: str) -> Result:
        return self._server.run(self._name, sql)

    def work_out(self, expressions: Sequence[str]) -> dict[str, str]:
        """The values of expressions without columns, as text."""
        if not expressions:
            return {}
        together = self.answer("SELECT " + ", ".join(f"({one})::text" for one in expressions))
        if together.error is None and together.rows:
            return {one: value for one, value in zip(expressions, together.rows[0], strict=True) if value is not None}
        if len(expressions) == 1:
            return {}
        return {key: value for one in expressions[:20] for key, value in self.work_out([one]).items()}

    def fill(self, relations: Mapping[Name, Relation], made: Mapping[Name, Sequence[Sequence[Cell]]]) -> bool:
        """Replace the rows of these tables; False where not one row could be put in."""
        clear = "".join(f"DELETE FROM {relation.quoted};" for relation in relations.values())
        puts = {name: _insert(relations[name], rows) for name, rows in made.items() if rows}
        try:
            self._server.arrange(self._name, clear + ";".join(puts.values()))
            return bool(puts)
        except psycopg.Error as error:
            log.debug("%s: %s", self._name, error)
        self._server.arrange(self._name, clear)
        return any([self._fill_one(relations[name], rows) for name, rows in made.items()])

    def _fill_one(self, relation: Relation, rows: Iterable[Sequence[Cell]]) -> bool:
        """Row by row: the ones that a constraint we cannot foresee refuses stay out."""
        kept = 0
        for row in rows:
            try:
                self._server.arrange(self._name, _insert(relation, [row]))
                kept += 1
            except psycopg.Error as error:
                log.debug("%s: %s", relation.quoted, error)
        return kept > 0


def _insert(relation: Relation, rows: Sequence[Sequence[Cell]]) -> str:
    kept = [(i, one) for i, one in enumerate(relation.fields) if not one.computed]
    # What is NULL in every row need not be said: the copy has no defaults.
    kept = [(i, one) for i, one in kept if any(row[i] is not None for row in rows)] or kept[:1]
    columns = ", ".join(quote(one.name) for _, one in kept)
    into = f"INSERT INTO {relation.quoted} ({columns}) OVERRIDING SYSTEM VALUE "
    if not relation.checks:
        values = ", ".join("(" + ", ".join(_literal(row[i]) for i, _ in kept) + ")" for row in rows)
        return f"{into}VALUES {values} ON CONFLICT DO NOTHING"
    typed = ", ".join("(" + ", ".join(f"{_literal(row[i])}::{one.type}" for i, one in kept) + ")" for row in rows)
    met = " AND ".join(f"({check}) IS NOT FALSE" for check in relation.checks)
    return f"{into}SELECT * FROM (VALUES {typed}) made ({columns}) WHERE {met} ON CONFLICT DO NOTHING"


def _literal(value: Cell) -> str:
    if value is None:
        return "NULL"
    escaped = value.replace("'", "''")
    return f"E'{escaped}'".replace("\\", "\\\\") if "\\" in value else f"'{escaped}'"


_DROP_REFERENCES = """
DO $$ DECLARE one record; BEGIN
  FOR one IN
    SELECT conname, conrelid::regclass AS holder FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
  LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', one.holder, one.conname);
  END LOOP;
  FOR one IN
    SELECT a.attname, c.oid::regclass AS holder FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.atthasdef AND a.attgenerated = '' AND c.relkind IN ('r', 'p')
      AND c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
  LOOP
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP DEFAULT', one.holder, one.attname);
  END LOOP;
END $$"""
"""Foreign keys are kept by the maker of the rows, and every value is of its making."""
