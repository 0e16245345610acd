"""Two queries with one plan need no other rows; where a plan does not say everything, it proves nothing."""

from __future__ import annotations

import pytest

from tunesmith.tasks.sql.grade import _Shipped
from tunesmith.tasks.sql.plans import have_same_plan
from tunesmith.tasks.sql.postgres import Server

PAID = "SELECT customer_id, sum(total) AS spent FROM orders WHERE status = 'paid' GROUP BY customer_id"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (PAID, PAID.replace("spent", "everything")),
        (PAID, f"SELECT * FROM ({PAID}) q"),
        (PAID, PAID.replace("FROM orders", "FROM orders AS o").replace("status =", "o.status =")),
        (PAID, f"WITH q AS ({PAID}) SELECT customer_id, spent FROM q"),
        (
            "SELECT id FROM orders WHERE total BETWEEN 10 AND 100",
            "SELECT id FROM orders WHERE total >= 10 AND total <= 100",
        ),
        ("SELECT count(DISTINCT status) FROM orders", 'SELECT count(DISTINCT status) AS "kinds" FROM orders'),
    ],
)
def test_what_postgres_reads_as_one_query_has_one_plan(server: Server, gold: str, answer: str) -> None:
    assert have_same_plan(_Shipped(server, "shop"), gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (PAID, PAID.replace("paid", "open")),
        (PAID, PAID.replace("sum", "max")),
        (PAID, PAID.replace("SELECT", "SELECT DISTINCT")),
        ("SELECT id FROM orders ORDER BY id", "SELECT id FROM orders ORDER BY id DESC"),
        # What a plan leaves out: the number of a LIMIT, the columns of a DISTINCT, the values of a VALUES.
        ("SELECT id FROM orders ORDER BY id LIMIT 1", "SELECT id FROM orders ORDER BY id LIMIT 2"),
        (
            "SELECT DISTINCT customer_id, total FROM orders ORDER BY customer_id, total",
            "SELECT DISTINCT ON (customer_id) customer_id, total FROM orders ORDER BY customer_id, total",
        ),
        (
            "SELECT id FROM orders WHERE status = 'a'",
            "SELECT * FROM (SELECT id FROM orders WHERE status = 'orders.a') q",
        ),
        ("SELECT * FROM (VALUES (1), (2)) v", "SELECT * FROM (VALUES (1), (3)) v"),
        ("SELECT id FROM orders WHERE random() < 0.5", "SELECT id FROM orders WHERE random() < 0.5"),
        ("SELECT id FROM orders", "SELECT id FROM nowhere"),
    ],
)
def test_another_query_and_one_whose_plan_does_not_say_all_are_not_the_same(
    server: Server, gold: str, answer: str
) -> None:
    assert not have_same_plan(_Shipped(server, "shop"), gold, answer)
