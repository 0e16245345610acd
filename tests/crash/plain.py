"""The same faults for `transformers.Trainer` as it comes, with PEFT: the same model, data, steps and saves.

Its script does what its documentation says: `resume_from_checkpoint` where there is a checkpoint, else from the start.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import elsewhere
import hooks
import world as w
from outcome import Outcome
from trials import _append, _shim, _size


def start(folder: Path, name: str, before: Callable[[], object] | None = None, at: Path | None = None,
          poison: int = -1, oom: int = -1, address: str = "") -> int:  # fmt: skip
    """A process that trains with the plain Trainer; returns its id.

    Args:
        folder: the world's.
        name: of the run.
        before: called in the process first.
        at: another folder for runs.
        poison: number of the step whose loss is not a number.
        oom: number of the step at which memory runs out, once.
        address: given as `output_dir` as it is.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(folder / f"{name}.said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if before is not None:
            before()
        _train(folder, address or str((at or folder / "runs") / name), poison, oom)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train(folder: Path, out: str, poison: int, oom: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    from tunesmith.data.cache import TokensDataset

    cache = next(path.parent for path in (folder / "cache").glob("*/MANIFEST.json"))
    rows = [
        {"input_ids": torch.tensor(one.input_ids.tolist()), "labels": torch.tensor(one.labels.tolist())}
        for one in TokensDataset(cache, "train")
    ]

    def collate(batch: list[dict[str, Any]]) -> dict[str, Any]:
        def pad(name: str, value: int) -> Any:
            return torch.nn.utils.rnn.pad_sequence([row[name] for row in batch], True, value)

        return {"input_ids": pad("input_ids", 3), "labels": pad("labels", -100)}

    class Spoiled(Trainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *args: Any) -> Any:
            if self.state.global_step == oom and os.environ.get("TUNESMITH_OOM") != "done":
                os.environ["TUNESMITH_OOM"] = "done"
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            loss = super().training_step(model, inputs, *args)
            if self.state.global_step == poison:
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.fill_(float("nan"))
            return loss

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, lora_dropout=0.1, target_modules="all-linear"))
    arguments = TrainingArguments(
        output_dir=out, max_steps=w.STEPS, save_steps=w.SAVE, save_total_limit=2, logging_steps=2,
        per_device_train_batch_size=2, learning_rate=2e-3, report_to=[], use_cpu=True, seed=1, disable_tqdm=True,
        auto_find_batch_size=oom >= 0,
    )  # fmt: skip
    trainer = Spoiled(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    last = get_last_checkpoint(out) if Path(out).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.save_model(f"{out}/adapter")
    print(f"steps {trainer.state.global_step}")


def _hash(root: Path) -> str:
    return hashlib.sha256((root / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


class Plain:
    """The trials, against one undisturbed run."""

    def __init__(self, world: w.World) -> None:
        import time

        self.folder = world.folder
        shutil.rmtree(self.folder / "runs" / "plain", ignore_errors=True)
        for _ in range(2):  # the first imports
            shutil.rmtree(self.folder / "runs" / "plain", ignore_errors=True)
            began = time.perf_counter()
            if w.finish(start(self.folder, "plain")) != 0:
                raise RuntimeError(w.said(self.folder, "plain"))
            self.seconds = time.perf_counter() - began
        self.reference = _hash(self.folder / "runs" / "plain")

    def settle(self, outcome: Outcome, name: str) -> None:
        """The same command again, and the comparison."""
        code = w.finish(start(self.folder, name))
        if code != 0:
            outcome.stuck += 1
            outcome.wrong.append(w.said(self.folder, name).strip().splitlines()[-1][:200])
        elif _hash(self.folder / "runs" / name) != self.reference:
            outcome.different += 1
        shutil.rmtree(self.folder / "runs" / name, ignore_errors=True)

    def kills(self, count: int, chance: random.Random) -> Outcome:
        """Killed once at a random instant."""
        outcome = Outcome("SIGKILL at a random instant")
        while outcome.trials < count:
            name = f"plain-kill-{outcome.trials}"
            pid = start(self.folder, name)
            if w.finish(pid, chance.uniform(0.1, 1.0) * self.seconds) is None:
                w.kill(pid)
                outcome.trials += 1
                self.settle(outcome, name)
        return outcome

    def operations(self, count: int, chance: random.Random) -> Outcome:
        """Killed at a file operation of its second save."""
        outcome, shim = Outcome("SIGKILL at every file operation of a save"), _shim()
        root, counts = self.folder / "runs" / "plain-count", self.folder / "counts"
        counts.unlink(missing_ok=True)

        def before() -> None:
            from transformers import Trainer

            shim.fault_arm(str(root).encode(), 0, 0, 0)

            def save(original: Any, *args: Any) -> Any:
                done = original(*args)
                _append(counts, shim.fault_count())
                return done

            hooks._wrap(Trainer, "_save_checkpoint", save)

        w.finish(start(self.folder, "plain-count", before))
        first, second = (int(line) for line in counts.read_text().split()[:2])
        points = list(range(first + 1, second + 1))
        for at in points if count >= len(points) else sorted(chance.sample(points, count)):
            name = f"plain-operation-{at}"
            w.finish(start(self.folder, name, lambda a=at, n=name: shim.fault_arm(
                str(self.folder / "runs" / n).encode(), a, 1, 0)))  # fmt: skip
            outcome.trials += 1
            self.settle(outcome, name)
        outcome.figures = {"operations_of_the_second_save": len(points)}
        return outcome

    def mutations(self, count: int, chance: random.Random) -> Outcome:
        """One file of the newest checkpoint changed; the adapter's card is left alone."""
        outcome = Outcome("checkpoint files changed")
        original = self.folder / "runs" / "plain-original"
        shutil.rmtree(original, ignore_errors=True)
        w.finish(start(self.folder, "plain-original"))
        shutil.rmtree(original / "adapter")
        shutil.rmtree(original / f"checkpoint-{w.STEPS}")
        files = [p.name for p in sorted((original / f"checkpoint-{w.STEPS - w.SAVE}").iterdir()) if p.suffix != ".md"]
        for number in range(count):
            name = f"plain-mutation-{number}"
            shutil.copytree(original, self.folder / "runs" / name)
            checkpoint = self.folder / "runs" / name / f"checkpoint-{w.STEPS - w.SAVE}"
            hooks.mutate(checkpoint, files[number % len(files)], chance)
            outcome.trials += 1
            self.settle(outcome, name)
        return outcome

    def disk_full(self, count: int, chance: random.Random) -> Outcome:
        """Its folder on a file system of every size; then moved to a larger one."""
        outcome = Outcome("disk full (tmpfs)")
        needed = 2 * _size(self.folder / "runs" / "plain")
        for number in range(count):
            name, mount = f"plain-full-{number}", Path(tempfile.mkdtemp(dir=self.folder))
            size = 8 + (needed - 8192) * number // max(1, count - 1) // 1024
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(mount)], check=True)
            try:
                w.finish(start(self.folder, name, at=mount))
                outcome.trials += 1
                if (mount / name).exists():
                    shutil.copytree(mount / name, self.folder / "runs" / name)
            finally:
                subprocess.run(["umount", str(mount)], check=True)
                mount.rmdir()
            self.settle(outcome, name)
        return outcome

    def stops(self, count: int, chance: random.Random) -> Outcome:
        """SIGTERM: whether a checkpoint was made for it, and what code it ends with."""
        outcome, saved, codes = Outcome("SIGTERM at a random instant"), 0, set()
        while outcome.trials < count:
            name = f"plain-stop-{outcome.trials}"
            pid = start(self.folder, name)
            if (code := w.finish(pid, chance.uniform(0.5, 1.0) * self.seconds)) is None:
                before = len(list((self.folder / "runs" / name).glob("checkpoint-*")))
                os.kill(pid, signal.SIGTERM)
                code = w.finish(pid)
                outcome.trials += 1
                saved += len(list((self.folder / "runs" / name).glob("checkpoint-*"))) > before
                codes.add(str(code))
            self.settle(outcome, name)
        outcome.figures = {"saved_on_request": saved}
        outcome.wrong.append(f"exit codes {sorted(codes)}")
        return outcome

    def starters(self, count: int, chance: random.Random) -> Outcome:
        """Eight at once: how many went on into one directory."""
        outcome, ran = Outcome("8 starters of one run"), 0
        for number in range(count):
            name = f"plain-starters-{number}"
            codes = [w.finish(pid) for pid in [start(self.folder, name) for _ in range(8)]]
            outcome.trials += 1
            ran += sum(code == 0 for code in codes)
            self.settle(outcome, name)
        outcome.figures = {"ran_to_the_end_of_8": ran / max(1, outcome.trials)}
        return outcome

    def numbers(self, count: int, chance: random.Random) -> Outcome:
        """A gradient that is not a number at each step in turn."""
        import torch
        from safetensors.torch import load_file

        outcome = Outcome("loss or gradient not a number")
        for number in range(count):
            name = f"plain-numbers-{number}"
            code = w.finish(start(self.folder, name, poison=number % w.STEPS))
            outcome.trials += 1
            root = self.folder / "runs" / name
            if code == 0:
                tensors = load_file(root / "adapter" / "adapter_model.safetensors").values()
                outcome.different += not all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
            shutil.rmtree(root, ignore_errors=True)
        return outcome

    def memory(self, count: int, chance: random.Random) -> Outcome:
        """Memory runs out once, with `auto_find_batch_size`: whether the result is that of the same batches."""
        outcome = Outcome("out of memory")
        for number in range(count):
            name = f"plain-memory-{number}"
            os.environ.pop("TUNESMITH_OOM", None)
            code = w.finish(start(self.folder, name, oom=number % w.STEPS))
            outcome.trials += 1
            outcome.stuck += code != 0
            outcome.different += code == 0 and _hash(self.folder / "runs" / name) != self.reference
            shutil.rmtree(self.folder / "runs" / name, ignore_errors=True)
        return outcome

    def clocks(self, count: int, chance: random.Random) -> Outcome:
        """The files' times as after a clock that was set back between two saves: whether the newest is deleted."""
        outcome, deleted = Outcome("clock stepping"), 0
        for number in range(count):
            name = f"plain-clock-{number}"

            def before() -> None:
                from transformers import Trainer

                def save(original: Any, trainer: Any, *args: Any) -> Any:
                    # What is written after the clock went back an hour looks older than what was there before.
                    for path in Path(trainer.args.output_dir).glob("checkpoint-*"):
                        os.utime(path, (path.stat().st_mtime + 3600, path.stat().st_mtime + 3600))
                    return original(trainer, *args)

                hooks._wrap(Trainer, "_save_checkpoint", save)

            w.finish(start(self.folder, name, before))
            outcome.trials += 1
            root = self.folder / "runs" / name
            deleted += not (root / f"checkpoint-{w.STEPS}").exists()
            shutil.rmtree(root, ignore_errors=True)
        outcome.figures = {"newest_deleted": deleted}
        return outcome

    def machines(self, count: int, chance: random.Random) -> Outcome:
        """`output_dir: gs://bucket/run`: what an empty machine would find there."""
        from tunesmith.storage import open_store

        outcome, objects = Outcome("resumed on an empty machine from gs://"), 0
        here = self.folder / "cloud"
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir()
        with elsewhere.bucket() as server:

            def before() -> None:
                os.environ.update(server.variables)
                os.chdir(here)

            for number in range(count):
                w.finish(start(self.folder, f"plain-cloud-{number}", before, address="gs://bucket/run"))
                outcome.trials += 1
                os.environ.update(server.variables)
                found = len(list(open_store("gs://bucket/run").list("")))
                objects += found
                outcome.stuck += not found
        outcome.wrong.append(f"a local folder named gs: {'was' if (here / 'gs:').is_dir() else 'was not'} made")
        outcome.figures = {"objects_in_the_bucket": objects}
        return outcome
