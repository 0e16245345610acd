"""Recipes upon recipes, the environment and the command line, merged into one tree.

Mappings merge, everything else is replaced; a recipe that extends another also replaces whole mappings whose names the
user chooses (databases, test sets), while the command line adds to them. A short form counts as the mapping it stands
for (`data.train: a.jsonl` is `{path: a.jsonl}`), so a later layer can add to it. A section that names another
alternative (`task: maths` over a recipe whose task is sql) replaces the whole section, since the settings of one mean
nothing to the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tunesmith.config.expand import expand_text
from tunesmith.config.read import Node, Origin, decode, describe, parse, parse_value, read_bytes
from tunesmith.config.secrets import redact
from tunesmith.config.shape import ROOT, Shape
from tunesmith.errors import ConfigError

PREFIX = "TUNESMITH__"


def read_recipe(path: Path, environ: Mapping[str, str]) -> Node:
    """The tree of a recipe, with what it `extends` below it.

    Raises:
        ConfigError: unreadable, not a recipe, or extending itself in a circle.
    """
    return _read(path, environ, (), "")


def environment_layers(environ: Mapping[str, str]) -> Iterable[Node]:
    """One layer for every `TUNESMITH__SECTION__KEY`, in the order of their names."""
    for name in sorted(environ):
        if name.startswith(PREFIX):
            origin = Origin(f"environment {name}", f"environment {name}", Path.cwd())
            keys = name.removeprefix(PREFIX).lower().split("__")
            if not all(keys):
                raise ConfigError(
                    "this variable names no setting",
                    place=origin.place,
                    remedy=f"write {PREFIX}SECTION__KEY, or unset it",
                )
            yield _nested(keys, parse_value(environ[name], origin))


def override_layer(override: str) -> Node:
    """The layer of one `section.key=value`.

    Raises:
        ConfigError: it is not of that form.
    """
    key, equals, value = override.partition("=")
    origin = Origin(f"override {redact(override)}", f"override {redact(override)}", Path.cwd())
    keys = [part.strip() for part in key.strip().removesuffix("?").split(".")]
    if not equals or not all(keys):
        raise ConfigError(
            "this is not of the form section.key=value",
            place=origin.place,
            remedy="write for example train.max_steps=20",
        )
    return _nested(keys, parse_value(value, origin))


def applies(override: str, tree: Node) -> bool:
    """Whether an override counts: `key?=value` only where the section of `key` is written already."""
    key = override.partition("=")[0].strip()
    if not key.endswith("?"):
        return True
    section = tree
    for part in key.removesuffix("?").split(".")[:-1]:
        below = section.child(part)
        if below is None or below.value is None:
            return False
        section = below
    return True


def merge(base: Node, over: Node, shape: Shape = ROOT, key: str = "", *, adding: bool = True) -> Node:
    """`over` laid upon `base`; both spelled out by `spell_out` where short forms are allowed.

    Args:
        adding: whether `over` adds to mappings with names the user chose, rather than replacing them.
    """
    if shape.chosen_names and not adding:
        return over
    if isinstance(base.value, list) and isinstance(over.value, dict) and over.value:
        return _merge_items(base, base.value, over.value, shape, key)
    if not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    if shape.word:
        was, now = base.child(shape.word), over.child(shape.word)
        if now is not None and was is not None and was.value != now.value:
            return over
    merged = dict(base.value)
    for name, node in over.value.items():
        below = merged.get(name)
        inner = f"{key}.{name}" if key else name
        merged[name] = node if below is None else merge(below, node, shape.child(name, base), inner, adding=adding)
    return Node(merged, base.origin)


def spell_out(node: Node, shape: Shape = ROOT) -> Node:
    """The tree with every short form replaced by the mapping it stands for."""
    if isinstance(node.value, str) and shape.shorthand:
        meant = shape.shorthand(node.value)
        if isinstance(meant, dict):
            return Node({key: Node(value, node.origin) for key, value in meant.items()}, node.origin)
    if isinstance(node.value, dict):
        return Node({k: spell_out(n, shape.child(k, node)) for k, n in node.value.items()}, node.origin)
    if isinstance(node.value, list):
        return Node([spell_out(n, shape.child(i, node)) for i, n in enumerate(node.value)], node.origin)
    return node


def _read(path: Path, environ: Mapping[str, str], above: tuple[Path, ...], asked_by: str) -> Node:
    tree = spell_out(parse(decode(read_bytes(path, asked_by), str(path)), path))
    extends = tree.child("extends")
    if extends is None or not isinstance(tree.value, dict):
        return tree
    place = extends.origin.place
    if not isinstance(extends.value, str):
        raise ConfigError(
            f"`extends` must be the path of another recipe, not {describe(extends.plain())}",
            place=place,
            remedy="write `extends: other.yaml`",
        )
    parent = Path(os.path.normpath(path.parent / expand_text(extends.value, environ, "extends", place)))
    chain = (*above, path.absolute())
    if parent.absolute() in chain:
        circle = " -> ".join(step.name for step in (*chain, parent))
        raise ConfigError(
            f"recipes extend each other in a circle: {circle}", place=place, remedy="remove one `extends`"
        )
    below = _read(parent, environ, chain, place)
    own = Node({k: n for k, n in tree.value.items() if k != "extends"}, tree.origin)
    return merge(below, own, adding=False)


def _nested(keys: list[str], node: Node) -> Node:
    for key in reversed(keys):
        node = Node({key: node}, node.origin)
    return spell_out(node)


def _merge_items(base: Node, items: list[Node], over: dict[str, Node], shape: Shape, key: str) -> Node:
    merged = list(items)
    for name, node in over.items():
        if not name.isdigit() or int(name) >= len(items):
            raise ConfigError(
                f"`{key}` is a list of {len(items)}, and has no item {describe(name)}",
                place=node.origin.place,
                remedy=f"write {key}.0 for the first, or the whole list: {key}=[...]",
            )
        index = int(name)
        merged[index] = merge(items[index], node, shape.child(index, base), f"{key}.{index}")
    return Node(merged, base.origin)
