"""What a recipe leaves to its surroundings: `${VARIABLE}`, a bucket's name, and secrets, which it may only refer to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.config.read import Node, resolve_plain
from tunesmith.config.secrets import find_secret, is_secret_name, redact, secret_values
from tunesmith.errors import ConfigError

BUCKET = "YOUR-BUCKET-NAME"
BUCKET_VARIABLE = "TUNESMITH_BUCKET"

_VARIABLE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the settings."""

    key: str
    place: str
    message: str
    remedy: str

    def error(self) -> ConfigError:
        return ConfigError(self.message, place=self.place, remedy=self.remedy)


class _Unfilled(Exception):
    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


def expand_text(text: str, environ: Mapping[str, str], key: str, place: str) -> str:
    """The text with `${NAME}` and `${NAME:-default}` filled from `environ`; `$${` stands for a plain `${`.

    Raises:
        ConfigError: a variable is not set.
    """
    try:
        return _fill(text, environ)
    except _Unfilled as error:
        raise Problem(key, place, f"`{key}`: {error.message}", error.remedy).error() from None


def expand(node: Node, environ: Mapping[str, str], key: str = "") -> tuple[Node, list[Problem]]:
    """The tree with every string filled in, and what could not be."""
    problems: list[Problem] = []
    if isinstance(node.value, dict):
        members = {}
        for name, child in node.value.items():
            inner = f"{key}.{name}" if key else name
            try:  # a name the user chooses may be a variable too: `databases: {${TUNESMITH_DATABASE}: null}`
                name = _fill(name, environ)
            except _Unfilled as error:
                problems.append(Problem(inner, child.origin.place, f"`{inner}`: {error.message}", error.remedy))
            members[name], found = expand(child, environ, inner)
            problems += found
        return Node(members, node.origin), problems
    if isinstance(node.value, list):
        items = []
        for index, child in enumerate(node.value):
            item, found = expand(child, environ, f"{key}.{index}")
            items.append(item)
            problems += found
        return Node(items, node.origin), problems
    if not isinstance(node.value, str):
        return node, problems
    try:
        text = _fill(node.value, environ)
    except _Unfilled as error:
        return node, [Problem(key, node.origin.place, f"`{key}`: {error.message}", error.remedy)]
    secret = find_secret(text)
    if not secret and any(value in text for value in secret_values(environ)):
        secret = "what an environment variable keeps secret"
    if not secret and is_secret_name(key.rpartition(".")[2]) and text and not text.startswith("env:"):
        secret = "a secret"
    if secret:
        return node, [_secret_written(node, key, secret, in_file=text == node.value)]
    if text == node.value:
        return node, problems
    # A plain `${STEPS}` means what its content would mean, had it been written there.
    filled = Node(resolve_plain(text), node.origin, text) if node.text is not None else Node(text, node.origin)
    return filled, problems


def _fill(text: str, environ: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        if match.group(1) is None:
            return "${"
        name = _NAME.fullmatch(match.group(1))
        if name is None:
            raise _Unfilled(
                f"{redact(match.group())} does not name a variable",
                "write ${NAME}, or $${ for a plain dollar and brace",
            )
        found = environ.get(name.group(1)) or name.group(2)
        if found is None:
            raise _Unfilled(
                f"the environment variable {name.group(1)} is not set", f"export {name.group(1)}=... before the command"
            )
        return found

    filled = _VARIABLE.sub(value, text)
    if BUCKET in filled:
        bucket = environ.get(BUCKET_VARIABLE)
        if not bucket:
            raise _Unfilled(
                f"the placeholder {BUCKET} was never replaced",
                f"export {BUCKET_VARIABLE}=name-of-your-bucket, or write the name in its place",
            )
        filled = filled.replace(BUCKET, bucket)
    return filled


def _secret_written(node: Node, key: str, kind: str, *, in_file: bool) -> Problem:
    if "Hugging Face" in kind:
        remedy = "remove it here and export HF_TOKEN, which the Hub's client reads itself"
    else:
        variable = "TUNESMITH_POSTGRES_URL" if "://" in str(node.value) else "NAME"
        remedy = f"put it in an environment variable and write `env:{variable}` here"
    file = node.origin.file
    if in_file and file is not None and file.stat().st_mode & 0o044:
        remedy += f"; {file.name} can be read by other users of this machine, so replace that secret too"
    return Problem(
        key,
        node.origin.place,
        f"`{key}` holds {kind}; settings are saved in every run and shared, so they never hold secrets",
        remedy,
    )
