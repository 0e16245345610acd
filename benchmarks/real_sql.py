"""The SQL task on questions, databases and queries that nobody of this project wrote.

Every gold query of `sql/defog.jsonl` and `sql/spider_dev.jsonl` is made into an example with its schema, and graded as
if a model had answered it: 1.0 is due. How often the grader is wrong on wrong answers is measured by `graders.py`.

    python benchmarks/real_sql.py --data FOLDER [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith import pipeline
from tunesmith.config.load import load_config
from tunesmith.config.schema import SqlBuild
from tunesmith.config.schema import SqlTask as Settings
from tunesmith.errors import DataError
from tunesmith.tasks.sql.build import build_dataset
from tunesmith.tasks.sql.introspect import read_schema
from tunesmith.tasks.sql.postgres import Server, open_server
from tunesmith.tasks.sql.task import SqlTask
from tunesmith.types import Example, Record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sql/defog.jsonl and its neighbours")
    parser.add_argument("--quick", action="store_true", help="every tenth record")
    parser.add_argument("--train", action="store_true", help="also tune the demo's base on Chinook")
    parser.add_argument(
        "--steps", type=int, default=900, help="of that: 290 as in the demo take six minutes, 900 twenty"
    )
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
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
        _builds(server, settings, 150 if arguments.quick else 1500, figure)
    if arguments.train:
        _train_on_chinook(folder / "dumps" / "chinook_PostgreSql.sql", arguments.steps, figure)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


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


def _builds(server: Server, settings: Settings, wanted: int, figure: Any) -> None:
    """A data set from every database that people use and that holds rows, each query executed."""
    for name, path in settings.databases.items():
        if not name.startswith(("chinook", "defog")):
            continue
        held = sum(table.rows for table in read_schema(server, name).tables)
        if not held:
            figure(f"{name}: rows", 0, "rows", "none to ask about")
            continue
        one = settings.model_copy(update={"databases": {name: path}, "build": SqlBuild(examples=wanted)})
        with tempfile.TemporaryDirectory() as out:
            start = time.perf_counter()
            try:
                made = sum(build_dataset(server, one, Path(out), seed=1).counts.values())
            except DataError as error:
                print(f"  {name}: {error.message}")
                made = 0
            figure(
                f"{name}: examples built from {held:,} rows", made, f"in {time.perf_counter() - start:.0f} s", "1000"
            )


def _train_on_chinook(dump: Path, steps: int, figure: Any) -> None:
    """The recipe for a database of one's own on Chinook, with as many examples as the steps have use for: before and
    after."""
    recipe = Path(__file__).resolve().parents[1] / "recipes" / "sql" / "own-database.yaml"
    with tempfile.TemporaryDirectory() as out:
        settings = [
            "name=chinook", f"output_dir={out}", "exports=[]", "task.server=embedded",
            f"task.databases.chinook={dump.resolve()}", f"train.max_steps={steps}",
            f"task.build.examples={max(9000, 22 * steps)}",
        ]  # fmt: skip
        scores = pipeline.run(load_config(recipe, settings, os.environ | {"TUNESMITH_DATABASE": "chinook"}))["scores"]
    for model in ("base", "tuned"):
        for name, score in scores[model].items():
            goal = "80" if (model, name) == ("tuned", "built") else ""
            figure(
                f"Chinook, {model}, {name}, {steps} steps",
                round(100 * score["accuracy"], 1),
                f"% of {score['n']}",
                goal,
            )
            if alone := score["parts"].get("model_alone"):
                of = f"% of {alone['n']}"
                figure(
                    f"Chinook, {model} without the lexicon, {name}, {steps} steps", round(100 * alone["value"], 1), of
                )


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
