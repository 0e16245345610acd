"""The families of findings, each on a recipe that is fine and on one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.check import FAMILIES, QUICK, CheckResult, check
from tunesmith.config.load import Loaded, load_config
from tunesmith.types import Finding

RECORDS = [
    {"messages": [
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": f"How many legs have {n} cats?"},
        {"role": "assistant", "content": f"{4 * n} legs."},
    ]}
    for n in range(1, 41)
]  # fmt: skip


@pytest.fixture
def recipe(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> Callable[..., Loaded]:
    """`recipe("train.max_steps=3", records=[...], **sections)`: a healthy chat recipe with changes."""

    def make(*overrides: str, records: list[Any] | None = None, **sections: Any) -> Loaded:
        rows = RECORDS if records is None else records
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        settings = {
            "name": "cats", "task": "chat", "output_dir": str(tmp_path / "runs"), "data": {"train": "train.jsonl"},
            "model": {"name": str(tiny_model_dir("mistral"))}, "tracking": {"report_to": []}, **sections,
        }  # fmt: skip
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(settings))
        return load_config(tmp_path / "recipe.yaml", overrides, environ={})

    return make


def named(result: CheckResult, level: str = "error") -> set[str]:
    return {finding.check for finding in result.findings if finding.level == level}


def test_a_healthy_recipe_has_nothing_to_mend(recipe: Any) -> None:
    result = check(recipe())
    assert result.passed and named(result) == set() and named(result, "warning") == set()
    figures = next(family.figures for family in result.families if family.name == "labels")
    assert figures["rows proved"] == 40 and figures["rows/s"] > 0
    assert [family.name for family in result.families] == list(FAMILIES)


def test_every_error_says_where_what_it_costs_and_what_mends_it(recipe: Any) -> None:
    found = [
        *check(recipe("train.dataloader_prefetch_factor=2", "lora.target_modules=[nope]"), quick=True).errors,
        *check(recipe(records=[{"messages": "nothing"}] * 5)).errors,
        *check(recipe("data.max_length=8", "tracking.report_to=[wandb]", "tracking.project=p")).errors,
    ]
    assert len(found) >= 5
    for finding in found:
        assert all((finding.message, finding.place, finding.cost, finding.remedy)), asdict(finding)


def test_a_setting_that_nothing_reads_is_an_error_where_it_was_written_for_this(recipe: Any) -> None:
    result = check(recipe(train={"dataloader_prefetch_factor": 3}), families=["recipe"])
    assert named(result) == {"recipe.ignored"}
    assert "recipe.yaml" in result.errors[0].place and "dataloader_num_workers" in result.errors[0].remedy


def test_a_setting_under_a_stronger_one_is_a_note(recipe: Any) -> None:
    result = check(recipe("train.warmup_steps=5", train={"warmup_ratio": 0.1}), families=["recipe"])
    assert result.passed and named(result, "info") >= {"recipe.gives_way"}


def test_a_default_that_nothing_reads_is_no_finding(recipe: Any) -> None:
    assert check(recipe("train.max_steps=5"), families=["recipe"]).errors == ()


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["lora.target_modules=[q_proj, banana]"], "model.no_such_layer"),
        (["lora.modules_to_save=[banana]"], "model.no_such_layer"),
        (["data.max_length=100000"], "model.context"),
        (["model.name=/nowhere/at/all"], "model.missing"),
        (["exports=[{format: merged, max_shard_size: huge}]"], "exports.shard_size"),
        (["exports=[{format: adapter}, {format: adapter}]"], "exports.overwritten"),
        (["tracking.report_to=[comet_ml]"], "tracker.missing_package"),
        (["data.test={again: ${PWD}/train.jsonl}"], "sources.same_file"),
        (["data.train=missing.jsonl"], "sources.unreadable"),
        (["data.train={path: train.jsonl, where: {half: other}}"], "sources.nothing_matches"),
        (["data.validation={path: train.jsonl, split: test}"], "recipe.ignored"),
        (["model.attn_implementation=flash_attention_2"], "environment.missing_package"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)
def test_what_is_wrong_is_found_without_torch(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe()
    filled = [override.replace("${PWD}", str(tmp_path)) for override in overrides]
    assert name in named(check(load_config(tmp_path / "recipe.yaml", filled, environ={}), quick=True))


def test_quick_imports_no_torch_and_is_quick(recipe: Any, tmp_path: Path) -> None:
    recipe()
    code = (
        "import sys, time; from pathlib import Path; start = time.process_time()\n"
        "from tunesmith.check import check; from tunesmith.config.load import load_config\n"
        f"result = check(load_config(Path({str(tmp_path / 'recipe.yaml')!r}), environ={{}}), quick=True)\n"
        "assert result.passed, result.text()\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1.0


def test_a_disk_that_is_too_small_is_found_before_the_run(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000, "total": 1000})())
    assert named(check(recipe(), families=["disk"])) == {"disk.full"}


def test_a_folder_that_cannot_be_written_is_found(recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = check(recipe(f"output_dir={tmp_path / 'file' / 'runs'}"), families=["storage"])
    assert named(result) == {"storage.unwritable"}


def test_a_round_trip_leaves_nothing_behind(recipe: Any, tmp_path: Path) -> None:
    loaded = recipe()
    assert check(loaded, families=["storage"]).passed
    assert not loaded.config.output_dir.exists()


def test_credentials_are_looked_for_and_never_shown(recipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.check.tracker.find_spec", lambda name: True)
    loaded = recipe("tracking.report_to=[wandb]")
    without = check(loaded, families=["tracker"], environ={"HOME": "/nowhere"})
    assert named(without) == {"tracker.no_credentials"}
    with_key = check(loaded, families=["tracker"], environ={"HOME": "/nowhere", "WANDB_API_KEY": "canary-4711"})
    assert with_key.passed and "canary-4711" not in with_key.text()


def test_weights_that_are_cut_off_are_found(recipe: Any, tmp_path: Path, tiny_model_dir: Any) -> None:
    import shutil

    copy = tmp_path / "model"
    shutil.copytree(tiny_model_dir("mistral"), copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "model.broken" in named(check(recipe(f"model.name={copy}"), families=["model"]))


def test_a_family_that_depends_on_a_faulty_one_is_not_looked_at(recipe: Any) -> None:
    result = check(recipe("data.train=missing.jsonl"))
    assert {f.name for f in result.families if f.skipped} == {
        "template",
        "data",
        "labels",
        "leakage",
        "memory",
        "grader",
    }


def test_the_result_is_saved_whole_and_can_be_read_back(recipe: Any, tmp_path: Path) -> None:
    result = check(recipe("train.dataloader_prefetch_factor=2"), families=QUICK)
    result.save(tmp_path / "deep" / "check.json")
    read = json.loads((tmp_path / "deep" / "check.json").read_text())
    assert read["passed"] is False and read["error"] == 1
    assert read["families"][0]["findings"][0]["check"] == "recipe.ignored"


def test_findings_and_their_text_hold_no_secret() -> None:
    from tunesmith.check.result import FamilyResult

    finding = Finding("x", "error", "the token hf_abcdefghijklmnop is wrong")
    result = CheckResult("r", (FamilyResult("x", (finding,), 0.0),))
    assert "hf_abc" not in result.text() and "hf_abc" not in json.dumps(result.figures())


def test_the_check_of_a_run_uses_rows_that_the_run_finds_ready(recipe: Any) -> None:
    loaded = recipe()
    check(loaded)
    assert len(list((loaded.config.output_dir / ".cache").glob("*/MANIFEST.json"))) == 1


def test_the_saved_settings_of_a_run_are_a_recipe_without_mistakes(tmp_path):
    from tunesmith.check.idle import ignored
    from tunesmith.config.load import load_config
    from tunesmith.config.show import dump_config

    (tmp_path / "recipe.yaml").write_text("task: chat\ndata: {train: a.jsonl}\nmodel: {name: demo}\n")
    loaded = load_config(tmp_path / "recipe.yaml", environ={})
    (tmp_path / "saved.yaml").write_text(dump_config(loaded.config))
    assert ignored(load_config(tmp_path / "saved.yaml", environ={})) == []


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere/key.json"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ({"AWS_ACCESS_KEY_ID": "AKIACANARY"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_SECRET_ACCESS_KEY": "canary"}, "AWS_ACCESS_KEY_ID"),
        ({"HF_TOKEN": "hf_canary "}, "HF_TOKEN"),
    ],
)
def test_a_credential_that_cannot_be_used_is_told_with_the_command_that_gets_one(
    environ: dict[str, str], place: str
) -> None:
    from tunesmith.check.doctor import examine_machine

    machine = examine_machine({"HOME": "/nowhere", **environ})
    (finding,) = [one for one in machine.findings if one.check == "doctor.credentials"]
    assert finding.place == place and finding.cost and finding.remedy
    assert "canary" not in machine.text().lower()
    assert "wandb login" in machine.text()
