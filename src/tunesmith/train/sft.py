"""Supervised fine-tuning: an optimizer step is a set of examples, packed as a forest and computed row by row."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PrinterCallback, TrainingArguments

from tunesmith.config.identity import deciding
from tunesmith.config.schema import RunConfig
from tunesmith.data.prepare import Prepared
from tunesmith.errors import ConfigError, DataError
from tunesmith.model.attention import require_isolation, row_inputs, rows_in
from tunesmith.model.decoder import plain_decoder
from tunesmith.model.identity import base_identity
from tunesmith.model.load import recompute_activations
from tunesmith.model.lora import set_lora_rates
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train.arguments import training_arguments
from tunesmith.train.callbacks import KeepBest
from tunesmith.train.guarded import GuardedTrainer, is_out_of_memory
from tunesmith.train.loader import StepLoader
from tunesmith.train.profiling import Profile
from tunesmith.train.progress import LiveView, Progress
from tunesmith.train.steps import Step, Steps, only, plan_step
from tunesmith.types import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits of the labelled positions, shape (n, vocabulary); their labels, shape (n,)) -> sum over them."""


class Seen(NamedTuple):
    """What a number of steps showed the model."""

    tokens: int
    """Tokens of the examples, a shared prefix counted for each."""
    labels: int


def build_sft_trainer(
    config: RunConfig, model: Any, tokenizer: Any, prepared: Prepared, run: RunDir, tracker: Tracker
) -> ForestTrainer:
    """The trainer of `train.method: sft`, ready for `fit`.

    Args:
        config: the run.
        model: the base with its adapters, or the base alone where `lora` is null.
        tokenizer: for its padding token.
        prepared: rows to train and validate on.
        run: where checkpoints go.
        tracker: told of every log, validation and checkpoint.

    Raises:
        ConfigError: `train.extra` names an argument that does not exist, or `train.loss` cannot be imported.
        DataError: nothing to train on, or no validation rows for early stopping.
        ModelError: the model cannot compute several examples in one row.
    """
    if not len(prepared.train):
        raise DataError(
            "no row is left to train on", place="data.train", remedy="see the ledger for why rows were dropped"
        )
    patience = config.train.early_stopping_patience
    if patience is not None and not len(prepared.validation):
        raise DataError(
            "early stopping looks at the validation loss, and no row is set aside for it",
            place="data.validation",
            remedy="set data.validation or data.validation_share, or train.early_stopping_patience: null",
        )
    arguments = training_arguments(config, run, len(prepared.train))
    if config.lora is None:
        model.requires_grad_(True)
    require_isolation(model)
    if config.train.gradient_checkpointing:
        recompute_activations(model)
    progress = Progress(
        tracker, config.train.eval_steps if len(prepared.validation) else 0, config.checkpoints.save_steps
    )
    callbacks: list[Any] = [progress, LiveView(progress)]
    if patience is not None:
        callbacks.append(KeepBest(run, patience))
    if config.tracking.profile_steps:
        callbacks.append(Profile(run, tracker, config.tracking.profile_steps))
    trainer = ForestTrainer(config, model, tokenizer, prepared, run, arguments, callbacks)
    trainer.tell = tracker.event
    return trainer


