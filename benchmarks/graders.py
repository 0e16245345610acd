"""How often the graders are wrong, beside public ones: one module for each task, `graders_TASK.py`.

    python benchmarks/graders.py --data FOLDER [--quick] [--only sql] [--json FILE]

FOLDER holds `sql/`, `maths/` and their neighbours, with labelled pairs of a right and a given answer and the verdicts
that public graders gave of the same pairs.
"""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from typing import Any


def main() -> None:
    here = Path(__file__).parent
    tasks = sorted(path.stem.removeprefix("graders_") for path in here.glob("graders_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds sql/grader_pairs.jsonl and so on")
    parser.add_argument("--quick", action="store_true", help="a tenth of the records, under a minute")
    parser.add_argument("--only", choices=tasks, help="one task's graders alone")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float | str, unit: str, goal: str = "", conditions: str = "") -> None:
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<64} {value:>9} {unit:<12} {f'goal: {goal}' if goal else ''}", flush=True)

    for task in [arguments.only] if arguments.only else tasks:
        importlib.import_module(f"graders_{task}").measure(arguments.data, arguments.quick, figure)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
