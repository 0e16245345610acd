from __future__ import annotations

import pytest

from tunesmith.tasks.sql.order import own_order, shaken, top_order, uncut


@pytest.mark.parametrize(
    ("sql", "open_"),
    [
        ("SELECT a FROM t ORDER BY b", None),
        ("SELECT a FROM t ORDER BY b LIMIT 3", "ORDER BY b, RANDOM()"),
        ("SELECT a FROM t LIMIT 3", "ORDER BY RANDOM()"),
        ("SELECT a FROM t WHERE b = (SELECT b FROM s ORDER BY c LIMIT 1)", "ORDER BY c, RANDOM()"),
        ("SELECT DISTINCT a, b FROM t ORDER BY a LIMIT 1", "ORDER BY a, 2 DESC"),
        ("SELECT DISTINCT ON (a) a, b FROM t ORDER BY a", "ORDER BY a, RANDOM()"),
        ("SELECT row_number() OVER (ORDER BY a) FROM t", "ORDER BY a, RANDOM()"),
        ("SELECT rank() OVER (ORDER BY a) FROM t", None),
        ("SELECT sum(a) OVER (ORDER BY b ROWS UNBOUNDED PRECEDING) FROM t", "ORDER BY b, RANDOM()"),
        ("SELECT string_agg(a, ',') FROM t", "ORDER BY RANDOM()"),
        ("SELECT array_agg(a ORDER BY b) FROM t", "ORDER BY b, RANDOM()"),
        ("SELECT array_agg(DISTINCT a) FROM t", None),
    ],
)
def test_what_a_query_leaves_open_is_decided_by_chance(sql: str, open_: str | None) -> None:
    found = shaken(sql)
    assert (found is None) == (open_ is None)
    assert open_ is None or open_ in str(found)


def test_the_limit_at_the_top_can_be_left_as_it_is() -> None:
    assert shaken("SELECT a FROM t ORDER BY b LIMIT 3", top=False) is None
    assert shaken("SELECT a FROM (SELECT a FROM t LIMIT 2) s ORDER BY a LIMIT 1", top=False) is not None


def test_a_key_that_changes_at_every_call_orders_nothing() -> None:
    order = top_order("SELECT a FROM t ORDER BY random(), a")
    assert order is not None
    assert order.keys == ()


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT * FROM (SELECT a FROM t ORDER BY b) q", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b) q WHERE a > 1", True),
        ("WITH q AS (SELECT a FROM t ORDER BY b) SELECT * FROM q", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY b) q GROUP BY a", False),
        ("SELECT DISTINCT a FROM (SELECT a FROM t ORDER BY b) q", False),
        ("SELECT q.a FROM (SELECT a FROM t ORDER BY b) q JOIN s ON s.a = q.a", False),
        ("SELECT a FROM t", False),
    ],
)
def test_rows_keep_the_order_of_a_subquery_only_where_they_are_handed_on(sql: str, ordered: bool) -> None:
    assert (own_order(sql) is not None) is ordered


def test_a_cut_is_found_with_the_rows_around_it() -> None:
    assert uncut("SELECT a FROM t") is None
    found = uncut("SELECT a FROM t ORDER BY b LIMIT 3 OFFSET 2")
    assert found is not None
    wider, taken, offset = found
    assert (taken, offset) == (3, 2)
    assert "order_key_0" in wider
    assert "OFFSET" not in wider
