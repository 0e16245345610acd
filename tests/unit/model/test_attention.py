"""A forest's row computes what each example alone would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.errors import ModelError
from tunesmith.model.attention import forest_mask, model_mask
from tunesmith.types import IGNORE, Tokens

PREFIXES = {"system": list(range(10, 40)), "schema": list(range(40, 60))}


def example(name: str, prompt: list[int], answer: list[int]) -> Tokens:
    ids = np.array(prompt + answer, np.int32)
    return Tokens(name, ids, np.array([IGNORE] * len(prompt) + answer, np.int32))


def shared_examples() -> list[Tokens]:
    system, schema = PREFIXES["system"], PREFIXES["schema"]
    return [
        example("a", [*system, *schema, 70, 71], [80, 81, 82, 5]),
        example("b", [*system, *schema, 72], [83, 5]),
        example("c", [*system, 73, 74, 75], [84, 85, 86, 87, 88, 5]),
        example("d", [90, 91], [92, 5]),
    ]


def row_logits(model: Any, tokens: list[Tokens], max_tokens: int = 4096) -> dict[tuple[int, ...], torch.Tensor]:
    """Logits at label positions of a forest, by the path of tokens that leads to each."""
    found = {}
    for row in plant_forest(tokens, max_tokens):
        batch = collate_rows([row], 3)
        mask = model_mask(model, batch["subtree_end"], batch["position_ids"])
        with torch.no_grad():
            logits = model(
                input_ids=batch["input_ids"], attention_mask=mask, position_ids=batch["position_ids"], use_cache=False
            ).logits[0]
        for at in np.flatnonzero(row.labels != IGNORE):
            path = tuple(int(row.input_ids[j]) for j in range(at + 1) if at <= row.subtree_end[j])
            found[path] = logits[at]
    return found


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("arch", ["mistral", "llama", "gemma3n"])
def test_a_shared_row_gives_the_logits_of_every_example_alone(
    tiny_model: Callable[..., Any], arch: str, implementation: str
) -> None:
    model = tiny_model(arch, attn_implementation=implementation)
    tokens = shared_examples()
    found = row_logits(model, tokens)
    checked = 0
    for one in tokens:
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([one.input_ids.tolist()])).logits[0]
        for at in np.flatnonzero(one.labels != IGNORE):
            path = tuple(one.input_ids[:at].tolist())
            torch.testing.assert_close(found[path], alone[at - 1], atol=1e-5, rtol=1e-5)
            checked += 1
    assert checked == 14


def test_a_sliding_window_counts_positions_and_not_places_in_the_row(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("mistral", sliding_window=8)
    tokens = shared_examples()
    found = row_logits(model, tokens)
    for one in tokens:
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([one.input_ids.tolist()])).logits[0]
        for at in np.flatnonzero(one.labels != IGNORE):
            torch.testing.assert_close(found[tuple(one.input_ids[:at].tolist())], alone[at - 1], atol=1e-5, rtol=1e-5)


def test_another_branch_cannot_be_felt(tiny_model: Callable[..., Any]) -> None:
    """Change every token of one example: not a bit of the others' logits moves."""
    model = tiny_model("mistral")
    prefix = [*PREFIXES["system"], 60]
    before = row_logits(model, [example("a", [*prefix, 70], [80, 5]), example("b", [*prefix, 72], [83, 5])])
    after = row_logits(model, [example("a", [*prefix, 71], [90, 5]), example("b", [*prefix, 72], [83, 5])])
    shared = before.keys() & after.keys()
    assert len(shared) == 2
    for path in shared:
        assert torch.equal(before[path], after[path])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6))
def test_a_token_sees_exactly_the_tokens_on_its_path(prompts: list[list[int]]) -> None:
    tokens = [example(str(at), prompt, [9]) for at, prompt in enumerate(prompts)]
    for row in plant_forest(tokens, 64):
        end, position = torch.tensor(row.subtree_end)[None], torch.tensor(row.position)[None]
        seen = forest_mask(end, position)[0, 0]
        assert torch.equal(seen.sum(-1), position[0] + 1)
        assert not bool(torch.triu(seen, 1).any())
        assert bool(torch.diagonal(seen).all())


def test_attention_that_takes_no_dense_mask_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("mistral")
    model.config._attn_implementation = "flash_attention_2"
    ends = torch.tensor([[0]])
    with pytest.raises(ModelError, match="takes a dense mask, not 'flash_attention_2'(.|\n)*set it to sdpa"):
        model_mask(model, ends, ends)


def test_layers_that_carry_a_state_are_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("gemma3n")
    model.config.layer_types = ["linear_attention", "full_attention"]
    ends = torch.tensor([[0]])
    with pytest.raises(ModelError, match="linear_attention carry a state"):
        model_mask(model, ends, ends)


def test_soft_capped_attention_that_sdpa_would_leave_out_is_refused(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("mistral")
    model.config.attn_logit_softcapping = 50.0
    ends = torch.tensor([[0]])
    with pytest.raises(ModelError, match="soft-caps(.|\n)*eager"):
        model_mask(model, ends, ends)
