"""Which checkpoint is best at the task, and when further training will hardly find a better one.

The score of a few hundred validation answers is noisy, so "no better for three evaluations" stops good runs. Here
every evaluation is on the same examples; a learning curve is fitted to all of them, again and again on resampled
examples, and followed to the end of the run. Training stops when a gain worth having is improbable:

    P(the curve still to come - where the best stands >= min_gain) < improbable

A jump that nothing announces cannot be foreseen by any such rule (`benchmarks/selection.py` shows what it costs). No
torch here; `train.selection` is the callback.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one evaluation says."""

    best: bool
    """Whether these weights are the best so far."""
    stop: bool
    score: float | None
    """Mean of the answers that could be judged."""
    probability: float | None
    """That an evaluation still to come gains at least `min_gain`; None while there are too few to say."""


@dataclass
class Selector:
    """Scores of the same examples at several points of a run."""

    min_gain: float = 0.01
    improbable: float = 0.05
    least: int = 5
    """Evaluations before it may stop."""
    seed: int = 0
    steps: list[int] = field(default_factory=list)
    scores: list[dict[str, float]] = field(default_factory=list)
    """By example, for each evaluation; what could not be judged is missing."""
    losses: list[float] = field(default_factory=list)
    best: int = -1
    """Number of the best evaluation."""

    @property
    def best_step(self) -> int:
        """Step of the best evaluation; 0 before there is one."""
        return self.steps[self.best] if self.best >= 0 else 0

    def observe(self, step: int, scores: Mapping[str, float | None], loss: float, remaining: int) -> Verdict:
        """Take in one evaluation.

        Args:
            step: optimizer step.
            scores: example id to score; None where it could not be judged.
            loss: validation loss, which decides between equal scores.
            remaining: evaluations the run still has.
        """
        self.steps.append(step)
        self.scores.append({id_: float(value) for id_, value in scores.items() if value is not None})
        self.losses.append(loss)
        judged = self.scores[-1]
        if not judged:
            return Verdict(self.best < 0 and self._take(), False, None, None)
        better = self.best < 0 or self._better()
        if better:
            self._take()
        probability = self.gain_probability(remaining) if len(self.steps) >= self.least else None
        stop = remaining > 0 and probability is not None and probability < self.improbable
        return Verdict(better, stop, sum(judged.values()) / len(judged), probability)

    def _take(self) -> bool:
        self.best = len(self.steps) - 1
        return True

    def _better(self) -> bool:
        new, old = self.scores[-1], self.scores[self.best]
        common = new.keys() & old.keys()
        if not common:
            return bool(new) and not old
        gain = sum(new[id_] for id_ in common) - sum(old[id_] for id_ in common)
        return gain > 1e-9 or (abs(gain) <= 1e-9 and self.losses[-1] < self.losses[self.best])

    def gain_probability(self, remaining: int) -> float | None:
        """How probable it is that one of the `remaining` evaluations beats the best by `min_gain` or more; None where
        fewer than two examples were judged every time."""
        if remaining <= 0:
            return 0.0
        common = sorted(set.intersection(*(set(one) for one in self.scores)))
        if len(common) < 2 or len(self.steps) < 3:
            return None
        values = np.array([[one[id_] for id_ in common] for one in self.scores])
        rng = np.random.default_rng([self.seed, len(self.steps)])
        drawn = rng.multinomial(len(common), np.full(len(common), 1 / len(common)), _RESAMPLES) / len(common)
        curves = drawn @ values.T  # (resamples, evaluations)
        times = np.array(self.steps, dtype=float)
        every = (times[-1] - times[0]) / (len(times) - 1)
        future = times[-1] + every * np.arange(1, remaining + 1)
        fitted, followed = _follow(curves, times / times[-1], future / times[-1])
        # What the curve does not explain is partly luck of the draw and partly real: checkpoints differ. The best keeps
        # the share that is real. Those to come are taken at their curve: a better one by chance could not be told.
        residuals = curves - fitted
        luck = _sampling_variance(values)
        spread = float(np.mean(np.var(residuals, axis=1))) * len(times) / max(1, len(times) - 2)
        real = max(0.0, spread - 2 * luck)  # a resample has the luck of the sample and its own
        kept = fitted[:, self.best] + residuals[:, self.best] * (real / (real + luck) if real + luck else 0.0)
        return float(np.mean(followed.max(axis=1) - kept >= self.min_gain))

    def state(self) -> dict[str, Any]:
        """For a checkpoint; `restore` takes it back."""
        return {"steps": self.steps, "scores": self.scores, "losses": self.losses, "best": self.best}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        self.steps, self.scores = list(state["steps"]), [dict(one) for one in state["scores"]]
        self.losses, self.best = list(state["losses"]), int(state["best"])


def _sampling_variance(values: Floats) -> float:
    """Variance of one evaluation's mean around its neighbours', examples being drawn: half that of their difference."""
    differences = np.diff(values, axis=0)
    return float(np.mean(differences.var(axis=1)) / (2 * values.shape[1]))


_SHAPES: tuple[Callable[[Floats], Floats], ...] = (
    lambda t: -(t**-2.0),
    lambda t: -(t**-1.0),
    lambda t: -(t**-0.5),
    np.log,
    lambda t: t,
)
"""Learning curves, from one that is soon flat to one that goes on: powers of time (as in Viering and Loog, 2023, IEEE
TPAMI 45:7799-7819), its logarithm, and a straight line."""


def _follow(curves: Floats, past: Floats, future: Floats) -> tuple[Floats, Floats]:
    """Fit each curve with the shape that suits it best, and follow it.

    A curve that falls is taken as flat at the mean of its later half: nothing is foretold from an overfitted run.

    Returns:
        (resamples, past) and (resamples, future).
    """
    best = np.full(len(curves), np.inf)
    fitted, followed = np.empty_like(curves), np.empty((len(curves), len(future)))
    for shape in _SHAPES:
        design = np.stack([np.ones_like(past), shape(past)], axis=1)
        coefficients = curves @ np.linalg.pinv(design).T
        guess = coefficients @ design.T
        error = ((curves - guess) ** 2).sum(axis=1)
        error[coefficients[:, 1] < 0] = np.inf
        take = error < best
        best[take], fitted[take] = error[take], guess[take]
        ahead = coefficients @ np.stack([np.ones_like(future), shape(future)], axis=1).T
        followed[take] = ahead[take]
    flat = ~np.isfinite(best)
    level = curves[:, curves.shape[1] // 2 :].mean(axis=1, keepdims=True)
    fitted[flat], followed[flat] = level[flat], level[flat]
    return fitted, np.clip(followed, 0.0, 1.0)
