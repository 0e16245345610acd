"""Supervised fine-tuning: an optimizer step is a set of examples, packed as a forest and computed row by row."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainingArguments

from tunesmith.checkpoints.commit import PREFIX, STAGING, commit
from tunesmith.checkpoints.resume import prune
from tunesmith.config.schema import RunConfig
from tunesmith.data.collate import collate_rows
from tunesmith.data.forest import plant_forest
from tunesmith.data.prepare import Prepared
from tunesmith.errors import ConfigError, DataError, DivergedError, ModelError
from tunesmith.model.attention import model_mask
from tunesmith.model.load import compute_dtype, prepare_for_training
from tunesmith.rundir import RunDir
from tunesmith.tracking import Tracker
from tunesmith.train.callbacks import KeepBest, Progress, StopOnSignal
from tunesmith.types import IGNORE, Tokens

Loss = Callable[[Tensor, Tensor], Tensor]
"""(logits of the labelled positions, shape (n, vocabulary); their labels, shape (n,)) -> sum over them."""


def build_sft_trainer(
    config: RunConfig, model: Any, tokenizer: Any, prepared: Prepared, run: RunDir, tracker: Tracker
) -> ForestTrainer:
    """The trainer of `train.method: sft`, ready for `fit`.

    Raises:
        ConfigError: `train.extra` names an argument that does not exist, or `train.loss` cannot be imported.
        DataError: nothing to train on.
    """
    if not len(prepared.train):
        raise DataError(
            "no row is left to train on", place="data.train", remedy="see the ledger for why rows were dropped"
        )
    model = prepare_for_training(model, config.train.gradient_checkpointing, config.model.quantization is not None)
    model.config.use_cache = False
    callbacks = [Progress(tracker, prepared), StopOnSignal()]
    if config.train.early_stopping_patience is not None:
        callbacks.append(KeepBest(run, config.train.early_stopping_patience))
    return ForestTrainer(config, model, tokenizer, prepared, run, training_arguments(config, run), callbacks)


def training_arguments(config: RunConfig, run: RunDir) -> TrainingArguments:
    """`train`, `checkpoints` and `tracking` in the words of transformers; names are the same where they exist there."""
    train, saves = config.train, config.checkpoints.save_steps
    known = {field.name for field in fields(TrainingArguments)}
    if unknown := sorted(set(train.extra) - known):
        raise ConfigError(
            f"transformers.TrainingArguments has no {unknown[0]!r}",
            place=f"train.extra.{unknown[0]}",
            remedy="see its documentation for the name, or take it out",
        )
    compute = compute_dtype(train.precision)
    return TrainingArguments(
        **{
            "output_dir": str(run.checkpoints),
            "num_train_epochs": train.num_train_epochs,
            "max_steps": train.max_steps,
            "per_device_train_batch_size": train.batch_size,
            "gradient_accumulation_steps": 1,
            "learning_rate": train.learning_rate,
            "lr_scheduler_type": train.lr_scheduler_type,
            "warmup_steps": train.warmup_steps or train.warmup_ratio,
            "weight_decay": train.weight_decay,
            "max_grad_norm": train.max_grad_norm,
            "optim": train.optim,
            "adam_beta2": train.adam_beta2,
            "bf16": compute is torch.bfloat16,
            "fp16": compute is torch.float16,
            "use_cpu": not torch.cuda.is_available(),
            "dataloader_num_workers": train.dataloader_num_workers,
            "dataloader_pin_memory": train.dataloader_pin_memory and torch.cuda.is_available(),
            "dataloader_prefetch_factor": train.dataloader_prefetch_factor if train.dataloader_num_workers else None,
            "remove_unused_columns": False,
            "logging_strategy": "steps",
            "logging_steps": train.logging_steps,
            "logging_nan_inf_filter": False,
            "eval_strategy": "steps" if train.eval_steps else "no",
            "eval_steps": train.eval_steps or None,
            "save_strategy": "steps" if saves else "no",
            "save_steps": saves or 500,
            "save_total_limit": None,
            "restore_callback_states_from_checkpoint": True,
            "seed": config.seed,
            "data_seed": config.seed,
            "report_to": [name for name in config.tracking.report_to if name != "tensorboard"],
            "run_name": config.name,
            "disable_tqdm": True,
            **train.extra,
        }
    )


class ForestTrainer(Trainer):
    """`transformers.Trainer` whose batch is a set of examples.

    A loader batch is one optimizer step. It is planted as a forest, computed row by row, and its loss is the sum over
    its label tokens divided by their number, so how it falls into rows (`train.max_tokens`) changes memory and never
    the update.
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
        self.settings = config
        self.run_files = run
        self.prepared = prepared
        self.identity = _identity(config, prepared)
        self.loss = _load_loss(config.train.loss)
        self._keeps_logits = "logits_to_keep" in inspect.signature(_forward_of(model)).parameters
        super().__init__(
            model=model,
            args=arguments,
            data_collator=partial(
                rows_of,
                max_tokens=config.train.max_tokens,
                share=config.train.share_prefixes,
                pad_id=tokenizer.pad_token_id,
            ),
            train_dataset=prepared.train,
            eval_dataset=prepared.validation,
            callbacks=callbacks,
        )
        self.model_accepts_loss_kwargs = False
        self.remove_callback(_printer())

    # --- one optimizer step ---------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward over all rows of a step; returns its loss per label token."""
        model.train()
        labels = sum(int((row["labels"] != IGNORE).sum()) for row in inputs["rows"])
        total = torch.zeros((), device=self.args.device)
        for row in inputs["rows"]:
            with self.compute_loss_context_manager():
                loss = self.row_loss(model, row) / labels
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the loss is {loss.item()} at step {self.state.global_step + 1}",
                    place="examples " + ", ".join(inputs["examples"][:8]),
                    remedy="lower train.learning_rate, or look at these examples with `tunesmith data show`",
                )
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def row_loss(self, model: Any, row: dict[str, Tensor]) -> Tensor:
        """Sum of the loss over one row's label tokens; logits are computed at those positions alone."""
        row = self._prepare_inputs(row)
        at = (row["labels"][0] != IGNORE).nonzero()[:, 0]
        extra = {"logits_to_keep": at} if self._keeps_logits else {}
        logits = model(
            input_ids=row["input_ids"],
            attention_mask=model_mask(self.accelerator.unwrap_model(model), row["subtree_end"], row["position_ids"]),
            position_ids=row["position_ids"],
            use_cache=False,
            **extra,
        ).logits[0]
        return self.loss(logits if self._keeps_logits else logits[at], row["labels"][0][at])

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: Any) -> None:
        """The step counts its labels itself."""
        return None

    # --- order of the data ----------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return EpochOrder(len(self.prepared.train), self.settings.seed)

    # --- validation -----------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Loss per label token over the validation set, and perplexity; NaN where there is no validation set."""
        dataset = self.prepared.validation if eval_dataset is None else eval_dataset
        self.model.eval()
        total, labels = 0.0, 0
        with torch.no_grad():
            for start in range(0, len(dataset), self.args.per_device_train_batch_size):
                batch = self.data_collator(dataset[start : start + self.args.per_device_train_batch_size])
                for row in batch["rows"]:
                    with self.compute_loss_context_manager():
                        total += float(self.row_loss(self.model, row))
                    labels += int((row["labels"] != IGNORE).sum())
        self.model.train()
        loss = total / labels if labels else float("nan")
        metrics = {
            f"{metric_key_prefix}_loss": loss,
            f"{metric_key_prefix}_perplexity": float(np.exp(min(loss, 100.0))),
        }
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.run_files.checkpoints / f"{STAGING}{self.state.global_step}")

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        final = self.run_files.checkpoints / f"{PREFIX}{self.state.global_step}"
        if final.exists():
            return
        self.run_files.checkpoints.mkdir(parents=True, exist_ok=True)
        super()._save_checkpoint(model, trial)
        staging = self.run_files.checkpoints / f"{STAGING}{self.state.global_step}"
        written = staging / final.name
        (written / "training_args.bin").unlink(missing_ok=True)  # a pickle that holds the Hub token in clear
        commit(written, final, self.state.global_step, self.identity)
        staging.rmdir()
        prune(self.run_files.checkpoints, self.settings.checkpoints.keep_last)


