"""The training loop: `fit` is the same for every method; a method is a builder of its trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tunesmith.train.sft import build_sft_trainer

BUILDERS: dict[str, Callable[..., Any]] = {"sft": build_sft_trainer}
"""`train.method` to builder: (config, model, tokenizer, prepared, run, tracker) -> trainer."""
