from __future__ import annotations

import pytest

from tunesmith.config.schema import SqlTask as Settings
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.task import SqlTask
from tunesmith.types import Example, Record, RedTeamed

GOLDS = [
    "SELECT name FROM customers WHERE city = 'Paris' ORDER BY name",
    "SELECT count(*) FROM orders WHERE status = 'paid'",
    "SELECT city, count(*) FROM customers GROUP BY city HAVING count(*) > 1",
    "SELECT c.name, sum(o.total) FROM customers c JOIN orders o ON customer_id = c.id GROUP BY c.name ORDER BY 2 DESC",
    "SELECT label FROM depot.shelves",
    "SELECT name FROM customers WHERE id > 90",
]


@pytest.fixture(scope="module")
def task(shop_settings: Settings, server: Server) -> SqlTask:
    return SqlTask(shop_settings, server)


def example(task: SqlTask, sql: str) -> Example:
    return next(task.examples(Record("r", {"question": "?", "sql": sql, "schema": "t(a)"}, "f", 1)))


@pytest.mark.parametrize("gold", GOLDS)
def test_no_cheap_answer_scores(task: SqlTask, gold: str) -> None:
    assert isinstance(task, RedTeamed)
    asked = example(task, gold)
    cheap = task.cheap_answers(asked)
    assert len(cheap) >= 17
    for name, answer in cheap.items():
        score = task.grade(asked, answer)
        assert not score.value, (name, answer, score)


def test_there_are_twenty_ways_to_earn_nothing(task: SqlTask) -> None:
    names = {name for gold in GOLDS for name in task.cheap_answers(example(task, gold))}
    assert len(names) >= 20
    assert {"written_out", "rows_twice", "order_by_luck", "delete_first", "near_miss"} <= names


def test_the_right_result_written_out_is_right_on_the_shipped_rows_only(task: SqlTask) -> None:
    asked = example(task, GOLDS[0])
    score = task.grade(asked, task.cheap_answers(asked)["written_out"])
    assert score.parts["shipped_rows"] == 1.0
    assert score.parts["second_instances"] == 0.0
