"""Run a trainer to its end and keep what it made; the same for every method."""

from __future__ import annotations

import logging
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.resume import find_checkpoint
from tunesmith.config.schema import RunConfig
from tunesmith.errors import ConfigError, DivergedError, ModelError, StoppedError
from tunesmith.model.load import ParameterCount, count_parameters
from tunesmith.model.memory import read_memory
from tunesmith.rundir import RunDir
from tunesmith.train.callbacks import KeepBest, StopOnSignal, load_trainable

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """What training came to."""

    steps: int
    final_train_loss: float | None
    """Mean over the last logging interval, per label token."""
    validation_loss: float | None
    perplexity: float | None
    seconds: float
    tokens: int
    """Tokens of the examples that were trained on, prefixes counted for each."""
    label_tokens: int
    tokens_per_second: float
    best_step: int | None
    """Step whose weights were kept, where early stopping chose them."""
    parameters: ParameterCount
    peak_memory_mb: int

    def figures(self) -> dict[str, Any]:
        """For `run.json`."""
        return {**asdict(self), "parameters": {**asdict(self.parameters), "share": self.parameters.share}}

    def sentence(self) -> str:
        """For a person."""
        p = self.parameters
        text = f"{self.steps} steps, {p.trainable:,} of {p.total:,} parameters ({100 * p.share:.2f} %)"
        if self.validation_loss is not None:
            text += f", validation loss {self.validation_loss:.4f}, perplexity {self.perplexity:.3f}"
        return f"{text}, {self.tokens_per_second:,.0f} tokens/s"


def fit(trainer: Any, run: RunDir, config: RunConfig, resume: bool = False) -> TrainResult:
    """Train, from the newest checkpoint where there is one, and write the adapter.

    Args:
        trainer: as a builder of `BUILDERS` made it.
        run: checkpoints are found and written here, the result goes to `adapter/`.
        config: the run.
        resume: insist on a checkpoint.

    Raises:
        StoppedError: stopped on request; a checkpoint was saved.
        DivergedError: loss or weights are not numbers.
        NoCheckpointError: checkpoints exist and none verifies.
        ModelError: out of memory.
    """
    import torch

    found = find_checkpoint(run.checkpoints, trainer.identity) if run.checkpoints.exists() else None
    if resume and found is None and not run.adapter.exists():
        raise ConfigError(
            "there is no checkpoint to resume from", place=str(run.checkpoints), remedy="start without --resume"
        )
    before = read_memory()
    log.info("training starts: %s", before.sentence())
    if found is not None:
        log.info("continuing from step %d", found.manifest.step)
        _restore_best(trainer, found.path)
    parameters = count_parameters(trainer.model)
    signals = next(c for c in trainer.callback_handler.callbacks if isinstance(c, StopOnSignal))
    start = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(found.path) if found else None)
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"out of memory: {str(error).splitlines()[0]}",
            place="train.max_tokens",
            remedy="halve train.max_tokens (it changes memory, never the result), or set train.gradient_checkpointing: true",
        ) from error
    finally:
        signals.release()
    seconds = time.perf_counter() - start
    if signals.stopped:
        raise StoppedError(
            f"stopped at step {trainer.state.global_step}, with a checkpoint",
            place=str(run.root),
            remedy="the same command continues",
        )
    best = next((c for c in trainer.callback_handler.callbacks if isinstance(c, KeepBest)), None)
    if best is not None and best.best_step and best.path.exists():
        load_trainable(trainer.model, best.path)
    metrics = trainer.evaluate() if len(trainer.prepared.validation) else {}
    _require_finite(trainer.model)
    save_adapter(trainer.model, trainer.processing_class, config, run)
    return _result(trainer, metrics, seconds, best, parameters)


def save_adapter(model: Any, tokenizer: Any, config: RunConfig, run: RunDir) -> None:
    """Write what was trained to `adapter/`, whole or not at all: weights without pickles, and its config."""
    draft = run.root / "adapter.tmp"
    shutil.rmtree(draft, ignore_errors=True)
    model.save_pretrained(str(draft), safe_serialization=True)
    for path in draft.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    shutil.rmtree(run.adapter, ignore_errors=True)
    draft.rename(run.adapter)


def load_trained(config: RunConfig, run: RunDir, base: Any) -> Any:
    """The trained model from `adapter/`, on the base it was trained on."""
    if config.lora is None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(str(run.adapter), dtype=base.dtype, use_safetensors=True)
        return model.to(base.device).eval()
    from peft import PeftModel

    return PeftModel.from_pretrained(base, str(run.adapter)).eval()


def _result(
    trainer: Any, metrics: dict[str, float], seconds: float, best: KeepBest | None, parameters: ParameterCount
) -> TrainResult:
    steps, batch = trainer.state.global_step, trainer.args.per_device_train_batch_size
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    lengths, counts = trainer.prepared.train.lengths, trainer.prepared.train.label_counts
    seen = min(1.0, batch / max(1, len(lengths))) * steps
    validation = metrics.get("eval_loss")
    memory = read_memory()
    return TrainResult(
        steps=steps,
        final_train_loss=losses[-1] if losses else None,
        validation_loss=validation,
        perplexity=math.exp(min(validation, 100.0)) if validation is not None else None,
        seconds=round(seconds, 1),
        tokens=int(seen * lengths.sum()),
        label_tokens=int(seen * counts.sum()),
        tokens_per_second=round(float(seen * lengths.sum() / seconds), 1) if seconds else 0.0,
        best_step=best.best_step if best is not None and best.best_step else None,
        parameters=parameters,
        peak_memory_mb=memory.gpu_peak or memory.peak_rss,
    )


def _restore_best(trainer: Any, checkpoint: Path) -> None:
    """Put the early-stopping state of a checkpoint into the live callback."""
    import json

    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    kept = state.get("stateful_callbacks", {}).get("KeepBest")
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, KeepBest) and isinstance(kept, dict):
            for name, value in kept["attributes"].items():
                setattr(callback, name, value)


def _require_finite(model: Any) -> None:
    import torch

    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(torch.isfinite(parameter).all()):
            raise DivergedError(
                f"the trained weights of {name} are not numbers",
                place="train.learning_rate",
                remedy="lower it, and look at the loss curve",
            )
