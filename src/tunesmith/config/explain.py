"""What pydantic refused, said in our words: the key, what it must be, what was written, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import ValidationError

from tunesmith.config.expand import Problem
from tunesmith.config.read import Node, describe
from tunesmith.config.shape import ROOT, Shape, dotted, known_keys

OTHER_NAMES = {
    "alpha": "lora.lora_alpha",
    "dropout": "lora.lora_dropout",
    "rank": "lora.r",
    "lora_r": "lora.r",
    "lora_rank": "lora.r",
    "lora_target_modules": "lora.target_modules",
    "lr": "train.learning_rate",
    "epochs": "train.num_train_epochs",
    "num_epochs": "train.num_train_epochs",
    "steps": "train.max_steps",
    "bf16": "train.precision",
    "fp16": "train.precision",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.batch_size",
    "micro_batch_size": "train.batch_size",
    "lr_scheduler": "train.lr_scheduler_type",
    "optimizer": "train.optim",
    "training": "train",
    "dataset": "data",
    "datasets": "data",
    "train_file": "data.train",
    "val_file": "data.validation",
    "validation_file": "data.validation",
    "test_file": "data.test",
    "max_seq_length": "data.max_length",
    "sequence_len": "data.max_length",
    "cutoff_len": "data.max_length",
    "quantization": "model.quantization",
    "load_in_4bit": "model.quantization.bits",
    "load_in_8bit": "model.quantization.bits",
    "torch_dtype": "model.dtype",
    "base_model": "model.name",
    "model_id": "model.name",
    "model_name_or_path": "model.name",
    "save_total_limit": "checkpoints.keep_last",
    "save": "exports",
    "export": "exports",
    "logging": "tracking",
    "experiment": "name",
    "experiment_name": "name",
    "run_name": "name",
    "mirror": "output_dir",
}
"""What other tools call our settings. Only for suggestions: `adopt` translates whole files."""

_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping of settings",
    "path": "a path",
}


def explain(error: ValidationError, tree: Node) -> list[Problem]:
    """One problem for every key that pydantic refused."""
    by_key: dict[tuple[str | int, ...], list[Any]] = {}
    for item in error.errors(include_url=False):
        by_key.setdefault(written_key(item["loc"], item["type"], tree), []).append(item)
    return [_problem(key, items, tree) for key, items in by_key.items()]


def written_key(loc: tuple[str | int, ...], kind: str, tree: Node) -> tuple[str | int, ...]:
    """The key a person wrote, from pydantic's location, which also holds the names of alternatives it tried."""
    key: list[str | int] = []
    node: Node | None = tree
    for index, part in enumerate(loc):
        below = node.child(part) if node is not None else None
        if below is not None:
            key.append(part)
            node = below
        elif index == len(loc) - 1 and kind == "missing":
            key.append(part)
    return tuple(key)


def unknown_key(key: tuple[str | int, ...], tree: Node) -> Problem:
    """The problem of a key that the schema does not have, with the nearest that it has."""
    section, name = dotted(key[:-1]), str(key[-1])
    where = f"in `{section}`" if section else "at the top level"
    shape, node = _at(key[:-1], tree)
    condition = ""
    if shape.word and node is not None:
        chosen = node.child(shape.word)
        condition = f" ({shape.word}: {chosen.value})" if chosen is not None else ""
    return Problem(
        dotted(key),
        _place(key, tree),
        f"unknown key {describe(name)} {where}{condition}",
        _suggestion(name, section, [field for s in shape.fitting(node) for field in s.model_fields]),
    )


def _suggestion(name: str, section: str, here: list[str]) -> str:
    elsewhere = [(full, condition) for full, last, condition in known_keys() if last == name]
    near_here = difflib.get_close_matches(name, here, n=1, cutoff=0.6)
    prefix = f"{section}." if section else ""
    if near_here and difflib.SequenceMatcher(None, name, near_here[0]).ratio() > 0.8:
        return f"did you mean `{near_here[0]}`?"
    if elsewhere:
        full, condition = elsewhere[0]
        return f"`{name}` is a setting of `{full.rpartition('.')[0] or 'the top level'}`: write `{full}`" + (
            f" with {condition}" if condition and full.startswith(prefix) else ""
        )
    if name in OTHER_NAMES and OTHER_NAMES[name].rpartition(".")[2] != (near_here or [""])[0]:
        return f"here this is called `{OTHER_NAMES[name]}`; `tunesmith adopt` translates whole files of other tools"
    if near_here:
        return f"did you mean `{near_here[0]}`?"
    if "." in name and any(full == name for full, _, _ in known_keys()):
        return "write it nested: each part on a line of its own, indented under the one before"
    near = difflib.get_close_matches(name, [last for _, last, _ in known_keys()], n=1, cutoff=0.75)
    if near:
        return f"did you mean `{next(full for full, last, _ in known_keys() if last == near[0])}`?"
    return "known here: " + ", ".join(sorted(set(here))) if here else "remove it"


