"""Run a trainer to its end and keep what it made; the same for every method."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.lock import RunLock
from tunesmith.checkpoints.resume import Folder, Found, Place, find_checkpoint
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError, DivergedError, StoppedError
from tunesmith.model.load import ParameterCount, count_parameters, model_path
from tunesmith.model.lora import with_peft
from tunesmith.model.memory import read_memory
from tunesmith.model.outside import require_base, require_finite, require_harmless
from tunesmith.rundir import RunDir
from tunesmith.stop import Stop
from tunesmith.train.callbacks import KeepBest
from tunesmith.train.durable import Finished
from tunesmith.train.gauges import reading
from tunesmith.train.governor import Governor
from tunesmith.train.progress import LiveView, Progress
from tunesmith.train.weights import load_trainable, require_unchanged, save_adapter

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What training came to."""

    steps: int
    final_train_loss: float | None
    """Mean over the last logging interval, per label token."""
    validation_loss: float | None
    """Of the weights that were kept, per label token; None without a validation set."""
    perplexity: float | None
    seconds: float
    """Of this call; a resumed run's earlier parts are not in it."""
    tokens: int
    """Tokens of the examples that were trained on in all steps, a shared prefix counted for each."""
    label_tokens: int
    tokens_per_second: float
    """Of this call."""
    sharing: float
    """Tokens of the examples for each token that was computed: what sharing prefixes saved. Of this call."""
    best_step: int | None
    """Step whose weights were kept, where early stopping chose them."""
    parameters: ParameterCount
    set_aside: list[str]
    """Ids of the examples that were not trained on to the end, because their loss or gradient was not a number."""
    skipped_steps: list[int]
    """Steps that made no update, because their loss was out of all proportion."""
    saving_share: float
    """Share of the time of this call that checkpoints took."""
    peak_memory_mb: int
    """On the GPU where there is one, else resident."""

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        return {**asdict(self), "parameters": {**asdict(self.parameters), "share": self.parameters.share}}

    def sentence(self) -> str:
        """For a person."""
        p = self.parameters
        text = f"{self.steps} steps, {p.trainable:,} of {p.total:,} parameters ({100 * p.share:.2f} %)"
        if self.validation_loss is not None:
            text += f", validation loss {self.validation_loss:.4f}, perplexity {self.perplexity:.3f}"
        text += f", {self.tokens_per_second:,.0f} tokens/s"
        if self.set_aside or self.skipped_steps:
            text += f", {len(self.set_aside)} examples set aside, {len(self.skipped_steps)} steps without an update"
        return f"{text}, {self.sharing:.1f} for each computed" if self.sharing > 1.05 else text


def fit(
    trainer: Any,
    run: RunDir,
    config: RunConfig,
    resume: bool = False,
    *,
    stop: Stop | None = None,
    lock: RunLock | None = None,
    elsewhere: Sequence[Place] = (),
) -> TrainResult:
    """Train, from the newest checkpoint where there is one, and write the adapter.

    Args:
        trainer: as a builder of `BUILDERS` made it; afterwards `trainer.model` is the trained model, free of it.
        run: checkpoints are found and written here, the result goes to `adapter/`.
        config: the run.
        resume: insist on a checkpoint.
        stop: listens to requests to end; without one, this call listens itself.
        lock: the right to write into the run; without one, this call takes it.
        elsewhere: where checkpoints are also looked for, such as a mirror.

    Raises:
        StoppedError: stopped on request; a checkpoint was saved.
        DivergedError: loss, gradients or weights are not numbers.
        NoCheckpointError: checkpoints exist and none verifies.
        ConfigError: nothing to resume, or a checkpoint of other settings.
        StorageError: a checkpoint cannot be written, or another process has the run.
        ModelError: out of memory.
    """
    if lock is None:
        with RunLock(run.root) as own:
            return fit(trainer, run, config, resume, stop=stop, lock=own, elsewhere=elsewhere)
    if stop is None:
        with Stop() as listening:
            return fit(trainer, run, config, resume, stop=listening, lock=lock, elsewhere=elsewhere)
    trainer.stop, trainer.lock = stop, lock
    here = Folder(run.checkpoints)
    with trainer.accelerator.main_process_first():  # it sets aside what does not verify; the others then find the rest
        if trainer.is_world_process_zero():
            here.clear()
        found = find_checkpoint([here, *elsewhere], trainer.identity)
    if resume and found is None:
        raise ConfigError(
            "there is no checkpoint to resume from",
            place=str(run.checkpoints),
            remedy="start its recipe, without --resume: tunesmith run RECIPE",
        )
    parameters = count_parameters(trainer.model)
    log.info("training starts: %s", read_memory().sentence())
    start = time.perf_counter()
    _train(trainer, found, run)
    seconds = time.perf_counter() - start
    log.info("training ended: %s", read_memory().sentence())
    best = trainer.callback(KeepBest)
    validation = _validation_loss(trainer, best)
    _require_finite(trainer.model)
    if trainer.is_world_process_zero():
        save_adapter(trainer.release(), trainer.tokenizer, config, run.adapter)
    trainer.accelerator.wait_for_everyone()
    return _result(trainer, found, validation, seconds, best, parameters)


