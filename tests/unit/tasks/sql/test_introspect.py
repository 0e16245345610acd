from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest

from tunesmith.tasks.sql.introspect import column_values, read_schema
from tunesmith.tasks.sql.postgres import Server
from tunesmith.tasks.sql.schema import render_schema


def test_tables_views_keys_types_and_comments_of_all_schemas_are_read(server: Server) -> None:
    schema = read_schema(server, "shop")
    assert [table.qualified for table in schema.tables] == ["big_orders", "customers", "orders", "depot.shelves"]
    orders = schema.table("orders")
    assert orders.comment == "What was bought"
    assert orders.rows == 5
    assert orders.column("id").primary_key
    assert not orders.column("id").nullable
    assert orders.column("customer_id").references == ("customers", "id")
    assert orders.column("total").type == "numeric(10,2)"
    assert orders.column("total").comment == "in euros"
    assert orders.column("placed_at").type == "timestamp without time zone"
    assert schema.table("big_orders").rows == 2
    assert schema.table("customers").column("mood").values == ("calm", "cross")


def test_no_row_data_is_read_unless_it_is_asked_for(server: Server) -> None:
    text = render_schema(read_schema(server, "shop"))
    assert "paid" not in text
    assert "Paris" not in text


def test_sampled_values_are_of_text_columns_whose_values_repeat_most_frequent_first(server: Server) -> None:
    schema = read_schema(server, "shop", sample_values=1)
    assert schema.table("orders").column("status").values == ("paid",)
    assert schema.table("customers").column("name").values == ()  # names of people, each once
    assert read_schema(server, "shop", 9).table("shelves").column("label").values == ("A", "B")  # a table of words


def test_values_are_distinct_typed_and_in_a_stable_order(server: Server) -> None:
    assert sorted(column_values(server, "shop", "orders", "total", 10)) == [
        Decimal("10.00"),
        Decimal("99.99"),
        Decimal("250.50"),
    ]
    days = column_values(server, "shop", "orders", "placed_at", 10)
    assert dt.datetime.fromisoformat("2024-02-06") in days
    assert len(days) == 4
    assert column_values(server, "shop", "orders", "placed_at", 2) == days[:2]
    assert sorted(column_values(server, "shop", "depot.shelves", "label", 5)) == ["A", "B"]
    assert sorted(column_values(server, "shop", "shelves", "label", 5)) == ["A", "B"]


def test_odd_names_composite_keys_and_partitions_are_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "odd.sql"
    path.write_text(
        'CREATE TABLE "Odd Table" ("Key A" int, "select" text, PRIMARY KEY ("Key A", "select"));\n'
        'CREATE TABLE child (a int, b text, FOREIGN KEY (a, b) REFERENCES "Odd Table" ("Key A", "select"));\n'
        "CREATE TABLE parts (d date, tags text[]) PARTITION BY RANGE (d);\n"
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');\n"
        "INSERT INTO \"Odd Table\" VALUES (1, 'it''s');\n"
    )
    server.load("odd", path)
    schema = read_schema(server, "odd", sample_values=3)
    assert [table.name for table in schema.tables] == ["Odd Table", "child", "parts"]
    child = schema.table("child")
    assert child.column("a").references == ("Odd Table", "Key A")
    assert child.column("b").references == ("Odd Table", "select")
    assert not any(column.primary_key for column in schema.table("Odd Table").columns)
    assert schema.table("parts").column("tags").type == "text[]"
    assert column_values(server, "odd", "Odd Table", "select", 3) == ["it's"]
    assert server.run("odd", 'SELECT "select" FROM "Odd Table"').rows == (("it's",),)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT sum(length(repeat('x', 1000000 + a)))::text AS word FROM generate_series(1, 1000000) a",
        "SELECT (1 / 0)::text AS word",
    ],
)
def test_a_view_that_is_slow_or_fails_is_left_empty_and_logged(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    path = tmp_path / "slow.sql"
    path.write_text(f"CREATE VIEW slow AS {query};")
    server.load("slow", path)
    assert column_values(server, "slow", "slow", "word", 3) == []
    assert "slow" in caplog.text
