from __future__ import annotations

from tunesmith.tasks.sql.prune import estimate_tokens, schema_text
from tunesmith.tasks.sql.schema import Column, Schema, Table, quote, render_schema, render_table

from .shop import SHOP


def test_a_schema_that_fits_is_shown_whole_and_the_same_for_every_question():
    texts = {schema_text(SHOP, q, "compact", 900) for q in ("How many orders?", "Who earns most?")}
    assert texts == {render_schema(SHOP, "compact")}


def test_over_the_budget_the_asked_tables_and_what_joins_them_are_kept():
    text = schema_text(SHOP, "How many products did customers in Lyon order?", "compact", 110)
    assert estimate_tokens(text) <= 110
    assert "customers(" in text
    assert "products(" in text or "orders(" in text
    assert "employees(" not in text


def test_the_order_of_tables_does_not_depend_on_relevance():
    text = schema_text(SHOP, "salary of employees and stock of products", "compact", 90)
    order = [name for name in ("customers", "products", "orders", "stores", "employees") if f"{name}(" in text]
    assert order == sorted(order, key=text.index)


def test_a_budget_too_small_for_any_table_still_shows_the_likeliest():
    text = schema_text(SHOP, "average salary of the employees", "compact", 1)
    assert text.startswith("employees(")
    assert "\n" not in text


def test_synonyms_find_their_table():
    assert schema_text(SHOP, "how many clients do we have", "compact", 30).startswith("customers(")


def test_names_that_sql_needs_quoted_are_quoted():
    assert quote("order") == '"order"'
    assert quote("Unit Price") == '"Unit Price"'
    assert quote('a"b') == '"a""b"'
    assert quote("plain_1") == "plain_1"
    assert quote("1st") == '"1st"'


def test_both_styles_show_types_keys_comments_and_values():
    table = Table(
        "order lines",
        (
            Column("id", "integer", primary_key=True),
            Column("order_id", "integer", references=("orders", "id"), comment="where it\nbelongs"),
            Column("kind", "character varying(20)", values=("new", "it's old")),
        ),
        schema="sales",
        comment="one per article",
    )
    assert render_table(table, "compact") == (
        "sales.\"order lines\"(id int pk, order_id int -> orders.id, kind text: 'new', 'it''s old')"
    )
    assert render_table(table, "ddl") == (
        'CREATE TABLE sales."order lines" ( -- one per article\n'
        "  id integer PRIMARY KEY,\n"
        "  order_id integer REFERENCES orders(id), -- where it belongs\n"
        "  kind character varying(20) -- 'new', 'it''s old'\n"
        ");"
    )


def test_kinds_of_columns_follow_their_types():
    kinds = {
        t: Column("c", t).kind
        for t in ("numeric(10,2)", "varchar", "date", "timestamp with time zone", "int[]", "uuid")
    }
    assert kinds == {
        "numeric(10,2)": "number", "varchar": "text", "date": "date", "timestamp with time zone": "time",
        "int[]": "other", "uuid": "other",
    }  # fmt: skip


def test_a_schema_knows_its_tables():
    assert Schema("s", SHOP.tables).table("orders").column("total").type == "numeric"
