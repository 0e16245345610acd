"""Which checkpoint is best, and when to stop looking: on curves whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from tunesmith.evaluate.selection import Selector

LENGTH = 20


def watch(
    curve: Callable[[float], float], seed: int = 0, examples: int = 200, luck: float = 0.2
) -> tuple[Selector, int]:
    """The selector and the number of evaluations it looked at; each example flickers now and then."""
    rng = np.random.default_rng(seed)
    steady = rng.random(examples)
    selector = Selector(seed=seed)
    for at in range(LENGTH):
        draw = np.where(rng.random(examples) < luck, rng.random(examples), steady)
        right = draw < curve((at + 1) / LENGTH)
        verdict = selector.observe(
            10 * (at + 1), {str(i): float(value) for i, value in enumerate(right)}, 1.0, LENGTH - at - 1
        )
        if verdict.stop:
            return selector, at + 1
    return selector, LENGTH


def test_a_run_that_rises_to_its_end_is_not_stopped() -> None:
    for seed in range(5):
        selector, looked = watch(lambda t: 0.2 + 0.5 * t, seed)
        assert looked == LENGTH
        assert selector.best_step >= 170


def test_a_run_with_nothing_left_to_gain_is_stopped() -> None:
    looked = [watch(lambda t: 0.5, seed)[1] for seed in range(5)]
    assert sum(looked) < 0.85 * 5 * LENGTH


def test_an_overfitting_run_keeps_its_peak_and_is_stopped() -> None:
    found = [watch(lambda t: 0.8 - 1.2 * abs(t - 0.3), seed) for seed in range(5)]
    assert all(40 <= selector.best_step <= 80 for selector, _ in found)
    assert sum(looked for _, looked in found) < 0.9 * 5 * LENGTH


def test_it_never_stops_before_the_least_number_of_evaluations_nor_without_any_left() -> None:
    selector = Selector(least=5)
    verdicts = [selector.observe(i + 1, {"a": 1.0, "b": 0.0}, 1.0, 10) for i in range(5)]
    assert [v.stop for v in verdicts] == [False] * 4 + [True]
    assert [v.probability for v in verdicts[:4]] == [None] * 4
    assert Selector(least=3).observe(1, {"a": 1.0}, 1.0, 0).stop is False


def test_equal_scores_are_decided_by_the_loss_and_the_unjudged_counts_for_nobody() -> None:
    selector = Selector()
    assert selector.observe(1, {"a": 1.0, "b": 0.0, "c": None}, 2.0, 5).best
    assert not selector.observe(2, {"a": 1.0, "b": 0.0, "c": 0.0}, 2.5, 5).best
    assert selector.observe(3, {"a": 1.0, "b": None, "c": None}, 1.5, 5).best  # on `a`, which both answered
    assert selector.best_step == 3


def test_nothing_judged_is_no_score() -> None:
    selector = Selector()
    first = selector.observe(1, {"a": None}, 2.0, 5)
    assert (first.score, first.best, first.stop) == (None, True, False)
    assert selector.observe(2, {"a": 1.0}, 3.0, 5).best
    assert not selector.observe(3, {"a": None}, 1.0, 5).best


def test_a_selector_that_was_saved_decides_as_if_it_had_not_been() -> None:
    rng = np.random.default_rng(1)
    series = [{str(i): float(v) for i, v in enumerate(rng.random(50) < 0.5)} for _ in range(8)]
    whole, parts = Selector(), Selector()
    for at, scores in enumerate(series):
        a = whole.observe(at + 1, scores, 1.0, 12 - at)
        parts = _reloaded(parts)
        assert parts.observe(at + 1, scores, 1.0, 12 - at) == a


def _reloaded(selector: Selector) -> Selector:
    again = Selector()
    again.restore(json.loads(json.dumps(selector.state())))
    return again


@pytest.mark.parametrize("gain", [0.005, 0.05, 0.3])
def test_a_larger_gain_is_less_probable(gain: float) -> None:
    selector, _ = watch(lambda t: 0.7 - 0.4 * np.exp(-4 * t))
    selector.min_gain = 0.001
    before = selector.gain_probability(10)
    selector.min_gain = gain
    after = selector.gain_probability(10)
    assert before is not None and after is not None and after <= before
