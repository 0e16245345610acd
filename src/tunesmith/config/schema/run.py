"""A whole run: every section, and what must hold between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tunesmith.config.schema.data import Data
from tunesmith.config.schema.evaluate import Evaluate, Generate, Tracking
from tunesmith.config.schema.exports import AdapterExport, Export
from tunesmith.config.schema.limits import Limits
from tunesmith.config.schema.model import Lora, Model
from tunesmith.config.schema.section import Section
from tunesmith.config.schema.task import CustomTask, Task
from tunesmith.config.schema.train import Checkpoints, Sft


class RunConfig(Section):
    """One run."""

    schema_version: Literal[1] = 1
    """Version of this schema the recipe was written for."""
    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    """Name of the run: its folder under `output_dir`, and its name at trackers."""
    output_dir: Path = Path("runs")
    """Folder that holds runs. Relative paths belong to the recipe's folder, this one to the working directory."""
    code_dir: Path = Path(".")
    """Folder in which `my_module:MyTask` and other code of yours is found; the recipe's, where it is left out."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random: data order, adapter initialisation, sampling, splits of built data."""
    task: Task
    data: Data = Data()
    model: Model
    lora: Lora | None = Lora()
    """null trains all weights."""
    train: Sft = Sft()
    generate: Generate = Generate()
    evaluate: Evaluate = Evaluate()
    checkpoints: Checkpoints = Checkpoints()
    limits: Limits = Limits()
    tracking: Tracking = Tracking()
    exports: list[Export] = [AdapterExport()]
    """What to write when training is done; the adapter, or without one the model."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters_the_model_is_exported(cls, value: Any) -> Any:
        if isinstance(value, dict) and "exports" not in value and value.get("lora", ...) is None:
            return {**value, "exports": [{"format": "merged"}]}
        return value

    @property
    def run_folder(self) -> Path:
        """Where the run of this name lies."""
        return self.output_dir / self.name

    @property
    def cache_folder(self) -> Path:
        """Where prepared rows are kept."""
        return self.data.cache_dir or self.output_dir / ".cache"

    @property
    def builds(self) -> bool:
        """Whether the task makes its own data, test sets included."""
        return not isinstance(self.task, CustomTask) and self.task.build is not None

    @model_validator(mode="after")
    def _data_comes_from_somewhere(self) -> Self:
        if self.data.train is None and not self.builds:
            raise ValueError(
                "there is nothing to train on: set data.train, or task.build for a task that builds its data"
            )
        return self

    @model_validator(mode="after")
    def _dropout_is_not_shared(self) -> Self:
        if self.lora and self.lora.lora_dropout > 0 and self.train.share_prefixes:
            raise ValueError(
                "lora.lora_dropout above 0 would drop the same activations of a shared prefix for all its examples; "
                "set lora.lora_dropout: 0 or train.share_prefixes: false"
            )
        return self

    @model_validator(mode="after")
    def _there_is_an_adapter_to_export(self) -> Self:
        if self.lora is None and any(isinstance(export, AdapterExport) for export in self.exports):
            raise ValueError("there is no adapter to export under lora: null; use exports: [{format: merged}]")
        return self

    @model_validator(mode="after")
    def _quantised_weights_are_frozen(self) -> Self:
        if self.model.quantization and self.lora is None:
            raise ValueError("quantised weights cannot be trained: keep `lora`, or drop model.quantization")
        return self

    @model_validator(mode="after")
    def _selection_looks_at_evaluations(self) -> Self:
        if self.evaluate.select is None:
            return self
        if self.train.eval_steps == 0:
            raise ValueError("evaluate.select grades answers at every validation; set train.eval_steps")
        if self.train.early_stopping_patience is not None:
            raise ValueError(
                "evaluate.select and train.early_stopping_patience both choose the checkpoint; leave one of them out"
            )
        return self
