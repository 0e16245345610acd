from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import MathsBuild
from tunesmith.config.schema import MathsTask as Settings
from tunesmith.evaluate.trust import self_test
from tunesmith.tasks.built import unseen_kinds
from tunesmith.tasks.maths.build import build_problems
from tunesmith.tasks.maths.problems import KINDS, Draw
from tunesmith.tasks.maths.task import MathsTask
from tunesmith.types import Record

SETTINGS = Settings(build=MathsBuild(examples=400, test_examples=40))


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_sets_are_as_large_as_asked_for_and_share_no_kind_or_question_they_should_not(tmp_path: Path) -> None:
    built = build_problems(SETTINGS, tmp_path, 1)
    assert built.counts == {"train": 400, "test_built": 40, "test_unseen": 40}
    sets = {name: rows(path) for name, path in built.files.items()}
    questions = [row["question"] for made in sets.values() for row in made]
    assert len(questions) == len(set(questions))
    unseen = unseen_kinds(list(KINDS), 0.15, 1)
    assert len(unseen) == 3
    assert {row["kind"] for row in sets["test_unseen"]} <= unseen
    assert not unseen & {row["kind"] for row in sets["train"] + sets["test_built"]}
    assert {row["language"] for row in sets["train"]} == {"en", "vi"}


def test_the_same_settings_give_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    once = build_problems(SETTINGS, tmp_path / "a", 1).files["train"].read_bytes()
    assert build_problems(SETTINGS, tmp_path / "b", 1).files["train"].read_bytes() == once
    assert build_problems(SETTINGS, tmp_path / "a", 2).files["train"].read_bytes() != once


def test_the_grader_accepts_every_solution_that_was_built_and_all_its_steps(tmp_path: Path) -> None:
    built = build_problems(SETTINGS, tmp_path, 1)
    task = MathsTask(Settings(steps="required", units="required", answer_mark="required"))
    made = [
        example
        for name, path in built.files.items()
        for at, row in enumerate(rows(path))
        for example in task.examples(Record(f"{name}{at}", row))
    ]
    tested = self_test(task, made)
    assert (tested.gold.value, tested.unscored) == (1, 0), [one.sentence() for one in tested.wrong]
    assert tested.shuffled.value is not None and tested.shuffled.value < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_writes_numbers_as_its_language_does(kind: str) -> None:
    for seed in range(20):
        english = KINDS[kind](Draw(random.Random(seed), "en", 60))
        vietnamese = KINDS[kind](Draw(random.Random(seed), "vi", 60))
        assert "," not in english.answer  # no answer here reaches 1,000 in English
        assert "." not in vietnamese.answer or vietnamese.answer.endswith("đồng")
        assert vietnamese.steps and english.steps
