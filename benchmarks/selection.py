"""What the rule that selects checkpoints by task score saves and costs, on simulated runs whose truth is known.

A run has 20 evaluations of `--examples` questions. Each question has a difficulty; the true accuracy follows a curve;
each evaluation answers each question right or wrong, mostly as the evaluation before did. Rules see the answers; regret
is measured on the truth: accuracy of the best checkpoint of the whole run less that of the one kept.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tunesmith.evaluate.selection import Selector

EVALUATIONS = 20
Curve = Callable[[np.ndarray], np.ndarray]
CURVES: dict[str, Curve] = {
    "soon flat": lambda t: 0.3 + 0.4 * (1 - np.exp(-t / 0.08)),
    "power law": lambda t: 0.75 - 0.12 * (t + 0.02) ** -0.4,
    "rising to the end": lambda t: 0.3 + 0.4 * t,
    "overfitting": lambda t: 0.3 + 0.4 * (1 - np.exp(-t / 0.1)) - 0.15 * np.maximum(0, t - 0.35),
    "nothing to learn": lambda t: 0.5 + 0 * t,
    "late jump": lambda t: 0.4 + 0.3 / (1 + np.exp(-(t - 0.6) / 0.06)),
}


def answers(truth: np.ndarray, examples: int, rng: np.random.Generator) -> np.ndarray:
    """(evaluations, examples) right or wrong, with a shared difficulty per question and some flicker."""
    difficulty = rng.normal(0, 1.5, examples)
    grid = np.linspace(-8, 8, 400)
    shift = np.array([grid[np.argmin(abs(_mean(grid[:, None] - difficulty) - p))] for p in truth])
    steady, flicker = rng.logistic(0, 1, examples), rng.logistic(0, 1, (len(truth), examples))
    mixed = np.where(rng.random((len(truth), examples)) < 0.8, steady, flicker)
    return (shift[:, None] - difficulty + mixed > 0).astype(float)


def _mean(logits: np.ndarray) -> np.ndarray:
    return (1 / (1 + np.exp(-logits))).mean(axis=1)


def run(rule: str, seen: np.ndarray, seed: int) -> tuple[int, int]:
    """(evaluation kept, evaluations paid for)."""
    if rule.startswith("patience"):
        patience, best = int(rule.split()[1]), 0
        for at in range(len(seen)):
            if seen[at].mean() > seen[best].mean():
                best = at
            if at - best >= patience:
                return best, at + 1
        return best, len(seen)
    selector = Selector(min_gain=0.01, improbable=0.05 if rule == "ours" else 0.0, seed=seed)
    for at, row in enumerate(seen):
        scores = {str(i): value for i, value in enumerate(row)}
        if selector.observe(at + 1, scores, 1.0, len(seen) - at - 1).stop:
            return selector.best, at + 1
    return selector.best, len(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few runs of each kind")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    repeats = 2 if options.quick else 40
    figures = []
    print(f"{'curve':<20}{'rule':<12}{'regret, points':>15}{'95th':>8}{'evaluations':>13}")
    for name, curve in CURVES.items():
        for rule in ("to the end", "patience 3", "ours"):
            regrets, paid = [], []
            for seed in range(repeats):
                rng = np.random.default_rng([seed, 7])
                truth = np.clip(curve(np.arange(1, EVALUATIONS + 1) / EVALUATIONS), 0.01, 0.99)
                truth = np.clip(truth + rng.normal(0, 0.005, EVALUATIONS), 0.01, 0.99)
                kept, used = run(rule, answers(truth, options.examples, rng), seed)
                regrets.append(100 * (truth.max() - truth[kept]))
                paid.append(used)
            print(
                f"{name:<20}{rule:<12}{np.mean(regrets):>15.2f}{np.quantile(regrets, 0.95):>8.2f}{np.mean(paid):>13.1f}"
            )
            conditions = f"{repeats} simulated runs, {EVALUATIONS} evaluations of {options.examples} examples, {name}"
            for figure, value, unit in (
                ("regret", float(np.mean(regrets)), "points"),
                ("evaluations paid for", float(np.mean(paid)), f"of {EVALUATIONS}"),
            ):
                figures.append(
                    {"figure": f"{figure}, {rule}", "value": value, "unit": unit, "goal": "", "conditions": conditions}
                )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
