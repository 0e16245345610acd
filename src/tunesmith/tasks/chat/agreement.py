"""How far a judge agrees with people: on single answers labelled good or bad, and on pairs labelled by preference."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.config.schema import ChatTask as Settings
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError, DataError
from tunesmith.tasks.chat.judge import Judge
from tunesmith.types import Message

GOOD = 0.625
"""From this mean of the criteria on (3.5 on the judge's scale of 1 to 5) the judge calls an answer good."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """A judge against labels."""

    agreed: int
    n: int
    """Examples that both judged."""
    unjudged: int
    kappa: float | None
    """Cohen's kappa: agreement beyond chance; None where the labels are all one."""
    inconsistent: int
    """Pairs on which the judge changed its mind with the order."""

    @property
    def share(self) -> float | None:
        """Share of the judged examples on which judge and label agree."""
        return self.agreed / self.n if self.n else None

    def figures(self) -> dict[str, Any]:
        """For machines."""
        return {"agreement": self.share, "kappa": self.kappa, "n": self.n, "unjudged": self.unjudged,
                "inconsistent": self.inconsistent}  # fmt: skip

    def sentence(self) -> str:
        """For a person."""
        if self.share is None:
            return f"none of {self.unjudged} labelled examples could be judged"
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return (
            f"the judge agrees with {100 * self.share:.0f} % of {self.n} labels{kappa}; "
            f"{self.inconsistent} pairs decided by their order, {self.unjudged} not judged"
        )


def measure_agreement(judge: Judge, labelled: Iterable[Mapping[str, Any]], place: str = "") -> Agreement:
    """Ask the judge about labelled examples.

    Args:
        labelled: records of `{question, answer, label}` with label `good` or `bad`, or of `{question, first, second,
            better}` with better `first`, `second` or `tie`; `messages` may stand for `question`.
        place: the file they came from, for the error.

    Raises:
        DataError: a record is neither.
    """
    pairs: list[tuple[str, str]] = []
    unjudged = inconsistent = 0
    for line, record in enumerate(labelled, 1):
        conversation = _conversation(record, f"{place}:{line}")
        if record.get("label") in ("good", "bad") and isinstance(record.get("answer"), str):
            found = judge.score(conversation, record["answer"], str(record.get("reference") or ""))
            if found is None:
                unjudged += 1
                continue
            mean = sum(found.parts.values()) / len(found.parts)
            pairs.append((record["label"], "good" if mean >= GOOD else "bad"))
        elif record.get("better") in ("first", "second", "tie") and all(
            isinstance(record.get(k), str) for k in ("first", "second")
        ):
            preferred = judge.prefer(
                conversation, record["first"], record["second"], str(record.get("reference") or "")
            )
            if preferred is None:
                unjudged += 1
                continue
            inconsistent += not preferred.consistent
            pairs.append((record["better"], preferred.better))
        else:
            raise DataError(
                "this is no labelled example", place=f"{place}:{line}",
                remedy="write question, answer and label (good, bad), or question, first, second and better",
            )  # fmt: skip
    return Agreement(sum(a == b for a, b in pairs), len(pairs), unjudged, cohen_kappa(pairs), inconsistent)


def agreement_of(config: RunConfig) -> Agreement:
    """The agreement of a recipe's judge with its labelled examples.

    Raises:
        ConfigError: the recipe names no judge, or no labelled examples.
        DataError: the file is missing, or a line is no labelled example.
    """
    from tunesmith.tasks.chat.task import ChatTask

    settings = config.task
    if not isinstance(settings, Settings) or settings.judge is None or settings.judge.labelled is None:
        raise ConfigError(
            "there is no judge with labelled examples",
            place="task.judge.labelled",
            remedy="set task: {name: chat, judge: {endpoint: ..., labelled: labelled.jsonl}}",
        )
    path = settings.judge.labelled
    judge = ChatTask(settings).judge()
    assert judge is not None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(
            f"the labelled examples cannot be read: {error}", place=str(path), remedy="JSON Lines"
        ) from error
    return measure_agreement(judge, records, str(path))


def cohen_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of two raters (Cohen, 1960, Educational and Psychological Measurement 20:37-46)."""
    n = len(pairs)
    if not n:
        return None
    one, other = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    chance = sum(one[label] * other[label] for label in one) / n**2
    return None if chance == 1 else (sum(a == b for a, b in pairs) / n - chance) / (1 - chance)


def _conversation(record: Mapping[str, Any], place: str) -> tuple[Message, ...]:
    turns = record.get("messages")
    if isinstance(turns, list) and turns:
        return tuple(Message(turn["role"], turn["content"]) for turn in turns)
    if isinstance(record.get("question"), str):
        return (Message("user", record["question"]),)
    raise DataError("a labelled example needs `question` or `messages`", place=place, remedy="add it")
