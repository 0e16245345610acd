"""The order of a run, on a random two-layer model: what it leaves behind, and what happens when it is called again."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from tunesmith import contest, pipeline
from tunesmith.config.load import load_config
from tunesmith.errors import ConfigError, DataError, ModelError, StoppedError, StorageError
from tunesmith.report.terminal import summary_text


def load(recipe, *overrides):
    return load_config(recipe, overrides, environ={})


def test_a_run_leaves_scores_exports_a_report_and_a_summary_that_agree(recipe, tmp_path):
    said = []
    summary = pipeline.run(load(recipe), announce=lambda stage, outcome: said.append((stage, outcome)))
    run = pipeline.run_dir(load(recipe).config)
    assert summary["status"] == "complete"
    assert [stage for stage, _ in said] == [
        "prepare",
        "self-test",
        "grade base",
        "receipt",
        "train",
        "grade tuned",
        "export",
        "export",
        "report",
    ]
    for model in ("base", "tuned"):
        rows = [json.loads(line) for line in run.scores(model, "mine").read_text().splitlines()]
        assert len(rows) == 2
        assert summary["scores"][model]["mine"]["n"] == 2
        assert summary["scores"][model]["mine"]["accuracy"] == sum(row["value"] for row in rows) / 2
    assert summary["paired"]["mine"].keys() >= {"difference", "low", "high", "p_value", "gained", "lost"}
    assert summary["data"]["dropped"] == 2  # the broken line, and the repeated one
    assert summary["training"]["steps"] == 3
    assert 0 < summary["training"]["parameters"]["share"] < 1
    assert [item["format"] for item in summary["exports"]] == ["adapter", "merged"]
    assert all(item["verified"]["same_text"] == item["verified"]["prompts"] for item in summary["exports"])
    assert summary["peak_rss_mb"] > 0
    assert summary["seconds"] >= summary["stages"]["train"] > 0
    assert run.report.read_text().startswith("<!doctype html>") or "<html" in run.report.read_text()[:200].lower()
    assert not list(run.root.rglob("*.bin"))
    events = [json.loads(line) for line in run.events.read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "log"] == [1, 2, 3]


def test_a_lexicon_is_learned_once_and_has_a_say_in_the_tuned_models_answers_alone(recipe):
    said = []
    asked = load(recipe, "exports=[]", "generate.beams=3", "generate.lexicon=0.5")
    summary = pipeline.run(asked, announce=lambda *line: said.append(line))
    run = pipeline.run_dir(asked.config)
    stages = [stage for stage, _ in said]
    assert stages.index("train") < stages.index("lexicon") < stages.index("grade tuned")
    learned = run.lexicon.read_bytes()
    tuned, base = (summary["scores"][model]["mine"] for model in ("tuned", "base"))
    assert tuned["parts"]["model_alone"]["n"] == 2 and "model_alone" not in base["parts"]
    assert "without the lexicon" in run.report.read_text(encoding="utf-8")
    assert "the tuned model without the lexicon: mine" in summary_text(summary, run.root)
    again = []
    run.scores("tuned", "mine").unlink()
    contest.evaluate_run(run.root, announce=lambda *line: again.append(line[0]))
    assert run.lexicon.read_bytes() == learned and "lexicon" not in again and "grade tuned" in again
    run.lexicon.write_bytes(b"torn")
    with pytest.raises(StorageError, match="is no lexicon"):
        contest.evaluate_run(run.root)


def test_the_saved_settings_are_a_recipe_that_means_the_same(recipe):
    pipeline.run(load(recipe, "exports=[]", "evaluate.base=false"))
    run = pipeline.run_dir(load(recipe).config)
    again = load_config(run.config, environ={}).config
    assert again == load(recipe, "exports=[]", "evaluate.base=false").config


def test_a_finished_run_is_not_run_again_and_fresh_sets_it_aside(recipe, tmp_path):
    first = pipeline.run(load(recipe, "exports=[]"))
    said = []
    second = pipeline.run(load(recipe, "exports=[]"), announce=lambda *line: said.append(line))
    assert second == first
    assert said == []
    pipeline.run(load(recipe, "exports=[]"), fresh=True)
    assert (tmp_path / "runs" / "tiny.old1" / "run.json").exists()


def test_a_run_that_was_killed_between_its_end_and_its_report_gets_one(recipe):
    pipeline.run(load(recipe))
    report = pipeline.run_dir(load(recipe).config).report
    report.unlink()
    assert pipeline.run(load(recipe))["status"] == "complete"
    assert report.exists()


def test_other_settings_under_the_same_name_are_refused(recipe):
    pipeline.run(load(recipe, "exports=[]"))
    with pytest.raises(ConfigError, match="train.learning_rate: 0.01 then, 0.5 now") as error:
        pipeline.run(load(recipe, "exports=[]", "train.learning_rate=0.5"))
    assert "--fresh" in error.value.remedy


def test_a_run_that_failed_before_its_first_step_is_begun_anew_with_the_setting_put_right(recipe, tmp_path):
    with pytest.raises(DataError, match="max_length"):
        pipeline.run(load(recipe, "exports=[]", "data.max_length=8"))
    said = []
    asked = load(recipe, "exports=[]", "data.max_length=512")
    assert pipeline.run(asked, announce=lambda *line: said.append(line))["status"] == "complete"
    assert said[0][0] == "run" and str(tmp_path / "runs" / "tiny.old1") in said[0][1]
    with pytest.raises(ConfigError, match="max_length: 512 then, 8 now"):
        pipeline.run(load(recipe, "exports=[]", "data.max_length=8"))


def test_a_folder_that_others_look_at_is_not_set_aside(recipe, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="max_length"):
        pipeline.run(load(recipe, "exports=[]", "data.max_length=8"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="max_length: 8 then, 512 now"):
        pipeline.run(load(recipe, "exports=[]", "data.max_length=512"))
    assert not (tmp_path / "runs" / "tiny.old1").exists()


def test_a_failed_run_says_so_and_the_same_call_continues_it(recipe, monkeypatch):
    import tunesmith.export

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tunesmith.export, "export", full)
        with pytest.raises(OSError, match="No space"):
            pipeline.run(load(recipe))
    run = pipeline.run_dir(load(recipe).config)
    failed = pipeline.read_summary(run)
    assert failed["status"] == "failed"
    adapter = {p.name: p.read_bytes() for p in run.adapter.iterdir()}
    summary = pipeline.run(load(recipe))
    assert summary["status"] == "complete"
    assert {p.name: p.read_bytes() for p in run.adapter.iterdir()} == adapter
    assert summary["seconds"] > failed["seconds"] > 0


def test_resume_without_a_run_is_refused(recipe):
    with pytest.raises(ConfigError, match="no run to resume"):
        pipeline.run(load(recipe), resume=True)


def test_training_alone_can_be_evaluated_and_exported_later(recipe):
    trained = pipeline.train_only(load(recipe))
    root = pipeline.run_dir(load(recipe).config).root
    assert "scores" not in trained
    graded = contest.evaluate_run(root)
    assert graded["scores"]["tuned"]["mine"]["n"] == 2
    exported = pipeline.export_run(root)
    assert {item["format"] for item in exported["exports"]} == {"adapter", "merged"}


def test_a_run_whose_data_is_broken_stops_before_anything_is_trained(recipe, tmp_path):
    (tmp_path / "train.jsonl").write_text("{broken\n" * 5)
    with pytest.raises(DataError):
        pipeline.run(load(recipe))
    run = pipeline.run_dir(load(recipe).config)
    assert pipeline.read_summary(run)["status"] == "failed"
    assert not run.adapter.exists()


def test_the_full_model_can_be_trained_without_adapters(recipe):
    summary = pipeline.run(load(recipe, "lora=null", "exports=[{format: merged, dtype: float32}]"))
    assert summary["training"]["parameters"]["share"] == 1.0
    assert summary["status"] == "complete"


# --- stopped, continued, in use ---------------------------------------------------------------------------------------


def test_a_run_that_is_grading_stops_at_once_and_the_same_call_continues(recipe, monkeypatch):
    import capitals_task

    asked = []

    def slow(*_):
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    quick = ("exports=[]", "evaluate.base=false", "evaluate.self_test=0")
    with monkeypatch.context() as patch:
        patch.setattr(capitals_task.Capitals, "grade", slow)
        with pytest.raises(StoppedError, match="SIGTERM") as stopped:
            pipeline.run(load(recipe, *quick))
    assert stopped.value.exit_code == 75 and time.monotonic() - asked[0] < 25
    run = pipeline.run_dir(load(recipe).config)
    assert pipeline.read_summary(run)["status"] == "stopped" and run.adapter.exists()
    assert pipeline.run(load(recipe, *quick))["status"] == "complete"


def test_limits_logging_and_memory_may_change_while_a_run_is_continued(recipe):
    with pytest.raises(StoppedError, match=r"limits.max_hours(.|\n)*a higher --max-hours continues"):
        pipeline.train_only(load(recipe, "limits.max_hours=0.0000001"))
    summary = pipeline.train_only(
        load(recipe, "limits.max_hours=1", "train.max_tokens=64", "train.logging_steps=3", "checkpoints.keep_last=2")
    )
    assert summary["status"] == "trained"


def test_a_run_in_use_is_left_alone_by_every_verb(recipe):
    with pipeline.open_run(load(recipe)) as bench:
        assert bench is not None
        for verb in (pipeline.run, pipeline.train_only):
            with pytest.raises(StorageError, match=f"in use by process {os.getpid()}"):
                verb(load(recipe))
        with pytest.raises(StorageError, match="in use"):
            pipeline.run(load(recipe), fresh=True)
        assert bench.run.root.exists()


def test_a_trained_adapter_that_was_changed_is_not_graded(recipe):
    pipeline.train_only(load(recipe))
    run = pipeline.run_dir(load(recipe).config)
    weights = run.adapter / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="adapter_model.safetensors is not what was written when training ended"):
        pipeline.run(load(recipe))


def test_training_data_that_vanished_between_two_calls_is_named(recipe, tmp_path):
    with pytest.raises(StoppedError):
        pipeline.train_only(load(recipe, "limits.max_hours=0.0000001"))
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match="train.jsonl") as gone:
        pipeline.train_only(load(recipe))
    assert gone.value.exit_code == 3
