"""Whether a grader can be trusted: it must know its own right answers, and nothing cheap may score.

Two questions, asked before anything is trained, because the grader is the metric, the selector of checkpoints and the
reward:

* `self_test`: does every right answer score 1, and the right answer of another question near 0?
* `hack_gain`: what do policies earn that solve nothing (an empty answer, the question again, one answer for all, the
  right form around nothing, all choices at once, the right answer off by one)?

A task may say more than the generic frame knows: `tunesmith.types.SaysGold` (what a model would have to write) and
`tunesmith.types.RedTeamed` (cheap answers against this very grader). No torch here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.config.schema import RunConfig
from tunesmith.evaluate.metrics import Share, sample, share
from tunesmith.types import Example, Finding, Level, RedTeamed, SaysGold, Score, Task

REWARDED = frozenset({"grpo"})
"""Values of `train.method` under which the score is what the model is rewarded for."""
_MOST_CHOICES = 40
"""Answers that the policy `all_choices` gives at once."""
_SHOWN = 3
"""Offending answers kept to be shown."""


@dataclass(frozen=True, slots=True)
class Offence:
    """An answer that was marked as it should not be."""

    example: Example
    answer: str
    score: Score

    def sentence(self) -> str:
        """For a person: where, what was answered, what the grader said."""
        place = self.example.place or self.example.id
        note = f" ({self.score.note})" if self.score.note else ""
        against = _short(self.example.target)
        return f"{place}: {_short(self.answer)!r} scores {self.score.value:g} against {against!r}{note}"


@dataclass(frozen=True, slots=True)
class SelfTest:
    """A grader on right answers and on right answers of other questions."""

    gold: Share
    """Mean score of the right answers: must be 1."""
    shuffled: Share
    """Mean score of right answers under other questions, none of which has the same target: must be near 0."""
    unscored: int
    """Right answers that the grader could not judge; they are no failure, and nothing is learned from them."""
    wrong: tuple[Offence, ...] = ()
    """Right answers that scored below 1."""
    fooled: tuple[Offence, ...] = ()
    """Answers to other questions that scored."""

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "gold": self.gold.value,
            "gold_n": self.gold.n,
            "shuffled": self.shuffled.value,
            "shuffled_n": self.shuffled.n,
            "unscored": self.unscored,
            "offences": [one.sentence() for one in (*self.wrong[:_SHOWN], *self.fooled[:_SHOWN])],
        }

    def findings(self, most: float, least: float = 1.0) -> list[Finding]:
        """What must stop a run: right answers below `least` on average, or other questions' answers above `most`."""
        found: list[Finding] = []
        if self.gold.value is not None and self.gold.value < least:
            message = (
                f"{len(self.wrong)} of {self.gold.n} right answers are not marked right; "
                f"the first is {self.wrong[0].sentence()}"
            )
            remedy = "correct the record, or say in it what is right; evaluate.self_test: 0 leaves this check out"
            found.append(Finding("self-test", "error", message, self.wrong[0].example.place, remedy))
        if self.shuffled.value is not None and self.shuffled.value > most:
            message = (
                f"answers to other questions score {self.shuffled.value:.1%} of {self.shuffled.n}; "
                f"the first is {self.fooled[0].sentence()}"
            )
            remedy = "the grader cannot tell these questions apart: add questions, or grade more strictly"
            found.append(Finding("self-test", "error", message, self.fooled[0].example.place, remedy))
        if not self.gold.n and self.unscored:
            message = f"none of {self.unscored} right answers can be judged, so no score will tell models apart"
            found.append(Finding("self-test", "warning", message, "", "say in the records what is right"))
        return found

    def sentence(self) -> str:
        """For a person."""
        if not self.gold.n:
            return f"none of {self.unscored} right answers can be judged"
        text = f"{self.gold.n} right answers score {_percent(self.gold)}"
        text += f", those of other questions {_percent(self.shuffled)}"
        return f"{text}; {self.unscored} cannot be judged" if self.unscored else text


def gold_answer(task: Task, example: Example) -> str:
    """What a model would have to write: as the task says it, else the example's last assistant turn."""
    if isinstance(task, SaysGold):
        return task.gold_answer(example)
    last = example.messages[-1]
    return last.content if last.role == "assistant" else example.target


