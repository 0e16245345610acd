"""A real process that is told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml


@pytest.mark.crash
@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_a_checkpoint_exits_75_and_the_same_command_finishes(
    tmp_path: Path, tiny_model_dir: Callable[[str], Path], workers: int
) -> None:
    data = tmp_path / "train.jsonl"
    with data.open("w") as file:
        for at in range(40):
            turns = [{"role": "user", "content": f"say {at}"}, {"role": "assistant", "content": f"it is {at}"}]
            file.write(json.dumps({"messages": turns}) + "\n")
    recipe = tmp_path / "recipe.yaml"
    settings = {
        "name": "run", "output_dir": str(tmp_path / "runs"), "task": "chat", "data": {"train": str(data)},
        "model": {"name": str(tiny_model_dir("mistral"))}, "lora": {"r": 4}, "tracking": {"report_to": []},
        "train": {"max_steps": 300, "batch_size": 4, "logging_steps": 1, "dataloader_num_workers": workers},
        "exports": [],
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(settings))
    program = "import sys; from tunesmith.cli import main; sys.argv[0] = 'tunesmith'; main()"
    command = [sys.executable, "-c", program, "train", str(recipe)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    events = tmp_path / "runs" / "run" / "events.jsonl"
    deadline = time.monotonic() + 240
    while not (events.exists() and events.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert "with a checkpoint" in said and "the same command continues" in said
    checkpoints = list((tmp_path / "runs" / "run" / "checkpoints").glob("checkpoint-*/MANIFEST.json"))
    assert len(checkpoints) == 1
    stopped = json.loads(checkpoints[0].read_text())["step"]
    assert 3 <= stopped < 300
    again = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert again.returncode == 0, again.stderr
    steps = [json.loads(line)["step"] for line in events.read_text().splitlines() if '"log"' in line]
    assert steps == list(range(1, 301))
