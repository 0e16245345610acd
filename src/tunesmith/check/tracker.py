"""Mirrors of a run's course: whether they can be written to before there is anything to show."""

from __future__ import annotations

import netrc
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.types import Finding

_PACKAGES = {"tensorboard": ("tensorboard", "tensorboard"), "wandb": ("wandb", "tunesmith[wandb]"),
             "comet_ml": ("comet_ml", "tunesmith[comet]")}  # fmt: skip


def check_tracker(subject: Subject) -> Looked:
    """Packages and credentials of `tracking.report_to`. Credentials are looked for, never read out."""
    environ = os.environ if subject.environ is None else subject.environ
    report_to = subject.loaded.config.tracking.report_to
    return Looked(list(_findings(report_to, environ)), {"mirrors": len(report_to)})


def _findings(report_to: Sequence[str], environ: Mapping[str, str]) -> Iterator[Finding]:
    for name in dict.fromkeys(report_to):
        module, install = _PACKAGES[name]
        if find_spec(module) is None:
            yield Finding(
                "tracker.missing_package", "error", f"{module} is not installed", "tracking.report_to",
                f"pip install '{install}', or take {name} out of tracking.report_to",
                "the run stops when it starts to report, or reports nothing",
            )  # fmt: skip
        elif reason := credentials_missing(name, environ):
            yield Finding(
                "tracker.no_credentials", "error", f"{name} is asked for, and {reason}", "tracking.report_to",
                {"wandb": "wandb login, or export WANDB_API_KEY=..., or WANDB_MODE=offline"}.get(
                    name, "comet login, or export COMET_API_KEY=..."
                ),
                "the run waits for somebody to type a key, or stops",
            )  # fmt: skip


def credentials_missing(name: str, environ: Mapping[str, str]) -> str:
    """Why a tracker would not let us in; empty where a credential is there, or none is needed."""
    home = Path(environ.get("HOME", "~")).expanduser()
    if name == "wandb":
        if environ.get("WANDB_API_KEY") or environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
            return ""
        return "" if _in_netrc(home / ".netrc", "wandb") else "neither WANDB_API_KEY nor ~/.netrc holds a key for it"
    if name == "comet_ml":
        there = environ.get("COMET_API_KEY") or (home / ".comet.config").is_file()
        return "" if there else "neither COMET_API_KEY nor ~/.comet.config is there"
    return ""


def _in_netrc(file: Path, word: str) -> bool:
    try:
        return any(word in host for host in netrc.netrc(str(file)).hosts)
    except (OSError, netrc.NetrcParseError):
        return False
