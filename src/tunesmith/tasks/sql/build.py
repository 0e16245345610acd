"""A data set from a database: composed questions, every query executed, nothing straddling the splits."""

from __future__ import annotations

import difflib
import hashlib
import logging
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.config.schema import SqlBuild, SqlTask
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.built import SETS, Built, write_built
from tunesmith.tasks.built import read_built as read_back
from tunesmith.tasks.sql.asked import Variety
from tunesmith.tasks.sql.compose import Composer, Draft, phrasings, skeleton_of
from tunesmith.tasks.sql.compose.words import roughen
from tunesmith.tasks.sql.introspect import column_values, read_mentions, read_schema
from tunesmith.tasks.sql.mentions import Mentions, mention_text
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.prune import schema_text
from tunesmith.tasks.sql.records import database_of, query_of, text_of
from tunesmith.tasks.sql.schema import Schema
from tunesmith.types import Record

log = logging.getLogger(__name__)

VERSION = 2
"""Raise it when the same database and settings would give other questions."""


@dataclass(slots=True)
class _Tally:
    kinds: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)


def build_dataset(
    server: Server,
    task: SqlTask,
    out: Path,
    seed: int,
    asked: Sequence[Record] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Build `train.jsonl`, `test_built.jsonl` and `test_unseen.jsonl` under `out`.

    A record is `{id, question, sql, database, schema, mentioned, skeleton, kind}`. The same databases, settings and
    seed give the same bytes. No exact query of a test set is in training, and no pair of query skeleton and question
    (values masked) stands on both sides.

    Args:
        server: where the databases are; every query runs there, as the grader would run it.
        task: the databases, the prompt's schema style and budget, and `task.build`.
        out: folder, created.
        seed: of everything drawn.
        asked: records of `task.build.asked`; they and their versions are trained on, and no test set has their queries.
        progress: called with (records made, records wanted).

    Raises:
        ConfigError: the glossary names a table or column that no database has.
        DataError: a database has no rows to ask about, or too little variety for a tenth of the wanted examples; or an
            asked question's query fails, or names no database of the task.
    """
    wanted = task.build or SqlBuild()
    tally = _Tally()
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
    schemas = [read_schema(server, database, sample_values=task.sample_values) for database in task.databases]
    _require_known(wanted.glossary, schemas)
    for number, schema in enumerate(schemas):
        database, schema = schema.database, with_glossary(schema, wanted.glossary)
        made: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
        total = len(task.databases) * wanted.examples
        for record in _examples(server, task, wanted, schema, random.Random(f"{seed}/{database}"), tally):
            made[_side(record, wanted, seed)].append(record)
            if progress:
                progress(number * wanted.examples + sum(len(rows) for rows in made.values()), total)
        if sum(len(rows) for rows in made.values()) < wanted.examples / 10:
            raise DataError(
                f"only {sum(len(rows) for rows in made.values())} of {wanted.examples} examples could be made from "
                f"database {database!r}: {_reasons(tally.rejected)}",
                place="task.databases",
                remedy="give tables that hold rows, with names and foreign keys, or lower task.build.examples",
            )
        unclear = _unclear(row for rows in made.values() for row in rows)
        for name, rows in made.items():
            clear = [row for row in rows if masked_question(row["question"], row["sql"]) not in unclear]
            tally.rejected["asks for several things"] += len(rows) - len(clear)
            records[name] += clear
        about = [record for record in asked if database_of(record, task.databases) == database]
        records["train"] += _asked(server, task, wanted, schema, about, random.Random(f"{seed}/{database}"), tally)
    _remove_straddling(records, wanted, seed)
    built = write_built(records, tally.kinds, tally.rejected, out, _key(task, seed, asked), "every query executed")
    log.info("built %s examples; left out: %s", built.counts, _reasons(tally.rejected))
    return built


def read_built(task: SqlTask, out: Path, seed: int, asked: Sequence[Record] = ()) -> Built | None:
    """What an earlier build with the same settings left in the folder; None where none finished there."""
    return read_back(out, _key(task, seed, asked))


def _key(task: SqlTask, seed: int, asked: Sequence[Record]) -> str:
    """Names what decides a build. A database on a server of the user's may change unseen; its name is all we know."""
    files = [file.read_bytes().hex() for file in task.databases.values() if file is not None and file.is_file()]
    return _digest(VERSION, task.model_dump_json(), seed, *files, *(record.id for record in asked))[:16]


def with_glossary(schema: Schema, glossary: Mapping[str, Sequence[str]]) -> Schema:
    """The schema with other words for its tables and columns."""
    tables = [
        replace(
            table,
            also=tuple(glossary.get(table.name, ())),
            columns=tuple(replace(c, also=tuple(glossary.get(f"{table.name}.{c.name}", ()))) for c in table.columns),
        )
        for table in schema.tables
    ]
    return replace(schema, tables=tuple(tables))


def _require_known(glossary: Mapping[str, Sequence[str]], schemas: Sequence[Schema]) -> None:
    tables = [table for schema in schemas for table in schema.tables]
    known = {table.name for table in tables} | {f"{table.name}.{c.name}" for table in tables for c in table.columns}
    for name in glossary:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                f"no database of the task has a {'column' if '.' in name else 'table'} {name!r}",
                place=f"task.build.glossary.{name}",
                remedy=f"did you mean {near[0]}?" if near else "name a table, or a column as table.column",
            )


