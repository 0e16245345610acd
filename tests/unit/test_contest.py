"""A finished run against its checkpoints, another run and a model behind an address; what it failed is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from emulator import completion

from tunesmith import contest, pipeline
from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError
from tunesmith.evaluate.metrics import read_scores
from tunesmith.rundir import RunDir


def load(recipe: Path, *overrides: str) -> Any:
    return load_config(recipe, overrides, environ={})


@pytest.fixture
def run(recipe: Path) -> RunDir:
    loaded = load(recipe, "exports=[]", "checkpoints.save_steps=1")
    pipeline.run(loaded)
    return pipeline.run_dir(loaded.config)


def test_everyone_answers_the_same_prompts_and_is_compared_with_the_tuned_model(
    run: RunDir, recipe: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = load(recipe, "exports=[]", "name=other", "train.learning_rate=1e-4")
    pipeline.run(other)
    right = {"Cuba": "Havana", "Ghana": "Accra"}
    server = serve(lambda body, _: (200, completion(right[body["messages"][-1]["content"]]), {}))
    before = {p.name: p.read_bytes() for p in (run.root / "scores").iterdir()}
    said: list[str] = []
    summary = contest.evaluate_run(
        run.root,
        against=["checkpoint-1", str(run.root.parent / "other"), f"{server.url}#oracle"],
        announce=lambda stage, outcome: said.append(stage),
    )
    assert summary["scores"].keys() == {"base", "tuned", "checkpoint_1", "run_other", "oracle"}
    assert summary["scores"]["oracle"]["mine"]["accuracy"] == 1.0
    against = summary["contest"]["sets"]["mine"]
    assert against["oracle"]["difference"] == summary["scores"]["tuned"]["mine"]["accuracy"] - 1
    assert all(one["p_adjusted"] >= one["p_value"] for one in against.values())
    assert {one["name"]: one["kind"] for one in summary["contest"]["others"]} == {
        "checkpoint_1": "checkpoint",
        "run_other": "run",
        "oracle": "endpoint",
    }
    assert {name: (run.root / "scores" / name).read_bytes() for name in before} == before  # not paid for again
    asked = {tuple(turn["content"] for turn in body["messages"]) for _, _, body in server.asked}
    questions = read_scores(run.scores("tuned", "mine")).judged
    assert asked == {tuple(turn.content for turn in one.example.prompt) for one in questions}
    page = run.report.read_text(encoding="utf-8")
    assert "oracle" in page and "checkpoint 1" in page
    # The last checkpoint is the tuned model, so it writes the same; asking twice asks the server no more.
    asked_before = len(server.asked)
    again = contest.evaluate_run(run.root, against=["checkpoint-3", f"{server.url}#oracle"])
    assert len(server.asked) == asked_before
    last, tuned = (read_scores(run.scores(name, "mine")).judged for name in ("checkpoint_3", "tuned"))
    assert [one.completion.text for one in last] == [one.completion.text for one in tuned]
    assert again["contest"]["sets"]["mine"]["checkpoint_3"]["difference"] == 0


def test_a_checkpoint_is_graded_with_the_runs_lexicon_and_another_run_with_its_own(recipe: Path) -> None:
    mine = load(recipe, "exports=[]", "checkpoints.save_steps=1", "generate.beams=3", "generate.lexicon=0.5")
    pipeline.run(mine)
    for name, weight in (("with", 0.5), ("without", 0.0)):
        pipeline.run(load(recipe, "exports=[]", f"name={name}", "generate.beams=3", f"generate.lexicon={weight}"))
    root = pipeline.run_dir(mine.config).root
    summary = contest.evaluate_run(root, against=["checkpoint-1", *(str(root.parent / n) for n in ("with", "without"))])
    had_a_say = {who: "model_alone" in found["mine"]["parts"] for who, found in summary["scores"].items()}
    assert had_a_say == {
        "base": False, "tuned": True, "checkpoint_1": True, "run_with": True, "run_without": False,
    }  # fmt: skip


def test_scores_of_other_questions_are_not_used_again(run: RunDir) -> None:
    """A data set that is built anew may ask others: pairs of different questions are no comparison."""
    before = {name: run.scores(name, "mine").read_bytes() for name in ("base", "tuned")}
    for name, lines in before.items():
        run.scores(name, "mine").write_bytes(lines.replace(b"Ghana", b"Chad") if name == "base" else lines)
    said: list[tuple[str, str]] = []
    summary = contest.evaluate_run(run.root, against=["checkpoint-1"], announce=lambda *told: said.append(told))
    assert {name: run.scores(name, "mine").read_bytes() for name in before} == before
    anew = [stage for stage, outcome in said if "answers other questions than mine has now" in outcome]
    assert anew == ["grade base"]
    assert summary["paired"]["mine"]["n"] == summary["scores"]["tuned"]["mine"]["n"]


def test_failures_are_kept_and_asked_of_the_next_run(run: RunDir, recipe: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.jsonl"
    contest.evaluate_run(run.root, suite=suite, keep=True)
    kept = [json.loads(line) for line in suite.read_text(encoding="utf-8").splitlines()]
    wrong = [one for one in read_scores(run.scores("tuned", "mine")).judged if one.score.value == 0]
    assert [line["example"]["id"] for line in kept] == [one.example.id for one in wrong] and kept
    other = load(recipe, "exports=[]", "name=next", "train.max_steps=1", f"data.test.kept={suite}")
    summary = pipeline.run(other)
    assert summary["scores"]["tuned"]["kept"]["n"] == len(kept)
    asked = read_scores(pipeline.run_dir(other.config).scores("tuned", "kept")).judged
    assert [one.example.prompt for one in asked] == [one.example.prompt for one in wrong]
    summary = contest.evaluate_run(run.root, suite=suite)
    assert summary["scores"]["tuned"]["regressions"]["n"] == len(kept)
    assert len(suite.read_text(encoding="utf-8").splitlines()) == len(kept)


def test_nobody_of_that_name_is_an_error_that_lists_who_there_is(run: RunDir, tmp_path: Path) -> None:
    for who in ("checkpoint-99", "nowhere", "ftp://host/x"):
        with pytest.raises(ConfigError, match="names no model") as error:
            contest.evaluate_run(run.root, against=[who])
        assert "checkpoint-1" in error.value.remedy
    with pytest.raises(ConfigError, match="no such suite"):
        contest.evaluate_run(run.root, suite=tmp_path / "none.jsonl")


def test_a_metric_of_ones_own_stands_beside_the_score(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_metrics.py").write_text(
        "def short(example, answer):\n    return len(answer) < 1000\n"
        "def strange(example, answer):\n    return 7\n"
        "def silent(example, answer):\n    return None\n"
    )
    wanted = ("exports=[]", "evaluate.base=false", "train.max_steps=1")
    summary = pipeline.run(
        load(recipe, *wanted, "evaluate.metrics.short=own_metrics:short", "evaluate.metrics.silent=own_metrics:silent")
    )
    scores = summary["scores"]["tuned"]["mine"]
    assert scores["parts"].keys() == {"short"}
    assert (scores["parts"]["short"]["value"], scores["parts"]["short"]["n"]) == (1.0, 2)
    with pytest.raises(ConfigError, match="the metric gave 7"):
        pipeline.run(load(recipe, *wanted, "name=b", "evaluate.metrics.strange=own_metrics:strange"))
    with pytest.raises(ConfigError, match="has no 'missing'"):
        pipeline.run(load(recipe, *wanted, "name=c", "evaluate.metrics.x=own_metrics:missing"))
