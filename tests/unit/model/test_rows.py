"""All ways of computing a row give, in double precision, the logits of every example alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.errors import ModelError
from tunesmith.model.attention import _FLEX_FAILS, Way, require_isolation, row_inputs, rows_in, way_of
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


@pytest.fixture
def plain_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention without compiling, which is how it runs anywhere."""
    from torch.nn.attention.flex_attention import flex_attention
    from transformers.integrations.flex_attention import WrappedFlexAttention

    monkeypatch.setattr(WrappedFlexAttention, "__init__", lambda self, training: None)
    monkeypatch.setattr(WrappedFlexAttention, "__call__", lambda self: flex_attention)


def row_logits(model: Any, tokens: list[Tokens], max_tokens: int, way: Way | None) -> dict[tuple[int, ...], Any]:
    """Logits at label positions, by the path of tokens that leads to each."""
    found = {}
    with rows_in(model, way), torch.no_grad():
        for row in plant_forest(tokens, max_tokens):
            batch = collate_rows([row], 3)
            inputs = row_inputs(model, batch["subtree_end"], batch["position_ids"])
            logits = model(input_ids=batch["input_ids"], use_cache=False, **inputs).logits[0]
            for at in np.flatnonzero(row.labels != IGNORE):
                path = tuple(int(row.input_ids[j]) for j in range(at + 1) if at <= row.subtree_end[j])
                found[path] = logits[at]
    return found


UNCOMPILED = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@UNCOMPILED
@pytest.mark.usefixtures("plain_flex")
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
        for way in (None, Way("dense"), Way("flex")):
            found = row_logits(model, tokens, max_tokens, way)
            assert found.keys() == alone.keys()
            for path, expected in alone.items():
                exact = 1e-10 if way is None or way.name != "flex" else 1e-6  # flex keeps its sums in float32
                torch.testing.assert_close(found[path], expected, atol=exact, rtol=exact)
    assert model.config._attn_implementation == "sdpa"


def test_only_plain_attention_is_computed_in_parts_on_a_cpu() -> None:
    ways = {kind: way_of(model_of(kind)) for kind in CONFIGS}
    parts = {kind for kind, way in ways.items() if way.name == "cascade"}
    assert parts == {"mistral", "mistral with a window", "llama", "qwen2", "qwen3"}
    assert all(way.reason for way in ways.values() if way.name == "dense")


@UNCOMPILED
@pytest.mark.usefixtures("plain_flex")
def test_flex_attention_caps_scores_as_the_model_does() -> None:
    config = transformers.Gemma2Config(
        **SIZES, sliding_window=8, attn_logit_softcapping=0.5, query_pre_attn_scalar=8, attn_implementation="eager"
    )
    torch.manual_seed(3)
    model, tokens = transformers.AutoModelForCausalLM.from_config(config).double().eval(), examples()
    expected = row_logits(model, tokens, 4096, Way("dense"))
    found = row_logits(model, tokens, 4096, Way("flex"))
    for path, logits in expected.items():
        torch.testing.assert_close(found[path], logits, atol=1e-6, rtol=1e-6)
    model.config.attn_logit_softcapping = None
    for layer in model.model.layers:
        layer.self_attn.attn_logit_softcapping = None
    other = row_logits(model, tokens, 4096, Way("flex"))
    assert max(float((other[path] - logits).abs().max()) for path, logits in expected.items()) > 1e-3


class OnGpu:
    """As much of a model as the choice of attention looks at."""

    device = torch.device("cuda")

    def __init__(self, dtype: torch.dtype = torch.bfloat16, flex: bool = True, **config: Any) -> None:
        self.dtype, self._supports_flex_attn = dtype, flex
        self.config = transformers.MistralConfig(**SIZES | config, attn_implementation="sdpa")


@pytest.mark.parametrize(
    ("model", "capability", "triton", "said"),
    [
        (OnGpu(), (9, 0), True, ""),
        (OnGpu(), (7, 5), True, "compute capability 8.0"),
        (OnGpu(), (9, 0), False, "needs the package triton"),
        (OnGpu(torch.float64), (9, 0), True, "does not take torch.float64"),
        (OnGpu(flex=False), (9, 0), True, "no FlexAttention for mistral"),
        (OnGpu(attention_dropout=0.1), (9, 0), True, "attention_dropout"),
    ],
)
def test_on_a_gpu_rows_take_flex_attention_or_say_why_not(
    monkeypatch: pytest.MonkeyPatch, model: Any, capability: tuple[int, int], triton: bool, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("tunesmith.model.attention.find_spec", lambda name: object() if triton else None)
    way = way_of(model)
    assert way.name == ("dense" if said else "flex") and said in way.reason


def test_where_flex_attention_fails_rows_take_a_dense_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel for this card\nand more")

    model = model_of("llama")
    monkeypatch.setattr("tunesmith.model.attention.way_of", _flex_until_it_fails)
    monkeypatch.setattr("transformers.integrations.flex_attention.compile_friendly_flex_attention", broken)
    require_isolation(model)
    assert _FLEX_FAILS[model] == "FlexAttention failed: no kernel for this card"
    monkeypatch.undo()
    assert way_of(model) == Way("dense", _FLEX_FAILS[model])


def _flex_until_it_fails(model: Any) -> Way:
    return Way("dense", _FLEX_FAILS[model]) if model in _FLEX_FAILS else Way("flex")


@pytest.mark.gpu
@pytest.mark.parametrize("kind", CONFIGS)
def test_on_a_gpu_flex_attention_gives_loss_and_gradients_of_the_dense_mask(kind: str) -> None:
    model = model_of(kind).float().cuda()
    (row, *_) = plant_forest(examples(), 4096)
    batch = {name: tensor.cuda() for name, tensor in collate_rows([row], 3).items()}
    at = (batch["labels"][0] != IGNORE).nonzero()[:, 0]
    found = {}
    for way in (Way("dense"), Way("flex")):
        model.zero_grad()
        with rows_in(model, way):
            inputs = row_inputs(model, batch["subtree_end"], batch["position_ids"])
            logits = model(input_ids=batch["input_ids"], use_cache=False, **inputs).logits[0][at]
            loss = torch.nn.functional.cross_entropy(logits, batch["labels"][0][at])
            loss.backward()
        found[way.name] = (loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert found["flex"][0] == pytest.approx(found["dense"][0], rel=1e-5)
    for name, gradient in found["dense"][1].items():
        difference = (found["flex"][1][name] - gradient).norm() / gradient.norm().clamp_min(1e-8)
        assert float(difference) < 1e-2, name


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
