"""Two models on the same prompts: the bootstrap against the exact interval, groups, slices, several comparisons."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.evaluate import Evaluation, Judged, compare, newcombe
from tunesmith.evaluate.paired import bootstrap, compare_slices, holm
from tunesmith.types import Completion, Example, Message, Score


def evaluation(values: list[float | None], groups: list[str] | None = None, **meta: list[str]) -> Evaluation:
    judged = []
    for i, value in enumerate(values):
        about = {key: found[i] for key, found in meta.items()}
        turns = (Message("user", f"q{i}"), Message("assistant", "a"))
        example = Example(f"e{i}", turns, "a", group=groups[i] if groups else "", meta=about)
        judged.append(Judged(example, Completion("x"), Score(value)))
    return Evaluation(tuple(judged))


def test_on_independent_pairs_the_bootstrap_agrees_with_newcombes_interval() -> None:
    rng = random.Random(1)
    before = [float(rng.random() < 0.4) for _ in range(400)]
    after = [max(b, float(rng.random() < 0.3)) if rng.random() < 0.95 else 0.0 for b in before]
    paired = compare(evaluation(before), evaluation(after), resamples=4000)
    assert paired.mean_difference == pytest.approx(paired.difference)
    assert (paired.mean_low, paired.mean_high) == pytest.approx((paired.low, paired.high), abs=0.015)
    assert paired.groups == 400


def test_copies_of_a_question_do_not_make_the_interval_narrower() -> None:
    rng = random.Random(2)
    before, after = [float(rng.random() < 0.4) for _ in range(40)], [float(rng.random() < 0.6) for _ in range(40)]
    alone = compare(evaluation(before), evaluation(after), resamples=4000)
    groups = [str(i) for i in range(40) for _ in range(10)]
    copied = compare(
        evaluation([v for v in before for _ in range(10)], groups),
        evaluation([v for v in after for _ in range(10)], groups),
        resamples=4000,
    )
    assert copied.mean_high - copied.mean_low == pytest.approx(alone.mean_high - alone.mean_low, abs=0.02)
    assert copied.high - copied.low < 0.5 * (copied.mean_high - copied.mean_low)  # which is what groups are for
    assert copied.groups == 40


def test_scores_between_0_and_1_are_compared_by_their_mean() -> None:
    paired = compare(evaluation([0.2, 0.4, None, 0.5]), evaluation([0.6, 0.8, 1.0, 0.5]), resamples=1000)
    assert (paired.n, paired.difference) == (3, 0.0)
    assert paired.mean_difference == pytest.approx(0.8 / 3)
    assert 0 <= paired.mean_low < paired.mean_difference < paired.mean_high <= 0.4001


def test_the_bootstrap_is_the_same_every_time_and_says_nothing_of_one_group() -> None:
    groups = [[0.0, 1.0], [1.0], [-1.0, 0.0]]
    assert bootstrap(groups, seed=3) == bootstrap(groups, seed=3)
    assert bootstrap([[0.5, 0.7]]) == (-1.0, 1.0)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault
@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(p_values: dict[str, float]) -> None:
    adjusted = holm(p_values)
    assert list(adjusted) == list(p_values)
    assert all(p <= adjusted[name] <= 1 for name, p in p_values.items())
    order = sorted(p_values, key=p_values.__getitem__)
    assert [adjusted[name] for name in order] == sorted(adjusted.values())


def test_holm_by_hand() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": 0.06})


def test_a_model_that_gains_on_one_kind_and_loses_on_another_is_seen_by_slices() -> None:
    kinds = ["count"] * 30 + ["join"] * 30
    before = [0.0] * 30 + [1.0] * 30
    found = compare_slices(
        evaluation(before, kind=kinds), evaluation([1.0] * 30 + [0.0] * 30, kind=kinds), ["kind", "absent"]
    )
    assert found.keys() == {"kind"}
    assert (found["kind"]["count"]["difference"], found["kind"]["join"]["difference"]) == (1.0, -1.0)
    assert found["kind"]["count"]["p_value"] == pytest.approx(2 * 2 / 2**30)
    assert (found["kind"]["count"]["low"], found["kind"]["count"]["high"]) == newcombe(0, 30, 0, 0)


def test_slices_are_by_fields_with_few_values() -> None:
    one = evaluation([1.0] * 26, kind=["a", "b"] * 13, same=["x"] * 26, id=[str(i) for i in range(26)])
    assert one.slice_keys() == ["kind"]
    assert one.slice_keys(["same", "none"]) == ["same"]
