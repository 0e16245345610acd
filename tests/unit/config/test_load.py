"""Where values come from, which of them wins, and that loading is light."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunesmith.config.layers import PREFIX
from tunesmith.config.load import Loaded, load_config
from tunesmith.config.schema import RunConfig, Source, SqlTask
from tunesmith.config.shortcuts import shortcuts
from tunesmith.errors import ConfigError

BASE = """\
task: chat
model: {name: demo}
data:
  train: data.jsonl
train:
  max_steps: 10
  learning_rate: 1e-4
"""


def recipe(folder: Path, text: str = BASE, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def load(folder: Path, *overrides: str, text: str = BASE, **environ: str) -> Loaded:
    return load_config(recipe(folder, text), overrides, environ)


def train_of(config: RunConfig) -> Source:
    assert config.data.train is not None
    return config.data.train


def test_every_value_knows_where_it_came_from(tmp_path: Path) -> None:
    loaded = load(tmp_path, "train.batch_size=4", TUNESMITH__TRAIN__WARMUP_STEPS="7")
    assert loaded.origins["train.max_steps"] == "recipe recipe.yaml:6"
    assert loaded.origins["train.batch_size"] == "override train.batch_size=4"
    assert loaded.origins["train.warmup_steps"] == "environment TUNESMITH__TRAIN__WARMUP_STEPS"
    assert loaded.origins["train.optim"] == "default"
    assert loaded.origins["data.train.path"] == "recipe recipe.yaml:4"
    assert loaded.origins["data.train.format"] == "default"
    assert loaded.origins["task.name"] == "recipe recipe.yaml:1"
    assert (loaded.config.train.batch_size, loaded.config.train.warmup_steps) == (4, 7)


def test_the_command_line_wins_over_the_environment_and_that_over_the_recipe(tmp_path: Path) -> None:
    environ = {"TUNESMITH__TRAIN__MAX_STEPS": "20"}
    assert load(tmp_path).config.train.max_steps == 10
    assert load(tmp_path, **environ).config.train.max_steps == 20
    assert load(tmp_path, "train.max_steps=30", **environ).config.train.max_steps == 30
    assert load(tmp_path, "train.max_steps=30", "train.max_steps=40", **environ).config.train.max_steps == 40


def test_loading_twice_gives_the_same(tmp_path: Path) -> None:
    assert load(tmp_path) == load(tmp_path)


def test_the_process_environment_is_read_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}SEED", "5")
    assert load_config(recipe(tmp_path)).config.seed == 5


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("lora=null", "lora", None),
        ("lora=", "lora", None),
        ("lora.target_modules=[a, b]", "lora.target_modules", ["a", "b"]),
        ("lora.target_modules=all-linear", "lora.target_modules", "all-linear"),
        ("lora.modules_to_save=[]", "lora.modules_to_save", []),
        ("name=NO", "name", "NO"),
        ("name=2024", "name", "2024"),
        ('name="a-b"', "name", "a-b"),
        ("train.learning_rate=2e-5", "train.learning_rate", 2e-5),
        ("train.share_prefixes=false", "train.share_prefixes", False),
        ("train.extra={tf32: true, adam_beta1: 0.8}", "train.extra", {"tf32": True, "adam_beta1": 0.8}),
        ("tracking.project=a=b", "tracking.project", "a=b"),
        ("model.name=org/name:x", "model.name", "org/name:x"),
    ],
)
def test_an_override_sets_a_value_of_any_kind(override: str, key: str, value: object, tmp_path: Path) -> None:
    found: object = load(tmp_path, override).config
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_an_override_reaches_into_a_list(tmp_path: Path) -> None:
    text = BASE + "exports: [{format: adapter}, {format: merged}]\n"
    loaded = load(tmp_path, "exports.1.dtype=float16", text=text)
    assert loaded.config.model_dump()["exports"][1]["dtype"] == "float16"
    assert loaded.origins["exports.1.dtype"] == "override exports.1.dtype=float16"
    assert loaded.origins["exports.1.format"] == "recipe recipe.yaml:8"


def test_a_short_form_can_be_added_to(tmp_path: Path) -> None:
    source = train_of(load(tmp_path, "data.train.max_samples=3").config)
    assert (source.path, source.max_samples) == (str(tmp_path / "data.jsonl"), 3)
    text = BASE.replace("train: data.jsonl", "train: {path: data.jsonl, max_samples: 5}")
    source = train_of(load(tmp_path, "data.train=/other.jsonl", text=text).config)
    assert (source.path, source.max_samples) == ("/other.jsonl", 5)


def test_another_alternative_replaces_the_section(tmp_path: Path) -> None:
    text = BASE.replace("task: chat", "task: {name: sql, schema_tokens: 500}")
    assert isinstance(load(tmp_path, "task.timeout_seconds=1", text=text).config.task, SqlTask)
    assert load(tmp_path, "task=maths", text=text).config.task.name == "maths"
    assert load(tmp_path, "task=my.module:Mine", text=text).config.task.name == "custom"


def test_a_conditional_override_counts_only_where_its_section_is_written(tmp_path: Path) -> None:
    config = load(tmp_path, "data.train.max_samples?=20", "data.validation.max_samples?=10").config
    assert train_of(config).max_samples == 20
    assert config.data.validation is None


def test_relative_paths_start_at_the_recipe_and_typed_ones_where_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    text = """\
task: {name: sql, databases: {shop: ../shop.sql, other: null}}
model: {name: ./base, chat_template: t.jinja}
data:
  train: data/*.jsonl
  validation: my.module:records
  test: {a: hf://owner/name, b: /abs/b.jsonl}
  cache_dir: ~/cache
"""
    path = recipe(tmp_path, text, "recipes/recipe.yaml")
    config = load_config(path, ["data.test.c=c.jsonl"], {"HOME": "/home/ada"}).config
    folder = tmp_path / "recipes"
    assert isinstance(config.task, SqlTask)
    assert config.task.databases == {"shop": tmp_path / "shop.sql", "other": None}
    assert config.model.name == str(folder / "base")
    assert config.model.chat_template == folder / "t.jinja"
    assert train_of(config).path == str(folder / "data" / "*.jsonl")
    assert config.data.validation is not None and config.data.validation.path == "my.module:records"
    assert {name: source.path for name, source in config.data.test.items()} == {
        "a": "hf://owner/name",
        "b": "/abs/b.jsonl",
        "c": str(here / "c.jsonl"),
    }
    assert config.data.cache_dir == Path("/home/ada/cache")
    assert config.output_dir == here / "runs"
    assert load_config(path, ["output_dir=out"], {}).config.output_dir == here / "out"


def test_a_relative_path_to_the_recipe_gives_the_same_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recipe(tmp_path, BASE, "recipes/recipe.yaml")
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("recipes/recipe.yaml"), environ={}) == load_config(path, environ={})


def test_a_hub_name_is_not_a_path(tmp_path: Path) -> None:
    assert load(tmp_path, "model.name=owner/name").config.model.name == "owner/name"


def test_a_recipe_extends_another_in_another_folder(tmp_path: Path) -> None:
    base = BASE.replace("task: chat", "task: {name: sql, databases: {shop: shop.sql}, schema_tokens: 700}")
    recipe(tmp_path, base + "lora: {r: 4, lora_alpha: 8}\n", "base/base.yaml")
    text = "extends: ../base/base.yaml\ntask: {databases: {mine: mine.sql}}\ntrain:\n  max_steps: 3\nlora: {r: 2}\n"
    loaded = load_config(recipe(tmp_path, text, "mine/mine.yaml"), environ={})
    config = loaded.config
    assert (config.train.max_steps, config.train.learning_rate) == (3, 1e-4)
    assert config.lora is not None
    assert (config.lora.r, config.lora.lora_alpha) == (2, 8)
    assert train_of(config).path == str(tmp_path / "base" / "data.jsonl")
    assert isinstance(config.task, SqlTask)
    assert config.task.databases == {"mine": tmp_path / "mine" / "mine.sql"}, "names of one's own replace"
    assert config.task.schema_tokens == 700
    assert loaded.origins["train.max_steps"] == "recipe mine.yaml:4"
    assert loaded.origins["train.learning_rate"] == "recipe base.yaml:7"


def test_an_error_in_a_recipe_below_names_that_recipe(tmp_path: Path) -> None:
    recipe(tmp_path, BASE + "  batch_sise: 3\n", "base.yaml")
    with pytest.raises(ConfigError, match=r"base\.yaml:8: unknown key 'batch_sise'"):
        load_config(recipe(tmp_path, "extends: base.yaml\n"), environ={})


def test_recipes_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    recipe(tmp_path, "extends: b.yaml\n", "a.yaml")
    recipe(tmp_path, "extends: c.yaml\n", "b.yaml")
    recipe(tmp_path, "extends: a.yaml\n", "c.yaml")
    with pytest.raises(ConfigError, match=r"circle: a\.yaml -> b\.yaml -> c\.yaml -> a\.yaml"):
        load_config(tmp_path / "a.yaml", environ={})


def test_variables_and_the_bucket_are_filled_in(tmp_path: Path) -> None:
    text = BASE.replace("max_steps: 10", "max_steps: ${STEPS}") + (
        "name: ${WHO:-nobody}\ntracking: {project: 'gs://YOUR-BUCKET-NAME/x'}\n"
    )
    loaded = load(tmp_path, text=text, STEPS="30", TUNESMITH_BUCKET="ada-data")
    assert loaded.config.train.max_steps == 30
    assert loaded.config.name == "nobody"
    assert loaded.config.tracking.project == "gs://ada-data/x"
    assert loaded.origins["train.max_steps"] == "recipe recipe.yaml:6"
    assert load(tmp_path, "tracking.project=$${x}").config.tracking.project == "${x}"


def test_a_name_may_be_a_variable(tmp_path: Path) -> None:
    text = BASE.replace("task: chat", "task:\n  name: sql\n  databases:\n    ${DATABASE}: null")
    task = load(tmp_path, text=text, DATABASE="shop").config.task
    assert isinstance(task, SqlTask)
    assert task.databases == {"shop": None}
    with pytest.raises(ConfigError, match=r"recipe\.yaml:4: .*DATABASE is not set"):
        load(tmp_path, text=text)


def test_tokens_of_a_text_are_no_secrets(tmp_path: Path) -> None:
    config = load(tmp_path, "model.end_token=<|im_end|>", "train.extra={pad_token: x, hub_token: env:HF_TOKEN}").config
    assert config.model.end_token == "<|im_end|>"


def test_the_short_flags_mean_overrides(tmp_path: Path) -> None:
    flags = shortcuts(
        experiment_name="2024", max_steps=7, learning_rate=3e-5, output_dir="out: [x", quick_test=True, debug=True
    )
    text = BASE + "  early_stopping_patience: 2\n  eval_steps: 5\n  dataloader_num_workers: 4\n"
    config = load(tmp_path, *flags, text=text).config
    assert (config.name, config.train.max_steps, config.train.learning_rate) == ("2024", 7, 3e-5)
    assert config.output_dir == Path.cwd() / "out: [x"
    assert (config.train.eval_steps, config.train.early_stopping_patience) == (0, None)
    assert train_of(config).max_samples == 20
    assert config.train.dataloader_num_workers == 0
    assert load(tmp_path, *shortcuts(quick_test=True)).config.train.max_steps == 20
    assert load(tmp_path, *shortcuts(no_save=True)).config.exports == []
    assert shortcuts() == []


def test_settings_are_read_without_torch_and_quickly(tmp_path: Path) -> None:
    path = recipe(tmp_path)
    code = (
        "import sys, pathlib, tunesmith.config.load, tunesmith.config.adopt, tunesmith.config.show as s\n"
        f"s.dump_config(tunesmith.config.load.load_config(pathlib.Path({str(path)!r})).config)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'datasets', 'peft'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    # Processor time: the machine may be busy with other things.
    started = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONWARNINGS": "error"})
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.ru_utime - started.ru_utime < 1
    before = time.process_time()
    load_config(path, environ={})
    assert time.process_time() - before < 0.2
