"""A cascade of flash attention calls gives the attention, and the gradients, of a dense mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.forest import plant_forest
from tunesmith.model.attention import forest_mask
from tunesmith.model.cascade import cascade_attention, plan_cascade
from tunesmith.types import IGNORE, Row, Tokens


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


def example(name: int, prompt: list[int], answer: list[int]) -> Tokens:
    labels = np.array([IGNORE] * len(prompt) + answer, np.int32)
    return Tokens(str(name), np.array(prompt + answer, np.int32), labels)


def forests() -> dict[str, list[Tokens]]:
    draw = np.random.default_rng(0)

    def ids(count: int) -> list[int]:
        return [int(token) for token in draw.integers(4, 99, count)]

    system, schemas = ids(40), [ids(100), ids(10), ids(50)]
    trunk, openings = ids(200), [ids(2) for _ in range(4)]
    return {
        "a system prompt and schemas": [
            example(i, system + schemas[i % 3] + ids(1 + i * 7 % 90), ids(3 + i % 9)) for i in range(20)
        ],
        "long examples that share two tokens": [example(i, [1, 2, *ids(280 + i)], ids(30)) for i in range(3)],
        "short examples that share nothing": [example(i, ids(3), ids(3)) for i in range(5)],
        "one long example": [example(0, ids(400), ids(3))],
        "questions that begin alike": [
            example(i, trunk + openings[i % 4] + openings[i // 4] + ids(20 + i), ids(20)) for i in range(16)
        ],
        "a prompt that is a prefix of another": [example(0, trunk, ids(4)), example(1, trunk + ids(60), ids(4))],
    }


def held_to_the_mask(row: Row, heads: int, kv_heads: int, only_labels: bool) -> None:
    ends, size = torch.tensor(row.subtree_end), len(row.subtree_end)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(size, count, 8, dtype=torch.float64, generator=draw).requires_grad_()
        for count in (heads, kv_heads, kv_heads)
    )
    wanted = torch.tensor(np.flatnonzero(row.labels != IGNORE)) if only_labels else torch.arange(size)
    cascade = plan_cascade(ends, wanted if only_labels else None)
    found = cascade_attention(query[wanted], key, value, cascade, 0.3)
    mask = forest_mask(ends[None], torch.tensor(row.position)[None])[0, :, wanted]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(one.transpose(0, 1)[None] for one in (query[wanted], key, value)), attn_mask=mask, scale=0.3, enable_gqa=True
    )[0].transpose(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-13, rtol=1e-13)
    pulled = torch.randn(found.shape, dtype=torch.float64, generator=draw)
    gradients = [torch.autograd.grad(one, (query, key, value), pulled) for one in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("only_labels", [False, True])
@pytest.mark.parametrize("kind", forests())
def test_attention_and_gradients_are_those_of_the_dense_mask(kind: str, only_labels: bool) -> None:
    for max_tokens in (4096, 400):
        for row in plant_forest(forests()[kind], max_tokens):
            held_to_the_mask(row, 4, 2, only_labels)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from([1, 1, 1, 2]), min_size=1, max_size=300), min_size=1, max_size=6))
def test_any_tree_is_cut_into_parts_that_cover_it(prompts: list[list[int]]) -> None:
    for row in plant_forest([example(at, prompt, [9]) for at, prompt in enumerate(prompts)], 1000):
        held_to_the_mask(row, 2, 1, only_labels=False)
        held_to_the_mask(row, 2, 1, only_labels=True)


def test_long_shared_segments_are_parts_of_their_own() -> None:
    (row,) = plant_forest(forests()["a system prompt and schemas"], 4096)
    cascade = plan_cascade(torch.tensor(row.subtree_end))
    assert {(span.first, span.last) for span in cascade.ahead} >= {(0, 40)}
    assert len(cascade.ahead) == 3  # the system prompt and two schemas; the third is too short
    assert max(batch.mask.shape[-1] for batch in cascade.batches) <= 128
