"""A config as text says what it is, and reads back as itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.config.load import load_config
from tunesmith.config.read import resolve_plain
from tunesmith.config.schema import RunConfig
from tunesmith.config.show import dump_config, show_lines, write_value

BASE = "task: chat\nmodel: {name: demo}\ndata: {train: data.jsonl}\n"

# What a YAML file can hold: no control characters, no lone surrogates.
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff\ufffe\uffff"), max_size=30)
tricky = st.sampled_from(
    ["NO", "on", "2e-4", "0o17", "null", "~", "1_000", "${x}", "$${y}", "a: b", "- a", "#", "*", " a "]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | tricky,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), inner),
    max_leaves=8,
)


@given(
    options=st.dictionaries(st.from_regex("[a-z]{1,5}", fullmatch=True), values, max_size=4),
    project=st.none() | texts | tricky,
    rate=st.floats(1e-12, 10),
    end=st.sampled_from(["</s>", "NO", "1e3", "null"]),
)
@settings(max_examples=60, deadline=None)
def test_a_dumped_config_loads_as_itself(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], project: str | None, rate: float, end: str
) -> None:
    config = RunConfig.model_validate(
        {
            "task": {"name": "custom", "target": "a.b:C", "options": options},
            "model": {"name": "demo", "end_token": end},
            "data": {"train": "/data.jsonl", "test": {"one": "/one.jsonl"}},
            "train": {"learning_rate": rate},
            "tracking": {"project": project},
            "output_dir": "/out",
            "code_dir": "/code",
        }
    )
    saved = tmp_path_factory.mktemp("run") / "config.yaml"
    saved.write_text(dump_config(config))
    assert load_config(saved, environ={}).config == config


def test_a_dumped_config_is_plain_yaml(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(BASE)
    text = dump_config(load_config(tmp_path / "recipe.yaml", environ={}).config)
    plain = yaml.safe_load(text)
    assert plain["data"]["train"]["path"] == str(tmp_path / "data.jsonl")
    assert "!!" not in text and "&id" not in text


def test_show_lists_every_setting_with_value_and_origin(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(BASE)
    loaded = load_config(tmp_path / "recipe.yaml", ["lora.r=8"], {})
    lines = {key: (value, origin) for key, value, origin in show_lines(loaded)}
    assert lines["lora.r"] == ("8", "override lora.r=8")
    assert lines["model.name"] == ("demo", "recipe recipe.yaml:2")
    assert lines["train.loss"] == ("null", "default")
    assert lines["data.test"] == ("{}", "default")
    assert lines["exports.0.format"] == ("adapter", "default")
    assert list(lines) == list(loaded.origins)
    assert all("\n" not in value for value, _ in lines.values())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("NO", "NO"),
        ("yes", "yes"),
        ("True", True),
        ("12", 12),
        ("-12", -12),
        ("012", 12),
        ("0o17", 15),
        ("0x1f", 31),
        ("2e-4", 2e-4),
        (".5", 0.5),
        ("1.", 1.0),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("-.inf", float("-inf")),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = resolve_plain(text)
    assert (found, type(found)) == (value, type(value))


@given(values)
def test_a_value_written_on_one_line_has_one_line(value: object) -> None:
    assert "\n" not in write_value(value)
