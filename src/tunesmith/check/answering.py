"""How `generate` and `evaluate` act, read off the grading itself: called as a run will call it, with a model and a task
that only count.

What answers later does not exist before the first step, so there is no object to be asked. But the code that will answer
can be given the settings that are handed on, a model that says one token for ever, and a task that marks nothing; what
arrives at both is what is in force.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.schema import RunConfig
from tunesmith.evaluate import evaluate
from tunesmith.evaluate.ask import load_metrics
from tunesmith.generate import generate
from tunesmith.types import Example, Record, Score

_END, _WORD, _OTHER, _WIDTH = 1, 2, 3, 4
"""Ids of the vocabulary: the end of an answer, two tokens that are not, and how many there are."""
_ODDS = tuple(10.0 ** (power / 2) for power in range(-4, 5))
"""Differences between two logits at which samples are counted, for temperatures from 0.01 to 100."""
_SAMPLES = 6000
_MOST_EXAMPLES = 2000


@dataclass(frozen=True)
class Answering:
    """What was seen."""

    max_new_tokens: int
    """Tokens of the longest answer."""
    batch_size: int
    """Prompts that the model was given together, at most."""
    temperature: float
    """0 where the likeliest token was taken every time; else estimated from how often it was not."""
    constrain: str
    """The setting, where the task was asked for a constraint."""
    examples: int
    """That were asked of those given."""
    given: int
    confidence: float
    """Level of the interval that the result states."""
    metrics: dict[str, str]
    """Functions that were imported for it, by the name they have in the result."""
    slices: list[str]
    """That the result will be shown by."""


def observe_answering(config: RunConfig, tests: Sequence[Example]) -> Answering:
    """Grade questions with a model that counts.

    Args:
        config: as it is handed on to grading.
        tests: the largest test set; its number and meta count, none of it is really asked.

    Raises:
        ConfigError: a metric of the user's cannot be imported.
    """
    # The model that counts keeps no keys and values that beams could be dealt, and they change nothing that it counts.
    config = config.model_copy(update={"generate": config.generate.model_copy(update={"beams": 1})})
    task, model = _CountingTask(), _CountingModel()
    examples = [Example(one.id, (), meta=one.meta) for one in tests[:_MOST_EXAMPLES]] or [Example("none", ())]
    metrics = load_metrics(config.evaluate.metrics)
    plain = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"metrics": {}})})
    found = evaluate(model, _Words(), lambda messages: [0], examples, task, plain)
    together = _CountingModel(ends=True)
    prompts = [[0]] * (config.generate.batch_size + 1)
    generate(together, _Words(), prompts, config.generate, frozenset({_END}), seed=config.seed)
    return Answering(
        max_new_tokens=max(one.completion.tokens for one in found.judged),
        batch_size=together.most,
        temperature=_temperature(config),
        constrain=config.generate.constrain if task.asked else "none",
        examples=len(found.judged),
        given=len(examples),
        confidence=found.confidence,
        metrics={name: f"{function.__module__}:{function.__qualname__}" for name, function in metrics.items()},
        slices=found.slice_keys(config.evaluate.slices),
    )


@dataclass
class _CountingTask:
    """Counts how often a constraint is asked for."""

    asked: int = 0
    name: str = "counting"
    version: str = "1"

    def examples(self, record: Record) -> Iterator[Example]:
        yield from ()

    def constraint(self, example: Example) -> None:
        self.asked += 1

    def close(self) -> None:
        """Nothing is open."""

    def grade(self, example: Example, completion: str) -> Score:
        return Score(None)


@dataclass
class _CountingModel:
    """Says one token for ever to its first batch, and ends at once in every other."""

    ends: bool = False
    """Whether it ends the first answers at once too."""
    odds: Sequence[float] = ()
    """By step, how much likelier one token is than the other."""
    most: int = 0
    seen: int = 0
    training: bool = False
    device: str = "cpu"
    config: Any = field(default_factory=lambda: SimpleNamespace(model_type="counting"))
    generation_config: Any = None

    def eval(self) -> None:
        """Nothing changes with the mode."""

    def train(self, mode: bool) -> None:
        """Nothing changes with the mode."""

    def generate(
        self, input_ids: Tensor, attention_mask: Tensor, generation_config: Any, logits_processor: Sequence[Any]
    ) -> None:
        """As `transformers` calls its processors, token by token, to the length that it was told."""
        rows = len(input_ids)
        self.most, self.seen = max(self.most, rows), self.seen + rows
        ends = self.ends or (not self.odds and self.seen > rows)
        for step in range(generation_config.max_new_tokens):
            logits = torch.full((rows, _WIDTH), -1e9)
            logits[:, _END if ends else _WORD] = 0.0
            if self.odds:
                logits[:, _OTHER] = -self.odds[step % len(self.odds)]
            logits_processor[0](input_ids, logits)


class _Words:
    """A tokenizer of words without a meaning."""

    eos_token_id = _END
    all_special_ids = (_END,)

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def convert_tokens_to_ids(self, token: str) -> int:
        return _END


def _temperature(config: RunConfig) -> float:
    """By maximum likelihood, from samples of two tokens whose logits differ by known amounts; the noise is seeded."""
    wanted = config.generate
    model = _CountingModel(odds=_ODDS)
    length = len(_ODDS)
    settings = wanted.model_copy(update={"max_new_tokens": length, "batch_size": _SAMPLES})
    count = 1 if wanted.temperature == 0 else _SAMPLES // length
    answers = generate(model, _Words(), [[0]] * count, settings, frozenset({_END}), seed=config.seed)
    said = [answer.text.split() for answer in answers]
    others = [sum(words[at] == str(_OTHER) for words in said) for at in range(length)]
    if not any(others):
        return 0.0
    low, high = math.log(1e-3), math.log(1e3)
    for _ in range(60):  # the score falls with the temperature: fewer of the unlikely are expected than were seen
        middle = (low + high) / 2
        score = sum(
            odds * (seen - count / (1 + math.exp(min(700.0, odds / math.exp(middle)))))
            for odds, seen in zip(_ODDS, others, strict=True)
        )
        low, high = (middle, high) if score > 0 else (low, middle)
    return float(f"{math.exp((low + high) / 2):.2g}")