def _problem(key: tuple[str | int, ...], items: list[Any], tree: Node) -> Problem:
    first = items[0]
    kind = first["type"]
    if kind == "extra_forbidden":
        return unknown_key(key, tree)
    if kind == "value_error":
        message, _, remedy = str(first["ctx"]["error"]).rpartition("; ")
        if not message:
            message, _, remedy = remedy.partition(": ")
        section = f"`{dotted(key)}`: " if key else ""
        # A rule about several sections stands at the top; the first of its settings that is written is the place.
        named = [tuple(word.split(".")) for word in re.findall(r"[a-z_]+(?:\.[a-z_]+)+", message + remedy)]
        place = next((_place(name, tree) for name in named if not key and _at(name, tree)[1]), _place(key, tree))
        return Problem(dotted(key), place, f"{section}{message}", remedy)
    if kind == "missing":
        return Problem(dotted(key), _place(key, tree), f"`{dotted(key)}` is required", _what_to_write(key, tree))
    if kind == "union_tag_not_found":
        shape, _ = _at(key, tree)
        full = f"{dotted(key)}.{shape.word}"
        choices = ", ".join(_choices(shape))
        return Problem(full, _place(key, tree), f"`{full}` is required", f"set it to one of: {choices}")
    expected = " or ".join(dict.fromkeys(_expectation(item) for item in items))
    full = dotted(key)
    node = tree.nearest(key)
    if kind == "union_tag_invalid":
        word = str(first["ctx"]["discriminator"]).strip("'")
        full, found = f"{full}.{word}", node.child(word)
        node = found if found is not None else node
    return Problem(
        full,
        node.origin.place,
        f"`{full}` must be {expected}, not {describe(node.plain())}",
        _remedy(node, items, _meaning(key, tree)),
    )


def _expectation(item: Any) -> str:
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{words} {context[name]:g}"
    if kind == "literal_error":
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return choices if "," not in choices else f"one of: {choices}"
    if kind == "union_tag_invalid":
        return "one of: " + str(context["expected_tags"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(context["pattern"], f"text of the form {context['pattern']}")
    return _KINDS.get(kind, _KINDS.get(kind.split("_")[0], str(item["msg"]).lower()))


_PATTERNS = {
    r"^[\w.]+:\w+$": "of the form module:name",
    r"^(auto|https?://.+)$": "auto, or an address that begins with http:// or https://",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": (
        "1 to 100 letters, digits, dots, dashes and underscores that begin with a letter or digit (it becomes a folder)"
    ),
}


def _remedy(node: Node, items: list[Any], meaning: str) -> str:
    kinds = {item["type"] for item in items}
    if isinstance(node.value, str) and kinds & {"float_parsing", "int_parsing"} and "," in node.value:
        return f"write a decimal point: {node.value.replace(',', '.')}"
    if "literal_error" in kinds and isinstance(node.value, str):
        choices = [c.strip(" '") for i in items for c in str(i.get("ctx", {}).get("expected", "")).split(" or ")]
        choices = [c.strip(" '") for joined in choices for c in joined.split(",")]
        near = difflib.get_close_matches(node.value, choices, n=1)
        if near:
            return f"did you mean `{near[0]}`?"
    if "int_from_float" in kinds:
        return "write it without a fraction"
    if (
        isinstance(node.value, str)
        and any("it becomes a folder" in _expectation(item) for item in items)
        and ("/" in node.value or ".." in node.value)
    ):
        return "the folder that holds runs is `output_dir`"
    if meaning:
        return f"correct the value; it means: {meaning}"
    if kinds & {"model_type", "model_attributes_type", "dict_type"}:
        return "write its settings one by one: section.key=value, or indented below it"
    return "choose one of these" if kinds & {"literal_error", "union_tag_invalid"} else "correct the value"


def _meaning(key: tuple[str | int, ...], tree: Node) -> str:
    """The first sentence that the schema says of a setting."""
    shape, node = _at(key[:-1], tree)
    for section in shape.fitting(node):
        field = section.model_fields.get(str(key[-1]))
        if field is not None and field.description:
            return " ".join(field.description.split(". ")[0].split()).rstrip(".")
    return ""


def _what_to_write(key: tuple[str | int, ...], tree: Node) -> str:
    shape, node = _at(key[:-1], tree)
    for section in shape.fitting(node):
        field = section.model_fields.get(str(key[-1]))
        if field is not None:
            below = shape.child(key[-1], node)
            if below.word:
                return f"set it to one of: {', '.join(_choices(below))}"
            if below.sections:
                return f"add the section, with: {', '.join(_required(below))}"
            return f"set it; it means: {_meaning(key, tree)}"
    return "set it"


def _required(shape: Shape) -> Iterable[str]:
    return [name for section in shape.sections for name, field in section.model_fields.items() if field.is_required()]


def _choices(shape: Shape) -> list[str]:
    return [str(get_args(s.model_fields[shape.word].annotation)[0]) for s in shape.sections if shape.word]


def _at(key: tuple[str | int, ...], tree: Node) -> tuple[Shape, Node | None]:
    shape, node = ROOT, tree
    for part in key:
        shape = shape.child(part, node)
        below = node.child(part)
        if below is None:
            return shape, None
        node = below
    return shape, node


def _place(key: tuple[str | int, ...], tree: Node) -> str:
    return tree.nearest(key).origin.place
