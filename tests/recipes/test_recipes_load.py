"""Every recipe in the repository loads. The files are found, not listed, so a new one cannot be forgotten."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tunesmith.config.load import load_config
from tunesmith.config.show import dump_config, show_lines
from tunesmith.errors import ConfigError

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def variables(recipe: Path) -> dict[str, str]:
    """The variables that a recipe names, also through what it extends, filled with something that fits."""
    text = recipe.read_text()
    below = re.search(r"^extends: (\S+)", text, re.MULTILINE)
    filled = {name: f"some_{name.lower()}" for name in re.findall(r"\$\{(\w+)", text)}
    return filled | (variables(recipe.parent / below.group(1)) if below else {})


def test_there_are_recipes() -> None:
    names = {recipe.relative_to(ROOT / "recipes").as_posix() for recipe in RECIPES}
    assert {"sql/mistral-7b.yaml", "maths/gemma-3n.yaml", "chat/llama-3.2-3b.yaml", "sql/test.yaml"} <= names


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.relative_to(ROOT / "recipes").as_posix())
def test_a_recipe_loads_and_its_resolved_form_is_the_same_recipe(recipe: Path, tmp_path: Path) -> None:
    loaded = load_config(recipe, environ=variables(recipe))
    assert loaded.notes == ()
    assert loaded.config.name != "run"
    assert len(list(show_lines(loaded))) == len(loaded.origins)
    saved = tmp_path / "config.yaml"
    saved.write_text(dump_config(loaded.config))
    assert load_config(saved, environ={}).config == loaded.config


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.relative_to(ROOT / "recipes").as_posix())
def test_the_files_that_a_recipe_brings_along_are_there(recipe: Path) -> None:
    config = load_config(recipe, environ=variables(recipe)).config
    brought = [config.model.chat_template, *getattr(config.task, "databases", {}).values()]
    for path in brought:
        assert path is None or path.is_file()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.relative_to(ROOT / "recipes").as_posix())
def test_a_recipe_is_plain_yaml(recipe: Path) -> None:
    """Other tools can read it too."""
    assert isinstance(yaml.safe_load(recipe.read_text()), dict)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.relative_to(ROOT / "recipes").as_posix())
def test_both_parsers_of_pyyaml_read_the_same(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every build of PyYAML has libyaml."""
    loaded = load_config(recipe, environ=variables(recipe))
    monkeypatch.setattr("tunesmith.config.read.PARSER", yaml.SafeLoader)
    assert load_config(recipe, environ=variables(recipe)) == loaded


def test_a_variable_that_a_recipe_needs_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="TUNESMITH_DATABASE is not set(.|\n)*export TUNESMITH_DATABASE="):
        load_config(ROOT / "recipes" / "sql" / "mistral-7b.yaml", environ={})


def test_the_quick_recipes_are_as_small_as_they_say() -> None:
    sql = ROOT / "recipes" / "sql" / "test.yaml"
    maths = ROOT / "recipes" / "maths" / "quick-test.yaml"
    for recipe in (sql, maths):
        config = load_config(recipe, environ=variables(recipe)).config
        assert config.data.train is not None and config.data.validation is not None
        assert (config.data.train.max_samples, config.data.validation.max_samples) == (20, 10)
        assert (config.train.max_steps, config.checkpoints.save_steps) == (20, 10)
