"""Faults that `faults_runtime.py` puts into the processes of a rehearsal, and into what one left for the next."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PARTS = ("interrupted", "continued", "uninterrupted", "reloaded")
STEPS, AT = 8, 4


class Fault(NamedTuple):
    """What goes wrong, where, and what a rehearsal must say."""

    parts: tuple[str, ...]
    """Processes that it is put into, or before which it is done to the files."""
    expect: tuple[str, ...]
    """Names of what must fail; one of them suffices."""
    patch: Callable[[], None] | None = None
    """In the process."""
    tamper: Callable[[Path], None] | None = None
    """Done to the rehearsal's folder before the process starts."""


# --- faults in a process ----------------------------------------------------------------------------------------------


def disk_full() -> None:
    from tunesmith.train.durable import DurableTrainer

    def refuse(self: Any, folder: Path) -> None:
        raise OSError(28, "No space left on device", str(folder))

    DurableTrainer._require_space = refuse  # type: ignore[method-assign]


def store_cannot_be_written() -> None:
    import tunesmith.train.durable as durable

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied", "checkpoints")

    durable.commit = refuse


def nothing_is_saved() -> None:
    from tunesmith.train.durable import DurableTrainer

    DurableTrainer._save_checkpoint = lambda self, model, trial: None  # type: ignore[method-assign]


def checkpoints_are_not_found() -> None:
    import tunesmith.train.fit as fit

    fit.find_checkpoint = lambda places, identity: None


def weights_are_not_restored() -> None:
    import tunesmith.train.durable as durable

    durable.read_trained = lambda model, folder: None


def optimizer_is_not_restored() -> None:
    from tunesmith.train.durable import DurableTrainer

    DurableTrainer._load_optimizer_and_scheduler = lambda self, checkpoint: None  # type: ignore[method-assign]


def schedule_begins_again() -> None:
    from tunesmith.train.durable import DurableTrainer

    def optimizer_only(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.optimizer.load_state_dict(self._restored["optimizer"])

    DurableTrainer._load_optimizer_and_scheduler = optimizer_only  # type: ignore[method-assign]


def order_of_the_data_changes() -> None:
    from tunesmith.train.steps import Steps

    order = Steps.order
    Steps.order = lambda self, epoch: order(self, epoch)[::-1]  # type: ignore[method-assign]


def batches_are_not_watched_and_change() -> None:
    from tunesmith.checkpoints.batches import BatchLedger

    order_of_the_data_changes()
    BatchLedger.note = lambda self, step, rows: None  # type: ignore[method-assign]


def losses(change: Callable[[Any, int], Any]) -> None:
    from tunesmith.train.sft import ForestTrainer

    usual = ForestTrainer.row_losses

    def changed(self: Any, model: Any, step: Any) -> Any:
        return change(usual(self, model, step), int(self.state.global_step))

    ForestTrainer.row_losses = changed  # type: ignore[method-assign]


def loss_is_no_number() -> None:
    losses(lambda found, step: found * float("nan") if step >= 2 else found)


def memory_runs_out() -> None:
    def fail(found: Any, step: int) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    losses(fail)


def sums_differ_after_the_resume() -> None:
    from tunesmith.train.sft import ForestTrainer

    usual = ForestTrainer.row_loss
    ForestTrainer.row_loss = lambda self, model, row: usual(self, model, row) * 1.001  # type: ignore[method-assign]


def optimizer(change: Callable[[Any, Callable[..., Any]], Any]) -> None:
    import torch

    usual = torch.optim.AdamW.step
    torch.optim.AdamW.step = lambda self, *args, **kwargs: change(self, lambda: usual(self, *args, **kwargs))


def nothing_is_learned() -> None:
    optimizer(lambda self, step: None)


def the_wrong_way() -> None:
    def uphill(self: Any, step: Callable[[], Any]) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.neg_()
        return step()

    optimizer(uphill)


def a_layer_is_left_out() -> None:
    import tunesmith.model.lora as lora

    usual = lora.add_lora

    def without(model: Any, *args: Any) -> Any:
        made = usual(model, *args)
        for name, parameter in made.named_parameters():
            if "lora_" in name and "layers.1.self_attn.q_proj" in name:
                parameter.requires_grad_(False)
        return made

    lora.add_lora = without


def hangs() -> None:
    time.sleep(600)


def ends_early() -> None:
    os._exit(0)


def dies() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def merged_without_the_adapter() -> None:
    import tunesmith.export.merged as merged

    merged._merge = lambda config, run, wanted: merged.unquantised(config, run, wanted.dtype, "cpu").unload()


def merged_and_not_verified() -> None:
    import tunesmith.export.verify as verify

    merged_without_the_adapter()
    verify._faults = lambda *args: []


def grader_raises() -> None:
    import capitals_task

    def fail(self: Any, example: Any, completion: str) -> Any:
        raise ZeroDivisionError("division by zero")

    capitals_task.Capitals.grade = fail


def grader_says_yes_to_all() -> None:
    import capitals_task

    from tunesmith.types import Score

    capitals_task.Capitals.grade = lambda self, example, completion: Score(1.0)


def grader_judges_nothing() -> None:
    import capitals_task

    from tunesmith.types import Score

    capitals_task.Capitals.grade = lambda self, example, completion: Score(None)


def answers_are_empty() -> None:
    import tunesmith.generate as generate
    from tunesmith.types import Completion

    generate.generate = lambda model, tokenizer, prompts, *args, **kwargs: [Completion("", True, 1) for _ in prompts]


def report_is_not_written() -> None:
    import tunesmith.report as report

    report.write_report = lambda run: run.report


def events_are_lost() -> None:
    from tunesmith.tracking import Tracker

    Tracker.event = lambda self, kind, step, **figures: None  # type: ignore[method-assign]


# --- faults in files --------------------------------------------------------------------------------------------------


def run_of(folder: Path) -> Path:
    return folder / "rehearsal"


def saved(folder: Path) -> Path:
    return run_of(folder) / "checkpoints" / f"checkpoint-{AT // 2}"


def cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-16, os.SEEK_END)
        old = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([old[0] ^ 0x40]))


