"""The SQL grader: labelled pairs, hostile statements, cheap answers, answers of a real model, speed."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from hostile_sql import CANARY, DATABASE, RIGHT, STATEMENTS
from tunesmith.config.schema import SqlTask as Settings
from tunesmith.evaluate.trust import hack_gain, self_test
from tunesmith.tasks.sql.answer import extract_sql
from tunesmith.tasks.sql.grade import SqlGrader
from tunesmith.tasks.sql.postgres import Server, open_server
from tunesmith.tasks.sql.structure import parse
from tunesmith.tasks.sql.task import SqlTask
from tunesmith.types import Example, Record

EQUIVALENT = {"equivalent", "same_but_columns_reordered"}
Figure = Callable[..., None]


def measure(data: Path, quick: bool, figure: Figure) -> None:
    """Print every figure; `data` holds `sql/grader_pairs.jsonl` and its neighbours."""
    folder, step = data / "sql", 10 if quick else 1
    databases: dict[str, Path | None] = {path.stem: path for path in sorted((folder / "dumps").glob("*.sql"))}
    settings = Settings(databases=databases)
    pairs = list(_records(folder / "grader_pairs.jsonl", step))
    with open_server(settings) as server:
        for name in {str(pair["db"]) for _, pair in pairs}:
            server.load(name, databases[name])
        for count in (settings.instances, 0):
            _pairs(SqlGrader(server, settings.model_copy(update={"instances": count})), server, pairs, count, figure)
        _repeated(SqlGrader(server, settings), server, pairs, figure)
        _cheap(SqlTask(settings, server), folder, quick, figure)
    _hostile(figure, quick)
    for path in sorted(folder.glob("real_model_outputs_*.jsonl")):
        _outputs(path, step, figure)


def _pairs(
    grader: SqlGrader, server: Server, pairs: list[tuple[int, dict[str, Any]]], instances: int, figure: Figure
) -> None:
    seen, accepted, peers = Counter[str](), Counter[str](), Counter[tuple[str, str]]()
    for name, gold in {str(pair["db"]): pair["gold_sql"] for _, pair in pairs}.items():
        # Connections and copies are made once for a database, and not timed.
        grader.grade(name, ["SELECT 1 AS a"], "SELECT 1 AS b")
        grader._instances.examine(name, gold, gold)
    clock = _Clock(server)
    scores = [grader.grade(pair["db"], [pair["gold_sql"]], pair["pred_sql"]) for _, pair in pairs]
    cpu, wall = clock.cpu, clock.wall
    for (line, pair), score in zip(pairs, scores, strict=True):
        kind = _kind(pair)
        seen[kind] += 1
        accepted[kind] += score.value == 1.0
        for peer in ("defog(correct)", "spider-ts", "spider-ts(default, strips DISTINCT)", "bird-EX"):
            peers[kind, peer] += pair["peer_verdicts"].get(peer) is True
        if instances and (score.value == 1.0) != (kind.startswith("equivalent")):
            print(f"  grader_pairs.jsonl:{line} {pair['label']} {pair['mutation']}: {score.value} {score.note}")
    conditions = f"{len(pairs)} pairs, {instances} second instances, {_machine()}"
    for kind, goal in GOALS.items():
        others = ", ".join(
            f"{peer} {peers[kind, peer]}" for peer in ("defog(correct)", "spider-ts", "bird-EX") if seen[kind]
        )
        figure(
            f"SQL, {instances} instances: {kind}: accepted",
            accepted[kind],
            f"of {seen[kind]}",
            goal.format(n=seen[kind], most=int(0.15 * seen[kind])) if instances else "",
            f"{conditions}; accepted by {others}",
        )
    figure(
        f"SQL, {instances} instances: grades per second of one core",
        round(len(pairs) / cpu),
        "/s",
        "300",
        f"{conditions}; CPU of this process and of the server's together; {len(pairs) / wall:.0f}/s by the wall",
    )


GOALS = {
    "wrong, visible on the shipped rows": "0",
    "wrong, same rows on the shipped data": "at most {most}",
    "wrong order of the rows": "0",
    "one column too many": "0",
    "equivalent": "{n}",
    "equivalent, columns in another order": "{n}",
}


def _kind(pair: dict[str, Any]) -> str:
    if pair["label"] == "not_equivalent":
        same = pair["same_result_on_shipped_data"]
        return "wrong, same rows on the shipped data" if same else "wrong, visible on the shipped rows"
    return {
        "not_equivalent_row_order": "wrong order of the rows",
        "gold_plus_extra_column": "one column too many",
        "equivalent": "equivalent",
        "same_but_columns_reordered": "equivalent, columns in another order",
    }[pair["label"]]


def _repeated(grader: SqlGrader, server: Server, pairs: list[tuple[int, dict[str, Any]]], figure: Figure) -> None:
    """A group of answers to each question, as a model that is rewarded gives them: half of them the same."""
    clock, graded = _Clock(server), 0
    for _, pair in random.Random(1).sample(pairs, min(120, len(pairs))):
        answers = [pair["gold_sql"]] * 3 + [pair["pred_sql"]] * 3 + ["SELECT 1", f"({pair['gold_sql'].rstrip('; ')})"]
        for answer in answers:
            grader.grade(pair["db"], [pair["gold_sql"]], answer)
            graded += 1
    figure(
        "SQL: grades per second of one core, groups of 8 answers", round(graded / clock.cpu), "/s", "300", _machine()
    )


def _cheap(task: SqlTask, folder: Path, quick: bool, figure: Figure) -> None:
    examples = [
        _example(task, folder / f"{name}.jsonl", line, fields)
        for name in ("defog", "spider_dev")
        for line, fields in _records(folder / f"{name}.jsonl", 40 if quick else 8)
    ]
    test = self_test(task, examples)
    figure("SQL: right answers score", 100 * (test.gold.value or 0), "%", "100", f"{test.gold.n} questions")
    shuffled = 100 * (test.shuffled.value or 0)
    figure("SQL: right answers of other questions score", round(shuffled, 1), "%", "near 0", f"{test.shuffled.n}")
    hacks = hack_gain(task, examples)
    earning = [policy for policy in hacks.policies if policy.earned.value]
    for policy in earning:
        print(f"  {policy.name}: {policy.offences[0].sentence()}")
    many = f"of {len(hacks.policies)}"
    figure("SQL: cheap policies that score", len(earning), many, "0", f"{len(examples)} questions each")
    figure("SQL: hack gain", round(100 * hacks.gain, 1), "%", "0", f"{len(examples)} questions")


def _hostile(figure: Figure, quick: bool) -> None:
    """Every statement as an answer to several questions; harm is any change, leak, or a limit that does not hold."""
    statements = STATEMENTS[:: 4 if quick else 1]
    harmful, scoring = list[str](), list[str]()
    with tempfile.TemporaryDirectory() as out:
        script = Path(out) / "harbour.sql"
        script.write_text(DATABASE, encoding="utf-8")
        Path(CANARY).unlink(missing_ok=True)
        settings = Settings(databases={"harbour": script}, timeout_seconds=1)
        with open_server(settings) as server:
            grader = SqlGrader(server, settings)
            grader.grade("harbour", RIGHT[:1], "SELECT count(id) FROM orders")  # makes the copy, which is no harm
            before = _state(server)
            for statement in statements:
                start = time.perf_counter()
                result = server.run("harbour", statement)
                slow = time.perf_counter() - start > 10
                leaked = any("tunesmith" in str(value) or "root:" in str(value) for row in result.rows for value in row)
                if slow or leaked or _state(server) != before or Path(CANARY).exists():
                    harmful.append(statement)
                if grader.grade("harbour", RIGHT, statement).value == 1.0:
                    scoring.append(statement)
    for statement in {*harmful, *scoring}:
        print(f"  {statement[:100]}")
    conditions = f"embedded server, {_machine()}"
    figure("SQL: hostile statements that do harm", len(harmful), f"of {len(statements)}", "0", conditions)
    figure("SQL: hostile statements that score", len(scoring), f"of {len(statements)}", "0", conditions)


def _state(server: Server) -> object:
    """Everything that a statement could change: rows, objects, roles and their rights, settings of the next session."""
    query = psycopg.sql.SQL(
        "SELECT (SELECT md5(string_agg(o::text, ',' ORDER BY id)) FROM orders o), (SELECT count(*) FROM boats), "
        "(SELECT md5(string_agg(relname || coalesce(relacl::text, ''), ',' ORDER BY oid)) FROM pg_class), "
        "(SELECT count(*) FROM pg_proc), (SELECT md5(string_agg(r::text, ',' ORDER BY oid)) FROM pg_roles r), "
        "(SELECT count(*) FROM pg_database), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'), "
        "(SELECT count(*) FROM pg_extension), (SELECT count(*) FROM pg_prepared_xacts)"
    )
    guest = server.run(
        "harbour",
        "SELECT current_user::text, current_setting('statement_timeout'), current_setting('transaction_read_only'), "
        "(SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE name <> '')",
    )
    return server.trusted("harbour", query), guest.rows


def _outputs(path: Path, step: int, figure: Figure) -> None:
    found = fenced = prose = total = 0
    for _, fields in _records(path, step):
        total += 1
        text = str(fields["output"])
        sql = extract_sql(text)
        fenced += "```" in text
        prose += "```" not in text and len(text.strip()) > len(sql) + 20
        clean = sql.lower().startswith(("select", "with")) and "```" not in sql
        # What is read must itself end where the query does: the server would refuse prose, and so would the parser.
        plain = text.replace("\\_", "_").replace("\\*", "*")
        found += clean and (parse(sql) is not None or all(one.strip() in plain for one in sql.split(";\n")))
        if not clean:
            print(f"  {path.name}: {sql[:80]!r}")
    figure(
        "SQL: answers of a real model read as a query",
        found,
        f"of {total}",
        f"{total}",
        "by hand: 77 once, 64 by a second reader",
    )
    figure("SQL: of these with a fence, with prose", f"{fenced}, {prose}", f"of {total}")


class _Clock:
    """Wall time, and CPU time of this process and of the embedded server with all its children, alive and gone."""

    def __init__(self, server: Server) -> None:
        self._folder = Path(str(server._home._server.folder))  # type: ignore[union-attr]
        self._started, self._mine, self._theirs = time.perf_counter(), time.process_time(), self._server()

    @property
    def wall(self) -> float:
        return time.perf_counter() - self._started

    @property
    def cpu(self) -> float:
        return time.process_time() - self._mine + self._server() - self._theirs

    def _server(self) -> float:
        """Seconds; 0 where the system does not tell."""
        try:
            postmaster, ticks = int((self._folder / "postmaster.pid").read_text().split()[0]), 0
            for entry in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    fields = entry.read_text().rsplit(")", 1)[1].split()
                    if int(entry.parent.name) == postmaster:
                        ticks += sum(map(int, fields[11:15]))
                    elif int(fields[1]) == postmaster:
                        ticks += int(fields[11]) + int(fields[12])
            return ticks / os.sysconf("SC_CLK_TCK")
        except (OSError, AttributeError):
            return 0.0


def _example(task: SqlTask, path: Path, line: int, fields: dict[str, Any]) -> Example:
    known = {"question": fields["question"], "sql": fields["gold_sql"], "database": fields["db"], "schema": "t(a)"}
    return next(task.examples(Record(str(fields.get("id", line)), known, str(path), line)))


def _records(path: Path, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if number % step == 0:
                yield number, json.loads(line)


def _machine() -> str:
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    return f"{platform.machine()}, {load}, Python {platform.python_version()}"
