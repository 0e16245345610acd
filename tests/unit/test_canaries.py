"""Twenty-five planted secrets appear in no byte that we write: a run, a mirror, a log, an error, a card, a page."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket_server import BucketServer

from tunesmith import cli, pipeline
from tunesmith.config.load import load_config
from tunesmith.config.secrets import Redacting, redact, secret_values
from tunesmith.errors import ConfigError

PASSWORD = "canary-23-pass"
CANARIES = {
    "HF_TOKEN": "hf_canary01canary01canary01",
    "HUGGING_FACE_HUB_TOKEN": "canary02plainhubtoken",
    "AWS_ACCESS_KEY_ID": "AKIACANARY03CANARY03",
    "AWS_SECRET_ACCESS_KEY": "canary04/wJalrXUtnFEMI/K7MDENG/bPxRfi",
    "AWS_SESSION_TOKEN": "canary05FwoGZXIvYXdzEBYaDH",
    "WANDB_API_KEY": "canary06deadbeefdeadbeefdeadbeefdeadbeef",
    "COMET_API_KEY": "canary07AbCdEfGhIjKlMnOpQ",
    "OPENAI_API_KEY": "sk-canary08canary08canary08",
    "ANTHROPIC_API_KEY": "sk-ant-canary09canary09",
    "GITHUB_TOKEN": "ghp_canary10canary10canary10",
    "GOOGLE_API_KEY": "AIzacanary11canary11canary11canary11ca",
    "QDRANT_API_KEY": "canary12-qdrant",
    "PGPASSWORD": "canary13 with a space",
    "MYSQL_PASSWORD": "canary14\u0111\u1ed3ng",
    "SLACK_BOT_TOKEN": "xoxb-canary15-canary15",
    "AZURE_CLIENT_SECRET": "canary16~azure.secret",
    "KAGGLE_KEY": "canary17kagglekaggle",
    "DOCKER_PASSWORD": "canary18docker",
    "SMTP_PASS": "canary19smtp",
    "NPM_TOKEN": "npm_canary20canary20",
    "SSH_PASSPHRASE": "canary21 correct horse",
    "SERVICE_PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----\ncanary22canary22\n-----END PRIVATE KEY-----",
    "TUNESMITH_POSTGRES_URL": f"postgresql://you:{PASSWORD}@127.0.0.1:1/nobody",
    "DATABASE_URL": "mysql://root:canary24%2Fencoded@h/d",
    "BASIC_AUTH": "canary25:basic",
}
assert len(CANARIES) == 25
NEEDLES = [value for name, value in CANARIES.items() if not name.endswith("_URL") and "\n" not in value]
NEEDLES += [PASSWORD, "canary24%2Fencoded", "canary24/encoded", "canary22canary22"]

LOSS = """
import logging, os, torch
NAMES = {names!r}
calls = 0

def leaky(logits, labels):
    global calls
    calls += 1
    said = "; ".join(f"{{name}}={{os.environ[name]}}" for name in NAMES)
    logging.getLogger("tunesmith.mine").warning("I say it all: %s", said)
    if calls == int(os.environ.get("FAIL_AT", "0")):
        raise {error}(said)
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")
"""


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[BucketServer]:
    with BucketServer() as server:
        for name, value in {**server.environ(), **CANARIES}.items():
            monkeypatch.setenv(name, value)
        yield server


def found_in(*texts: bytes | str) -> list[str]:
    everything = b"\n".join(text if isinstance(text, bytes) else text.encode() for text in texts)
    # As JSON and as a percent-encoded address a secret looks otherwise.
    forms = {needle: {needle.encode(), json.dumps(needle)[1:-1].encode()} for needle in NEEDLES}
    return [needle for needle, written in forms.items() if any(form in everything for form in written)]


def everything_under(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Callable[[str], Path]) -> Iterator[Path]:
    turns = [[("user", f"Question {k}?"), ("assistant", f"Answer {k}.")] for k in range(6)]
    records = [{"messages": [{"role": r, "content": c} for r, c in turn]} for turn in turns]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "leaky_loss.py").write_text(LOSS.format(names=sorted(CANARIES), error="RuntimeError"))
    path = tmp_path / "recipe.yaml"
    path.write_text(f"""
