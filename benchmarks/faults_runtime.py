"""Run-time faults injected into `tunesmith prove`: each has to be caught, and for the right reason.

A healthy rehearsal of the small base is made first and has to pass. Then one fault at a time is put into one of
its processes (a store that cannot be written, a loader that restores nothing, a loss that is no number, ...) or into
what one process left for the next (a file cut off, tensors swapped, a token changed). Parts that lie before the fault
are taken from the healthy rehearsal, byte for byte, instead of being computed again.

    python benchmarks/faults_runtime.py [--quick] [--json FILE] [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from faults_injected import AT, FAULTS, PARTS, QUICK, STEPS, Fault, hangs

TASK = """
from tunesmith.types import Example, Message, Score

class Capitals:
    name, version = "capitals", "1"
    def examples(self, record):
        country, capital = record.fields["country"], record.fields["capital"]
        yield Example(record.id, (Message("user", f"capital of {country}"), Message("assistant", capital, train=True)),
                      target=capital, place=record.place, meta={"question": country})
    def grade(self, example, completion):
        right = completion.strip() == example.target
        return Score(float(right), failure="" if right else "wrong")
    def constraint(self, example):
        return None
    def close(self):
        pass
"""


# --- running them -----------------------------------------------------------------------------------------------------


class Forked:
    """A process that was forked; its exit code in `poll`, as `subprocess.Popen` has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if done else None
        return self._code


class Stage:
    """Starts the parts of a rehearsal: forked, so that libraries are imported once; faulty or from the healthy one."""

    def __init__(self, healthy: Path | None = None, fault: Fault | None = None) -> None:
        self.healthy, self.fault = healthy, fault
        self.kept: dict[str, Path] = {}

    def __call__(self, program: str, arguments: Sequence[str], log: Path) -> Any:
        part = log.stem
        first = min((PARTS.index(one) for one in self.fault.parts), default=0) if self.fault else 0
        # The uninterrupted run is another folder, which a fault of the interrupted one does not touch.
        untouched = self.fault is not None and part not in self.fault.parts
        if self.healthy is not None and untouched and (PARTS.index(part) < first or part == "uninterrupted"):
            return self._again(part, log)
        faulty = self.fault is not None and part in self.fault.parts
        if faulty and self.fault is not None and self.fault.tamper is not None:
            self.fault.tamper(log.parent)
        return self._fork(program, arguments, log, self.fault.patch if faulty and self.fault is not None else None)

    def _again(self, part: str, log: Path) -> Any:
        """What the healthy part left, where it left it; a process that does nothing in its place."""
        assert self.healthy is not None
        target = log.parent / ("uninterrupted" if part == "uninterrupted" else "rehearsal")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.healthy / part, target)
        shutil.copytree(self.healthy / "cache", log.parent / ".cache", dirs_exist_ok=True)
        return subprocess.Popen(["sleep", "60"] if part == "interrupted" else ["true"])

    def _fork(self, program: str, arguments: Sequence[str], log: Path, patch: Callable[[], None] | None) -> Forked:
        pid = os.fork()
        if pid:
            return Forked(pid)
        code = 1
        try:
            with log.open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            sys.argv = [program, *arguments]
            if patch is not None:
                patch()
            if program == "tunesmith":
                from tunesmith.cli import main as start
            else:
                from tunesmith.reload import main as start
            try:
                start()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1 if ended.code else 0
            except BaseException:
                import traceback

                traceback.print_exc()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