class ForestTrainer(GuardedTrainer):
    """A trainer whose loader hands out whole optimizer steps, each a set of examples.

    A step is planted as a forest, computed row by row, and its loss is the sum over its label tokens divided by their
    number, so how it falls into rows (`train.max_tokens`) changes memory and never the update. With several processes
    (`torchrun`) each computes its share of a step's rows.
    """

    def __init__(
        self,
        config: RunConfig,
        model: Any,
        tokenizer: Any,
        prepared: Prepared,
        run: RunDir,
        arguments: TrainingArguments,
        callbacks: list[Any],
    ) -> None:
        self.tokenizer = tokenizer
        self.prepared = prepared
        self.loss = _load_loss(config.train.loss)
        self.computed = 0
        """Tokens that the model has computed in this call of `fit`, each shared prefix counted once."""
        self.waited = 0.0
        """Seconds that steps have waited for their rows."""
        self._keeps_logits = "logits_to_keep" in inspect.signature(_without_adapter(model).forward).parameters
        self.planting = {
            "max_tokens": config.train.max_tokens,
            "share": config.train.share_prefixes,
            "pad_id": tokenizer.pad_token_id,
        }
        self.steps = Steps(
            prepared.train,
            config.train.batch_size,
            arguments.max_steps,
            config.seed,
            per_prefix=config.train.per_prefix,
            rank=arguments.process_index,
            world=arguments.world_size,
            **self.planting,
        )
        super().__init__(
            config,
            run,
            _identity(config, prepared, model, tokenizer),
            model=model,
            args=arguments,
            data_collator=only,
            train_dataset=self.steps,
            eval_dataset=prepared.validation,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        # The exchange of gradients hangs on the model's own call, as does autocast, whose place `products` takes.
        alone = arguments.world_size == 1 and arguments.device.type == "cpu"
        self._decoder = plain_decoder(model, torch.bfloat16 if arguments.bf16 else None) if alone else None
        # What `transformers` says about models that scale a loss themselves does not concern a step that sums its own.
        self.model_accepts_loss_kwargs = False

    def create_optimizer(self, model: Any = None) -> Any:
        """The trainer's own, with the rates of LoRA+ where the settings ask for them."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if fresh and self.settings.lora is not None:
            set_lora_rates(optimizer, self.model, self.settings.lora.loraplus_lr_ratio)
        return optimizer

    # --- one optimizer step ---------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """The next step's rows; how long they took is what the run waited for data."""
        start = time.perf_counter()
        try:
            return super().get_batch_samples(*args, **kwargs)
        finally:
            self.waited += time.perf_counter() - start

    def row_losses(self, model: Any, step: Step) -> Tensor:
        """Forward and backward over the rows of a step; the sum of the loss of each, shape (rows,)."""
        model.train()
        # Processes average their gradients, and each has a part of the sum: so each counts for all of them.
        labels = max(1, step.labels) / self.args.world_size
        sums = []
        with rows_in(self.model):
            for at, row in enumerate(step.rows):
                with nullcontext() if at == len(step.rows) - 1 else self.accelerator.no_sync(model):
                    loss = self.row_loss(model, row)
                    self.accelerator.backward(loss / labels)
                sums.append(loss.detach())
        self.computed += step.computed
        return torch.stack(sums)

    def row_loss(self, model: Any, row: dict[str, Tensor]) -> Tensor:
        """Sum of the loss over one row's label tokens; logits are computed at those positions alone.

        Args:
            model: as it is to be called, wrapped or not.
            row: tensors of shape (1, L), as `collate_rows` makes them.
        """
        row = {name: tensor.to(self.args.device, non_blocking=True) for name, tensor in row.items()}
        at = (row["labels"][0] != IGNORE).nonzero()[:, 0]
        if self._decoder is not None and self._decoder.takes(row["position_ids"]):
            place = (row["input_ids"], row["subtree_end"], row["position_ids"], at)
            if self.loss is cross_entropy:
                return self._decoder.loss(*place, row["labels"][0][at])
            return self.loss(self._decoder.logits(*place), row["labels"][0][at])
        extra = {"logits_to_keep": at} if self._keeps_logits else {}
        logits = model(
            input_ids=row["input_ids"],
            use_cache=False,
            **row_inputs(self.model, row["subtree_end"], row["position_ids"]),
            **extra,
        ).logits[0]
        return self.loss(logits if self._keeps_logits else logits[at], row["labels"][0][at])

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        """The step counts its labels itself."""
        return None

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted."""
        return 0

    # --- order of the data ----------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> StepLoader:
        """Steps in order. Not dealt out to processes by the loader: a step knows each one's share."""
        return StepLoader(
            self.steps,
            start=lambda: int(self.state.global_step),
            workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch=self.args.dataloader_prefetch_factor,
        )

    def seen(self, start: int, stop: int) -> Seen:
        """What steps `start` to `stop` (not included) showed the model."""
        lengths, counts = self.prepared.train.lengths, self.prepared.train.label_counts
        batch, whole, tokens, labels = self.settings.train.batch_size, self.steps.per_epoch, 0, 0
        for epoch in range(start // whole, math.ceil(stop / whole)):
            first, last = (min(max(step - epoch * whole, 0), whole) for step in (start, stop))
            shown = self.steps.order(epoch)[first * batch : last * batch]
            tokens, labels = tokens + int(lengths[shown].sum()), labels + int(counts[shown].sum())
        return Seen(tokens, labels)

    # --- validation -----------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss per label token over the validation set, perplexity and seconds; empty without a validation set."""
        if not len(self.prepared.validation):
            return {}
        start = time.perf_counter()
        loss = self.validation_loss()
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": math.exp(min(loss, 100.0)),
            f"{metric_key_prefix}_seconds": time.perf_counter() - start,
        }
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def validation_loss(self) -> float:
        """Cross entropy (or `train.loss`) per label token of the validation set, in nats."""
        dataset, size = self.prepared.validation, self.settings.train.batch_size
        self.model.eval()
        total, labels = 0.0, 0
        with torch.no_grad(), rows_in(self.model):
            for start in range(0, len(dataset), size):
                step = plan_step(dataset[start : start + size], **self.planting)
                try:
                    total += sum(float(self.row_loss(self.model, row)) for row in step.rows)
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error) or len(step.rows) == len(dataset[start : start + size]):
                        raise
                    each = [plan_step([one], **self.planting) for one in dataset[start : start + size]]
                    total += sum(float(self.row_loss(self.model, row)) for one in each for row in one.rows)
                labels += step.labels
        loss = total / max(1, labels)
        if not math.isfinite(loss):
            raise self._diverged(f"the validation loss is {loss}, not a number", [])
        return loss

    # --- after training -------------------------------------------------------------------------------------------

    def release(self) -> Any:
        """Free the optimizer and hand the model back as it came: no autocast around it, in evaluation mode."""
        model = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        self.optimizer = self.lr_scheduler = None
        self.accelerator.free_memory()
        self.model = self.model_wrapped = model.eval()
        return model


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over label tokens, in float32 at least."""
    exact = logits if logits.dtype == torch.float64 else logits.float()
    return torch.nn.functional.cross_entropy(exact, labels, reduction="sum")


def _load_loss(target: str | None) -> Loss:
    if target is None:
        return cross_entropy
    module, _, name = target.partition(":")
    try:
        found: Loss = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"the loss cannot be imported: {error}",
            place="train.loss",
            remedy="write module:function; put the file beside the recipe, set code_dir, or install its package",
        ) from error
    return found


def _without_adapter(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _identity(config: RunConfig, prepared: Prepared, model: Any, tokenizer: Any) -> dict[str, Any]:
    """What decides the next step; a checkpoint of another identity is refused, by what differs."""
    settings = {
        name: value
        for name, value in deciding(config).items()
        if name.split(".")[0] in ("seed", "model", "lora", "train")
    }
    for name in ("model.name", "model.chat_template"):  # a folder's or file's content counts, not where it lies
        if str(settings[name]).startswith("/"):
            settings[name] = str(settings[name]).rpartition("/")[2]
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()[:16]
    return {"data": prepared.key, "base": base_identity(config.model, model), "template": template, **settings}
