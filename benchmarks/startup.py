"""How long the verbs take that train nothing: `--help`, `show`, `check --quick`; seconds by the clock and of the CPU.

python benchmarks/startup.py [--quick] [--json FILE] [--runs 10]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from preparation import processor

RECIPE = Path(__file__).parents[1] / "recipes" / "sql" / "demo.yaml"
VERBS = {
    "--help": ["--help"],
    "run --help": ["run", "--help"],
    "show": ["show", str(RECIPE)],
    "check --quick": ["check", str(RECIPE), "--quick"],
}
GOAL, STRETCH = 1.0, 0.4


def main() -> None:
    """Run each verb and print a line for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one run of each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--runs", type=int, default=10)
    options = parser.parse_args()
    figures = [measure(name, asked, 1 if options.quick else options.runs) for name, asked in VERBS.items()]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def measure(name: str, asked: list[str], runs: int) -> dict[str, Any]:
    """Median and worst of some runs, after one that fills the disk's cache."""
    clock, cpu = [], []
    for _ in range(runs + 1):
        used, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", "from tunesmith.cli import main; main()", *asked],
            capture_output=True,
            text=True,
            check=False,
        )
        clock.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime)
        if done.returncode not in (0, int("check" in asked)) or "Traceback" in done.stderr:
            raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    print(
        f"{name}: {median(clock[1:]):.2f} s (worst {max(clock[1:]):.2f}), of the CPU {median(cpu[1:]):.2f} s "
        f"(goal {GOAL}, stretch {STRETCH})",
        flush=True,
    )
    return {
        "figure": f"start-up of {name}", "value": median(clock[1:]), "unit": "s", "goal": GOAL,
        "worst": max(clock[1:]), "cpu": median(cpu[1:]),
        "conditions": f"median of {runs} runs after one to warm up; {processor()}",
    }  # fmt: skip


if __name__ == "__main__":
    main()
