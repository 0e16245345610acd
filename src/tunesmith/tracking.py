"""What a run writes down: `run.json` (what it came to), `events.jsonl` (how it went), and mirrors of it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from types import TracebackType
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.config.secrets import Redacting, redactor
from tunesmith.rundir import RunDir

log = logging.getLogger(__name__)

_PACKAGES = (
    "tunesmith",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "bitsandbytes",
    "numpy",
    "psycopg",
)


class _LogFile(logging.FileHandler):
    """A log that a full disk leaves incomplete; what could not be saved for want of space is told by its own error."""

    def handleError(self, record: logging.LogRecord) -> None:  # the base class prints a traceback
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what is in its buffer does not fit either
            super().close()


class Tracker:
    """Writer of one run's record; a context manager, so that the log file and the mirrors are closed.

    Args:
        run: where to write.
        config: which mirrors to feed.
    """

    def __init__(self, run: RunDir, config: RunConfig) -> None:
        self.run = run
        self._config = config
        self._board: Any = None
        self._handler: logging.Handler | None = None
        self._writing = threading.Lock()  # a checkpoint may be saved, and told, from another thread

    def __enter__(self) -> Tracker:
        self.run.root.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(self.run.log, encoding="utf-8")
        handler.setFormatter(Redacting("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logging.getLogger("tunesmith").addHandler(handler)
        self._handler = handler
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            log.error("ended with %s: %s", type(error).__name__, error)
        if self._board is not None:
            self._board.close()
        if self._handler is not None:
            logging.getLogger("tunesmith").removeHandler(self._handler)
            self._handler.close()

    def summary(self, **parts: Any) -> None:
        """Merge parts into `run.json`; mappings are merged one level deep. The file is replaced whole, never half."""
        with self._writing:
            self._merge(parts)

    def _merge(self, parts: Mapping[str, Any]) -> None:
        path = self.run.summary
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        known.setdefault("created", datetime.now(UTC).isoformat(timespec="seconds"))
        for key, value in parts.items():
            old = known.get(key)
            known[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, Mapping) else value
        text = json.dumps(_sayable(known), indent=1, ensure_ascii=False, allow_nan=False)
        draft = path.with_suffix(f".json.{os.getpid()}")  # of its own: processes that compute together all come here
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def event(self, kind: str, step: int, **figures: Any) -> None:
        """Append one line to `events.jsonl`, and show its numbers on TensorBoard."""
        line = {"time": round(time.time(), 3), "event": kind, "step": step, **figures}
        with self.run.events.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_sayable(line), ensure_ascii=False, allow_nan=False) + "\n")
        board = self._tensorboard()
        for name, value in figures.items():
            if board is not None and isinstance(value, int | float) and not isinstance(value, bool):
                board.add_scalar(f"{kind}/{name}", value, step)

    def rewind(self, step: int) -> None:
        """Forget the events of later steps, which a resumed run takes again, and half a line that a kill left."""
        if not self.run.events.exists():
            return
        text = self.run.events.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines(keepends=True)
        kept = "".join(line for line in lines if json.loads(line)["step"] <= step)
        if kept != text:
            draft = self.run.events.with_suffix(".tmp")
            draft.write_text(kept, encoding="utf-8")
            draft.replace(self.run.events)

    def _tensorboard(self) -> Any:
        if self._board is None and "tensorboard" in self._config.tracking.report_to:
            with contextlib.suppress(ImportError):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(self.run.tensorboard))
        return self._board


def _sayable(value: Any, hide: Callable[[str], str] | None = None) -> Any:
    """Without secrets, and without the numbers that JSON does not have (they become null)."""
    hide = hide or redactor()
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _sayable(item, hide) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(item, hide) for item in value]
    return value


def environment() -> dict[str, Any]:
    """Versions and machine, as far as they decide a result. No environment variables: they hold secrets."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu(),
        "packages": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def _gpu() -> str | None:
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name(0) if torch is not None and torch.cuda.is_available() else None
