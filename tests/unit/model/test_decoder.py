"""The faster forward and backward give the loss and the gradients of the model alone, example by example."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tunesmith.config.schema import Lora
from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.model import fused
from tunesmith.model.decoder import PlainDecoder, plain_decoder
from tunesmith.model.lora import add_lora
from tunesmith.types import IGNORE, Tokens

SIZES: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 3,
}
CONFIGS: dict[str, Any] = {
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=None, tie_word_embeddings=True),
    "llama": lambda: transformers.LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "qwen2": lambda: transformers.Qwen2Config(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES),
}


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Memory that nobody wrote holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


class ExactNorm(torch.nn.Module):
    """The RMS norm of transformers without its rounding to float32."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.rms_norm(x, (x.shape[-1],), self.weight, self.variance_epsilon)


def model_of(kind: str, dtype: torch.dtype = torch.float64, spread: float = 0.3, **lora: Any) -> Any:
    """With an adapter that does something, and norms that are not all ones."""
    torch.manual_seed(3)
    config = CONFIGS[kind]()
    config.initializer_range = spread
    model = transformers.AutoModelForCausalLM.from_config(config).to(dtype)
    if dtype is torch.float64:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child).__name__.endswith("RMSNorm"):
                    setattr(parent, name, ExactNorm(child))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter.add_(0.1 * torch.randn_like(parameter))
    if lora:
        model = add_lora(model, Lora(**{"target_modules": "all-linear", **lora}))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data = 0.1 * torch.randn_like(parameter, dtype=dtype)
    return model.train()


def examples(seed: int = 0) -> list[Tokens]:
    draw = np.random.default_rng(seed)

    def ids(count: int) -> list[int]:
        return [int(token) for token in draw.integers(4, 120, count)]

    system, schemas, found = ids(40), [ids(45), ids(9)], []
    for at in range(9):
        prompt = system + schemas[at % 2] + ids(3 + at % 4) if at else ids(30)
        answer = ids(2 + at % 5)
        labels = np.array([IGNORE] * len(prompt) + answer, np.int32)
        found.append(Tokens(str(at), np.array(prompt + answer, np.int32), labels))
    return found


