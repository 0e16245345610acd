from __future__ import annotations

import random
import re
from collections import Counter

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st
from sqlglot import exp

from tunesmith.tasks.sql.compose import Composer, compose, phrasings, skeleton_of
from tunesmith.tasks.sql.compose.roles import Book, literal
from tunesmith.tasks.sql.compose.words import human, plural, roughen, say, singular, verb_of_date
from tunesmith.tasks.sql.schema import Column, Schema, Table

from .shop import SHOP, VALUES, values

DRAWN = 3000


@pytest.fixture(scope="module")
def drafts():
    composer, rng = Composer(SHOP, values), random.Random(3)
    found = [composer.draw(rng) for _ in range(DRAWN)]
    assert None not in found
    return found


def test_every_query_parses_as_postgresql(drafts):
    for draft in drafts:
        sqlglot.parse_one(draft.sql, read="postgres")


def test_no_grammar_is_left_in_a_question(drafts):
    for draft in drafts:
        assert not re.search(r"[\[\]|{}]|  |None", draft.question), draft.question
        assert draft.question == draft.question.strip()


def test_every_table_and_column_of_a_query_exists(drafts):
    tables = {table.name: {column.name for column in table.columns} for table in SHOP.tables}
    made = {"total", "place"}
    for draft in drafts:
        tree = sqlglot.parse_one(draft.sql, read="postgres")
        used = {table.name for table in tree.find_all(exp.Table)}
        assert used <= set(tables), draft.sql
        known = set().union(*(tables[name] for name in used)) | made
        assert {column.name for column in tree.find_all(exp.Column)} <= known, draft.sql


def test_every_join_follows_a_foreign_key(drafts):
    keys = {
        frozenset((f"{t.name}.{c.name}", f"{c.references[0]}.{c.references[1]}"))
        for t in SHOP.tables
        for c in t.columns
        if c.references
    }
    joins = 0
    for draft in drafts:
        if draft.kind == "among_themselves":
            continue
        for left, right in re.findall(r" ON (\w+\.\w+) = (\w+\.\w+)", draft.sql):
            joins += 1
            assert frozenset((left, right)) in keys, draft.sql
    assert joins > DRAWN / 4


def test_a_text_value_is_said_in_the_question_as_it_is_stored_or_as_people_bend_it(drafts):
    texts = {str(v) for (_, _), held in VALUES.items() for v in held if isinstance(v, str)}
    checked = 0
    for draft in drafts:
        for value in re.findall(r"(?:=|<>) '((?:[^']|'')*)'", draft.sql):
            value = value.replace("''", "'")
            if value in texts:
                checked += 1
                spoken = draft.question.lower().replace("-", " ").replace("_", " ")
                stem = value.lower().replace("_", " ").rstrip("s")
                assert stem in spoken or singular(stem) in spoken or stem.rstrip("y") in spoken, draft
    assert checked > DRAWN / 8


def test_many_kinds_of_question_come_up(drafts):
    kinds = Counter(draft.kind for draft in drafts)
    assert set(kinds) == set(Composer(SHOP, values).kinds)
    assert kinds.most_common(1)[0][1] < DRAWN / 6


def test_rows_with_the_same_name_are_not_merged(drafts):
    for draft in drafts:
        if "GROUP BY customers.name" in draft.sql:
            pytest.fail(draft.sql)


def test_unit_prices_are_averaged_and_never_added(drafts):
    assert not any(re.search(r"SUM\((\w+\.)?unit_price\)", draft.sql) for draft in drafts)


def test_a_time_without_a_verb_means_the_main_date_of_the_table():
    # `orders in 2024` could mean the day they were paid; it is only said of the first date.
    composer, rng = Composer(SHOP, values), random.Random(5)
    for _ in range(3000):
        draft = composer.draw(rng)
        assert draft is not None
        if re.fullmatch(r"How many orders (in|during|for) \d{4} (are there|do we have|exist)\?", draft.question):
            assert "ordered_at" in draft.sql, draft


def test_the_same_seed_draws_the_same_questions():
    def draw() -> list[str]:
        composer, rng = Composer(SHOP, values), random.Random(11)
        return [draft.question for draft in (composer.draw(rng, noise=0.5) for _ in range(50)) if draft]

    assert draw() == draw()


def test_phrasings_of_a_query_differ_and_keep_its_sql():
    composer, rng = Composer(SHOP, values), random.Random(2)
    query = next(q for q in (composer.query(rng) for _ in range(50)) if q and q.kind == "count_where")
    drafts = list(phrasings(query, rng, 5))
    assert len(drafts) == 5
    assert len({draft.question.lower() for draft in drafts}) == 5
    assert {draft.sql for draft in drafts} == {query.sql}


def test_a_table_that_nobody_can_ask_about_gives_nothing_rather_than_nonsense():
    blob = Schema("x", (Table("blobs", (Column("payload", "bytea"),)),))
    drafts = [compose(blob, lambda t, c: (), random.Random(seed)) for seed in range(30)]
    assert {draft.sql for draft in drafts if draft} <= {"SELECT COUNT(*) FROM blobs"}


def test_a_skeleton_masks_values_and_keeps_names():
    assert skeleton_of("SELECT a FROM t1 WHERE b = 'it''s 5' AND c > 2.5 LIMIT 3") == (
        "SELECT a FROM t1 WHERE b = ? AND c > ? LIMIT ?"
    )


def test_values_that_would_break_a_phrase_are_not_quoted():
    book = Book(SHOP, lambda table, column: ["fine", "a [b]", "x|y", "two  blanks", "", "line\nbreak", " led"])
    subject = book.subjects[0]
    assert subject.values(subject.table.column("city")) == ("fine",)


def test_literals_are_written_as_postgresql_reads_them():
    from datetime import date, datetime
    from decimal import Decimal

    assert [literal(v) for v in ("O'Neil", 3, 2.50, Decimal("12.50"), Decimal("1000"), True)] == [
        "'O''Neil'", "3", "2.5", "12.5", "1000", "true",
    ]  # fmt: skip
    assert literal(date(2024, 3, 5)) == literal(datetime(2024, 3, 5, 17)) == "'2024-03-05'"


@pytest.mark.parametrize(
    ("many", "one"),
    [("customers", "customer"), ("cities", "city"), ("boxes", "box"), ("people", "person"), ("branches", "branch"),
     ("addresses", "address"), ("order items", "order item"), ("series", "series"), ("keys", "key")],
)  # fmt: skip
def test_words_are_inflected(many, one):
    assert singular(many) == one
    assert plural(one) == many
    assert plural(many) == many


def test_identifiers_become_words():
    assert human("unit_price") == "unit price"
    assert human("custId") == "customer id"
    assert verb_of_date("hired_on") == "hired"
    assert verb_of_date("order_date") == "ordered"
    assert verb_of_date("valid_until") is None


@given(st.integers(0, 10_000), st.sampled_from(["How many orders are there?", "List the customers in Lyon"]))
def test_carelessness_never_empties_a_question_or_touches_a_value(seed, question):
    rough = roughen(question, random.Random(seed))
    assert rough.strip()
    assert ("Lyon" in question) == ("Lyon" in rough)


def test_a_choice_of_the_grammar_nests():
    said = {say("[a|b [c|d]] {x}", random.Random(seed), x="[kept|as is]") for seed in range(40)}
    assert said == {"a [kept|as is]", "b c [kept|as is]", "b d [kept|as is]"}
