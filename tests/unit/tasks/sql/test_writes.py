from __future__ import annotations

import psycopg
import pytest

from tunesmith.config.schema import SqlTask as Settings
from tunesmith.tasks.sql.embedded import Embedded
from tunesmith.tasks.sql.grade import SqlGrader
from tunesmith.tasks.sql.postgres import Server, open_server
from tunesmith.tasks.sql.writes import changes_rows

PAID = "UPDATE orders SET status = 'paid' WHERE status = 'open'"
STATE = psycopg.sql.SQL("SELECT count(*), count(*) FILTER (WHERE status = 'open') FROM orders")


@pytest.fixture(scope="module")
def grader(server: Server, shop_settings: Settings) -> SqlGrader:
    return SqlGrader(server, shop_settings)


@pytest.mark.parametrize(
    ("gold", "answer", "value", "failure"),
    [
        (PAID, "UPDATE orders o SET status = 'paid' WHERE o.status IN ('open')", 1.0, ""),
        (PAID, "UPDATE orders SET status = 'paid' WHERE id = 3", 0.0, "wrong_filter"),
        (PAID, "UPDATE orders SET status = 'paid', total = 0 WHERE status = 'open'", 0.0, "wrong_rows"),
        (PAID, "SELECT * FROM orders", 0.0, "wrong_filter"),
        (PAID, f"{PAID}; DROP TABLE orders", 0.0, "several_statements"),
        (PAID, "DROP TABLE orders", 0.0, "forbidden"),
        (PAID, "TRUNCATE orders", 0.0, "write_attempt"),
        (PAID, "COPY orders TO PROGRAM 'touch /tmp/tunesmith_hostile'", 0.0, "forbidden"),
        ("INSERT INTO depot.shelves VALUES (3, 'C')", "INSERT INTO shelves (label, id) SELECT 'C', 3", 1.0, ""),
        ("DELETE FROM orders WHERE id > 3 RETURNING id", "DELETE FROM orders WHERE id IN (4, 5) RETURNING id", 1.0, ""),
        ("DELETE FROM orders WHERE id > 3 RETURNING id", "DELETE FROM orders WHERE id > 3", 0.0, "wrong_columns"),
        ("DELETE FROM orders WHERE id > 99", "DELETE FROM orders WHERE id > 98", None, ""),
        ("UPDATE orders SET total = random()", "UPDATE orders SET total = random()", None, ""),
        ("UPDATE nowhere SET a = 1", PAID, None, ""),
    ],
)
def test_what_changes_rows_is_marked_by_what_it_leaves(
    grader: SqlGrader, server: Server, gold: str, answer: str, value: float | None, failure: str
) -> None:
    before = server.trusted("shop", STATE)
    score = grader.grade("shop", [gold], answer)
    assert score.value == value, score
    assert score.failure == failure
    assert server.trusted("shop", STATE) == before, "the database itself was written to"


def test_a_question_does_not_change_rows() -> None:
    assert changes_rows("WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone")
    assert not changes_rows("SELECT 'DELETE FROM t' FROM t")
    assert not changes_rows("not sql at all (")


def test_nothing_is_written_to_a_server_of_the_users_own(server: Server) -> None:
    server.run("shop", "SELECT 1")
    home = server._home._server
    assert isinstance(home, Embedded)
    settings = Settings(server="env:MINE", databases={"shop": None})
    with open_server(settings, {"MINE": home.url("tunesmith_gold", "shop")}) as mine:
        score = SqlGrader(mine, settings).grade("shop", [PAID], PAID)
    assert score.value is None
    assert "nothing is written" in score.note
