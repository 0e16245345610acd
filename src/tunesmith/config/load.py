"""From a recipe, the environment and the command line to a `RunConfig` that knows where each value came from.

Precedence, lowest first: defaults, the recipe (over what it `extends`), `TUNESMITH__SECTION__KEY`, `section.key=value`.
Loading is pure: the same inputs give the same config; no clock, no random names, and nothing is opened but recipes.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith.config.expand import Problem, expand
from tunesmith.config.explain import explain, written_key
from tunesmith.config.layers import applies, environment_layers, merge, override_layer, read_recipe
from tunesmith.config.read import Node, describe
from tunesmith.config.schema import SCHEMA_VERSION, Checkpoints, Data, Model, RunConfig, Section, Source
from tunesmith.config.secrets import redact
from tunesmith.config.shape import dotted, leaves
from tunesmith.errors import ConfigError
from tunesmith.types import Finding


@dataclass(frozen=True, slots=True)
class Loaded:
    """A config with its history."""

    config: RunConfig
    origins: Mapping[str, str]
    """For every dotted leaf key: `default`, `recipe demo.yaml:12`, `override ...` or `environment NAME`."""
    notes: tuple[Finding, ...] = ()
    """What is allowed and still worth saying: two settings of which one wins."""


class SettingsError(ConfigError):
    """Several settings are wrong at once."""

    def __init__(self, problems: Sequence[Problem], path: Path) -> None:
        lines = [f"  {p.place}: {p.message}\n    remedy: {p.remedy}" for p in problems]
        super().__init__(f"{len(problems)} settings are wrong:\n" + "\n".join(lines), place=str(path))
        self.problems = tuple(problems)


def load_config(path: Path, overrides: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Loaded:
    """Read, merge, fill in and check the settings of a run.

    Args:
        path: the recipe, a YAML (or JSON) file.
        overrides: `section.key=value`, later ones win. `section.key?=value` counts only where the section is written.
        environ: environment variables, for `TUNESMITH__...` and `${...}`; None takes a snapshot of the process's own.

    Returns:
        The config, with absolute paths: those in a recipe relative to its folder, those given on the command line, in
        the environment or as `output_dir` relative to the working directory.

    Raises:
        ConfigError: the first thing that keeps the recipe from being read, or all settings that are wrong.
    """
    path = Path(path)
    environ = dict(os.environ) if environ is None else environ
    tree = read_recipe(path, environ)
    for layer in environment_layers(environ):
        tree = merge(tree, layer)
    for override in overrides:
        over = override_layer(override)
        if applies(override, tree):
            tree = merge(tree, over)
    _refuse_newer(tree)
    tree, problems = expand(tree, environ)
    spoken_for = {problem.key for problem in problems}
    config, refused = examine(tree, environ)
    problems += [problem for problem in refused if problem.key not in spoken_for]
    if len(problems) == 1:
        raise problems[0].error()
    if problems or config is None:
        raise SettingsError(problems, path)
    origins = {dotted(key): _label(key, tree) for key, _ in leaves(config)}
    return Loaded(config, origins, tuple(_notes(config, tree)))


def load_saved(config: Path, origins: Path, overrides: Sequence[str] = ()) -> Loaded:
    """The settings of a run as its folder keeps them, each with the origin it had when the run began.

    Without the origins every setting would seem to be written by the user, for `config.yaml` holds them all.
    """
    loaded = load_config(config, overrides, environ={})
    try:
        first: dict[str, str] = json.loads(origins.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return loaded
    here = f"recipe {config.name}:"
    return replace(loaded, origins={k: first.get(k, v) if v.startswith(here) else v for k, v in loaded.origins.items()})


def examine(tree: Node, environ: Mapping[str, str]) -> tuple[RunConfig | None, list[Problem]]:
    """The config that a tree makes, with absolute paths, and everything that is wrong with it."""
    config, problems = _validate(tree)
    if config is None:
        return None, problems
    problems += [*_misread(config, tree), *_not_local(config, tree)]
    config = _rebased(config, (), tree, environ)
    problems += _output_over_data(config, tree)
    return config, problems


def _refuse_newer(tree: Node) -> None:
    version = tree.child("schema_version")
    if version is not None and isinstance(version.value, int) and version.value > SCHEMA_VERSION:
        raise ConfigError(
            f"the recipe is written for schema_version {version.value}; this Tunesmith reads up to {SCHEMA_VERSION}",
            place=version.origin.place,
            remedy="pip install -U tunesmith",
        )


def _validate(tree: Node) -> tuple[RunConfig | None, list[Problem]]:
    try:
        return RunConfig.model_validate(tree.plain()), []
    except ValidationError as error:
        # `revision: 0123` and `name: 2024` are meant as written where a setting wants text.
        wanted = {
            written_key(item["loc"], item["type"], tree)
            for item in error.errors(include_url=False)
            if item["type"] in ("string_type", "path_type")
        }
        as_written = _as_written(tree, (), wanted)
    try:
        return RunConfig.model_validate(as_written.plain()), []
    except ValidationError as error:
        return None, explain(error, as_written)


def _as_written(node: Node, key: tuple[str | int, ...], wanted: set[tuple[str | int, ...]]) -> Node:
    if isinstance(node.value, dict):
        return replace(node, value={k: _as_written(n, (*key, k), wanted) for k, n in node.value.items()})
    if isinstance(node.value, list):
        return replace(node, value=[_as_written(n, (*key, i), wanted) for i, n in enumerate(node.value)])
    if key in wanted and node.text and node.value is not None:
        return replace(node, value=node.text)
    return node


def _misread(config: RunConfig, tree: Node) -> Iterable[Problem]:
    """What pydantic lets pass and no one means: `true` as the number 1, and infinity."""
    for key, value in leaves(config):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        node = tree.nearest(key)
        if isinstance(node.value, bool) or not math.isfinite(value):
            yield Problem(
                dotted(key),
                node.origin.place,
                f"`{dotted(key)}` must be a finite number, not {describe(node.plain())}",
                "write a number",
            )


def _not_local(config: RunConfig, tree: Node) -> Iterable[Problem]:
    for key, value in leaves(config):
        node = tree.nearest(key)
        if not isinstance(value, Path) or not isinstance(node.value, str) or "://" not in node.value:
            continue
        if key == ("output_dir",):
            yield Problem(
                "output_dir",
                node.origin.place,
                f"`output_dir` must be a local folder, not {describe(node.value)}: a trainer that is given a URL "
                f"writes to a local folder named `{node.value.partition('//')[0]}`, which is lost with the machine",
                f"set output_dir to a local folder, and `checkpoints.mirror: {redact(node.value)}` to have the run "
                "copied there as it goes",
            )
        else:
            yield Problem(
                dotted(key),
                node.origin.place,
                f"`{dotted(key)}` must be a local path, not {describe(node.value)}",
                "download it first",
            )


_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FUNCTION = re.compile(r"[\w.]+:\w+")


def _rebased(value: Any, key: tuple[str | int, ...], tree: Node, environ: Mapping[str, str]) -> Any:
    """The value with every relative path in it made absolute."""
    if isinstance(value, Section):
        changes = {
            name: changed
            for name in type(value).model_fields
            if (changed := _rebased(old := getattr(value, name), (*key, name), tree, environ)) is not old
        }
        if isinstance(value, Source) and _is_file(value.path):
            changes["path"] = str(_absolute(value.path, (*key, "path"), tree, environ))
        if isinstance(value, Checkpoints) and value.mirror is not None and not _REMOTE.match(value.mirror):
            changes["mirror"] = str(_absolute(value.mirror, (*key, "mirror"), tree, environ))
        if isinstance(value, Model) and value.name.startswith(("./", "../", "~/")):
            changes["name"] = str(_absolute(value.name, (*key, "name"), tree, environ))
        return value.model_copy(update=changes) if changes else value
    if isinstance(value, dict) and any(isinstance(item, Path | Section) for item in value.values()):
        return {name: _rebased(item, (*key, name), tree, environ) for name, item in value.items()}
    if isinstance(value, list) and any(isinstance(item, Section) for item in value):
        return [_rebased(item, (*key, at), tree, environ) for at, item in enumerate(value)]
    if isinstance(value, Path):
        return _absolute(str(value), key, tree, environ)
    return value


def _absolute(text: str, key: tuple[str | int, ...], tree: Node, environ: Mapping[str, str]) -> Path:
    folder = Path.cwd() if key == ("output_dir",) else tree.nearest(key).origin.folder
    if text.startswith("~/") and environ.get("HOME"):
        return Path(environ["HOME"]) / text[2:]
    return Path(os.path.normpath(folder.absolute() / text))


def _is_file(path: str) -> bool:
    """Whether a source is a local path, and not a URL or a function."""
    return not _REMOTE.match(path) and not _FUNCTION.fullmatch(path)


def _output_over_data(config: RunConfig, tree: Node) -> Iterable[Problem]:
    for key, source in _sources(config.data):
        if not _is_file(source.path):
            continue
        # Up to the first wildcard: `data/*.jsonl` reads the folder `data`.
        path = Path(re.split(r"[*?\[]", source.path)[0].rstrip("/") or "/")
        inside = path.is_relative_to(config.output_dir)
        # OUTPUT_DIR/RUN/data/... is what an earlier run built, and a fine source; inputs/... came from a mirror.
        built = inside and path.relative_to(config.output_dir).parts[1:2] in (("data",), ("inputs",))
        if inside and not built:
            place = tree.nearest(("output_dir",)) if tree.child("output_dir") else tree.nearest(key)
            yield Problem(
                "output_dir",
                place.origin.place,
                f"`output_dir` ({config.output_dir}) contains the data of `{dotted(key)}` ({source.path}); a run could "
                "overwrite what it learns from",
                "choose an output_dir that holds nothing but runs",
            )


def _sources(data: Data) -> Iterable[tuple[tuple[str | int, ...], Source]]:
    for name in ("train", "validation"):
        source = getattr(data, name)
        if source is not None:
            yield ("data", name, "path"), source
    for name, source in data.test.items():
        yield ("data", "test", name, "path"), source


def _notes(config: RunConfig, tree: Node) -> Iterable[Finding]:
    train = tree.child("train")
    if train is None or config.train.max_steps < 1:
        return
    steps, epochs = train.child("max_steps"), train.child("num_train_epochs")
    # Steps laid over the epochs of a recipe below are a choice; both in one file are a question.
    if steps is not None and epochs is not None and steps.origin.file == epochs.origin.file:
        yield Finding(
            "config",
            "info",
            f"`train.max_steps: {config.train.max_steps}` wins over "
            f"`train.num_train_epochs: {config.train.num_train_epochs:g}`",
            place=epochs.origin.place,
            remedy="keep one of the two; train.max_steps: -1 counts epochs",
        )


def _label(key: tuple[str | int, ...], tree: Node) -> str:
    node = tree
    for part in key:
        below = node.child(part)
        if below is None:
            # What is not written below a written list of plain values does not exist; anything else is a default.
            return "default"
        node = below
    return node.origin.label
