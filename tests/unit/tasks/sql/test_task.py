from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tunesmith.config.schema import SqlTask as Settings
from tunesmith.errors import DataError
from tunesmith.tasks.sql.answer import extract_sql
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.task import SYSTEM, SqlTask
from tunesmith.types import Example, Record, Task, Tries

NAMES = "SELECT name FROM customers ORDER BY name"
BY_TOTAL = "SELECT id FROM orders WHERE id < 4 ORDER BY total"


@pytest.fixture(scope="module")
def task(shop_settings: Settings, server: Server) -> SqlTask:
    return SqlTask(shop_settings, server)


def record(**fields: Any) -> Record:
    return Record("r1", {"question": "Who?", "sql": NAMES, **fields}, "file.jsonl", 7)


def example(task: SqlTask, sql: str, **fields: Any) -> Example:
    return next(task.examples(record(sql=sql, schema="customers(id, name)", **fields)))


def test_the_sql_task_is_a_task(task: SqlTask) -> None:
    assert isinstance(task, Task)


def test_a_record_becomes_a_prompt_with_its_schema_and_an_answer_that_is_trained() -> None:
    task = SqlTask(Settings(), environ={})
    given = record(
        sql=f" {NAMES} ;\n", schema="CREATE TABLE customers (name text);", database="any", skeleton="s", kind="k"
    )
    (made,) = task.examples(given)
    assert [message.role for message in made.messages] == ["system", "user", "assistant"]
    assert made.messages[0].content == f"{SYSTEM}\n\nCREATE TABLE customers (name text);"
    assert made.messages[1].content == "Who?"
    assert made.messages[2].content == made.target == NAMES
    assert [message.train for message in made.messages] == [False, False, True]
    assert made.meta == {"database": "any", "question": "Who?", "skeleton": "s", "kind": "k"}
    assert made.place == "file.jsonl:7"
    json.dumps(made.meta)


def test_the_schema_is_read_from_the_server_where_the_record_has_none(task: SqlTask) -> None:
    (made,) = task.examples(record())  # one database is named: the record need not say which
    assert "CREATE TABLE customers" in made.messages[0].content
    assert "depot.shelves" in made.messages[0].content
    assert made.meta["database"] == "shop"


def test_questions_that_differ_in_values_alone_are_one_group(task: SqlTask) -> None:
    def group(question: str, city: str, skeleton: str = "s") -> str:
        sql = f"SELECT name FROM customers WHERE city = '{city}'"
        return example(task, sql, question=question, skeleton=skeleton).group

    assert group("Who lives in Paris?", "Paris") == group("Who lives in Rome?", "Rome")
    assert group("Who lives in Paris?", "Paris") != group("Who is from Rome?", "Rome")
    assert group("Who lives in Paris?", "Paris") != group("Who lives in Rome?", "Rome", "t")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"question": None}, "question"),
        ({"question": "  "}, "question"),
        ({"sql": 3}, "sql"),
        ({"database": "warehouse"}, "warehouse"),
        ({"database": 4}, "database"),
        ({"schema": ["a"]}, "schema"),
    ],
)
def test_a_record_that_cannot_be_used_is_refused_with_its_place(
    task: SqlTask, fields: Mapping[str, Any], reason: str
) -> None:
    with pytest.raises(DataError) as raised:
        next(task.examples(record(**fields)))
    assert raised.value.place == "file.jsonl:7"
    assert reason in raised.value.message
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("gold", "answer", "value", "failure"),
    [
        (NAMES, NAMES, 1.0, ""),
        (NAMES, "select c.name from customers as c order by 1;", 1.0, ""),
        (NAMES, "SELECT name FROM customers ORDER BY name DESC", 0.0, "wrong_order"),
        ("SELECT name FROM customers", "SELECT name FROM customers ORDER BY name DESC", 1.0, ""),
        (NAMES, "SELECT name, city FROM customers ORDER BY name", 0.0, "wrong_columns"),
        (NAMES, "SELECT city FROM customers ORDER BY name", 0.0, "wrong_rows"),
        (NAMES, "SELECT name FROM customers WHERE city = 'Paris' ORDER BY name", 0.0, "wrong_filter"),
        (NAMES, "SELECT label FROM shelves ORDER BY 1", 0.0, "wrong_table"),
        ("SELECT max(total) FROM orders", "SELECT min(total) FROM orders", 0.0, "wrong_aggregate"),
        # Rows 2 and 3 tie on the total, which is not among the columns.
        (BY_TOTAL, f"{BY_TOTAL}, id DESC", 1.0, ""),
        (BY_TOTAL, f"{BY_TOTAL} DESC", 0.0, "wrong_order"),
        ("SELECT avg(total) FROM orders", "SELECT avg(total::float8) FROM orders", 1.0, ""),
        (NAMES, "SELECT nome FROM customers", 0.0, "unknown_column"),
        (NAMES, "SELECT name FROM clients", 0.0, "unknown_table"),
        (NAMES, f"{NAMES}; DROP TABLE orders", 0.0, "several_statements"),
        (NAMES, "DELETE FROM orders", 0.0, "write_attempt"),
        (NAMES, "", 0.0, "empty_answer"),
        (NAMES, "I do not know.", 0.0, "syntax"),
        (NAMES, "SELECT pg_sleep(9)", 0.0, "forbidden"),
    ],
)  # fmt: skip
def test_an_answer_is_marked_by_running_it(task: SqlTask, gold: str, answer: str, value: float, failure: str) -> None:
    score = task.grade(example(task, gold), answer)
    assert score.value == value, score
    assert score.failure == failure
    assert score.note
    json.dumps(dict(score.shown))