name: canaries
output_dir: runs
task: chat
data: {{train: train.jsonl, validation_share: 0}}
model: {{name: {tiny_model_dir("mistral")}}}
lora: {{r: 4, target_modules: all-linear}}
train: {{max_steps: 3, batch_size: 2, logging_steps: 1, loss: leaky_loss:leaky}}
checkpoints: {{save_steps: 1, mirror: s3://bucket/runs}}
tracking: {{report_to: [tensorboard]}}
exports: [{{format: adapter}}]
""")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("leaky_loss", None)


def run_cli(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tunesmith", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_no_secret_is_in_what_a_run_writes(
    recipe: Path,
    tmp_path: Path,
    planted: BucketServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It trains, fails in the middle with all of them in the error, is continued to its end, exports and reports."""
    monkeypatch.setenv("FAIL_AT", "3")
    assert run_cli(monkeypatch, "run", str(recipe)) == 1
    failed = capfd.readouterr()
    assert "RuntimeError" in failed.err and "***" in failed.err
    monkeypatch.setenv("FAIL_AT", "0")
    monkeypatch.setattr(sys, "argv", ["tunesmith", "run", str(recipe), "--debug"])
    cli.main()
    said = capfd.readouterr()
    written = everything_under(tmp_path / "runs")
    names = {path.name for path in (tmp_path / "runs").rglob("*")}
    assert {"run.log", "run.json", "events.jsonl", "report.html", "README.md", "config.yaml"} <= names
    assert any("I say it all: " in text.decode("utf-8", "replace") for text in written)
    assert any(b"manifest" in key.encode() or b"objects" in key.encode() for key in planted.objects)
    assert found_in(*written, *planted.objects.values(), *planted.objects) == []
    assert found_in(failed.out, failed.err, said.out, said.err) == []


@pytest.mark.parametrize("canary", sorted(set(CANARIES) - {"MYSQL_PASSWORD", "BASIC_AUTH", "DATABASE_URL"}))
def test_a_secret_in_the_settings_is_refused_without_repeating_it(
    canary: str, recipe: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    value = CANARIES[canary].replace("\n", " ")
    with pytest.raises(ConfigError) as refused:
        load_config(recipe, [f"tracking.project={json.dumps(value)}"])
    assert found_in(str(refused.value)) == []
    assert run_cli(monkeypatch, "show", str(recipe), f"tracking.project={json.dumps(value)}") == 2
    said = capfd.readouterr()
    assert found_in(said.out, said.err) == []


def test_a_database_that_cannot_be_reached_is_named_without_its_password(tmp_path: Path) -> None:
    from tunesmith.config.schema import SqlTask
    from tunesmith.errors import TunesmithError
    from tunesmith.tasks.sql.postgres import open_server

    with pytest.raises(TunesmithError) as refused, open_server(SqlTask()) as server:
        server.query("x", "SELECT 1")  # type: ignore[attr-defined]
    assert found_in(str(refused.value)) == []


def test_tracebacks_in_a_log_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Redacting())
    log = logging.Logger("mine")
    log.addHandler(handler)
    try:
        raise ValueError("; ".join(NEEDLES))
    except ValueError:
        log.exception("it failed with %s", NEEDLES)
    err = capsys.readouterr().err
    assert "ValueError" in err and found_in(err) == []


def test_words_that_are_no_secrets_stay() -> None:
    text = "end_token <|im_end|> monkey tokenizer passing keys=3 https://host/path user@host"
    assert redact(text) == text
    assert secret_values({"SOME_TOKEN": "true", "TOKENIZERS_PARALLELISM": "a" * 9}) == []
    path = str(Path(__file__))
    assert secret_values({"GOOGLE_APPLICATION_CREDENTIALS": path}) == []


def test_the_pipeline_says_no_secret_when_it_is_used_from_python(recipe: Path, tmp_path: Path, capfd: Any) -> None:
    said: list[str] = []
    pipeline.train_only(load_config(recipe, ["name=python"]), announce=lambda *line: said.append(" ".join(line)))
    assert found_in(*everything_under(tmp_path / "runs"), *said) == []
