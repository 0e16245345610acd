"""Settings that nothing reads beside others: written down, they promise what will not happen.

A setting that *gives way* has a stronger one beside it (`max_steps` over `num_train_epochs`): recipes laid over each
other do that on purpose. One that *nothing reads* is a mistake where it was written for this very combination.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from tunesmith.config.load import Loaded
from tunesmith.config.schema import RunConfig
from tunesmith.config.shape import dotted, leaves
from tunesmith.types import Finding

_CONSTRAINTS = {"sql": "schema", "maths": "arithmetic"}
_NOT_ADAM = (
    "sgd",
    "adafactor",
    "adagrad",
    "rmsprop",
    "lomo",
    "apollo",
    "galore_adafactor",
    "grokadamw",
    "stable_adamw",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """Keys, and what makes them idle."""

    keys: re.Pattern[str]
    decider: str
    """The setting that makes them so."""
    applies: Callable[[RunConfig, str], bool]
    reason: str
    remedy: str
    gives_way: bool = False


def _path_of(config: RunConfig, key: str) -> str:
    """The path of the source that a key like `data.train.split` belongs to."""
    parts = key.split(".")
    source = config.data.test[".".join(parts[2:-1])] if parts[1] == "test" else getattr(config.data, parts[1])
    return str(source.path)


RULES = (
    Rule(
        re.compile(r"train\.num_train_epochs"), "train.max_steps",
        lambda config, _: config.train.max_steps > 0,
        "`train.max_steps` counts the steps, so epochs do not", "set train.max_steps: -1 to count epochs", True,
    ),
    Rule(
        re.compile(r"train\.warmup_ratio"), "train.warmup_steps",
        lambda config, _: config.train.warmup_steps > 0,
        "`train.warmup_steps` says how long the learning rate rises", "set train.warmup_steps: 0", True,
    ),
    Rule(
        re.compile(r"data\.validation_share"), "data.validation",
        lambda config, _: config.data.validation is not None,
        "`data.validation` is the validation set, so none is set aside", "take data.validation out", True,
    ),
    Rule(
        re.compile(r"train\.warmup_(ratio|steps)"), "train.lr_scheduler_type",
        lambda config, _: config.train.lr_scheduler_type == "constant",
        "the `constant` schedule has no warm-up", "train.lr_scheduler_type: constant_with_warmup",
    ),
    Rule(
        re.compile(r"train\.adam_beta2"), "train.optim",
        lambda config, _: config.train.optim.startswith(_NOT_ADAM),
        "the optimizer named in `train.optim` is not Adam and has no second-moment decay", "take it out",
    ),
    Rule(
        re.compile(r"train\.dataloader_prefetch_factor"), "train.dataloader_num_workers",
        lambda config, _: config.train.dataloader_num_workers == 0,
        "without `train.dataloader_num_workers` nobody prepares batches ahead", "set train.dataloader_num_workers: 2",
    ),
    Rule(
        re.compile(r"model\.quantization\.bnb_4bit_\w+"), "model.quantization.bits",
        lambda config, _: config.model.quantization is not None and config.model.quantization.bits == 8,
        "it belongs to 4-bit weights, and `model.quantization.bits` is 8", "take it out, or set bits: 4",
    ),
    Rule(
        re.compile(r"data\.(train|validation|test\.[^.]+)\.split"), "",
        lambda config, key: not _path_of(config, key).startswith("hf://"),
        "only a Hub data set (hf://owner/name) has splits; a file is read whole", "take it out, or use `where`",
    ),
    Rule(
        re.compile(r"generate\.constrain"), "task.name",
        lambda config, _: config.task.name != "custom" and config.generate.constrain not in ("none", _CONSTRAINTS.get(config.task.name)),
        "this task's answers cannot be held to that", "take it out, or use `schema` with sql, `arithmetic` with maths",
    ),
    Rule(
        re.compile(r"task\.(constrain_values|try_queries)|generate\.coverage"), "generate.constrain",
        lambda config, _: config.generate.constrain == "none",
        "answers are not held to anything", "set generate.constrain: schema",
    ),
    Rule(
        re.compile(r"task\.try_queries|generate\.(coverage|lexicon)"), "generate.beams",
        lambda config, _: config.generate.beams == 1,
        "there is one answer, and nothing to choose from", "set generate.beams: 4",
    ),
    Rule(
        re.compile(r"evaluate\.(base|max_samples|confidence)"), "data.test",
        lambda config, _: not config.data.test and not config.builds,
        "there is no test set, so nothing is graded", "add one: data.test: {mine: questions.jsonl}",
    ),
    Rule(
        re.compile(r"tracking\.project"), "tracking.report_to",
        lambda config, _: not {"wandb", "comet_ml"} & set(config.tracking.report_to),
        "no tracker with projects is in `tracking.report_to`", "add wandb or comet_ml to tracking.report_to",
    ),
)  # fmt: skip


def idle(config: RunConfig) -> Iterator[tuple[str, Rule]]:
    """Every setting that nothing reads in this recipe, with the rule that says why."""
    for key, _ in leaves(config):
        for rule in RULES:
            if rule.keys.fullmatch(dotted(key)) and rule.applies(config, dotted(key)):
                yield dotted(key), rule
                break


def ignored(loaded: Loaded) -> list[Finding]:
    """A finding for every setting that somebody wrote and nothing reads: an error where it was written for this.

    A value that is the default anyway promises nothing; a run's own saved settings write every one of them out.
    """
    found = []
    usual = {dotted(key) for key, value in leaves(loaded.config) if value == _default(loaded.config, key)}
    for key, rule in idle(loaded.config):
        if (origin := loaded.origins.get(key, "default")) == "default" or key in usual:
            continue
        decided = _origin_of(loaded.origins, rule.decider)
        together = decided == "default" or _layer(origin) == _layer(decided)
        if rule.gives_way:
            level, check = "info", "recipe.gives_way"
        else:
            level, check = ("error" if together else "warning"), "recipe.ignored"
        cost = "" if rule.gives_way else "the run would be another than the recipe says, and nothing would tell"
        where = f"{key} ({origin})"
        found.append(Finding(check, level, f"nothing reads `{key}`: {rule.reason}", where, rule.remedy, cost))  # type: ignore[arg-type]
    return found


def _default(config: RunConfig, key: tuple[str | int, ...]) -> object:
    """What the schema has at a key where nobody writes anything; `...` where somebody must, or chooses the name."""
    section: Any = config
    for part in key[:-1]:
        section = getattr(section, str(part)) if isinstance(section, BaseModel) else section[part]
    field = getattr(type(section), "model_fields", {}).get(str(key[-1]))
    return ... if field is None or field.is_required() else field.get_default(call_default_factory=True)


def _origin_of(origins: Mapping[str, str], decider: str) -> str:
    """Where the deciding setting was written; of a section, where the first of it was."""
    below = (origin for key, origin in origins.items() if key == decider or key.startswith(f"{decider}."))
    return next((origin for origin in below if origin != "default"), "default") if decider else "default"


def _layer(origin: str) -> str:
    """The file or command line that an origin lies in."""
    return origin.rsplit(":", 1)[0] if origin.startswith("recipe ") else origin.split(" ")[0]