def _examples(
    server: Server, task: SqlTask, wanted: SqlBuild, schema: Schema, rng: random.Random, tally: _Tally
) -> Iterator[dict[str, Any]]:
    """Draw, execute, phrase: up to `wanted.examples` records of one database."""
    database = schema.database
    composer = Composer(schema, lambda table, column: column_values(server, database, table, column, limit=200))
    mentions = read_mentions(server, schema) if task.mentioned_values else None
    queries: set[str] = set()
    per_skeleton: Counter[str] = Counter()
    made = empty = 0
    for _ in range(wanted.examples * 8):
        if made >= wanted.examples:
            return
        query = composer.query(rng)
        if query is None or query.sql in queries:
            tally.rejected["drawn before" if query else "kind does not fit"] += 1
            continue
        queries.add(query.sql)
        drafts = list(phrasings(query, rng, rng.randint(1, wanted.paraphrases), wanted.noise))
        skeleton = drafts[0].skeleton
        if per_skeleton[skeleton] >= wanted.per_skeleton:
            tally.rejected["enough of its skeleton"] += 1
            continue
        rows, reason = _execute(server, database, query.sql)
        if reason:
            tally.rejected[reason] += 1
            continue
        if rows == 0:
            if empty + 1 > wanted.empty_results * (made + 20):
                tally.rejected["returns nothing"] += 1
                continue
            empty += 1
        for draft in drafts[: wanted.examples - made]:
            made += 1
            per_skeleton[skeleton] += 1
            tally.kinds[draft.kind] += 1
            yield _record(task, schema, mentions, draft)


def _asked(
    server: Server,
    task: SqlTask,
    wanted: SqlBuild,
    schema: Schema,
    asked: Sequence[Record],
    rng: random.Random,
    tally: _Tally,
) -> Iterator[dict[str, Any]]:
    """What people asked about one database, and further versions of it; every query executed."""
    database = schema.database
    failed = [(one, error) for one in asked if (error := server.run(database, query_of(one), gold=True).error)]
    if failed:
        raise DataError(
            f"of {len(asked)} asked questions, {len(failed)} have SQL that fails; the first: {failed[0][1].message}",
            place=failed[0][0].place,
            remedy="mend their SQL, or take them out",
        )
    variety = Variety(schema, lambda table, column: column_values(server, database, table, column, limit=200))
    mentions = read_mentions(server, schema) if task.mentioned_values else None
    for one in asked:
        question, sql = text_of(one, "question"), query_of(one)
        versions = {question.lower(): (question, sql)}
        for other, query in islice(variety.versions(question, sql, rng), wanted.versions * 4):
            if len(versions) == wanted.versions:
                break
            other = roughen(other, rng) if rng.random() < wanted.noise else other
            if other.lower() not in versions and (query == sql or _execute(server, database, query)[0]):
                versions[other.lower()] = (other, query)
        for question, sql in versions.values():
            tally.kinds["asked"] += 1
            yield _record(task, schema, mentions, Draft(question, sql, "asked", skeleton_of(sql)))