def test_s15_text_that_is_no_query_and_a_like_on_a_timestamp_are_not_called_valid(task: SqlTask) -> None:
    gold = example(task, "SELECT id FROM orders WHERE placed_at >= '2024-02-01' AND placed_at < '2024-03-01'")
    for answer, failure in (
        ("The orders of February are 2 and 3.", ""),
        ("SELECT id FROM orders WHERE placed_at LIKE '2024-02%'", "operator does not exist"),
    ):
        score = task.grade(gold, answer)
        assert score.value == 0.0 and score.parts.get("valid", 0.0) == 0.0 and failure in score.note, score
    assert task.grade(gold, gold.target).value == 1.0


def test_exact_match_stands_beside_the_score_and_both_results_are_shown(task: SqlTask) -> None:
    score = task.grade(example(task, NAMES), f"```sql\n{NAMES.lower()};\n```")
    assert score.parts == {"exact_match": 1.0, "shipped_rows": 1.0, "second_instances": 1.0}
    assert score.shown["columns"] == score.shown["gold_columns"] == ["name"]
    assert score.shown["rows"] == score.shown["gold_rows"] == [["Ada"], ["Ben"], ["Chloë"], ["O'Neil"]]
    other = task.grade(example(task, NAMES), "SELECT name FROM customers ORDER BY 1")
    assert other.parts == {"exact_match": 0.0, "shipped_rows": 1.0, "second_instances": 1.0}


def test_an_answer_is_not_judged_where_the_right_query_fails(task: SqlTask) -> None:
    score = task.grade(example(task, "SELECT nome FROM customers"), NAMES)
    assert score.value is None
    assert "nome" in score.note


def test_an_alternative_query_is_right_too(task: SqlTask) -> None:
    asked = example(task, "SELECT name, city FROM customers", alternatives=["SELECT name FROM customers"])
    assert task.grade(asked, "SELECT name FROM customers").value == 1.0
    assert task.grade(asked, "SELECT name, city FROM customers").value == 1.0
    assert task.grade(asked, "SELECT city FROM customers").value == 0.0


def test_two_empty_results_prove_nothing_and_are_judged_on_rows_of_our_own(task: SqlTask) -> None:
    asked = example(task, "SELECT name FROM customers WHERE id > 9")
    wrong = task.grade(asked, "SELECT name FROM customers WHERE id > 8")
    assert wrong.value == 0.0
    assert wrong.failure == "wrong_literal"
    assert wrong.parts["shipped_rows"] == 1.0
    assert "customers" in wrong.shown["instance"]["tables"]
    assert task.grade(asked, "SELECT c.name FROM customers c WHERE NOT c.id <= 9").value == 1.0


