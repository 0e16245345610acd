"""What training may have seen of a test set is found, shown, and stopped where a test set claims otherwise."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.schema import Leaks, Source
from tunesmith.data.leaks import Held, against, gate, held, leaks, policy_of
from tunesmith.data.similar import Index, jaccard, plain, shingles
from tunesmith.errors import CheckFailed
from tunesmith.types import Example, Message

ROPE = "A rope of 84 metres is cut into pieces of 7 metres. How many pieces are there in the end?"


def example(question: str, answer: str = "12", at: int = 1, **meta: Any) -> Example:
    turns = (Message("system", "Solve."), Message("user", question), Message("assistant", answer, train=True))
    return Example(f"e{at}", turns, target=answer, meta=meta, place=f"train.jsonl:{at}")


def kinds(training: list[Example], tests: list[Example], **settings: Any) -> list[str]:
    return [pair.kind for pair in leaks(training, held("mine", tests), Leaks(**settings))]


@pytest.mark.parametrize(
    ("trained", "kind"),
    [
        (ROPE, ["same question"]),
        (f"  {ROPE.upper().replace(',', ';').rstrip('?')} ", ["same question"]),
        (ROPE.replace("there in the end", "there at the end"), ["near duplicate"]),
        (f"Read this carefully. {ROPE} Write the answer as a number, and explain every step you take.", ["contained"]),
        (ROPE.replace("84", "91"), []),  # the same template with another answer is another question
        ("A shop sells 84 metres of rope at 7 dollars each. What does it earn?", []),
        ("", []),
    ],
)  # fmt: skip
def test_a_question_is_recognised_as_far_as_it_is_the_same(trained: str, kind: list[str]) -> None:
    assert kinds([example(trained, "13" if "91" in trained else "12")], [example(ROPE)]) == kind


def test_a_template_with_the_same_answer_is_a_near_duplicate() -> None:
    other = ROPE.replace("A rope of 84", "A cord of 48").replace("of 7", "of 4")
    assert kinds([example(other)], [example(ROPE)], similarity=0.6) == ["near duplicate"]
    assert kinds([example(other, "13")], [example(ROPE)], similarity=0.6) == []


def test_stated_facts_and_tool_calls_decide_whether_two_requests_are_the_same() -> None:
    asked = "can I pick up the {} on Sunday, or are you closed then?"
    says = "We are closed. Please come for the {} on another day."

    def stating(item: str, at: int = 1) -> Example:
        return example(asked.format(item), says.format(item), at, checks={"include": ["closed", item]})

    assert kinds([stating("shelf")], [stating("lamp")]) == []
    again = example(asked.format("lamps"), "Closed, the lamp waits.", checks={"include": ["closed", "lamp"]})
    assert kinds([again], [stating("lamp")]) == ["near duplicate"]
    call = '{"name": "check_stock", "arguments": {"item": "%s", "count": 3}}'
    one, other = (
        example(f"I need 3 of your large garden {item}, are they in stock?", call % item) for item in ("shelf", "chair")
    )
    assert kinds([one], [other]) == []


def test_the_numbers_of_a_contained_question_must_all_be_there_as_often() -> None:
    bags = "buys {} bags of 4 flowers and 3 single ones. How many flowers is that in all?"
    assert kinds([example("David " + bags.format(2), "11")], [example("Carla " + bags.format(3), "15")]) == []


def test_a_query_decides_whether_two_questions_to_a_database_are_the_same() -> None:
    asked = "How many customers live in the town of Hải Phòng at the moment?"
    sql = "SELECT count(*) FROM customers WHERE town = 'Hải Phòng'"
    test = [example(asked, sql, database="shop")]
    assert kinds(
        [example(asked.replace("at the moment", "right now"), sql, database="shop")], test, similarity=0.6
    ) == ["near duplicate"]
    other = example(asked.replace("Phòng", "Dương"), sql.replace("Phòng", "Dương"), database="shop")
    assert kinds([other], test, similarity=0.6) == []
    assert kinds([example(asked, sql, database="bank")], test) == []


def test_a_skeleton_or_a_database_counts_where_a_test_set_claims_it_is_new() -> None:
    test = [example("Who is in Huế?", "SELECT name FROM people WHERE town = 'Huế'", database="d")]
    training = [example("List the folk of Vinh", "select name  from people where town = 'Vinh'", database="d")]
    assert kinds(training, test) == []
    assert kinds(training, test, unseen_skeletons=["mine"]) == ["same skeleton"]
    assert kinds(training, test, unseen_databases=["mine"]) == ["same database"]
    assert kinds(training, test, unseen_skeletons=["another"]) == []


def test_a_broken_claim_stops_with_the_offending_pairs_shown() -> None:
    test = [example("Who is in Huế?", "SELECT name FROM people WHERE town = 'Huế'", at=9, database="d")]
    training = [
        example(f"Folk of {t}", f"SELECT name FROM people WHERE town = '{t}'", i, database="d")
        for i, t in enumerate("ABCDEFGH", 1)
    ]
    settings = Leaks(unseen_skeletons=["mine"], shown=2)
    with pytest.raises(CheckFailed) as error:
        gate(leaks(training, held("mine", test), settings), settings)
    text = str(error.value)
    assert "8 training rows leak (same skeleton, mine)" in text and "and 6 more" in text
    assert "train.jsonl:1" in text and "train.jsonl:9" in text and "town = 'B'" in text and "'C'" not in text


def test_a_file_of_ones_own_is_held_against_training(tmp_path: Path) -> None:
    rows = [
        {"problem": ROPE},
        {"messages": [{"role": "user", "content": "Which of the rivers of Gaul is the longest of them all?"}]},
        {"whatever": "Name the author of the letters that were found under the floor of the mill in May."},
        {"n": 3},
    ]
    (tmp_path / "own.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n{broken\n", encoding="utf-8")
    settings = Leaks(against=[Source(path=str(tmp_path / "own.jsonl"))])
    questions = against(settings, 10_000)
    assert len(questions) == 4
    training = [
        example(ROPE, database="d"),
        example("Which of the rivers of Gaul is the longest of them?", "Loire"),
        example("name the author of the letters that were found under the floor of the mill in may"),
        example("Something else"),
    ]
    pairs = leaks(training, questions, settings)
    assert [pair.kind for pair in pairs] == ["same question", "near duplicate", "same question"]
    assert [pair.held_place for pair in pairs] == [f"{tmp_path}/own.jsonl:{at}" for at in (1, 2, 3)]
    assert {policy_of(pair, settings) for pair in pairs} == {"error"}
    with pytest.raises(CheckFailed, match="own.jsonl"):
        gate(pairs, settings)
    kept = settings.model_copy(update={"contaminated": "drop"})
    assert all("left out" in finding.remedy for finding in gate(pairs, kept))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.text(max_size=80), st.text(max_size=80))
def test_likeness_is_symmetric_and_that_of_a_text_with_itself_is_whole(one: str, other: str) -> None:
    a, b = shingles(one), shingles(other)
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert jaccard(a, a) == (1.0 if plain(one) else 0.0)


def test_banding_finds_what_comparing_each_with_each_finds() -> None:
    rng = random.Random(4)
    words = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(300)]
    texts = [" ".join(rng.choices(words, k=14)) for _ in range(150)]
    texts += [" ".join(w if rng.random() < 0.95 else rng.choice(words) for w in text.split()) for text in texts]
    grams = [shingles(text) for text in texts]
    every = {(i, j) for i in range(300) for j in range(300) if jaccard(grams[i], grams[j]) >= 0.8}
    index = Index(texts)
    found = {(i, j) for i, text in enumerate(texts) for j, _ in index.nearest(text, 0.8)}
    assert found == every and len(every) > 350


def test_what_is_held_out_of_a_chat_is_the_users_turns() -> None:
    turns = (
        Message("system", "s"),
        Message("user", "first"),
        Message("assistant", "a"),
        Message("user", "then"),
        Message("assistant", "b"),
    )
    assert held("chat", [Example("e", turns, place="p")]) == [Held("chat", "p", "first\nthen")]
