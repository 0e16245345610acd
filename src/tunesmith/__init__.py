"""Tunesmith turns a small open language model into a specialist, and proves it.

The public names resolve on first use, so that importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

# On every CPU bitsandbytes warns of an optional kernel that it would download at run time; it computes without.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_HOME = {
    "Completion": "types", "Constraint": "types", "Example": "types", "Finding": "types", "Message": "types",
    "Record": "types", "Row": "types", "Score": "types", "Task": "types", "Tokens": "types",
    "TunesmithError": "errors",
    "RunConfig": "config.schema", "load_config": "config.load",
    "RunDir": "rundir",
    "get_task": "tasks",
    "examine_machine": "check.doctor", "prove_labels": "data.prove",
    "prepare_dataset": "data.prepare",
    "load_model": "model.load", "load_tokenizer": "model.load", "add_lora": "model.lora",
    "generate": "generate",
    "evaluate": "evaluate",
    "plan": "forecast", "prove": "check.prove",
    "run": "pipeline", "prepare": "pipeline", "train": "pipeline", "export": "pipeline", "write_report": "report",
}  # fmt: skip

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__() -> list[str]:
    return __all__
