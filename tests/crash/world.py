"""The demo's recipe made small, and real processes that run it: each a fork of one that has imported torch already.

A process costs the time of its few steps this way, so thousands can be killed. What it runs is the command line, from
its arguments to its exit code.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE, EVAL = 8, 2, 4
SETTINGS = [
    f"train.max_steps={STEPS}", f"checkpoints.save_steps={SAVE}", f"train.eval_steps={EVAL}",
    "train.early_stopping_patience=50", "train.batch_size=2", "train.max_tokens=1024", "train.logging_steps=2",
    "train.share_prefixes=false", "lora.lora_dropout=0.1", "lora.r=4", "lora.lora_alpha=4", "checkpoints.keep_last=2",
    "checkpoints.save_minutes=null", "tracking.report_to=[]", "task.build.examples=60", "task.build.test_examples=10",
    "task.build.asked=null", "lora.modules_to_save=[]",
    "data.validation_share=0.05", "data.test={}", "exports=[]", "task.schema_tokens=300", "evaluate.self_test=0",
    "limits.preemption_url=null",
]  # fmt: skip
"""Dropout draws random numbers at every step, and patience makes validations part of the state."""


class World(NamedTuple):
    """What every trial starts from."""

    folder: Path
    seconds: float
    """What an undisturbed run takes."""
    processor: float
    """Seconds of a processor that it takes: the measure of instants, whatever else the machine does."""
    reference: Mapping[str, str]
    """sha256 of the files of its result."""


def make_world(folder: Path) -> World:
    """Build data, a random model of the demo's kind, and the undisturbed run that all others are compared with."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(Path(__file__).parent))
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from tunesmith import pipeline
    from tunesmith.config.load import load_config
    from tunesmith.model.load import DEMO

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "head_dim": 16, "dtype": "float32"}  # fmt: skip
    config = AutoConfig.for_model(**(json.loads((DEMO / "config.json").read_text()) | small))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    loaded = load_config(recipe(), arguments(folder, "built")[1:], environ={})
    pipeline.prepare_only(loaded)
    seconds, processor, imported = [], [], folder / "imported"
    for name in ("warm", "reference", "again"):
        new_run(folder, name)
        began, used = time.perf_counter(), sum(os.times()[2:4])
        code = finish(start(folder, name, before=(lambda: _note_imports(imported)) if name == "warm" else None))
        seconds.append(time.perf_counter() - began)
        processor.append(sum(os.times()[2:4]) - used)
        if code != 0:
            raise RuntimeError(f"the undisturbed run ended with {code}:\n{said(folder, name)}")
        if name == "warm":
            _share(imported.read_text().split())
    return World(folder, min(seconds[1:]), min(processor[1:]), result(folder / "runs" / "reference"))


def _note_imports(path: Path) -> None:
    """Have the process write down at its end what it had imported."""
    leave = os._exit

    def noting(code: int) -> NoReturn:
        path.write_text("\n".join(sorted(sys.modules)))
        leave(code)

    os._exit = noting


def _share(modules: list[str]) -> None:
    """Do once what every run would do for itself: import, compile the report's page, read the package's source."""
    from tunesmith.check.readers import find_readers
    from tunesmith.report import _template

    for module in modules:
        with suppress(Exception):
            importlib.import_module(module)
    _template()
    find_readers([])
    gc.collect()
    gc.freeze()  # or every child would visit, and so copy, all of it


def recipe() -> Path:
    """The demo's."""
    return ROOT / "recipes" / "sql" / "demo.yaml"


def arguments(folder: Path, name: str) -> list[str]:
    """Of `tunesmith`, to train the small recipe as a run of that name."""
    return [str(recipe()), *SETTINGS, f"name={name}", f"output_dir={folder / 'runs'}", f"model.name={folder / 'model'}",
            f"data.cache_dir={folder / 'cache'}"]  # fmt: skip


def new_run(folder: Path, name: str, at: Path | None = None) -> Path:
    """An empty run directory with the built data in it; `at` another folder for runs."""
    root = (at or folder / "runs") / name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(folder / "runs" / "built" / "data", root / "data")
    return root


