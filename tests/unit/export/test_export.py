"""Exports of tiny random models with random adapters: what is written, loaded back, and refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.config.schema import (
    AdapterExport,
    ChatTask,
    Data,
    Lora,
    MergedExport,
    Model,
    Quantization,
    RunConfig,
    Sft,
    Source,
)
from tunesmith.errors import CheckFailed, ConfigError, ModelError
from tunesmith.export import Artifact, export
from tunesmith.export.verify import BOUNDS, verify
from tunesmith.rundir import RunDir

QUESTIONS = ["How many clinics are there?", "Tính chu vi hình chữ nhật.", "Hello, how are you?"]


class Trained:
    """A run with a random adapter, as training leaves it."""

    def __init__(self, root: Path, folder: Path, tokenizer: Any, **changes: Any) -> None:
        import torch

        from tunesmith.model.load import load_model
        from tunesmith.model.lora import add_lora

        settings: dict[str, Any] = {
            "name": "tiny", "task": ChatTask(), "data": Data(train=Source(path="none.jsonl")),
            "model": Model(name=str(folder)), "lora": Lora(r=4, lora_alpha=8), "train": Sft(),
        }  # fmt: skip
        self.config = RunConfig(**{**settings, **changes})
        self.run = RunDir(root / "tiny")
        self.tokenizer = tokenizer
        self.model = load_model(self.config.model, precision="fp32", device="cpu")
        torch.manual_seed(1)
        if self.config.lora is not None:
            self.model = add_lora(self.model, self.config.lora, 0)
        for name, parameter in self.model.named_parameters():
            if "lora_" in name or "modules_to_save" in name or self.config.lora is None:
                parameter.data.normal_(0, 0.15)
        self.model.eval().save_pretrained(str(self.run.adapter))
        self.prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)["input_ids"]
            for text in QUESTIONS
        ]

    def export(self, wanted: AdapterExport | MergedExport) -> Artifact:
        return export(self.config, self.run, wanted)

    def verify(self, artifact: Artifact) -> Any:
        return verify(artifact, self.model, self.tokenizer, self.prompts, self.config)


@pytest.fixture
def trained(tmp_path: Path, tiny_model_dir: Callable[[str], Path], tiny_tokenizer: Any) -> Callable[..., Trained]:
    def make(arch: str = "mistral", **changes: Any) -> Trained:
        return Trained(tmp_path, tiny_model_dir(arch), tiny_tokenizer, **changes)

    return make


def test_an_adapter_loaded_back_is_the_trained_model_to_the_bit(trained: Callable[..., Trained]) -> None:
    made = trained()
    artifact = made.export(AdapterExport())
    verified = made.verify(artifact)
    assert (verified.same_text, verified.same_tokens, verified.max_logit_difference) == (3, 3, 0.0)
    assert verified.positions > 3
    assert json.loads((artifact.path / "verified.json").read_text())["same_text"] == 3
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "generation_config.json",
            "chat_template.jinja", "README.md"} <= set(artifact.files)  # fmt: skip
    assert artifact.bytes == sum((artifact.path / name).stat().st_size for name in artifact.files)


@pytest.mark.parametrize("arch", ["mistral", "llama"])
def test_a_merged_model_agrees_with_the_trained_one_within_16_bits(trained: Callable[..., Trained], arch: str) -> None:
    made = trained(arch)
    artifact = made.export(MergedExport())
    verified = made.verify(artifact)
    assert verified.dtype == "bfloat16"
    assert 0 < verified.relative_error < BOUNDS["bfloat16"].relative_error / 2
    assert verified.same_choice > 0.8
    assert verified.tied == (arch == "llama")


def test_a_merged_model_in_32_bits_answers_the_same(trained: Callable[..., Trained]) -> None:
    made = trained()
    artifact = made.export(MergedExport(dtype="float32"))
    assert artifact.path.name == "merged-float32"
    verified = made.verify(artifact)
    assert verified.same_text == 3
    assert verified.max_logit_difference < 1e-4


def test_a_quantised_base_is_merged_from_its_full_weights(
    trained: Callable[..., Trained], tiny_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    # 64 wide: bitsandbytes quantises in blocks of 64 weights.
    folder = tmp_path / "wide"
    tiny_model(hidden_size=64, head_dim=16, intermediate_size=128).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    made = trained(model=Model(name=str(folder), quantization=Quantization()))
    artifact = made.export(MergedExport(dtype="float32"))
    assert "quantization_config" not in json.loads((artifact.path / "config.json").read_text())
    verified = made.verify(artifact)
    assert verified.reference == "the adapter on the plain base"
    assert verified.same_text == 3
    assert verified.quantised_same_text is not None


def test_weights_trained_in_full_are_exported_as_a_whole_model_only(trained: Callable[..., Trained]) -> None:
    made = trained(lora=None, exports=[MergedExport()])
    assert made.verify(made.export(MergedExport(dtype="float32"))).same_text == 3
    with pytest.raises(ConfigError, match="no adapter to export"):
        made.export(AdapterExport())


def test_layers_trained_beside_the_adapter_are_in_the_merged_model(trained: Callable[..., Trained]) -> None:
    made = trained(lora=Lora(r=4, modules_to_save=["lm_head"]))
    verified = made.verify(made.export(MergedExport(dtype="float32")))
    # Relative: a head of random weights makes logits, and with them their rounding, of any size.
    assert verified.relative_error < 1e-5
    assert verified.mean_kl >= 0


@pytest.mark.parametrize("wanted", [AdapterExport(), MergedExport()], ids=["adapter", "merged"])
def test_an_artifact_with_one_tensor_changed_is_rejected(trained: Callable[..., Trained], wanted: Any) -> None:
    from safetensors.torch import load_file, save_file

    made = trained()
    artifact = made.export(wanted)
    weights = next(artifact.path.glob("*model.safetensors"))
    tensors = load_file(weights)
    name = next(n for n in sorted(tensors) if "layers.1" in n and "mlp.down_proj" in n)
    tensors[name] = tensors[name] * 0
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckFailed, match="not the model that was trained") as caught:
        made.verify(artifact)
    assert not artifact.path.exists()
    rejected = artifact.path.with_name(f"{artifact.path.name}.rejected")
    assert json.loads((rejected / "verified.json").read_text())["faults"]
    assert caught.value.place == f"exports/{rejected.name}"


def test_weights_that_are_not_numbers_are_rejected(trained: Callable[..., Trained]) -> None:
    from safetensors.torch import load_file, save_file

    made = trained()
    artifact = made.export(AdapterExport())
    weights = artifact.path / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    tensors[first] = tensors[first] * float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckFailed, match="logits are off"):
        made.verify(artifact)


def test_a_torn_file_is_rejected_with_its_reason(trained: Callable[..., Trained]) -> None:
    made = trained()
    artifact = made.export(MergedExport())
    weights = artifact.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(ModelError, match="cannot be loaded back"):
        made.verify(artifact)
    assert not artifact.path.exists()


def test_another_tokenizer_or_end_token_is_rejected(trained: Callable[..., Trained]) -> None:
    made = trained()
    artifact = made.export(AdapterExport())
    (artifact.path / "chat_template.jinja").write_text("{{ messages[0].content }}")
    (artifact.path / "generation_config.json").write_text('{"eos_token_id": 2}')
    settings = json.loads((artifact.path / "tokenizer_config.json").read_text())
    (artifact.path / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "</s>"}))
    with pytest.raises(CheckFailed) as caught:
        made.verify(artifact)
    assert "its chat template is another" in caught.value.message
    assert "does not end answers at ['<|im_end|>']" in caught.value.message


def test_a_run_without_weights_is_named(trained: Callable[..., Trained], tmp_path: Path) -> None:
    made = trained()
    with pytest.raises(ModelError, match="no trained weights") as caught:
        export(made.config, RunDir(tmp_path / "other"), AdapterExport())
    assert "other" in caught.value.place


def test_a_failed_export_leaves_the_older_one_whole(
    trained: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trained()
    before = made.export(AdapterExport())

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunesmith.export.adapter.write_card", full)
    with pytest.raises(OSError, match="No space"):
        made.export(AdapterExport())
    assert {p.name for p in before.path.iterdir()} == set(before.files)
    assert [p.name for p in made.run.exports.iterdir()] == ["adapter"]


@pytest.mark.parametrize("wanted", [AdapterExport(), MergedExport()], ids=["adapter", "merged"])
def test_no_file_names_a_path_of_this_machine_and_none_is_a_pickle(
    trained: Callable[..., Trained], wanted: Any
) -> None:
    made = trained()
    made.verify(artifact := made.export(wanted))
    for path in artifact.path.iterdir():
        assert path.suffix in {".json", ".safetensors", ".md", ".jinja"}
        assert str(made.run.root.parent).encode() not in path.read_bytes(), path.name
        assert made.config.model.name.encode() not in path.read_bytes(), path.name


SUMMARY = {
    "scores": {
        "base": {"built": {"accuracy": 0.219, "low": 0.17, "high": 0.27, "n": 237, "unscored": 3}},
        "tuned": {"built": {"accuracy": 0.878, "low": 0.83, "high": 0.91, "n": 237, "unscored": 3}},
    },
    "paired": {"built": {"difference": 0.659, "low": 0.6, "high": 0.71, "p_value": 1e-30, "gained": 158, "lost": 2}},
    "training": {
        "steps": 300,
        "label_tokens": 71410,
        "validation_loss": 0.1634,
        "parameters": {"total": 6_000_000, "trainable": 221_184},
    },
    "data": {"rows": 2000, "trained": 1894, "validation": 100, "test": 0, "dropped": 6},
    "environment": {"packages": {"torch": "2.13.0"}},
}


def test_the_card_states_every_number_with_its_n_and_interval(trained: Callable[..., Trained]) -> None:
    made = trained()
    made.run.summary.write_text(json.dumps(SUMMARY))
    card = (made.export(AdapterExport()).path / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "peft" and head["license"] == "unknown"
    assert "base_model" not in head
    assert (
        "| built | 237 | 21.9 % (17.0 to 27.0) | 87.8 % (83.0 to 91.0) | +65.9 points (+60.0 to +71.0, p < 0.001) |"
        in card
    )
    assert "2,000 rows read = 1,894 trained on + 100 for validation + 0 for test + 6 dropped" in card
    assert "Not judged, and not counted: 3 of built" in card
    assert "PeftModel.from_pretrained" in card


def test_a_card_without_results_says_so(trained: Callable[..., Trained]) -> None:
    card = (trained().export(MergedExport()).path / "README.md").read_text()
    assert "has not been graded" in card
    assert "library_name: transformers" in card


def test_a_secret_in_a_name_does_not_reach_the_card(trained: Callable[..., Trained]) -> None:
    made = trained()
    made.run.summary.write_text(json.dumps({**SUMMARY, "environment": {"packages": {"hf_abcdefghijklmnopqrst": "1"}}}))
    assert "hf_abc" not in (made.export(AdapterExport()).path / "README.md").read_text()
