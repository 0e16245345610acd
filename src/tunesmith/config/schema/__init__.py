"""Every setting, typed and explained where it is declared; the text under a field is its help text.

Names that reach `transformers.TrainingArguments` keep their name there. Alternatives are unions told apart by a word
(`task.name`, `train.method`, `exports[].format`), so that a setting of one cannot be written under another.
One file a section; `run.py` puts them together.
"""

from __future__ import annotations

from tunesmith.config.schema.data import Data, Leaks, Source, SourceField
from tunesmith.config.schema.evaluate import Evaluate, Generate, Select, Tracking
from tunesmith.config.schema.exports import AdapterExport, Export, MergedExport
from tunesmith.config.schema.model import Lora, Model, Quantization
from tunesmith.config.schema.run import RunConfig
from tunesmith.config.schema.section import Section
from tunesmith.config.schema.task import (
    ChatBuild,
    ChatJudge,
    ChatTask,
    CustomTask,
    MathsBuild,
    MathsTask,
    SqlBuild,
    SqlTask,
    Task,
)
from tunesmith.config.schema.train import Checkpoints, Sft

SCHEMA_VERSION = 1

__all__ = [
    "AdapterExport",
    "ChatBuild",
    "ChatJudge",
    "ChatTask",
    "Checkpoints",
    "CustomTask",
    "Data",
    "Evaluate",
    "Export",
    "Generate",
    "Leaks",
    "Lora",
    "MathsBuild",
    "MathsTask",
    "MergedExport",
    "Model",
    "Quantization",
    "RunConfig",
    "SCHEMA_VERSION",
    "Section",
    "Select",
    "Sft",
    "Source",
    "SourceField",
    "SqlBuild",
    "SqlTask",
    "Task",
    "Tracking",
]
