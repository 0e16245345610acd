"""What a user gets who gave the wrong thing: the place, the reason, the remedy and the exit code, and no traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith import cli
from tunesmith.bench import Bench
from tunesmith.config import show
from tunesmith.types import Finding


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, its data, and things that are not what they are taken for."""
    rows = [json.dumps({"prompt": f"question {i}", "completion": f"answer {i}"}) for i in range(20)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "recipe.yaml").write_text(
        "name: wrong\ntask: chat\ndata: {train: train.jsonl, validation_share: 0.1}\nmodel: {name: demo}\n"
    )
    (tmp_path / "axolotl.yaml").write_text("base_model: x/y\nadapter: lora\ndatasets: [{path: a/b, type: alpaca}]\n")
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("prepare recipe.yaml output_dir=file", 4, ("file", "File exists", "set output_dir to a folder")),
        ("prepare recipe.yaml output_dir=file/runs", 4, ("file/runs", "Not a directory", "set output_dir")),
        ("data build maths --from train.jsonl -o file", 4, ("file: File exists", "name another folder")),
        ("prepare recipe.yaml data.train=https://host/a", 3, ("https://host/a", "addresses", "download it")),
        ("data build maths --from ftp://host/x -o new", 3, ("ftp://host/x", "addresses of this kind", "hf://")),
        ("train recipe.yaml --resume", 2, ("no run to resume", "tunesmith run RECIPE")),
        ("adopt axolotl.yaml -o folder", 4, ("folder: Is a directory", "name a file")),
        ("prepare recipe.yaml model.chat_template=gone.jinja", 5, ("gone.jinja", "cannot be read", "Jinja file")),
        ("prepare recipe.yaml model.chat_template=folder", 5, ("folder: the chat", "Is a directory", "Jinja file")),
        ("prepare recipe.yaml model.name=./nowhere", 5, ("nowhere", "there is no such folder", "a folder that exists")),
        ("show recipe.yaml train=3", 2, ("override train=3", "a mapping of settings, not 3", "section.key=value")),
        ("run recipe.yaml --max-cost 1", 2, ("max_cost needs", "remedy: set limits.price_per_hour")),
        ("show recipe.yaml limits.preemption_url=ftp://x", 2, ("preemption_url", "begins with http://", "correct the")),
        ("prepare recipe.yaml checkpoints.mirror=file", 4, ("file/wrong", "Not a directory", "can be written")),
        ("check recipe.yaml --quick task=gone:Task", 1, ("task.target", "cannot be imported", "beside the recipe")),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place_and_its_remedy(
    arguments: str,
    code: int,
    said: tuple[str, ...],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["tunesmith", *arguments.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capfd.readouterr()
    text = out + err
    assert end.value.code == code, text
    assert "Traceback" not in text
    assert not [one for one in said if one not in text], text


def test_what_is_interrupted_says_so_and_ends_with_75(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(loaded: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(show, "show_lines", interrupted)
    monkeypatch.setattr(sys, "argv", ["tunesmith", "show", "recipe.yaml"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 75
    assert "the same command continues" in capsys.readouterr().err


def test_a_recipe_is_written_into_a_folder_that_is_not_there_yet(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tunesmith", "adopt", "axolotl.yaml", "-o", "new/recipe.yaml"])
    cli.main()
    assert "x/y" in (here / "new" / "recipe.yaml").read_text()


def test_a_task_beside_the_recipe_is_found_from_anywhere_by_a_run_and_by_who_opens_it_again(
    recipe: Path, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (tmp_path / "pydantic.py").write_text("raise RuntimeError('a file beside a recipe hides no library')")
    for arguments in (["train", str(recipe)], ["resume", "runs/tiny"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", "from tunesmith.cli import main; main()", *arguments],
            capture_output=True, text=True, cwd=elsewhere, env=dict(os.environ), timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    assert (elsewhere / "runs" / "tiny" / "report.html").exists()


def test_a_finding_without_a_place_is_told_without_one() -> None:
    told: list[tuple[str, str]] = []
    bench = object.__new__(Bench)
    bench.announce = lambda stage, outcome: told.append((stage, outcome))
    bench.tell("check", [Finding("a", "warning", "it is hot"), Finding("b", "warning", "it is full", place="/disk")])
    assert told == [("check", "warning: it is hot"), ("check", "warning: /disk: it is full")]
