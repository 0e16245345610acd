"""Faults and what becomes of a run: ours, and `transformers.Trainer` as it comes, under the same ones.

    ours      real processes run the demo's recipe made small (`tests/crash`) under each kind of fault; what must come
              out is the undisturbed run's adapter, optimizer, random numbers and log, to the bit
    plain     the same faults for `transformers.Trainer` with PEFT, as its documentation says it is resumed
    mirror    uploads cut at every request, errors, hangs, wrong bytes; two writers (`faults_mirror.py`)
    inputs    checkpoints, adapters, templates and secrets as attackers leave them: the tests that hold each
    costs     what checkpoints, digests and a mirror take on the demo's own model, also while the mirror is away
    picture   one run, and the same run killed over and over

    python benchmarks/reliability.py [--quick] [--json FILE] [--keep FOLDER] [--only PART ...] [--kinds KIND ...]

With `--keep`, what is done is written there as it comes and not done again by a later call with the same seed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CRASH = Path(__file__).resolve().parents[1] / "tests" / "crash"
sys.path.insert(0, str(CRASH))

import trials  # noqa: E402
import world as w  # noqa: E402
from outcome import together  # noqa: E402

Row = dict[str, Any]
"""A figure, as `--json` has it: figure, value, unit, goal, conditions."""

QUICK = {"kills": 5, "operations": 4, "refusals": 2, "mutations": 50, "disk_full": 2, "stops": 2, "starters": 1,
         "numbers": 4, "memory": 2, "clocks": 1, "workers": 1, "machines": 1, "fresh": 1}  # fmt: skip
PLAIN = {"kills": 30, "operations": 10_000, "mutations": 40, "disk_full": 8, "stops": 8, "starters": 3, "numbers": 8,
         "memory": 8, "clocks": 4, "machines": 1}  # fmt: skip
PLAIN_QUICK = {"operations": 4, "mutations": 4, "numbers": 1, "machines": 1}
GOALS = {
    "kills": "0 stuck, 0 different of 1,000", "operations": "0 stuck, 0 different, all operations",
    "refusals": "exit 4, checkpoint before intact", "mutations": "all of 500 detected",
    "disk_full": "checkpoint before intact, exit 4, 60 sizes", "stops": "exit 75, exact, under 5 s, 100 SIGTERM",
    "starters": "exactly one of 8 runs, 20 times", "numbers": "finite adapter or exit 7, 50 of 50",
    "memory": "same steps, loss within 1e-6, 30 of 30", "clocks": "newest never deleted, 20 of 20",
    "workers": "same result", "machines": "equal sha256, 20 of 20", "fresh": "0 stuck, 0 different",
}  # fmt: skip
INPUTS = ["checkpoints/test_bad_checkpoints.py", "train/test_bad_state.py", "model/test_outside.py",
          "data/test_bad_templates.py", "test_canaries.py"]  # fmt: skip
NUMBERS = [f"{kind}{number}" for kind, last in (("K", 22), ("A", 14), ("T", 20)) for number in range(1, last + 1)]
"""Of the catalogue of bad checkpoints, adapters and templates; each stands in the name or docstring of its test."""


class Record:
    """What has been found, printed and written down as it comes.

    Args:
        seed: of everything random.
        keep: folder for what is done, or None.
    """

    def __init__(self, seed: int, keep: Path | None) -> None:
        self.seed, self.keep = seed, keep
        self.rows: list[Row] = []
        cores = len(os.sched_getaffinity(0))
        self._machine = f"{platform.processor() or platform.machine()}, {cores} cores, one thread, CPU"
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)

    def note(self, figure: str, value: Any, unit: str, goal: str, conditions: str = "") -> None:
        """A row."""
        conditions = "; ".join(part for part in (conditions, f"seed {self.seed}", self._machine) if part)
        self.rows.append({"figure": figure, "value": value, "unit": unit, "goal": goal, "conditions": conditions})

    def outcomes(self, part: str) -> dict[str, Row]:
        """What an earlier call found under this seed, by kind of fault."""
        path = self.keep / f"{part}.jsonl" if self.keep is not None else None
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        found: dict[str, Row] = {}
        for one in (json.loads(line) for line in lines if line.startswith("{")):
            if one.get("seed") == self.seed:
                _join(found, one)
        return found

    def add(self, part: str, outcome: Row) -> None:
        """Keep an outcome."""
        if self.keep is not None:
            with (self.keep / f"{part}.jsonl").open("a") as file:
                file.write(json.dumps(outcome) + "\n")

    def once(self, part: str, make: Callable[[], list[Row]]) -> None:
        """The rows of a part, from an earlier call where there was one."""
        path = self.keep / f"{part}.json" if self.keep is not None else None
        if path is not None and path.exists():
            self.rows += json.loads(path.read_text())
            return
        before = len(self.rows)
        self.rows += make()
        if path is not None:
            path.write_text(json.dumps(self.rows[before:], indent=1))


def under_faults(record: Record, part: str, counts: Mapping[str, int], folder: Path) -> None:
    """Trials of `tests/crash/trials.py`, in a process of its own that has the shim; a line for each kind."""
    done = record.outcomes(part)
    left = {kind: count - _counted(done.get(kind)) for kind, count in counts.items()
            if kind not in done or kind in trials.PARTS}  # fmt: skip
    todo = [f"{kind}={count}" for kind, count in left.items() if count > 0]
    for kind in counts:
        if kind in done:
            _show(done[kind])
    if todo:
        options = ["--folder", str(folder), "--seed", str(record.seed), *(["--plain"] if part == "plain" else [])]
        command = [sys.executable, str(CRASH / "trials.py"), *todo, *options]
        process = subprocess.Popen(command, env=trials.with_shim(folder), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                outcome = json.loads(line)
                record.add(part, outcome)
                _join(done, outcome)
                _show(done[outcome["kind"]])
        process.wait()
    for kind in counts:
        one = done.get(kind, {"skipped": ""})
        if "skipped" in one:
            continue
        if part == "ours":
            bad = one["stuck"] + one["different"] + len(one["wrong"])
            record.note(one["fault"], bad, f"bad of {one['trials']}", GOALS[kind], json.dumps(one["figures"]))
        else:
            said = f"{one['stuck']} stuck, {one['different']} silently different; {json.dumps(one['figures'])}"
            value, unit = one["stuck"] + one["different"], f"bad of {one['trials']}"
            record.note(f"transformers.Trainer: {one['fault']}", value, unit, "for comparison", said)


def _join(found: dict[str, Row], outcome: Row) -> None:
    """Some kinds come in parts."""
    kind = outcome["kind"]
    found[kind] = together(found[kind], outcome) if kind in found else outcome


def _counted(outcome: Row | None) -> int:
    """Trials, without those that come on top of what was asked for."""
    return outcome["trials"] - int(outcome["figures"].get("sigint", 0)) if outcome is not None else 0


def _show(outcome: Row) -> None:
    if "skipped" in outcome:
        print(f"  {outcome['kind']}: skipped, {outcome['skipped']}", flush=True)
        return
    figures = ", ".join(f"{name} {value:g}" for name, value in outcome["figures"].items())
    print(
        f"  {outcome['fault']:<50} {outcome['trials']:>5} trials  {outcome['stuck']:>3} stuck  "
        f"{outcome['different']:>3} different  {len(outcome['wrong']):>3} otherwise wrong  {figures}",
        flush=True,
    )
    for wrong in sorted(set(outcome["wrong"]))[:3]:
        print(f"      {wrong}", flush=True)


def mirror(quick: bool, seed: int) -> list[Row]:
    """The rows of `faults_mirror.py`."""
    import logging

    import faults_mirror

    logging.getLogger("tunesmith").setLevel(logging.CRITICAL)  # every trial would tell of its fault
    try:
        return faults_mirror.faults(quick, seed)
    finally:
        logging.getLogger("tunesmith").setLevel(logging.NOTSET)


def inputs() -> list[Row]:
    """Which numbers of the catalogue have a test, which tests pass, and how long the longest takes."""
    import pytest

    class Watch:
        """Takes down what pytest found."""

        def __init__(self) -> None:
            self.numbers: dict[str, set[str]] = {}
            self.failed: list[str] = []
            self.seconds: dict[str, float] = {}
            self.processor: dict[str, float] = {}

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_call(self, item: Any) -> Any:
            began = time.process_time()
            try:
                return (yield)
            finally:
                self.processor[item.nodeid] = time.process_time() - began

        def pytest_itemcollected(self, item: Any) -> None:
            said = f"{item.name} {item.function.__doc__} {item.module.__doc__.partition(':')[0]}"
            self.numbers[item.nodeid] = set(re.findall(r"\b[KAT]\d+\b", said)) & set(NUMBERS)

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call":
                self.seconds[report.nodeid] = report.duration
            if report.failed:
                self.failed.append(report.nodeid)

    watch, root = Watch(), CRASH.parents[1]
    files = [str(root / "tests" / "unit" / name) for name in INPUTS]
    pytest.main([*files, "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--rootdir", str(root)], plugins=[watch])
    covered = set().union(*(found for node, found in watch.numbers.items() if node in watch.seconds))
    numbered = {node: seconds for node, seconds in watch.seconds.items() if watch.numbers[node]}
    slowest = max(numbered, key=lambda node: numbered[node])
    conditions = f"tests that state a number: {len(numbered)} of {len(watch.seconds)}"
    rows = [
        ("numbers K1-K22, A1-A14, T1-T20 that a test states", len(covered), f"of {len(NUMBERS)}", "all"),
        ("their tests that fail, the 25 canaries' included", len(watch.failed), f"of {len(watch.seconds)}", "0"),
        ("the longest, by the clock", round(numbered[slowest], 2), "s", "< 2 on a machine that is ours alone"),
        ("the longest, by processor time", round(max(watch.processor[node] for node in numbered), 2), "s", "< 2"),
    ]
    for figure, value, unit, goal in rows:
        print(f"  {figure:<64} {value:>8} {unit} (goal {goal})", flush=True)
    print(f"  missing: {sorted(set(NUMBERS) - covered)}; slowest: {slowest.rpartition('::')[2]}", flush=True)
    return [
        dict(zip(("figure", "value", "unit", "goal", "conditions"), (*row, conditions), strict=True)) for row in rows
    ]


def costs(quick: bool, folder: Path) -> list[Row]:
    """What it costs, with goals."""
    import reliability_costs

    goals = {"share_of_the_run": "< 0.02", "mirror_at_work_percent_more_processor_time": "<= 5",
             "mirror_away_percent_more_processor_time": "<= 5", "most_snapshots_that_waited": "<= 2",
             "times_not_caught_up": "0", "mirror_at_work_percent_longer_median_step": "<= 5",
             "mirror_away_percent_longer_median_step": "<= 5"}  # fmt: skip
    found = reliability_costs.overhead(folder / "overhead", 4 if quick else 12)
    found |= reliability_costs.mirrored(folder / "mirror", *((1, 2, 1) if quick else (3, 12, 6)))
    rows = []
    for name, value in found.items():
        words = name.replace("_", " ")
        print(f"  {words:<60} {value:.4f} {f'goal {goals[name]}' if name in goals else ''}", flush=True)
        conditions = "the demo's model, data and batch; the share with a checkpoint every ten minutes"
        rows.append({"figure": f"demo: {words}", "value": round(value, 5), "unit": "", "goal": goals.get(name, ""),
                     "conditions": conditions})  # fmt: skip
    return rows


def picture(folder: Path, kills: int, steps: int, seed: int, out: Path) -> dict[str, Any]:
    """One run, and the same run killed so often, at a random instant after a random step each; their losses, drawn."""
    world = w.make_world(folder)
    chance = random.Random(seed)
    extra = [f"train.max_steps={steps}", "train.logging_steps=1", f"train.eval_steps={steps // 4}",
             "train.learning_rate=0.03", "train.lr_scheduler_type=constant"]  # fmt: skip
    w.new_run(folder, "whole")
    if w.finish(w.start(folder, "whole", *extra), 600) != 0:
        raise RuntimeError(w.said(folder, "whole"))
    w.new_run(folder, "killed")
    root, at, code = folder / "runs" / "killed", [], None
    for target in sorted(chance.randrange(1, steps) for _ in range(kills)):
        pid = w.start(folder, "killed", *extra)
        deadline = time.monotonic() + 120
        while code is None and _steps_done(root) < target and time.monotonic() < deadline:
            code = w.finish(pid, 0.002)
        code = w.finish(pid, chance.uniform(0, world.seconds / 4)) if code is None else code
        if code is not None:
            break
        w.kill(pid)
        at.append(_steps_done(root))
    if code is None:
        code = w.finish(w.start(folder, "killed", *extra), 600)
    if code != 0:
        raise RuntimeError(w.said(folder, "killed"))
    curves = [_losses(folder / "runs" / name) for name in ("whole", "killed")]
    hashes = [w.result(folder / "runs" / name)["adapter/adapter_model.safetensors"] for name in ("whole", "killed")]
    same = w.result(folder / "runs" / "whole") == w.result(folder / "runs" / "killed")
    out.write_text(draw(curves[0], curves[1], at, hashes), encoding="utf-8")
    return {"kills": len(at), "same": same, "hashes": hashes, "steps": steps}


def _steps_done(root: Path) -> int:
    path = root / "batches.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def _losses(root: Path) -> list[float]:
    lines = [json.loads(line) for line in (root / "events.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "log"]


def draw(whole: list[float], killed: list[float], at: list[int], hashes: list[str]) -> str:
    """Two curves that lie on each other, and a mark for every kill."""
    width, height, left, top = 720, 250, 46, 34
    low, high = min(whole + killed), max(whole + killed)

    def points(curve: list[float]) -> str:
        return " ".join(
            f"{left + (width - left - 16) * x / (len(curve) - 1):.1f},"
            f"{top + (height - top - 46) * (high - y) / (high - low):.1f}"
            for x, y in enumerate(curve)
        )

    marks = "".join(
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{height - 42}" y2="{height - 32}"/>'
        for x in (left + (width - left - 16) * step / (len(whole) - 1) for step in at)
    )
    ticks = "".join(
        f'<text x="{left - 6}" y="{top + 4 + (height - top - 46) * part:.0f}" text-anchor="end">'
        f"{high - (high - low) * part:.2f}</text>"
        for part in (0, 0.5, 1)
    )
    same = "identical" if hashes[0] == hashes[1] else "DIFFERENT"
    title = f"Loss of one run, and of the same run killed {len(at)} times (SIGKILL)"
    legend = f"wide: undisturbed; thin: killed. Adapters {same}: sha256 {hashes[1][:16]}…"
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
     font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{left}" y="18" font-size="14" fill="#222">{title}</text>
<g fill="#666">{ticks}<text x="{width - 16}" y="{height - 18}" text-anchor="end">step {len(whole)}</text></g>
<polyline fill="none" stroke="#9ec5f4" stroke-width="6" stroke-linejoin="round" points="{points(whole)}"/>
<polyline fill="none" stroke="#1d4e89" stroke-width="1.6" stroke-linejoin="round" points="{points(killed)}"/>
<g stroke="#c0392b" stroke-opacity=".55">{marks}</g>
<text x="{left}" y="{height - 18}" fill="#c0392b">| killed here</text>
<text x="{left}" y="{height - 4}" fill="#444">{legend}</text>
</svg>
"""


