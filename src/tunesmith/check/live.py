"""How each setting of a training run is read back from the object that will act on it."""

from __future__ import annotations

import hashlib
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tunesmith.check.answering import Answering, observe_answering
from tunesmith.config.schema import RunConfig
from tunesmith.data.prepare import Prepared
from tunesmith.model.load import model_path
from tunesmith.rundir import RunDir
from tunesmith.types import IGNORE

ABSENT = object()
"""What a reader returns when this run has nothing that the setting could act on."""
_SCHEDULES = {
    "_get_cosine_schedule_with_warmup_lr_lambda": "cosine",
    "_get_linear_schedule_with_warmup_lr_lambda": "linear",
    "_get_constant_lambda": "constant",
    "_get_constant_schedule_with_warmup_lr_lambda": "constant_with_warmup",
}
_OPTIMIZERS = {"adamw_torch": "AdamW", "adamw_torch_fused": "AdamW", "sgd": "SGD", "adafactor": "Adafactor",
               "paged_adamw_32bit": "AdamW", "paged_adamw_8bit": "AdamW", "adamw_8bit": "AdamW", "adamw_bnb_8bit": "AdamW",
               "adagrad": "Adagrad", "rmsprop": "RMSprop"}  # fmt: skip


@dataclass(frozen=True)
class Live:
    """What is about to train."""

    config: RunConfig
    """The settings as they are handed on, to grading and exports too."""
    trainer: Any
    model: Any
    optimizer: Any
    scheduler: Any
    loader: Any
    tokenizer: Any
    prepared: Prepared
    run: RunDir

    @cached_property
    def answering(self) -> Answering:
        """What grading does with these settings."""
        largest = max(self.prepared.tests.values(), key=len, default=())
        return observe_answering(self.config, largest)


class Reader(NamedTuple):
    """How one setting is read back."""

    read: Callable[[Live], Any]
    where: str
    """The object, for a person."""
    agrees: Callable[[Any, Any, Live], bool]
    """(asked, in force, objects): whether they are the same, or what was left open was resolved."""


def _same(asked: Any, found: Any, _: Live) -> bool:
    if isinstance(asked, float) or isinstance(found, float):
        return asked is not None and found is not None and math.isclose(asked, found, rel_tol=1e-9, abs_tol=1e-12)
    return bool(asked == found)


def _open(*words: Any) -> Callable[[Any, Any, Live], bool]:
    """Agreement for settings that may be left open with one of these values."""
    return lambda asked, found, objects: (
        any(asked is word or asked == word for word in words) or _same(asked, found, objects)
    )


def _any(*_: Any) -> bool:
    return True


# --- optimizer, schedule, loader --------------------------------------------------------------------------------------


def _group(name: str) -> Callable[[Live], Any]:
    return lambda o: max((group.get(name, 0.0) for group in o.optimizer.param_groups), default=0.0)


def _rates(o: Live) -> list[float]:
    """Peak learning rates of the groups that hold anything, lowest first."""
    return sorted({float(group["initial_lr"]) for group in o.optimizer.param_groups if group["params"]})


def _ratio(o: Live) -> Any:
    """Of the adapters' second matrices over their first (LoRA+)."""
    return round(_rates(o)[-1] / _rates(o)[0], 9) if _adapters(o) and _rates(o) else ABSENT


def _beta2(o: Live) -> Any:
    betas = o.optimizer.param_groups[0].get("betas")
    return betas[1] if betas else ABSENT


def _optimizer(o: Live) -> str:
    inner = getattr(o.optimizer, "optimizer", o.optimizer)
    bits = getattr(getattr(inner, "args", None), "optim_bits", 0)
    paged = ", paged" if getattr(inner, "is_paged", False) else ""
    return f"{o.trainer.args.optim.value}: {type(inner).__module__.split('.')[0]}.{type(inner).__name__}" + (
        f" ({bits} bits{paged})" if bits else ""
    )


