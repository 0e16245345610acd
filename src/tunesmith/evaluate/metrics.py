"""Scores to figures with intervals, and the file that keeps them. What could not be judged is counted apart and is
never a zero."""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from tunesmith.errors import DataError
from tunesmith.evaluate.answers import language_of, run_on
from tunesmith.types import Completion, Example, Message, Score

MOST_SLICES = 12
"""A meta key with more values than this is no slice but an identity."""


# --- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Share:
    """A mean of values between 0 and 1, with its interval."""

    value: float | None
    """None when there was nothing to take the mean of."""
    low: float
    high: float
    n: int


def wilson(mean: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, 1927, JASA 22:209-212).

    Close to its level even for small n and shares near 0 and 1. For values between 0 and 1 that are not all 0 or 1 it
    is too wide rather than too narrow, because their variance is at most mean (1 - mean).
    """
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    centre = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    # The bounds are exactly 0 and 1 at the ends; rounding must not put the mean outside them.
    return max(0.0, min(centre - half, mean)), min(1.0, max(centre + half, mean))


def share(values: Iterable[float | None], confidence: float = 0.95) -> Share:
    """The mean of the values that are there, with its interval. None is left out, not counted as zero."""
    found = [value for value in values if value is not None]
    if not found:
        return Share(None, 0.0, 1.0, 0)
    mean = sum(found) / len(found)
    return Share(mean, *wilson(mean, len(found), confidence), len(found))


@dataclass(frozen=True, slots=True)
class Judged:
    """One example with what the model wrote and what the grader said."""

    example: Example
    completion: Completion
    score: Score


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One model on one test set."""

    judged: tuple[Judged, ...]
    confidence: float = 0.95
    """Level of every interval."""
    seconds: float = 0.0
    """Wall time of generation and grading together."""
    constrained: bool = False
    """Whether answers were held to the task's constraint, which changes what is measured."""

    @property
    def accuracy(self) -> Share:
        """Mean score of the answers that could be judged."""
        return share((one.score.value for one in self.judged), self.confidence)

    @property
    def unscored(self) -> int:
        """Answers that could not be judged."""
        return sum(one.score.value is None for one in self.judged)

    @property
    def stop_rate(self) -> float | None:
        """Share of the answers that ended by themselves rather than at the length limit."""
        return share(float(one.completion.stopped) for one in self.judged).value

    @property
    def mean_tokens(self) -> float | None:
        """Mean length of an answer, in tokens."""
        return sum(one.completion.tokens for one in self.judged) / len(self.judged) if self.judged else None

    @property
    def run_on(self) -> Share:
        """Share of the answers that did not end properly: cut at the length limit, looping, or going on as the user."""
        return share((float(bool(run_on(one.completion, one.example.target))) for one in self.judged), self.confidence)

    @property
    def same_language(self) -> Share:
        """Share of the answers in the language of the right answer, where both languages can be told."""
        pairs = [(language_of(one.example.target), language_of(one.completion.text)) for one in self.judged]
        return share((float(right == found) for right, found in pairs if right and found), self.confidence)

    @property
    def failures(self) -> dict[str, int]:
        """How many answers failed in each class, most frequent first."""
        return dict(Counter(one.score.failure for one in self.judged if one.score.failure).most_common())

    @property
    def parts(self) -> dict[str, Share]:
        """The further figures that graders gave, such as `exact_match`."""
        names = sorted({name for one in self.judged for name in one.score.parts})
        return {name: share((one.score.parts.get(name) for one in self.judged), self.confidence) for name in names}

    def slices(self, key: str) -> dict[str, Share]:
        """Accuracy for each value of a meta key, for instance `kind`; examples without the key are left out."""
        values: dict[str, list[float | None]] = {}
        for one in self.judged:
            if key in one.example.meta:
                values.setdefault(str(one.example.meta[key]), []).append(one.score.value)
        return {name: share(found, self.confidence) for name, found in sorted(values.items())}

    def slice_keys(self, wanted: Sequence[str] | None = None) -> list[str]:
        """Meta keys worth slicing by: those wanted, else every one with 2 to `MOST_SLICES` short values."""
        if wanted is not None:
            return [key for key in wanted if any(key in one.example.meta for one in self.judged)]
        values: dict[str, set[str]] = {}
        other: set[str] = set()
        for one in self.judged:
            for key, value in one.example.meta.items():
                if isinstance(value, str | int) and len(str(value)) <= 40:
                    values.setdefault(key, set()).add(str(value))
                else:
                    other.add(key)
        return sorted(key for key, found in values.items() if key not in other and 2 <= len(found) <= MOST_SLICES)


