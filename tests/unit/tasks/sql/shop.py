"""A small shop: every kind of column and key that the composer asks about, with the statements that create it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from tunesmith.tasks.sql.schema import Column, Schema, Table

SHOP = Schema(
    "shop",
    (
        Table(
            "customers",
            (
                Column("id", "integer", primary_key=True),
                Column("name", "text"),
                Column("city", "text"),
                Column("joined_on", "date"),
                Column("is_vip", "boolean"),
            ),
        ),
        Table(
            "products",
            (
                Column("id", "integer", primary_key=True),
                Column("title", "text"),
                Column("category", "text"),
                Column("unit_price", "numeric(10,2)"),
                Column("stock", "integer"),
                Column("notes", "text"),
            ),
        ),
        Table(
            "orders",
            (
                Column("id", "integer", primary_key=True),
                Column("customer_id", "integer", references=("customers", "id")),
                Column("status", "text"),
                Column("ordered_at", "timestamp without time zone"),
                Column("shipped_on", "date"),
                Column("paid_on", "date"),
                Column("total", "numeric"),
            ),
        ),
        Table(
            "order_items",
            (
                Column("id", "integer", primary_key=True),
                Column("order_id", "integer", references=("orders", "id")),
                Column("product_id", "integer", references=("products", "id")),
                Column("quantity", "integer"),
                Column("unit_price", "numeric"),
            ),
        ),
        Table(
            "stores",
            (Column("id", "integer", primary_key=True), Column("name", "text"), Column("opened_on", "date")),
        ),
        Table(
            "employees",
            (
                Column("id", "integer", primary_key=True),
                Column("name", "text"),
                Column("store_id", "integer", references=("stores", "id")),
                Column("manager_id", "integer", references=("employees", "id")),
                Column("salary", "integer"),
                Column("hired_on", "date"),
                Column("shift_minutes", "integer"),
            ),
        ),
    ),
)

VALUES: dict[tuple[str, str], Sequence[Any]] = {
    ("customers", "name"): ["Anna Weiss", "Bo Li", "Pat O'Neil"],
    ("customers", "city"): ["Lyon", "New York", "Oslo", "Paris"],
    ("customers", "joined_on"): [dt.date(2021, 5, 2), dt.date(2022, 1, 2)],
    ("customers", "is_vip"): [False, True],
    ("products", "title"): ["Brisk Lamp", "Tarn Chair"],
    ("products", "category"): ["furniture", "garden", "lighting"],
    ("products", "unit_price"): [Decimal("12.50"), Decimal("99.00")],
    ("products", "stock"): [4, 120],
    ("products", "notes"): ["fragile, ship flat", "sold in pairs"],
    ("orders", "status"): ["cancelled", "no_show", "open", "paid"],
    ("orders", "ordered_at"): [dt.datetime(2023, 7, 1, 9), dt.datetime(2024, 3, 5, 17)],
    ("orders", "shipped_on"): [dt.date(2023, 7, 4), dt.date(2024, 3, 9)],
    ("orders", "paid_on"): [dt.date(2023, 7, 2)],
    ("orders", "total"): [Decimal("12.5"), Decimal("100"), Decimal("2300")],
    ("order_items", "quantity"): [1, 2, 3],
    ("order_items", "unit_price"): [Decimal("3.5"), Decimal("12.5")],
    ("stores", "name"): ["Harbour", "Old Mill"],
    ("stores", "opened_on"): [dt.date(2011, 3, 1), dt.date(2019, 9, 9)],
    ("employees", "name"): ["Ana Sol", "Rui Vale"],
    ("employees", "salary"): [3000, 41000],
    ("employees", "hired_on"): [dt.date(2020, 5, 5), dt.date(2023, 2, 1)],
    ("employees", "shift_minutes"): [240, 480],
}


def values(table: str, column: str) -> Sequence[Any]:
    """Distinct values of a column of the shop."""
    return VALUES.get((table, column), ())


SQL = """
CREATE TABLE customers (id integer PRIMARY KEY, name text, city text, joined_on date, is_vip boolean);
CREATE TABLE products (id integer PRIMARY KEY, title text, category text, unit_price numeric(10,2), stock integer,
  notes text);
CREATE TABLE orders (id integer PRIMARY KEY, customer_id integer REFERENCES customers (id), status text,
  ordered_at timestamp, shipped_on date, paid_on date, total numeric);
CREATE TABLE order_items (id integer PRIMARY KEY, order_id integer REFERENCES orders (id),
  product_id integer REFERENCES products (id), quantity integer, unit_price numeric);
CREATE TABLE stores (id integer PRIMARY KEY, name text, opened_on date);
CREATE TABLE employees (id integer PRIMARY KEY, name text, store_id integer REFERENCES stores (id),
  manager_id integer REFERENCES employees (id), salary integer, hired_on date, shift_minutes integer);
INSERT INTO customers VALUES (1, 'Anna Weiss', 'Lyon', '2021-05-02', true), (2, 'Bo Li', 'Oslo', '2022-01-02', false),
  (3, 'Pat O''Neil', 'New York', '2022-01-02', false), (4, 'Ida Holm', 'Paris', NULL, true);
INSERT INTO products VALUES (1, 'Brisk Lamp', 'lighting', 12.50, 120, 'fragile, ship flat'),
  (2, 'Tarn Chair', 'furniture', 99.00, 4, 'sold in pairs'), (3, 'Moor Bench', 'garden', 45.00, 9, NULL);
INSERT INTO orders VALUES (1, 1, 'paid', '2023-07-01 09:00', '2023-07-04', '2023-07-02', 12.5),
  (2, 1, 'open', '2024-03-05 17:00', '2024-03-09', NULL, 100),
  (3, 2, 'cancelled', '2024-03-05 17:30', NULL, NULL, 2300),
  (4, 3, 'no_show', '2023-07-01 10:00', NULL, NULL, 80);
INSERT INTO order_items VALUES (1, 1, 1, 1, 12.5), (2, 2, 2, 1, 99), (3, 2, 1, 2, 12.5), (4, 3, 2, 3, 99),
  (5, 4, 3, 1, 3.5);
INSERT INTO stores VALUES (1, 'Harbour', '2011-03-01'), (2, 'Old Mill', '2019-09-09');
INSERT INTO employees VALUES (1, 'Ana Sol', 1, NULL, 41000, '2020-05-05', 480),
  (2, 'Rui Vale', 1, 1, 3000, '2023-02-01', 240), (3, 'Eli Vann', 2, 1, 3100, '2023-02-02', 300);
"""
