"""Let a model answer a test set, and mark what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.errors import DataError
from tunesmith.evaluate.metrics import Evaluation, Judged, sample
from tunesmith.types import Example, Message, Task

Progress = Callable[[int], None]
PromptIds = Callable[[tuple[Message, ...]], list[int]]


def evaluate(
    model: Any,
    tokenizer: Any,
    prompt_ids: PromptIds,
    examples: Sequence[Example],
    task: Task,
    config: RunConfig,
    progress: Progress | None = None,
) -> Evaluation:
    """Let the model answer every example (or the fixed sample of them) and grade the answers.

    Args:
        prompt_ids: messages to token ids, the way training rendered them, ending where the answer begins.
        task: grades; its `constraint` holds the answers where `generate.constrain` says so.
        config: `generate`, `evaluate`, `seed` and `model.end_token` are read.
        progress: called with the number of answers finished since the last call.

    Raises:
        DataError: there is nothing to evaluate.
    """
    from tunesmith.generate import end_ids_of, generate

    if not examples:
        raise DataError("there are no examples to evaluate", remedy="check data.test in the recipe")
    chosen = sample(examples, config.evaluate.max_samples, config.seed)
    constrained = config.generate.constrain == "schema"
    start = time.perf_counter()
    completions = generate(
        model,
        tokenizer,
        [prompt_ids(example.prompt) for example in chosen],
        config.generate,
        end_ids_of(model, tokenizer, config.model.end_token),
        [task.constraint(example) for example in chosen] if constrained else None,
        progress,
        config.seed,
    )
    judged = tuple(
        Judged(example, completion, task.grade(example, completion.text))
        for example, completion in zip(chosen, completions, strict=True)
    )
    return Evaluation(judged, config.evaluate.confidence, time.perf_counter() - start, constrained)