def summarize(evaluation: Evaluation, slices: Sequence[str] | None = None) -> dict[str, Any]:
    """What `run.json` says of one model on one test set.

    Args:
        slices: meta keys to slice by; None chooses them (`Evaluation.slice_keys`).
    """
    accuracy, exact = evaluation.accuracy, evaluation.parts.get("exact_match")
    return {
        "accuracy": accuracy.value,
        "low": accuracy.low,
        "high": accuracy.high,
        "n": accuracy.n,
        "unscored": evaluation.unscored,
        "exact_match": exact and exact.value,
        "stop_rate": evaluation.stop_rate,
        "run_on": evaluation.run_on.value,
        "same_language": evaluation.same_language.value,
        "mean_tokens": evaluation.mean_tokens,
        "failures": evaluation.failures,
        "constrained": evaluation.constrained,
        "seconds": round(evaluation.seconds, 3),
        "parts": {name: asdict(found) for name, found in evaluation.parts.items()},
        "slices": {
            key: {value: asdict(found) for value, found in evaluation.slices(key).items()}
            for key in evaluation.slice_keys(slices)
        },
    }


def sample(examples: Sequence[Example], most: int | None, seed: int) -> list[Example]:
    """At most that many examples, the same ones whatever their order, kept in the order given."""
    examples = list(examples)
    if most is None or len(examples) <= most:
        return examples
    order = sorted(examples, key=lambda example: (random.Random(f"{seed} {example.id}").random(), example.id))
    kept = {id(example) for example in order[:most]}
    return [example for example in examples if id(example) in kept]


# --- the file of scores ---------------------------------------------------------------------------------------------


def write_scores(path: Path, evaluation: Evaluation) -> None:
    """Write every graded example as a line of JSON; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    with staged.open("w", encoding="utf-8", newline="\n") as out:
        for one in evaluation.judged:
            out.write(json.dumps(_line(one), ensure_ascii=False, allow_nan=False, default=str) + "\n")
        out.flush()
        os.fsync(out.fileno())
    staged.replace(path)


def _line(one: Judged) -> dict[str, Any]:
    example, completion, score = one.example, one.completion, one.score
    return {
        "id": example.id,
        "question": example.question,
        "prompt": [{"role": turn.role, "content": turn.content} for turn in example.prompt],
        "gold": example.target,
        "completion": completion.text,
        "value": score.value,
        "parts": dict(score.parts),
        "failure": score.failure,
        "note": score.note,
        "shown": dict(score.shown),
        "stopped": completion.stopped,
        "tokens": completion.tokens,
        "constraint_held": completion.constraint_held,
        "meta": dict(example.meta),
        "group": example.group,
        "place": example.place,
    }


def read_scores(path: Path, confidence: float = 0.95) -> Evaluation:
    """Read what `write_scores` wrote, as far as a comparison needs it.

    Raises:
        DataError: the file is missing, or a line is torn or not a graded example.
    """
    return Evaluation(tuple(_judged(path)), confidence)


def _judged(path: Path) -> Iterator[Judged]:
    remedy = "grade the run again: tunesmith evaluate RUN"
    if not path.is_file():
        raise DataError("there are no scores here", place=str(path), remedy=remedy)
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                yield Judged(
                    Example(
                        row["id"],
                        (
                            *(Message(turn["role"], turn["content"]) for turn in row["prompt"]),
                            Message("assistant", row["gold"]),
                        ),
                        target=row["gold"],
                        group=row.get("group", ""),
                        meta=row["meta"],
                        place=row.get("place", ""),
                    ),
                    Completion(row["completion"], row["stopped"], row["tokens"], row["constraint_held"]),
                    Score(row["value"], row["parts"], row["note"], row["failure"], row["shown"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"this line is not a graded example ({error!r})", place=f"{path}:{number}", remedy=remedy
                ) from error
