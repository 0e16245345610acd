"""The recipe by itself: settings that nothing reads, and combinations that run and disappoint."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.check.idle import ignored
from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.config.schema import RunConfig
from tunesmith.types import Finding

_HIGHEST_RATE = {"adapters": 2e-2, "all weights": 1e-3}
"""Learning rates of Adam above which training has been seen to fail, with a wide margin."""


def check_recipe(subject: Subject) -> Looked:
    """Settings that nothing reads, and combinations that run and disappoint. Reads the settings alone."""
    loaded = subject.loaded
    notes = [note for note in loaded.notes if "train.max_steps" not in note.message]  # said below with its origin
    findings = [*notes, *ignored(loaded), *_remarks(loaded.config)]
    written = sum(origin != "default" for origin in loaded.origins.values())
    return Looked(findings, {"settings": len(loaded.origins), "written": written})


def _remarks(config: RunConfig) -> Iterator[Finding]:
    train = config.train
    kind = "all weights" if config.lora is None else "adapters"
    if train.learning_rate > _HIGHEST_RATE[kind] and train.optim.startswith(("adam", "paged_adam")):
        yield Finding(
            "recipe.learning_rate",
            "warning",
            f"a learning rate of {train.learning_rate:g} is far above what {kind} are tuned with",
            "train.learning_rate",
            f"set train.learning_rate={'2e-4' if config.lora else '2e-5'}",
            "a loss that explodes in the first steps, or a model that forgets what it could do",
        )
    if 0 < train.max_steps < train.eval_steps:
        yield Finding(
            "recipe.never_validates",
            "warning",
            f"train.eval_steps is {train.eval_steps} and the run has {train.max_steps} steps",
            "train.eval_steps",
            f"set train.eval_steps={max(1, train.max_steps // 4)}",
            "no validation before the end, so neither the best step nor overfitting can be seen",
        )
    if train.max_steps > 0 and config.checkpoints.save_steps > train.max_steps:
        yield Finding(
            "recipe.never_saves",
            "warning",
            f"checkpoints.save_steps is {config.checkpoints.save_steps} and the run has {train.max_steps} steps",
            "checkpoints.save_steps",
            f"set checkpoints.save_steps={max(1, train.max_steps // 4)}",
            "a run that is killed begins again at step 0",
        )
    if config.data.max_length > train.max_tokens:
        yield Finding(
            "recipe.row_longer_than_max_tokens",
            "info",
            f"an example may have {config.data.max_length:,} tokens (data.max_length), a row {train.max_tokens:,} "
            "(train.max_tokens); a longer example is a row of its own",
            "train.max_tokens",
            f"for a memory that train.max_tokens decides, set train.max_tokens={config.data.max_length}",
        )
    if not config.data.test and not config.builds:
        yield Finding(
            "recipe.no_test_set",
            "info",
            "there is no test set, so no answer is graded: the run ends with a loss, which is no measure of answers",
            "data.test",
            "add one: data.test: {mine: questions.jsonl}",
        )
