"""A data set of word problems with worked solutions, made up: no text of anybody's, every solution graded."""

from __future__ import annotations

import logging
import random
import re
from pathlib import Path
from typing import Any

from tunesmith.config.schema import MathsBuild, MathsTask
from tunesmith.errors import DataError
from tunesmith.tasks.built import Built, Drawn, digest, draw_sets, read_built, write_built
from tunesmith.tasks.maths.arithmetic import check_steps
from tunesmith.tasks.maths.numbers import Language, read_quantities
from tunesmith.tasks.maths.problems import KINDS, Draw, Problem

log = logging.getLogger(__name__)

VERSION = 3
"""Raise it when the same settings would give other problems."""


def build_problems(task: MathsTask, out: Path, seed: int) -> Built:
    """Build `train.jsonl`, `test_built.jsonl` and `test_unseen.jsonl` under `out`, or take what lies there.

    A record is `{question, solution, answer, language, kind}`. The same settings and seed give the same bytes. The
    numbers of a test problem stand in no training problem of its kind, in either language; the kinds of
    `test_unseen` are in no other set. A problem whose own steps or answer the grader would not accept is left out.

    Raises:
        DataError: the settings leave less than a tenth of the wanted examples.
    """
    wanted = task.build or MathsBuild()
    key = digest(VERSION, wanted.model_dump_json(), seed)[:16]
    if (earlier := read_built(out, key)) is not None:
        return earlier

    def draw(kind: str, rng: random.Random) -> Drawn:
        language: Language = "vi" if rng.random() < wanted.vietnamese else "en"
        problem = KINDS[kind](Draw(rng, language, wanted.largest))
        return Drawn(
            problem.question,
            (kind, *re.findall(r"\d+", problem.question)),
            holds=lambda: _holds(problem, language),
            record=lambda: _record(kind, language, problem),
        )

    sets = draw_sets(list(KINDS), draw, random.Random(f"{seed} problems"), wanted, seed)
    if len(sets.records["train"]) < wanted.examples / 10:
        raise DataError(
            f"only {len(sets.records['train'])} of {wanted.examples} problems could be made without asking one twice",
            place="task.build",
            remedy="raise task.build.largest, or lower task.build.examples",
        )
    left = {"asked before": sets.repeated, "its own steps do not hold": sets.refused}
    rejected = {reason: count for reason, count in left.items() if count}
    built = write_built(sets.records, sets.kinds, rejected, out, key, "every solution's arithmetic checked")
    log.info("built %s problems; left out: %s", built.counts, rejected)
    return built


def _holds(problem: Problem, language: Language) -> bool:
    """Whether every step of the solution comes out, as the grader reads it, and the last gives the answer."""
    steps = check_steps("\n".join(problem.steps), language)
    last = read_quantities(problem.steps[-1].rpartition("=")[2], language)
    said = read_quantities(problem.answer, language)
    agrees = bool(last and said) and last[0].usual == said[0].usual
    return steps.checked >= len(problem.steps) and not steps.wrong and agrees


def _record(kind: str, language: Language, problem: Problem) -> dict[str, Any]:
    return {
        "question": problem.question,
        "solution": "\n".join(problem.steps),
        "answer": problem.answer,
        "language": language,
        "kind": kind,
    }
