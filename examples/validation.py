"""The seven validations of a training pipeline, each a few lines on the public API.

    python examples/validation.py recipes/sql/demo.yaml [section.key=value ...]

Data loading, model initialisation, one training step, saving and loading a checkpoint, inference, and the report. The
step, the checkpoint and the answers are those of a real run of four steps in a folder of its own, not of a second
trainer; `tunesmith check` and `tunesmith prove` do more.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tunesmith import pipeline
from tunesmith.check import check
from tunesmith.checkpoints.resume import verify
from tunesmith.config.load import Loaded, load_config
from tunesmith.report import write_report
from tunesmith.types import Finding

OVERRIDES = ["train.max_steps=4", "checkpoints.save_steps=2", "evaluate.max_samples=4", "evaluate.self_test=8"]


def validate_data_loading(loaded: Loaded) -> tuple[Finding, ...]:
    """Every record is read and every training row proved."""
    return check(loaded, families=["sources", "template", "data", "labels", "leakage"]).errors


def validate_model_initialization(loaded: Loaded) -> tuple[Finding, ...]:
    """The model's files fit the recipe, and with it loaded every setting is in force as asked."""
    return (*check(loaded, families=["model"]).errors, *pipeline.receipt_of(loaded).findings)


def validate_training_step(loaded: Loaded) -> tuple[Finding, ...]:
    """The steps of a short run bring a loss that is a number; raises what a run would raise."""
    summary = pipeline.run(loaded)
    steps = summary["training"]["steps"]
    return () if steps == 4 else (Finding("steps", "error", f"{steps} steps were made instead of 4"),)


def validate_checkpoint_saving(loaded: Loaded) -> tuple[Finding, ...]:
    """There are checkpoints, each with a manifest that names every file and its digest."""
    saved = sorted(pipeline.run_dir(loaded.config).checkpoints.glob("checkpoint-*"))
    return () if saved else (Finding("checkpoints", "error", "no checkpoint was saved", "checkpoints.save_steps"),)


def validate_checkpoint_loading(loaded: Loaded) -> tuple[Finding, ...]:
    """Every checkpoint is what its manifest says, to the last byte."""
    found = []
    for path in sorted(pipeline.run_dir(loaded.config).checkpoints.glob("checkpoint-*")):
        manifest, reason = verify(path)
        if manifest is None:
            found.append(Finding("checkpoints", "error", reason, str(path), "restore it from a mirror"))
    return tuple(found)


def validate_inference(loaded: Loaded) -> tuple[Finding, ...]:
    """The tuned model has answered test questions and was graded: text that is not empty proves nothing."""
    scores = pipeline.read_summary(pipeline.run_dir(loaded.config)).get("scores", {}).get("tuned", {})
    unjudged = [name for name, one in scores.items() if not one["n"]]
    return tuple(Finding("inference", "error", f"no answer of {name!r} could be judged") for name in unjudged)


def validate_report(loaded: Loaded) -> tuple[Finding, ...]:
    """The page is written, and says what was found before the run."""
    page = write_report(pipeline.run_dir(loaded.config)).read_text(encoding="utf-8")
    return () if 'id="before"' in page else (Finding("report", "error", "the page lacks the check and the receipt"),)


VALIDATIONS = (
    validate_data_loading, validate_model_initialization, validate_training_step, validate_checkpoint_saving,
    validate_checkpoint_loading, validate_inference, validate_report,
)  # fmt: skip


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_config(Path(sys.argv[1]), [*OVERRIDES, *sys.argv[2:], f"output_dir={folder}"])
        for validate in VALIDATIONS:
            findings = validate(loaded)
            failed += bool(findings)
            print(f"{'FAILED' if findings else 'passed'}  {validate.__name__}")
            for finding in findings:
                print(f"        {finding.place}: {finding.message}\n        remedy: {finding.remedy}")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
