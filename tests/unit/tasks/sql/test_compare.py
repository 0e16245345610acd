"""PostgreSQL's timestamps without zone are naive datetimes."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.tasks.sql.compare import equal
from tunesmith.tasks.sql.guard import Result
from tunesmith.tasks.sql.order import top_order
from tunesmith.tasks.sql.structure import exact_match, is_same_text, where_they_differ

NAN = float("nan")
UTC = dt.UTC
PLUS_TWO = dt.timezone(dt.timedelta(hours=2))


def result(*rows: tuple[Any, ...], width: int | None = None) -> Result:
    columns = tuple(f"c{i}" for i in range(width if width is not None else len(rows[0])))
    return Result(columns, rows)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True),
        (1, Decimal("1.00"), True),
        (0.1, Decimal("0.1"), True),
        (Decimal("3.3333333333333333"), 3.3333333333333335, True),
        (100.0, 100.00005, True),
        (100.0, 100.02, False),
        (5, -5, False),
        (Decimal("0.5"), Decimal("-0.5"), False),
        (10_000_000, 10_000_001, False),  # whole numbers have no tolerance
        (0.0, 1e-12, True),
        (0, None, False),
        (NAN, NAN, True),
        (NAN, Decimal("NaN"), True),
        (NAN, 1.0, False),
        (float("inf"), float("inf"), True),
        (float("inf"), 1e300, False),
        (None, None, True),
        (None, "", False),
        (True, True, True),
        (True, 1, False),
        ("1", 1, False),
        ("a", "A", False),
        ("a", "a ", False),
        (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), True),
        (dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 1), False),
        (dt.datetime(2024, 1, 1, 10, tzinfo=UTC), dt.datetime(2024, 1, 1, 12, tzinfo=PLUS_TWO), True),
        (dt.datetime(2024, 1, 1, 10, tzinfo=UTC), dt.datetime(2024, 1, 1, 10), True),
        (dt.date(2024, 1, 1), "2024-01-01", False),
        (dt.timedelta(days=1), dt.timedelta(hours=24), True),
        ([1, 2], [1, 2], True),
        ([1, 2], [2, 1], False),
        ([1.0, None], [Decimal("1"), None], True),
        ([0.1], [0.1 + 1e-12], True),
        ([[1], [2]], [[1], [2]], True),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, True),
        ({"a": 1.5}, {"a": 1.5 + 1e-12}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        (b"\x00\x01", memoryview(b"\x00\x01"), True),
        (b"\x00", b"\x01", False),
        (uuid.UUID(int=1), uuid.UUID(int=1), True),
        (uuid.UUID(int=1), str(uuid.UUID(int=1)), True),
    ],
)
def test_values_are_compared_by_what_they_mean(a: Any, b: Any, same: bool) -> None:
    assert equal(result((a,)), result((b,)), ordered=False).equal is same
    assert equal(result((b,)), result((a,)), ordered=True).equal is same


@pytest.mark.parametrize(
    ("gold", "predicted", "failure"),
    [
        (result((1,), (2,)), result((2,), (1,)), ""),
        (result((1,), (1,), (2,)), result((1,), (2,), (2,)), "wrong_rows"),
        (result((1,)), result((1,), (1,)), "wrong_rows"),  # peers accept every row twice
        (result((5,)), result(width=1), "wrong_rows"),  # peers accept an empty answer
        (result(width=1), result((5,)), "wrong_rows"),
        (result((1, "a")), result(("a", 1)), ""),
        (result((1, "a"), (2, "b")), result(("b", 1), ("a", 2)), "wrong_rows"),
        (result((1, "a")), result((1, "a", None)), "wrong_columns"),
        (result((1, "a")), result((1,)), "wrong_columns"),
        (result((1, 2, 3)), result((3, 1, 2)), ""),
        (result((1, 1)), result((1, 2)), "wrong_rows"),
        (result((1, 2)), result((1, 1)), "wrong_rows"),
        (result((0.1, "x"), (0.2, "y")), result((0.2 + 1e-15, "y"), (0.1 + 1e-15, "x")), ""),
    ],
)
def test_rows_are_a_multiset_and_columns_may_change_places(gold: Result, predicted: Result, failure: str) -> None:
    verdict = equal(gold, predicted, ordered=False)
    assert verdict.failure == failure
    assert verdict.equal is (failure == "")
    assert verdict.reason


def test_order_counts_where_it_is_asked_for_and_ties_may_change_places() -> None:
    gold = result(("a", 3), ("b", 2), ("c", 2), ("d", 1))
    swapped_tie = result(("a", 3), ("c", 2), ("b", 2), ("d", 1))
    turned = result(("d", 1), ("c", 2), ("b", 2), ("a", 3))
    ties = [(3,), (2,), (2,), (1,)]
    assert equal(gold, swapped_tie, ordered=True, ties=ties).equal
    assert equal(gold, swapped_tie, ordered=True).failure == "wrong_order"
    assert equal(gold, turned, ordered=True, ties=ties).failure == "wrong_order"
    assert equal(gold, turned, ordered=False).equal
    columns_moved = Result(("x", "y"), tuple((b, a) for a, b in swapped_tie.rows))
    assert equal(gold, columns_moved, ordered=True, ties=ties).equal


def test_two_empty_results_are_equal_and_the_verdict_says_so() -> None:
    verdict = equal(result(width=2), result(width=2), ordered=True)
    assert verdict.equal
    assert verdict.both_empty
    assert not equal(result(width=2), result(width=1), ordered=False).equal


def test_wide_results_of_equal_columns_are_judged_in_bounded_time() -> None:
    rows = tuple(tuple((i * 7 + j) % 3 for j in range(30)) for i in range(50))
    other = (*rows[1:], tuple(reversed(rows[0])))
    assert equal(result(*rows), result(*other), ordered=False).equal in (True, False)


cells = st.one_of(
    st.none(), st.integers(-3, 3), st.sampled_from(["a", "b"]), st.decimals(-2, 2, places=1), st.booleans()
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.tuples(*[cells] * width), min_size=1, max_size=6).map(lambda rows: (width, rows))
)


@given(tables, st.randoms(use_true_random=False))
def test_shuffled_rows_and_columns_are_the_same_result(table: tuple[int, list[tuple[Any, ...]]], rng: Any) -> None:
    width, rows = table
    places = list(range(width))
    rng.shuffle(places)
    moved = [tuple(row[i] for i in places) for row in rows]
    assert equal(result(*rows), result(*moved), ordered=True).equal
    rng.shuffle(moved)
    assert equal(result(*rows), result(*moved), ordered=False).equal


@given(tables)
def test_a_row_more_is_another_result(table: tuple[int, list[tuple[Any, ...]]]) -> None:
    _, rows = table
    assert not equal(result(*rows), result(*rows, rows[0]), ordered=False).equal


@pytest.mark.parametrize(
    ("sql", "keys"),
    [
        ("SELECT a FROM t", None),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a) s", None),
        ("SELECT a, row_number() OVER (ORDER BY a) FROM t", None),
        ("SELECT string_agg(a, ',' ORDER BY a) FROM t", None),
        ("WITH s AS (SELECT a FROM t ORDER BY a) SELECT a FROM s", None),
        ("SELECT 'order by' FROM t", None),
        ("SELECT a, b FROM t ORDER BY b", (1,)),
        ("SELECT a, b FROM t ORDER BY 2 DESC, a", (1, 0)),
        ("SELECT a, count(*) AS n FROM t GROUP BY a ORDER BY n DESC", (1,)),
        ("SELECT a, count(*) FROM t GROUP BY a ORDER BY count(*) DESC", (1,)),
        ("SELECT DISTINCT t.a FROM t ORDER BY t.a", (0,)),
        ("SELECT date_trunc('month', d) AS MONTH FROM t ORDER BY month", (0,)),
        ("SELECT a FROM t ORDER BY b", (-1,)),
        ("SELECT a FROM t ORDER BY b, a, lower(c)", (-1, 0, -2)),
        ("SELECT * FROM t ORDER BY b", (-1,)),
        ("SELECT a FROM t UNION SELECT b FROM s ORDER BY 1", (0,)),
        ("(SELECT a FROM t ORDER BY a)", (0,)),
    ],
)
def test_only_an_order_at_the_top_counts_and_its_keys_are_found(sql: str, keys: tuple[int, ...] | None) -> None:
    order = top_order(sql)
    assert (order.keys if order else None) == keys


def test_keys_that_are_no_columns_are_appended_in_the_order_they_are_counted_from_the_end() -> None:
    order = top_order("SELECT a FROM t ORDER BY b, lower(c) LIMIT 3")
    assert order is not None
    assert order.keys == (-1, -2)
    columns = order.keyed_sql.split(" FROM ")[0]
    assert columns.index("LOWER(c)") < columns.index(", b AS") or columns.endswith("b AS order_key_1")
    assert order.keyed_sql.endswith("LIMIT 3")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("SELECT a FROM t", "select  A\nfrom T ;", True),
        ('SELECT "a" FROM "t"', "SELECT a FROM t", True),
        ('SELECT "A" FROM t', "SELECT a FROM t", False),
        ("SELECT a FROM t -- why", "SELECT a FROM t", True),
        ("SELECT COUNT(*) FROM t", "select count(*) from t", True),
        ("SELECT a FROM t WHERE b = 'X'", "SELECT a FROM t WHERE b = 'x'", False),
        ("SELECT a FROM t WHERE b = 1", "SELECT a FROM t WHERE b = 2", False),
        ("SELECT a b FROM t", "SELECT a AS b FROM t", True),
        ("not sql at 'ALL'  (", "NOT SQL  at 'ALL' (", True),
        ("not sql at 'ALL' (", "not sql at 'all' (", False),
    ],
)
def test_exact_match_ignores_only_what_changes_nothing(a: str, b: str, same: bool) -> None:
    assert exact_match(a, b) is same


@pytest.mark.parametrize(
    ("predicted", "same"),
    [
        ('select  CAST("a" AS int)\nFROM t;', True),
        ("SELECT CAST(a int) FROM t", False),
        ("SELECT CAST(a AS int) FROM t -- so", False),
        ("SELECT CAST(a AS int) FROM t /* \0 */", False),
        ("SELECT CAST(a AS int) FROM t \ud800", False),
        ("SELECT CAST(A AS INT) FROM T", True),
    ],
)
def test_an_answer_that_is_the_right_query_need_not_be_run(predicted: str, same: bool) -> None:
    assert is_same_text("SELECT CAST(a AS int) FROM t", predicted) is same
    assert not is_same_text('SELECT "user" FROM t', "SELECT user FROM t")


@pytest.mark.parametrize(
    ("predicted", "failure"),
    [
        ("SELECT count(*) FROM u WHERE a = 1", "wrong_table"),
        ("SELECT max(a) FROM t WHERE a = 1", "wrong_aggregate"),
        ("SELECT count(DISTINCT a) FROM t WHERE a = 1", "wrong_aggregate"),
        ("SELECT count(*) FROM t JOIN t AS s ON s.a = t.b WHERE t.a = 1", "wrong_join"),
        ("SELECT count(*) FROM t WHERE a = 2", "wrong_literal"),
        ("SELECT count(*) FROM t WHERE a > 1", "wrong_filter"),
        ("SELECT count(*) FROM t WHERE a = 1 GROUP BY b", "wrong_grouping"),
        ("SELECT DISTINCT count(*) FROM t WHERE a = 1", "wrong_distinct"),
        ("SELECT count(*) FROM t WHERE a = 1 LIMIT 0", "wrong_limit"),
        ("SELECT count(*) FROM t", "wrong_filter"),
        ("SELECT count(*) + 1 FROM t WHERE a = 1", "wrong_rows"),
        ("SELECT (((", "wrong_rows"),
    ],
)
def test_a_wrong_result_is_classed_by_the_first_part_that_differs(predicted: str, failure: str) -> None:
    assert where_they_differ("SELECT count(*) FROM t WHERE a = 1", predicted) == failure
