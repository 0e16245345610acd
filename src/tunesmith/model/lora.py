"""Low-rank adapters on a base model (Hu et al., 2021, arXiv 2106.09685), through PEFT."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tunesmith.config.schema import Lora
from tunesmith.errors import ModelError

MERGE_FROM = 1 / 16
"""Adapters are merged while they are used where they have more than this share of their layer's weights. Below it the
copy is not worth its memory."""


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
    tied = bool(config.modules_to_save) and bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        exclude_modules=_towers(model),
        modules_to_save=config.modules_to_save or None,
        ensure_weight_tying=tied,
        bias=config.bias,
        use_rslora=config.use_rslora,
    )
    return with_peft(lambda: get_peft_model(model, settings))


def set_lora_rates(optimizer: Any, model: Any, ratio: float) -> None:
    """Give the second matrices of the adapters (`lora_B`) `ratio` times the learning rate, in groups of their own.

    Args:
        optimizer: fresh, before a scheduler notes its rates.
        model: whose adapters it trains.
        ratio: `lora.loraplus_lr_ratio`; 1 leaves the optimizer as it is.
    """
    if ratio == 1:
        return
    second = {parameter for name, parameter in model.named_parameters() if ".lora_B." in name}
    for group in list(optimizer.param_groups):
        moved = [parameter for parameter in group["params"] if parameter in second]
        if moved:
            group["params"] = [parameter for parameter in group["params"] if parameter not in second]
            same = {key: value for key, value in group.items() if key != "params"}
            optimizer.add_param_group({**same, "params": moved, "lr": group["lr"] * ratio})


@contextmanager
def merged_adapters(model: Any) -> Iterator[None]:
    """Within, large adapters are part of their layers' weights; afterwards the weights are what they were, to the bit.

    A step of decoding is many small products, and an adapter adds five of them to each. Only on a CPU and in float32:
    merging into 16 bits would round the adapter away. An adapter that is small beside its layer is left alone, because
    the copy of the weights takes memory.
    """
    if not hasattr(model, "peft_config"):
        yield
        return
    import torch
    from peft.tuners.lora.layer import Linear

    embeddings = model.get_input_embeddings().weight
    kept: list[tuple[Any, Any]] = []
    try:
        for module in model.modules():
            if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear:
                continue
            weight = module.base_layer.weight
            active = [name for name in module.active_adapters if name in module.lora_A]
            size = sum(module.r[name] for name in active) * sum(weight.shape)
            plain = weight.dtype is torch.float32 and weight.device.type == "cpu" and weight is not embeddings
            idle = module.merged or module.disable_adapters or module.lora_variant
            if active and plain and not idle and size > MERGE_FROM * weight.numel():
                kept.append((module, weight.data))
                weight.data = weight.data.clone()
                module.merge(adapter_names=active)
        yield
    finally:
        for module, before in kept:
            module.base_layer.weight.data = before
            module.merged_adapters.clear()


def with_peft(make: Callable[[], Any]) -> Any:
    """Call PEFT without two warnings of its own (0.21).

    It asks transformers (5.23) for a property by its old name; and for a second adapter of a model it does not find the
    matrix that the first has tied, though both of its names are in the file.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You have requested `ensure_weight_tying`", UserWarning)
        warnings.filterwarnings("ignore", ".*gradient_checkpointing.* is deprecated", FutureWarning)
        return make()


def _towers(model: Any) -> list[str] | None:
    """Parts beside the text decoder (sight, hearing), whose layers have the same names and never see a gradient."""
    decoder = model.get_decoder()
    parent = next((module for module in model.modules() if decoder in set(module.children())), model)
    if parent is model:
        return None
    path = next(name for name, module in model.named_modules() if module is parent)
    beside = [name for name, module in parent.named_children() if module is not decoder]
    inside = [
        name for name, _ in model.named_modules() if any(f"{name}.".startswith(f"{path}.{part}.") for part in beside)
    ]
    return inside or None


def _require_layers(model: Any, config: Lora) -> None:
    linear = {name.rsplit(".", 1)[-1] for name, module in model.named_modules() if hasattr(module, "in_features")}
    named = {name.rsplit(".", 1)[-1]: module for name, module in model.named_modules()}
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
    for name in config.modules_to_save:
        if any(not parameter.is_floating_point() for parameter in named[name.rsplit(".", 1)[-1]].parameters()):
            raise ModelError(
                f"{name} is quantised, so it cannot be trained in full",
                place="lora.modules_to_save",
                remedy="give it an adapter (lora.target_modules) instead, or take model.quantization out",
            )
