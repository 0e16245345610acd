from __future__ import annotations

import datetime as dt

import pytest

from tunesmith.tasks.sql.clock import freeze

AT = dt.datetime(2024, 3, 5, 12, 30)


@pytest.mark.parametrize(
    ("sql", "frozen"),
    [
        ("SELECT current_date - INTERVAL '30 days'", "SELECT DATE '2024-03-05' - INTERVAL '30 days'"),
        ("SELECT NOW ( )", "SELECT TIMESTAMP WITH TIME ZONE '2024-03-05 12:30:00+00'  "),
        ("SELECT CURRENT_TIMESTAMP(0)", "SELECT TIMESTAMP WITH TIME ZONE '2024-03-05 12:30:00+00'"),
        ("SELECT localtimestamp", "SELECT TIMESTAMP '2024-03-05 12:30:00'"),
        ("SELECT age(d), age(a, b)", "SELECT age(TIMESTAMP '2024-03-05', d), age(a, b)"),
        ("SELECT age(f(a, b))", "SELECT age(TIMESTAMP '2024-03-05', f(a, b))"),
        ("SELECT 'today'::date, date 'yesterday'", "SELECT '2024-03-05'::date, date '2024-03-04'"),
        ("SELECT CAST('now' AS timestamp)", "SELECT CAST('2024-03-05 12:30:00+00' AS timestamp)"),
    ],
)
def test_a_question_for_the_time_is_answered_by_the_fixed_moment(sql: str, frozen: str) -> None:
    assert freeze(sql, AT) == frozen


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT 'now()', \"now\" FROM t",
        "SELECT t.current_date AS current_date FROM t",
        "-- now()\nSELECT 1 /* current_date */",
        "SELECT $$ now() $$, x.now(), $a$ current_date $a$",
        "SELECT 'now' = word FROM t",
        "SELECT age FROM people WHERE age > 3",
        "SELECT know() FROM t",
    ],
)
def test_words_that_are_no_question_for_the_time_are_left_alone(sql: str) -> None:
    assert freeze(sql, AT) is sql
