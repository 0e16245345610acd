"""Completions to scores to metrics with intervals; two models on the same prompts; whether a grader can be trusted.

`metrics` has the figures of one model and its file of scores, `paired` the comparison of two, `ask` lets a model
answer, `trust` tests the grader itself. Nothing here imports torch before a model is asked.
"""

from __future__ import annotations

from tunesmith.evaluate.ask import evaluate
from tunesmith.evaluate.metrics import (
    Evaluation,
    Judged,
    Share,
    read_scores,
    sample,
    share,
    summarize,
    wilson,
    write_scores,
)
from tunesmith.evaluate.paired import Paired, compare, mcnemar, newcombe
from tunesmith.evaluate.trust import HackGain, SelfTest, hack_gain, self_test

__all__ = [
    "Evaluation",
    "HackGain",
    "Judged",
    "Paired",
    "SelfTest",
    "Share",
    "compare",
    "evaluate",
    "hack_gain",
    "mcnemar",
    "newcombe",
    "read_scores",
    "sample",
    "self_test",
    "share",
    "summarize",
    "wilson",
    "write_scores",
]
