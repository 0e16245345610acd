"""Loading: every way in which a model or tokenizer is not what a run needs is said before the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.config.schema import Lora, Model, Quantization
from tunesmith.errors import ModelError
from tunesmith.model.load import count_parameters, load_model, load_tokenizer
from tunesmith.model.lora import add_lora

Folder = Callable[[str], Path]


@pytest.fixture
def copied(tiny_model_dir: Folder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir("mistral"), tmp_path / "model"))


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_folder_gives_model_and_tokenizer(tiny_model_dir: Folder) -> None:
    config = Model(name=str(tiny_model_dir("llama")))
    model, tokenizer = load_model(config), load_tokenizer(config)
    assert not model.training and model.dtype == torch.float32
    assert tokenizer.pad_token == "<pad>" and tokenizer.eos_token == "<|im_end|>"


def test_padding_is_never_the_end_token(copied: Path) -> None:
    change(copied / "tokenizer_config.json", pad_token="<|im_end|>")
    tokenizer = load_tokenizer(Model(name=str(copied)))
    assert tokenizer.pad_token == "<pad>"


def test_the_recipes_own_end_token_is_not_taken_for_padding_either(copied: Path) -> None:
    change(copied / "tokenizer_config.json", pad_token="</s>")
    tokenizer = load_tokenizer(Model(name=str(copied), end_token="</s>"))
    assert tokenizer.pad_token == "<pad>"


def test_a_tokenizer_without_template_is_refused(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template(.|\n)*model.chat_template"):
        load_tokenizer(Model(name=str(copied)))


def test_a_template_of_the_recipe_wins(copied: Path, tmp_path: Path) -> None:
    template = tmp_path / "own.jinja"
    template.write_text("{{ messages[0].content }}")
    tokenizer = load_tokenizer(Model(name=str(copied), chat_template=template))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi"


def test_a_name_that_is_nowhere_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="give a Hub name") as refused:
        load_model(Model(name=str(tmp_path / "nowhere")))
    assert refused.value.exit_code == 5


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="config.json"):
        load_model(Model(name=str(tmp_path)))


def test_weights_cut_off_are_refused_by_file(copied: Path) -> None:
    weights = copied / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="model.safetensors is no sound safetensors file"):
        load_model(Model(name=str(copied)))


def test_weights_of_other_shapes_are_refused(copied: Path) -> None:
    change(copied / "config.json", intermediate_size=192)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(Model(name=str(copied)))


def test_weights_that_are_in_no_file_are_not_made_up(copied: Path) -> None:
    change(copied / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match=r"layers\.2\.\S+; they would be random"):
        load_model(Model(name=str(copied)))


def test_pickled_weights_are_not_read(copied: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="the weights are a pickle"):
        load_model(Model(name=str(copied)))


@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights_are_counted_one_by_one(tiny_model_dir: Folder, bits: Any) -> None:
    name = str(tiny_model_dir("mistral"))
    plain = count_parameters(load_model(Model(name=name)))
    packed = load_model(Model(name=name, quantization=Quantization(bits=bits)))
    assert count_parameters(packed).total == plain.total
    tuned = count_parameters(add_lora(packed, Lora(r=4)))
    # Rank times (inputs + outputs) of the seven projections of both layers.
    assert tuned.trainable == 2 * 4 * ((64 + 64) + 2 * (64 + 32) + (64 + 64) + 2 * (64 + 128) + (128 + 64))
    assert tuned.total == plain.total + tuned.trainable
    assert tuned.share == tuned.trainable / tuned.total


def test_four_bit_weights_let_gradients_through_after_they_were_asked_without(tiny_model_dir: Folder) -> None:
    """bitsandbytes would repack them on a CPU, and train the last layer only, in silence."""
    model = add_lora(load_model(Model(name=str(tiny_model_dir("mistral")), quantization=Quantization())), Lora(r=4))
    ids = torch.arange(20, 40)[None]

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    after = gradients()
    assert len(before) == len(after) == 28
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_of_a_model_that_also_sees_and_hears_the_language_model_is_loaded(
    tiny_model: Callable[..., Any], tiny_model_dir: Folder, tmp_path: Path
) -> None:
    """Gemma 3n on the Hub is such a model: its towers need packages and memory that text does not."""
    from safetensors.torch import save_file
    from transformers import Gemma3nConfig

    text = tiny_model("gemma3n")
    whole = Gemma3nConfig(text_config=text.config.to_dict())
    whole.architectures = ["Gemma3nForConditionalGeneration"]
    whole.save_pretrained(tmp_path)
    weights = {
        f"model.language_model.{name.removeprefix('model.')}": tensor.clone()
        for name, tensor in text.state_dict().items()
        if name.startswith("model.")
    }
    save_file({**weights, "model.vision_tower.x": torch.zeros(2)}, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = load_model(Model(name=str(tmp_path)))
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, text(input_ids=ids).logits)


def test_layers_that_are_not_there_are_refused_with_those_that_are(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="no layer named query(.|\n)*down_proj, gate_proj"):
        add_lora(tiny_model("mistral"), Lora(target_modules=["query"]))