def start(
    folder: Path,
    name: str,
    *extra: str,
    before: Callable[[], object] | None = None,
    verb: str = "train",
    log: str = "",
    whole: list[str] | None = None,
) -> int:
    """A process that runs the command line; returns its id.

    Args:
        folder: the world's.
        name: of the run.
        extra: further settings.
        before: called in the process first.
        verb: what it does with the small recipe.
        log: the name under which `said` has what it prints.
        whole: the whole command line instead, from its verb on.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        output = os.open(folder / f"{log or name}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        if before is not None:
            before()
        from tunesmith.cli import main

        sys.argv = ["tunesmith", *(whole or [verb, *arguments(folder, name), *extra])]
        main()
        code = 0
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(pid: int, seconds: float = 120.0) -> int | None:
    """Its exit code, negative for a signal; None when it was still running after so long."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(min(0.002, max(0.0, deadline - time.monotonic())))


def live(pid: int, processor: float, longest: float = 120.0) -> int | None:
    """Let it live until it has used so many seconds of a processor; its exit code if it ended before."""
    deadline = time.monotonic() + longest
    while time.monotonic() < deadline:
        if (code := finish(pid, 0.0)) is not None:
            return code
        used = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
        if used >= processor:
            return None
        time.sleep(min(0.02, max(0.001, (processor - used) / 2)))
    return None


def kill(pid: int) -> None:
    """SIGKILL, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def said(folder: Path, name: str) -> str:
    """What the process printed."""
    path = folder / f"{name}.said"
    return path.read_text(errors="replace") if path.exists() else ""


def result(root: Path) -> dict[str, str]:
    """sha256 of the adapter, and of all that the last checkpoint holds but the times of its log.

    A run that was asked to stop in the validation of its last step has a checkpoint from before it. What is in it of
    that validation, and so of the log, is left out then, and the run's own record of both is held to the same.
    """
    last = max(root.glob("checkpoints/checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = [root / "adapter" / "adapter_model.safetensors", *sorted(last.glob("*.safetensors"))]
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    state = json.loads((last / "state.json").read_text())
    ended = dict(state["progress"]["items"])["due"] is None
    parts: dict[str, object] = {name: part for name, part in state.items() if name not in ("progress", "callbacks")}
    parts["record"] = _record(root)
    if ended:
        parts["ended"] = [state["progress"], state["callbacks"], [
            {key: value for key, value in entry.items() if "seconds" not in key and "runtime" not in key}
            for entry in json.loads((last / "trainer_state.json").read_text())["log_history"]
        ]]  # fmt: skip
    else:
        found = {name: sha for name, sha in found.items() if not name.endswith(_VALIDATED)}
    return found | {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}


_VALIDATED = ("/progress.safetensors", "/best.safetensors")


def differing(found: Mapping[str, str], reference: Mapping[str, str]) -> list[str]:
    """What is not the same in two results."""
    left_out = {name for name in reference if name == "ended" or name.endswith(_VALIDATED)} - {*found}
    return sorted(key for key in {*found, *reference} - left_out if found.get(key) != reference.get(key))


def _record(root: Path) -> list[list[float]]:
    """Step, training loss and validation loss, as the run's events last said them."""
    said: dict[tuple[int, str], float] = {}
    for line in (root / "events.jsonl").read_text().splitlines():
        with suppress(ValueError):  # a kill may have torn one
            event = json.loads(line)
            for name in ("loss", "validation_loss"):
                if name in event and event["event"] in ("log", "evaluation"):
                    said[event["step"], name] = event[name]
    return [[step, value] for (step, _), value in sorted(said.items())]


def verified(root: Path) -> list[int]:
    """Steps of the checkpoints that verify."""
    from tunesmith.checkpoints.resume import verify

    return sorted(
        manifest.step for path in root.glob("checkpoints/checkpoint-*") if (manifest := verify(path)[0]) is not None
    )


def remove(folder: Path, name: str) -> None:
    """A trial's leavings."""
    shutil.rmtree(folder / "runs" / name, ignore_errors=True)
    for path in (folder / f"{name}.said", folder / "runs" / f".{name}.lock"):
        path.unlink(missing_ok=True)
