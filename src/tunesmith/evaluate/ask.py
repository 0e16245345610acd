"""Let a model answer a test set, and mark what it wrote."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.config.schema import RunConfig
from tunesmith.endpoint import Endpoint
from tunesmith.errors import ConfigError, DataError
from tunesmith.evaluate.metrics import Evaluation, Judged, sample
from tunesmith.types import Completion, Example, Message, Score, Task

if TYPE_CHECKING:
    from tunesmith.generate.lexicon import Lexicon

Progress = Callable[[int], None]
PromptIds = Callable[[tuple[Message, ...]], list[int]]
Metric = Callable[[Example, str], float | None]
"""A metric of the user's: an example and an answer to a number from 0 to 1, or None."""


def evaluate(
    model: Any,
    tokenizer: Any,
    prompt_ids: PromptIds,
    examples: Sequence[Example],
    task: Task,
    config: RunConfig,
    progress: Progress | None = None,
    lexicon: Lexicon | None = None,
) -> Evaluation:
    """Let the model answer every example (or the fixed sample of them) and grade the answers.

    Args:
        prompt_ids: messages to token ids, the way training rendered them, ending where the answer begins.
        task: grades; its `constraint` holds the answers where `generate.constrain` says so.
        config: `generate`, `evaluate`, `seed` and `model.end_token` are read.
        progress: called with the number of answers finished since the last call.
        lexicon: has a say in which of several beams is given, as `generate.lexicon` weighs it.

    Raises:
        DataError: there is nothing to evaluate.
    """
    from tunesmith.generate import end_ids_of, generate

    if not examples:
        raise DataError("there are no examples to evaluate", remedy="check data.test in the recipe")
    chosen = sample(examples, config.evaluate.max_samples, config.seed)
    constrained = config.generate.constrain != "none"
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
        [partial(lexicon.weigh, example.question) for example in chosen] if lexicon else None,
    )
    judged = mark(chosen, completions, task, config)
    return Evaluation(judged, config.evaluate.confidence, time.perf_counter() - start, constrained)


def evaluate_endpoint(
    endpoint: Endpoint, examples: Sequence[Example], task: Task, config: RunConfig, progress: Progress | None = None
) -> Evaluation:
    """Let a model behind an address answer the same examples, and mark it the same way. Its answers are free: a
    constraint would need its logits, so `Evaluation.constrained` is False.

    Raises:
        DataError: there is nothing to evaluate.
        ConfigError, ModelError: the endpoint refuses, or gives no answer.
    """
    if not examples:
        raise DataError("there are no examples to evaluate", remedy="check data.test in the recipe")
    chosen = sample(examples, config.evaluate.max_samples, config.seed)
    start = time.perf_counter()
    replies = endpoint.ask_many(
        [example.prompt for example in chosen],
        max_tokens=config.generate.max_new_tokens,
        temperature=config.generate.temperature,
        seed=config.seed,
        progress=progress,
    )
    completions = [Completion(reply.text, reply.stopped, reply.tokens) for reply in replies]
    return Evaluation(
        mark(chosen, completions, task, config), config.evaluate.confidence, time.perf_counter() - start, False
    )


def mark(
    examples: Sequence[Example], completions: Sequence[Completion], task: Task, config: RunConfig
) -> tuple[Judged, ...]:
    """Grade each answer by the task, and by the metrics of `evaluate.metrics`.

    Where a lexicon had a say, the part `model_alone` is the score of what the model would have given without it.
    """
    metrics = load_metrics(config.evaluate.metrics)

    def marked(example: Example, completion: Completion) -> Score:
        score = task.grade(example, completion.text)
        if completion.alone is not None:
            alone = score if completion.alone == completion.text else task.grade(example, completion.alone)
            if alone.value is not None:
                score = replace(score, parts={**score.parts, "model_alone": alone.value})
        return _with_metrics(score, example, completion, metrics)

    return tuple(Judged(one, written, marked(one, written)) for one, written in zip(examples, completions, strict=True))


# --- metrics of the user's ------------------------------------------------------------------------------------------


def load_metrics(wanted: Mapping[str, str]) -> dict[str, Metric]:
    """The functions that `evaluate.metrics` names.

    Raises:
        ConfigError: one cannot be imported.
    """
    from tunesmith.data.sources import load_function

    found: dict[str, Metric] = {}
    for name, path in wanted.items():
        try:
            found[name] = load_function(path)
        except DataError as error:
            raise ConfigError(error.message, place=f"evaluate.metrics.{name}", remedy=error.remedy) from error
    return found


def _with_metrics(score: Score, example: Example, completion: Completion, metrics: Mapping[str, Metric]) -> Score:
    if not metrics:
        return score
    parts = dict(score.parts)
    for name, metric in metrics.items():
        value = metric(example, completion.text)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or not 0 <= value <= 1:
            raise ConfigError(
                f"the metric gave {value!r} for {example.place or example.id}",
                place=f"evaluate.metrics.{name}",
                remedy="return a number from 0 to 1, or None where there is nothing to measure",
            )
        parts[name] = float(value)
    return replace(score, parts=parts)