class EpochOrder(Sampler[int]):
    """The order of examples: a function of seed and epoch alone, so that a resume needs no state but two numbers."""

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed, self.epoch = size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = np.random.Generator(np.random.Philox(key=[self.seed, self.epoch]))
        return iter(generator.permutation(self.size).tolist())


def rows_of(examples: Sequence[Tokens], *, max_tokens: int, share: bool, pad_id: int) -> dict[str, Any]:
    """A step's examples as tensors, one row at a time; runs in loader workers."""
    rows = plant_forest(examples, max_tokens, share=share)
    return {
        "rows": [collate_rows([row], pad_id) for row in rows],
        "examples": [example.id for example in examples],
        "tokens": sum(len(row.input_ids) for row in rows),
        "unshared_tokens": sum(len(example.input_ids) for example in examples),
    }


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum over label tokens, in float32."""
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum")


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
            remedy="write module:function, importable from here",
        ) from error
    return found


def _forward_of(model: Any) -> Any:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(inner, "forward"):
        raise ModelError("the model has no forward pass", place="model.name", remedy="use a causal language model")
    return inner.forward


def _identity(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """What decides the next step; a checkpoint of another identity is refused."""
    train = config.train.model_dump(mode="json", exclude={"max_tokens", "logging_steps", "dataloader_num_workers",
                                                          "dataloader_pin_memory", "dataloader_prefetch_factor"})  # fmt: skip
    return {
        "data": prepared.key,
        "seed": config.seed,
        "model": config.model.model_dump(mode="json"),
        "lora": config.lora.model_dump(mode="json") if config.lora else None,
        **{f"train.{key}": value for key, value in train.items()},
    }


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback
