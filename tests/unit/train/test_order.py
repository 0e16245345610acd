"""Grouped steps: every example once an epoch, several of a prefix together, many prefixes in a step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tunesmith.config.schema import Sft
from tunesmith.train.order import grouped_order, prefix_groups
from tunesmith.train.steps import Steps
from tunesmith.types import IGNORE, Tokens


def examples(schemas: int, questions: int) -> list[Tokens]:
    """Schemas of 160 tokens after a system prompt of 32 that all share; a question and its answer."""
    draw = np.random.default_rng(0)
    system, found = draw.integers(4, 99, 32), []
    texts = [draw.integers(4, 99, 160) for _ in range(schemas)]
    for at in range(schemas * questions):
        prompt = np.concatenate([system, texts[at % schemas], draw.integers(4, 99, 20)])
        ids = np.concatenate([prompt, draw.integers(4, 99, 5)]).astype(np.int32)
        found.append(Tokens(str(at), ids, np.where(np.arange(len(ids)) < len(prompt), IGNORE, ids).astype(np.int32)))
    return found


def test_a_group_is_a_schema_and_not_the_system_prompt_all_share() -> None:
    groups = prefix_groups(examples(10, 6))
    assert sorted({int(at) % 10 for at in group}.pop() for group in groups) == list(range(10))
    assert all(len(group) == 6 and len({int(at) % 10 for at in group}) == 1 for group in groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=30), st.integers(1, 8), st.integers(8, 64), st.integers(0, 9))
def test_every_example_is_shown_once(sizes: list[int], per_prefix: int, batch_size: int, seed: int) -> None:
    edges = np.cumsum([0, *sizes])
    groups = [np.arange(start, stop) for start, stop in zip(edges, edges[1:], strict=False)]
    order = grouped_order(groups, per_prefix, batch_size, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(sum(sizes)))


def test_steps_keep_eight_prefixes_and_four_examples_of_each() -> None:
    tokens = examples(40, 20)
    steps = Steps(tokens, 32, 50, seed=3, per_prefix=4, max_tokens=8192, share=True, pad_id=3)
    again = Steps(tokens, 32, 50, seed=3, per_prefix=4, max_tokens=100, share=False, pad_id=3)
    assert steps.members(30).tolist() == again.members(30).tolist()
    assert steps.members(0).tolist() != steps.members(25).tolist()  # another epoch
    for number in range(25):
        schemas, counts = np.unique(steps.members(number) % 40, return_counts=True)
        assert len(schemas) == 8 and counts.tolist() == [4] * 8
    assert sorted(np.concatenate([steps.members(at) for at in range(25)]).tolist()) == list(range(800))


def test_data_with_few_prefixes_are_shuffled_plainly(caplog: pytest.LogCaptureFixture) -> None:
    tokens = examples(3, 20)
    grouped = Steps(tokens, 32, 4, seed=3, per_prefix=4, max_tokens=8192, share=True, pad_id=3)
    plain = Steps(tokens, 32, 4, seed=3, max_tokens=8192, share=True, pad_id=3)
    assert grouped.members(1).tolist() == plain.members(1).tolist()
    assert "3 distinct prefixes" in caplog.text


def test_a_step_with_fewer_than_eight_prefixes_cannot_be_written_down() -> None:
    assert Sft(batch_size=32, per_prefix=4).per_prefix == 4
    with pytest.raises(ValidationError, match="fewer than 8 distinct"):
        Sft(batch_size=32, per_prefix=5)
