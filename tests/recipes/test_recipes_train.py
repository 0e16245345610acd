"""The recipes for a GPU train, as they are, on random two-layer models of their architecture: 4-bit weights, paged
optimizer, recomputed activations and worker processes included. Only the model, the data and the steps are others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.load import load_config
from tunesmith.data.prepare import prepare_dataset
from tunesmith.model.load import load_model, load_tokenizer
from tunesmith.model.lora import add_lora
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train import BUILDERS
from tunesmith.train.fit import fit, load_trained
from tunesmith.types import Example, Record, Score

RECIPES = Path(__file__).parents[2] / "recipes"
EVERY = [("sql/mistral-7b.yaml", "mistral"), ("maths/gemma-3n.yaml", "gemma3n"), ("chat/llama-3.2-3b.yaml", "llama")]
QUESTIONS = [f"How many clinics are there in district {at}?" for at in range(40)]


class Conversations:
    """A task whose records are conversations already."""

    name, version = "conversations", "1"

    def examples(self, record: Record) -> Iterator[Example]:
        raise AssertionError("conversations need no phrasing")

    def grade(self, example: Example, completion: str) -> Score:
        return Score(None)

    def constraint(self, example: Example) -> None:
        return None

    def close(self) -> None:
        pass


def write_conversations(path: Path, questions: list[str]) -> Path:
    records = []
    for question in questions:
        turns = [("user", question), ("assistant", f"SELECT count(*) FROM clinic WHERE d = {len(question)};")]
        records.append({"messages": [{"role": role, "content": content} for role, content in turns]})
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize(("recipe", "arch"), EVERY, ids=[recipe for recipe, _ in EVERY])
def test_two_steps_of_the_recipe_itself(
    recipe: str, arch: str, tmp_path: Path, tiny_model_dir: Callable[[str], Path]
) -> None:
    train = write_conversations(tmp_path / "train.jsonl", QUESTIONS)
    validation = write_conversations(tmp_path / "validation.jsonl", ["Hello, how are you?", "Tính chu vi."])
    test = write_conversations(tmp_path / "test.jsonl", ["How many cities?"])
    text = (RECIPES / recipe).read_text()
    config = load_config(
        RECIPES / recipe,
        [
            f"model.name={tiny_model_dir(arch)}",
            f"data.train={{path: {train}, format: messages}}",
            f"data.validation={{path: {validation}, format: messages}}",
            *([f"data.test={{test: {{path: {test}, format: messages}}}}"] if recipe.startswith("maths") else []),
            *(["task.build=null"] if recipe.startswith("sql") else []),
            "train.max_steps=2",
        ],
        environ={name: "unused" for name in re.findall(r"\$\{(\w+)", text)},
    ).config
    assert config.model.quantization is not None and config.model.quantization.bits == 4
    assert config.lora is not None and config.train.gradient_checkpointing
    tokenizer = load_tokenizer(config.model)
    prepared = prepare_dataset(config, Conversations(), tokenizer, cache_dir=tmp_path / "cache")
    assert (len(prepared.train), len(prepared.validation)) == (40, 2)
    run = RunDir(tmp_path / "run")
    base = load_model(config.model, config.train.precision)
    assert any(type(parameter).__name__ == "Params4bit" for parameter in base.parameters())
    model = add_lora(base, config.lora, config.seed)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    with Tracker(run, config) as tracker:
        trainer = BUILDERS[config.train.method](config, model, tokenizer, prepared, run, tracker)
        result = fit(trainer, run, config)
    assert result.steps == 2 and result.validation_loss is not None
    changed = [name for name, p in trainer.model.named_parameters() if name in before and not before[name].equal(p)]
    assert changed and all("lora_" in name for name in changed)
    assert 0 < result.parameters.trainable < result.parameters.total
    assert result.parameters.total == whole_size(tiny_model_dir(arch)) + result.parameters.trainable
    assert set(optimizer_names(trainer)) <= {"AdamW"}
    load_trained(config, run, load_model(config.model, config.train.precision))


def whole_size(folder: Path) -> int:
    """Weights of the model as it is on disk, before anything was packed."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def optimizer_names(trainer: Any) -> list[str]:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    return [] if optimizer is None else [type(optimizer).__name__]