def load_trained(config: RunConfig, run: RunDir, base: Any) -> Any:
    """The trained model from `adapter/`, on the base it was trained on.

    Raises:
        ModelError: what lies there is no adapter, or one of another base, or its weights are not numbers, or a file of
            it is not what was written when training ended.
    """
    require_unchanged(run.adapter)
    require_harmless(run.adapter)
    if config.lora is None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(str(run.adapter), dtype=base.dtype, use_safetensors=True)
        return model.to(base.device).eval()
    from peft import PeftModel

    require_base(run.adapter, model_path(config.model))
    model = with_peft(lambda: PeftModel.from_pretrained(base, str(run.adapter))).eval()
    require_finite(model, run.adapter)
    return model


def _train(trainer: Any, found: Found | None, run: RunDir) -> None:
    if found is not None:
        log.info("continuing from step %d", found.manifest.step)
        if _is_done(trainer, found.path):
            return
    progress: Progress = trainer.callback(Progress)
    progress.trainer = trainer
    stop: Stop = trainer.stop
    if stop.nearest is not None and trainer.callback(Governor) is None:
        trainer.add_callback(Governor(stop, progress, trainer.tell))
    alone = trainer.args.world_size == 1
    try:
        with reading(progress.gauges), stop.saving(trainer.save_now) if alone else stop.gently():
            trainer.train(resume_from_checkpoint=str(found.path) if found else None)
            stop.check()
    except Finished:
        pass
    finally:
        trainer.callback(LiveView).close()
    if not alone and trainer.state.global_step < trainer.state.max_steps and stop.asked:
        raise StoppedError(
            f"stopped: {stop.reason}, at step {trainer.state.global_step} of {trainer.state.max_steps}, "
            "with a checkpoint",
            place=str(run.root),
            remedy=stop.remedy,
        )


def _is_done(trainer: Any, checkpoint: Path) -> bool:
    """Whether a checkpoint is the run's last, its weights then loaded: the loop would take one more step."""
    from transformers import TrainerState

    trainer.restore(checkpoint)
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = trainer.callback(KeepBest)
    done = not trainer.due and (state.global_step >= state.max_steps or (best is not None and best.exhausted))
    if done:
        trainer._load_from_checkpoint(str(checkpoint))
        trainer.state = state
    return done


def _validation_loss(trainer: Any, best: KeepBest | None) -> float | None:
    """Of the weights to be kept: the best ones are loaded first; what was measured at the last step is not repeated."""
    if best is not None and best.best is not None:
        load_trainable(trainer.model, best.path)
        return best.best
    measured = next((entry for entry in reversed(trainer.state.log_history) if "eval_loss" in entry), None)
    if measured is not None and measured["step"] == trainer.state.global_step:
        return float(measured["eval_loss"])
    loss = trainer.evaluate().get("eval_loss")
    return float(loss) if loss is not None else None


def _result(
    trainer: Any,
    found: Found | None,
    validation: float | None,
    seconds: float,
    best: KeepBest | None,
    parameters: ParameterCount,
) -> TrainResult:
    steps = trainer.state.global_step
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    here = trainer.seen(found.manifest.step if found else 0, steps)
    everything = trainer.seen(0, steps)
    memory = read_memory()
    return TrainResult(
        steps=steps,
        final_train_loss=losses[-1] if losses else None,
        validation_loss=validation,
        perplexity=math.exp(min(validation, 100.0)) if validation is not None else None,
        seconds=round(seconds, 1),
        tokens=everything.tokens,
        label_tokens=everything.labels,
        tokens_per_second=round(here.tokens / seconds, 1) if seconds else 0.0,
        sharing=round(here.tokens / trainer.computed, 3) if trainer.computed else 1.0,
        best_step=best.best_step if best is not None else None,
        set_aside=trainer.set_aside,
        skipped_steps=trainer.skipped,
        saving_share=round(trainer.seconds_saving / seconds, 5) if seconds else 0.0,
        parameters=parameters,
        peak_memory_mb=memory.gpu_peak or memory.peak_rss,
    )


def _require_finite(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise DivergedError(
                f"the trained weights of {name} are not numbers",
                place="train.learning_rate",
                remedy="lower it, and look at the loss curve",
            )