def checkpoint_is_cut_off(folder: Path) -> None:
    cut(max(saved(folder).glob("*.safetensors"), key=lambda path: path.stat().st_size))


def checkpoint_has_a_flipped_bit(folder: Path) -> None:
    flip(max(saved(folder).glob("*.safetensors"), key=lambda path: path.stat().st_size))


def checkpoint_lost_its_manifest(folder: Path) -> None:
    (saved(folder) / "MANIFEST.json").unlink()


def checkpoint_is_gone(folder: Path) -> None:
    shutil.rmtree(saved(folder))


def data_changed_meanwhile(folder: Path) -> None:
    path = folder.parents[2] / "train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({"country": "Utopia", "capital": "Nowhere"}), *lines[1:]]) + "\n")


def tensors(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path, metadata=metadata)


def merged_file(folder: Path) -> Path:
    return next((run_of(folder) / "exports" / "merged").glob("*.safetensors"))


def tensors_are_swapped(folder: Path) -> None:
    def swap(found: dict[str, Any]) -> dict[str, Any]:
        a, b = "model.layers.0.mlp.gate_proj.weight", "model.layers.1.mlp.gate_proj.weight"
        found[a], found[b] = found[b].clone(), found[a].clone()
        return found

    tensors(merged_file(folder), swap)


def export_is_cut_off(folder: Path) -> None:
    cut(merged_file(folder))


def export_is_coarse(folder: Path) -> None:
    def rounded(found: dict[str, Any]) -> dict[str, Any]:
        return {name: (t / t.abs().max() * 3).round() * t.abs().max() / 3 for name, t in found.items()}

    tensors(merged_file(folder), rounded)


def export_is_no_number(folder: Path) -> None:
    def spoil(found: dict[str, Any]) -> dict[str, Any]:
        found["model.norm.weight"][0] = float("nan")
        return found

    tensors(merged_file(folder), spoil)


def export_is_gone(folder: Path) -> None:
    shutil.rmtree(run_of(folder) / "exports" / "merged")


