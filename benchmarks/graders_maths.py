"""The maths grader on pairs of answers from elsewhere, beside the recorded verdicts of public graders.

`maths/vi_answer_pairs.jsonl` are answers in Vietnamese number formats (gold, predicted, equivalent) with verdicts of
public graders; `maths/answer_pairs_peer_tests.jsonl` are test pairs of math-verify and of hendrycks/math. GSM8K and
SVAMP give right answers and their red team.

    python benchmarks/graders.py --only maths --data FOLDER [--quick] [--json FILE]
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.config.schema import MathsTask as Settings
from tunesmith.evaluate.trust import hack_gain, self_test
from tunesmith.tasks.maths.answers import final_answer, find_answer
from tunesmith.tasks.maths.arithmetic import check_steps
from tunesmith.tasks.maths.compare import compare
from tunesmith.tasks.maths.symbolic import MathVerify
from tunesmith.tasks.maths.task import MathsTask
from tunesmith.tasks.maths.verdict import Circumstances
from tunesmith.types import Example, Record

Figure = Callable[..., None]
"""Called with name, value, unit and goal."""


def measure(data: Path, quick: bool, figure: Figure) -> None:
    """Print every figure of the maths grader.

    Args:
        data: holds `maths/vi_answer_pairs.jsonl` and its neighbours.
        quick: every tenth record.
        figure: prints and keeps one.
    """
    folder = data / "maths"
    step = 10 if quick else 1
    verifier = MathVerify() if MathVerify.installed() else None
    try:
        _vietnamese_pairs(_read(folder / "vi_answer_pairs.jsonl")[::step], verifier, figure)
        _peer_pairs(_read(folder / "answer_pairs_peer_tests.jsonl")[::step], verifier, figure)
    finally:
        if verifier is not None:
            verifier.close()
    _steps(_read(folder / "gsm8k.jsonl")[::step], figure)
    _red_team(folder, 20 if quick else 200, figure)


def _vietnamese_pairs(rows: list[dict[str, Any]], verifier: MathVerify | None, figure: Figure) -> None:
    about = Circumstances("vi", symbolic=verifier.same if verifier else None)
    ours: Counter[tuple[bool, bool | None]] = Counter()
    peers: Counter[tuple[str, bool, bool]] = Counter()
    start = time.perf_counter()
    for row in rows:
        same = compare(row["gold"], final_answer(row["pred"]) or row["pred"], about).same
        ours[row["equivalent"], same] += 1
        for name, verdict in row["peer_verdicts"].items():
            peers[name, row["equivalent"], bool(verdict)] += 1
    seconds = time.perf_counter() - start
    wrong, right = sum(not row["equivalent"] for row in rows), sum(row["equivalent"] for row in rows)
    figure("maths: Vietnamese pairs", len(rows), "pairs")
    figure("maths: wrong accepted", _percent(ours[False, True], wrong), "%", "<= 0.5")
    figure("maths: right rejected", _percent(ours[True, False], right), "%", "<= 2")
    figure("maths: wrong, not judged", _percent(ours[False, None], wrong), "%")
    figure("maths: right, not judged", _percent(ours[True, None], right), "%")
    for name in sorted({name for name, _, _ in peers}):
        accepted, rejected = peers[name, False, True], peers[name, True, False]
        figure(
            f"  {name}: wrong accepted / right rejected",
            f"{_percent(accepted, wrong)} / {_percent(rejected, right)}",
            "%",
        )
    figure("maths: pairs per second, one core", round(len(rows) / seconds), "/s")


def _peer_pairs(rows: list[dict[str, Any]], verifier: MathVerify | None, figure: Figure) -> None:
    about = Circumstances("en", symbolic=verifier.same if verifier else None)
    wrong = unscored = 0
    for row in rows:
        gold, said = (find_answer(row[key], "en") for key in ("gold", "pred"))
        same = compare(gold.text if gold else row["gold"], said.text if said else row["pred"], about).same
        unscored += same is None
        wrong += same is not None and same is not row["equivalent"]
    figure("maths: peers' own test pairs judged against their label", wrong, f"of {len(rows)}", "<= 5")
    figure("maths: peers' own test pairs not judged", unscored, f"of {len(rows)}")


def _steps(rows: list[dict[str, Any]], figure: Figure) -> None:
    checked = wrong = 0
    for row in rows:
        steps = check_steps(row["solution"], "en")
        checked += steps.checked
        wrong += len(steps.wrong)
    figure("maths: steps of published GSM8K solutions that are checked", checked, "steps")
    figure("maths: of these said not to hold", _percent(wrong, checked), "%")


def _red_team(folder: Path, most: int, figure: Figure) -> None:
    task = MathsTask(Settings())
    try:
        examples: list[Example] = []
        for name in ("gsm8k", "svamp"):
            for at, row in enumerate(_read(folder / f"{name}.jsonl")):
                fields = {key: value for key, value in row.items() if value is not None}
                examples += task.examples(Record(f"{name}-{at}", fields, name, at + 1))
        tested, tried = self_test(task, examples, most), hack_gain(task, examples, most)
    finally:
        task.close()
    scoring = sum(bool(policy.earned.value) for policy in tried.policies)
    figure("maths: right answers that score 1", _percent(tested.gold.value or 0, 1), "%", "100")
    figure("maths: other questions' answers that score", _percent(tested.shuffled.value or 0, 1), "%", "near 0")
    figure("maths: reward hacks that score", scoring, f"of {len(tried.policies)}", "0")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def _percent(part: float, whole: float) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
