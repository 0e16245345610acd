"""Everything the report shows, read from a run directory that may be incomplete."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tunesmith.config.secrets import redactor
from tunesmith.rundir import RunDir


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The contents of a run directory; a file that is absent is an empty value and a line in `notices`."""

    root: Path
    summary: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key to value."""
    origins: Mapping[str, str] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, tuple[Mapping[str, Any], ...]]] = field(default_factory=dict)
    """Test set, then model (`base`, `tuned`), then every graded example."""
    ledger: tuple[Mapping[str, Any], ...] = ()
    mask: tuple[Mapping[str, Any], ...] = ()
    check: Mapping[str, Any] = field(default_factory=dict)
    """`check.json`; empty where no check was made."""
    receipt: Mapping[str, Any] = field(default_factory=dict)
    """`receipt.json`; empty where training has not begun."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """What was forecast; empty where no plan was made of the run."""
    proof: Mapping[str, Any] = field(default_factory=dict)
    """What a rehearsal showed; likewise."""
    files: tuple[tuple[str, int], ...] = ()
    """Path relative to the run, and size in bytes."""
    notices: tuple[str, ...] = ()
    """What is missing or could not be read, in sentences for the reader."""


_ABSENT = {
    "run.json": "the run has not written its summary: figures below are those found in the other files",
    "events.jsonl": "no training events, so no curves",
    "config.yaml": "the settings were not saved",
    "scores": "nothing has been graded",
    "ledger.jsonl": "no data ledger: which rows were used and dropped is not known",
    "mask.json": "no training rows were saved to show what the loss sees",
}


def read_run(run: RunDir) -> RunFiles:
    """Read what a run directory holds. Missing, torn or unreadable files become notices, never errors."""
    notices: list[str] = []
    summary = _object(run.summary, notices)
    ledger = _lines(run.ledger, notices)
    settings: dict[str, Any] = {}
    if _present(run.config, notices):
        try:
            _flatten("", clean(yaml.safe_load(run.config.read_text("utf-8"))), settings)
        except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError):
            notices.append("config.yaml cannot be read")
    origins = _object(run.origins, notices) if run.origins.exists() else {}
    mask = _json(run.mask, notices) if _present(run.mask, notices) else []
    return RunFiles(
        root=run.root,
        summary=summary,
        events=_lines(run.events, notices),
        settings=settings,
        origins={str(key): str(value) for key, value in origins.items()},
        scores=_scores(run, notices),
        ledger=ledger,
        mask=tuple(row for row in mask if isinstance(row, dict)) if isinstance(mask, list) else (),
        check=_object(run.check, notices) if run.check.exists() else {},
        receipt=_object(run.receipt, notices) if run.receipt.exists() else {},
        plan=_object(run.plan, notices) if run.plan.exists() else {},
        proof=_object(run.proof, notices) if run.proof.exists() else {},
        files=_files(run),
        notices=tuple(notices),
    )


def _present(path: Path, notices: list[str]) -> bool:
    if path.is_file():
        return True
    notices.append(f"{path.name} is missing: {_ABSENT[path.name]}")
    return False


def _json(path: Path, notices: list[str]) -> Any:
    try:
        return clean(json.loads(path.read_text("utf-8")))
    except (ValueError, OSError, RecursionError):
        notices.append(f"{path.name} cannot be read: it is torn or not JSON")
        return None


def _object(path: Path, notices: list[str]) -> dict[str, Any]:
    value = _json(path, notices) if _present(path, notices) else {}
    return value if isinstance(value, dict) else {}


def _lines(path: Path, notices: list[str], name: str = "") -> tuple[Mapping[str, Any], ...]:
    """The objects of a JSON-lines file; lines that are torn are counted in a notice and left out."""
    name = name or path.name
    if not path.is_file():
        notices.append(f"{name} is missing: {_ABSENT[name]}")
        return ()
    found: list[Mapping[str, Any]] = []
    torn: list[int] = []
    hide = redactor()
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    torn.append(number)
                    continue
                if isinstance(value, dict):
                    found.append(clean(value, hide))
                else:
                    torn.append(number)
    except OSError as error:
        notices.append(f"{name} cannot be read: {error.strerror}")
    if torn:
        where = ", ".join(map(str, torn[:3])) + (", ..." if len(torn) > 3 else "")
        notices.append(f"{name}: {len(torn)} torn line{'s' * (len(torn) > 1)} left out (line {where})")
    return tuple(found)


def _scores(run: RunDir, notices: list[str]) -> dict[str, dict[str, tuple[Mapping[str, Any], ...]]]:
    found: dict[str, dict[str, tuple[Mapping[str, Any], ...]]] = {}
    folder = run.scores("base", "x").parent
    for path in sorted(folder.glob("*-*.jsonl")) if folder.is_dir() else []:
        model, test_set = path.stem.split("-", 1)
        found.setdefault(test_set, {})[model] = _lines(path, notices, f"scores/{path.name}")
    if not found:
        notices.append(f"scores is missing: {_ABSENT['scores']}")
    return found


def _files(run: RunDir) -> tuple[tuple[str, int], ...]:
    """Files of the run; the inside of TensorBoard and database folders is of no use to a reader."""
    hidden = {run.tensorboard.name}
    found = []
    for path in sorted(run.root.rglob("*")):
        relative = path.relative_to(run.root)
        if path.is_file() and relative.parts[0] not in hidden and path != run.report:
            found.append((relative.as_posix(), path.stat().st_size))
    return tuple(found)


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(f"{prefix}.{key}" if prefix else str(key), inner, into)
    elif isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        _flatten(prefix, dict(enumerate(value)), into)
    elif prefix:
        into[prefix] = value


def clean(value: Any, hide: Callable[[str], str] | None = None) -> Any:
    """The value with secrets masked, and every NaN and infinity as None: JSON in a browser knows neither."""
    hide = hide or redactor()
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): clean(inner, hide) for key, inner in value.items()}
    if isinstance(value, list):
        return [clean(inner, hide) for inner in value]
    return value