def _optimizer_agrees(asked: Any, found: Any, _: Live) -> bool:
    kind = _OPTIMIZERS.get(asked)
    return str(found).startswith(f"{asked}: ") and (kind is None or f".{kind}" in found)


def _lambda(o: Live) -> Any:
    inner = getattr(o.scheduler, "scheduler", o.scheduler)
    return inner.lr_lambdas[0]


def _schedule(o: Live) -> str:
    function = getattr(_lambda(o), "func", _lambda(o))
    return _SCHEDULES.get(function.__name__, str(function.__name__))


def _warmup(o: Live) -> Any:
    return getattr(_lambda(o), "keywords", {}).get("num_warmup_steps", ABSENT)


def _ratio_agrees(asked: Any, found: Any, o: Live) -> bool:
    return o.config.train.warmup_steps > 0 or bool(found == math.ceil(len(o.trainer.steps) * min(asked, 1 - 1e-9)))


def _epochs(o: Live) -> float:
    return float(len(o.trainer.steps) / o.trainer.steps.per_epoch)


def _epochs_agree(asked: Any, found: Any, o: Live) -> bool:
    return o.config.train.max_steps > 0 or bool(len(o.trainer.steps) == math.ceil(asked * o.trainer.steps.per_epoch))


def _batch_agrees(asked: Any, found: Any, o: Live) -> bool:
    return bool(found == min(asked, len(o.prepared.train)))


def _loss(o: Live) -> str | None:
    loss = o.trainer.loss
    return None if loss.__module__.startswith("tunesmith.") else f"{loss.__module__}:{loss.__qualname__}"


def _function_agrees(asked: Any, found: Any, _: Live) -> bool:
    """`module:function`."""
    if asked is None or asked == found:
        return bool(asked == found)
    module, _, name = asked.partition(":")  # the name it is imported by, not the one it was defined under
    made = getattr(importlib.import_module(module), name)
    return bool(f"{made.__module__}:{made.__qualname__}" == found)


def _precision(o: Live) -> str:
    mixed = str(o.trainer.accelerator.mixed_precision)
    return "fp32" if mixed == "no" else mixed


def _recomputes(o: Live) -> bool:
    return any(getattr(module, "gradient_checkpointing", False) for module in o.model.modules())


def _pins_agree(asked: Any, found: Any, _: Live) -> bool:
    import torch

    return bool(found == (asked and torch.cuda.is_available()))


def reader_of(key: str) -> Reader | None:
    """How a setting is read back; None where no object that trains can be asked for it."""
    name = key.removeprefix("train.extra.")
    if name != key:
        return Reader(lambda o: getattr(o.trainer.args, name, ABSENT), "arguments of the trainer", _as_text)
    metric = key.removeprefix("evaluate.metrics.")
    if metric != key:
        return Reader(
            lambda o: o.answering.metrics.get(metric, ABSENT), "the function that grading imported", _function_agrees
        )
    return READERS.get(key)


def _as_text(asked: Any, found: Any, objects: Live) -> bool:
    """transformers turns texts into its own types (`IntervalStrategy`)."""
    return _same(asked, found, objects) or str(asked) == str(getattr(found, "value", found))


def _patience(o: Live) -> Any:
    # By its exact kind: the callback that selects by task score counts too, by a rule of its own.
    found = [one for one in o.trainer.callback_handler.callbacks if type(one).__name__ == "KeepBest"]
    return found[0].patience if found else None


# --- adapters ---------------------------------------------------------------------------------------------------------


def _adapters(o: Live) -> list[tuple[str, Any]]:
    return [(name, m) for name, m in o.model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "scaling")]


def _of_adapter(read: Callable[[Any], Any]) -> Callable[[Live], Any]:
    def value(o: Live) -> Any:
        found = {read(module) for _, module in _adapters(o)}
        return ABSENT if not found else found.pop() if len(found) == 1 else tuple(sorted(found))

    return value


