"""`model` and `lora`: what is tuned, and with what."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tunesmith.config.schema.section import Section


class Quantization(Section):
    """Load the base model in fewer bits; adapters stay in full precision."""

    bits: Literal[4, 8] = 4
    """4 (NF4 or FP4) or 8 (LLM.int8)."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Data type of the 4-bit weights."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the quantisation constants too: about 0.4 bits per weight less."""
    bnb_4bit_compute_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type that matrix products are computed in; `auto` follows `train.precision`."""


class Model(Section):
    """The base model and its tokenizer."""

    name: str
    """A Hub name, a folder, or `demo` for the small base model that ships with tunesmith."""
    revision: str | None = None
    """Commit or tag on the Hub; pin it, so that tomorrow's run is today's."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the unquantised weights; `auto` takes what the checkpoint says, and float32 on a CPU without bf16."""
    quantization: Quantization | None = None
    """Leave out for full-precision weights."""
    attn_implementation: str | None = None
    """Attention of transformers outside training rows: `sdpa`, `eager`, `flash_attention_2`; null is its default."""
    device_map: str | None = None
    """Passed to `from_pretrained`; None puts the model on the first GPU, or on the CPU."""
    chat_template: Path | None = None
    """A Jinja file to use instead of the tokenizer's own chat template."""
    end_token: str | None = None
    """The token that ends an answer, where the tokenizer's `eos_token` is not what the template writes."""


class Lora(Section):
    """Low-rank adapters (Hu et al., 2021, arXiv 2106.09685)."""

    r: int = Field(16, ge=1)
    """Rank. More learns more and costs more; 8 to 64 is usual."""
    lora_alpha: float = Field(32, gt=0)
    """Scale: the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input. Must be 0 where examples share a prefix in a row (`train.share_prefixes`)."""
    target_modules: list[str] | Literal["all-linear"] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )
    """Layers that get an adapter, by the end of their name, or `all-linear`."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Layers trained in full beside the adapters, such as `embed_tokens` for new words."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained."""
    loraplus_lr_ratio: float = Field(1.0, ge=1)
    """Learning rate of each adapter's second matrix, which begins at zero, over that of its first (LoRA+, Hayou et al.,
    2024, arXiv 2402.12354). 4 to 16 learns more in few steps."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead: steadier at high ranks (Kalajdzievski, 2023, arXiv 2312.03732)."""