def settings(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def end_token_is_another(folder: Path) -> None:
    settings(run_of(folder) / "exports" / "merged" / "generation_config.json", eos_token_id=[77])
    settings(run_of(folder) / "exports" / "merged" / "tokenizer_config.json", eos_token="<unk>")


def template_is_lost(folder: Path) -> None:
    (run_of(folder) / "exports" / "merged" / "chat_template.jinja").unlink()


def template_is_another(folder: Path) -> None:
    path = run_of(folder) / "exports" / "merged" / "chat_template.jinja"
    path.write_text("{{ bos_token }}" + path.read_text())


def vocabulary_is_shuffled(folder: Path) -> None:
    path = run_of(folder) / "exports" / "merged" / "tokenizer.json"
    said = json.loads(path.read_text())
    words = sorted(said["model"]["vocab"], key=said["model"]["vocab"].get)[300:400]
    ids = [said["model"]["vocab"][word] for word in words]
    said["model"]["vocab"].update(dict(zip(words, reversed(ids), strict=True)))
    path.write_text(json.dumps(said))


def scale_of_the_adapter_is_another(folder: Path) -> None:
    settings(run_of(folder) / "exports" / "adapter" / "adapter_config.json", lora_alpha=1024)


def trained_weights_are_lost(folder: Path) -> None:
    path = run_of(folder) / "adapter" / "adapter_model.safetensors"
    tensors(path, lambda found: {name: tensor * 0 for name, tensor in found.items()})


def trained_weights_are_another_runs(folder: Path) -> None:
    path = run_of(folder) / "adapter" / "adapter_model.safetensors"
    tensors(path, lambda found: {name: tensor * 1.0001 for name, tensor in found.items()})


ALL = PARTS
TRAINING = PARTS[:3]
FAULTS: dict[str, Fault] = {
    "the disk is full": Fault(("interrupted",), ("interrupted",), disk_full),
    "the store cannot be written": Fault(("interrupted",), ("interrupted",), store_cannot_be_written),
    "nothing is saved": Fault(("interrupted",), ("interrupted",), nothing_is_saved),
    "the loss is no number": Fault(("interrupted",), ("interrupted",), loss_is_no_number),
    "memory runs out": Fault(("interrupted",), ("interrupted",), memory_runs_out),
    "the process dies of a signal": Fault(("interrupted",), ("interrupted",), dies),
    "the checkpoint is cut off": Fault(("continued",), ("continued",), tamper=checkpoint_is_cut_off),
    "the checkpoint has a flipped bit": Fault(("continued",), ("continued",), tamper=checkpoint_has_a_flipped_bit),
    "the checkpoint lost its manifest": Fault(("continued",), ("continued",), tamper=checkpoint_lost_its_manifest),
    "the checkpoint is gone": Fault(("continued",), ("resume", "continued"), tamper=checkpoint_is_gone),
    "the data changed meanwhile": Fault(("continued",), ("continued",), tamper=data_changed_meanwhile),
    "checkpoints are not found": Fault(("continued",), ("resume",), checkpoints_are_not_found),
    "weights are not restored": Fault(("continued",), ("same losses",), weights_are_not_restored),
    "the optimizer is not restored": Fault(("continued",), ("same weights", "same losses"), optimizer_is_not_restored),
    "the schedule begins again": Fault(("continued",), ("same weights", "same losses"), schedule_begins_again),
    "the order of the data changes": Fault(("continued",), ("continued",), order_of_the_data_changes),
    "the order changes unwatched": Fault(("continued",), ("same examples",), batches_are_not_watched_and_change),
    "sums differ after the resume": Fault(("continued",), ("same losses",), sums_differ_after_the_resume),
    "the process hangs": Fault(("continued",), ("continued",), hangs),
    "the process ends early and says it is well": Fault(("continued",), ("resume", "report"), ends_early),
    "merged without the adapter": Fault(("continued",), ("continued",), merged_without_the_adapter),
    "merged without the adapter, unverified": Fault(("continued",), ("reloaded",), merged_and_not_verified),
    "the grader raises": Fault(("continued",), ("continued",), grader_raises),
    "the grader says yes to all": Fault(("continued",), ("continued",), grader_says_yes_to_all),
    "the grader judges nothing": Fault(("continued",), ("continued", "answers"), grader_judges_nothing),
    "answers are empty": Fault(("continued",), ("answers", "continued"), answers_are_empty),
    "the report is not written": Fault(("continued",), ("report",), report_is_not_written),
    "events are lost": Fault(("continued",), ("resume",), events_are_lost),
    "nothing is learned": Fault(TRAINING, ("loss falls", "all layers"), nothing_is_learned),
    "the weights go the wrong way": Fault(TRAINING, ("loss falls",), the_wrong_way),
    "a layer is left out": Fault(TRAINING, ("all layers",), a_layer_is_left_out),
    "trained weights are lost": Fault(("reloaded",), ("all layers", "same weights"), tamper=trained_weights_are_lost),
    "trained weights are another run's": Fault(
        ("reloaded",), ("same weights",), tamper=trained_weights_are_another_runs
    ),
    "tensors are swapped": Fault(("reloaded",), ("reloaded",), tamper=tensors_are_swapped),
    "the export is cut off": Fault(("reloaded",), ("reloaded",), tamper=export_is_cut_off),
    "the export is coarse": Fault(("reloaded",), ("reloaded",), tamper=export_is_coarse),
    "the export is no number": Fault(("reloaded",), ("reloaded",), tamper=export_is_no_number),
    "the export is gone": Fault(("reloaded",), ("exports",), tamper=export_is_gone),
    "the end token is another": Fault(("reloaded",), ("reloaded",), tamper=end_token_is_another),
    "the template is lost": Fault(("reloaded",), ("reloaded",), tamper=template_is_lost),
    "the template is another": Fault(("reloaded",), ("reloaded",), tamper=template_is_another),
    "the vocabulary is shuffled": Fault(("reloaded",), ("reloaded",), tamper=vocabulary_is_shuffled),
    "the scale of the adapter is another": Fault(("reloaded",), ("reloaded",), tamper=scale_of_the_adapter_is_another),
}
QUICK = ("the disk is full", "the checkpoint is cut off", "tensors are swapped", "the end token is another")