def _rank(module: Any) -> int:
    return int(module.lora_A["default"].weight.shape[0])


def _alpha(o: Live) -> Any:
    peft = getattr(o.model, "peft_config", {}).get("default")
    power = 0.5 if peft is not None and peft.use_rslora else 1
    return _of_adapter(lambda m: round(m.scaling["default"] * _rank(m) ** power, 9))(o)


def _rslora(o: Live) -> Any:
    """From the scale that is in force: alpha over the root of the rank, or over the rank."""
    peft = getattr(o.model, "peft_config", {}).get("default")
    if peft is None or not _adapters(o):
        return ABSENT
    module = _adapters(o)[0][1]
    scale, rank = module.scaling["default"], _rank(module)
    return peft.use_rslora if rank == 1 else math.isclose(scale, peft.lora_alpha / math.sqrt(rank))


def _dropout(module: Any) -> float:
    return float(getattr(module.lora_dropout["default"], "p", 0.0))


def _targets(o: Live) -> Any:
    return sorted({name.rsplit(".", 1)[-1] for name, _ in _adapters(o)}) or ABSENT


def _targets_agree(asked: Any, found: Any, _: Live) -> bool:
    return asked == "all-linear" or {name.rsplit(".", 1)[-1] for name in asked} == set(found)


def _in_full(o: Live) -> Any:
    wrapped = [name for name, m in o.model.named_modules() if type(m).__name__ == "ModulesToSaveWrapper"]
    return sorted({name.rsplit(".", 1)[-1] for name in wrapped}) if _adapters(o) else ABSENT


def _in_full_agrees(asked: Any, found: Any, _: Live) -> bool:
    return {name.rsplit(".", 1)[-1] for name in asked} <= set(found)  # a tied twin may come along


def _bias(o: Live) -> Any:
    peft = getattr(o.model, "peft_config", {}).get("default")
    return peft.bias if peft is not None else ABSENT


# --- model, tokenizer, data -------------------------------------------------------------------------------------------


def _base_config(o: Live) -> Any:
    base = o.model.get_base_model() if hasattr(o.model, "get_base_model") else o.model
    return base.config


def _dtype(o: Live) -> str:
    import torch

    kinds = [
        p.dtype for n, p in o.model.named_parameters() if p.is_floating_point() and "lora_" not in n and p.dim() > 0
    ]
    kinds = kinds or [torch.float32]
    return str(max(set(kinds), key=kinds.count)).removeprefix("torch.")


def _quantised(o: Live) -> list[Any]:
    return [
        m for m in o.model.modules() if type(m).__module__.startswith("bitsandbytes.") and hasattr(m, "in_features")
    ]


def _of_quantised(read: Callable[[Any], Any], bits: int = 0) -> Callable[[Live], Any]:
    def value(o: Live) -> Any:
        found = [m for m in _quantised(o) if not bits or type(m).__name__ == f"Linear{bits}bit"]
        return read(found[0]) if found else ABSENT

    return value


def _quantisation(o: Live) -> Any:
    return type(_quantised(o)[0]).__name__ if _quantised(o) else None


def _name_agrees(asked: Any, found: Any, o: Live) -> bool:
    if not found:  # made in memory
        return True
    wanted = model_path(o.config.model)
    return found == wanted or (Path(wanted).exists() and Path(found).resolve() == Path(wanted).resolve())


def _template(o: Live) -> str:
    return hashlib.blake2b(str(o.tokenizer.chat_template).encode(), digest_size=4).hexdigest()


def _template_agrees(asked: Any, found: Any, _: Live) -> bool:
    if asked is None:
        return True
    text = Path(asked).read_text(encoding="utf-8")
    return bool(hashlib.blake2b(text.encode(), digest_size=4).hexdigest() == found)


