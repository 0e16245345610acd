"""Leaks as a user meets them: a recipe, its data, and the verb."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tunesmith.cli import app
from tunesmith.errors import CheckFailed

ASKED = "A lorry carries 14 crates of 25 kilos each to the market by the river. What do they weigh together?"
NEARLY = ASKED.replace("lorry", "truck")
OTHER = "Twelve monks share ninety-six loaves in equal parts. How many loaves does each of them get?"


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Any) -> Path:
    rows = {
        "train.jsonl": [(ASKED, "350"), (NEARLY, "350"), (OTHER, "8"), ("What is two and two?", "4")],
        "test.jsonl": [(ASKED, "350")],
        "own.jsonl": [(OTHER, "8")],
    }
    for name, found in rows.items():
        lines = [json.dumps({"question": q, "answer": a}) for q, a in found]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
task: maths
data: {{train: train.jsonl, test: {{mine: test.jsonl}}, validation_share: 0, cache_dir: {tmp_path}/cache}}
model: {{name: {tiny_model_dir("mistral")}}}
output_dir: {tmp_path}/runs
""")
    return path


def test_the_verb_shows_every_pair_and_says_no(recipe: Path) -> None:
    done = CliRunner().invoke(app, ["data", "leaks", str(recipe), "--against", str(recipe.parent / "own.jsonl")])
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("near duplicate (similarity 0.8") and "train.jsonl:2" in lines[0]
    assert lines[1].startswith("same question") and "own.jsonl:1" in lines[1] and "train.jsonl:3" in lines[1]
    assert "dropped 1: leak" in done.stdout  # the very same question is never trained on
    clean = CliRunner().invoke(app, ["data", "leaks", str(recipe), f"data.train={recipe.parent}/own.jsonl"])
    assert (clean.exit_code, clean.stdout.splitlines()[0]) == (0, "no training row is like a held-out one")


def test_near_duplicates_are_dropped_or_stop_as_the_settings_say(recipe: Path) -> None:
    def prepare(*settings: str) -> Any:
        from tunesmith import pipeline
        from tunesmith.config.load import load_config

        with pipeline.look(load_config(recipe, settings, environ={})) as (prepared, _):
            return prepared

    warned = prepare()
    assert (len(warned.train), warned.ledger.reasons) == (3, {"leak": 1})
    (finding,) = [f for f in warned.findings if "near duplicate" in f.message]
    assert finding.level == "warning" and NEARLY[:40] in finding.message
    dropped = prepare("data.leaks.near=drop")
    assert (len(dropped.train), dropped.ledger.reasons) == (2, {"leak": 2})
    told = "\n".join([*dropped.ledger.first.values(), *(f.message for f in dropped.findings)])
    assert "test.jsonl:1 is held out" in told and ASKED[:20] not in told, "a log gives a test question away"
    with pytest.raises(CheckFailed, match="near duplicate, mine"):
        prepare("data.leaks.near=error")
    own = [{"path": str(recipe.parent / "own.jsonl")}]
    with pytest.raises(CheckFailed, match=r"same question, against .*own\.jsonl"):
        prepare(f"data.leaks.against={json.dumps(own)}")
    assert len(prepare(f"data.leaks.against={json.dumps(own)}", "data.leaks.contaminated=drop").train) == 2
