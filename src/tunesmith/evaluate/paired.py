"""Two models on the same prompts: McNemar's exact test on the examples where they differ, and an interval for the
difference."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

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


def compare(base: Evaluation, tuned: Evaluation) -> Paired:
    """Compare two evaluations of the same test set, example by example. An answer is right when it scores 1.

    The p-value is McNemar's exact test: the binomial probability of so uneven a split of the discordant pairs
    (McNemar, 1947, Psychometrika 12:153-157). The interval is Newcombe's for paired proportions, from the Wilson
    intervals of both shares and their correlation (Newcombe, 1998, Statistics in Medicine 17:2635-2650, method 10).
    """
    before = {one.example.id: one.score.value for one in base.judged}
    pairs = [
        (before[one.example.id] == 1, one.score.value == 1)
        for one in tuned.judged
        if one.score.value is not None and before.get(one.example.id) is not None
    ]
    counts = Counter(pairs)
    gained, lost = counts[False, True], counts[True, False]
    if not pairs:
        return Paired(None, -1.0, 1.0, 1.0, 0, 0, 0)
    both, neither, n = counts[True, True], counts[False, False], len(pairs)
    low, high = newcombe(both, gained, lost, neither, tuned.confidence)
    return Paired((gained - lost) / n, low, high, mcnemar(gained, lost), gained, lost, n)


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