def _end(o: Live) -> Any:
    """The last trained token of the first row: what the model will learn to stop with."""
    labels = o.prepared.train[0].labels
    trained = labels[labels != IGNORE]
    return o.tokenizer.convert_ids_to_tokens(int(trained[-1])) if len(trained) else ABSENT


def _attention(o: Live) -> Any:
    return getattr(_base_config(o), "_attn_implementation", None)


def _devices(o: Live) -> str:
    placed = getattr(o.model, "hf_device_map", None)
    return str(placed or next(o.model.parameters()).device)


def _device_agrees(asked: Any, found: Any, _: Live) -> bool:
    return asked in (None, "auto", "balanced", "sequential") or str(asked).split(":")[0] in found


def _source(name: str) -> Callable[[Live], Any]:
    """The file that the rows of a split came from, as the rows themselves say."""

    def value(o: Live) -> Any:
        rows: Any = getattr(o.prepared, name)
        places = {rows.example(at).place.rpartition(":")[0] for at in {0, len(rows) - 1}} if len(rows) else set()
        return ", ".join(sorted(place for place in places if place)) or ABSENT

    return value


def _source_agrees(asked: Any, found: Any, _: Live) -> bool:
    """Prepared rows are found by their bytes, so their places may name the file where it lay before."""
    if Path(asked).is_file():
        return {Path(place).name for place in str(found).split(", ")} == {Path(asked).name}
    return True  # a folder, a glob, a function: what was read is in the ledger, line by line


def _format(split: str) -> Callable[[Live], Any]:
    def value(o: Live) -> Any:
        told = [f.message for f in o.prepared.findings if f.check == "format" and f.message.startswith(f"{split}:")]
        return told[0].rsplit(" ", 1)[-1] if told else ABSENT

    return value


def _longest(o: Live) -> int:
    lengths = [int(np.max(rows.lengths)) for rows in (o.prepared.train, o.prepared.validation) if len(rows)]
    return max(lengths, default=0)


def _fits(asked: Any, found: Any, _: Live) -> bool:
    return bool(found <= asked)


def _profiled(o: Live) -> Any:
    found = [one for one in o.trainer.callback_handler.callbacks if type(one).__name__ == "Profile"]
    return found[0].steps if found else 0


def _mirrors(o: Live) -> list[str]:
    kinds = [type(one).__name__ for one in o.trainer.callback_handler.callbacks]
    names = {"WandbCallback": "wandb", "CometCallback": "comet_ml"}
    return [names[kind] for kind in kinds if kind in names]


def _mirrors_agree(asked: Any, found: Any, _: Live) -> bool:
    return {name for name in asked if name != "tensorboard"} == set(found)


# --- grading ----------------------------------------------------------------------------------------------------------

_GRADING = "grading, tried with a model that counts"


def _answered(read: Callable[[Answering], Any]) -> Callable[[Live], Any]:
    return lambda o: read(o.answering)


def _graded(read: Callable[[Answering], Any]) -> Callable[[Live], Any]:
    """Of what is graded; nothing where there is no test set."""
    return lambda o: read(o.answering) if o.prepared.tests else ABSENT


def _up_to(asked: Any, found: Any, o: Live) -> bool:
    """As many as were asked for, or as there are."""
    return bool(found == min(asked if asked is not None else o.answering.given, o.answering.given))


def _about(asked: Any, found: Any, _: Live) -> bool:
    return bool(found == asked or (asked > 0 and found > 0 and abs(math.log(found / asked)) < 0.15))


def _slices_agree(asked: Any, found: Any, _: Live) -> bool:
    return asked is None or set(found) <= set(asked)


def _chosen(o: Live) -> Any:
    return None if _chooser(id)(o) is ABSENT else "by score"


def _chooser(read: Callable[[Any], Any]) -> Callable[[Live], Any]:
    """Of the callback that chooses a checkpoint by its answers."""

    def value(o: Live) -> Any:
        found = [one for one in o.trainer.callback_handler.callbacks if type(one).__name__ == "KeepBestByScore"]
        return read(found[0]) if found else ABSENT

    return value


