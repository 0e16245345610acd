"""Runs that cannot be lost: real processes, killed, stopped, starved and lied to, end with the undisturbed result.

A short ring by default. `TUNESMITH_KILLS=10000` (`make crash KILLS=10000`) kills so often, and repeats every other
fault as often as a release wants it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from outcome import together
from trials import KINDS, RELEASE, SHORT, with_shim

TRIALS = Path(__file__).with_name("trials.py")


def counts() -> dict[str, int]:
    """Trials of each kind."""
    kills = int(os.environ.get("TUNESMITH_KILLS", "0"))
    return RELEASE | {"kills": kills} if kills else SHORT


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each kind of fault came to: two processes, each of which imported torch once, share the trials."""
    wanted = [f"{kind}={count}" for kind, count in counts().items()]
    started = []
    for number, kinds in enumerate((wanted[:1], wanted[1:])):
        folder = tmp_path_factory.mktemp(f"world{number}")
        command = [sys.executable, str(TRIALS), *kinds, "--folder", str(folder)]
        with (folder / "outcomes").open("w") as out:
            started.append((subprocess.Popen(command, env=with_shim(folder), stdout=out), folder / "outcomes"))
    lines = []
    for process, path in started:
        process.wait()
        lines += [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
    found: dict[str, Any] = {}
    for line in lines:
        found[line["kind"]] = together(found[line["kind"]], line) if line["kind"] in found else line
    return found


@pytest.mark.crash
@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_that_of_the_undisturbed_run(kind: str, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[kind]
    if "skipped" in outcome:
        pytest.skip(outcome["skipped"])
    assert outcome["good"], json.dumps(outcome, indent=1)


@pytest.mark.crash
def test_a_save_has_as_many_operations_as_it_has_files_and_more(outcomes: dict[str, Any]) -> None:
    if "skipped" in outcomes["operations"]:
        pytest.skip(outcomes["operations"]["skipped"])
    assert outcomes["operations"]["figures"]["operations_of_two_saves"] > 40  # or the shim sees nothing
