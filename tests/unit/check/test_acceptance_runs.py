"""The rest of the faults that real pipelines had (see `test_acceptance.py`): those that show when something runs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from bucket_server import BucketServer, Fault, Request

from tunesmith import pipeline
from tunesmith.check import check
from tunesmith.config.load import load_config
from tunesmith.errors import StorageError
from tunesmith.evaluate.selection import Selector

ROOT = Path(__file__).parents[3]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
GENEROUS = '''
from tunesmith.types import Example, Message, Score

class Calls:
    """Any call of a tool that exists earns the reward; the right one is never looked at."""

    name, version = "calls", "1"
    def examples(self, record):
        yield Example(record.id, (Message("user", record.fields["question"]),
                                  Message("assistant", record.fields["call"], train=True)),
                      target=record.fields["call"], place=record.place)
    def grade(self, example, completion):
        return Score(float(completion.startswith("weather(")))
    def constraint(self, example):
        return None
    def close(self):
        pass
'''


def recipe_in(folder: Path, model: Path, **sections: Any) -> Path:
    """A recipe of the chat task on a few conversations, with a tiny model."""
    turns = [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": "One."}]
    lines = [json.dumps({"messages": [{**turns[0], "content": f"Say {n}."}, turns[1]]}) for n in range(12)]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    settings = {
        "name": "x", "task": "chat", "output_dir": str(folder / "runs"), "model": {"name": str(model)},
        "data": {"train": "train.jsonl", "validation_share": 0}, "tracking": {"report_to": []}, "lora": {"r": 2},
        "train": {"max_steps": 4, "batch_size": 2, "logging_steps": 1}, "exports": [], **sections,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return folder / "recipe.yaml"


def test_s10_a_reward_that_never_looks_at_the_right_answer_is_found_by_the_red_team(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "generous_calls.py").write_text(GENEROUS)
    recipe = recipe_in(tmp_path, tiny_model_dir("llama"), task="generous_calls:Calls")
    lines = [json.dumps({"question": f"Is it warm in town {n}?", "call": f"weather('town {n}')"}) for n in range(40)]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:20]) + "\n")
    (tmp_path / "test.jsonl").write_text("\n".join(lines[20:]) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = check(load_config(recipe, [f"data.test={{mine: {tmp_path / 'test.jsonl'}}}"], environ={}))
    found = {finding.check: finding for finding in result.findings}
    assert not result.passed and "answers to other questions score 100.0%" in found["grader.self_test"].message
    assert "without solving anything" in found["grader.hack_gain"].message


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.relative_to(ROOT / "recipes").as_posix())
def test_s12_every_recipe_that_we_ship_passes_our_own_validator(recipe: Path) -> None:
    """`tests/recipes` trains them, too."""
    named = set(re.findall(r"\$\{(\w+)", "".join(one.read_text() for one in RECIPES)))
    loaded = load_config(recipe, environ={name: f"some_{name.lower()}" for name in named})
    result = check(loaded, families=["recipe"], environ={})
    assert result.errors == ()


def test_s14_an_upload_that_fails_ends_the_run_with_an_error_and_lands_only_where_it_was_told_to(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path], bucket: BucketServer
) -> None:
    recipe = recipe_in(tmp_path, tiny_model_dir("llama"), checkpoints={"mirror": "s3://bucket/mine", "save_steps": 2})
    bucket.fault = lambda request: Fault("status", 403)
    refused = check(load_config(recipe, environ={}), families=["storage"])
    assert [finding.check for finding in refused.errors] == ["storage.mirror"]
    assert "checkpoints.mirror: s3://bucket/mine" in refused.errors[0].place

    def later(request: Request) -> Fault | None:
        snapshots = [key for key in bucket.objects if re.search(r"/\d{10}\.json$", key)]
        return Fault("status", 403) if request.method == "PUT" and snapshots else None

    bucket.fault = later
    with pytest.raises(StorageError) as stopped:
        pipeline.run(load_config(recipe, environ={}))
    assert stopped.value.exit_code == 4
    assert bucket.objects and all(key.startswith("mine/") for key in bucket.objects)
    bucket.fault = None
    assert pipeline.run(load_config(recipe, environ={}))["status"] == "complete"


def test_s17_a_packed_model_is_counted_by_its_weights_and_a_card_states_only_what_was_measured(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path]
) -> None:
    from tunesmith.config.schema import Model, Quantization
    from tunesmith.export.card import card_facts, write_card
    from tunesmith.model.load import count_parameters, load_model

    folder = str(tiny_model_dir("llama"))
    whole = load_model(Model(name=folder), precision="fp32", device="cpu")
    packed = load_model(Model(name=folder, quantization=Quantization(bits=4)), precision="fp32", device="cpu")
    assert sum(p.numel() for p in packed.parameters()) < sum(p.numel() for p in whole.parameters())
    assert count_parameters(packed).total == count_parameters(whole).total

    loaded = load_config(recipe_in(tmp_path, Path(folder)), environ={})
    run = pipeline.run_dir(loaded.config)
    run.root.mkdir(parents=True)
    assert "has not been graded" in write_card(run.root, card_facts(loaded.config, run, "adapter")).read_text()
    summary = {"data": {"rows": 12, "trained": 11, "validation": 0, "test": 0, "dropped": 1}}
    scores = {"tuned": {"mine": {"n": 4, "accuracy": 0.5, "low": 0.15, "high": 0.85}}}
    run.summary.write_text(json.dumps({**summary, "scores": scores}))
    card = write_card(run.root, card_facts(loaded.config, run, "adapter")).read_text()
    assert "| mine | 4 | not graded | 50.0 % (15.0 to 85.0) | not compared |" in card
    assert "12 rows read = 11 trained on + 0 for validation + 0 for test + 1 dropped" in card


def test_s18_what_a_run_saves_is_plain_yaml_and_json_and_loads_as_the_same_recipe(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_config(recipe_in(tmp_path, tiny_model_dir("llama")), environ={})
    pipeline.run(loaded)
    run = pipeline.run_dir(loaded.config)
    saved = [path for path in run.root.rglob("*") if path.suffix in (".yaml", ".json", ".jsonl")]
    assert {run.config, run.summary, run.receipt, run.check, run.events} <= set(saved)
    for path in saved:
        text = path.read_text(encoding="utf-8")
        assert "!!python" not in text
        if path.suffix == ".yaml":
            yaml.safe_load(text)
        for part in text.splitlines() if path.suffix == ".jsonl" else [text] if path.suffix == ".json" else []:
            json.loads(part)
    again = load_config(run.config, environ={}).config
    assert again.model_copy(update={"output_dir": loaded.config.output_dir}) == loaded.config


def test_s20_a_run_that_was_best_at_44_percent_of_its_length_ends_early_and_keeps_that_checkpoint() -> None:
    selector, length, best = Selector(seed=0), 25, 11
    for at in range(1, length + 1):
        share = 0.2 + 0.6 * at / best if at <= best else 0.8 - 0.3 * (at - best) / (length - best)
        scores = {str(one): float(one / 200 < share) for one in range(200)}
        if selector.observe(100 * at, scores, 1.0, length - at).stop:
            break
    assert selector.best_step == 100 * best
    assert at < length, "the run is not paid for to its end"


def test_s21_what_a_run_waits_for_its_rows_is_measured_and_shown(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    from tunesmith.train.steps import Steps

    usual = Steps.__getitem__
    monkeypatch.setattr(Steps, "__getitem__", lambda self, at: time.sleep(0.3) or usual(self, at))
    loaded = load_config(recipe_in(tmp_path, tiny_model_dir("llama")), ["train.max_steps=6"], environ={})
    pipeline.train_only(loaded)
    events = map(json.loads, pipeline.run_dir(loaded.config).events.read_text().splitlines())
    shares = [event["waiting_share"] for event in events if event.get("waiting_share") is not None]
    assert shares and max(shares) > 0.5
