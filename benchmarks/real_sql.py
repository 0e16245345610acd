"""The SQL task on questions, databases and queries that nobody of this project wrote.

Every gold query of `sql/defog.jsonl` and `sql/spider_dev.jsonl` is made into an example with its schema, and graded as
if a model had answered it: 1.0 is due. The labelled pairs of `sql/grader_pairs.jsonl` say how often the grader is wrong
on the shipped rows, and the real answers of a model how often a query is found in them.

    python benchmarks/real_sql.py --data FOLDER [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.config.schema import SqlTask as Settings
from tunesmith.tasks.sql.answer import extract_sql
from tunesmith.tasks.sql.postgres import open_server
from tunesmith.tasks.sql.structure import parse
from tunesmith.tasks.sql.task import SqlTask
from tunesmith.types import Example, Record

RIGHT = {"equivalent", "same_but_columns_reordered"}
"""Labels that ought to be accepted. An extra column is wrong by our policy, as it is in the labels."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sql/defog.jsonl and its neighbours")
    parser.add_argument("--quick", action="store_true", help="every tenth record")
    parser.add_argument("--json", type=Path, help="also write the figures here, a line of JSON each")
    arguments = parser.parse_args()
    folder = arguments.data / "sql"
    databases: dict[str, Path | None] = {path.stem: path for path in sorted((folder / "dumps").glob("*.sql"))}
    settings = Settings(databases=databases)
    conditions = (
        f"embedded PostgreSQL, {len(databases)} databases, {platform.machine()}, Python {platform.python_version()}"
    )
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float | str, unit: str, goal: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<52} {value:>10} {unit:<10} {f'goal: {goal}' if goal else ''}", flush=True)

    step = 10 if arguments.quick else 1
    start = time.perf_counter()
    with open_server(settings) as server:
        figure("server started", round(time.perf_counter() - start, 2), "s")
        start = time.perf_counter()
        for name, path in databases.items():
            server.load(name, path)
        figure("databases loaded", round(time.perf_counter() - start, 2), "s")
        task = SqlTask(settings, server)
        for source in ("defog", "spider_dev"):
            _gold_against_itself(task, folder / f"{source}.jsonl", step, figure)
        _labelled_pairs(task, folder / "grader_pairs.jsonl", step, figure)
    for path in sorted(folder.glob("real_model_outputs_*.jsonl")):
        _extraction(path, step, figure)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _gold_against_itself(task: SqlTask, path: Path, step: int, figure: Any) -> None:
    right = total = prompted = both_empty = 0
    seconds = 0.0
    for line, fields in _records(path, step):
        example = _example(task, path, line, fields)
        total += 1
        prompted += "CREATE TABLE" in example.messages[0].content
        start = time.perf_counter()
        score = task.grade(example, example.target)
        seconds += time.perf_counter() - start
        right += score.value == 1.0
        both_empty += "empty" in score.note
        if score.value != 1.0:
            print(f"  {path.name}:{line} {score.value} {score.failure} {score.note}\n    {example.target}")
    figure(f"{path.stem}: gold queries graded 1.0 against themselves", right, f"of {total}", f"{total}")
    figure(f"{path.stem}: prompted with their schema", prompted, f"of {total}", f"{total}")
    figure(f"{path.stem}: graded on an empty result", both_empty, f"of {total}")
    figure(f"{path.stem}: graded per second", round(total / seconds), "/s")


def _labelled_pairs(task: SqlTask, path: Path, step: int, figure: Any) -> None:
    accepted: Counter[tuple[str, bool]] = Counter()
    seen: Counter[tuple[str, bool]] = Counter()
    failures: Counter[str] = Counter()
    for line, fields in _records(path, step):
        example = _example(task, path, line, fields)
        score = task.grade(example, str(fields["pred_sql"]))
        if score.value is None:
            continue
        key = (str(fields["label"]), bool(fields["same_result_on_shipped_data"]))
        seen[key] += 1
        accepted[key] += score.value == 1.0
        failures[score.failure or "right"] += 1
        wrongly = (score.value == 1.0) != (key[0] in RIGHT) and not key[1] or (score.value == 0.0 and key[0] in RIGHT)
        if wrongly:
            print(f"  {path.name}:{line} {fields['label']} {fields['mutation']}: {score.note}")
    for key in sorted(seen):
        visible = "" if key[0] in RIGHT else ", same rows as gold here" if key[1] else ", visible"
        goal = str(seen[key]) if key[0] in RIGHT else "information" if key[1] else "0"
        figure(f"pairs: {key[0]}{visible}: accepted", accepted[key], f"of {seen[key]}", goal)
    print("  classes:", ", ".join(f"{name} {count}" for name, count in failures.most_common()))


def _extraction(path: Path, step: int, figure: Any) -> None:
    found = parsed = total = 0
    for line, fields in _records(path, step):
        total += 1
        sql = extract_sql(str(fields["output"]))
        found += sql.lower().startswith(("select", "with"))
        parsed += parse(sql) is not None
        if not sql.lower().startswith(("select", "with")):
            print(f"  {path.name}:{line} {sql[:70]!r}")
    figure("real answers: a query is found", found, f"of {total}")
    figure("real answers: it parses as PostgreSQL", parsed, f"of {total}", "information")


def _example(task: SqlTask, path: Path, line: int, fields: dict[str, Any]) -> Example:
    # The schema is left out: the product must read it from the database itself, in whatever schema the tables lie.
    known = {"question": fields["question"], "sql": fields["gold_sql"], "database": fields["db"]}
    return next(task.examples(Record(str(fields.get("id", line)), known, str(path), line)))


def _records(path: Path, step: int) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if number % step == 0 or step == 1:
                yield number, json.loads(line)


if __name__ == "__main__":
    main()
