"""A data set of word problems with worked solutions, made up: no text of anybody's, every solution graded."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

from tunesmith.config.schema import MathsBuild, MathsTask
from tunesmith.errors import DataError
from tunesmith.tasks.built import SETS, Built, digest, read_built, share_of, write_built
from tunesmith.tasks.maths.arithmetic import check_steps
from tunesmith.tasks.maths.numbers import Language, read_quantities
from tunesmith.tasks.maths.problems import KINDS, Draw, Problem

log = logging.getLogger(__name__)

VERSION = 1
"""Raise it when the same settings would give other problems."""
_TEST_SHARE = 0.1
"""Share of the values of a kind that are kept for testing."""
_TRIES = 40
"""Problems drawn for each that is wanted, before giving up on variety."""


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
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in SETS}
    most = {"train": wanted.examples, "test_built": wanted.test_examples, "test_unseen": wanted.test_examples}
    unseen = unseen_kinds(wanted.unseen_kinds, seed)
    kinds: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    asked: set[str] = set()
    rng = random.Random(f"{seed} problems")
    for _ in range(_TRIES * (wanted.examples + 2 * wanted.test_examples)):
        open_sets = [name for name in SETS if len(records[name]) < most[name] and (name != "test_unseen" or unseen)]
        if not open_sets:
            break
        kind = rng.choice(list(KINDS))
        language: Language = "vi" if rng.random() < wanted.vietnamese else "en"
        problem = KINDS[kind](Draw(rng, language, wanted.largest))
        side = _side(kind, problem, unseen, seed)
        if side not in open_sets:
            continue
        if problem.question in asked:
            rejected["asked before"] += 1
        elif not _holds(problem, language):
            rejected["its own steps do not hold"] += 1
        else:
            asked.add(problem.question)
            kinds[kind] += 1
            records[side].append(_record(kind, language, problem))
    if len(records["train"]) < wanted.examples / 10:
        raise DataError(
            f"only {len(records['train'])} of {wanted.examples} problems could be made without asking one twice",
            place="task.build",
            remedy="raise task.build.largest, or lower task.build.examples",
        )
    built = write_built(records, kinds, rejected, out, key, "every solution's arithmetic checked")
    log.info("built %s problems; left out: %s", built.counts, dict(rejected))
    return built


def unseen_kinds(share: float, seed: int) -> frozenset[str]:
    """The kinds that training never sees: the nearest whole number to their share, chosen by hash."""
    order = sorted(KINDS, key=lambda kind: digest(seed, "unseen", kind))
    return frozenset(order[: min(round(share * len(KINDS)), len(KINDS) - 1)])


def _side(kind: str, problem: Problem, unseen: frozenset[str], seed: int) -> str:
    if kind in unseen:
        return "test_unseen"
    return "test_built" if share_of(seed, kind, problem.values) < _TEST_SHARE else "train"


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
