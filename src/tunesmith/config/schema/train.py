"""`train` and `checkpoints`: how it is tuned, and what it can be resumed from."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tunesmith.config.schema.section import Section


class Sft(Section):
    """Supervised fine-tuning on the assistant's turns."""

    method: Literal["sft"] = "sft"
    num_train_epochs: float = Field(3.0, gt=0, allow_inf_nan=False)
    """Passes over the data; `max_steps` wins when set."""
    max_steps: int = Field(-1, ge=-1)
    """Optimizer steps; -1 counts epochs instead."""
    batch_size: int = Field(16, ge=1)
    """Examples per optimizer step, over all devices. This decides learning. What other tools call
    per_device_train_batch_size times gradient_accumulation_steps times devices."""
    max_tokens: int = Field(8192, ge=8)
    """Tokens per row, the unit computed at once. This decides memory, and never changes the loss."""
    share_prefixes: bool = True
    """Compute a prefix that several examples of a step share (a schema, a system prompt) once. Exact: the gradient is
    that of computing each example alone, but that `lora_dropout` draws one mask for a shared prefix."""
    per_prefix: int = Field(1, ge=1)
    """Examples of one prefix that are brought together in a step. 1 shuffles plainly: the update is what any other tool
    makes, and what happens to meet in a step is shared. More share more (4 of 40 schemas at batch 32: half the time)
    but make a step less diverse: with 8 prefixes per step the held-out loss after equal steps was between 0.7 % lower
    and 3 % higher in five runs, with 4 it was 2 to 3 % higher in two (docs/performance.md). So at least 8 must be left:
    `batch_size` / `per_prefix` >= 8."""
    learning_rate: float = Field(2e-4, gt=0, allow_inf_nan=False)
    """Peak learning rate."""
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate over the run."""
    warmup_ratio: float = Field(0.03, ge=0, le=1)
    """Share of the steps over which the learning rate rises from 0; `warmup_steps` wins when set."""
    warmup_steps: int = Field(0, ge=0)
    """The same in steps."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm."""
    optim: str = "adamw_torch"
    """An optimizer name of transformers: `adamw_torch`, `paged_adamw_32bit`, `adamw_8bit`, ..."""
    adam_beta2: float = Field(0.999, gt=0, lt=1)
    """Second-moment decay of Adam."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Mixed precision; `auto` is bf16 where the GPU has it, else fp32. On a CPU, bf16 computes the gradients' products
    with weights in bfloat16 and the loss in float32; it is worth asking for where there are instructions for it
    (AVX512-BF16, AMX)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    dataloader_num_workers: int = Field(0, ge=0)
    """Processes that collate rows ahead of the step."""
    dataloader_pin_memory: bool = True
    """Copy rows to page-locked memory; only on a GPU."""
    dataloader_prefetch_factor: int | None = Field(None, ge=1)
    """Batches each worker prepares ahead."""
    logging_steps: int = Field(10, ge=1)
    """Optimizer steps between log lines."""
    eval_steps: int = Field(0, ge=0)
    """Optimizer steps between validations; 0 validates once, at the end."""
    early_stopping_patience: int | None = Field(None, ge=1)
    """Stop after this many validations without a better validation loss, and keep the best."""
    loss: str | None = Field(None, pattern=r"^[\w.]+:\w+$")
    """`module:function(logits, labels) -> sum over the label tokens`, instead of cross entropy."""
    on_divergence: Literal["set_aside", "stop"] = "set_aside"
    """What to do when a loss or a gradient is not a number: set aside, by name, the examples that make it so and take
    the step without them, or stop. A step whose loss is a spike makes no update, or stops the run. It always stops
    (exit code 7) when it goes on: more than 3 spikes in a row, or more than 2 % of the examples set aside."""
    spike_sigma: float | None = Field(6.0, gt=1, allow_inf_nan=False)
    """A loss is a spike when it is so many standard deviations above the mean of the last 128 steps, of which there
    must be 32; null looks for none."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further `transformers.TrainingArguments`, by name; an unknown one is refused."""

    @model_validator(mode="after")
    def _steps_stay_diverse(self) -> Self:
        if self.per_prefix > 1 and self.batch_size // self.per_prefix < 8:
            raise ValueError(
                f"a step of {self.batch_size} examples, {self.per_prefix} of each prefix, has fewer than 8 distinct "
                "ones, and learns less per step; raise train.batch_size or lower train.per_prefix"
            )
        return self

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> Self:
        if self.early_stopping_patience is not None and self.eval_steps == 0:
            raise ValueError(
                "early_stopping_patience counts validations, and eval_steps: 0 makes only one, at the end; "
                "set train.eval_steps"
            )
        return self


class Checkpoints(Section):
    """Points a run can be resumed from."""

    save_steps: int = Field(0, ge=0)
    """Optimizer steps between checkpoints; 0 leaves it to `save_minutes`. One is always saved at the end."""
    save_minutes: float | None = Field(10.0, gt=0, allow_inf_nan=False)
    """A checkpoint at least this often, so that no more than this is ever lost; null counts steps only. It changes no
    result."""
    keep_last: int = Field(3, ge=2)
    """Complete checkpoints kept; at least 2, because while the newest is written the one before is the way back."""
    mirror: str | None = None
    """Where the run is copied as it goes: `gs://bucket/folder`, `s3://bucket/folder` or a folder on another disk. The
    same command on an empty machine continues from there. Credentials are those of the clouds' own tools."""
    mirror_wait: float = Field(900.0, ge=0, allow_inf_nan=False)
    """Seconds that a run waits at its end for the mirror to have everything, before it says what is not safe and exits
    with code 4."""

    @field_validator("mirror")
    @classmethod
    def _mirror_is_an_address(cls, value: str | None) -> str | None:
        kind = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", value) if value else None
        if kind and kind.group(1) not in ("gs", "s3", "file"):
            raise ValueError(
                f"there is no mirror for addresses that begin with {kind.group()}; "
                "use gs://bucket/folder, s3://bucket/folder or a folder"
            )
        if kind and kind.group(1) != "file" and not re.match(r"..://[a-z0-9]", str(value)):
            raise ValueError("the address names no bucket; write gs://bucket/folder or s3://bucket/folder")
        return value