class Keeping(Stage):
    """The healthy rehearsal, whose parts are kept as they are when the next one starts."""

    def __init__(self, keep: Path) -> None:
        super().__init__()
        self.keep = keep

    def __call__(self, program: str, arguments: Sequence[str], log: Path) -> Any:
        folder = log.parent
        if log.stem in ("uninterrupted", "continued") and not (self.keep / "interrupted").exists():
            shutil.copytree(folder / "rehearsal", self.keep / "interrupted")
        if log.stem == "reloaded":
            shutil.copytree(folder / "rehearsal", self.keep / "continued")
            shutil.copytree(folder / "uninterrupted", self.keep / "uninterrupted")
            shutil.copytree(folder / ".cache", self.keep / "cache")
        return super().__call__(program, arguments, log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quick", action="store_true", help="a healthy rehearsal and four faults")
    parser.add_argument("--only", help="this fault alone")
    parser.add_argument("--json", type=Path, help="also write the figures here, as a list")
    arguments = parser.parse_args()
    names = [arguments.only] if arguments.only else list(QUICK if arguments.quick else FAULTS)
    rows: list[dict[str, Any]] = []

    def figure(name: str, value: float | str, unit: str, goal: str = "") -> None:
        conditions = f"the small base, {STEPS} steps, killed in the save of step {AT}, {os.cpu_count()} cores"
        rows.append({"figure": name, "value": value, "unit": unit, "goal": goal, "conditions": conditions})
        print(f"{name:<56} {value:>8} {unit:<8} {f'goal: {goal}' if goal else ''}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = prepare(folder)
        caught, rightly = rehearse_all(folder, recipe, names, figure)
    figure("run-time faults injected", len(names), "faults", ">= 25")
    figure("caught", f"{100 * caught / len(names):.0f}", "%", "100")
    figure("caught for the right reason", f"{100 * rightly / len(names):.0f}", "%", "100")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(0 if caught == len(names) else 1)


def rehearse_all(folder: Path, recipe: Path, names: Sequence[str], figure: Callable[..., None]) -> tuple[int, int]:
    from tunesmith.check.prove import Proof, prove
    from tunesmith.config.load import load_config

    loaded = load_config(recipe, environ={})
    data = (folder / "train.jsonl").read_text()

    def rehearse(stage: Stage, minutes: float) -> Proof:
        return prove(loaded, steps=STEPS, at=AT, launch=stage, minutes=minutes)

    keep = folder / "healthy"
    start = time.perf_counter()
    healthy = rehearse(Keeping(keep), 10)
    if not healthy.passed:
        raise SystemExit(f"the healthy rehearsal does not pass:\n{healthy.text()}")
    figure("healthy rehearsal", f"{time.perf_counter() - start:.1f}", "s")
    caught = rightly = 0
    for name in names:
        fault = FAULTS[name]
        proof = rehearse(Stage(keep, fault), 0.5 if fault.patch is hangs else 10)
        (folder / "train.jsonl").write_text(data)
        failed = [one.name for one in proof.shown if not one.passed]
        failed += [one.check.removeprefix("prove.") for one in proof.findings]
        caught += bool(failed)
        right = bool(set(failed) & set(fault.expect))
        rightly += right
        said = proof.findings[0].message if proof.findings else ""
        mark = "caught" if right else "caught by another" if failed else "MISSED"
        print(f"{mark:<8} {name:<46} {', '.join(failed)} {said[:150]}", flush=True)
    return caught, rightly


def prepare(folder: Path) -> Path:
    """A task and data for the small base; everything imported, so that forks begin with it."""
    import torch

    import tunesmith.export.verify
    import tunesmith.pipeline
    import tunesmith.train.fit  # noqa: F401

    torch.set_num_threads(1)  # what is forked must not wait for threads that are not there
    (folder / "capitals_task.py").write_text(TASK)
    sys.path.insert(0, str(folder))
    pairs = [{"country": f"land {at}", "capital": f"town {at % 7}"} for at in range(40)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, pairs)) + "\n")
    asked = [{"country": f"isle {at}", "capital": f"port {at}"} for at in range(6)]
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, asked)) + "\n")
    recipe = folder / "recipe.yaml"
    recipe.write_text(
        f"name: faults\noutput_dir: {folder / 'runs'}\ntask: capitals_task:Capitals\n"
        "data: {train: train.jsonl, test: {mine: test.jsonl}, validation_share: 0}\n"
        "model: {name: demo}\nlora: {r: 4, target_modules: all-linear}\n"
        "train: {batch_size: 4, learning_rate: 5e-3, warmup_ratio: 0}\ngenerate: {max_new_tokens: 6}\n"
        "exports: [{format: adapter}, {format: merged}]\n"
    )
    with contextlib.suppress(ImportError):
        import peft  # noqa: F401
    return recipe


if __name__ == "__main__":
    main()
