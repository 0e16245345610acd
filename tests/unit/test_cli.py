from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "recipes" / "sql" / "demo.yaml")
VERBS = [
    "run",
    "train",
    "prepare",
    "evaluate",
    "export",
    "report",
    "resume",
    "show",
    "adopt",
    "data build",
    "data show",
    "data stats",
]


def tunesmith(*arguments: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("TUNESMITH")}
    return subprocess.run(
        [sys.executable, "-c", "from tunesmith.cli import main; main()", *arguments],
        capture_output=True, text=True, cwd=cwd, env={**clean, **environ}, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_is_there_for_every_verb_and_needs_neither_torch_nor_a_second(verb):
    probe = (
        "import sys, time\n"
        "from tunesmith.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    code = end.code or 0\n"
        "else:\n    code = 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'pandas'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy), 'CODE', code, 'CPU', time.process_time(), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *verb.split(), "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "HEAVY [] CODE 0" in done.stderr, done.stderr
    assert "Usage:" in done.stdout
    assert float(done.stderr.split("CPU")[1]) < 1.0


def test_importing_the_package_imports_nothing_heavy_and_resolves_its_names():
    probe = (
        "import sys, tunesmith, tunesmith.config.load, tunesmith.tasks\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules), sorted(sys.modules)\n"
        "for name in tunesmith.__all__:\n    getattr(tunesmith, name)\n"
        "print(len(tunesmith.__all__))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", probe], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


def test_show_prints_every_setting_with_its_origin(tmp_path):
    done = tunesmith("show", DEMO, "train.max_steps=7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "train.max_steps: 7" in done.stdout
    line = next(line for line in done.stdout.splitlines() if line.startswith("train.max_steps"))
    assert "override" in line
    assert "recipe demo.yaml:" in done.stdout
    machine = json.loads(tunesmith("show", DEMO, "--json", cwd=tmp_path).stdout)
    assert machine["seed"]["origin"].startswith("recipe demo.yaml:")


def test_the_flags_of_the_documents_become_settings(tmp_path):
    done = tunesmith(
        "run", DEMO, "--show-config", "--experiment-name", "mine", "--max-steps", "9", "--learning-rate", "1e-3",
        "--output-dir", "elsewhere", "--no-save", "--set", "train.batch_size=8", "--override", "seed=5", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for said in (
        "name: mine",
        "train.max_steps: 9",
        "train.learning_rate: 0.001",
        "train.batch_size: 8",
        "seed: 5",
        "exports: []",
    ):
        assert said in done.stdout
    assert f"output_dir: {tmp_path}/elsewhere" in done.stdout
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["run", DEMO, "train.learnng_rate=1"], 2, "learning_rate"),
        (["run", DEMO, "--resume", "--output-dir", "empty"], 2, "no run to resume"),
        (["evaluate", "nothing-here"], 2, "no trained run"),
        (["export", "nothing-here"], 2, "no trained run"),
        (["report", "nothing-here"], 2, "no run here"),
        (["resume", "nothing-here"], 2, "no run to resume"),
        (["run"], 2, "'recipe'"),
        (["dance"], 2, "dance"),
        (["run", DEMO, "--max-steps", "many"], 2, "--max-steps"),
        (["data", "build", "own.yaml"], 2, "builds no data"),
    ],
)
def test_wrong_usage_is_named_with_a_remedy_and_no_traceback(tmp_path, arguments, code, said):
    (tmp_path / "own.yaml").write_text("task: mine:Mine\nmodel: {name: demo}\ndata: {train: x.jsonl}\n")
    done = tunesmith(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_error_has_its_own_exit_code(tmp_path):
    (tmp_path / "chat.yaml").write_text("task: chat\nmodel: {name: demo}\ndata: {train: gone.jsonl}\n")
    done = tunesmith("prepare", "chat.yaml", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "gone.jsonl" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_storage_error(tmp_path):
    # The run folder is a link to a device that takes nothing.
    (tmp_path / "runs").mkdir()
    (tmp_path / "chat.yaml").write_text("name: r\ntask: chat\nmodel: {name: demo}\ndata: {train: t.jsonl}\n")
    (tmp_path / "t.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "runs" / "r").mkdir()
    (tmp_path / "runs" / "r" / "mask.json").symlink_to("/dev/full")
    done = tunesmith("prepare", "chat.yaml", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "free some disk space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_in_an_error_is_masked(tmp_path):
    (tmp_path / "r.yaml").write_text(
        "task: {name: sql, server: 'postgresql://u:hunter2secret@h/db'}\nmodel: {name: demo}\n"
    )
    done = tunesmith("show", "r.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "hunter2secret" not in done.stderr + done.stdout


def test_the_version_is_printed():
    assert tunesmith("--version").stdout.startswith("tunesmith 0.")
