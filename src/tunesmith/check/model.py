"""The base model's files against the recipe, without loading them: what is missing, cut off, or does not fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.check.result import Looked
from tunesmith.check.subject import Subject
from tunesmith.check.weights import Weights
from tunesmith.config.schema import RunConfig
from tunesmith.types import Finding

_STOPS = "the run stops when it loads the model"


def check_model(subject: Subject) -> Looked:
    """Files, layers, vocabulary and context of the base model, read off its config and the headers of its weights."""
    config, weights = subject.loaded.config, subject.weights
    if weights is None:
        return Looked(list(_not_here(config)), {})
    findings = [
        *_files(config, weights), *_layers(config, weights), *_limits(config, weights), *_tied(config, weights)
    ]  # fmt: skip
    figures: dict[str, Any] = {"parameters": weights.parameters}
    if config.lora is not None:
        figures["trained"] = weights.adapter_parameters(config.lora) + _in_full(config, weights)
    return Looked(findings, figures)


def _not_here(config: RunConfig) -> Iterator[Finding]:
    name = config.model.name
    if Path(name).is_absolute() or name.count("/") != 1 or name.startswith("."):
        yield Finding(
            "model.missing", "error", f"there is no model folder at {name}", f"model.name={name}",
            "give a folder that holds config.json, or a Hub name (owner/name)", _STOPS,
        )  # fmt: skip
        return
    yield Finding(
        "model.not_downloaded", "info", f"{name} is not on this machine; its layers and sizes cannot be looked at",
        f"model.name={name}", f"hf download {name}{f' --revision {config.model.revision}' if config.model.revision else ''}",
    )  # fmt: skip
    if config.model.revision is None:
        yield Finding(
            "model.unpinned", "info", "the Hub's newest version is taken, which may be another tomorrow",
            "model.revision", "pin the commit that `hf download` names: model.revision=...",
        )  # fmt: skip


def _files(config: RunConfig, weights: Weights) -> Iterator[Finding]:
    folder, place = weights.folder, f"model.name={config.model.name}"
    hub = not Path(config.model.name).exists()
    if not weights.config:
        yield Finding("model.broken", "error", "config.json is not JSON", str(folder / "config.json"),
                      "download the model again, or copy it again from where it came", _STOPS)  # fmt: skip
    for name in (*weights.missing, *weights.broken):
        what = "is missing" if name in weights.missing else "is cut off or damaged"
        again = (
            f"hf download {config.model.name} --force-download" if hub else f"copy {folder} again from where it came"
        )
        yield Finding("model.broken", "error", f"{name} {what}", place, again, _STOPS)
    if not weights.tensors and not weights.broken and not weights.missing:
        others = [file.name for file in folder.glob("*.bin")]
        yield Finding(
            "model.no_safetensors", "error",
            f"no safetensors file is in the folder{f', only {others[0]}, which is a pickle' if others else ''}", place,
            "download a version in safetensors, or convert it; pickles can run code and are not loaded", _STOPS,
        )  # fmt: skip
    if not (folder / "tokenizer.json").is_file():
        yield Finding(
            "model.no_tokenizer", "error", "tokenizer.json is missing, so where an answer lies in its tokens cannot be "
            "found", place, "download it with the model; `AutoTokenizer(...).save_pretrained` writes it", _STOPS,
        )  # fmt: skip
    elif config.model.chat_template is None and not _has_template(folder):
        yield Finding(
            "model.no_template", "error", "the tokenizer has no chat template: a base model has none of its own", place,
            "set model.chat_template to a Jinja file, or take the model's instruct version",
            "nobody could say how a conversation is written, and what is trained",
        )  # fmt: skip
    if config.model.chat_template is not None and not config.model.chat_template.is_file():
        yield Finding("model.no_template", "error", "there is no such file", f"model.chat_template="
                      f"{config.model.chat_template}", "correct the path; it is relative to the recipe", _STOPS)  # fmt: skip


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    try:
        return bool(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template"))
    except (OSError, ValueError, AttributeError):
        return False


def _layers(config: RunConfig, weights: Weights) -> Iterator[Finding]:
    if config.lora is None or not weights.tensors:
        return
    modules = {name.rsplit(".", 2)[-2] for name in weights.tensors if "." in name}
    linear = {name.rsplit(".", 1)[-1] for name in weights.matrices()}
    wanted = [] if config.lora.target_modules == "all-linear" else config.lora.target_modules
    for key, names, known in (
        ("target_modules", wanted, linear),
        ("modules_to_save", config.lora.modules_to_save, modules),
    ):
        if missing := [name for name in names if name.rsplit(".", 1)[-1] not in known]:
            yield Finding(
                "model.no_such_layer", "error", f"the model has no layer named {', '.join(missing)}", f"lora.{key}",
                f"use some of: {', '.join(sorted(linear))}, or all-linear", "the run stops after loading the model",
            )  # fmt: skip


def _in_full(config: RunConfig, weights: Weights) -> int:
    assert config.lora is not None
    ends = tuple(f"{name}.weight" for name in config.lora.modules_to_save)
    return sum(one.count for name, one in weights.tensors.items() if ends and name.endswith(ends))


def _limits(config: RunConfig, weights: Weights) -> Iterator[Finding]:
    positions = weights.config.get("max_position_embeddings")
    if isinstance(positions, int) and config.data.max_length > positions:
        yield Finding(
            "model.context", "error",
            f"data.max_length is {config.data.max_length:,}, and the model was made for {positions:,} positions",
            "data.max_length", f"set data.max_length={positions}",
            "beyond its positions a model sees noise; what it learns there spoils the rest",
        )  # fmt: skip
    embedded = next((t.shape[0] for n, t in weights.tensors.items() if n.endswith("embed_tokens.weight")), None)
    highest = _highest_id(weights.folder / "tokenizer.json")
    if embedded is not None and highest is not None and highest >= embedded:
        yield Finding(
            "model.vocabulary", "error",
            f"the tokenizer has ids up to {highest:,}, and the model embeds {embedded:,} tokens",
            f"model.name={config.model.name}",
            "take the tokenizer that belongs to this model, or resize its embeddings and save it",
            "the first row with such a token stops the run: on a GPU with an error that does not say why",
        )  # fmt: skip


def _highest_id(tokenizer: Path) -> int | None:
    """Of the tokenizer's added tokens and vocabulary; None where the file cannot be read."""
    try:
        with tokenizer.open(encoding="utf-8") as file:
            content = json.load(file)
        added = max((int(token["id"]) for token in content.get("added_tokens", [])), default=-1)
        words = content["model"]["vocab"]
        highest = max(words.values(), default=-1) if isinstance(words, dict) else len(words) - 1
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return max(added, int(highest))


def _tied(config: RunConfig, weights: Weights) -> Iterator[Finding]:
    if config.lora is None or not weights.config.get("tie_word_embeddings"):
        return
    saved = set(config.lora.modules_to_save)
    if saved & {"embed_tokens", "lm_head"} and any(export.format == "merged" for export in config.exports):
        yield Finding(
            "model.tied_embeddings", "warning",
            "the model's first and last layer are one matrix, and lora.modules_to_save trains it; merging must keep "
            "them one", "lora.modules_to_save",
            "look at `verified` of the merged export in the report: it compares answers after loading it back",
            "in other tools new words are lost when the adapter is merged",
        )  # fmt: skip
