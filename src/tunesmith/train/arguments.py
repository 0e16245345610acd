"""Our settings in the words of `transformers.TrainingArguments`; names are the same where they exist there."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

import torch
from transformers import TrainingArguments

from tunesmith.config.schema import RunConfig, Sft
from tunesmith.errors import ConfigError
from tunesmith.model.load import compute_dtype
from tunesmith.rundir import RunDir
from tunesmith.train.steps import total_steps

_NEVER = 2**31
"""Save steps of a run that saves at its end only."""
_BATCH = {
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "auto_find_batch_size",
    "train_batch_size",
}


def training_arguments(config: RunConfig, run: RunDir, examples: int) -> TrainingArguments:
    """`train`, `checkpoints` and `tracking` for the trainer, whose loader hands out whole steps.

    Args:
        config: the run.
        run: where checkpoints go.
        examples: size of the training set, which with epochs decides the number of steps.

    Raises:
        ConfigError: `train.extra` names an argument that does not exist or is a setting of ours; a value is refused.
    """
    train, saves = config.train, config.checkpoints.save_steps
    compute = compute_dtype(train.precision)
    gpu = torch.cuda.is_available()
    if compute is torch.float16 and not gpu:
        raise ConfigError(
            "fp16 needs its loss scaled against underflow, which is done on a GPU only",
            place="train.precision",
            remedy="use auto, bf16 or fp32 on a CPU",
        )
    ours: dict[str, Any] = {
        "output_dir": str(run.checkpoints),
        "max_steps": total_steps(examples, train.batch_size, train.num_train_epochs, train.max_steps),
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": train.lr_scheduler_type,
        "warmup_steps": train.warmup_steps or min(train.warmup_ratio, 1 - 1e-9),  # below 1 it is a share of the steps
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "optim": train.optim,
        "adam_beta2": train.adam_beta2,
        "bf16": compute is torch.bfloat16,
        "fp16": compute is torch.float16,
        "use_cpu": not gpu,
        "dataloader_num_workers": train.dataloader_num_workers,
        "dataloader_pin_memory": train.dataloader_pin_memory and gpu,
        "dataloader_prefetch_factor": train.dataloader_prefetch_factor if train.dataloader_num_workers else None,
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,
        "label_names": ["labels"],
        "logging_strategy": "steps",
        "logging_steps": train.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "eval_strategy": "steps" if train.eval_steps else "no",
        "eval_steps": train.eval_steps or None,
        "save_strategy": "steps",
        "save_steps": saves or _NEVER,
        "save_total_limit": None,
        "ignore_data_skip": True,  # our loader begins where the run is
        "seed": config.seed,
        "data_seed": config.seed,
        "report_to": [name for name in config.tracking.report_to if name != "tensorboard"],
        "run_name": config.name,
        **({"project": config.tracking.project} if config.tracking.project else {}),
        "disable_tqdm": True,
    }
    if config.tracking.project:  # transformers' callbacks of these two look nowhere else
        os.environ |= {"WANDB_PROJECT": config.tracking.project, "COMET_PROJECT_NAME": config.tracking.project}
    _check_extra(train.extra, ours)
    try:
        arguments = TrainingArguments(**ours, **train.extra)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"transformers refuses these settings: {str(error).strip().splitlines()[0]}",
            place="train",
            remedy="see the documentation of transformers.TrainingArguments for the value it names",
        ) from error
    if arguments.n_gpu > 1:  # one process drives one GPU; more are used with `torchrun`, a process each
        arguments._n_gpu = 1
    return arguments


def _check_extra(extra: dict[str, Any], ours: dict[str, Any]) -> None:
    known = {field.name for field in fields(TrainingArguments)}
    for name in sorted(extra):
        place = f"train.extra.{name}"
        if name in _BATCH:
            raise ConfigError(
                f"{name} would split a step, which train.max_tokens does without changing the loss",
                place=place,
                remedy="set train.batch_size (examples per step) and train.max_tokens (memory) instead",
            )
        if name in Sft.model_fields:
            raise ConfigError(f"{name} is a setting of its own", place=place, remedy=f"write it as train.{name}")
        if name in ours:
            raise ConfigError(f"{name} follows from other settings", place=place, remedy="take it out")
        if name not in known:
            raise ConfigError(
                f"transformers.TrainingArguments has no {name!r}",
                place=place,
                remedy="see its documentation for the name, or take it out",
            )