def drawn(kills: int, steps: int, record: Record, folder: Path, out: Path) -> list[Row]:
    """The row of the picture."""
    made = picture(folder, kills, steps, record.seed, out)
    print(f"  killed {made['kills']} times: {'same' if made['same'] else 'ANOTHER'} result; {made['hashes']}")
    unit = f"of {made['kills']} kills"
    figure = "one run killed many times: results that differ"
    return [
        {"figure": figure, "value": int(not made["same"]), "unit": unit, "goal": "0", "conditions": made["hashes"][1]}
    ]


def main() -> None:
    """Print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few trials of everything")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for what is done; it is not done again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="where to draw the picture")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--kinds", nargs="+", choices=list(trials.KINDS), help="of faults to processes; all without it")
    parser.add_argument("--count", nargs="*", default=[], metavar="kind=count", help="trials of a kind")
    given = parser.parse_args()
    counts = dict(QUICK if given.quick else trials.RELEASE)
    counts |= {kind: int(count) for kind, count in (one.split("=") for one in given.count)}
    record = Record(given.seed, given.keep)
    with tempfile.TemporaryDirectory(prefix="tunesmith-reliability-") as name:
        folder = Path(name)
        for part in PARTS:
            if part not in given.only:
                continue
            print({"ours": "tunesmith", "plain": "transformers.Trainer"}.get(part, part), flush=True)
            wanted = counts if part == "ours" else PLAIN_QUICK if given.quick else PLAIN
            kinds = {kind: count for kind, count in wanted.items() if not given.kinds or kind in given.kinds}
            if part in ("ours", "plain"):
                under_faults(record, part, kinds, folder / part)
            elif part == "mirror":
                record.once(part, lambda: mirror(given.quick, given.seed))
            elif part == "inputs":
                record.once(part, inputs)
            elif part == "costs":
                record.once(part, lambda: costs(given.quick, folder))
            elif given.picture is not None:
                kills, steps = (10, 20) if given.quick else (200, 240)
                record.once(part, lambda k=kills, s=steps: drawn(k, s, record, folder / "picture", given.picture))
            if given.json:
                given.json.write_text(json.dumps(record.rows, indent=1) + "\n", encoding="utf-8")


PARTS = ["ours", "plain", "mirror", "inputs", "costs", "picture"]

if __name__ == "__main__":
    main()