def _record(task: SqlTask, schema: Schema, mentions: Mentions | None, draft: Draft) -> dict[str, Any]:
    text = schema_text(schema, draft.question, task.schema_style, task.schema_tokens)
    mentioned = mention_text(mentions.find(draft.question, task.mentioned_values)) if mentions else ""
    return {
        "id": _digest(schema.database, draft.question, draft.sql)[:16],
        "question": draft.question,
        "sql": draft.sql,
        "database": schema.database,
        "schema": text,
        "mentioned": mentioned,
        "skeleton": draft.skeleton,
        "kind": draft.kind,
    }


_LIMIT = re.compile(r" LIMIT (\d+)$")


def _execute(server: Server, database: str, sql: str) -> tuple[int, str]:
    """Rows the query returns, and why it must be left out where it must."""
    result = server.run(database, sql, gold=True)
    if result.error is not None:
        return 0, f"fails: {result.error.failure}"
    if result.truncated:
        return 0, "result too large"
    rows = len(result.rows)
    if rows and all(value is None for row in result.rows for value in row):
        return 0, "returns only NULL"
    if rows == 1 and len(result.rows[0]) == 1 and result.rows[0][0] == 0:
        rows = 0  # a count of nothing tells a wrong query from a right one as badly as an empty result does
    if limit := _LIMIT.search(sql):
        ties = server.run(database, f"{sql[: limit.start()]} FETCH FIRST {limit[1]} ROWS WITH TIES", gold=True)
        if ties.error is None and len(ties.rows) != len(result.rows):
            return 0, "ties decide the answer"
    return rows, ""


def _side(record: Mapping[str, Any], wanted: SqlBuild, seed: int) -> str:
    if _share(seed, "skeleton", record["database"], record["skeleton"]) < wanted.unseen_skeletons:
        return "test_unseen"
    return "test_built" if _share(seed, "query", record["database"], record["sql"]) < wanted.test_share else "train"


def _unclear(rows: Iterable[Mapping[str, Any]]) -> set[str]:
    """Questions, values masked, drawn for queries that differ in more than values: no one answer to them is right."""
    skeletons: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        skeletons[masked_question(row["question"], row["sql"])].add(row["skeleton"])
    return {question for question, found in skeletons.items() if len(found) > 1}


def _remove_straddling(records: dict[str, list[dict[str, Any]]], wanted: SqlBuild, seed: int) -> None:
    """Keep of the test sets what training has not seen as the same question in other values; cut them to size."""
    seen = {(row["skeleton"], masked_question(row["question"], row["sql"])) for row in records["train"]}
    trained, queries = {row["skeleton"] for row in records["train"]}, {row["sql"] for row in records["train"]}
    records["test_built"] = [
        row
        for row in records["test_built"]
        if row["skeleton"] in trained
        and row["sql"] not in queries  # somebody may have asked for it
        and (row["skeleton"], masked_question(row["question"], row["sql"])) not in seen
    ]
    records["test_unseen"] = [row for row in records["test_unseen"] if row["skeleton"] not in trained]
    for name in ("test_built", "test_unseen"):
        records[name].sort(key=lambda row: _digest(seed, row["id"]))
        del records[name][wanted.test_examples :]


_TEXT = re.compile(r"'((?:[^']|'')*)'")


def masked_question(question: str, sql: str) -> str:
    """The question with the query's values and all digits masked: what two questions share when only values differ."""
    text = question.lower()
    for value in sorted((v.replace("''", "'").strip("%").lower() for v in _TEXT.findall(sql)), key=len, reverse=True):
        if value:
            text = text.replace(value, "?")
    return re.sub(r"\d+(?:[.,]\d+)*", "?", text).rstrip("?. ")


def _share(*parts: object) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    return int(_digest(*parts)[:12], 16) / 16**12


def _digest(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def _reasons(rejected: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{count} {reason}" for reason, count in sorted(rejected.items(), key=lambda item: -item[1])) or "-"
    )
