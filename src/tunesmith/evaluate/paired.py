"""Two models on the same prompts: McNemar's exact test on the examples where they differ, an interval for the
difference, a bootstrap of the mean score by group, and the same on every slice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.evaluate.metrics import Evaluation, wilson


@dataclass(frozen=True, slots=True)
class Paired:
    """The tuned model against the base on the examples that both were judged on."""

    difference: float | None
    """Accuracy of the tuned model minus that of the base; None without common examples."""
    low: float
    high: float
    p_value: float
    """Two-sided: how often models that are equally good would differ at least so unevenly."""
    gained: int
    """Examples that only the tuned model answered right."""
    lost: int
    """Examples that only the base answered right."""
    n: int
    mean_difference: float | None = None
    """Mean score of the tuned model minus that of the base: the same as `difference` where scores are 0 or 1."""
    mean_low: float = -1.0
    """Bootstrap interval of `mean_difference`, resampling groups of examples."""
    mean_high: float = 1.0
    groups: int = 0
    """Groups that were resampled: examples that share a document or a skeleton are not independent."""


def compare(base: Evaluation, tuned: Evaluation, resamples: int = 0, seed: int = 0) -> Paired:
    """Compare two evaluations of the same test set, example by example. An answer is right when it scores 1.

    Args:
        resamples: of the bootstrap; 0 leaves it out.
        seed: of the bootstrap.

    The p-value is McNemar's exact test: the binomial probability of so uneven a split of the discordant pairs
    (McNemar, 1947, Psychometrika 12:153-157). The interval is Newcombe's for paired proportions, from the Wilson
    intervals of both shares and their correlation (Newcombe, 1998, Statistics in Medicine 17:2635-2650, method 10).
    """
    before = {one.example.id: one.score.value for one in base.judged}
    both_judged = [
        (one.example, before[one.example.id], one.score.value)
        for one in tuned.judged
        if one.score.value is not None and before.get(one.example.id) is not None
    ]
    pairs = [(first == 1, second == 1) for _, first, second in both_judged]
    counts = Counter(pairs)
    gained, lost = counts[False, True], counts[True, False]
    if not pairs:
        return Paired(None, -1.0, 1.0, 1.0, 0, 0, 0)
    both, neither, n = counts[True, True], counts[False, False], len(pairs)
    low, high = newcombe(both, gained, lost, neither, tuned.confidence)
    groups: dict[str, list[float]] = {}
    for example, first, second in both_judged:
        assert first is not None and second is not None
        groups.setdefault(example.group or example.id, []).append(second - first)
    mean = sum(sum(found) for found in groups.values()) / n
    interval = bootstrap(list(groups.values()), tuned.confidence, resamples, seed) if resamples else (-1.0, 1.0)
    return Paired((gained - lost) / n, low, high, mcnemar(gained, lost), gained, lost, n, mean, *interval, len(groups))


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test on the two counts of discordant pairs."""
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**n))


def newcombe(both: int, gained: int, lost: int, neither: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of the difference (both + gained)/n - (both + lost)/n of paired proportions.

    Method 10 of Newcombe (1998): Wilson's distances of both shares, joined through the phi coefficient of the table,
    with a continuity correction of n/2 in its numerator where it is positive.
    """
    n = both + gained + lost + neither
    second, first = (both + gained) / n, (both + lost) / n
    difference = second - first
    low2, high2 = wilson(second, n, confidence)
    low1, high1 = wilson(first, n, confidence)
    product = (both + gained) * (lost + neither) * (both + lost) * (gained + neither)
    determinant = both * neither - gained * lost
    corrected = max(determinant - n / 2, 0.0) if determinant > 0 else float(determinant)
    phi = corrected / math.sqrt(product) if product else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    return (
        max(-1.0, difference - distance(second - low2, high1 - first)),
        min(1.0, difference + distance(high2 - second, first - low1)),
    )


_AT_ONCE = 1 << 22
"""Draws held in memory at a time."""


def bootstrap(
    groups: Sequence[Sequence[float]], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of the mean of grouped values, resampling whole groups (Efron, 1979; Field and Welsh, 2007,
    JRSS B 69:369-390, for clusters).

    Values of one group count together, so that ten questions of one document weigh as the dependent ten that they are.
    With few groups (under about 20) percentile intervals are somewhat too narrow; `groups` is reported for that reason.
    """
    import numpy as np

    sums = np.array([sum(found) for found in groups])
    counts = np.array([len(found) for found in groups])
    if len(groups) < 2:
        return -1.0, 1.0
    rng = np.random.default_rng(seed)
    means = []
    step = max(1, _AT_ONCE // len(groups))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(groups), (min(step, resamples - start), len(groups)))
        means.append(sums[drawn].sum(1) / counts[drawn].sum(1))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values adjusted for having looked at all of them (Holm, 1979, Scandinavian Journal of Statistics 6:65-70)."""
    adjusted: dict[str, float] = {}
    most = 0.0
    for at, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        most = max(most, min(1.0, p * (len(p_values) - at)))
        adjusted[name] = most
    return {name: adjusted[name] for name in p_values}


def compare_slices(base: Evaluation, tuned: Evaluation, keys: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """The comparison on every slice: meta key, value, figures. p-values are Holm's over all slices of all keys."""
    found: dict[tuple[str, str], Paired] = {}
    for key in keys:
        for value in sorted({str(one.example.meta[key]) for one in tuned.judged if key in one.example.meta}):
            part = [one for one in tuned.judged if str(one.example.meta.get(key)) == value and key in one.example.meta]
            paired = compare(base, Evaluation(tuple(part), tuned.confidence))
            if paired.n:
                found[key, value] = paired
    adjusted = holm({f"{key}\0{value}": paired.p_value for (key, value), paired in found.items()})
    slices: dict[str, dict[str, dict[str, Any]]] = {}
    for (key, value), paired in found.items():
        slices.setdefault(key, {})[value] = {
            "difference": paired.difference,
            "low": paired.low,
            "high": paired.high,
            "p_value": adjusted[f"{key}\0{value}"],
            "gained": paired.gained,
            "lost": paired.lost,
            "n": paired.n,
        }
    return slices
