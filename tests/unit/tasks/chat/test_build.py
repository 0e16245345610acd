from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.schema import ChatBuild
from tunesmith.config.schema import ChatTask as Settings
from tunesmith.evaluate.trust import hack_gain, self_test
from tunesmith.tasks.built import unseen_kinds
from tunesmith.tasks.chat.build import build_dialogues
from tunesmith.tasks.chat.dialogues import KINDS
from tunesmith.tasks.chat.task import ChatTask
from tunesmith.types import Example, Message, RedTeamed

SETTINGS = Settings(build=ChatBuild(examples=300, test_examples=40))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    built = build_dialogues(SETTINGS, tmp_path_factory.mktemp("built"), 1)
    return {
        name: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name, path in built.files.items()
    }


def examples(rows: list[dict[str, Any]]) -> list[Example]:
    made = []
    for at, row in enumerate(rows):
        turns = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
        meta = {key: row[key] for key in ("checks", "kind", "language")}
        made.append(Example(str(at), turns, turns[-1].content, meta=meta))
    return made


def test_no_request_stands_on_both_sides_and_unseen_kinds_are_unseen(sets: dict[str, list[dict[str, Any]]]) -> None:
    assert {name: len(rows) for name, rows in sets.items()} == {"train": 300, "test_built": 40, "test_unseen": 40}
    asked = {name: {row["messages"][1]["content"] for row in rows} for name, rows in sets.items()}
    assert not asked["train"] & asked["test_built"]
    unseen = unseen_kinds(list(KINDS), 0.1, 1)
    assert {row["kind"] for row in sets["test_unseen"]} <= unseen
    assert not unseen & {row["kind"] for row in sets["train"] + sets["test_built"]}


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (build_dialogues(SETTINGS, tmp_path / name, 1).files["train"].read_bytes() for name in "ab")
    assert one == other


def test_right_last_turns_score_and_cheap_ones_do_not(sets: dict[str, list[dict[str, Any]]]) -> None:
    task = ChatTask(Settings())
    assert isinstance(task, RedTeamed)
    made = examples(sets["train"][:60] + sets["test_built"] + sets["test_unseen"])
    tested = self_test(task, made)
    assert (tested.gold.value, tested.unscored, tested.shuffled.value) == (1, 0, 0)
    tried = hack_gain(task, made)
    assert len(tried.policies) >= 20
    assert [offence.sentence() for policy in tried.policies for offence in policy.offences] == []
