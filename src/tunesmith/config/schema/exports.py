"""`exports`: what is written when training is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.config.schema.section import Section


class AdapterExport(Section):
    """The LoRA adapter with tokenizer and card."""

    format: Literal["adapter"] = "adapter"


class MergedExport(Section):
    """Base and adapter as one model, in 16 bits."""

    format: Literal["merged"] = "merged"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the written weights."""
    max_shard_size: str = "5GB"
    """Largest file."""


Export = Annotated[AdapterExport | MergedExport, Field(discriminator="format")]
