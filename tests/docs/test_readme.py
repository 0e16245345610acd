"""The README's commands, run as a reader would, made small by environment variables; and its figures, as measured."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.config.schema import SqlTask
from tunesmith.tasks.sql.postgres import open_server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.S)
COMMANDS = [
    line.split("  #")[0].strip()
    for kind, block in BLOCKS
    if kind == "sh"
    for line in block.splitlines()
    if line.strip()
]
SMALL = {
    "TUNESMITH__TASK__BUILD__EXAMPLES": "1200",
    "TUNESMITH__TASK__BUILD__TEST_EXAMPLES": "4",
    "TUNESMITH__TRAIN__MAX_STEPS": "2",
    "TUNESMITH__TRAIN__BATCH_SIZE": "8",
    "TUNESMITH__EVALUATE__MAX_SAMPLES": "3",
}


def test_every_command_of_the_readme_is_one_that_these_tests_know():
    known = re.compile(
        r"make (demo|test)$|export TUNESMITH_POSTGRES_URL=\S+ TUNESMITH_DATABASE=\S+$"
        r"|tunesmith (run|show|adopt|data (stats|show)) "
    )
    assert COMMANDS
    assert [command for command in COMMANDS if not known.match(command)] == []


@pytest.mark.parametrize(
    "target", ["demo", "test", "check", "train-quick", "train", "train-custom CONFIG=x.yaml", "docs"]
)
def test_make_knows_its_targets_and_runs_what_is_there(target):
    done = subprocess.run(["make", "-n", *target.split()], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for recipe in re.findall(r"recipes/\S+\.yaml", done.stdout):
        assert (ROOT / recipe).exists()


def test_a_custom_recipe_must_be_named():
    make = subprocess.run(
        ["make", "-s", "-o", ".venv/ready", "train-custom"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert make.returncode != 0
    assert "CONFIG=my.yaml" in make.stderr


@pytest.mark.parametrize(
    "command", [c for c in COMMANDS if c.startswith("tunesmith ") and "recipes/sql/demo.yaml" in c]
)
def test_the_readmes_commands_work(command, tmp_path):
    run(command, tmp_path)


def test_adopting_an_old_config_works_as_the_readme_says(tmp_path):
    command = next(c for c in COMMANDS if c.startswith("tunesmith adopt"))
    (tmp_path / command.split()[-1]).write_text(
        "base_model: org/model\nlearning_rate: 2e-4\nmicro_batch_size: 2\ngradient_accumulation_steps: 4\n"
        "datasets:\n  - path: data.jsonl\n    type: chat_template\nsample_packing: true\n"
    )
    done = run(command, tmp_path)
    assert "batch_size: 8" in done.stdout


def test_the_demo_runs_whole_when_made_small(tmp_path):
    run("tunesmith run recipes/sql/demo.yaml", tmp_path)
    summary = json.loads((tmp_path / "runs" / "sql-demo" / "run.json").read_text())
    assert summary["status"] == "complete"
    for model in ("base", "tuned"):
        for name in ("built", "handwritten"):
            assert summary["scores"][model][name].keys() >= {"accuracy", "low", "high", "n"}
    assert (tmp_path / "runs" / "sql-demo" / "report.html").stat().st_size > 50_000


def test_a_database_of_ones_own_is_built_from_and_tuned_on_as_the_readme_says(tmp_path):
    """The two commands of the README, with a server on this machine in the part of the reader's."""
    command = next(c for c in COMMANDS if "own-database.yaml" in c)
    company = ROOT / "recipes" / "sql" / "company" / "company.sql"
    with open_server(SqlTask(databases={"company": company}), {}) as server:
        server.run("company", "SELECT 1")
        url = server._home._server.url("tunesmith_gold", "company")
        run(command, tmp_path, TUNESMITH_POSTGRES_URL=url, TUNESMITH_DATABASE="company")
    summary = json.loads((tmp_path / "runs" / "own-database" / "run.json").read_text())
    assert summary["status"] == "complete"
    assert summary["scores"]["tuned"].keys() == {"built", "unseen"}


@pytest.mark.parametrize("code", [block for kind, block in BLOCKS if kind == "python"])
def test_the_readmes_python_runs(code):
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def run(command: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [str(ROOT / word) if word.startswith("recipes/") else word for word in shlex.split(command)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TUNESMITH")}
    done = subprocess.run(
        [sys.executable, "-c", "from tunesmith.cli import main; main()", *words[1:]],
        cwd=folder, env={**clean, **SMALL, **environ}, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip()
    return done
