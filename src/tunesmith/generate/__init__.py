"""Prompts to completions: batched, shared prefixes computed once, held to a constraint where one is given.

Prompts that begin alike (one schema, many questions) form a group, and what they share is computed once
(`generate/shared.py`). Models whose attention is more than plain causal softmax attention are decoded in padded
batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from tunesmith.config.schema import Generate
from tunesmith.generate.decode import complete_group, complete_padded
from tunesmith.generate.groups import chunks, longest_first, plan
from tunesmith.generate.search import Answer, Chooser, Opinion, Progress
from tunesmith.generate.shared import shares_prefixes
from tunesmith.model.lora import merged_adapters
from tunesmith.types import Completion, Constraint

_WORTH_MERGING = 16
"""Prompts; for fewer, adapters are not merged."""


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[list[int]],
    config: Generate,
    end_ids: set[int] | frozenset[int],
    constraints: Sequence[Constraint | None] | None = None,
    progress: Progress | None = None,
    seed: int = 0,
    opinions: Sequence[Opinion | None] | None = None,
) -> list[Completion]:
    """Complete every prompt, in the order given.

    Args:
        model: a causal language model of transformers, or a PEFT model around one; put back into its mode afterwards.
        tokenizer: decodes answers; its special tokens never appear in their text.
        prompts: token ids, as the renderer gave them; none may be empty.
        config: temperature 0 takes the likeliest token, or the likeliest answer of several beams; above 0, tokens are
            sampled.
        end_ids: tokens that end an answer.
        constraints: for each prompt, what its answer may contain, or None.
        progress: called with the number of answers finished since the last call.
        seed: with it and a prompt's index, its samples are drawn, whatever shares its batch.
        opinions: for each prompt, what else has a say in which of its beams is given, weighed by `config.lexicon`.

    Raises:
        ValueError: a prompt is empty, there is no end token, or the constraints or opinions do not match the prompts.
        ConfigError: several beams, and a model whose cache cannot be reordered.
    """
    if not all(prompts):
        raise ValueError(f"prompt {[bool(p) for p in prompts].index(False)} is empty")
    if not end_ids:
        raise ValueError("no end token: answers would never stop")
    if constraints is not None and len(constraints) != len(prompts):
        raise ValueError(f"{len(constraints)} constraints for {len(prompts)} prompts")
    if opinions is not None and len(opinions) != len(prompts):
        raise ValueError(f"{len(opinions)} opinions for {len(prompts)} prompts")
    held, heard = constraints or [None] * len(prompts), opinions or [None] * len(prompts)
    chooser = Chooser(tokenizer, frozenset(end_ids), config, progress)
    answers = [Answer.sought(held[i], config, seed, i, heard[i]) for i in range(len(prompts))]
    merged = merged_adapters(model) if len(prompts) >= _WORTH_MERGING else nullcontext()
    with merged, torch.inference_mode(), _evaluating(model):
        if shares_prefixes(model):
            for group in plan(prompts):
                complete_group(model, chooser, prompts, answers, group, config)
        else:
            order = longest_first(range(len(prompts)), prompts)
            for batch in chunks(order, config.batch_size):
                complete_padded(model, chooser, [prompts[i] for i in batch], [answers[i] for i in batch], config)
    return [chooser.completion(answer) for answer in answers]


def end_ids_of(model: Any, tokenizer: Any, end_token: str | None = None) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, those of the model's generation settings, and `end_token`."""
    found = {tokenizer.eos_token_id}
    listed = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update(listed if isinstance(listed, (list, tuple)) else [listed])
    if end_token:
        found.add(tokenizer.convert_tokens_to_ids(end_token))
    return frozenset(token for token in found if token is not None)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