READERS: dict[str, Reader] = {
    "name": Reader(lambda o: o.trainer.args.run_name, "arguments of the trainer", _same),
    "output_dir": Reader(lambda o: str(o.run.root.parent), "the run's folder", lambda a, f, o: Path(f) == Path(a).absolute() or Path(f) == Path(a)),
    "seed": Reader(lambda o: o.trainer.args.seed, "arguments of the trainer", _same),
    "train.method": Reader(lambda o: type(o.trainer).__name__, "the trainer", _any),
    "train.num_train_epochs": Reader(_epochs, "the steps", _epochs_agree),
    "train.max_steps": Reader(lambda o: len(o.trainer.steps), "the steps", _open(-1, 0)),
    "train.batch_size": Reader(lambda o: len(o.trainer.steps.members(0)), "the first step", _batch_agrees),
    "train.max_tokens": Reader(lambda o: o.trainer.planting["max_tokens"], "the packer", _same),
    "train.share_prefixes": Reader(lambda o: o.trainer.planting["share"], "the packer", _same),
    "train.learning_rate": Reader(lambda o: _rates(o)[0], "optimizer groups", _same),
    "train.lr_scheduler_type": Reader(_schedule, "the schedule", _same),
    "train.warmup_ratio": Reader(_warmup, "steps of the schedule's warm-up", _ratio_agrees),
    "train.warmup_steps": Reader(_warmup, "the schedule", _open(0)),
    "train.weight_decay": Reader(_group("weight_decay"), "optimizer groups", _same),
    "train.max_grad_norm": Reader(lambda o: o.trainer.args.max_grad_norm, "arguments of the trainer", _same),
    "train.optim": Reader(_optimizer, "the optimizer", _optimizer_agrees),
    "train.adam_beta2": Reader(_beta2, "optimizer groups", _same),
    "train.precision": Reader(_precision, "the accelerator", _open("auto")),
    "train.gradient_checkpointing": Reader(_recomputes, "the model's blocks", _same),
    "train.dataloader_num_workers": Reader(lambda o: o.loader._workers, "the loader", _same),
    "train.dataloader_pin_memory": Reader(lambda o: o.loader._pin_memory, "the loader", _pins_agree),
    "train.dataloader_prefetch_factor": Reader(lambda o: o.loader._prefetch, "the loader", _open(None)),
    "train.logging_steps": Reader(lambda o: o.trainer.args.logging_steps, "arguments of the trainer", _same),
    "train.eval_steps": Reader(lambda o: int(o.trainer.args.eval_steps or 0), "arguments of the trainer", _same),
    "train.early_stopping_patience": Reader(_patience, "callbacks of the trainer", _same),
    "train.loss": Reader(_loss, "the trainer", _function_agrees),
    "train.spike_sigma": Reader(lambda o: o.trainer._spikes._sigma, "the guard of the trainer", _same),
    "lora": Reader(lambda o: None if not _adapters(o) else "adapters", "the model's modules", _same),
    "lora.r": Reader(_of_adapter(_rank), "adapter modules", _same),
    "lora.lora_alpha": Reader(_alpha, "adapter modules", _same),
    "lora.lora_dropout": Reader(_of_adapter(_dropout), "adapter modules", _same),
    "lora.target_modules": Reader(_targets, "adapter modules", _targets_agree),
    "lora.modules_to_save": Reader(_in_full, "modules trained in full", _in_full_agrees),
    "lora.bias": Reader(_bias, "the adapter's config", _same),
    "lora.loraplus_lr_ratio": Reader(_ratio, "optimizer groups", _same),
    "lora.use_rslora": Reader(_rslora, "scale of the adapter modules", _same),
    "model.name": Reader(lambda o: getattr(_base_config(o), "_name_or_path", ""), "the model's config", _name_agrees),
    "model.dtype": Reader(_dtype, "the base weights", _open("auto")),
    "model.quantization": Reader(_quantisation, "the model's modules", _same),
    "model.quantization.bits": Reader(_of_quantised(lambda m: 4 if type(m).__name__ == "Linear4bit" else 8), "the model's modules", _same),
    "model.quantization.bnb_4bit_quant_type": Reader(_of_quantised(lambda m: m.weight.quant_type, 4), "4-bit weights", _same),
    "model.quantization.bnb_4bit_use_double_quant": Reader(_of_quantised(lambda m: bool(m.weight.quant_state.nested), 4), "4-bit weights", _same),
    "model.quantization.bnb_4bit_compute_dtype": Reader(_of_quantised(lambda m: str(m.compute_dtype).removeprefix("torch."), 4), "4-bit layers", _open("auto")),
    "model.attn_implementation": Reader(_attention, "the model's config", _open(None)),
    "model.device_map": Reader(_devices, "where the weights are", _device_agrees),
    "model.chat_template": Reader(_template, "digest of the tokenizer's template", _template_agrees),
    "model.end_token": Reader(_end, "the last label of the first row", _open(None)),
    "data.train.path": Reader(_source("train"), "places of the rows", _source_agrees),
    "data.train.format": Reader(_format("train"), "the reader of the data", _open("auto")),
    "data.validation.path": Reader(_source("validation"), "places of the rows", _source_agrees),
    "data.validation.format": Reader(_format("validation"), "the reader of the data", _open("auto")),
    "data.max_length": Reader(_longest, "the longest row", _fits),
    "checkpoints.save_steps": Reader(lambda o: 0 if o.trainer.args.save_steps >= 2**31 else int(o.trainer.args.save_steps), "arguments of the trainer", _same),
    "generate.max_new_tokens": Reader(_answered(lambda seen: seen.max_new_tokens), _GRADING, _same),
    "generate.temperature": Reader(_answered(lambda seen: seen.temperature), _GRADING + ": an estimate", _about),
    "generate.batch_size": Reader(_answered(lambda seen: seen.batch_size), _GRADING, _same),
    "generate.constrain": Reader(_answered(lambda seen: seen.constrain), _GRADING, _same),
    "evaluate.max_samples": Reader(_graded(lambda seen: seen.examples), _GRADING, _up_to),
    "evaluate.confidence": Reader(_graded(lambda seen: seen.confidence), _GRADING, _same),
    "evaluate.metrics": Reader(_graded(lambda seen: seen.metrics), "functions that grading imported", _same),
    "evaluate.slices": Reader(_graded(lambda seen: seen.slices), _GRADING, _slices_agree),
    "evaluate.select": Reader(_chosen, "callbacks of the trainer", _same),
    "evaluate.select.examples": Reader(_chooser(lambda one: one.examples), "the callback that chooses by score", _fits),
    "evaluate.select.metric": Reader(_chooser(lambda one: one.settings.metric), "the callback that chooses by score", _same),
    "evaluate.select.stop": Reader(_chooser(lambda one: one.settings.stop), "the callback that chooses by score", _same),
    "evaluate.select.min_gain": Reader(_chooser(lambda one: one.chooser.min_gain), "the callback that chooses by score", _same),
    "evaluate.select.improbable": Reader(_chooser(lambda one: one.chooser.improbable), "the callback that chooses by score", _same),
    "evaluate.select.least": Reader(_chooser(lambda one: one.chooser.least), "the callback that chooses by score", _same),
    "tracking.report_to": Reader(_mirrors, "callbacks of the trainer; tensorboard is the tracker's own", _mirrors_agree),
    "tracking.profile_steps": Reader(_profiled, "callbacks of the trainer", _same),
    "tracking.project": Reader(lambda o: o.trainer.args.project, "arguments of the trainer", _open(None)),
}  # fmt: skip
"""Every setting that an object which trains can be asked for."""
