"""Faults, each against real processes that run the demo's recipe made small; what must come out is the same result.

    python tests/crash/trials.py kills=200 mutations=500 --seed 1

prints one JSON object a kind of fault. `stuck` is a run that the same command did not finish; `different` is one that
did, and whose adapter, optimizer, random numbers or log are not those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import elsewhere
import hooks
import world as w
from outcome import Outcome, compare, settle

HERE = Path(__file__).resolve().parent
SHIM = "TUNESMITH_FAULT_SHIM"
PARTS = {"kills": 100, "stops": 25}
"""Trials that are told together."""
_LIVES = 40
"""A run that was started so often and has not finished is stuck."""


# --- killed -----------------------------------------------------------------------------------------------------------


def kills(world: w.World, count: int, chance: random.Random) -> Outcome:
    """Killed at random instants, over and over, until it finishes."""
    outcome, number, lives = Outcome("SIGKILL at a random instant"), 0, []
    while outcome.trials < count:
        number += 1
        name = f"kills-{number}"
        w.new_run(world.folder, name)
        life = 0
        while life < _LIVES:
            life += 1
            pid = w.start(world.folder, name)
            code = w.live(pid, chance.uniform(0, 1.2 * world.processor))
            if code is not None:
                break
            w.kill(pid)
            outcome.trials += 1
            if outcome.trials >= count:
                break
        if life == _LIVES and code is None:
            code = -1
        if code not in (0, None):
            outcome.stuck += 1
            outcome.wrong.append(f"{name}: ended with {code}: {w.said(world.folder, name)[-600:]}")
            continue
        lives.append(life)
        if code is None or number % 10 == 0:
            settle(world, outcome, name)
        else:
            compare(world, outcome, name, world.folder / "runs" / name)
    outcome.figures = {"runs": number, "most_lives": max(lives, default=0)}
    return outcome


def operations(world: w.World, count: int, chance: random.Random) -> Outcome:
    """Killed at each file operation of its checkpoints, from the first to the last one that is deleted."""
    outcome = Outcome("SIGKILL at every file operation of a save")
    shim = _shim()
    total, two = _count_operations(world, shim)
    points = list(range(1, total + 1))
    if count < len(points):
        points = sorted(chance.sample(points, count))
    for at in points:
        name = f"operation-{at}"
        root = w.new_run(world.folder, name)
        before = _arm(shim, root, at, 1)
        code = w.finish(w.start(world.folder, name, before=before))
        outcome.trials += 1
        if code != -signal.SIGKILL:
            outcome.wrong.append(f"operation {at}: ended with {code} instead of being killed")
        settle(world, outcome, name)
    outcome.figures = {"operations_of_two_saves": two, "operations_of_the_run": total, "covered": len(points)}
    return outcome


def refusals(world: w.World, count: int, chance: random.Random) -> Outcome:
    """The disk refuses one operation (EIO, EACCES) or all from one on (ENOSPC): a named stop.

    What cannot be deleted is no reason to stop, and a copy that the kernel does not make is made by reading and
    writing: those runs may end, with the same result.
    """
    outcome = Outcome("file operation refused (ENOSPC, EIO, EACCES)")
    shim = _shim()
    _, wanted = _count_operations(world, shim)
    kept_on = 0
    for _ in range(count):
        at, error = chance.randint(1, wanted), chance.choice([28, 5, 13])
        name = f"refusal-{outcome.trials}"
        root = w.new_run(world.folder, name)
        code = w.finish(w.start(world.folder, name, before=_arm(shim, root, at, 2, error)))
        outcome.trials += 1
        said = w.said(world.folder, name)
        dispensable = re.search(r"^refused: (unlink|unlinkat|rmdir|sendfile|sendfile64)$", said, re.MULTILINE)
        if not (dispensable and code == 0):
            _stopped_well(world, outcome, name, root, code, {4}, f"errno {error} at operation {at}")
        kept_on += code == 0
        settle(world, outcome, name)
    outcome.figures = {"ended_all_the_same": kept_on}
    return outcome


def _stopped_well(
    world: w.World, outcome: Outcome, name: str, root: Path, code: int | None, codes: Iterable[int], what: str
) -> None:
    said = w.said(world.folder, name)
    complete = [int(path.name.split("-")[1]) for path in root.glob("checkpoints/checkpoint-*")]
    if code not in {*codes}:
        outcome.wrong.append(f"{what}: exit code {code}: {said[-300:]}")
    elif "Traceback" in said or "remedy:" not in said:
        outcome.wrong.append(f"{what}: no named error: {said[-300:]}")
    elif sorted(complete) != w.verified(root):
        outcome.wrong.append(f"{what}: a checkpoint that does not verify: {sorted(complete)}")


def _shim() -> Any:
    path = os.environ.get(SHIM)
    if not path:
        raise RuntimeError("the shim is not loaded; `main` does it where a C compiler is at hand")
    shim = ctypes.CDLL(path)
    shim.fault_count.restype = ctypes.c_long
    shim.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    return shim


def _arm(shim: Any, root: Path, at: int, mode: int, error: int = 0) -> Callable[[], None]:
    return lambda: shim.fault_arm(str(root / "checkpoints").encode(), at, mode, error)


def _count_operations(world: w.World, shim: Any) -> tuple[int, int]:
    """File operations below `checkpoints` in a whole run, and up to the end of its second save."""
    name = "count"
    root = w.new_run(world.folder, name)
    counts = world.folder / "counts"
    counts.unlink(missing_ok=True)

    def before() -> None:
        shim.fault_arm(str(root / "checkpoints").encode(), 0, 0, 0)
        hooks.after_commit(lambda: _append(counts, shim.fault_count()))

    if w.finish(w.start(world.folder, name, before=before)) != 0:
        raise RuntimeError(w.said(world.folder, name))
    seen = [int(line) for line in counts.read_text().split()]
    w.remove(world.folder, name)
    return seen[-1], seen[1]


def _append(path: Path, value: int) -> None:
    with path.open("a") as file:
        file.write(f"{value}\n")


# --- changed ----------------------------------------------------------------------------------------------------------


def mutations(world: w.World, count: int, chance: random.Random) -> Outcome:
    """A byte flipped, files cut off, lengthened, swapped, missing, in every file of the newest checkpoint."""
    from tunesmith.checkpoints.resume import verify

    outcome = Outcome("checkpoint files changed")
    name = "mutations"
    w.new_run(world.folder, name)
    w.finish(w.start(world.folder, name, before=lambda: hooks.stop_at(5)))
    root = world.folder / "runs" / name
    newest = max(root.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = sorted(path.name for path in newest.iterdir())
    copy = world.folder / "copy"
    for number in range(count):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(newest, copy / newest.name)
        what = hooks.mutate(copy / newest.name, files[number % len(files)], chance)
        outcome.trials += 1
        if verify(copy / newest.name)[0] is not None:
            outcome.wrong.append(f"not detected: {what}")
        if number % 50 == 0:  # all the way through, in a process
            trial = f"mutation-{number}"
            shutil.copytree(root, world.folder / "runs" / trial)
            there = world.folder / "runs" / trial / "checkpoints" / newest.name
            shutil.rmtree(there)
            shutil.copytree(copy / newest.name, there, symlinks=True)
            settle(world, outcome, trial)
    shutil.rmtree(copy, ignore_errors=True)
    w.remove(world.folder, name)
    return outcome


def disk_full(world: w.World, count: int, chance: random.Random) -> Outcome:
    """The run's folder on a file system of every size from almost nothing to enough."""
    outcome = Outcome("disk full (tmpfs)")
    reference, full = world.folder / "runs" / "reference", 0
    needed = _size(reference) + _size(max((reference / "checkpoints").iterdir()))
    least = _size(world.folder / "runs" / "built" / "data") + 8192
    for number in range(count):
        name, mount = f"full-{number}", Path(tempfile.mkdtemp(dir=world.folder))
        size = least + (needed - least) * number // max(1, count - 1)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size // 4096 * 4}k", "none", str(mount)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            outcome.wrong.append(f"tmpfs cannot be mounted: {done.stderr.strip()}")
            return outcome
        try:
            root = w.new_run(world.folder, name, mount)
            code = w.finish(w.start(world.folder, name, f"output_dir={mount}"))
            outcome.trials += 1
            if code != 0:
                full += 1
                _stopped_well(world, outcome, name, root, code, {4}, f"{size} bytes")
            moved = world.folder / "runs" / name
            shutil.copytree(root, moved)
        finally:
            subprocess.run(["umount", str(mount)], check=True)
            mount.rmdir()
        settle(world, outcome, name)
    outcome.figures = {"least_bytes": least, "most_bytes": needed, "were_full": full}
    return outcome