def self_test(task: Task, examples: Sequence[Example], most: int | None = None, seed: int = 0) -> SelfTest:
    """Grade right answers, and right answers of other questions.

    Args:
        task: the grader.
        examples: questions with their right answers; what is not graded (no target) is left out by its score of None.
        most: a fixed sample of at most this many.
        seed: chooses the sample and the other question.
    """
    chosen = sample(examples, most, seed)
    gold: list[float | None] = []
    shuffled: list[float | None] = []
    wrong: list[Offence] = []
    fooled: list[Offence] = []
    for example in chosen:
        answer = gold_answer(task, example)
        score = task.grade(example, answer)
        gold.append(score.value)
        if score.value is None:
            continue
        if score.value < 1:
            wrong.append(Offence(example, answer, score))
        other = _other(task, example, chosen)
        if other is not None:
            answer = gold_answer(task, other)
            score = task.grade(example, answer)
            shuffled.append(score.value)
            if score.value:
                fooled.append(Offence(example, answer, score))
    return SelfTest(share(gold), share(shuffled), sum(v is None for v in gold), tuple(wrong), tuple(fooled))


def _other(task: Task, example: Example, pool: Sequence[Example]) -> Example | None:
    """The next example in the pool whose right answer is another text: half the pool away, then onwards."""
    at = next(i for i, one in enumerate(pool) if one is example)
    own = {_plain(example.target), _plain(gold_answer(task, example))}
    for step in range(len(pool)):
        other = pool[(at + len(pool) // 2 + step) % len(pool)]
        if other is not example and not own & {_plain(other.target), _plain(gold_answer(task, other))}:
            return other
    return None


# --- red team ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """What one way of answering without solving earned."""

    name: str
    earned: Share
    """Mean score where the cheap answer is not, by chance, the right answer's own text."""
    offences: tuple[Offence, ...]


@dataclass(frozen=True, slots=True)
class HackGain:
    """What cheap policies earn of a grader: the most a reward could be raised without solving anything."""

    policies: tuple[Policy, ...]

    @property
    def gain(self) -> float:
        """The mean score of the policy that earns most; 0 when nothing was judged."""
        return max((policy.earned.value or 0.0 for policy in self.policies), default=0.0)

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        return {
            "gain": self.gain,
            "policies": {policy.name: policy.earned.value for policy in self.policies},
            "n": max((policy.earned.n for policy in self.policies), default=0),
            "offences": [one.sentence() for policy in self.policies for one in policy.offences[:_SHOWN]],
        }

    def findings(self, most: float, level: Level = "warning") -> list[Finding]:
        """One finding for each policy that earns more than `most`; `level` is `error` where the score is a reward."""
        return [
            Finding(
                "hack gain",
                level,
                f"the policy {policy.name!r} earns {policy.earned.value:.1%} of {policy.earned.n} without solving "
                f"anything; the first is {policy.offences[0].sentence()}",
                policy.offences[0].example.place,
                "a model that is rewarded for this learns this: grade more strictly, or drop these examples",
            )
            for policy in self.policies
            if policy.earned.value is not None and policy.earned.value > most
        ]

    def sentence(self) -> str:
        """For a person."""
        judged = [policy for policy in self.policies if policy.earned.n]
        if not judged:
            return "no cheap answer can be judged"
        worst = max(judged, key=lambda policy: policy.earned.value or 0.0)
        return f"{len(judged)} cheap policies earn at most {self.gain:.1%} ({worst.name})"


def hack_gain(task: Task, examples: Sequence[Example], most: int | None = None, seed: int = 0) -> HackGain:
    """Grade answers that solve nothing: the generic policies below, and those the task knows (`RedTeamed`).

    A task's own answer replaces the generic one of the same name. An answer that is, as text, the right answer or its
    target is left out of the count: giving a frequent answer is no fault of the grader where it is right.
    """
    chosen = sample(examples, most, seed)
    frame = _Frame(task, chosen)
    scores: dict[str, list[float | None]] = {}
    offences: dict[str, list[Offence]] = {}
    for example in chosen:
        right = {_plain(example.target), _plain(gold_answer(task, example))}
        for name, answer in frame.answers(example).items():
            if _plain(answer) in right and _plain(answer):
                continue
            score = task.grade(example, answer)
            scores.setdefault(name, []).append(score.value)
            if score.value:
                offences.setdefault(name, []).append(Offence(example, answer, score))
    return HackGain(tuple(Policy(name, share(found), tuple(offences.get(name, ()))) for name, found in scores.items()))


class _Frame:
    """Cheap answers that any task can be tried with, made from the right ones."""

    def __init__(self, task: Task, pool: Sequence[Example]) -> None:
        self._task = task
        golds = Counter(gold_answer(task, example) for example in pool)
        self._constant = golds.most_common(1)[0][0] if golds else ""
        self._choices = list(dict.fromkeys(e.target for e in pool if e.target))

    def answers(self, example: Example) -> dict[str, str]:
        gold = gold_answer(self._task, example)
        cheap: dict[str, str] = {
            "empty": "",
            "echo": example.question,
            "constant": self._constant,
            "right_form": _hollow(gold),
        }
        if choices := self._all_choices(example):
            cheap["all_choices"] = choices
        if missed := near_miss(gold):
            cheap["near_miss"] = missed
        if isinstance(self._task, RedTeamed):
            cheap.update(self._task.cheap_answers(example))
        return cheap

    def _all_choices(self, example: Example) -> str:
        """Answers of many questions with this one's in the middle: a grader that reads the first or the last of them
        is right in doing so, and only one that looks for the right answer anywhere is fooled."""
        others = [choice for choice in self._choices if _plain(choice) != _plain(example.target)][:_MOST_CHOICES]
        if not example.target or len(others) < 2:
            return ""
        half = len(others) // 2
        return "\n".join([*others[:half], example.target, *others[half:]])


def near_miss(gold: str) -> str:
    """The right answer with its last number one higher, or, where it is one word, that word spelt wrong; else empty."""
    numbers = list(re.finditer(r"\d+", gold))
    if numbers:
        last = numbers[-1]
        return f"{gold[: last.start()]}{_one_more(last.group())}{gold[last.end() :]}"
    words = list(re.finditer(r"[^\W\d_]+", gold))
    if len(words) != 1:  # a typo in a sentence is not a wrong answer
        return ""
    last = words[-1]
    swapped = "q" if last.group()[-1] != "q" else "z"
    return f"{gold[: last.end() - 1]}{swapped}{gold[last.end() :]}"


def _one_more(digits: str) -> str:
    return str(int(digits) + 1).zfill(len(digits))


def _hollow(gold: str) -> str:
    """The form without the content: punctuation and line ends as they are, every word `x`, every digit 0."""
    return re.sub(r"[^\W\d_]+", "x", re.sub(r"\d", "0", gold))


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 80 else f"{flat[:77]}..."


def _percent(value: Share) -> str:
    return "nothing" if value.value is None else f"{100 * value.value:.1f} %"


# --- the gate of a run ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trust:
    """What a run found out about its grader before it trained anything."""

    test: SelfTest
    hacks: HackGain
    findings: tuple[Finding, ...]

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        return {"self_test": self.test.figures(), "hack_gain": self.hacks.figures()}

    def sentence(self) -> str:
        """For a person."""
        return f"{self.test.sentence()}; {self.hacks.sentence()}"


def try_grader(task: Task, examples: Sequence[Example], config: RunConfig) -> Trust:
    """`self_test` and `hack_gain` as `config.evaluate` says; an error among the findings must stop the run.

    A hack gain above `evaluate.max_hack_gain` is an error where the score is a reward (`REWARDED`).
    """
    wanted = config.evaluate
    test = self_test(task, examples, wanted.self_test, config.seed)
    hacks = hack_gain(task, examples, wanted.self_test, config.seed)
    level: Level = "error" if config.train.method in REWARDED else "warning"
    findings = test.findings(wanted.max_shuffled, wanted.min_gold) + hacks.findings(wanted.max_hack_gain, level)
    return Trust(test, hacks, tuple(findings))
