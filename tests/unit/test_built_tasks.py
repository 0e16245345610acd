"""The tasks that make their own data, from the recipe to the comparison, with a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith import pipeline
from tunesmith.config.load import load_config

RECIPE = """
name: {name}
task: {{name: {name}, build: {{examples: 24, test_examples: 4}}}}
data: {{validation_share: 0, max_length: 1024, leaks: {{near: allow}}}}
model: {{name: {model}}}
lora: {{r: 2, target_modules: [q_proj]}}
train: {{max_steps: 1, batch_size: 2, max_tokens: 1024, logging_steps: 1}}
generate: {{max_new_tokens: 4}}
evaluate: {{self_test: 8}}
exports: []
"""


@pytest.mark.parametrize("name", ["maths", "chat"])
def test_a_recipe_without_data_builds_it_trains_on_it_and_compares(
    name: str, tmp_path: Path, tiny_model_dir: Any
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(name=name, model=tiny_model_dir("mistral")))
    told: dict[str, str] = {}
    summary = pipeline.run(load_config(path, [f"output_dir={tmp_path / 'runs'}"]), announce=told.__setitem__)
    assert summary["status"] == "complete"
    assert set(summary["scores"]) == {"base", "tuned"}
    assert summary["scores"]["tuned"]["built"]["n"] == 4
    assert summary["paired"]["unseen"]["n"] == 4
    assert "24 train" in told["build"]
    trust = summary["trust"]
    assert (trust["self_test"]["gold"], trust["hack_gain"]["gain"]) == (1.0, 0.0)