def alone(model: Any, tokens: list[Tokens]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of every example by itself, by the model's own forward."""
    model.zero_grad()
    total = 0.0
    for one in tokens:
        logits = model(input_ids=torch.tensor([one.input_ids.tolist()]), use_cache=False).logits[0, :-1]
        target = torch.tensor(one.labels[1:].tolist())
        loss = torch.nn.functional.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum")
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def in_rows(
    model: Any, tokens: list[Tokens], max_tokens: int, products: torch.dtype | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    decoder = PlainDecoder.of(model)
    assert decoder is not None
    decoder.products = products or decoder.dtype
    model.zero_grad()
    total = 0.0
    for row in plant_forest(tokens, max_tokens):
        batch = collate_rows([row], 3)
        at = (batch["labels"][0] != IGNORE).nonzero()[:, 0]
        place = (batch["input_ids"], batch["subtree_end"], batch["position_ids"], at)
        loss = decoder.loss(*place, batch["labels"][0][at])
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def close(found: Any, expected: Any, loss: float, gradient: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=loss)
    assert found[1].keys() == expected[1].keys() and found[1]
    for name, one in expected[1].items():
        assert float((found[1][name] - one).norm()) <= gradient * float(one.norm()), name


LORA: list[dict[str, Any]] = [
    {"r": 16},  # merged for the step, gradients through the whole weight
    {"r": 4},  # merged, thin products
    {"r": 1},  # not merged
    {"r": 4, "target_modules": ["q_proj", "down_proj"]},  # layers with and without an adapter side by side
    {"r": 4, "lora_dropout": 1e-9},  # of a kind not known: PEFT's own layers are called
    {"r": 4, "modules_to_save": ["embed_tokens"]},  # and with it the head, where they are one
    {},  # no adapter: every weight is trained
]


@pytest.mark.parametrize("lora", LORA)
@pytest.mark.parametrize("kind", CONFIGS)
def test_loss_and_gradients_in_double_precision(kind: str, lora: dict[str, Any]) -> None:
    model, tokens = model_of(kind, **lora), examples()
    expected = alone(model, tokens)
    for max_tokens in (4096, 120):
        close(in_rows(model, tokens, max_tokens), expected, 1e-12, 1e-10)


@pytest.mark.parametrize("kind", CONFIGS)
def test_loss_and_gradients_in_single_precision(kind: str) -> None:
    model, tokens = model_of(kind, torch.float32, spread=0.1, r=8), examples()
    close(in_rows(model, tokens, 4096), alone(model, tokens), 1e-6, 1e-5)


def far(found: Any, exact: Any) -> float:
    """How far gradients are from the exact ones, all weights together, as a share of their length."""
    off = sum(float((found[1][name] - one).norm()) ** 2 for name, one in exact[1].items())
    return float(off / sum(float(one.norm()) ** 2 for one in exact[1].values())) ** 0.5


@pytest.mark.parametrize("native", [True, False])  # what other processors than this one do
@pytest.mark.parametrize("lora", LORA)
@pytest.mark.parametrize("kind", CONFIGS)
def test_in_bfloat16_the_loss_is_exact_and_gradients_are_closer_than_those_of_autocast(
    kind: str, lora: dict[str, Any], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "multiplies", lambda products: native)
    model, tokens = model_of(kind, torch.float32, spread=0.1, **lora), examples()
    exact = alone(model, tokens)
    found = in_rows(model, tokens, 4096, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        usual = alone(model, tokens)
    assert found[1].keys() == exact[1].keys()
    assert found[0] == pytest.approx(exact[0], rel=1e-6)
    assert 1e-4 < far(found, exact) < far(usual, exact)


def test_recomputed_activations_change_nothing() -> None:
    from tunesmith.model.load import recompute_activations

    model, tokens = model_of("llama", r=4), examples()
    expected = in_rows(model, tokens, 120)
    recompute_activations(model.get_base_model())
    close(in_rows(model, tokens, 120), expected, 1e-14, 1e-14)


def test_another_example_cannot_be_felt() -> None:
    """Change every token of one example's own: not a bit of the others' logits moves."""
    model, tokens = model_of("mistral", r=4).eval(), examples()
    decoder = PlainDecoder.of(model)
    assert decoder is not None

    def logits(own: int) -> dict[str, torch.Tensor]:
        one = tokens[3]
        changed = one.input_ids.copy()
        changed[-4:] = own
        several = [*tokens[:3], Tokens("3", changed, np.where(one.labels == IGNORE, IGNORE, changed)), *tokens[4:]]
        found = {}
        for row in plant_forest(several, 4096):
            batch = collate_rows([row], 3)
            for at in np.flatnonzero(row.labels != IGNORE):
                path = [int(row.input_ids[j]) for j in range(at + 1) if at <= row.subtree_end[j]]
                place = (batch["input_ids"], batch["subtree_end"], batch["position_ids"], torch.tensor([at]))
                found[" ".join(map(str, path))] = decoder.logits(*place)[0]
        return found

    with torch.no_grad():
        before, after = logits(7), logits(8)
    same = before.keys() & after.keys()
    assert len(same) >= sum(int((one.labels != IGNORE).sum()) for one in tokens) - 7
    assert all(torch.equal(before[path], after[path]) for path in same)


def test_models_that_are_not_plain_decoders_go_their_own_way() -> None:
    gemma = transformers.AutoModelForCausalLM.from_config(transformers.Gemma3TextConfig(**SIZES))
    dropping = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SIZES, attention_dropout=0.1))
    coarse = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]()).to(torch.bfloat16)
    assert [plain_decoder(one) for one in (gemma, dropping, coarse)] == [None, None, None]


def test_a_model_that_computes_something_else_is_found_out(caplog: pytest.LogCaptureFixture) -> None:
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS["llama"]())
    assert plain_decoder(model) is not None
    model.model.layers[0].mlp.forward = lambda x: 0.0 * x
    assert plain_decoder(model) is None
    assert "differs from the model's own" in caplog.text
    del model.model.norm
    assert plain_decoder(model) is None
