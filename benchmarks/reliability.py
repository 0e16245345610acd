"""Faults and what becomes of a run: ours, and `transformers.Trainer` as it comes, under the same ones.

Real processes run the demo's recipe made small (`tests/crash`); what must come out is the undisturbed run's adapter,
optimizer, random numbers and log, to the bit. Then: what all this costs on the demo itself, and the picture of one run
and of the same run killed over and over.

    python benchmarks/reliability.py [--quick] [--json FILE] [--kills N] [--seed N] [--picture FILE] [--only PART ...]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
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

QUICK = {"kills": 5, "operations": 4, "refusals": 2, "mutations": 50, "disk_full": 2, "stops": 2, "starters": 1,
         "numbers": 4, "memory": 2, "clocks": 1, "workers": 1}  # fmt: skip
PLAIN = {"kills": 40, "operations": 10_000, "mutations": 60, "disk_full": 12, "stops": 10, "starters": 3, "numbers": 8,
         "memory": 8, "clocks": 4}  # fmt: skip
PLAIN_QUICK = {"operations": 4, "mutations": 4, "numbers": 1}
GOALS = {
    "kills": "0 stuck, 0 different of 1,000", "operations": "0 stuck, 0 different, all operations",
    "refusals": "exit 4, checkpoint before intact", "mutations": "all of 500 detected",
    "disk_full": "checkpoint before intact, exit 4, 60 sizes", "stops": "exit 75, exact, under 5 s, 100 of 100",
    "starters": "exactly one of 8 runs, 20 times", "numbers": "finite adapter or exit 7, 50 of 50",
    "memory": "same steps, loss within 1e-6, 30 of 30", "clocks": "newest never deleted, 20 of 20",
    "workers": "same result",
}  # fmt: skip


def run_trials(counts: Mapping[str, int], seed: int, folder: Path, *options: str) -> list[dict[str, Any]]:
    """Outcomes of `tests/crash/trials.py`, in a process of its own that has the shim."""
    wanted = [f"{kind}={count}" for kind, count in counts.items()]
    command = [
        sys.executable,
        str(CRASH / "trials.py"),
        *wanted,
        "--folder",
        str(folder),
        "--seed",
        str(seed),
        *options,
    ]
    process = subprocess.Popen(command, env=trials.with_shim(folder), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    outcomes = []
    for line in process.stdout:
        if line.startswith("{"):
            outcomes.append(json.loads(line))
            print(_row(outcomes[-1]), flush=True)
    process.wait()
    return outcomes


def _row(outcome: Mapping[str, Any]) -> str:
    if "skipped" in outcome:
        return f"  {outcome['kind']}: skipped, {outcome['skipped']}"
    figures = ", ".join(f"{name} {value:g}" for name, value in outcome["figures"].items())
    return (
        f"  {outcome['fault']:<46} {outcome['trials']:>5} trials  {outcome['stuck']:>3} stuck  "
        f"{outcome['different']:>3} different  {len(outcome['wrong']):>3} otherwise wrong  {figures}"
    )


def overhead(folder: Path, steps: int) -> dict[str, float]:
    """What checkpoints, digests and snapshots take on the demo's own model, data and batch, in this process.

    The share is of the run time that the demo has with a checkpoint every ten minutes, as is the default.
    """
    from tunesmith import pipeline
    from tunesmith.config.load import load_config
    from tunesmith.train import guarded
    from tunesmith.train import steps as planned
    from tunesmith.train.durable import DurableTrainer

    took: dict[str, float] = {}

    def timed(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def around(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return original(*args, **options)
            finally:
                took[name] = took.get(name, 0.0) + time.perf_counter() - began

        setattr(owner, name, around)

    timed(DurableTrainer, "_take_snapshot")
    timed(DurableTrainer, "save")
    timed(guarded.GuardedTrainer, "_note")
    timed(guarded, "random_state")
    timed(guarded, "_gradients_are_numbers")
    timed(planned, "digest_examples")
    overrides = [f"train.max_steps={steps}", "data.test={}", f"output_dir={folder / 'demo'}", "evaluate.self_test=0",
                 "tracking.report_to=[]", "task.build.examples=400", "exports=[]"]  # fmt: skip
    summary = pipeline.train_only(load_config(w.recipe(), overrides, environ={}))
    seconds = summary["training"]["seconds"]
    each = sum(value for name, value in took.items() if name != "save") / steps
    step = (seconds - took["save"]) / steps
    return {
        "seconds_per_step": step,
        "milliseconds_per_step_for_digests_and_snapshots": 1000 * each,
        "seconds_per_checkpoint": took["save"],
        "share_of_the_run": each / step + took["save"] / 600,
    }


def picture(folder: Path, kills: int, steps: int, seed: int, out: Path) -> dict[str, Any]:
    """One run, and the same run killed at random instants until it has been so often; their losses, drawn."""
    world = w.make_world(folder)
    chance = random.Random(seed)
    extra = [f"train.max_steps={steps}", "train.logging_steps=1", f"train.eval_steps={steps // 4}",
             "train.learning_rate=0.03", "train.lr_scheduler_type=constant"]  # fmt: skip
    w.new_run(folder, "whole")
    if w.finish(w.start(folder, "whole", *extra), 600) != 0:
        raise RuntimeError(w.said(folder, "whole"))
    w.new_run(folder, "killed")
    at, killed, code = [], 0, None
    while killed < kills:
        pid = w.start(folder, "killed", *extra)
        # Most of a life is its beginning, so few come further than the next checkpoint.
        code = w.finish(pid, chance.uniform(0.2, 1.15) * world.seconds)
        if code is not None:
            break
        w.kill(pid)
        killed += 1
        at.append(_steps_done(folder / "runs" / "killed"))
    if code is None:
        code = w.finish(w.start(folder, "killed", *extra), 600)
    if code != 0:
        raise RuntimeError(w.said(folder, "killed"))
    curves = [_losses(folder / "runs" / name) for name in ("whole", "killed")]
    hashes = [w.result(folder / "runs" / name)["adapter/adapter_model.safetensors"] for name in ("whole", "killed")]
    same = w.result(folder / "runs" / "whole") == w.result(folder / "runs" / "killed")
    out.write_text(draw(curves[0], curves[1], at, hashes), encoding="utf-8")
    return {"kills": killed, "same": same, "hashes": hashes, "steps": steps}


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


def main() -> None:
    """Print the table, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few trials of everything")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--picture", type=Path, help="where to draw the picture")
    parser.add_argument("--only", nargs="+", choices=["ours", "plain", "overhead", "picture"])
    parser.add_argument("--count", nargs="*", default=[], metavar="kind=count", help="trials of a kind")
    given = parser.parse_args()
    parts = given.only or ["ours", "plain", "overhead", *(["picture"] if given.picture else [])]
    counts = dict(QUICK if given.quick else trials.RELEASE)
    counts |= {kind: int(count) for kind, count in (one.split("=") for one in given.count)}
    if given.kills:
        counts["kills"] = given.kills
    machine = f"{platform.processor() or platform.machine()}, {len(os.sched_getaffinity(0))} cores, one thread, CPU"
    figures: list[dict[str, Any]] = []

    def note(figure: str, value: Any, unit: str, goal: str, conditions: str = "") -> None:
        conditions = "; ".join(part for part in (conditions, f"seed {given.seed}", machine) if part)
        figures.append({"figure": figure, "value": value, "unit": unit, "goal": goal, "conditions": conditions})

    with tempfile.TemporaryDirectory(prefix="tunesmith-reliability-") as name:
        folder = Path(name)
        if "ours" in parts:
            print("tunesmith", flush=True)
            for one in run_trials(counts, given.seed, folder / "ours"):
                if "skipped" not in one:
                    bad = one["stuck"] + one["different"] + len(one["wrong"])
                    note(one["fault"], bad, f"bad of {one['trials']}", GOALS[one["kind"]], json.dumps(one["figures"]))
                    for wrong in one["wrong"][:3]:
                        print(f"      {wrong}")
        if "plain" in parts:
            print("transformers.Trainer", flush=True)
            wanted = PLAIN_QUICK if given.quick else PLAIN
            for one in run_trials(wanted, given.seed, folder / "plain", "--plain"):
                if "skipped" not in one:
                    said = f"{one['stuck']} stuck, {one['different']} silently different; {json.dumps(one['figures'])}"
                    value = one["stuck"] + one["different"]
                    note(
                        f"transformers.Trainer: {one['fault']}",
                        value,
                        f"bad of {one['trials']}",
                        "for comparison",
                        said,
                    )
                    for wrong in sorted(set(one["wrong"]))[:3]:
                        print(f"      {wrong}")
        if "overhead" in parts:
            cost = overhead(folder / "overhead", 4 if given.quick else 40)
            for name, value in cost.items():
                print(f"  {name.replace('_', ' '):<52} {value:.4f}")
                goal = "< 0.02" if name == "share_of_the_run" else ""
                note(f"demo: {name.replace('_', ' ')}", round(value, 5), "", goal, "a checkpoint every 10 minutes")
        if "picture" in parts:
            kills = 10 if given.quick else given.kills or 200
            drawn = picture(folder / "picture", kills, 20 if given.quick else 120, given.seed, given.picture)
            print(
                f"  killed {drawn['kills']} times: {'same' if drawn['same'] else 'ANOTHER'} result; {drawn['hashes']}"
            )
            note(
                "one run killed many times: results that differ",
                int(not drawn["same"]),
                f"of {drawn['kills']} kills",
                "0",
            )
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
