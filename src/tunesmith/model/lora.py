"""Low-rank adapters on a base model (Hu et al., 2021, arXiv 2106.09685), through PEFT."""

from __future__ import annotations

from typing import Any

from tunesmith.config.schema import Lora
from tunesmith.errors import ModelError


def add_lora(model: Any, config: Lora, seed: int = 0) -> Any:
    """The model with fresh adapters; only they (and `modules_to_save`) are trained.

    Args:
        model: the base, quantised or not.
        config: rank, scale, layers.
        seed: of the adapters' initial values.

    Raises:
        ModelError: no layer of that name.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    _require_layers(model, config)
    torch.manual_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=config.r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=config.target_modules,
            modules_to_save=config.modules_to_save or None,
            bias=config.bias,
            use_rslora=config.use_rslora,
        ),
    )


def _require_layers(model: Any, config: Lora) -> None:
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if hasattr(module, "in_features")}
    named = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
    wanted = [] if config.target_modules == "all-linear" else config.target_modules
    for key, names, known in (("target_modules", wanted, linear), ("modules_to_save", config.modules_to_save, named)):
        missing = [name for name in names if name.rsplit(".", 1)[-1] not in known]
        if missing:
            raise ModelError(
                f"the model has no layer named {', '.join(missing)}",
                place=f"lora.{key}",
                remedy=f"use some of: {', '.join(sorted(linear))}"
                + (", or all-linear" if key == "target_modules" else ""),
            )