def _size(folder: Path) -> int:
    return sum((path.stat().st_size + 4095) // 4096 * 4096 for path in folder.rglob("*") if path.is_file())


# --- stopped ----------------------------------------------------------------------------------------------------------


def stops(world: w.World, count: int, chance: random.Random) -> Outcome:
    """SIGTERM, every sixth time SIGINT, at a random instant: a checkpoint within 5 s, exit code 75.

    Every fourth comes in a validation, or a step, that takes twenty seconds. One that came before the run listened
    (nothing is trained by then), or after it was done, is no trial.
    """
    outcome, saved, ended = Outcome("SIGTERM or SIGINT at a random instant"), [0.0], [0.0]
    early = late = number = interrupts = 0
    while outcome.trials - interrupts < count:
        number += 1
        name = f"stop-{number}"
        w.new_run(world.folder, name)
        slow = number % 4 == 3
        what = chance.choice(["validation", "step"])
        marker = world.folder / f"{name}.listening"
        pid = w.start(world.folder, name, before=_stop_hooks(marker, what if slow else ""))
        code = w.live(pid, chance.uniform(0.1, 1.0) * world.processor, 20 * world.seconds if slow else 120)
        if code is not None:  # it was quicker
            late += 1
            w.remove(world.folder, name)
            continue
        sent, listening = signal.SIGINT if number % 6 == 0 else signal.SIGTERM, marker.exists()
        os.kill(pid, sent)
        began = time.monotonic()
        code = w.finish(pid, 60)
        took = time.monotonic() - began
        said, log = w.said(world.folder, name), _log(world, name)
        if code is None:
            w.kill(pid)
        marker.unlink(missing_ok=True)
        if not listening and code != 75:
            done = "trained" in _summary(world, name)
            early, late = early + (not done), late + done
        elif code == 0 and "stopping:" not in log:
            late += 1
        else:
            outcome.trials += 1
            interrupts += sent == signal.SIGINT
            ended.append(took)
            safe = [float(found) for found in re.findall(r"is safe, ([\d.]+) s after", log)]
            saved += safe
            if code != 75:
                outcome.wrong.append(f"{name}: exit code {code}: {said[-300:]}")
            if max(safe, default=0.0) > 5 or took > 5:
                outcome.wrong.append(f"{name}: {safe} s until the checkpoint was safe, {took:.1f} s until the end")
        settle(world, outcome, name)
    outcome.figures = {"longest_seconds_to_safe": max(saved), "longest_seconds_to_exit": round(max(ended), 2),
                       "checkpoints_on_request": len(saved) - 1, "sigint": interrupts,
                       "before_listening": early, "after_the_end": late}  # fmt: skip
    return outcome


def _stop_hooks(marker: Path, slow: str) -> Callable[[], None]:
    def before() -> None:
        hooks.mark_listening(marker)
        if slow:
            hooks.slow(slow)

    return before


def _summary(world: w.World, name: str) -> str:
    path = world.folder / "runs" / name / "run.json"
    return path.read_text() if path.exists() else ""


def _log(world: w.World, name: str) -> str:
    path = world.folder / "runs" / name / "run.log"
    return path.read_text() if path.exists() else ""


def starters(world: w.World, count: int, chance: random.Random) -> Outcome:
    """Eight processes start one run at once: one runs, the others are told who does."""
    outcome, longest = Outcome("8 starters of one run"), 0.0
    for number in range(count):
        name = f"starters-{number}"
        w.new_run(world.folder, name)
        began = time.monotonic()
        pids = [w.start(world.folder, name, log=f"{name}-{at}") for at in range(8)]
        codes: dict[int, int] = {}
        while len(codes) < 8 and time.monotonic() - began < 120:
            for at, pid in enumerate(pids):
                if at not in codes and (code := w.finish(pid, 0.0)) is not None:
                    codes[at] = code
                    if code == 4:
                        longest = max(longest, time.monotonic() - began)
            time.sleep(0.005)
        outcome.trials += 1
        told = sum("in use by" in w.said(world.folder, f"{name}-{at}") for at in range(8))
        if sorted(codes.values()) != [0, *[4] * 7] or told != 7:
            outcome.wrong.append(f"{name}: exit codes {codes}, {told} were told who has it")
        for at in range(8):
            (world.folder / f"{name}-{at}.said").unlink(missing_ok=True)
        settle(world, outcome, name)
    outcome.figures = {"longest_refusal_seconds": round(longest, 2)}
    return outcome


# --- inside a step ----------------------------------------------------------------------------------------------------


def numbers(world: w.World, count: int, chance: random.Random) -> Outcome:
    """A loss that is no number, an infinite gradient or a spike, at each step in turn."""
    import torch
    from safetensors.torch import load_file

    outcome, ended = Outcome("loss or gradient not a number, or a spike"), {}
    for number in range(count):
        name, step, kind = f"numbers-{number}", number % w.STEPS, ["nan", "inf", "gradient", "spike"][number % 4]
        persists = number % 10 == 9
        root = w.new_run(world.folder, name)
        code = w.finish(w.start(world.folder, name, before=lambda s=step, k=kind, p=persists: hooks.spoil(k, s, p)))
        outcome.trials += 1
        ended[str(code)] = ended.get(str(code), 0) + 1
        adapter = root / "adapter" / "adapter_model.safetensors"
        if code == 0:
            if not all(bool(torch.isfinite(tensor).all()) for tensor in load_file(adapter).values()):
                outcome.wrong.append(f"{name}: {kind} at step {step + 1}: the adapter is not finite")
        elif code != 7 or adapter.exists() or "Traceback" in w.said(world.folder, name):
            outcome.wrong.append(f"{name}: {kind} at step {step + 1}: {code}: {w.said(world.folder, name)[-300:]}")
        w.remove(world.folder, name)
    outcome.figures = {f"exit_{code}": times for code, times in ended.items()}
    return outcome


def memory(world: w.World, count: int, chance: random.Random) -> Outcome:
    """Memory runs out at each row of each step in turn: same number of steps, loss within 1e-6 (without dropout)."""
    outcome, worst = Outcome("out of memory at each row"), 0.0
    plain = ["lora.lora_dropout=0", "train.logging_steps=1", "train.batch_size=8"]
    w.new_run(world.folder, "memory")
    if w.finish(w.start(world.folder, "memory", *plain)) != 0:
        raise RuntimeError(w.said(world.folder, "memory"))
    losses = _losses(world, "memory")
    for number in range(count):
        name = f"memory-{number}"
        w.new_run(world.folder, name)
        code = w.finish(
            w.start(
                world.folder, name, *plain, before=lambda n=number: hooks.run_out_of_memory(n % w.STEPS, n // w.STEPS)
            )
        )
        outcome.trials += 1
        ours = _losses(world, name)
        told = "out_of_memory" in (world.folder / "runs" / name / "events.jsonl").read_text()
        if code != 0 or len(ours) != w.STEPS or not told:
            outcome.wrong.append(f"{name}: {code}, {len(ours)} steps: {w.said(world.folder, name)[-300:]}")
        else:
            worst = max(worst, *(abs(a - b) / abs(b) for a, b in zip(ours, losses, strict=True)))
        w.remove(world.folder, name)
    if worst > 1e-6:
        outcome.wrong.append(f"losses differ by {worst:.1e}")
    outcome.figures = {"largest_relative_difference": worst}
    w.remove(world.folder, "memory")
    return outcome


def _losses(world: w.World, name: str) -> list[float]:
    lines = (world.folder / "runs" / name / "events.jsonl").read_text().splitlines()
    return [event["loss"] for event in map(json.loads, lines) if event["event"] == "log"]


# --- the rest ---------------------------------------------------------------------------------------------------------


def clocks(world: w.World, count: int, chance: random.Random) -> Outcome:
    """The clock steps back or forward, to 1970 and to 2038, while it runs and between two calls."""
    outcome = Outcome("clock stepping")
    for number in range(count):
        name = f"clock-{number}"
        root = w.new_run(world.folder, name)
        step = [-3600, -86400 * 365, 3600, 86400 * 400, "1970", "2038", -1, 7200][number % 8]
        code = w.finish(w.start(world.folder, name, before=lambda s=step: (hooks.step_clock(s), hooks.stop_at(5))))
        outcome.trials += 1
        left = w.verified(root)
        if code != 75 or not left or left[-1] != 5:
            outcome.wrong.append(f"{name}: {step}: {code}, checkpoints {left}: {w.said(world.folder, name)[-300:]}")
        for path in root.glob("checkpoints/*"):
            then = chance.uniform(0, 2**32)
            os.utime(path, (then, then))
        settle(world, outcome, name)
    return outcome


def workers(world: w.World, count: int, chance: random.Random) -> Outcome:
    """A process that plans steps ahead is killed."""
    outcome = Outcome("loader worker killed")
    for number in range(count):
        name = f"worker-{number}"
        w.new_run(world.folder, name)
        at = chance.randrange(w.STEPS - 2)
        pid = w.start(world.folder, name, "train.dataloader_num_workers=2", before=lambda a=at: hooks.kill_worker_at(a))
        code = w.finish(pid)
        outcome.trials += 1
        if code != 0 or "it is replaced" not in _log(world, name):
            outcome.wrong.append(f"{name}: {code}: {w.said(world.folder, name)[-300:]}")
        settle(world, outcome, name)
    return outcome


KINDS: dict[str, Callable[[w.World, int, random.Random], Outcome]] = {
    "kills": kills, "operations": operations, "refusals": refusals, "mutations": mutations, "disk_full": disk_full,
    "stops": stops, "starters": starters, "numbers": numbers, "memory": memory, "clocks": clocks, "workers": workers,
    "machines": elsewhere.machines, "fresh": elsewhere.fresh,
}  # fmt: skip
SHORT = {"kills": 200, "operations": 24, "refusals": 8, "mutations": 100, "disk_full": 6, "stops": 8, "starters": 1,
         "numbers": 8, "memory": 4, "clocks": 2, "workers": 1, "machines": 2, "fresh": 2}  # fmt: skip
"""Trials of a ring that takes a few minutes on two cores."""
RELEASE = {"kills": 1000, "operations": 10_000, "refusals": 60, "mutations": 1000, "disk_full": 75, "stops": 100,
           "starters": 20, "numbers": 50, "memory": 30, "clocks": 20, "workers": 20, "machines": 20,
           "fresh": 10}  # fmt: skip
"""What a release is held to; operations are as many as a run's checkpoints take."""


def with_shim(folder: Path) -> dict[str, str]:
    """The environment with the shim preloaded; as it is where no C compiler is at hand."""
    library = folder / "shim.so"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return dict(os.environ)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-w", "-o", library, HERE / "shim.c", "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(library), SHIM: str(library), "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Make a world, run the trials asked for, print an outcome a line; exit code 1 when one is not good."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="kind[=count]", help=f"of {', '.join(KINDS)}; all without one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--plain", action="store_true", help="the same faults for transformers.Trainer as it comes")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="tunesmith-crash-"))
    if SHIM not in os.environ:
        environment = with_shim(folder)
        if SHIM in environment:
            os.execve(sys.executable, [sys.executable, *sys.argv, "--folder", str(folder)], environment)
    world = w.make_world(folder)
    good = True
    kinds: dict[str, Any] = dict(KINDS)
    if given.plain:
        from plain import Plain

        plain = Plain(world)
        kinds = {kind: lambda world, *rest, k=kind: getattr(plain, k)(*rest) for kind in KINDS if hasattr(plain, kind)}
    for wanted in given.kinds or kinds:
        kind, _, count = wanted.partition("=")
        if kind not in kinds:
            continue
        if kind in ("operations", "refusals") and SHIM not in os.environ:
            print(json.dumps({"kind": kind, "skipped": "no C compiler"}), flush=True)
            continue
        left = int(count or SHORT[kind])
        while left > 0:  # in parts, so that little is lost where this process is
            began, part = time.monotonic(), min(left, PARTS.get(kind, left))
            outcome = kinds[kind](world, part, random.Random(f"{given.seed} {kind} {left}"))
            good &= outcome.good
            took = round(time.monotonic() - began, 1)
            said = {"kind": kind, "seed": given.seed, **asdict(outcome), "good": outcome.good, "seconds": took}
            print(json.dumps(said), flush=True)
            left -= part
    if good and folder.name.startswith("tunesmith-crash-"):
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
