from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError
from tunesmith.tasks import get_task

MODULE = """
class Riddles:
    name, version = "riddles", "1"
    def __init__(self, hard: bool = False): self.hard = hard
    def examples(self, record): return iter(())
    def grade(self, example, completion): raise NotImplementedError
    def constraint(self, example): return None
    def close(self): pass

class Half:
    name = "half"
"""


@pytest.fixture
def riddles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_riddles.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import a_package_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_riddles", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def config(task: object) -> RunConfig:
    return RunConfig.model_validate(
        {"name": "t", "task": task, "model": {"name": "demo"}, "data": {"train": "x.jsonl"}}
    )


@pytest.mark.parametrize("name", ["sql", "maths", "chat"])
def test_a_built_in_task_is_found_by_its_name(name: str) -> None:
    task = get_task(config(name), {})
    assert task.name == name
    task.close()
    task.close()


def test_a_task_of_the_users_own_is_built_with_its_options(riddles: Path) -> None:
    task = get_task(config({"name": "custom", "target": "my_riddles:Riddles", "options": {"hard": True}}), {})
    assert task.name == "riddles"
    assert task.hard  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        ("no_such_module:Task", {}, "no_such_module"),
        ("my_broken:Task", {}, "a_package_nobody_has"),
        ("my_riddles:Puzzles", {}, "Puzzles"),
        ("my_riddles:Riddles", {"easy": True}, "easy"),
        ("my_riddles:Half", {}, "grade"),
    ],
)
def test_a_task_that_cannot_be_used_is_an_error_with_its_reason(
    riddles: Path, target: str, options: dict[str, bool], reason: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        get_task(config({"name": "custom", "target": target, "options": options}), {})
    assert reason in raised.value.message
    assert raised.value.place.startswith("task.")
    assert raised.value.remedy
