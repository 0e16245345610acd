from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.forest import plant_forest
from tunesmith.types import IGNORE, Row, Tokens


def tokens_of(name: str, ids: list[int], trained: list[bool]) -> Tokens:
    array = np.array(ids, np.int32)
    return Tokens(name, array, np.where(trained, array, IGNORE).astype(np.int32))


def lettered(text: str) -> Tokens:
    """Lower-case letters are trained."""
    return tokens_of(text, [ord(letter) for letter in text], [letter.islower() for letter in text])


def walk(row: Row) -> list[tuple[list[int], list[int], list[int]]]:
    """For every example of a row: its ids, the ids its labels ask for, and where in it they are."""
    size = len(row.input_ids)
    starts = [0, *(i for i in range(1, size) if row.position[i] <= row.position[i - 1]), size]
    found = []
    for start, stop in zip(starts, starts[1:], strict=False):
        leaf = stop - 1
        path = [j for j in range(leaf + 1) if row.subtree_end[j] >= leaf]
        assert [int(row.position[j]) for j in path] == list(range(len(path)))
        own = [j for j in range(start, stop) if row.labels[j] != IGNORE]
        found.append(
            (
                [int(row.input_ids[j]) for j in path],
                [int(row.labels[j]) for j in own],
                [int(row.position[j]) + 1 for j in own],
            )
        )
    return found


@st.composite
def steps(draw: st.DrawFn) -> list[Tokens]:
    step = []
    for name in range(draw(st.integers(1, 8))):
        ids = draw(st.lists(st.integers(0, 1), min_size=2, max_size=9))
        first = draw(st.integers(1, len(ids) - 1))
        trained = [at >= first and (at == first or draw(st.booleans())) for at in range(len(ids))]
        step.append(tokens_of(str(name), ids, trained))
    return step


@settings(deadline=None, max_examples=400)
@given(step=steps(), max_tokens=st.sampled_from([4, 7, 12, 25, 100]), share=st.booleans())
def test_rows_give_every_example_back_with_its_labels(step: list[Tokens], max_tokens: int, share: bool) -> None:
    rows = plant_forest(step, max_tokens, share)
    found = {name: seen for row in rows for name, seen in zip(row.examples, walk(row), strict=True)}
    assert sorted(found) == sorted(one.id for one in step)
    for one in step:
        ids, labels, places = found[one.id]
        assert ids == one.input_ids.tolist()
        wanted = [at for at in range(1, len(ids)) if one.labels[at] != IGNORE]
        assert places == wanted and labels == [ids[at] for at in wanted]
    packed = sum(len(row.input_ids) for row in rows)
    plain = sum(len(one.input_ids) for one in step)
    assert packed <= plain and (share or packed == plain)
    assert all(len(row.input_ids) <= max_tokens or len(row.examples) == 1 for row in rows)


@settings(deadline=None, max_examples=60)
@given(step=steps())
def test_only_the_same_past_is_visible(step: list[Tokens]) -> None:
    for row in plant_forest(step, 60):
        size = len(row.input_ids)
        sees = np.array([[j <= i <= row.subtree_end[j] for j in range(size)] for i in range(size)])
        assert (sees.sum(1) == row.position + 1).all()


@settings(deadline=None, max_examples=60)
@given(step=steps(), max_tokens=st.sampled_from([7, 30]))
def test_rows_are_the_same_every_time(step: list[Tokens], max_tokens: int) -> None:
    one, two = plant_forest(step, max_tokens), plant_forest(list(step), max_tokens)
    assert [row.examples for row in one] == [row.examples for row in two]


def test_the_drawing_in_the_docstring_is_right() -> None:
    [row] = plant_forest([lettered("ABxy"), lettered("ABCde"), lettered("ABCfg")], 100)
    assert "".join(map(chr, row.input_ids)) == "ABxyBCdeCfg"
    assert row.position.tolist() == [0, 1, 2, 3, 1, 2, 3, 4, 2, 3, 4]
    assert row.subtree_end.tolist() == [10, 3, 3, 3, 10, 7, 7, 7, 10, 10, 10]
    assert "".join(chr(label) if label > 0 else "." for label in row.labels) == ".xy..de.fg."


def test_two_systems_with_many_questions_share_each_prefix_once() -> None:
    step = [lettered(f"{'S' * 50}{schema * 200}{chr(65 + q)}answer") for q in range(10) for schema in "PQ"]
    [row] = plant_forest(step, 2000)
    assert len(row.input_ids) == 50 + 2 * 200 + 20 * 7


def test_a_tree_too_large_for_a_row_repeats_its_prefix_and_no_more() -> None:
    step = [lettered(f"{'P' * 100}{chr(65 + q)}answer") for q in range(10)]
    rows = plant_forest(step, 100 + 5 * 7)
    assert [len(row.examples) for row in rows] == [5, 5]
    assert sum(len(row.input_ids) for row in rows) == 2 * 100 + 10 * 7


def test_different_trees_fill_a_row_together() -> None:
    step = [lettered(letter * size + "z") for letter, size in zip("ABCD", (60, 50, 40, 30), strict=True)]
    rows = plant_forest(step, 100)
    assert sorted(len(row.input_ids) for row in rows) == [92, 92]


def test_an_example_longer_than_a_row_has_one_of_its_own() -> None:
    rows = plant_forest([lettered("A" * 50 + "z"), lettered("B" * 5 + "z")], 20)
    assert sorted(len(row.input_ids) for row in rows) == [6, 51]


@pytest.mark.parametrize("share", [True, False])
def test_no_examples_make_no_rows(share: bool) -> None:
    assert plant_forest([], 100, share) == []
