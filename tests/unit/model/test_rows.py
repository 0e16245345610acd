"""Both ways of computing a row give, in double precision, the logits of every example alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.errors import ModelError
from tunesmith.model.attention import require_isolation, row_inputs, rows_in
from tunesmith.types import IGNORE, Tokens

SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 3,
    "initializer_range": 0.3,
}
MIXED: dict[str, Any] = {
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}
GEMMA3N: dict[str, Any] = {
    "vocab_size_per_layer_input": 120,
    "hidden_size_per_layer_input": 8,
    "num_kv_shared_layers": 0,
    "laurel_rank": 4,
    "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
}
CONFIGS: dict[str, Callable[[], Any]] = {
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=None),
    "mistral with a window": lambda: transformers.MistralConfig(**SIZES, sliding_window=8),
    "llama": lambda: transformers.LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen2 with a window in some layers": lambda: transformers.Qwen2Config(**SIZES, use_sliding_window=True, **MIXED),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES, **MIXED),
    "gemma3n": lambda: transformers.Gemma3nTextConfig(**SIZES, **MIXED, **GEMMA3N),
}


def model_of(kind: str) -> Any:
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]()).double().eval()


def examples() -> list[Tokens]:
    """A system prompt that most share, two schemas, and questions on them; one example stands alone."""
    draw = np.random.default_rng(0)

    def ids(count: int) -> list[int]:
        return [int(token) for token in draw.integers(4, 120, count)]

    system, schemas, found = ids(20), [ids(15), ids(9)], []
    for at in range(9):
        prompt = system + schemas[at % 2] + ids(3 + at % 4) if at else ids(30)
        answer = ids(2 + at % 5)
        labels = np.array([IGNORE] * len(prompt) + answer, np.int32)
        found.append(Tokens(str(at), np.array(prompt + answer, np.int32), labels))
    return found


def row_logits(model: Any, tokens: list[Tokens], max_tokens: int, chunked: bool) -> dict[tuple[int, ...], Any]:
    """Logits at label positions, by the path of tokens that leads to each."""
    found = {}
    with rows_in(model) if chunked else nullcontext(), torch.no_grad():
        for row in plant_forest(tokens, max_tokens):
            batch = collate_rows([row], 3)
            inputs = row_inputs(model, batch["subtree_end"], batch["position_ids"])
            logits = model(input_ids=batch["input_ids"], use_cache=False, **inputs).logits[0]
            for at in np.flatnonzero(row.labels != IGNORE):
                path = tuple(int(row.input_ids[j]) for j in range(at + 1) if at <= row.subtree_end[j])
                found[path] = logits[at]
    return found


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_row_gives_the_logits_of_every_example_alone(kind: str) -> None:
    model, tokens = model_of(kind), examples()
    alone = {}
    with torch.no_grad():
        for one in tokens:
            logits = model(input_ids=torch.tensor([one.input_ids.tolist()]), use_cache=False).logits[0]
            for at in np.flatnonzero(one.labels != IGNORE):
                alone[tuple(one.input_ids[:at].tolist())] = logits[at - 1]
    for max_tokens in (4096, 90, 50):
        for chunked in (False, True):
            found = row_logits(model, tokens, max_tokens, chunked)
            assert found.keys() == alone.keys()
            for path, expected in alone.items():
                torch.testing.assert_close(found[path], expected, atol=1e-10, rtol=1e-10)
    assert model.config._attn_implementation == "sdpa"


def test_only_plain_attention_is_computed_in_chunks() -> None:
    def inside(kind: str) -> str:
        model = model_of(kind)
        with rows_in(model):
            return str(model.config._attn_implementation)

    chunked = {kind for kind in CONFIGS if inside(kind) != "sdpa"}
    assert chunked == {"mistral", "mistral with a window", "llama", "qwen2", "qwen3"}


def test_a_model_that_computes_rows_as_examples_is_let_through() -> None:
    for kind in CONFIGS:
        require_isolation(model_of(kind))


def test_a_model_that_goes_by_the_place_in_the_row_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("mistral")
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda position_ids=None, **inputs: forward(**inputs))
    with pytest.raises(ModelError, match="examples in one row change each other's logits"):
        require_isolation(model)


def test_a_model_that_carries_a_state_is_refused() -> None:
    config = transformers.MambaConfig(vocab_size=120, hidden_size=32, state_size=4, num_hidden_layers=2, pad_token_id=3)
    with pytest.raises(ModelError, match="carry a state"):
        require_isolation(transformers.MambaForCausalLM(config).eval())


def test_a_model_is_left_in_the_mode_it_was_in() -> None:
    model = model_of("llama").train()
    require_isolation(model)
    assert model.training
