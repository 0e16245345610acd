"""A config as text: to save in a run, and to read with the origin of every value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from tunesmith.config.load import Loaded
from tunesmith.config.read import resolve_plain
from tunesmith.config.schema import RunConfig
from tunesmith.config.secrets import redact
from tunesmith.config.shape import dotted, leaves


def dump_config(config: RunConfig) -> str:
    """The settings as a recipe: every one written out, paths absolute, `load_config` gives the same config back."""
    return "# Resolved settings; itself a recipe.\n" + write_yaml(config.model_dump(mode="json"))


def show_lines(loaded: Loaded) -> Iterator[tuple[str, str, str]]:
    """(dotted key, value as YAML, origin) for every setting, in the order of the schema."""
    plain = loaded.config.model_dump(mode="json")
    for key, _ in leaves(loaded.config):
        value: Any = plain
        for part in key:
            value = value[part]
        name = dotted(key)
        yield name, redact(write_value(value)), loaded.origins[name]


def write_value(value: Any) -> str:
    """A value in YAML, on one line, such that our reader gives it back."""
    return _dump(value, flow=True).removesuffix("\n...\n").removesuffix("\n")


def write_yaml(value: Any) -> str:
    """A mapping in YAML, one setting a line, such that our reader gives it back."""
    return _dump(value, flow=False)


class Variable(str):
    """`${NAME}`, written so that it is expanded; any other text is written so that it is not."""


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as a tree."""
    tree: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return tree


def commented_lines(settings: Mapping[str, Any], comments: Mapping[str, str]) -> Iterator[str]:
    """The lines of a recipe with the given dotted settings, and beside them the comments that say something new."""

    def below(section: Mapping[str, Any], prefix: str, indent: str) -> Iterator[str]:
        for name, value in section.items():
            if isinstance(value, dict) and value:
                yield f"{indent}{name}:"
                yield from below(value, f"{prefix}{name}.", indent + "  ")
            else:
                text = str(value) if isinstance(value, Variable) else write_value(value)
                comment = comments.get(prefix + name, prefix + name)
                yield f"{indent}{name}: {text}" + (f"  # {one_line(comment)}" if comment != prefix + name else "")

    yield from below(nested(settings), "", "")


def one_line(text: str) -> str:
    """The text as a comment: short, on one line, with nothing that a YAML file may not hold."""
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line if len(line) <= 200 else line[:197] + "..."


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader, which follows YAML 1.2, would not take for text, and spells out shared values."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    text = text.replace("${", "$${")
    return dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if isinstance(resolve_plain(text), str) else '"'
    )


_Dumper.add_representer(str, _text)


def _dump(value: Any, *, flow: bool) -> str:
    return str(
        yaml.dump(
            value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=float("inf")
        )
    )
