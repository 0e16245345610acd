"""The page shows what was found before the run, and the receipt; what is torn in them breaks nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.report import write_report
from tunesmith.rundir import RunDir

FINDING = {"check": "labels.<b>", "level": "error", "message": "rows & rows", "place": "a.jsonl:3", "remedy": "mend it",
           "cost": "hours"}  # fmt: skip
NOTE = {**FINDING, "level": "info", "message": "never shown"}


def test_findings_and_receipt_are_shown_and_escaped(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    family = {"name": "labels", "seconds": 1.5, "skipped": "", "findings": [FINDING, NOTE]}
    run.check.write_text(json.dumps({"families": [family, {"name": "grader", "skipped": "labels must be mended"}]}))
    line = {
        "key": "train.optim",
        "asked": "sgd",
        "in_force": "sgd: torch.SGD",
        "status": "resolved",
        "where": "optimizer",
    }
    run.receipt.write_text(json.dumps({"lines": [line, {"key": "torn"}]}))
    page = write_report(run).read_text()
    assert "labels.&lt;b&gt;" in page and "rows &amp; rows" in page and "never shown" not in page
    assert "not looked at: labels must be mended" in page
    assert "sgd: torch.SGD" in page and "1 left open, with what that came to" in page


def test_a_run_without_them_has_no_such_section(tmp_path: Path) -> None:
    assert 'id="before"' not in write_report(RunDir(tmp_path)).read_text()


def test_torn_files_are_named_and_break_nothing(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.check.write_text('{"families": [{"name"')
    run.receipt.write_text('{"lines": 3}')
    page = write_report(run).read_text()
    assert "check.json cannot be read" in page and 'id="before"' not in page