@pytest.mark.parametrize(
    ("answer", "sql"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT 1 ;\n", "SELECT 1"),
        ("```sql\nSELECT 1;\n```", "SELECT 1"),
        ("```\nSELECT 1\n```", "SELECT 1"),
        ("```postgresql\nSELECT 1", "SELECT 1"),
        ("SELECT 1;\n```\n\nThis counts.\n```", "SELECT 1"),
        ("Run this:\n```bash\npsql\n```\nthen\n```sql\nSELECT 1\n```", "SELECT 1"),
        ("Here is the query:\n\nSELECT 1;", "SELECT 1"),
        ("The answer is: SELECT 1", "SELECT 1"),
        ("Here is a query with joins:\nWITH a AS (SELECT 1) SELECT * FROM a", "WITH a AS (SELECT 1) SELECT * FROM a"),
        ("SELECT 1;\n\nThis query doesn't need a table.", "SELECT 1"),
        ("SELECT 1\n\nThis query returns one.", "SELECT 1"),
        ("SELECT a\n\nFROM t", "SELECT a\n\nFROM t"),
        ("SELECT ';' AS semicolon", "SELECT ';' AS semicolon"),
        ("-- the answer\nSELECT 1", "SELECT 1"),
        ("<think>Maybe SELECT 2?</think>\nSELECT 1", "SELECT 1"),
        ("SELECT first\\_name FROM t WHERE a LIKE '10\\_%'", "SELECT first_name FROM t WHERE a LIKE '10\\_%'"),
        ("SELECT 1 WHERE e = 'Women\\'s' AND t\\_size = 'M'", "SELECT 1 WHERE e = 'Women\\'s' AND t_size = 'M'"),
        ("SELECT 1; SELECT 2", "SELECT 1;\nSELECT 2"),
        ("DELETE FROM t", "DELETE FROM t"),
        ("I cannot answer that.", "I cannot answer that."),
        ("", ""),
    ],
)
def test_the_query_is_taken_out_of_an_answer_as_a_person_would(answer: str, sql: str) -> None:
    assert extract_sql(answer) == sql


def test_a_task_that_was_given_a_server_leaves_it_running(shop_settings: Settings, server: Server) -> None:
    task = SqlTask(shop_settings, server)
    task.close()
    task.close()
    assert server.run("shop", "SELECT 1").rows == ((1,),)


def test_what_a_question_mentions_is_looked_up_and_follows_it(shop_settings: Settings, server: Server) -> None:
    task = SqlTask(shop_settings.model_copy(update={"mentioned_values": 4}), server)
    (made,) = task.examples(record(question="Which paid orders are from Paris?", schema="customers(id, name)"))
    assert made.messages[1].content == (
        "Which paid orders are from Paris?\n"
        "big_orders.status = 'paid', orders.status = 'paid', customers.city = 'Paris'"
    )
    assert made.meta["question"] == "Which paid orders are from Paris?"


def test_answers_can_be_held_to_what_the_columns_hold(shop_settings: Settings, server: Server) -> None:
    task = SqlTask(shop_settings.model_copy(update={"constrain_values": True}), server)
    (made,) = task.examples(record(question="Which paid orders are from Paris?"))
    held, free = task.constraint(made), SqlTask(shop_settings, server).constraint(made)
    start = "SELECT COUNT(*) FROM orders JOIN customers ON orders.customer_id = customers.id WHERE "
    for right in ("customers.city = 'Paris'", "orders.status = 'paid'", "customers.city IN ('Paris')"):
        assert held.allows(start + right) and held.complete(start + right)
    for wrong in ("orders.status = 'Paris'", "customers.city = 'paid'", "customers.city = 'Pariz'"):
        assert free.allows(start + wrong) and not held.allows(start + wrong)
    (made,) = task.examples(record(question="Which orders are from Atlantis?"))
    assert task.constraint(made).allows(start + "customers.city = 'Atlantis'"), "then there are none"


def test_a_query_can_be_tried(shop_settings: Settings, server: Server) -> None:
    task = SqlTask(shop_settings.model_copy(update={"try_queries": True}), server)
    (made,) = task.examples(record(question="Which paid orders are from Paris?"))
    tried, untried = task.constraint(made), SqlTask(shop_settings, server).constraint(made)
    assert isinstance(tried, Tries) and isinstance(untried, Tries)
    for query, works in (
        ("SELECT id FROM orders", True),
        ("SELECT id FROM orders WHERE id = true", False),
        ("SELECT id FROM", False),
        ("UPDATE orders SET id = 1", True),  # not tried
    ):
        assert tried.works(query) is works and untried.works(query)


def test_what_a_record_says_is_mentioned_needs_no_server() -> None:
    task = SqlTask(Settings(mentioned_values=4), environ={})
    given = record(database="any", schema="t(id)", mentioned="t.name = 'x'")
    assert next(task.examples(given)).messages[1].content == "Who?\nt.name = 'x'"
