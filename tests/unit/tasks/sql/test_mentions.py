"""Words of a question find the values they speak of, and the columns that hold them."""

from __future__ import annotations

import pytest

from tunesmith.tasks.sql.mentions import Mentions, mention_text, with_mentions

VALUES = [
    ("pets", "species", "dog"),
    ("pets", "name", "Max"),
    ("owners", "city", "Cork"),
    ("clinics", "city", "Cork"),
    ("clinics", "name", "Three Bridges Vets"),
    ("clinics", "name", "Cork Pet Hospital"),
    ("appointments", "status", "no_show"),
    ("suppliers", "country", "Ireland"),
    ("owners", "name", "Orla O'Brien"),
    ("invoices", "status", "all"),
    ("notes", "code", "12"),
    *[(f"t{i}", "flag", "urgent") for i in range(6)],
]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("How many dogs are there?", "pets.species = 'dog'"),
        ("how many no-shows did we have", "appointments.status = 'no_show'"),
        ("Who lives in CORK?", "owners.city = 'Cork', clinics.city = 'Cork'"),
        ("vets at Cork Pet Hospital", "clinics.name = 'Cork Pet Hospital'"),
        ("vets at Three Bridges", "clinics.name = 'Three Bridges Vets'"),
        ("drugs from Irish suppliers", "suppliers.country = 'Ireland'"),
        ("When did Orla O'Brien join?", "owners.name = 'Orla O''Brien'"),
        (
            "Max and the dogs of Cork",
            "pets.name = 'Max', pets.species = 'dog', owners.city = 'Cork', clinics.city = 'Cork'",
        ),
        ("Give me all 12 of them", ""),
        ("urgent ones", ""),
        ("", ""),
    ],
)
def test_what_a_question_mentions_is_found(question: str, text: str) -> None:
    assert mention_text(Mentions(VALUES).find(question, 6)) == text


def test_a_value_mentioned_twice_is_named_once_and_no_more_than_asked_for() -> None:
    mentions = Mentions(VALUES)
    assert len(mentions.find("dogs, dogs and dogs", 6)) == 1
    assert len(mentions.find("Max and the dogs of Cork", 2)) == 2


def test_a_name_that_sql_must_quote_is_quoted() -> None:
    assert mention_text(Mentions([("pets", "Kind", "cat")]).find("cats", 3)) == "pets.\"Kind\" = 'cat'"


def test_the_question_stays_as_it_is_where_nothing_is_mentioned() -> None:
    assert with_mentions("How many?", "") == "How many?"
    assert with_mentions("How many dogs?", "pets.species = 'dog'") == "How many dogs?\npets.species = 'dog'"
