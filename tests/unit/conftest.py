"""What several rooms are tested with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BucketServer
from emulator import Answer, Emulator

from tunesmith import endpoint
from tunesmith.checkpoints import replicate


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], Emulator]]:
    """Start an OpenAI-compatible server that answers as a function says; retries do not wait."""
    started: list[Emulator] = []
    monkeypatch.setattr(endpoint.time, "sleep", lambda seconds: None)

    def start(answer: Answer) -> Emulator:
        started.append(Emulator(answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    """A bucket at both `s3://bucket` and `gs://bucket`, that can be told to fail; what fails is tried again at once."""
    with BucketServer() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("TUNESMITH_STORAGE_TIMEOUT", "2")
        monkeypatch.setattr(replicate, "FIRST_WAIT", 0.05)
        yield server


TASK = """
from tunesmith.types import Example, Message, Score

class Capitals:
    name, version = "capitals", "1"
    def examples(self, record):
        country, capital = record.fields["country"], record.fields["capital"]
        yield Example(record.id, (Message("system", "Name the capital of the country. " * 4), Message("user", country),
                                  Message("assistant", capital, train=True)), target=capital, place=record.place,
                      meta={"question": country})
    def grade(self, example, completion):
        right = completion.strip() == example.target
        return Score(float(right), failure="" if right else "wrong")
    def constraint(self, example):
        return None
    def close(self):
        pass
"""
PAIRS = {"Peru": "Lima", "Chile": "Santiago", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana", "Ghana": "Accra"}


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Any) -> Iterator[Path]:
    """A recipe of a tiny task with a tiny model: a run of it takes seconds."""
    (tmp_path / "capitals_task.py").write_text(TASK)
    lines = [json.dumps({"country": k, "capital": v}) for k, v in PAIRS.items()]
    (tmp_path / "train.jsonl").write_text("\n".join(lines[:4] + [lines[0], "{broken"]) + "\n")
    (tmp_path / "test.jsonl").write_text("\n".join(lines[4:]) + "\n")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
name: tiny
task: capitals_task:Capitals
data: {{train: train.jsonl, test: {{mine: test.jsonl}}, validation_share: 0, max_dropped: 0.4}}
model: {{name: {tiny_model_dir("mistral")}}}
lora: {{r: 4, target_modules: all-linear}}
train: {{max_steps: 3, batch_size: 2, logging_steps: 1, learning_rate: 1e-2}}
generate: {{max_new_tokens: 6}}
exports: [{{format: adapter}}, {{format: merged, dtype: float32}}]
""")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield path
    sys.modules.pop("capitals_task", None)
