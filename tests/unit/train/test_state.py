"""Any state of an optimizer or generator, on disk and back to the same bits, without a pickle."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.errors import DivergedError, ModelError
from tunesmith.train.state import (
    random_state,
    read_parts,
    read_trained,
    set_random_state,
    write_parts,
    write_tensors,
    write_trained,
)

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
NESTED = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(value=NESTED)
@settings(max_examples=60, deadline=None)
def test_any_nesting_comes_back_as_it_was(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("parts")
    write_parts(folder, one=value)
    assert repr(read_parts(folder)["one"]) == repr(value)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_keep_their_kind_and_bits(tmp_path: Path, kind: torch.dtype) -> None:
    shared = torch.arange(6).to(kind)
    write_parts(
        tmp_path, state={0: {"a": shared, "b": shared[::2], "empty": shared[:0]}, 1: torch.tensor(3, dtype=kind)}
    )
    back = read_parts(tmp_path)["state"]
    assert torch.equal(back[0]["a"], shared) and torch.equal(back[0]["b"], shared[::2])
    assert back[0]["empty"].shape == (0,) and back[1].shape == () and back[1].dtype is kind


def test_numbers_that_json_does_not_have(tmp_path: Path) -> None:
    write_parts(tmp_path, odd=[float("inf"), float("-inf"), float("nan"), -0.0, 1e-320, np.float32(0.1), np.int64(7)])
    back = read_parts(tmp_path)["odd"]
    assert [repr(value) for value in back] == [
        "inf",
        "-inf",
        "nan",
        "-0.0",
        "1e-320",
        repr(float(np.float32(0.1))),
        "7",
    ]
    json.loads((tmp_path / "state.json").read_text(), parse_constant=pytest.fail)


def test_what_cannot_be_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"state of optimizer.state.0 holds a set") as refused:
        write_parts(tmp_path, optimizer={"state": [{1, 2}]})
    assert refused.value.place == "train.optim"


@pytest.mark.parametrize("name", ["AdamW", "SGD", "Adagrad", "RMSprop", "Adafactor"])
def test_an_optimizer_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    def steps(model: torch.nn.Module, optimizer: Any, numbers: range) -> None:
        for at in numbers:
            torch.manual_seed(at)
            optimizer.zero_grad()
            model(torch.randn(3, 4)).square().mean().backward()
            optimizer.step()

    def made() -> tuple[torch.nn.Module, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 4)
        return model, getattr(torch.optim, name)(model.parameters(), lr=0.1)

    whole, optimizer = made()
    steps(whole, optimizer, range(6))
    first, optimizer = made()
    steps(first, optimizer, range(3))
    write_parts(tmp_path, optimizer=optimizer.state_dict())
    second, optimizer = made()
    second.load_state_dict(first.state_dict())
    optimizer.load_state_dict(read_parts(tmp_path)["optimizer"])
    steps(second, optimizer, range(3, 6))
    assert torch.equal(second.weight, whole.weight)


def test_every_stream_of_random_numbers_continues(tmp_path: Path) -> None:
    def draw() -> tuple[Any, ...]:
        return (
            random.gauss(0, 1),
            random.random(),
            np.random.standard_normal(),
            np.random.rand(),
            torch.randn(2).tolist(),
        )

    draw()
    write_parts(tmp_path, random=random_state())
    expected = draw(), draw()
    set_random_state(read_parts(tmp_path)["random"])
    assert (draw(), draw()) == expected


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def adapted(tiny_model: Callable[..., Any]) -> Callable[[int], Any]:
    from tunesmith.config.schema import Lora
    from tunesmith.model.lora import add_lora

    def make(seed: int, **changes: Any) -> Any:
        model = add_lora(tiny_model("mistral"), Lora.model_validate({"r": 4} | changes), seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter.normal_()
        return model

    return make


def test_an_adapter_comes_back_and_peft_can_load_it_as_it_lies_there(
    tmp_path: Path, adapted: Callable[..., Any], tiny_model: Callable[..., Any]
) -> None:
    from peft import PeftModel

    model, other = adapted(1), adapted(2)
    write_trained(model, tmp_path)
    read_trained(other, tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model("mistral"), str(tmp_path))
    ids = torch.tensor([[1, 20, 21, 22]])
    for again in (other, loaded):
        with torch.no_grad():
            assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_weights_of_another_shape_or_kind_are_refused(tmp_path: Path, adapted: Callable[..., Any]) -> None:
    write_trained(adapted(1), tmp_path)
    with pytest.raises(ModelError, match=r"weights are not as the checkpoint has them; .*\(8, 128\)") as refused:
        read_trained(adapted(1, r=8), tmp_path)
    assert refused.value.exit_code == 5
    with pytest.raises(ModelError, match="bfloat16 now|torch.bfloat16"):
        read_trained(adapted(1).to(torch.bfloat16), tmp_path)


def test_weights_that_are_no_numbers_are_never_written(tmp_path: Path, adapted: Callable[..., Any]) -> None:
    model = adapted(1)
    next(p for p in model.parameters() if p.requires_grad).data[0, 0] = float("nan")
    with pytest.raises(DivergedError, match="are not numbers, and are not saved"):
        write_trained(model, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_matrix_with_two_names_is_written_and_comes_back_under_both(tmp_path: Path) -> None:
    """As the first and the last layer of a small model are one, and `lora.modules_to_save` trains it."""
    matrix = torch.arange(6.0).reshape(2, 3)
    write_tensors({"embed_tokens": matrix, "lm_head": matrix, "other": matrix + 1}, tmp_path / "weights.safetensors")
    from safetensors.torch import load_file

    read = load_file(tmp_path / "weights.safetensors")
    assert torch.equal(read["embed_tokens"], matrix) and torch.equal(read["lm_head"], matrix)


def test_a_full_disk_is_the_error_that_it_is_for_any_file(tmp_path: Path) -> None:
    with pytest.raises(OSError) as refused:
        write_tensors({"a": torch.zeros(4)}, tmp_path / "missing" / "a.safetensors")
    assert refused.value.errno == 2
